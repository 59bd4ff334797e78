"""Workers that train alone for some steps, and then agree (DiLoCo, 2311.08105)."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_extras._core import checks
from optax_extras._core.axes import names_of
from optax_extras._core.leaves import is_none
from optax_extras._core.placement import PerWorker, is_placed
from optax_extras.communication._agreement import (
    Agreement,
    Exchange,
    Worker,
    all_finite,
)
from optax_extras.communication._averager import (
    MIN_SIZE,
    Averager,
    agreed,
    weight_of,
)
from optax_extras.communication._fragments import divided
from optax_extras.communication._guards import check_axis, check_local
from optax_extras.communication._own_step import own_step
from optax_extras.communication._parameters import as_own, own_params, repeated
from optax_extras.communication._workers import per_worker_zeros
from optax_extras.compressors import Compressor, Dense
from optax_extras.typing import AxisName, Scalar


class LocalUpdatesState(NamedTuple):
    """State of `local_updates`; its tuples have an entry for each fragment."""

    count: jax.Array  # type: ignore[assignment]  # steps so far; int32[]
    skipped: PerWorker  # steps of a worker that were not finite; int32[workers]
    adopted: jax.Array  # whether the last step set the reference; bool[fragments]
    reference: tuple[Any, ...]  # the parameters that the workers agreed on
    inner: PerWorker  # state of the inner transformation; (workers, ...)
    outer: tuple[Any, ...]  # states of the outer transformation
    weight: PerWorker  # of a worker's steps in a round; float32[workers, fragments]
    residual: tuple[PerWorker, ...]  # what was not sent; float32, (workers, *shape)
    compressor: tuple[Any, ...]  # the compressor's own states


def local_updates(
    inner: optax.GradientTransformation,
    outer: optax.GradientTransformation,
    every: int,
    *,
    axis_name: AxisName,
    workers: int,
    compressor: Compressor | None = None,
    fragments: int = 1,
    decay: Scalar = 1.0,
    average: Literal["all", "senders"] = "all",
    min_size: int = MIN_SIZE,
) -> optax.GradientTransformationExtraArgs:
    r"""Lets workers train alone, and exchanges what they have learned every H steps.

    Use it for data-parallel training over links that are too slow for an exchange at
    every step: H steps take the bytes of one. `diloco`, `sparse_loco` and `fedavg` are
    this with the settings of their papers. On faster links, `compressed_mean` keeps
    the workers together at every step.

    Each worker has parameters :math:`\theta_i` of its own and trains them with
    ``inner``. At each H-th step, H = ``every``, it sends what it has learned since the
    reference :math:`\bar\theta` was set; ``outer`` takes the mean as a gradient and
    moves the reference, which all workers adopt. With compressor C, residual e and N
    workers:

    .. math::

        p_i = \beta e_i + \bar\theta - \theta_i, \qquad e_i' = p_i - C(p_i), \qquad
        \bar\theta' = \bar\theta + \mathrm{outer}\Big(\frac{1}{N} \sum_i C(p_i)\Big),
        \qquad \theta_i' = \bar\theta'

    Nothing is sent in the other steps. The states of ``inner`` stay with their workers.

    With ``fragments``, parts of the parameters of about equal size are exchanged in
    turn, fragment 0 at each H-th step and fragment j of F another :math:`\lfloor jH/F
    \rfloor` steps later, so that the largest message is about F times shorter
    (Streaming DiLoCo). Layers, which are the leaves of one parent node, are dealt out
    to fragments like cards.

    `worker_params` makes the parameters of all workers, `worker_specs` their specs and
    those of the state. Call ``init`` on the plain parameters, outside of
    `jax.shard_map`, and ``update`` inside. The update of a step with an exchange leads
    to the new reference; add it with `apply_local_updates`, so that all workers have
    the same bits. `outer_params` of the state are the parameters to evaluate and save.

    Workers may be unequal: ``update(..., weight=w)`` gives the weight of this worker's
    step, such as the number of its examples; it is 1 by default, and 0 for a worker
    that takes no part: its parameters and its state of ``inner`` wait. A weight below 0
    or not finite counts as 0. A worker counts in the mean of a round with the sum of
    its weights, and one without any sends nothing and keeps its residual, but adopts
    the new reference.

    A worker takes no part in a step in which its gradient is not finite. A worker whose
    parameters are not finite is left out of the exchange, and adopts the
    reference. Where no worker takes part, or a sum over them overflows, there is no
    exchange, and the workers train on until the next one. If the parameters of all
    workers are lost, start again from `outer_params`.

    *Differences from the sources*: what was not sent is kept; the messages of
    DiLoCo are dense, and leave nothing. In Streaming DiLoCo, workers train on while a
    message travels, and mix what arrives into their parameters; here it is applied at
    once.

    Args:
      inner: trains the parameters of a worker; any transformation that exchanges
        nothing, with the learning rate.
      outer: moves the reference; any transformation, with its learning rate.
        ``optax.sgd(1.0)`` sets the reference to the mean of the parameters.
      every: H, at least 1.
      axis_name: the axis of the workers, or a tuple of axes.
      workers: N, the size of that axis.
      compressor: one of `optax_extras.compressors`, or your own `Compressor`; None for
        dense means in float32.
      fragments: F, at least 1 and at most H.
      decay: β in [0, 1], the share of the residual that the next exchange adds.
      average: as for `compressed_mean`: ``"all"``, or ``"senders"``.
      min_size: leaves of fewer elements are exchanged densely.

    Returns:
      A gradient transformation. Its state is the reference, the state of ``outer`` and
      on each worker that of ``inner``, and with ``compressor`` a float32 copy of the
      compressed leaves.

    Raises:
      ValueError: an argument is out of its range; at ``init``, it was called inside of
        `jax.shard_map`, ``inner`` exchanges something, or the parameters are those of
        `worker_params` or have fewer layers than ``fragments``; at ``update``, there
        are no parameters, the weight is not one number, the axis is not bound or has
        another size, or gradients were reduced already.
      TypeError: an argument has the wrong type.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, optax_extras
      >>> from jax.sharding import PartitionSpec as P
      >>> workers = jax.device_count()
      >>> mesh = jax.make_mesh((workers,), ("data",))
      >>> group = {"axis_name": "data", "workers": workers}
      >>> tx = optax_extras.local_updates(
      ...     optax.adam(0.1), optax.sgd(1.0), every=10, **group
      ... )
      >>> def loss(params, x):
      ...     return jnp.sum((params - x) ** 2)
      >>> def step(params, state, x):
      ...     value, grads = optax_extras.local_value_and_grad(loss, "data")(params, x)
      ...     updates, state = tx.update(grads, state, params)
      ...     return optax_extras.apply_local_updates(params, updates, state), state
      >>> with jax.set_mesh(mesh):
      ...     state = tx.init(jnp.zeros(3))
      ...     params = optax_extras.worker_params(jnp.zeros(3), "data", workers=workers)
      ...     specs = optax_extras.worker_specs((params, state), "data")
      ...     step = jax.jit(
      ...         jax.shard_map(step, in_specs=(*specs, P()), out_specs=specs)
      ...     )
      ...     for _ in range(100):
      ...         params, state = step(params, state, jnp.ones(3))
      >>> bool(jnp.abs(optax_extras.outer_params(state) - 1).max() < 0.1)
      True

    References:
      Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language
      Models", arXiv 2311.08105

      Douillard et al. 2025, "Streaming DiLoCo with overlapping communication: Towards a
      Distributed Free Lunch", arXiv 2501.18512

      Stich 2018, "Local SGD Converges Fast and Communicates Little", arXiv 1805.09767
    """
    inner, outer = _checked("inner", inner), _checked("outer", outer)
    every = checks.positive_integer("every", every)
    fragments = checks.positive_integer("fragments", fragments)
    if fragments > every:
        raise ValueError(
            f"`fragments` must be at most `every`, because each has a step of its own,"
            f" got {fragments} and {every}"
        )
    decay = checks.decay("decay", decay, or_one=True)
    if compressor is None and isinstance(decay, float) and decay != 1:
        raise ValueError(
            "`decay` must be 1 without a `compressor`, which leaves nothing, got"
            f" {decay}"
        )
    averager = Averager.make(
        Dense() if compressor is None else compressor,
        axis_name,
        workers,
        average,
        min_size,
    )
    if compressor is None:
        averager = dataclasses.replace(averager, min_size=sys.maxsize)
    exchange = Exchange(averager, outer, every, decay)
    names = names_of(axis_name)

    def init(params: optax.Params) -> LocalUpdatesState:
        checks.check_inexact("params", params)
        if _has_workers(params):
            raise ValueError(
                "`params` must be plain parameters at `init`, got those of each worker:"
                " give `worker_params` to `update` alone"
            )
        parts = divided(params, fragments)
        large = [averager.large(part) for part in parts]
        of_inner = inner.init(params)
        if _has_workers(of_inner):
            raise ValueError(
                "`inner` must not exchange anything itself, but its state has parts"
                " that belong to workers"
            )
        return LocalUpdatesState(
            count=jnp.zeros((), jnp.int32),
            skipped=repeated(jnp.zeros((), jnp.int32), axis_name, workers),
            adopted=jnp.zeros(fragments, bool),
            reference=jax.tree.map(jnp.copy, parts),
            inner=repeated(of_inner, axis_name, workers),
            outer=tuple(jax.tree.map(jnp.copy, outer.init(part)) for part in parts),
            weight=repeated(jnp.zeros(fragments, jnp.float32), axis_name, workers),
            residual=tuple(per_worker_zeros(x, axis_name, workers) for x in large),
            compressor=tuple(averager.init(x) for x in large),
        )

    def update(
        updates: optax.Updates,
        state: LocalUpdatesState,
        params: optax.Params | None = None,
        *,
        weight: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LocalUpdatesState]:
        if params is None:
            raise ValueError("`params` must be given to `update`")
        check_axis("axis_name", axis_name, averager.group.workers)
        checks.check_inexact("updates", updates)
        is_plain = not isinstance(updates, PerWorker)
        grads, theta = (
            (as_own(tree) if not isinstance(tree, PerWorker) else tree).value
            for tree in (updates, params)
        )
        treedef: Any = jax.tree.structure(grads, is_leaf=is_none)
        expected: Any = jax.tree.structure(theta, is_leaf=is_none)
        if treedef != expected:
            raise ValueError(
                "`updates` must have the structure of `params`, got"
                f" {treedef} for {expected}"
            )
        flat: Any = jax.tree.leaves_with_path(grads, is_leaf=is_none)
        check_local(flat, axis_name)
        finite = agreed(all_finite(g for _, g in flat if g is not None), axis_name)
        share = weight_of(1 if weight is None else weight, names)
        share = jnp.where(finite & (share > 0) & jnp.isfinite(share), share, 0)
        moved, inner_state = own_step(
            partial(inner.update, **extra_args),
            share > 0,
            *(grads, state.inner.value, theta),
        )
        steps = jax.tree.leaves(moved, is_leaf=is_none)
        places = treedef.flatten_up_to(theta)
        worker = Worker([path for path, _ in flat], places, steps)
        agreement = Agreement(
            adopted=jnp.zeros_like(state.adopted),
            reference=state.reference,
            outer=state.outer,
            weight=PerWorker(state.weight.value + share),
            residual=state.residual,
            compressor=state.compressor,
        )
        exchanges = [
            partial(exchange, number, worker, state.count // every)
            for number in range(fragments)
        ]
        agreement = _in_turn(exchanges, every, state.count, agreement)
        for adopted, part in zip(agreement.adopted, agreement.reference, strict=True):
            for i, leaf in enumerate(treedef.flatten_up_to(part)):
                if leaf is not None and steps[i] is not None:
                    jump = (leaf[jnp.newaxis] - places[i]).astype(steps[i].dtype)
                    steps[i] = jnp.where(adopted, jump, steps[i])
        new_state = LocalUpdatesState(
            count=optax.safe_increment(state.count),
            skipped=PerWorker(state.skipped.value + jnp.where(finite, 0, 1)),
            inner=PerWorker(inner_state),
            **agreement._asdict(),
        )
        found = PerWorker(treedef.unflatten(steps))
        return own_params(found) if is_plain else found, new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _checked(
    name: str, tx: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """A transformation, which takes extra arguments then."""
    if not all(callable(getattr(tx, part, None)) for part in ("init", "update")):
        raise TypeError(f"`{name}` must be a GradientTransformation, got {tx!r}")
    return optax.with_extra_args_support(tx)


def _in_turn(
    exchanges: list[Any], every: int, count: jax.Array, agreement: Agreement
) -> Agreement:
    """The agreement behind the exchange of this step, if it has one."""
    if every == 1:
        found: Agreement = exchanges[0](agreement)
        return found
    phase = (count + 1) % every
    turns = [phase == i * every // len(exchanges) for i in range(len(exchanges))]
    turn = sum(jnp.where(is_now, i, 0) for i, is_now in enumerate(turns, 1))
    found = lax.switch(turn, [lambda same: same, *exchanges], agreement)
    return found


def _has_workers(tree: Any) -> bool:
    """Whether a tree has arrays that belong to workers."""
    return any(map(is_placed, jax.tree.leaves(tree, is_leaf=is_placed)))
