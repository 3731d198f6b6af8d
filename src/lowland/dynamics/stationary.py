"""A displacement averaged over a window, and whether both halves of the window agree."""

from dataclasses import dataclass
from math import inf, log
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit
from torch import Tensor

from lowland.results import Status, plain

__all__ = ["BLOCKS", "StationaryWindow", "compare_halves", "judge_window"]

BLOCKS = 16  # of the window, for errors; half of them against the other half
CONFIDENCE = 0.999
TOLERANCE = 0.05  # a change of Delta from half to half that is not worth a flag


@dataclass(frozen=True)
class StationaryWindow:
    r"""The mean square displacement of a window, and whether it may be called stationary.

    Attributes:
        lag: t, in updates, ascending.
        displacement: :math:`\Delta(t)`, mean square per parameter, over all time origins of a lag.
        displacement_se: Its standard error, from 16 blocks of the window; NaN for lags longer than
            half a block.
        pairs: Number of origins.
        shift: Mean logarithm of the displacement in blocks of the second half, less that of the
            first; NaN for lags that are too long to be compared.
        shift_se: Its standard error.
        is_stationary: Whether both halves agree, and a factor of two would have been seen.
        reason: Why, in a sentence.
        samples: Instants recorded.
        planned: Length of the window in instants.
        diverged_at: First step at which a weight was no longer finite, else None.
    """

    lag: Int[Tensor, " lags"]
    displacement: Float[Tensor, " lags"]
    displacement_se: Float[Tensor, " lags"]
    pairs: Int[Tensor, " lags"]
    shift: Float[Tensor, " lags"]
    shift_se: Float[Tensor, " lags"]
    is_stationary: bool
    reason: str
    samples: int
    planned: int
    diverged_at: int | None = None

    @property
    def compared(self) -> int:
        """Longest lag at which the halves were compared; 0 for none."""
        lags = self.lag[~self.shift.isnan()].tolist()
        return max(lags, default=0)

    @property
    def status(self) -> Status:
        """``NOT_FINITE`` where the run diverged, ``INTERRUPTED`` before the end of the window."""
        if self.diverged_at is not None:
            return Status.NOT_FINITE
        return Status.FINISHED if self.samples >= self.planned else Status.INTERRUPTED

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain(self)


def compare_halves(
    means: Float[Tensor, "lags blocks"],
) -> tuple[Float[Tensor, " lags"], Float[Tensor, " lags"]]:
    """Mean logarithm in the second half less that in the first, and its standard error."""
    blocks, still = means.shape[1], means == 0
    logs = torch.where(still, 0.0, means.log())
    shift = logs[:, blocks // 2 :].mean(1) - logs[:, : blocks // 2].mean(1)
    # errors from neighboring blocks: a trend must not hide behind its own size (von Neumann)
    variance = logs.diff(dim=1).square().sum(1) / (2 * (blocks - 1))
    partly = still.any(1) & ~still.all(1)  # moves this rare tell nothing
    error = (4 * variance / blocks).sqrt().masked_fill(partly, inf)
    return shift.masked_fill(partly, 0.0), error


def judge_window(
    shift: Float[Tensor, " lags"],
    error: Float[Tensor, " lags"],
    lag: Int[Tensor, " lags"],
    count: int,
    samples: int,
    diverged_at: int | None,
) -> tuple[bool, str]:
    """Say whether a window is stationary, and why."""
    if diverged_at is not None:
        return False, f"a weight is no longer finite at update {diverged_at}"
    if count < samples:
        return False, f"only {count} of {samples} instants of the window are recorded"
    compared = ~shift.isnan()
    tests = int(compared.sum())
    if not tests:
        return False, f"a window of {samples} instants is too short to compare its halves"
    # Student's for all lags together; so many degrees of freedom have differences of neighbors
    level, freedom = 1 - (1 - CONFIDENCE) / (2 * tests), 2 * (BLOCKS - 1) ** 2 / (3 * BLOCKS - 4)
    chance = float(stdtrit(freedom, level)) * error[compared]
    moved, at = shift[compared], lag[compared]
    excess = moved.abs() - chance.clamp(min=TOLERANCE)
    worst = int(excess.argmax())
    if excess[worst] > 0:
        ratio = float(moved[worst].exp())
        return False, (
            f"aging: at lag {int(at[worst])} the displacement of the second half is {ratio:.3g} "
            "times that of the first; begin the window later, or take a longer one"
        )
    if float(chance.min()) > log(2):
        return False, "too few independent moves: a factor of two would not be seen; take more"
    return True, f"up to lag {int(at.max())} both halves of the window agree"
