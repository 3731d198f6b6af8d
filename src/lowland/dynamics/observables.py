"""The numbers that a recorder collects on its way, and the table they become."""

from itertools import islice
from math import inf, isfinite
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.clock import Clock
from lowland.dynamics.sketch import relative_error
from lowland.dynamics.sketches import SAMPLE
from lowland.dynamics.sums import Number, as_tensor, pieces_of, square_sum
from lowland.dynamics.two_time import TwoTime
from lowland.dynamics.weights import Weights
from lowland.training import all_sum, broadcast

__all__ = ["RANKS", "Observables", "summarize"]

RANKS = ("alone", "replicated", "sharded")
MOST_PENDING = 64  # instants until numbers are fetched from a device


class Observables:
    """Numbers of pairs and of instants; on a device they wait there until there are some.

    Args:
        weights: What is recorded.
        ranks: What other processes hold.
        path_length: Whether every step is measured.
        bins: Of the histograms.

    Attributes:
        rows: ``[wait, lag, squared distance by layer..., fourth powers, their variance]``.
        once: ``[step, squared norm, path length, length of the last step]``.
        diverged_at: First instant with a number that is not finite.
        histograms: By waiting time.
        layer_sizes: Coordinates of each tensor, over all processes.
        sample: Coordinates that a sketch samples, over all processes.

    Raises:
        ValueError: If histograms of sharded weights are asked for.

    Source:
        Specification, section 3.2.
    """

    def __init__(self, weights: Weights, ranks: str, *, path_length: bool, bins: int):
        if bins and ranks == "sharded":
            raise ValueError("histograms need whole weights; got shards. Pass bins=0.")
        self.weights, self.ranks, self.bins = weights, ranks, bins
        self.pieces = pieces_of(weights.sizes, False, weights.device)
        self.follows_path = path_length
        self.rows: list[list[float]] = []
        self.once: list[list[float]] = []
        self.pending: list[tuple[int, list[int], list[Number]]] = []
        self.diverged_at: int | None = None
        self.histograms: dict[int, dict[str, Any]] = {}
        self.previous: Tensor | None = None
        self.path: list[Number] = [0.0, 0.0]
        sizes = torch.tensor(weights.sizes, dtype=torch.float64, device=weights.device)
        self.layer_sizes: list[float] = self.add_up(sizes).tolist()
        self.sample = int(self.add_up(sizes.sum().clamp(max=SAMPLE)).item())

    def add_up(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the processes that share the weights.

        Args:
            tensor: The part of this process.

        Returns:
            The sum; the tensor itself where weights are whole.
        """
        return all_sum(tensor) if self.ranks == "sharded" else tensor

    def reduce(self, numbers: list[Number]) -> list[Number]:
        """Add up numbers over the processes that share the weights.

        Args:
            numbers: Those of this process.

        Returns:
            The sums; the numbers themselves where weights are whole.
        """
        if self.ranks != "sharded":
            return numbers
        total = all_sum(as_tensor(numbers, self.weights.device))
        return total.tolist() if total.device.type == "cpu" else [*total]

    def anywhere(self, truth: bool) -> bool:
        """Tell whether something is true on a process that shares the weights.

        Args:
            truth: Whether it is here.

        Returns:
            The same everywhere.
        """
        device = self.weights.device
        return self.add_up(torch.tensor(float(truth), device=device)).item() > 0

    def walk(self, x: Float[Tensor, " params"]) -> None:
        """Add the last step to the path.

        Args:
            x: The weights, now.
        """
        if self.previous is None:
            self.previous = x.clone()
            return
        (square,) = self.reduce([square_sum(x - self.previous, self.pieces)])
        step = square**0.5
        self.path = [self.path[0] + step, step]
        self.previous.copy_(x)

    def at_wait(self, step: int, x: Float[Tensor, " params"]) -> None:
        """Do what is done once for a waiting time.

        Args:
            step: The waiting time, now.
            x: The weights, now.

        Raises:
            ValueError: If processes that should hold the same weights do not.
        """
        if self.ranks == "replicated":
            mine = [float(square_sum(x, self.pieces)), x.sum().item()]
            other = float(broadcast(mine) != mine and all(map(isfinite, mine)))
            if all_sum(torch.tensor(other, device=x.device)).item():
                raise ValueError(
                    f"all processes must hold the same weights; after update {step} they do not. "
                    'Pass ranks="sharded" if each holds a part, else look for what trains apart.'
                )
        if self.bins:
            low, high = (value.item() for value in x.aminmax())
            if isfinite(low) and isfinite(high):
                counts = torch.histc(x, self.bins, low, high).long().tolist()
                self.histograms[step] = {"low": low, "high": high, "counts": counts}

    def note(
        self,
        step: int,
        waits: list[int],
        square: Number,
        values: list[list[Number]],
    ) -> None:
        """Take down the numbers of an instant.

        Args:
            step: The instant.
            waits: Waiting times of the pairs that end.
            square: Of the weights, now.
            values: Of each of these pairs.
        """
        once = [square, *self.path]
        if self.weights.device.type == "cpu":
            self.take(step, waits, once, values)
            return
        self.pending.append((step, waits, [*once, *(value for row in values for value in row)]))
        if len(self.pending) >= MOST_PENDING:
            self.fetch()

    def fetch(self) -> None:
        """Fetch what waits on the device."""
        every = [value for _, _, numbers in self.pending for value in numbers]
        found = iter(as_tensor(every, self.weights.device).tolist())
        for step, waits, numbers in self.pending:
            mine = list(islice(found, len(numbers)))
            width = (len(mine) - 3) // max(len(waits), 1)
            rows = [mine[k : k + width] for k in range(3, len(mine), max(width, 1))]
            self.take(step, waits, mine[:3], rows)
        self.pending.clear()

    def take(self, step: int, waits: list[int], once: list[Any], rows: list[list[Any]]) -> None:
        """Put plain numbers into the tables, unless one is not finite, now or before."""
        if not isfinite(sum(once) + sum(map(sum, rows))) and self.diverged_at is None:
            self.diverged_at = step
        if self.diverged_at is not None:
            self.histograms.pop(step, None)
            return
        self.once.append([step, *once])
        for wait, row in zip(waits, rows, strict=True):
            self.rows.append([wait, step - wait, *row])

    def state_dict(self) -> dict[str, Any]:
        """Copy everything.

        Returns:
            Tensors and plain values.
        """
        self.fetch()
        return {
            "rows": torch.tensor(self.rows, dtype=torch.float64),
            "once": torch.tensor(self.once, dtype=torch.float64),
            "diverged_at": self.diverged_at,
            "histograms": dict(self.histograms),
            "path": [float(value) for value in self.path],
            "previous": None if self.previous is None else self.previous.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.pending.clear()
        for name in ("rows", "once"):
            setattr(self, name, state[name].tolist())
        self.diverged_at, self.histograms = state["diverged_at"], dict(state["histograms"])
        device, previous = self.weights.device, state["previous"]
        self.path = list(state["path"])
        self.previous = None if previous is None else previous.to(device, copy=True)


def summarize(
    seen: Observables, clock: Clock, settings: dict[str, Any], last: int, memory_bytes: int
) -> TwoTime:
    """Make a table of what was collected.

    Args:
        seen: The numbers.
        clock: What was planned.
        settings: Of the recorder.
        last: Last recorded update.
        memory_bytes: Of copies or sketches.

    Returns:
        The table.

    Source:
        Specification, section 3.2; the overlap is that of the law of cosines.
    """
    seen.fetch()
    params = int(sum(seen.layer_sizes))
    layers = len(seen.layer_sizes) if settings["per_layer"] else 1
    table = torch.tensor(seen.rows, dtype=torch.float64).reshape(-1, layers + 4)
    once = torch.tensor(seen.once, dtype=torch.float64).reshape(-1, 4)
    squares, fourth, variance = table[:, 2:-2], table[:, -2], table[:, -1]
    total = squares.sum(1)
    norms = dict(once[:, :2].tolist())
    before = torch.tensor([norms[row[0]] for row in seen.rows], dtype=torch.float64)
    after = torch.tensor([norms[row[0] + row[1]] for row in seen.rows], dtype=torch.float64)
    dots = (before + after - total) / 2
    exact = settings["memory"] == "exact"
    error = 0.0 if exact else relative_error(settings["sketch_size"])
    sample = params if exact else seen.sample
    done = {(int(row[0]), int(row[1])) for row in seen.rows}
    end = last if clock.grows is not None else inf
    tensors = zip(seen.weights.names, squares.T, seen.layer_sizes, strict=False)
    return TwoTime(
        waiting_time=table[:, 0].long(),
        lag=table[:, 1].long(),
        displacement=total / params,
        displacement_se=error * squares.square().sum(1).sqrt() / params,
        quartic=fourth / params,
        quartic_se=variance.sqrt() / params,
        overlap=dots / params,
        cosine=dots / (before * after).sqrt(),
        layers={n: s / max(m, 1) for n, s, m in tensors} if settings["per_layer"] else {},
        times=once[:, 0].long(),
        norm=once[:, 1].sqrt(),
        path_length=once[:, 2] if seen.follows_path else None,
        step_length=once[:, 3] if seen.follows_path else None,
        histograms=dict(seen.histograms),
        params=params,
        memory=settings["memory"],
        memory_bytes=memory_bytes,
        quartic_sample=sample,
        steps=max(last, 0),
        diverged_at=seen.diverged_at,
        tied=dict(seen.weights.tied),
        missing=tuple(p for p in clock.pairs if p not in done and sum(p) <= end),
        dropped=clock.dropped,
    )
