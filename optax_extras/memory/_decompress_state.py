"""The state that an optimizer has without codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax

from optax_extras._core import checks
from optax_extras._core.inner import as_transformation
from optax_extras.codecs import Codec
from optax_extras.memory._coded import check_codecs, codings_of
from optax_extras.memory._compress_state import CompressState, compress_state
from optax_extras.memory._widening import widened


def decompress_state(
    state: CompressState,
    inner: optax.GradientTransformation,
    codecs: Mapping[str, Codec | None],
    params: optax.Params,
) -> optax.OptState:
    """The state of the inner transformation that a compressed one stands for.

    Use it to go on without compression from a checkpoint of a run with it, or to look
    at the moments.

    Args:
      state: that of `compress_state`.
      inner: the transformation that it is around.
      codecs: its codecs. Whether one is ``signed`` cannot be told from a state.
      params: the parameters, or arrays of their structure, shapes and dtypes.

    Returns:
      A state for ``inner``, in the dtypes that its ``init`` gives.

    Raises:
      ValueError: the state is not one of these arguments.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax.numpy as jnp, optax, optax_extras
      >>> from optax_extras.codecs import bfloat16
      >>> inner, codecs = optax.adam(0.1), {"nu": bfloat16()}
      >>> params = jnp.ones(3)
      >>> optimizer = optax_extras.compress_state(inner, codecs)
      >>> _, state = optimizer.update(params, optimizer.init(params), params)
      >>> plain = optax_extras.decompress_state(state, inner, codecs, params)
      >>> plain[0].nu.dtype, bool(abs(plain[0].nu[0] - 0.001) < 1e-5)
      (dtype('float32'), True)
    """
    inner = as_transformation("inner", inner)
    by_pattern = check_codecs(codecs)
    checks.check_inexact("params", params)
    if not isinstance(state, CompressState):
        raise TypeError(f"`state` must be one of `compress_state`, got {state!r}")
    expected = jax.eval_shape(compress_state(inner, codecs).init, params)
    if _shapes(state) != _shapes(expected):
        raise ValueError(
            "`state` must be that of `inner`, `codecs` and `params`, with arrays"
            f" {_shapes(expected)}, got {_shapes(state)}"
        )
    wide = jax.eval_shape(inner.init, widened(params))
    own = jax.eval_shape(inner.init, params)
    treedef: Any = jax.tree.structure(wide)
    codes = treedef.flatten_up_to(state.inner_state)
    codings = codings_of(wide, params, by_pattern)
    arrays = [
        x if coding is None else coding.decode(x)
        for x, coding in zip(codes, codings, strict=True)
    ]
    return jax.tree.map(
        lambda x, like: x if x.dtype == like.dtype else x.astype(like.dtype),
        treedef.unflatten(arrays),
        own,
    )


def _shapes(state: CompressState) -> Any:
    return jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", state.inner_state)
