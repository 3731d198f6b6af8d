"""Discrete parameters and gradients, drawn at random."""

import torch
from torch import nn, tensor

__all__ = ["FLOAT", "give", "parameter"]

FLOAT = torch.float64


def parameter(values, shape, rng, dtype=FLOAT):
    """Draw a discrete parameter."""
    drawn = tensor(values, dtype=dtype)[torch.randint(len(values), shape, generator=rng)]
    return nn.Parameter(drawn)


def give(parameters, rng):
    """Give every parameter a random gradient."""
    for p in parameters:
        p.grad = torch.randn(p.shape, dtype=torch.float32, generator=rng).to(p.dtype)
