"""What a search for a path returns: the path, its profile, and how it came about."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path as FilePath
from typing import Any

import torch

from lowland.connectivity.insert import Inserted
from lowland.connectivity.path import Path
from lowland.connectivity.profile import Profile
from lowland.errors import OutcomeError
from lowland.results import Status, plain, read_json, write_json

__all__ = ["CycleResult", "PathResult"]


@dataclass(frozen=True, eq=False)
class CycleResult:
    """One cycle of AutoNEB; number 0 is the straight line.

    Attributes:
        number: Which cycle.
        num_pivots: Interior pivots during the cycle.
        inserted: Pivots put in before it, by their bump.
        steps: SGD steps done.
        learning_rate: Their learning rate.
        backend: How the pivots were run.
        profile: Losses along the path after it, on the fixed examples.
        length_ratio: Length of the path after it, over the distance of the ends.
        force: Largest norm of a force on a pivot in the last step; None after a divergence.
        perturbed: Whether noise had to free the path from a symmetric start.
        status: ``FINISHED``, or ``NOT_FINITE``.
        message: After a divergence, what happened where.
        seconds: Wall time.
    """

    number: int
    num_pivots: int
    inserted: tuple[Inserted, ...]
    steps: int
    learning_rate: float | None
    backend: str
    profile: Profile
    length_ratio: float
    force: float | None
    perturbed: bool
    status: Status
    message: str
    seconds: float

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "CycleResult":
        """Rebuild a cycle from its plain values."""
        rebuilt = {
            "inserted": tuple(Inserted(**new) for new in values["inserted"]),
            "profile": profile_from_plain(values["profile"]),
            "status": Status[values["status"].upper()],
        }
        return cls(**{**values, **rebuilt})


@dataclass(frozen=True, eq=False, repr=False)
class PathResult:
    """A path between two minima.

    Attributes:
        path: The pivots.
        profile: Losses and errors along it, on all data that was to be reported on; after an
            interruption on the deciding examples only.
        cycles: How it came about, the straight line first; empty for a straight line.
        best_cycle: The cycle the path is from: the one with the lowest saddle, or the climbing one.
        distance: Euclidean distance of the ends.
        status: How the run ended.
        message: More about the status, or empty.
        settings: Plain values that decided the numbers.
        seconds: Wall time, over all calls that shared a folder.
    """

    path: Path
    profile: Profile
    cycles: tuple[CycleResult, ...]
    best_cycle: int
    distance: float
    status: Status
    message: str
    settings: dict[str, Any]
    seconds: float

    def __repr__(self) -> str:
        """The numbers that matter, without tensors."""
        return (
            f"PathResult(saddle={self.saddle:.4g}, barrier_max={self.barrier_max:.4g}, "
            f"pivots={len(self.path.pivots)}, best_cycle={self.best_cycle}, "
            f"status={self.status.name})"
        )

    @property
    def saddle(self) -> float:
        """Highest training loss along the path, ends included."""
        return self.profile.saddle()

    @property
    def barrier_max(self) -> float:
        """Saddle above the higher end, as in energy landscapes; training loss."""
        return self.profile.barrier_max()

    @property
    def barrier_mid(self) -> float:
        """Saddle above the mean of both ends, as in the code of Git Re-Basin; training loss."""
        return self.profile.barrier_mid()

    @property
    def barrier_lin(self) -> float:
        """Largest excess over linear interpolation of the ends' losses; training loss."""
        return self.profile.barrier_lin()

    @property
    def length_ratio(self) -> float:
        """Length of the path over the distance of its ends; 1 for equal ends."""
        return self.path.length() / self.distance if self.distance else 1.0

    def state_dict(self, t: float) -> dict[str, torch.Tensor]:
        """Give the network at a fraction of the arc length.

        Args:
            t: From 0 (start) to 1 (end).

        Returns:
            What :meth:`lowland.connectivity.Path.state_dict` returns.
        """
        return self.path.state_dict(t)

    def raise_for_status(self) -> "PathResult":
        """Turn a bad outcome into an exception.

        Returns:
            This result.

        Raises:
            OutcomeError: If the run did not finish.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(f"the search for a path ended: {self.status.value}; {self.message}")
        return self

    def record(self) -> dict[str, Any]:
        """Everything but the parameters, as plain values.

        Returns:
            A dict that JSON can hold.
        """
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "path"}
        summary = ("saddle", "barrier_max", "barrier_mid", "barrier_lin", "length_ratio")
        return plain({name: getattr(self, name) for name in summary} | named)

    def save(self, folder: str | FilePath) -> FilePath:
        """Write ``path.safetensors`` and ``result.json``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        self.path.save(FilePath(folder) / "path.safetensors")
        write_json(FilePath(folder) / "result.json", self.record())
        return FilePath(folder)

    @classmethod
    def load(cls, folder: str | FilePath, device: str = "cpu") -> "PathResult":
        """Read a result.

        Args:
            folder: A folder written by :meth:`save`.
            device: Where the pivots go.

        Returns:
            The result.
        """
        values = read_json(FilePath(folder) / "result.json")
        rebuilt = {
            "path": Path.load(FilePath(folder) / "path.safetensors", device),
            "profile": profile_from_plain(values["profile"]),
            "cycles": tuple(CycleResult.from_plain(cycle) for cycle in values["cycles"]),
            "status": Status[values["status"].upper()],
        }
        return cls(**{f.name: rebuilt.get(f.name, values.get(f.name)) for f in fields(cls)})


def profile_from_plain(values: Mapping[str, Any]) -> Profile:
    """Rebuild a profile; what JSON could not hold was not finite."""

    def column(numbers: list[float | None]) -> torch.Tensor:
        whole = [float("nan") if number is None else number for number in numbers]
        return torch.tensor(whole, dtype=torch.float64)

    known = {name: column(numbers) for name, numbers in values.items() if numbers is not None}
    return Profile(**known)
