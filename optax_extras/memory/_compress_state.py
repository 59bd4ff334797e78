"""An optimizer whose state is kept in fewer bytes.

Dettmers, Lewis, Shleifer and Zettlemoyer 2022, "8-bit optimizers via block-wise
quantization", arXiv 2110.02861.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optax_extras._core import checks, gaussian
from optax_extras._core.inner import as_transformation
from optax_extras._core.missing import update_without_missing
from optax_extras._core.opaque import barrier
from optax_extras.codecs import Codec
from optax_extras.memory._coded import Coding, check_codecs, codings_of
from optax_extras.memory._rounding_words import rounding_words
from optax_extras.memory._storing import Value, run
from optax_extras.memory._widening import narrowed, widened
from optax_extras.typing import KeyLike


class CompressState(NamedTuple):
    """State of `compress_state`."""

    # Not `count`: `optax.tree.get` and `set` are to find the optimizer's.
    step: jax.Array  # steps so far; int32[]
    key: jax.Array  # words of the user's key, the same at every step; uint32[2]
    inner_state: optax.OptState  # with codes in place of the arrays chosen


def compress_state(
    inner: optax.GradientTransformation,
    codecs: Mapping[str, Codec | None],
    *,
    key: KeyLike = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps arrays of an optimizer's state in 16, 8 or 4 bits.

    Use it where the state of the optimizer is what does not fit: Adam takes 8 bytes for
    each parameter in float32, and 2 with both moments in 8 bits. Moments of a tensor
    that has few elements, such as a bias or the scale of a norm, are better left as
    they are. Factored methods, such as `optax.adafactor`, have little to compress.

    At each step the arrays that ``codecs`` choose are decoded, ``inner`` makes its
    step in float32, and the new arrays are encoded as soon as they are known. The
    update is computed from what was stored, where ``inner`` computes it from its new
    state: XLA then needs no other copy of the state. That is not so where both come out
    of one `jax.lax.cond`, as those of `optax.MultiSteps` do, which belongs outside, as
    does the clipping to a global norm: it is written to memory anyway. An array that
    ``inner`` does not change keeps its code.

    Parameters and gradients in half precision are float32 to ``inner``, and so is the
    state, before it is encoded. Updates have the dtype of the parameters.

    The bits that decide on rounding are a pure function of the key, the step, the path
    of the array in the state of ``inner`` and the index of the element: neither the
    mesh, nor other leaves, nor `jax.jit`, nor a restart changes them.

    Derivatives of a run do not pass a code. Inside `jax.shard_map`, shards of one array
    are rounded with the same bits.

    Args:
      inner: the transformation whose state to compress.
      codecs: maps regular expressions to codecs from `optax_extras.codecs`, or to None
        for arrays to leave as they are. An expression chooses the arrays whose path in
        the state of ``inner`` it matches whole, such as ``0/mu/layers/0/kernel``, and
        those that are in a field whose name it matches whole, such as ``mu``. The first
        one that matches an array counts. Scalars and integers are never chosen.
      key: an int, a key from `jax.random.key`, or the uint32 words of one, from which
        the bits for rounding are drawn. A second transformation of this kind needs a
        key of its own: with one key, both draw the same numbers.
        ``update(..., key=k)`` uses ``k`` instead for that step.

    Returns:
      A gradient transformation. Its state is that of ``inner`` with codes in place of
      the chosen arrays, and 12 bytes.

    Raises:
      ValueError: an expression is none; at ``init``, one is the first to match no
        array; at ``update``, the updates do not have the structure and shapes of the
        parameters, or ``inner`` returns a state of another structure than its ``init``.
      TypeError: an argument has the wrong type, or a gradient leaf is not
        floating-point or complex.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras.codecs import blockwise
      >>> optimizer = optax_extras.compress_state(
      ...     optax.adam(0.1), {"mu": blockwise(), "nu": blockwise(signed=False)}
      ... )
      >>> loss = lambda x: jnp.sum(x**2)
      >>> params = jnp.linspace(1.0, 2.0, 512)
      >>> state = optimizer.init(params)
      >>> sum(x.nbytes for x in jax.tree.leaves(state.inner_state))
      1044
      >>> for _ in range(100):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(loss(params) < 0.1)
      True

    References:
      Dettmers et al. 2022, "8-bit optimizers via block-wise quantization", arXiv
      2110.02861
    """
    inner = as_transformation("inner", inner)
    words = gaussian.key_words(key)
    by_pattern = check_codecs(codecs)

    def init(params: optax.Params) -> CompressState:
        checks.check_inexact("params", params)
        own, step = jnp.array(words, jnp.uint32), jnp.zeros((), jnp.int32)
        # Arrays, where `inner` may have numbers of Python.
        inner_state = jax.tree.map(_as_array, inner.init(widened(params)))
        treedef: Any
        arrays, treedef = jax.tree.flatten(inner_state)
        codings = codings_of(inner_state, params, by_pattern)
        bits = _words(codings, own, step)
        for i, coding in enumerate(codings):
            if coding is not None:
                arrays[i] = coding.encode_alone(arrays[i], bits[i])
        return CompressState(step, own, treedef.unflatten(arrays))

    def update(
        updates: optax.Updates,
        state: CompressState,
        params: optax.Params | None = None,
        *,
        key: KeyLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CompressState]:
        checks.check_updates(updates, params)
        sample = gaussian.step_words(state.key, key)
        if key is not None:
            extra_args["key"] = key
        step = optax.safe_increment(state.step)
        like = updates if params is None else params
        shapes = jax.eval_shape(inner.init, widened(like))
        codings = codings_of(shapes, like, by_pattern)
        bits = _words(codings, sample, step)
        treedef: Any = jax.tree.structure(shapes)
        new = treedef.flatten_up_to(state.inner_state)
        old = [
            Value(x) if coding is None else coding.value(x)
            for x, coding in zip(new, codings, strict=True)
        ]
        wide = widened((updates, params))

        def advance(inner_state: Any, wide: Any) -> Any:
            updates, params = wide
            new_updates, inner_state = update_without_missing(
                inner, updates, inner_state, params, **extra_args
            )
            return inner_state, new_updates

        decoded = treedef.unflatten([x.value for x in old])
        traced, results = jax.make_jaxpr(advance, return_shape=True)(decoded, wide)
        if jax.tree.structure(results[0]) != treedef:
            raise ValueError(
                "`inner` must keep the structure of its state, got"
                f" {jax.tree.structure(results[0])} after {treedef}"
            )

        def store(i: int, x: Value) -> Value:
            coding = codings[i]
            assert coding is not None
            new[i] = coding.encode(x, bits[i])
            return coding.value(new[i], x.value)

        # An array that is returned as it came keeps its code.
        jaxpr = traced.jaxpr
        stores = {
            i: functools.partial(store, i)
            for i in bits
            if jaxpr.outvars[i] is not jaxpr.invars[i]
        }
        others = [
            Value(x, functools.partial(_widened_again, narrow))
            for x, narrow in zip(
                *map(jax.tree.leaves, (wide, (updates, params))), strict=True
            )
        ]
        values = run(traced, [*old, *others], stores)
        for i, coding in enumerate(codings):
            if coding is None:
                new[i] = values[i].value
        new_updates = jax.tree.unflatten(
            jax.tree.structure(results[1]), [x.value for x in values[len(new) :]]
        )
        return narrowed(new_updates, like), CompressState(
            step, state.key, treedef.unflatten(new)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _words(
    codings: Sequence[Coding | None], key: jax.Array, step: jax.Array
) -> dict[int, jax.Array]:
    """The random words of each array that is coded, by its place."""
    paths = [coding and coding.path for coding in codings]
    return rounding_words(key, step, paths, "state")


def _widened_again(x: Any) -> Any:
    # The barrier is before: XLA would write what is behind it, as wide as it is there.
    return widened(barrier(x))


def _as_array(x: Any) -> Any:
    return jnp.asarray(x) if isinstance(x, (int, float, complex)) else x
