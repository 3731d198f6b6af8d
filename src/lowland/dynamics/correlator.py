"""The multi-tau correlator: displacements averaged over all time origins of a stationary window."""

from collections import deque
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.stationary import BLOCKS, StationaryWindow, compare_halves, judge_window
from lowland.dynamics.sums import Number, as_tensor, number, pieces_of, square_sum
from lowland.dynamics.weights import Source, Weights
from lowland.training import wide_type

__all__ = ["MultiTau"]

SLOTS = 16  # earlier vectors of each level


class MultiTau:
    r"""Averages :math:`\Delta(t)` over the time origins of a window, in logarithmic memory.

    Level l keeps 16 earlier vectors, :math:`2^l` instants apart, and compares each new one of its
    own with them: lags 1 to 16, then 18, 20, ... 32, then 36, 40, ... The usual correlator
    averages pairs of values on their way up, which takes the fastest motion out of them, and so
    out of a displacement. Here every second one is taken: each displacement is that of weights
    that were there, and only the number of origins falls with the lag.

    An average over origins means something where all are alike. So the second half of the window
    is compared with the first, at every lag up to 1/32 of the window, at 99.9 % for all lags
    together, and a difference of more than 5 % is called aging.

    Args:
        weights: A model, or tensors; see :class:`lowland.dynamics.TwoTimeRecorder`.
        samples: Length of the window, in calls of :meth:`record`.

    Attributes:
        rings: The earlier vectors of each level, oldest first.
        bytes: Memory for them, at most.

    Raises:
        ValueError: If there is nothing to train, or the window is shorter than 2.

    Source:
        Ramirez, Sukumaran, Vorselaars & Likhtman, J. Chem. Phys. 133, 154103 (2010), for the
        levels; specification, section 3.2 (iii).
    """

    def __init__(self, weights: Source, *, samples: int):
        if samples < 2:
            raise ValueError(f"samples must be at least 2; got {samples}.")
        self.weights, self.samples = Weights(weights), samples
        levels = 1
        while (SLOTS // 2 + 1) * 2**levels < samples:
            levels += 1
        self.rings: list[deque[Tensor]] = [deque(maxlen=SLOTS) for _ in range(levels)]
        self.bytes = levels * SLOTS * self.weights.size * self.weights.dtype.itemsize
        self.pieces = pieces_of(self.weights.sizes, False, self.weights.device)
        device = self.weights.device
        shape = (levels * SLOTS, BLOCKS)
        self.sums = torch.zeros(shape, dtype=wide_type(device), device=device)
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)
        self.finite = torch.zeros((), dtype=torch.int64, device=device)  # instants before a NaN
        self.count, self.first, self.stride, self.last = 0, 0, 0, 0

    def record(self, step: int) -> None:
        """Compare the weights with earlier ones; after the window, do nothing.

        Args:
            step: Number of completed updates; grows by the same number from call to call, which
                becomes the shortest lag.

        Raises:
            ValueError: If it does not.
        """
        if self.count >= self.samples:
            return
        if self.count == 0:
            self.first = int(step)
        stride = self.stride or step - self.first
        if self.count and not (stride > 0 and step == self.last + stride):
            raise ValueError(
                "the number of completed updates must grow by the same number from call to call; "
                f"got {step} after {self.last}. Call record(step) at evenly spaced updates."
            )
        self.last, self.stride = int(step), int(stride)
        x = self.weights.read().clone()
        places, values = self.compare(x)
        size = square_sum(x, self.pieces)
        found = as_tensor([*values, size], x.device)
        alive = found.isfinite().all() & (self.finite == self.count)
        self.finite += alive
        block = self.count * BLOCKS // self.samples
        if places:
            self.sums[places, block] += torch.where(alive, found[:-1], 0.0)
            self.counts[places, block] += alive
        for level, ring in enumerate(self.rings):
            if self.count % 2**level == 0:
                ring.append(x)
        self.count += 1

    def compare(self, x: Float[Tensor, " params"]) -> tuple[list[int], list[Number]]:
        """Squared distance from each vector of each level whose turn it is, and their places."""
        places: list[int] = []
        earlier: list[Tensor] = []
        for level, ring in enumerate(self.rings):
            if self.count % 2**level:
                break
            # the first half of the slots of a level are lags of the level below
            shortest = 1 if level == 0 else SLOTS // 2 + 1
            for apart in range(shortest, len(ring) + 1):
                places.append(level * SLOTS + apart - 1)
                earlier.append(ring[-apart])
        values: list[Number] = [0.0] * len(places)
        for _, start, stop in self.pieces:  # each is read once and stays in the cache
            piece = x[start:stop]
            for index, other in enumerate(earlier):
                values[index] += number((other[start:stop] - piece).square_().sum())
        return places, values

    def result(self) -> StationaryWindow:
        """Give the averages until now, with the verdict; recording may go on.

        Returns:
            The displacements.
        """
        place = torch.arange(len(self.sums))
        lag = (place % SLOTS + 1) * 2 ** (place // SLOTS) * max(self.stride, 1)
        sums, counts = self.sums.double().cpu() / self.weights.size, self.counts.cpu()
        seen = [int(p) for p in lag.argsort() if counts[p].any()]
        lag, sums, counts = lag[seen], sums[seen], counts[seen]
        means = torch.where(lag[:, None] <= self.longest_compared(), sums / counts, torch.nan)
        shift, shift_se = compare_halves(means)
        finite = int(self.finite)
        diverged_at = None if finite == self.count else self.first + finite * self.stride
        verdict = judge_window(shift, shift_se, lag, self.count, self.samples, diverged_at)
        return StationaryWindow(
            lag=lag,
            displacement=sums.sum(1) / counts.sum(1),
            displacement_se=means.std(1) / BLOCKS**0.5,
            pairs=counts.sum(1),
            shift=shift,
            shift_se=shift_se,
            is_stationary=verdict[0],
            reason=verdict[1],
            samples=self.count,
            planned=self.samples,
            diverged_at=diverged_at,
        )

    def longest_compared(self) -> float:
        """Half a block, so that neighboring blocks share few pairs; nothing before the end."""
        done = self.count == self.samples
        return self.samples / (2 * BLOCKS) * self.stride if done else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Copy what is needed to go on as if nothing had happened.

        Returns:
            Tensors and plain values.
        """
        empty = torch.empty(0, self.weights.size, dtype=self.weights.dtype)
        return {
            "window": {"samples": self.samples, "shapes": self.weights.shapes},
            "place": [self.count, self.first, self.stride, self.last],
            "sums": self.sums.clone(),
            "counts": self.counts.clone(),
            "finite": int(self.finite),
            "rings": [torch.stack([*ring]) if ring else empty for ring in self.rings],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, with the bits of an uninterrupted run.

        Args:
            state: What :meth:`state_dict` of a correlator with the same arguments returned.

        Raises:
            ValueError: If it belongs to other weights or another window.
        """
        mine = {"samples": self.samples, "shapes": self.weights.shapes}
        if state.get("window") != mine:
            raise ValueError(
                "a state must come from a correlator with the same weights and samples; it is of "
                f"another window, {state.get('window')}, here is {mine}."
            )
        self.count, self.first, self.stride, self.last = state["place"]
        for name in ("sums", "counts"):
            getattr(self, name).copy_(state[name])
        self.finite.fill_(state["finite"])
        device = self.weights.device
        self.rings = [deque([*rows.to(device, copy=True)], maxlen=SLOTS) for rows in state["rings"]]
