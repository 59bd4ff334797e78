"""Checks of arguments and gradients, with one style of message.

Python and NumPy numbers are checked when a transformation is made. JAX arrays are
checked for shape and dtype only: reading a value would block until the device has
computed it, and a tracer has no value.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from optax_extras._core.leaves import is_none

P = ParamSpec("P")
T = TypeVar("T")


def number(
    name: str,
    value: Any,
    interval: str,
    inside: Callable[[float], bool],
) -> Any:
    """Returns `value` as a float, or unchanged when it is a JAX array.

    Args:
      name: the argument's name, for the message.
      value: a Python or NumPy number, or a 0-d array.
      interval: the allowed range in words, such as `in [0, 1)`.
      inside: returns whether a float is in that range; must be False for NaN.
    """
    if isinstance(value, (np.ndarray, jax.Array)):
        if value.ndim:
            raise ValueError(
                f"`{name}` must be a scalar, got an array of shape {value.shape}"
            )
        if not any(jnp.issubdtype(value.dtype, t) for t in (np.floating, np.integer)):
            raise TypeError(f"`{name}` must be a real number, got dtype {value.dtype}")
    elif isinstance(value, bool) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"`{name}` must be a real number, got {value!r}")
    if isinstance(value, jax.Array):
        return value
    try:
        result = float(value)
    except OverflowError:  # an int too large for a float
        result = math.inf
    if not inside(result):
        raise ValueError(f"`{name}` must be {interval}, got {value}")
    return result


def nonnegative(name: str, value: Any, *, schedule: bool = False) -> Any:
    """Checks that a number is finite and at least 0.

    With `schedule=True`, a callable is returned unchecked.
    """
    if schedule and callable(value):
        return value
    return number(name, value, "finite and >= 0", lambda x: math.isfinite(x) and x >= 0)


def positive(name: str, value: Any) -> Any:
    """Checks that a number is finite and above 0."""
    return number(name, value, "finite and > 0", lambda x: math.isfinite(x) and x > 0)


def finite(name: str, value: Any) -> Any:
    """Checks that a number is finite."""
    return number(name, value, "finite", math.isfinite)


def decay(
    name: str, value: Any, *, schedule: bool = False, or_one: bool = False
) -> Any:
    """Checks that a decay rate is in [0, 1), and still below 1 in float32.

    With `schedule=True`, a callable is returned unchecked; with `or_one`, 1 is allowed.
    """
    if schedule and callable(value):
        return value
    dtype = getattr(value, "dtype", None)
    if dtype is not None and dtype in (jnp.bfloat16, jnp.float16):
        raise TypeError(
            f"`{name}` must be float32 or wider, got a {dtype} array, which rounds a"
            " decay near 1 (bfloat16 turns 0.999 into 1.0); with"
            " `optax.inject_hyperparams`, pass `hyperparam_dtype=jnp.float32`"
        )
    if or_one:
        return number(name, value, "in [0, 1]", lambda x: 0 <= x <= 1)
    return number(
        name,
        value,
        "in [0, 1) (after rounding to float32)",
        lambda x: 0 <= x < 1 - 2**-25,
    )


def positive_integer(name: str, value: Any) -> Any:
    """Checks that a number is a positive int32; of a JAX array only the dtype."""
    if not jnp.issubdtype(getattr(value, "dtype", type(value)), np.integer):
        raise TypeError(f"`{name}` must be an integer, got {value!r}")
    checked = number(
        name, value, ">= 1 and <= 2**31 - 1", lambda x: 1 <= x <= 2**31 - 1
    )
    return checked if isinstance(checked, jax.Array) else int(value)


def steps(name: str, value: Any) -> Any:
    """Checks that a number of steps is an integer of at least 1.

    `optax.inject_hyperparams` makes floating-point arrays of integers.
    """
    if isinstance(value, jax.Array):
        return number(name, value, ">= 1", lambda x: x >= 1)
    return positive_integer(name, value)


def nonnegative_integer(name: str, value: Any) -> int:
    """Checks that a number of steps is an int of at least 0."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"`{name}` must be an int, got {value!r}")
    if value < 0:
        raise ValueError(f"`{name}` must be >= 0, got {value}")
    return value


def is_zero(value: Any) -> bool:
    """Whether a checked number is a Python 0; the value of a JAX array is not read."""
    return isinstance(value, float) and value == 0


