"""Descend without noise from recorded weights, and look for barriers between the ends (C9)."""

from itertools import pairwise
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from torch.optim import SGD

from lowland.connectivity import Cycle, Schedule, find_path, linear_path
from lowland.errors import NoEffectWarning
from lowland.reproduce.baityjesi2018_courses import LOSSES, kept_weights, network
from lowland.reproduce.baityjesi2018_settings import Course, Quench
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images
from lowland.results import plain
from lowland.training import evaluate, train

__all__ = ["quench_course"]

BATCH = 10**6  # all examples at once


def quench_course(
    quench: Quench,
    course: Course,
    images: Images,
    seed: int,
    folder: Path,
    display: Any = False,
) -> dict[str, Any]:
    """Quench every kept state of a run, and join neighbours by straight lines.

    Args:
        quench: What to do.
        course: The course.
        images: Its data.
        seed: Which run of the course.
        folder: Where the run has kept its weights.
        display: Progress display.

    Returns:
        Losses before and after by waiting time; losses along lines and the path.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    loss_fn, model = LOSSES[course.loss], network(images, seed)
    states, rows = {}, []
    for wait, state in kept_weights(folder).items():
        model.load_state_dict(state)
        before = evaluate(model, loss_fn, images.reading).loss
        result = train(
            model,
            loss_fn,
            images.training(seed, min(BATCH, len(images.train[1]))),
            steps=quench.steps,
            optimizer=lambda params: SGD(params, quench.learning_rate, quench.momentum),
            evaluate_every=10**9,
            progress=display,
        )
        pass_ctrl_c_on(result.status)
        states[wait] = result.state
        after = evaluate(model, loss_fn, images.reading).loss
        rows.append({"wait": wait, "before": before, "after": after})
    lines = []
    for first, second in pairwise(states):
        line = linear_path(
            model, loss_fn, images.reading, states[first], states[second],
            samples=quench.line, batch_norm="interpolate", backend="loop",
        )  # fmt: skip
        lines.append({"from": first, "to": second} | shape(line.profile))
    path = None
    waits = list(states)
    if quench.cycles and len(waits) > 1:
        cycles = [
            Cycle(steps, quench.path_rate)
            if number
            else Cycle(steps, quench.path_rate, "equal", quench.pivots)
            for number, steps in enumerate(quench.cycles)
        ]
        with catch_warnings():
            simplefilter("ignore", NoEffectWarning)  # a straight line without a bump is an answer
            found = find_path(
                model, loss_fn, images.training(seed), states[waits[0]], states[waits[-1]],
                schedule=Schedule(
                    tuple(cycles), weight_decay=0.0, samples=4, examples=1000,
                    batch_norm="interpolate",
                ),
                evaluation_batches=images.reading, backend="loop", progress=display,
            )  # fmt: skip
        path = {"from": waits[0], "to": waits[-1], "best_cycle": found.best_cycle}
        path |= shape(found.profile)
        path["straight"] = shape(found.cycles[0].profile)["bump"]
    return plain({"course": course.name, "kind": course.kind, "seed": seed, "rows": rows,
                  "lines": lines, "path": path})  # fmt: skip


def shape(profile: Any) -> dict[str, Any]:
    """Losses along a path, and by how much it rises above its higher end."""
    losses = profile.values("train_loss")
    ends = max(float(losses[0]), float(losses[-1]))
    return {
        "at": [k / (len(losses) - 1) for k in range(len(losses))],
        "loss": losses,
        "bump": float(losses.max()) - ends,
    }
