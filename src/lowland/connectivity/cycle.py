"""What one cycle of AutoNEB does to a path: pivots are put in, and all are relaxed."""

import warnings
from collections.abc import Callable

from torch import Tensor

from lowland.connectivity.insert import (
    Inserted,
    insert_equal,
    insert_highest,
    insertion_residuals,
)
from lowland.connectivity.neb import Relaxed, relax
from lowland.connectivity.path import Path
from lowland.connectivity.profile import Profile
from lowland.connectivity.schedule import Cycle, Schedule
from lowland.connectivity.symmetry import with_noise
from lowland.connectivity.task import Task
from lowland.errors import NoEffectWarning
from lowland.training import generator

__all__ = ["climbs", "insert", "relax_from"]


def climbs(schedule: Schedule, number: int) -> bool:
    """Whether the highest pivot of a cycle climbs."""
    return schedule.climb and number == len(schedule.cycles)


def insert(
    cycle: Cycle, schedule: Schedule, path: Path, before: Profile
) -> tuple[Tensor, Tensor, tuple[Inserted, ...]]:
    """Put in the pivots of a cycle."""
    if cycle.insert == "equal":
        return *insert_equal(path.pivots, path.weights, cycle.count), ()
    residuals = insertion_residuals(before.train_loss, schedule.samples)
    return insert_highest(
        path.pivots, path.weights, residuals, count=cycle.count, threshold=schedule.threshold
    )


def relax_from(
    task: Task,
    schedule: Schedule,
    cycle: Cycle,
    number: int,
    pivots: Tensor,
    weights: Tensor,
    loss_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]],
    on_step: Callable[[], None],
) -> tuple[Relaxed, bool]:
    """Relax, with a little noise if a symmetric start feels no force."""
    settings = {
        "learning_rate": cycle.learning_rate,
        "momentum": schedule.momentum,
        "tangent": schedule.tangent,
        "spring_constant": schedule.spring_constant,
        "climb": climbs(schedule, number),
    }
    trapped = False
    if number == 1:  # later cycles start from a path that has left its symmetry
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            trapped = relax(pivots, weights, loss_and_grad, steps=1, **settings).trapped
    if trapped:
        pivots = with_noise(pivots, generator(task.seed, "noise", number))
    relaxed = relax(pivots, weights, loss_and_grad, steps=cycle.steps, on_step=on_step, **settings)
    return relaxed, trapped
