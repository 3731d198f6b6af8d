"""Where the weights have been: whole copies of them, compared exactly."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.sums import Number, pieces_of, power_sums
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
        kept: A copy for each waiting time.

    Source:
        Specification, section 3.2.
    """

    exact = True

    def __init__(self, weights: Weights, device: torch.device, *, per_layer: bool, reduce: Reduce):
        self.kept: dict[int, Tensor] = {}
        self.device, self.reduce = device, reduce
        self.pinned = device.type == "cpu" and weights.device.type == "cuda"
        self.pieces = pieces_of(weights.sizes, per_layer, weights.device)

    def keep(self, wait: int, x: Float[Tensor, " params"]) -> None:
        """Copy the weights.

        Args:
            wait: The waiting time, now.
            x: The weights, now.
        """
        copy = torch.empty(len(x), dtype=x.dtype, device=self.device, pin_memory=self.pinned)
        self.kept[wait] = copy.copy_(x, non_blocking=True)

    def measure(self, waits: list[int], x: Float[Tensor, " params"]) -> list[list[Number]]:
        """Compare the weights with copies.

        Args:
            waits: Which copies.
            x: The weights, now.

        Returns:
            For each: the squared distance by layer, the sum of fourth powers of all displacements,
            and its variance, which is 0 here.
        """
        rows = []
        for wait in waits:
            second, fourth = power_sums(x, self.kept[wait], self.pieces)
            rows.append(self.reduce([*second, fourth, 0.0]))
        return rows

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
        return {"kept": {wait: copy.clone() for wait, copy in self.kept.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.kept.clear()
        for wait, copy in state["kept"].items():
            self.keep(wait, copy)
