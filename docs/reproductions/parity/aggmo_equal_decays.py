"""AggMo of pytorch_optimizer: two equal decays share one trace, which moves twice."""

import pytorch_optimizer
import torch

theta = torch.nn.Parameter(torch.zeros(()))
optimizer = pytorch_optimizer.AggMo([theta], lr=1.0, betas=(0.9, 0.9))
trace, steps = 0.0, []
for _ in range(3):
    before = theta.item()
    theta.grad = torch.ones(())
    optimizer.step()
    trace = 0.9 * trace + 1
    steps.append(before - theta.item())

print(f"third step {steps[-1]:.2f}, by the paper {trace:.2f}")
