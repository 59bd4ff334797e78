"""Cautious Lion of pytorch_optimizer: d / (kept + 1) where all is kept."""

import pytorch_optimizer
import torch

theta = torch.nn.Parameter(torch.zeros(1))
theta.grad = torch.ones(1)
options = {"lr": 1.0, "weight_decay": 0.0, "cautious": True}
pytorch_optimizer.Lion([theta], **options).step()

print(f"a step of {-theta.item():.1f} where all of a leaf, one element, is kept; not 1")
