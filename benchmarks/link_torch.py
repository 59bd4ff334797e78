"""Trainings over a link with torch's `DistributedDataParallel` and its hooks."""

from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import (
    default_hooks,
    powerSGD_hook as power_hooks,
)
from torch.nn.parallel import DistributedDataParallel

from link_model import LOCAL, MOMENTUM, RATE, WORKERS, Data, parameters

PORT = 28702


class Trainers:
    """Trainings with torch's `DistributedDataParallel` and its hooks."""

    def __init__(self, number: int, address: str, data: Data) -> None:
        """Connects the processes."""
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", f"tcp://{address}:{PORT}", world_size=WORKERS, rank=number
        )
        self._data = data
        self._models: dict[str, Any] = {}
        self._optimizers: dict[str, Any] = {}

    def make(self, method: str) -> None:
        """A training from the start."""
        model = _model_of(parameters(self._data.characters))
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
        loss = _loss_of(self._models[method], rows)
        self._optimizers[method].zero_grad()
        loss.backward()
        self._optimizers[method].step()

    def test(self, method: str) -> float:
        """The loss on the windows for tests."""
        model = self._models[method]
        with torch.no_grad():
            model = model if method == LOCAL else model.module
            return float(_loss_of(model, self._data.test))


def _model_of(arrays: dict[str, np.ndarray]) -> Any:
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


def _loss_of(model: Any, rows: np.ndarray) -> Any:
    rows = torch.from_numpy(rows).long()
    return nn.functional.cross_entropy(model(rows[:, :-1]), rows[:, -1])
