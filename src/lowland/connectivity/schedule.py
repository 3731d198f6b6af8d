"""Which cycles AutoNEB runs, and the presets."""

from dataclasses import dataclass
from numbers import Real

from lowland.connectivity.checks import (
    refuse_no_momentum,
    refuse_no_number,
    refuse_no_rate,
    refuse_no_whole,
    refuse_unknown,
)
from lowland.connectivity.tangent import TANGENTS

__all__ = [
    "BATCH_NORMS",
    "SCHEDULES",
    "Cycle",
    "Schedule",
    "paper",
    "schedule_named",
]

BATCH_NORMS = ("recalibrate", "interpolate")


@dataclass(frozen=True)
class Cycle:
    """One insertion of pivots and the relaxation after it.

    Attributes:
        steps: SGD steps.
        learning_rate: Their learning rate; momentum starts at zero in every cycle.
        insert: ``"equal"`` puts ``count`` pivots into every segment, ``"highest"`` at most
            ``count`` pivots on the highest bumps between pivots.
        count: How many.
    """

    steps: int
    learning_rate: float
    insert: str = "highest"
    count: int = 2

    def __post_init__(self):
        refuse_no_whole(1, steps=self.steps)
        refuse_no_whole(0, count=self.count)
        refuse_no_rate(self.learning_rate)
        refuse_unknown(("equal", "highest"), insert=self.insert)


@dataclass(frozen=True)
class Schedule:
    """A whole AutoNEB run.

    Attributes:
        cycles: What to do one after the other; the first must leave at least one pivot.
        momentum: Of SGD.
        weight_decay: Of SGD, projected like the gradient; reported losses leave it out.
        threshold: Insert where the loss lies further above the line between pivots than this
            share of the range of losses over the pivots.
        samples: Points inside each segment that the dense evaluation looks at.
        examples: Training examples that decide after each cycle; the reported path is evaluated
            on all of them.
        calibration: Examples over which batch-norm statistics are recomputed.
        shared_batch: Whether all pivots see the same batch in a step.
        tangent: ``"paper"``, ``"improved"`` or ``"official"``.
        batch_norm: ``"recalibrate"`` recomputes running statistics at every evaluated point,
            ``"interpolate"`` moves them as coordinates, as the published code does.
        spring_constant: Stiffness of springs that hold the pivots apart, in units of loss per
            squared distance, for comparison; None redistributes them, as the paper does.
        climb: Whether in the last cycle the highest pivot climbs along the path to the saddle
            itself, without springs on it. That cycle is then the result, be its saddle the lowest
            or not. Needs a spring constant.
    """

    cycles: tuple[Cycle, ...]
    momentum: float = 0.9
    weight_decay: float = 1e-4
    threshold: float = 0.2
    samples: int = 9
    examples: int = 5000
    calibration: int = 2000
    shared_batch: bool = True
    tangent: str = "paper"
    batch_norm: str = "recalibrate"
    spring_constant: float | None = None
    climb: bool = False

    def __post_init__(self):
        if not self.cycles or self.cycles[0].insert != "equal" or self.cycles[0].count < 1:
            raise ValueError(
                "the first cycle must insert at least one pivot per segment, as in "
                f"Cycle(steps, learning_rate, insert='equal', count=3); got {self.cycles[:1]}."
            )
        refuse_unknown(TANGENTS, tangent=self.tangent)
        refuse_unknown(BATCH_NORMS, batch_norm=self.batch_norm)
        if self.climb and self.spring_constant is None:
            raise ValueError(
                "climb=True needs a spring_constant: redistribution would move the climbing pivot "
                "back; got None. Pass spring_constant=0.0 or more."
            )
        if self.spring_constant is not None:
            refuse_no_number(spring_constant=self.spring_constant)
        refuse_no_number(weight_decay=self.weight_decay)
        refuse_no_momentum(self.momentum)
        if not (isinstance(self.threshold, Real) and self.threshold >= 0):
            raise ValueError(
                f"threshold must be a number, zero or more (inf inserts nothing); got "
                f"{self.threshold!r}."
            )
        refuse_no_whole(0, samples=self.samples)
        refuse_no_whole(1, examples=self.examples, calibration=self.calibration)

    @property
    def steps(self) -> int:
        """Steps of all cycles."""
        return sum(cycle.steps for cycle in self.cycles)


def paper() -> Schedule:
    """The 14 cycles of the paper: 16,000 steps, at most 29 interior pivots."""
    return Schedule(fourteen_cycles(1000))


def laptop() -> Schedule:
    """The paper's cycles with a tenth of the steps."""
    return Schedule(fourteen_cycles(100))


def official() -> Schedule:
    """The paper's cycles with what the published code does otherwise; see :class:`Schedule`."""
    return Schedule(
        fourteen_cycles(1000),
        threshold=0.1,
        shared_batch=False,
        tangent="official",
        batch_norm="interpolate",
    )


def fourteen_cycles(unit: int) -> tuple[Cycle, ...]:
    """Cycles 1 to 4, 5 to 6 twice as long, 7 to 10 and 11 to 14."""
    lengths = [unit] * 4 + [2 * unit] * 2 + [unit] * 8
    rates = [0.1] * 6 + [0.01] * 4 + [0.001] * 4
    first, *rest = zip(lengths, rates, strict=True)
    return (Cycle(*first, insert="equal", count=3), *(Cycle(*pair) for pair in rest))


SCHEDULES = {"laptop": laptop, "paper": paper, "official": official}


def schedule_named(schedule: str | Schedule) -> Schedule:
    """Look up a preset.

    Args:
        schedule: A name, or a schedule, which is returned as it is.

    Returns:
        The schedule.

    Raises:
        ValueError: If there is no preset of that name.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if schedule not in [*SCHEDULES]:
        raise ValueError(
            f"schedule must be one of {', '.join(map(repr, SCHEDULES))}, or a Schedule; "
            f"got {schedule!r}."
        )
    return SCHEDULES[schedule]()
