"""Where the weights have been, in few numbers: sketches of displacements and some coordinates."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.sketch import CountSketch
from lowland.dynamics.snapshots import Reduce
from lowland.dynamics.sums import Number, pieces_of, square_sum
from lowland.dynamics.weights import Weights
from lowland.training import generator, wide_type

__all__ = ["SAMPLE", "Sketches", "exact_bytes", "sketch_bytes"]

SAMPLE = 65_536  # coordinates from which fourth powers are estimated


class Sketches:
    """A sketch of ``w(tw) - w(0)`` for each waiting time, and a sample of its coordinates.

    Displacements from the first weights are sketched, not weights: the difference of two nearly
    equal sketches of weights would have few digits left. All of it lies where the weights are.

    Args:
        weights: What is recorded.
        width: Numbers of a sketch.
        per_layer: Sketch each tensor by itself, with ``width`` numbers each.
        reduce: Adds up numbers over the processes that share the weights.
        add_up: Adds up a tensor over them.
        rank: Number of this process among them.
        seed: Seed of the sketch and of the sample.

    Attributes:
        start: The first weights that were kept, None before.
        kept: Sketch and sample for each waiting time.

    Source:
        Specification, section 3.2.
    """

    def __init__(
        self,
        weights: Weights,
        width: int,
        *,
        per_layer: bool,
        reduce: Reduce,
        add_up: Callable[[Tensor], Tensor],
        rank: int = 0,
        seed: int = 0,
    ):
        self.start: Tensor | None = None
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.weights, self.reduce, self.add_up, self.width = weights, reduce, add_up, width
        self.pieces = pieces_of(weights.sizes, False, weights.device)
        self.sketch = CountSketch(
            weights.names,
            weights.sizes,
            width,
            seed=seed,
            per_layer=per_layer,
            labels=(rank,) if rank else (),
            device=weights.device,
        )
        self.sample = coordinates(weights.size, SAMPLE, seed, rank).to(weights.device)

    def keep(self, wait: int, x: Float[Tensor, " params"]) -> None:
        """Sketch the weights.

        Args:
            wait: The waiting time, now.
            x: The weights, now.
        """
        if self.start is None:
            self.start = x.clone()
        self.kept[wait] = self.seen(x)

    def seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sketch and sample of a displacement from the start."""
        assert self.start is not None
        moved = x - self.start
        return self.add_up(self.sketch(moved)), moved[self.sample]

    def measure(self, waits: list[int]) -> tuple[Number, list[list[Number]]]:
        """Compare the weights with where they were.

        Args:
            waits: Which waiting times.

        Returns:
            The square of the weights; for each waiting time, estimates of: the squared distance by
            layer, the sum of fourth powers of all displacements, and the variance of the latter.
        """
        x = self.weights.read()
        (square,) = self.reduce([square_sum(x, self.pieces)])
        if not waits:
            return square, []
        now, sampled = self.seen(x)
        kind, every, rows = wide_type(x.device), len(x), []
        for wait in waits:
            sketch, sample = self.kept[wait]
            second = (sketch - now).to(kind).square_().sum(-1)
            fourths = (sample - sampled).to(kind).square_().square_()
            mean, count = fourths.mean() if every else second.new_zeros(()), len(fourths)
            spread = fourths.var() * (1 / count - 1 / every) if count < every else 0 * mean
            both = self.reduce(entries(torch.stack([mean * every, spread * every**2])))
            rows.append([*entries(second), *both])
        return square, rows

    def drop(self, wait: int) -> None:
        """Forget a sketch.

        Args:
            wait: Its waiting time.
        """
        del self.kept[wait]

    def state_dict(self) -> dict[str, Any]:
        """Copy everything that the seed does not tell.

        Returns:
            The first weights, and sketch and sample by waiting time.
        """
        kept = {wait: [part.clone() for part in parts] for wait, parts in self.kept.items()}
        return {"start": None if self.start is None else self.start.clone(), "kept": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        device, start = self.sample.device, state["start"]
        self.start = None if start is None else start.to(device, copy=True)
        self.kept = {
            wait: (sketch.to(device, copy=True), sample.to(device, copy=True))
            for wait, (sketch, sample) in state["kept"].items()
        }


def entries(values: Float[Tensor, " values"]) -> list[Number]:
    """The entries of a tensor; plain numbers on the CPU."""
    return values.tolist() if values.device.type == "cpu" else [*values]


def coordinates(size: int, count: int, seed: int, rank: int) -> Tensor:
    """Choose coordinates evenly: one at random from each of ``count`` stretches of equal length."""
    if size <= count:
        return torch.arange(size)
    source = generator(seed, "sample", rank)
    places = torch.arange(count) + torch.rand(count, generator=source, dtype=torch.float64)
    return (places * (size / count)).long().clamp_(max=size - 1)


def sketch_bytes(size: int, width: int, layers: int, waits: int, itemsize: int) -> int:
    """Bytes of the sketches of so many waiting times, with the first weights and the signs."""
    sample = min(size, SAMPLE)
    return size * (itemsize + 1) + 8 * sample + waits * (layers * width + sample) * itemsize


def exact_bytes(size: int, waits: int, itemsize: int) -> int:
    """Bytes of whole copies for so many waiting times."""
    return size * waits * itemsize
