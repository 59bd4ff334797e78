"""A process of a pair that trains over a link, asked by lines of JSON.

Its arguments are the framework, its number, and the address of process 0. Requests are
``{"make": method}``, which builds a training anew, ``{"train": method, "steps": n}``,
``{"test": method}`` and ``{"moved": true}``. The answers are the bytes of a step by
`wire_bytes`, the seconds of each step, the loss on the windows for tests, and the bytes
that the network device has sent and received so far.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from link_model import MOMENTUM, RATE, Data, parameters

PORTS = {"jax": 28701, "torch": 28702}
WORKERS, AXIS = 2, "data"
LOCAL = "local steps, nothing sent"


class JaxTrainers:
    """Trainings with optax and optax_extras, one device in each process."""

    def __init__(self, number: int, address: str, data: Data) -> None:
        """Connects the processes."""
        global jax, jnp, optax, optax_extras, compressors, P
        import jax
        import jax.numpy as jnp
        import optax
        from jax.sharding import PartitionSpec as P

        import optax_extras
        from optax_extras import compressors

        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"{address}:{PORTS['jax']}", WORKERS, number)
        self._data = data
        self._mesh = jax.make_mesh((WORKERS,), (AXIS,))
        self._compiled: dict[str, Any] = {}
        self._carry: dict[str, Any] = {}
        self._loss = jax.jit(_jax_loss)

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
            grad = optax_extras.local_value_and_grad(_jax_loss, AXIS)
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


def _jax_loss(params: Any, rows: Any) -> Any:
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
        flat, unravel = jax.flatten_util.ravel_pytree(updates)
        return unravel(jax.lax.pmean(flat, AXIS)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class TorchTrainers:
    """Trainings with torch's `DistributedDataParallel` and its hooks."""

    def __init__(self, number: int, address: str, data: Data) -> None:
        """Connects the processes."""
        global torch, distributed, DistributedDataParallel, default_hooks, power_hooks
        import torch
        from torch import distributed
        from torch.distributed.algorithms.ddp_comm_hooks import (
            default_hooks,
            powerSGD_hook as power_hooks,
        )
        from torch.nn.parallel import DistributedDataParallel

        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", f"tcp://{address}:{PORTS['torch']}", world_size=WORKERS, rank=number
        )
        self._data = data
        self._models: dict[str, Any] = {}
        self._optimizers: dict[str, Any] = {}

    def make(self, method: str) -> None:
        """A training from the start."""
        model = _torch_model(parameters(self._data.characters))
        self._optimizers[method] = torch.optim.SGD(
            model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True
        )
        kind, _, argument = method.partition(", ")
        if method != LOCAL:
            # The hook of PowerSGD waits for sums in gloo's two threads, which two
            # buckets block for ever.
            one_bucket = {"bucket_cap_mb": 1000} if kind == "PowerSGD" else {}
            model = DistributedDataParallel(model, init_sync=False, **one_bucket)
        if kind == "fp16":
            model.register_comm_hook(None, default_hooks.fp16_compress_hook)
        elif kind == "PowerSGD":
            state = power_hooks.PowerSGDState(
                None, int(argument.split()[1]), start_powerSGD_iter=2
            )
            model.register_comm_hook(state, power_hooks.powerSGD_hook)
        self._models[method] = model

    def step(self, method: str, rows: np.ndarray) -> None:
        """Takes a step."""
        loss = _torch_loss(self._models[method], rows)
        self._optimizers[method].zero_grad()
        loss.backward()
        self._optimizers[method].step()

    def test(self, method: str) -> float:
        """The loss on the windows for tests."""
        model = self._models[method]
        with torch.no_grad():
            model = model if method == LOCAL else model.module
            return float(_torch_loss(model, self._data.test))


def _torch_model(arrays: dict[str, np.ndarray]) -> Any:
    nn = torch.nn
    layers = [nn.Embedding(*arrays["embedding"].shape), nn.Flatten()]
    for i in range(len(arrays) // 2):
        layers += [nn.Linear(*arrays[f"kernel{i}"].shape), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays.values(), strict=True):
            flipped = (
                array.T if array.ndim == 2 and parameter.shape != array.shape else array
            )
            parameter.copy_(torch.from_numpy(flipped.copy()))
    return model


def _torch_loss(model: Any, rows: np.ndarray) -> Any:
    rows = torch.from_numpy(rows).long()
    return torch.nn.functional.cross_entropy(model(rows[:, :-1]), rows[:, -1])


def moved() -> list[int]:
    """Bytes that the network device of the link has sent, and received."""
    folder = Path("/sys/class/net/veth0/statistics")
    names = ("tx_bytes", "rx_bytes")
    return [int((folder / name).read_text()) for name in names]


def main() -> None:
    """Answers requests until there are no more."""
    framework, number, address = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # before the machine's other work
    Path("/proc/self/autogroup").write_text("-20")
    os.environ["OMP_NUM_THREADS"] = "1"
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    data = Data(number)
    made = {"jax": JaxTrainers, "torch": TorchTrainers}[framework]
    trainers = made(number, address, data)
    steps: dict[str, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "make" in request:
            steps[request["make"]] = 0
            answer = trainers.make(request["make"])
        elif "train" in request:
            method, seconds = request["train"], []
            for _ in range(request["steps"]):
                rows = data.batch(steps[method])
                started = time.perf_counter()
                trainers.step(method, rows)
                seconds.append(time.perf_counter() - started)
                steps[method] += 1
            answer = seconds
        elif "test" in request:
            answer = trainers.test(request["test"])
        else:
            answer = moved()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
