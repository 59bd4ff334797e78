"""Optimizers of PyTorch on the same gradients; torch is imported when one runs."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from parity_steps import GRADIENTS, PARAMS, Path

# What a page needs in full, with the versions that it was written with.
PINNED = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0", "qhoptim": "1.1.0"}


def stepped(
    name: str,
    grads: Path = GRADIENTS,
    *,
    varying: Mapping[str, Callable[[int], Any]] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    moves: bool = False,
    **options: Any,
) -> Path:
    """The updates of an optimizer, such as ``"torch.optim:SGD"``, in float64.

    Args:
      name: module and class.
      grads: gradients.
      varying: options by the step, from 0.
      groups: options of leaves that are a group of their own.
      moves: whether parameters move; otherwise they are 0 before each step, so that
        differences of large numbers take no digits.
      **options: those of the class; strings such as ``"torch.max"`` are functions.
    """
    import torch

    module, _, attribute = name.partition(":")
    for key, value in options.items():
        if isinstance(value, str) and value.startswith("torch."):
            options[key] = getattr(torch, value.removeprefix("torch."))
    with warnings.catch_warnings():
        # qhoptim calls overloads that torch has deprecated.
        warnings.simplefilter("ignore")
        params = {
            key: torch.nn.Parameter(torch.tensor(PARAMS[key], dtype=torch.float64))
            for key in grads
        }
        own = dict(groups or {})
        shared = [p for key, p in params.items() if key not in own]
        listed = [{"params": [params[key]], **extra} for key, extra in own.items()]
        make = getattr(importlib.import_module(module), attribute)
        optimizer = make([{"params": shared}, *listed], **options)
        found: dict[str, list[Any]] = {key: [] for key in grads}
        for t in range(len(next(iter(grads.values())))):
            for group in optimizer.param_groups:
                group.update({key: f(t) for key, f in (varying or {}).items()})
            before = {}
            for key, p in params.items():
                if not moves:
                    p.data.zero_()
                before[key] = p.detach().clone()
                p.grad = torch.tensor(grads[key][t])
            optimizer.step()
            for key, p in params.items():
                found[key].append((p.detach() - before[key]).numpy())
    return {key: np.stack(steps) for key, steps in found.items()}


def clipped_norms(percentile: float) -> Path:
    """AutoClip by torch's own clipping, which divides by the norm and 1e-6."""
    import torch

    norms: list[float] = []
    found: dict[str, list[Any]] = {key: [] for key in GRADIENTS}
    for t in range(len(next(iter(GRADIENTS.values())))):
        params = {
            key: torch.nn.Parameter(torch.zeros(g.shape[1:], dtype=torch.float64))
            for key, g in GRADIENTS.items()
        }
        for key, p in params.items():
            p.grad = torch.tensor(GRADIENTS[key][t])
        every = list(params.values())
        norms.append(float(torch.nn.utils.clip_grad_norm_(every, np.inf)))
        torch.nn.utils.clip_grad_norm_(every, float(np.percentile(norms, percentile)))
        for key, p in params.items():
            found[key].append(p.grad.numpy())
    return {key: np.stack(steps) for key, steps in found.items()}
