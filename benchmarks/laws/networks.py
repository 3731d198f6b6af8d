"""Perceptrons of any size, their data, and what else the laws share."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lowland.models import build

__all__ = ["IN_SHAPE", "batch_of", "losses", "perceptron", "weights_of"]

IN_SHAPE = (1, 8, 8)


def perceptron(params: float, seed: int = 0) -> nn.Module:
    """Two hidden layers of equal width, and about so many weights."""
    width = round((75**2 / 4 + params) ** 0.5 - 75 / 2)
    return build(f"mlp-64-{width}-{width}-10", in_shape=IN_SHAPE, seed=seed)


def weights_of(model: nn.Module) -> int:
    """Number of weights."""
    return sum(weight.numel() for weight in model.parameters())


def batch_of(examples: int, *, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Random images and classes."""
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(examples, *IN_SHAPE, generator=draws)
    return inputs, torch.randint(classes, (examples,), generator=draws)


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example."""
    return cross_entropy(output, target, reduction="none")
