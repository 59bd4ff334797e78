"""Trainings over a link with optax and optax_extras."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P

import optax_extras
from optax_extras import compressors

from link_model import LOCAL, MOMENTUM, RATE, WORKERS, Data, parameters

AXIS, PORT = "data", 28701


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

    def _transformation(self, method: str) -> Any:
        group = {"axis_name": AXIS, "workers": WORKERS}
        sgd = optax.sgd(RATE, MOMENTUM)
        kind, _, argument = method.partition(", ")
        if method == LOCAL:
            return sgd
        if kind == "dense":
            return optax.chain(_dense_mean(), sgd)
        if kind == "DGC":
            density = float(argument.split()[0]) / 100
            return optax_extras.deep_gradient_compression(
                RATE, MOMENTUM, density, **group
            )
        if kind == "quantized":
            compressor = compressors.quantized(int(argument.split()[0]))
            return optax.chain(optax_extras.compressed_mean(compressor, **group), sgd)
        rank = int(argument.split()[1])
        return optax_extras.power_sgd(RATE, rank, MOMENTUM, **group)

    def make(self, method: str) -> Any:
        """A training from the start; the bytes of a step, as `wire_bytes` says."""
        tx = self._transformation(method)
        arrays = parameters(self._data.characters)
        everywhere = jax.sharding.NamedSharding(self._mesh, P())
        params = jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(everywhere, x), arrays
        )

        def step(params: Any, state: Any, rows: Any) -> Any:
            grad = optax_extras.local_value_and_grad(_loss_of, AXIS)
            updates, state = tx.update(grad(params, rows)[1], state, params)
            return optax.apply_updates(params, updates), state

        with jax.set_mesh(self._mesh):
            state = tx.init(params)
            if method not in self._compiled:
                specs = optax_extras.worker_specs(state, AXIS)
                mapped = jax.shard_map(
                    step,
                    in_specs=(P(), specs, P(AXIS)),
                    out_specs=(P(), specs),
                    check_vma=method != LOCAL,  # whose parameters differ
                )
                self._compiled[method] = jax.jit(mapped, donate_argnums=(0, 1))
        self._carry[method] = params, state
        group = {"axis_name": AXIS, "workers": WORKERS}
        wire = optax_extras.wire_bytes(tx, params, **group)
        return [wire.sent, wire.received]

    def step(self, method: str, rows: np.ndarray) -> None:
        """Takes a step, and waits for it."""
        sharding = jax.sharding.NamedSharding(self._mesh, P(AXIS))
        rows = jax.make_array_from_process_local_data(sharding, rows)
        with jax.set_mesh(self._mesh):
            carry = self._compiled[method](*self._carry[method], rows)
        self._carry[method] = jax.block_until_ready(carry)

    def test(self, method: str) -> float:
        """The loss on the windows for tests."""
        params, _ = self._carry[method]
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


def _dense_mean() -> Any:
    """The mean over the workers, in one collective."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        flat, unravel = ravel_pytree(updates)
        return unravel(jax.lax.pmean(flat, AXIS)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
