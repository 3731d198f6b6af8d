"""Whole networks with random binary and ternary weights, for the benchmarks of packing.

What a network costs depends on the shapes and on the share of zeros, not on what it was trained
to do. Batch norms get the statistics of random inputs, and random factors of both signs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowland.models import build
from lowland.training import isolated_rng

__all__ = ["CASES", "Case"]

FEWEST = 8  # weights of a unit that are not zero: without any its norm would divide by nothing


class Block(nn.Module):
    """A transformer block that normalizes first: self-attention and a perceptron, each added on."""

    def __init__(self, width: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.mix_norm, self.think_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens, then think; ``x`` is (batch, tokens, width)."""
        parts = self.project(self.mix_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.mix(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.think_norm(x))))


@torch.no_grad()
def signed(weight: Tensor, nonzero: float) -> None:
    """Leave random signs in a share of the places, about eight for a row at least, else zeros."""
    share = max(nonzero, FEWEST / weight[0].numel())
    signs = torch.randint(2, weight.shape, dtype=weight.dtype).mul_(2).sub_(1)
    weight.copy_(signs * (torch.rand_like(weight) < share))


@torch.no_grad()
def rounded(weight: Tensor) -> None:
    """Round normal numbers to -1, 0 and 1 times their mean magnitude, as BitNet b1.58 does."""
    scale = weight.normal_(std=weight.shape[1] ** -0.5).abs().mean()
    weight.div_(scale).round_().clamp_(-1, 1).mul_(scale)


def settle_norms(network: nn.Module, in_shape: tuple[int, ...]) -> None:
    """Give batch norms the statistics of random inputs, and factors of both signs."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias, std=0.5)
    with torch.no_grad():
        network.train()(torch.rand(32, *in_shape))


@dataclass(frozen=True)
class Case:
    """A network.

    Attributes:
        name: For the tables.
        model: For :func:`lowland.models.build`; a width in the place of a block.
        toy: The same with a few weights, which loads the same code.
        in_shape: Of one input.
        nonzero: Share of the weights that are not zero; None for BitNet's rounding.
    """

    name: str
    model: str | int
    toy: str | int
    in_shape: tuple[int, ...]
    nonzero: float | None

    def make(self, *, toy: bool = False) -> nn.Module:
        """Build the network, in eval mode."""
        model = self.toy if toy else self.model
        shape = self.shape(toy=toy)
        with isolated_rng(0, self.name):
            network = (
                build(model, in_shape=shape, seed=0) if isinstance(model, str) else Block(model)
            )
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    if self.nonzero is None:
                        rounded(module.weight)
                    else:
                        signed(module.weight, self.nonzero)
            settle_norms(network, shape)
        return network.eval().requires_grad_(False)

    def shape(self, *, toy: bool = False) -> tuple[int, ...]:
        """Shape of one input."""
        return (
            (*self.in_shape[:-1], self.toy) if toy and isinstance(self.toy, int) else self.in_shape
        )

    def inputs(self, batch: int, *, toy: bool = False) -> Tensor:
        """Draw inputs."""
        with isolated_rng(1, self.name):
            return torch.rand(batch, *self.shape(toy=toy))


MLP = "bn-mlp-784-2048-2048-2048-10", "bn-mlp-784-16-16-16-10", (1, 28, 28)
CNN = "bn-cnn-128", "bn-cnn-8-16", (3, 32, 32)
CASES = (
    Case("perceptron, ternary 2 %", *MLP, 0.02),
    Case("perceptron, binary", *MLP, 1.0),
    Case("convolutions, ternary 1.3 %", *CNN, 0.013),
    Case("convolutions, binary", *CNN, 1.0),
    Case("transformer block, ternary 69 %", 512, 64, (32, 512), None),
)
