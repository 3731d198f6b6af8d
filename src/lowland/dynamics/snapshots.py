"""Where the weights have been: whole copies of them, compared exactly."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.sums import Number, cut, pieces_of, power_sums
from lowland.dynamics.weights import Weights

__all__ = ["Snapshots"]

Reduce = Callable[[list[Number]], list[Number]]


class Snapshots:
    """One copy of the weights for each waiting time that still waits for a pair.

    Args:
        weights: What is recorded.
        device: Where copies are kept; on the CPU they are pinned if the weights are on CUDA.
        per_layer: Sum over each tensor by itself.
        reduce: Adds up numbers over the processes that share the weights.

    Attributes:
        kept: A copy for each waiting time, in pieces.

    Source:
        Specification, section 3.2.
    """

    def __init__(self, weights: Weights, device: torch.device, *, per_layer: bool, reduce: Reduce):
        self.kept: dict[int, tuple[Tensor, ...]] = {}
        self.weights, self.device, self.reduce = weights, device, reduce
        self.pinned = device.type == "cpu" and weights.device.type == "cuda"
        self.pieces = pieces_of(weights.sizes, per_layer, weights.device)
        self.layers = [layer for layer, _, _ in self.pieces]
        self.count = len(weights.sizes) if per_layer else 1
        self.parts: list[Tensor] | None = None
        self.now: list[list[Tensor]] = []

    def keep(self, wait: int, x: Float[Tensor, " params"]) -> None:
        """Copy the weights.

        Args:
            wait: The waiting time, now.
            x: The weights, now.
        """
        copy = torch.empty(len(x), dtype=x.dtype, device=self.device, pin_memory=self.pinned)
        copy.copy_(x, non_blocking=True)
        self.kept[wait] = copy.split([stop - start for _, start, stop in self.pieces])

    def measure(self, waits: list[int]) -> tuple[Number, list[list[Number]]]:
        """Compare the weights, where they are, with copies.

        Args:
            waits: Which copies.

        Returns:
            The square of the weights; for each copy: the squared distance by layer, the sum of
            fourth powers of all displacements, and its variance, which is 0 here.
        """
        parts = self.weights.views()
        if parts is not self.parts:
            self.parts, self.now = parts, cut(parts, self.pieces)
        past = [self.kept[wait] for wait in waits]
        square, rows = power_sums(self.now, past, self.layers, self.count)
        (square,) = self.reduce([square])
        return square, [self.reduce([*row, 0.0]) for row in rows]

    def drop(self, wait: int) -> None:
        """Forget a copy.

        Args:
            wait: Its waiting time.
        """
        del self.kept[wait]

    def state_dict(self) -> dict[str, Any]:
        """Copy everything.

        Returns:
            Tensors by waiting time.
        """
        return {"kept": {wait: torch.cat(copy) for wait, copy in self.kept.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.kept.clear()
        for wait, copy in state["kept"].items():
            self.keep(wait, copy)
