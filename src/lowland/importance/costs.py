"""What a step costs, by the clock: waiting for data, scoring and training together."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Costs"]

# A median over so many steps shrugs off an evaluation or a busy moment between them.
WINDOW = 15
ENOUGH = 3
KINDS = ("uniform", "active", "wait", "score")


@dataclass
class Costs:
    """Seconds of the last steps, and what a step on chosen rows costs in uniform ones.

    A step lasts from the request for its batch to the request for the next one, so everything the
    user's loop does is part of it.

    Attributes:
        seconds: The last measurements of ``"uniform"`` and ``"active"`` steps, of ``"wait"`` (for
            the rows of a uniform step), and of ``"score"`` (scoring a pool and drawing from it).
        ratios: The last costs of steps on chosen rows. Numerator and denominator of each come from
            one moment, so that a machine that is busy at times does not mislead the switch.
    """

    seconds: dict[str, deque[float]] = field(
        default_factory=lambda: {kind: deque(maxlen=WINDOW) for kind in KINDS}
    )
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, kind: str, seconds: float) -> None:
        """Note a measurement.

        Args:
            kind: What was measured.
            seconds: How long it took.
        """
        self.seconds[kind].append(seconds)

    def add_ratio(self, active: float, uniform: float) -> None:
        """Note what a step on chosen rows costs against a uniform one.

        Args:
            active: Seconds of the one.
            uniform: Seconds of the other, at about the same time.
        """
        if uniform > 0:
            self.ratios.append(active / uniform)

    def add_whole_steps(self) -> None:
        """Compare whole steps, where their parts cannot be told apart."""
        active, uniform = self.of("active"), self.of("uniform")
        if active is not None and uniform is not None:
            self.add_ratio(active, uniform)

    def of(self, kind: str) -> float | None:
        """Give a typical measurement.

        Args:
            kind: What was measured.

        Returns:
            The median of the last ones, None before there are three.
        """
        known = self.seconds[kind]
        return median(known) if len(known) >= ENOUGH else None

    @property
    def ratio(self) -> float | None:
        """What a step on chosen rows costs in uniform steps, None before it is known."""
        return median(self.ratios) if self.ratios else None

    def record(self) -> dict[str, float | None]:
        """Give the medians as plain values.

        Returns:
            Seconds by kind, None where nothing is known.
        """
        return {kind: self.of(kind) for kind in KINDS}

    def state_dict(self) -> dict[str, Any]:
        """Give all measurements as plain values.

        Returns:
            Lists of seconds and of ratios.
        """
        return {kind: list(values) for kind, values in self.seconds.items()} | {
            "ratios": list(self.ratios)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved measurements.

        Args:
            state: What :meth:`state_dict` returned.
        """
        for kind in KINDS:
            self.seconds[kind] = deque(state[kind], maxlen=WINDOW)
        self.ratios = deque(state["ratios"], maxlen=WINDOW)