def flag(name: str, value: Any) -> bool:
    """Checks that an option is a bool: a string such as "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False, got {value!r}")
    return bool(value)


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Checks that an option is one of `choices`."""
    words = tuple(choices)
    if not (isinstance(value, str) and value in words):
        raise ValueError(f"`{name}` must be one of {words}, got {value!r}")
    return value


def floating_dtype(name: str, value: Any) -> Any:
    """Checks the dtype of a buffer: None or a real floating-point dtype."""
    if value is None:
        return None
    if isinstance(value, (np.ndarray, jax.Array)):
        raise TypeError(
            f"`{name}` must be a dtype, got an array; with `optax.inject_hyperparams`,"
            " name it in `static_args`"
        )
    try:
        dtype = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"`{name}` must be a dtype, got {value!r}") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`{name}` must be a floating-point dtype, got {dtype}")
    return jax.dtypes.canonicalize_dtype(dtype)


def requires_key(factory: Callable[P, T]) -> Callable[P, T]:
    """Makes a factory that draws say what to pass if it is called without `key`.

    optax's factories also take the key by position or as `seed`.
    """

    @functools.wraps(factory)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if "key" not in kwargs:
            instead = ", in place of `seed`" if "seed" in kwargs else ""
            raise TypeError(
                f"`{factory.__name__}` needs the keyword argument `key`{instead}: an"
                " int, or a key from `jax.random.key`"
            )
        return factory(*args, **kwargs)

    return call


def check_gradients(updates: Any, buffers: Any) -> None:
    """Raises unless `updates` are inexact and fit the state's `buffers`."""
    check_inexact("updates", updates)
    _check_structure(updates, buffers)


def check_updates(updates: Any, params: Any) -> None:
    """Raises unless `updates` are inexact and fit `params`, where these are given."""
    if params is None:
        check_inexact("updates", updates)
    else:
        check_gradients(updates, params)


def check_inexact(name: str, tree: Any) -> None:
    """Raises unless every leaf is floating-point or complex."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and isinstance(leaf, (float, complex)):
            continue
        # JAX does not promote floats of 8 bits or fewer to float32.
        if (
            dtype is None
            or not jnp.issubdtype(dtype, jnp.inexact)
            or dtype.itemsize < 2
        ):
            what = f"dtype {dtype}" if dtype is not None else repr(leaf)
            raise TypeError(
                f"`{name}` must have floating-point or complex leaves of 16 bits or"
                f" more, got {what} at {_show(path)}; exclude such leaves with"
                " `optax.masked`, or those of an Equinox model with `eqx.filter(model,"
                " eqx.is_inexact_array)` and `eqx.filter_grad`"
            )


def _check_structure(updates: Any, buffers: Any) -> None:
    """Raises unless `updates` fit the state's `buffers`; a gradient may be None."""
    gradients = _leaves_by_path(updates)
    expected = _leaves_by_path(buffers)
    for path in [*gradients, *expected]:
        if path not in expected or path not in gradients:
            where = "`updates`" if path in gradients else "the state"
            raise ValueError(
                f"`updates` must have the structure of the parameters given to `init`:"
                f" {_show(path)} is only in {where}"
            )
        gradient, buffer = gradients[path], expected[path]
        if buffer is None and gradient is not None:
            raise ValueError(
                f"`updates` must be None at {_show(path)}, where the parameter given to"
                f" `init` was None, got shape {np.shape(gradient)}"
            )
        if gradient is not None and np.shape(gradient) != np.shape(buffer):
            raise ValueError(
                f"`updates` must have the shapes of the parameters given to `init`: got"
                f" {np.shape(gradient)} at {_show(path)}, the state has"
                f" {np.shape(buffer)}"
            )
    treedef: Any = jax.tree.structure(updates, is_leaf=is_none)
    try:
        treedef.flatten_up_to(buffers)
    except ValueError as error:
        raise ValueError(
            "`updates` must have the structure of the parameters given to `init`, got"
            f" {jax.tree.structure(updates)} for a state of"
            f" {jax.tree.structure(buffers)}"
        ) from error


def _leaves_by_path(tree: Any) -> dict[Any, Any]:
    return dict(jax.tree.leaves_with_path(tree, is_leaf=is_none))


def _show(path: Any) -> str:
    return jax.tree_util.keystr(path) or "the root"
