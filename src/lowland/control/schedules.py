"""How average and learning rates slow down and the nonzero share falls along a run."""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi

__all__ = ["Annealing", "NonzeroSchedule", "PerEpoch", "Schedule", "annealing", "cosine",
           "described", "nonzero_schedule", "per_epoch"]  # fmt: skip

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class PerEpoch:
    """See :func:`per_epoch`.

    Attributes:
        decay: Factor per epoch.
        steps: Of an epoch.
    """

    decay: float
    steps: int

    def __call__(self, step: int) -> float:
        """Give the factor at a step, counted from 0."""
        return self.decay ** (step // self.steps)


@dataclass(frozen=True)
class Annealing:
    """See :func:`annealing`.

    Attributes:
        steps: Of the run.
        final: Factor at its end.
    """

    steps: int
    final: float

    def __call__(self, step: int) -> float:
        """Give the factor at a step, counted from 0."""
        return self.final ** (step / self.steps)


@dataclass(frozen=True)
class NonzeroSchedule:
    """See :func:`nonzero_schedule`.

    Attributes:
        target: Share at the end.
        steps: Of the run.
        start: Share at its beginning.
        until: Share of the run after which the target is reached.
    """

    target: float
    steps: int
    start: float
    until: float

    def __call__(self, step: int) -> float:
        """Give the share at a step, counted from 0."""
        left = max(0.0, 1 - step / max(1.0, self.until * self.steps))
        return self.target + max(0.0, self.start - self.target) * left**3


def per_epoch(decay: float, steps: int) -> PerEpoch:
    """Let ``1 - alpha`` fall by a factor after every epoch, as the authors do.

    Args:
        decay: The factor, above 0, at most 1.
        steps: Of an epoch.

    Returns:
        The factor as a function of the step.

    Raises:
        ValueError: If ``decay`` is not between 0 and 1, or an epoch has no step.

    Source:
        Li & Hao, ICML 2018; specification section 3 B.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay, a factor on 1 - alpha per epoch, must be in (0, 1]; got {decay}.")
    if steps < 1:
        raise ValueError(f"steps, of an epoch, must be at least 1; got {steps}.")
    return PerEpoch(decay, steps)


def annealing(steps: int, final: float = 0.04) -> Annealing:
    """Let ``1 - alpha`` fall exponentially over a run.

    Args:
        steps: Of the run.
        final: Factor at its end.

    Returns:
        The factor as a function of the step.

    Raises:
        ValueError: If ``final`` is not between 0 and 1.

    Source:
        Ours: 0.9 per epoch over the 30 epochs of the digits.
    """
    if not 0 < final <= 1:
        raise ValueError(f"final, a factor on 1 - alpha, must be in (0, 1]; got {final}.")
    return Annealing(max(1, steps), final)


def cosine(steps: int) -> Schedule:
    """Let a learning rate fall along half a cosine, from 1 to 0.

    Args:
        steps: Of the run.

    Returns:
        The factor as a function of the step.

    Source:
        Loshchilov & Hutter, ICLR 2017, Eq. (5), without restarts.
    """
    return lambda step: 0.5 + 0.5 * cos(pi * min(1.0, step / max(1, steps)))


def nonzero_schedule(
    target: float, steps: int, *, start: float = 2 / 3, until: float = 0.25
) -> NonzeroSchedule:
    """Lower the share of nonzero weights along a cubic to its target, then hold it.

    Args:
        target: Share at the end.
        steps: Of the whole run.
        start: Share at its beginning; 2/3 for weights drawn from -1, 0, 1.
        until: Share of the run after which the target is reached.

    Returns:
        The share as a function of the step.

    Raises:
        ValueError: If a share is not between 0 and 1.

    Source:
        The cubic of Zhu & Gupta, 2017 (arXiv 1710.01878).
    """
    for name, share in (("target", target), ("start", start), ("until", until)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share between 0 and 1; got {share}.")
    return NonzeroSchedule(target, steps, start, until)


def described(schedule: float | Schedule | None) -> float | str | None:
    """Describe a schedule by a plain value, so that two runs can be told apart.

    Args:
        schedule: A number, a function, or nothing.

    Returns:
        The number, what a schedule of this file is made of, or the name of a function.
    """
    if not callable(schedule):
        return schedule
    is_ours = isinstance(schedule, PerEpoch | Annealing | NonzeroSchedule)
    return repr(schedule) if is_ours else getattr(schedule, "__qualname__", type(schedule).__name__)
