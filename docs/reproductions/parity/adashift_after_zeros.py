"""AdaShift of pytorch_optimizer by element: steps after gradients of zero."""

import pytorch_optimizer
import torch

theta = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
optimizer = pytorch_optimizer.AdaShift([theta], lr=1.0, reduce_func=None)
for step in range(14):
    before = theta.item()
    theta.grad = torch.tensor(float(step > 10), dtype=torch.float64)
    optimizer.step()

# The window of 10 has zeros alone in front of it, whose size is 0.
print(f"a step of {abs(theta.item() - before):.0e} learning rates")
