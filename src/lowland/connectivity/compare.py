"""Every way to join two minima, beside each other: lines, curves, and AutoNEB."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from torch import Tensor, nn

from lowland.connectivity.align import align
from lowland.connectivity.autoneb import find_path
from lowland.connectivity.band import known_backend
from lowland.connectivity.comparison import FILE, Comparison, compared
from lowland.connectivity.curve import fit_curve
from lowland.connectivity.fit import Descent
from lowland.connectivity.line import linear_path
from lowland.connectivity.path_result import PathResult
from lowland.connectivity.placement import known_place
from lowland.connectivity.schedule import Schedule, schedule_named
from lowland.connectivity.task import make_task, refuse_bad_ends
from lowland.connectivity.told import tell_interrupted
from lowland.errors import NoEffectWarning
from lowland.results import Status, open_folder, plain
from lowland.training import (
    Source,
    broadcast,
    interruptible,
    is_main_process,
    open_progress,
)

__all__ = ["compare_paths"]

# Points on a line and on a curve.
POINTS = 61

# What is compared, by the name of its folder.
METHODS = {
    "line": "straight line",
    "aligned-line": "aligned line",
    "bezier": "Bezier curve",
    "polychain": "polygonal chain",
    "autoneb": "AutoNEB",
}


def compare_paths(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    start: Source,
    end: Source,
    *,
    schedule: str | Schedule = "laptop",
    steps: int | None = None,
    bends: int = 1,
    learning_rate: float = 0.1,
    test_batches: Any = None,
    evaluation_batches: Any = None,
    backend: str = "auto",
    pivots_on: str = "auto",
    seed: int = 0,
    out: str | FilePath | None = None,
    restart: bool = False,
    progress: Any = False,
) -> Comparison:
    """Join two minima in five ways, and put them on one table.

    The straight line; the straight line after the units of the end were permuted to match the
    start; a Bezier curve and a polygonal chain; and AutoNEB. All are evaluated on the same data,
    with batch-norm statistics recomputed at every point. The model itself is not changed. With
    ``out`` each path has a folder of its own, and the same call goes on where it was.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target); readable again and again.
        start: One minimum: a state dict, a module, or a checkpoint file.
        end: The other.
        schedule: Of AutoNEB. Its numbers of examples, its momentum and its weight decay hold for
            the curves as well.
        steps: SGD steps of each curve; by default as many as AutoNEB has. A curve takes one
            gradient per step, a band one for every pivot; the table counts them.
        bends: Control points of a curve between its ends.
        learning_rate: Of the curves.
        test_batches: Test batches, for test loss and error.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        backend: ``"vmap"``, ``"loop"`` or ``"auto"``.
        pivots_on: Of AutoNEB, as for :func:`lowland.connectivity.find_path`.
        seed: Seed of all of them.
        out: Folder for their folders and the table.
        restart: Begin anew; what lies in ``out`` is moved to ``<out>.old-1``, ``-2`` and so on.
        progress: True, False, None (only on a terminal), or a running progress display.

    Returns:
        The table, and the paths.

    Raises:
        ValueError: If the ends do not fit, a batch or a setting is wrong, or an end has no finite
            loss.

    Source:
        Ours.
    """
    schedule = schedule_named(schedule)
    descent = Descent(
        "bezier",
        bends,
        schedule.steps if steps is None else steps,
        learning_rate,
        schedule.momentum,
        schedule.weight_decay,
    )
    shared: dict[str, Any] = {
        "test_batches": test_batches,
        "evaluation_batches": evaluation_batches,
        "seed": seed,
    }
    task = make_task(
        model,
        loss_fn,
        batches,
        start,
        end,
        batch_norm="recalibrate",
        examples=schedule.examples,
        calibration=schedule.calibration,
        **shared,
    )
    settings = task.fingerprint() | {"schedule": plain(schedule), "curve": plain(descent)}
    settings["backend"] = shared["backend"] = known_backend(backend)
    known_place(pivots_on)
    folder, before = None, None
    if out is not None:
        folder = open_folder(out, settings, restart) if is_main_process() else FilePath(out)
        if broadcast((folder / FILE).exists()):
            before = Comparison.load(folder, device=str(task.start.device))
            if before.status is not Status.INTERRUPTED:
                return before
    network = (model, loss_fn, batches, start)
    line = partial(
        linear_path, *network, samples=POINTS - 2, calibration=schedule.calibration, **shared
    )
    curve = partial(
        fit_curve,
        *network,
        end,
        bends=bends,
        steps=descent.steps,
        learning_rate=learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        points=POINTS,
        examples=schedule.examples,
        calibration=schedule.calibration,
        **shared,
    )
    band = partial(
        find_path,
        *network,
        end,
        schedule=schedule,
        batch_norm="recalibrate",
        pivots_on=pivots_on,
        **shared,
    )

    def aligned_line(**options: Any) -> PathResult:
        found = align(model, batches, start, end, seed=seed)
        result = line(found.state, **options)
        noted = result.settings | {"alignment": found.record()}
        return replace(result, settings=noted, seconds=result.seconds + found.seconds)

    ways = {
        "line": partial(line, end),
        "aligned-line": aligned_line,
        "bezier": partial(curve, kind="bezier"),
        "polychain": partial(curve, kind="polychain"),
        "autoneb": band,
    }
    with open_progress(progress) as display:
        results = go_through(ways, folder, display)
    status, message = outcome(results)
    comparison = Comparison(
        rows=tuple(compared(METHODS[name], result) for name, result in results.items()),
        results=results,
        status=status,
        message=message,
        settings=settings,
        seconds=sum(result.seconds for result in results.values()),
    )
    if folder is not None and is_main_process():
        comparison.save(folder)
    if status is Status.INTERRUPTED:
        tell_interrupted(message, folder)
    return comparison


def go_through(
    ways: Mapping[str, Callable[..., PathResult]], folder: FilePath | None, display: Any
) -> dict[str, PathResult]:
    """Search in one way after the other, until one is interrupted."""
    results = {}
    with warnings.catch_warnings(), interruptible() as interrupt:
        warnings.simplefilter("ignore", NoEffectWarning)  # the table tells
        for name, search in ways.items():
            out = None if folder is None else folder / name
            try:
                result = search(out=out, progress=display)
            except KeyboardInterrupt:
                return results
            if result.status is Status.INTERRUPTED:
                return results
            refuse_bad_ends(result.profile)
            results[name] = result
            if interrupt.requested:
                return results
    return results


def outcome(results: Mapping[str, PathResult]) -> tuple[Status, str]:
    """Say how the searches ended, the first trouble first."""
    if len(results) < len(METHODS):
        return Status.INTERRUPTED, f"{len(results)} of {len(METHODS)} paths are finished."
    for name, result in results.items():
        if result.status is not Status.FINISHED:
            return result.status, f"{METHODS[name]}: {result.message}"
    return Status.FINISHED, ""
