"""A network whose units were permuted, and what was done to it."""

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lowland.results import Status, plain, write_json
from lowland.training import save_state

__all__ = ["Alignment"]


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """A network whose units were permuted to match those of another.

    Attributes:
        state: State dict of the permuted network, under the model's names.
        permutations: For each group the units that came to its places: new unit i is old unit
            ``permutations[group][i]``. Shape ``(units,)``, or ``(blocks, units)`` for units that
            are permuted inside of blocks, as the channels of attention heads are.
        groups: For each group the tensors and axes that it permutes.
        left_alone: Axes of parameters that were not permuted, and why.
        objective: What was made large, before and after: for weights the cosine of the two
            networks as vectors, for activations the mean correlation of matched units.
        method: ``"weights"`` or ``"activations"``.
        passes: Passes over all groups.
        status: Whether no group moved in the last pass.
        seconds: How long it took.
    """

    state: dict[str, Tensor]
    permutations: dict[str, Int[Tensor, "..."]]
    groups: dict[str, tuple[tuple[str, int], ...]]
    left_alone: dict[str, str]
    objective: tuple[float, float]
    method: str
    passes: int
    status: Status
    seconds: float

    def __repr__(self) -> str:
        """The numbers that matter, without tensors."""
        before, after = self.objective
        return (
            f"Alignment(method={self.method!r}, groups={len(self.groups)}, moved={self.moved}, "
            f"objective={before:.4g} to {after:.4g}, status={self.status.name})"
        )

    @property
    def moved(self) -> int:
        """Number of units that are not where they were."""
        return sum(
            int((table != torch.arange(table.shape[-1])).sum())
            for table in self.permutations.values()
        )

    def record(self) -> dict[str, Any]:
        """Describe the alignment in plain values.

        Returns:
            Everything but the tensors.
        """
        return plain(
            {
                "method": self.method,
                "status": self.status,
                "passes": self.passes,
                "objective": self.objective,
                "moved": self.moved,
                "groups": {n: [f"{t}[{a}]" for t, a in axes] for n, axes in self.groups.items()},
                "left_alone": self.left_alone,
                "seconds": self.seconds,
            }
        )

    def save(self, folder: str | FilePath) -> FilePath:
        """Write ``aligned.safetensors``, a checkpoint, and ``alignment.json``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = FilePath(folder)
        save_state(folder / "aligned.safetensors", self.state)
        tables = plain(self.permutations)
        write_json(folder / "alignment.json", {**self.record(), "permutations": tables})
        return folder
