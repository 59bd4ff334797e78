"""Trainings over a link with optax and optax_extras."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

import optax_extras

from link_methods import AXIS, GROUP, LOCALLY, METHODS
from link_model import LOCAL, WORKERS, Data, parameters

PORT = 28701


class Trainers:
    """Trainings with optax and optax_extras, one device in each process."""

    def __init__(self, number: int, address: str, data: Data) -> None:
        """Connects the processes."""
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"{address}:{PORT}", WORKERS, number)
        self._data = data
        self._mesh = jax.make_mesh((WORKERS,), (AXIS,))
        self._compiled: dict[str, Any] = {}
        self._carry: dict[str, Any] = {}
        self._loss = jax.jit(_loss_of)

    def make(self, method: str) -> list[float]:
        """A training from the start; the bytes of a step, as `wire_bytes` says."""
        tx, every = METHODS[method]
        is_local = method in LOCALLY
        arrays = parameters(self._data.characters)
        everywhere = jax.sharding.NamedSharding(self._mesh, P())
        params = jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(everywhere, x), arrays
        )
        wire = optax_extras.wire_bytes(tx, params, **GROUP, step=range(every))

        def step(params: Any, state: Any, rows: Any) -> Any:
            grad = optax_extras.local_value_and_grad(_loss_of, AXIS)
            updates, state = tx.update(grad(params, rows)[1], state, params)
            if is_local:
                params = optax_extras.apply_local_updates(params, updates, state)
                return params, state
            return optax.apply_updates(params, updates), state

        with jax.set_mesh(self._mesh):
            state = tx.init(params)
            if is_local:
                params = optax_extras.worker_params(params, AXIS, workers=WORKERS)
            if method not in self._compiled:
                specs = optax_extras.worker_specs((params, state), AXIS)
                mapped = jax.shard_map(
                    step,
                    in_specs=(*specs, P(AXIS)),
                    out_specs=specs,
                    check_vma=method != LOCAL,  # whose parameters differ
                )
                self._compiled[method] = jax.jit(mapped, donate_argnums=(0, 1))
        self._carry[method] = params, state
        return [wire.sent / every, wire.received / every]

    def drop(self, method: str) -> None:
        """Frees the memory of a training."""
        del self._carry[method]

    def step(self, method: str, rows: np.ndarray) -> None:
        """Takes a step, and waits for it."""
        sharding = jax.sharding.NamedSharding(self._mesh, P(AXIS))
        rows = jax.make_array_from_process_local_data(sharding, rows)
        with jax.set_mesh(self._mesh):
            carry = self._compiled[method](*self._carry[method], rows)
        self._carry[method] = jax.block_until_ready(carry)

    def test(self, method: str) -> float:
        """The loss on the windows for tests, of what the workers have agreed on."""
        params, state = self._carry[method]
        if method in LOCALLY:
            params = optax_extras.outer_params(state)
        own = jax.tree.map(lambda x: x.addressable_data(0), params)
        return float(self._loss(own, self._data.test))


def _loss_of(params: Any, rows: Any) -> Any:
    x = params["embedding"][rows[:, :-1]].reshape(len(rows), -1)
    layers = len(params) // 2
    for i in range(layers):
        x = x @ params[f"kernel{i}"] + params[f"bias{i}"][None]
        x = jax.nn.relu(x) if i < layers - 1 else x
    losses = optax.softmax_cross_entropy_with_integer_labels(x, rows[:, -1])
    return jnp.mean(losses)
