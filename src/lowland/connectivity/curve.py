"""Find a curve of low loss with a few bends: mode connectivity by Bezier curves and chains."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path as FilePath
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lowland.connectivity.band import chosen_backend, known_backend
from lowland.connectivity.bends import as_polyline, straight_control
from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.descent import begin_or_resume, descend
from lowland.connectivity.fit import Descent, Fit
from lowland.connectivity.folder import kept_choice, open_search
from lowland.connectivity.path import Path
from lowland.connectivity.path_result import CycleResult, PathResult
from lowland.connectivity.task import Task, make_task, refuse_bad_ends
from lowland.connectivity.told import tell_cycle, tell_interrupted
from lowland.errors import NoEffectWarning
from lowland.results import Status, plain
from lowland.training import Log, Source, is_main_process, open_progress

__all__ = ["fit_curve"]


def fit_curve(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    start: Source,
    end: Source,
    *,
    kind: str = "bezier",
    bends: int = 1,
    steps: int = 2000,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    points: int = 61,
    test_batches: Any = None,
    evaluation_batches: Any = None,
    examples: int = 5000,
    calibration: int = 2000,
    backend: str = "auto",
    seed: int = 0,
    out: str | FilePath | None = None,
    restart: bool = False,
    progress: Any = False,
    log: Log | None = None,
) -> PathResult:
    r"""Find a curve between two minima of a network whose mean loss is low.

    The bends of the curve start evenly on the straight line and descend on
    :math:`E_{t \sim U(0,1)} L(\theta(t))`, with one t and one batch per step. The model itself is
    not changed, and the ends stay bit for bit. Only parameters that require a gradient move;
    frozen ones and other buffers must be equal at both ends. While fitting, dropout is off and
    batch norm uses the statistics of the batch; at every evaluated point they are recomputed.
    With ``out`` the state is on disk every 50 steps, and the same call goes on after the last one
    to the same bits. Several processes share out the evaluation; each fits the whole curve.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target); readable again and again. Inputs may be a
            tensor, a tuple or a mapping.
        start: One minimum: a state dict, a module, or a checkpoint file.
        end: The other.
        kind: ``"bezier"`` or ``"polychain"``.
        bends: Control points between the ends.
        steps: SGD steps; none leaves the straight line.
        learning_rate: Of the first half of the steps; it then falls to a hundredth.
        momentum: Of SGD.
        weight_decay: Of the interpolated weights; reported losses leave it out.
        points: Points along the curve that are evaluated, at least so many.
        test_batches: Test batches, for test loss and error along the curve.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        examples: Training examples on which the straight line and the curve are compared.
        calibration: Examples over which batch-norm statistics are recomputed.
        backend: How points are evaluated: ``"vmap"``, ``"loop"``, or ``"auto"``, which times both.
        seed: Decides the points t, and the order of the batches as far as they draw from torch's
            generators.
        out: Folder for the state and the result, with the control points as a path of their own
            in ``control.safetensors``.
        restart: Begin anew; what lies in ``out`` is moved to ``<out>.old-1``, ``-2`` and so on.
        progress: True, False, None (only on a terminal), or a running progress display.
        log: Called as ``log(values, step)`` with the straight line at step 0, and with the curve
            at the end.

    Returns:
        The curve as a path: a chain's control points are its pivots, a Bezier curve is cut into
        20 straight pieces. ``.cycles`` holds the straight line and the curve.

    Raises:
        ValueError: If the ends do not fit, a batch or a setting is wrong, or an end has no finite
            loss.

    Warns:
        NoEffectWarning: If the curve is not lower than the straight line.

    Source:
        Garipov et al., NeurIPS 2018, arXiv 1802.10026.
    """
    descent = Descent(kind, bends, steps, learning_rate, momentum, weight_decay)
    refuse_no_whole(2, points=points)  # the ends
    refuse_no_whole(1, examples=examples, calibration=calibration)
    known_backend(backend)
    task = make_task(
        model,
        loss_fn,
        batches,
        start,
        end,
        batch_norm="recalibrate",
        examples=examples,
        calibration=calibration,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        seed=seed,
    )
    settings = task.fingerprint() | {"curve": plain(descent), "points": points}
    settings |= {"examples": examples, "calibration": calibration, "asked": backend}
    folder, found = open_search(out, settings, restart=restart, device=task.start.device)
    if found is not None:
        return found
    backend = kept_backend(task, backend, folder, bends)
    straight = cycle(task, task.line(), points, backend)
    refuse_bad_ends(straight.profile)
    cycles = [straight]
    if task.distance:
        control, path, fitted = fitted_curve(
            task, descent, straight, points, backend, folder, progress, log
        )
        cycles.append(fitted)
        status, message = fitted.status, fitted.message
    else:
        tell_cycle(log, straight, 0)
        control, path = straight_control(task.start, task.end, bends), task.line()
        status, message = Status.FINISHED, "the ends are equal, so the path is a point."
    profile, began = cycles[-1].profile, perf_counter()
    if status is not Status.INTERRUPTED:
        try:
            samples = samples_for(path, points)
            profile = task.measure(path, samples, backend, everything=True)
        except KeyboardInterrupt:  # the last state is on disk
            status, message = Status.INTERRUPTED, f"all steps are done. {message}".strip()
    if status is Status.FINISHED and (trouble := profile.trouble()):
        status, message = Status.NOT_FINITE, trouble
    result = PathResult(
        path=path,
        profile=profile,
        cycles=tuple(cycles),
        best_cycle=len(cycles) - 1,
        distance=task.distance,
        status=status,
        message=message,
        settings=settings | {"backend": backend, "threads": torch.get_num_threads()},
        seconds=sum(part.seconds for part in cycles) + perf_counter() - began,
    )
    if folder is not None and is_main_process():
        task.path(control, even(bends + 1)).save(folder / "control.safetensors")
        result.save(folder)
    say_how_it_ended(result, folder)
    return result


def fitted_curve(
    task: Task,
    descent: Descent,
    straight: CycleResult,
    points: int,
    backend: str,
    folder: FilePath | None,
    progress: Any,
    log: Log | None,
) -> tuple[Tensor, Path, CycleResult]:
    """Do the steps that are not done yet; give control points, path and evaluation."""
    line = straight_control(task.start, task.end, descent.bends)
    fit = begin_or_resume(task, line, folder)
    del line  # a few networks that nobody needs while the bends move
    if fit.step == 0:
        tell_cycle(log, straight, 0)
    with (
        open_progress(progress) as display,
        display.task(descent.kind, descent.steps, fit.step) as bar,
    ):
        status, message = descend(task, descent, fit, folder, bar)
    control, path, fitted = last_finite(task, descent, fit, points, backend)
    if control is not fit.control:  # the very last steps went astray
        status = Status.NOT_FINITE
        message = (
            f"the loss along the curve was not finite after step {fit.step}; the last good "
            "curve is kept. Lower the learning rate."
        )
    fitted = replace(fitted, status=status, message=message)
    if status is not Status.INTERRUPTED:
        tell_cycle(log, fitted, fit.step)
    return control, path, fitted


def kept_backend(task: Task, backend: str, folder: FilePath | None, bends: int) -> str:
    """Decide how points are evaluated; a fit that goes on after a kill decides the same."""
    file = None if folder is None else folder / "backend.json"

    def decide() -> str:
        rows = straight_control(task.start, task.end, bends)
        return chosen_backend(backend, task.stack, rows, task.deciding[0])

    return kept_choice(file, decide)


def samples_for(path: Path, points: int) -> int:
    """Points inside each segment that make so many in all."""
    return max(0, ceil((points - 1) / (len(path.pivots) - 1)) - 1)


def cycle(
    task: Task,
    path: Path,
    points: int,
    backend: str,
    descent: Descent | None = None,
    fit: Fit | None = None,
) -> CycleResult:
    """Evaluate the straight line, or a curve, on the examples that decide."""
    began = perf_counter()
    profile = task.measure(path, samples_for(path, points), backend, everything=False)
    return CycleResult(
        number=0 if fit is None else 1,
        num_pivots=len(path.pivots) - 2,
        inserted=(),
        steps=0 if fit is None else fit.step,
        learning_rate=None if descent is None else descent.learning_rate,
        backend=backend,
        profile=profile,
        length_ratio=path.length() / task.distance if task.distance else 1.0,
        force=None,
        perturbed=fit is not None and fit.perturbed,
        status=Status.FINISHED,
        message="",
        seconds=perf_counter() - began + (0.0 if fit is None else fit.seconds),
    )


def last_finite(
    task: Task, descent: Descent, fit: Fit, points: int, backend: str
) -> tuple[Tensor, Path, CycleResult]:
    """Evaluate the curve; if its loss is not finite, the last good one, or the line."""
    for known in (fit.control, fit.good, None):
        control = straight_control(task.start, task.end, descent.bends) if known is None else known
        path = task.path(*as_polyline(descent.kind, control))
        found = cycle(task, path, points, backend, descent, fit)
        if torch.isfinite(found.profile.train_loss).all():
            break
    return control, path, found


def even(segments: int) -> Tensor:
    """The same share for every segment."""
    return torch.full((segments,), 1 / segments, dtype=torch.float64)


def say_how_it_ended(result: PathResult, folder: FilePath | None) -> None:
    """Tell the log of an interruption, and warn of a curve that brought nothing."""
    if result.status is Status.INTERRUPTED:
        tell_interrupted(result.message, folder)
        return
    straight, *fitted = (part.profile.saddle() for part in result.cycles)
    if fitted and fitted[0] >= straight:
        warnings.warn(
            "the curve is not lower than the straight line: the ends lie in one basin, there were "
            "too few steps, or the learning rate is too high for this model.",
            NoEffectWarning,
            stacklevel=3,
        )
