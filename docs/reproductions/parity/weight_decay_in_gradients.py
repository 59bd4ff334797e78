"""Weight decay that is added to the caller's own gradient."""

import pytorch_optimizer
import qhoptim.pyt
import torch

decay, found = {"weight_decay": 0.5}, {}
for name, make in {
    "QHM": lambda p: qhoptim.pyt.QHM(p, lr=0.1, momentum=0.9, nu=0.7, **decay),
    "QHAdam": lambda p: qhoptim.pyt.QHAdam(p, **decay),
    "AggMo": lambda p: pytorch_optimizer.AggMo(p, **decay),
}.items():
    theta = torch.nn.Parameter(torch.ones(()))
    theta.grad = torch.ones(())
    make([theta]).step()
    found[name] = theta.grad.item()

print("a gradient of 1 is", ", ".join(f"{x:.1f} after {n}" for n, x in found.items()))
