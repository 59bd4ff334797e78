"""AggMo of pytorch_optimizer: traces are kept by the values of their decays."""

import pytorch_optimizer
import torch

theta = torch.nn.Parameter(torch.zeros(()))
optimizer = pytorch_optimizer.AggMo([theta], lr=1.0, betas=(0.0, 0.9))
theta.grad = torch.ones(())
optimizer.step()
optimizer.param_groups[0]["betas"] = (0.0, 0.95)
theta.grad = torch.ones(())
try:
    optimizer.step()
except KeyError as error:
    print(f"the step after a change of the decays raises KeyError: {error}")
