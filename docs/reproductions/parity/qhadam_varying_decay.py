"""QHAdam of qhoptim: with a varying β1, the average has other weights."""

import qhoptim.pyt
import torch

gradients, decays = [1.0, 1.0, -1.0], [0.5, 0.9, 0.9]
theta = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
optimizer = qhoptim.pyt.QHAdam([theta], lr=1.0, nus=(1.0, 1.0))
m, left = 0.0, 1.0
for gradient, decay in zip(gradients, decays, strict=True):
    before = theta.item()
    optimizer.param_groups[0]["betas"] = (decay, 0.999)
    theta.grad = torch.tensor(gradient, dtype=torch.float64)
    optimizer.step()
    m, left = decay * m + (1 - decay) * gradient, left * decay

# All squares are 1, and so is their average.
print(f"third step {theta.item() - before:.3f}, by the paper {-m / (1 - left):.3f}")
