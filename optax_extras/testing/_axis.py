"""A transformation inside `jax.shard_map`, as one that is called from outside of it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from optax_extras.testing._registry import NotApplicableError

_REPLICATED = PartitionSpec()


def bind(
    tx: optax.GradientTransformationExtraArgs,
    axis_name: str,
    workers: int,
    state_specs: Callable[[Any], Any] | None,
) -> optax.GradientTransformationExtraArgs:
    """Runs `init` and `update` in a compiled `shard_map` over an axis of workers.

    All workers get the same gradients, which JAX takes to vary over the axis as local
    gradients do. Updates are averaged over the workers, whose parameters are the same.
    `init` runs outside of the `shard_map` if `state_specs` describes its state.
    """
    mesh = _mesh(axis_name, workers)

    def over_workers(function: Any, in_specs: Any, out_specs: Any) -> Any:
        return jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=out_specs
        )

    def local_update(
        grads: Any, state: Any, params: Any, arrays: Any, others: Any
    ) -> tuple[Any, Any]:
        specs = _REPLICATED if state_specs is None else state_specs(state)

        def update(grads: Any, state: Any, params: Any, arrays: Any) -> Any:
            local = jax.tree.map(
                lambda g: jax.lax.pcast(g, axis_name, to="varying"), grads
            )
            updates, state = tx.update(local, state, params, **arrays, **dict(others))
            average: Any = functools.partial(jax.lax.pmean, axis_name=axis_name)
            return jax.tree.map(average, updates), state

        run = over_workers(
            update, (_REPLICATED, specs, _REPLICATED, _REPLICATED), (_REPLICATED, specs)
        )
        return run(grads, state, params, arrays)  # type: ignore[no-any-return]

    jitted_update = jax.jit(local_update, static_argnums=4)

    def update(
        grads: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        arrays = {k: v for k, v in extra_args.items() if _is_arrays(v)}
        others = tuple((k, v) for k, v in extra_args.items() if k not in arrays)
        return jitted_update(grads, state, params, arrays, others)  # type: ignore[no-any-return]

    init: Any
    if state_specs is None:
        init = jax.jit(over_workers(tx.init, _REPLICATED, _REPLICATED))
    else:

        def init(params: Any) -> Any:
            state = tx.init(params)
            shardings = jax.tree.map(
                lambda spec: NamedSharding(mesh, spec),
                state_specs(state),
                is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
            )
            return jax.device_put(state, shardings)

    return optax.GradientTransformationExtraArgs(init, update)


def replicate(tree: Any, axis_name: str, workers: int) -> Any:
    """Copies a tree to the device of every worker."""
    sharding = NamedSharding(_mesh(axis_name, workers), _REPLICATED)
    return jax.device_put(tree, sharding)


def _mesh(axis_name: str, workers: int) -> Mesh:
    if jax.device_count() < workers:
        raise NotApplicableError(
            f"it needs {workers} devices, and there are {jax.device_count()}; set"
            " jax_num_cpu_devices before JAX starts"
        )
    devices = jax.devices()[:workers]
    return Mesh(devices, (axis_name,), axis_types=(AxisType.Auto,))


def _is_arrays(argument: Any) -> bool:
    return all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(argument))
