"""What a recorder has seen: two-time and one-time observables of a run, with their errors."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lowland.errors import OutcomeError
from lowland.results import Status, plain, read_json, write_json

__all__ = ["TwoTime"]


@dataclass(frozen=True)
class TwoTime:
    r"""Displacements of the weights between pairs of instants of one run.

    Times are completed updates; averages are over the M recorded parameters. Rows are in the order
    in which the run completed the pairs.

    Attributes:
        waiting_time: tw of each pair.
        lag: t of each pair; the pair is compared at tw + t.
        displacement: :math:`\Delta = \frac1M \sum_i (w_i(tw + t) - w_i(tw))^2`.
        displacement_se: Its standard error: of the sketch; 0 for exact copies.
        quartic: :math:`K_4`, the mean fourth power of the same differences.
        quartic_se: Its standard error: of the sample of coordinates; 0 if all are there.
        overlap: :math:`\frac1M \sum_i w_i(tw) w_i(tw + t)`, exact up to the error of Delta.
        cosine: Of the angle between both vectors of weights.
        layers: The displacement of each tensor, by name; empty unless asked for.
        times: Instants at which there is something to tell.
        norm: Euclidean norm of the weights at each of ``times``.
        path_length: Sum of the lengths of all steps until then; None unless asked for.
        step_length: Length of the last step before then; None unless asked for.
        histograms: Waiting time to ``low``, ``high`` and ``counts`` of the weights, if asked for.
        params: M, over all processes.
        memory: ``"exact"`` or ``"sketch"``.
        memory_bytes: Bytes that copies or sketches need at most, on one process.
        quartic_sample: Number of coordinates that the fourth power is estimated from; M if exact.
        steps: Updates recorded.
        diverged_at: First instant at which a weight was no longer finite, else None.
        tied: Further names of tensors that were counted once.
        missing: Pairs ``(tw, t)`` that were planned and are not there.
        dropped: Pairs that the clock left out, as they end after the run.
    """

    waiting_time: Int[Tensor, " pairs"]
    lag: Int[Tensor, " pairs"]
    displacement: Float[Tensor, " pairs"]
    displacement_se: Float[Tensor, " pairs"]
    quartic: Float[Tensor, " pairs"]
    quartic_se: Float[Tensor, " pairs"]
    overlap: Float[Tensor, " pairs"]
    cosine: Float[Tensor, " pairs"]
    times: Int[Tensor, " times"]
    norm: Float[Tensor, " times"]
    params: int
    memory: str
    memory_bytes: int
    quartic_sample: int
    steps: int
    layers: dict[str, Float[Tensor, " pairs"]] = field(default_factory=dict)
    path_length: Float[Tensor, " times"] | None = None
    step_length: Float[Tensor, " times"] | None = None
    histograms: dict[int, dict[str, Any]] = field(default_factory=dict)
    diverged_at: int | None = None
    tied: dict[str, str] = field(default_factory=dict)
    missing: tuple[tuple[int, int], ...] = ()
    dropped: tuple[tuple[int, int], ...] = ()

    @property
    def status(self) -> Status:
        """``NOT_FINITE`` where the run diverged, ``INTERRUPTED`` where pairs are missing."""
        if self.diverged_at is not None:
            return Status.NOT_FINITE
        return Status.INTERRUPTED if self.missing else Status.FINISHED

    @property
    def kurtosis(self) -> Float[Tensor, " pairs"]:
        r"""Ratio :math:`K_4 / \Delta^2` over the parameters; NaN where nothing moved."""
        return self.quartic / self.displacement**2

    @property
    def waits(self) -> list[int]:
        """Waiting times that have a pair, ascending."""
        return sorted(set(self.waiting_time.tolist()))

    def curve(self, wait: int) -> tuple[Int[Tensor, " lags"], Float[Tensor, " lags"]]:
        """Give the displacement since a waiting time.

        Args:
            wait: The waiting time.

        Returns:
            Lags above 0, ascending, and the displacement at each.

        Raises:
            ValueError: If there is no pair with that waiting time.
        """
        chosen = (self.waiting_time == wait) & (self.lag > 0)
        if not chosen.any():
            raise ValueError(
                f"the waiting time must be one with a pair of positive lag; got {wait}. "
                f"There are {self.waits}."
            )
        return self.lag[chosen], self.displacement[chosen]

    def at(self, wait: int, lag: int) -> float:
        """Give one displacement.

        Args:
            wait: The waiting time.
            lag: The lag.

        Returns:
            The displacement.

        Raises:
            ValueError: If there is no such pair.
        """
        found = self.displacement[(self.waiting_time == wait) & (self.lag == lag)]
        if not len(found):
            raise ValueError(f"the pair must have been recorded; got ({wait}, {lag}).")
        return found.item()

    def raise_for_status(self) -> None:
        """Raise if the run diverged.

        Raises:
            OutcomeError: If a weight was no longer finite.
        """
        if self.diverged_at is not None:
            raise OutcomeError(
                f"a weight is no longer finite at update {self.diverged_at}; what was recorded "
                "before is kept."
            )

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain(self) | {"status": plain(self.status)}

    def save(self, folder: str | Path) -> Path:
        """Write ``two_time.json``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        write_json(Path(folder) / "two_time.json", self.record())
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "TwoTime":
        """Read what :meth:`save` wrote.

        Args:
            folder: Where from.

        Returns:
            The observables.
        """
        values = read_json(Path(folder) / "two_time.json")
        values = {f.name: values[f.name] for f in fields(cls)}
        for name in ("waiting_time", "lag", "times"):
            values[name] = torch.tensor(values[name], dtype=torch.int64)
        for name, value in values.items():
            if isinstance(value, list) and name not in ("missing", "dropped"):
                values[name] = column(value)
        values["layers"] = {name: column(value) for name, value in values["layers"].items()}
        values["histograms"] = {int(k): value for k, value in values["histograms"].items()}
        for name in ("missing", "dropped"):
            values[name] = tuple((wait, lag) for wait, lag in values[name])
        return cls(**values)


def column(values: list[float | None]) -> Tensor:
    """Numbers in float64, NaN where a record has none."""
    numbers = [float("nan") if value is None else value for value in values]
    return torch.tensor(numbers, dtype=torch.float64)
