"""Adai of pytorch_optimizer: the mean of squares is raised to 0.001.

By the paper, gradients that are k times as large have steps k times as large.
"""

import numpy as np
import pytorch_optimizer
import torch

gradients = np.random.default_rng(0).normal(size=(200, 20))


def steps(scale):
    """Those of all gradients, over the scale."""
    theta, found = torch.nn.Parameter(torch.zeros(20, dtype=torch.float64)), []
    optimizer = pytorch_optimizer.Adai([theta], lr=1.0)
    for gradient in gradients:
        theta.data.zero_()
        theta.grad = torch.tensor(scale * gradient)
        optimizer.step()
        found.append(theta.detach().numpy() / scale)
    return np.stack(found)


expected = steps(1.0)
far = {
    scale: np.median(abs(steps(scale) - expected).max(1) / abs(expected).max(1))
    for scale in (0.01, 0.001)
}
print("median error", ", ".join(f"{x:.0%} at gradients × {s}" for s, x in far.items()))
