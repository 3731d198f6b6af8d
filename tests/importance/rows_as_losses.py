"""The methods to beat on rows whose loss is their own number, and a step of a loop."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lowland.data import Batches
from lowland.importance.baselines import RandomSubset, UniformSampling
from lowland.importance.history import HistorySampling, RankSampling
from lowland.importance.pruning import InfoBatchPruning
from lowland.importance.selective import SelectiveBackprop

N = 40


def given_loss(output, target):
    """The output is the loss, whatever its shape; the target says which row it was."""
    return output.flatten(1).mean(1) if output.ndim > 1 else output


def rows(count=N, size=8):
    """Batches whose input and target are the number of the row."""
    numbers = torch.arange(count)
    return [(part.double(), part) for part in numbers.split(size)]


def images(count=N, size=8, **settings):
    """The same as a data set whose rows can be asked for."""
    pixels = torch.arange(count).to(torch.uint8).reshape(count, 1, 1, 1)
    return Batches(pixels, torch.arange(count), size, dtype=torch.float64, **settings)


def loader(count=N, size=8, **settings):
    numbers = torch.arange(count)
    return DataLoader(TensorDataset(numbers.double(), numbers), size, **settings)


class Identity(nn.Module):
    """Gives its inputs, from which losses are made; has a device and a mode."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.modes = []

    def forward(self, inputs):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return inputs * self.one


ALL = {
    "uniform": lambda: UniformSampling(given_loss, 2),
    "subset": lambda: RandomSubset(given_loss, 2.3, seed=1),
    "selective": lambda: SelectiveBackprop(Identity(), given_loss, 2.0, seed=1),
    "history": lambda: HistorySampling(given_loss, seed=1),
    "rank": lambda: RankSampling(given_loss, 12, seed=1),
    "pruning": lambda: InfoBatchPruning(given_loss, 5, seed=1),
}
POOL = ("uniform", "subset", "selective")


def step(sampling, batch):
    """One step of a loop; the loss of a row is its number, plus a bit for each step done."""
    inputs, target = batch
    loss = sampling.loss(inputs + 0.1 * sampling.steps, target)
    return target.tolist(), sampling.weight.tolist(), float(loss)
