"""What a training run under the two-time microscope leaves: tables, phases, and its files."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowland.dynamics.phases import Phases, find_phases
from lowland.dynamics.two_time import TwoTime
from lowland.errors import OutcomeError
from lowland.results import Status, environment, plain, read_json, write_json
from lowland.training import TrainResult

__all__ = ["Dynamics"]


@dataclass(frozen=True)
class Dynamics:
    """What a training run looked like.

    Attributes:
        status: ``FINISHED``, ``INTERRUPTED`` or ``NOT_FINITE``.
        message: A sentence on how it ended.
        two_time: Displacements of the weights between pairs of instants.
        losses: Rows with ``step``, ``loss`` and ``error`` of the training data in eval mode, and
            ``learning_rate`` (of the next update) and ``age`` (sum of the rates of those so far;
            over 1 - mu with a momentum mu it is the age of :func:`flat_directions`).
        noise: Rows with ``step`` and the numbers of :class:`GradientNoise`.
        clones: Rows with ``waiting_time``, ``lag``, ``displacement`` between replicas, its
            standard error, and ``raw``.
        optimizer: Name of the optimizer's class.
        dimensionless: Whether displacements over the noise are pure numbers, as for torch's SGD;
            ``normalization`` says why.
        steps: Updates done.
        seconds: Wall time, over all calls that shared the folder.
        training: How training went, with the weights.
        sharpness: Rows with ``step``, ``sharpness`` and its ``residual``, if asked for.
    """

    status: Status
    message: str
    two_time: TwoTime
    losses: list[dict[str, Any]]
    noise: list[dict[str, Any]]
    clones: list[dict[str, Any]]
    optimizer: str
    dimensionless: bool
    steps: int
    seconds: float
    training: TrainResult = field(repr=False)
    sharpness: list[dict[str, Any]] = field(default_factory=list)

    @property
    def normalization(self) -> str:
        """What dividing displacements by the gradient noise D means here, in a sentence."""
        if self.dimensionless:
            return (
                "an update is the rate times a mean of gradients (SGD), so M Delta / (eta^2 D t) "
                "is a pure number, with a momentum too."
            )
        return (
            f"an update of {self.optimizer} is not the rate times a gradient, so Delta over D has "
            "a unit of its own: compare its curves within this run only."
        )

    def phases(self, *, samples: int = 200, seed: int = 0) -> Phases:
        """Find the phases of the run.

        Args:
            samples: See :func:`find_phases`.
            seed: Of the bootstrap.

        Returns:
            Phases, with scores over the noise if that was measured.
        """
        return find_phases(
            curve_of(self.losses, "loss"), self.two_time,
            [curve_of(self.noise, "trace")] if len(self.noise) > 1 else [],
            samples=samples, seed=seed,
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Give everything but the weights as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {
            "status": self.status,
            "message": self.message,
            "steps": self.steps,
            "seconds": self.seconds,
            "losses": self.losses,
            "noise": self.noise,
            "clones": self.clones,
            "sharpness": self.sharpness,
            "optimizer": self.optimizer,
            "dimensionless": self.dimensionless,
            "normalization": self.normalization,
            "two_time": self.two_time.record(),
            "environment": environment(self.training.device),
        }
        return plain(numbers)

    def save(self, folder: str | Path) -> Path:
        """Write ``dynamics.json``, ``two_time.json`` and the files of the training run.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        self.training.save(folder)
        self.two_time.save(folder)
        write_json(Path(folder) / "dynamics.json", self.record())
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Dynamics":
        """Read what :meth:`save` wrote.

        Args:
            folder: Where from.

        Returns:
            The same, with the weights on the CPU.
        """
        values = read_json(Path(folder) / "dynamics.json")
        names = ("message", "losses", "noise", "clones", "optimizer", "dimensionless", "steps")
        return cls(
            status=Status[values["status"].upper()],
            two_time=TwoTime.load(folder),
            seconds=values["seconds"],
            training=TrainResult.load(folder),
            sharpness=values.get("sharpness", []),
            **{name: values[name] for name in names},
        )

    def raise_for_status(self) -> None:
        """Raise if the run did not do all its steps.

        Raises:
            OutcomeError: If it was interrupted, or met a number that is not finite.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(self.message)


def curve_of(rows: list[dict[str, Any]], name: str) -> tuple[Tensor, Tensor]:
    """A column of some rows against the step."""
    known = [row for row in rows if row[name] is not None and isfinite(row[name])]
    steps = torch.tensor([row["step"] for row in known])
    return steps, torch.tensor([row[name] for row in known], dtype=torch.float64)
