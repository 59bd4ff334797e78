"""QHM of qhoptim: its documentation adds the step that the code subtracts."""

import qhoptim.pyt
import torch

text = qhoptim.pyt.QHM.__doc__
assert r"\theta_t + \alpha \left[" in text
theta = torch.nn.Parameter(torch.ones(()))
theta.grad = torch.ones(())
qhoptim.pyt.QHM([theta], lr=0.1, momentum=0.9, nu=0.0).step()

documented = 1 + 0.1 * 1
print(f"from 1, along a gradient of 1, to {theta.item():.1f}; documented {documented}")
