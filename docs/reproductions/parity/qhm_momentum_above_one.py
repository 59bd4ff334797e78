"""QHM of qhoptim: a momentum above 1 is accepted."""

import qhoptim.pyt
import torch

theta = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
optimizer = qhoptim.pyt.QHM([theta], lr=0.1, momentum=1.5, nu=0.7)
for _ in range(100):
    theta.grad = theta.detach().clone()
    optimizer.step()

power = torch.log10(theta.abs()).item()
print(f"100 steps on a parabola lead from 1 to 1e{power:.0f}")
