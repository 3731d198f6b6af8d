"""Parts of a chain that are small enough to be written down."""

import torch
from torch import nn

CPU = torch.device("cpu")


class TinyPart(nn.Module):
    """A residual branch with batch norm and dropout; further values are handed on."""

    def __init__(self, width: int, seed: int, wider: int | None = None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(width, wider or width).double()
        self.norm = nn.BatchNorm1d(wider or width).double()
        self.norm.running_mean.fill_(0.25)
        self.norm.running_var.fill_(2.0)
        self.dropout = nn.Dropout(0.5)

    def forward(self, hidden, *sides):
        change = self.dropout(torch.relu(self.norm(self.linear(hidden))))
        return (hidden + change if change.shape == hidden.shape else change, *sides)


def rows(count: int = 20, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and classes of a small data set."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(count, width, dtype=torch.float64, generator=draws)
    return x, torch.randint(3, (count,), generator=draws)


def as_batches(x, y, size: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches in their order."""
    return list(zip(x.split(size), y.split(size), strict=True))
