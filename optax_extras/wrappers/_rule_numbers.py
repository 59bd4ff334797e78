"""What a rule is at a step, and the update of a leaf by it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_extras._core import checks, dtypes, leaves
from optax_extras.wrappers._rule import FOREVER, Rule


class Moment(NamedTuple):
    """What all leaves share at a step."""

    count: jax.Array  # type: ignore[assignment]  # int32[]
    rate: jax.Array  # the learning rate; float32[] or float64[]
    weight_decay: Any  # of leaves whose rule has none: a number or a schedule
    dtype: Any  # of scalars


def updated_leaf(direction: Any, param: Any, rule: Rule, at: Moment) -> Any:
    """−rate·multiplier·(direction + decay·param), rounded once, or −0 while frozen."""
    until = rule.frozen_until
    is_number = isinstance(until, int)
    if is_number and until == FOREVER:
        return leaves.no_update(direction)
    ndim = jnp.ndim(direction)
    factor = -(at.rate * _factor(rule.lr_multiplier, at, ndim))
    weight = at.weight_decay if rule.weight_decay is None else rule.weight_decay
    if checks.is_zero(weight):
        update = leaves.scaled(direction, factor)
    elif param is None:
        raise ValueError("`params` must be given to `update` with `weight_decay`")
    else:
        update = _descent(direction, param, factor, _factor(weight, at, ndim))
    if is_number and until == 0:
        return update
    counts = _fitted(jnp.asarray(until), ndim)
    is_frozen = (at.count < counts) | (counts == FOREVER)  # a count stays at its end
    return jnp.where(is_frozen, leaves.no_update(direction), update)


def _descent(
    direction: Any, param: Any, factor: jax.Array, weight: jax.Array
) -> jax.Array:
    dtype = jnp.result_type(direction)
    compute = dtypes.compute_dtype(dtype)
    real = dtypes.real_dtype(compute)
    factor, weight = factor.astype(real), weight.astype(real)
    update: jax.Array = leaves.by_part(
        lambda d, p: factor * (d + weight * p),
        jnp.asarray(direction).astype(compute),
        jnp.asarray(param).astype(compute),
    )
    return update.astype(dtype)


def _factor(value: Any, at: Moment, ndim: int) -> jax.Array:
    """A number, an array or a schedule at a step, 0-d or of the leaf's rank."""
    now = jnp.asarray(value(at.count) if callable(value) else value)
    return _fitted(now.astype(at.dtype), ndim)


def _fitted(x: jax.Array, ndim: int) -> jax.Array:
    """An array with axes of length 1 before its own, where ranks may have to agree."""
    return x.reshape((1,) * (ndim - x.ndim) + x.shape) if x.ndim else x
