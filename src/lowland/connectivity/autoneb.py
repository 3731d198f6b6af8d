"""AutoNEB: relax, look between the pivots, insert where the path bulges, and relax again."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lowland.connectivity.band import (
    band_of,
    endless,
    faster_backend,
    known_backend,
    usable_backend,
)
from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.cycle import climbs, insert, relax_from
from lowland.connectivity.folder import kept_choice, load_cycle, open_search, save_cycle
from lowland.connectivity.path import Path
from lowland.connectivity.path_result import CycleResult, PathResult
from lowland.connectivity.placement import known_place, place
from lowland.connectivity.profile import Profile
from lowland.connectivity.quiet import quiet_vmap
from lowland.connectivity.schedule import Schedule, schedule_named
from lowland.connectivity.task import Task, make_task, refuse_bad_ends
from lowland.connectivity.told import tell_cycle, tell_interrupted
from lowland.errors import NoEffectWarning
from lowland.results import Status, plain
from lowland.training import (
    Log,
    Source,
    autocast,
    interruptible,
    is_main_process,
    isolated_rng,
    mode,
    open_progress,
)

__all__ = ["find_path"]

# Every cycle draws its batches from epochs of its own.
EPOCHS_APART = 2**20


def find_path(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    start: Source,
    end: Source,
    *,
    schedule: str | Schedule = "laptop",
    test_batches: Any = None,
    evaluation_batches: Any = None,
    tangent: str | None = None,
    batch_norm: str | None = None,
    backend: str = "auto",
    precision: str = "float32",
    pivots_on: str = "auto",
    seed: int = 0,
    until_cycle: int | None = None,
    out: str | FilePath | None = None,
    restart: bool = False,
    progress: Any = False,
    log: Log | None = None,
) -> PathResult:
    """Find a path of low loss between two minima of a network, by AutoNEB.

    The model itself is not changed. Only parameters that require a gradient move; frozen ones and
    other buffers must be equal at both ends. While relaxing, dropout is off and batch norm uses
    the statistics of the batch. With ``out`` every finished cycle is on disk, and the same call
    goes on after the last one to the same bits.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target) to relax on; readable again and again.
            Inputs may be a tensor, a tuple or a mapping.
        start: One minimum: a state dict, a module, or a checkpoint file.
        end: The other.
        schedule: ``"laptop"``, ``"paper"``, ``"official"``, or a :class:`Schedule`.
        test_batches: Test batches, for test loss and error along the reported path.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        tangent: ``"paper"``, ``"improved"`` or ``"official"``; None takes the schedule's.
        batch_norm: ``"recalibrate"`` recomputes running statistics at every evaluated point,
            ``"interpolate"`` moves them as coordinates; None takes the schedule's.
        backend: ``"vmap"``, ``"loop"``, or ``"auto"``: two timed steps of each decide in every
            cycle, and the choice is part of the result.
        precision: Of forward and backward passes while relaxing: ``"float32"`` (the model's own
            type) or ``"bf16"``. The path, the projection and all evaluations stay as they are.
        pivots_on: ``"device"`` keeps all pivots where the model is; ``"cpu"`` keeps them, their
            gradients and their momentum on the host and brings a few at a time; ``"auto"`` does so
            where the free memory is too small. The path of the result lies there too.
        seed: Decides the order of the batches, as far as they draw from torch's generators.
        until_cycle: Stop after that many cycles as if interrupted; with ``out`` the same call
            without it goes on.
        out: Folder for finished cycles and the result.
        restart: Begin anew; what lies in ``out`` is moved to ``<out>.old-1``, ``-2`` and so on.
        progress: True, False, None (only on a terminal), or a running progress display.
        log: Called as ``log(values, step)`` with the straight line and with each cycle that is not
            on disk yet; steps count on from cycle to cycle.

    Returns:
        The path after the cycle with the lowest saddle, or after the climbing one of
        ``Schedule(climb=True)``; ``.status`` says how the run ended.

    Raises:
        ValueError: If the ends do not fit, a batch or a setting is wrong, or an end has no finite
            loss.
        torch.OutOfMemoryError: If not even one pivot fits beside the model.

    Warns:
        NoEffectWarning: If no relaxed path was lower than the straight line.

    Source:
        Draxler et al., ICML 2018, Algorithms 1 and 2.
    """
    schedule = schedule_named(schedule)
    if until_cycle is not None:  # all
        refuse_no_whole(1, until_cycle=until_cycle)
    schedule = replace(
        schedule,
        tangent=tangent or schedule.tangent,
        batch_norm=batch_norm or schedule.batch_norm,
    )
    task = make_task(
        model,
        loss_fn,
        batches,
        start,
        end,
        batch_norm=schedule.batch_norm,
        examples=schedule.examples,
        calibration=schedule.calibration,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        seed=seed,
    )
    settings = task.fingerprint() | {"schedule": plain(schedule)}
    settings |= {"backend": known_backend(backend), "precision": precision}
    known_place(pivots_on)
    with autocast(task.stack.device, precision):  # refuses an unknown one before any work
        task = replace(task, stack=replace(task.stack, precision=precision))
    folder, before = open_search(out, settings, restart=restart, device=task.start.device)
    if before is not None:
        return before
    backend = usable_backend(backend, task.stack, task.start, task.deciding[0])
    task, placement = place(task, schedule, pivots_on, folder)
    with open_progress(progress) as display:
        cycles, path, status, message = run_cycles(
            task, schedule, backend, folder, display, until_cycle or len(schedule.cycles), log
        )
    best = chosen(cycles, schedule)
    profile, began = best.profile, perf_counter()
    if status is not Status.INTERRUPTED:
        try:
            profile = task.measure(path, schedule.samples, best.backend, everything=True)
        except KeyboardInterrupt:  # the cycles are on disk, and so is what they ended with
            status, message = Status.INTERRUPTED, f"all cycles are finished. {message}".strip()
    if status is Status.FINISHED and (trouble := profile.trouble()):
        status, message = Status.NOT_FINITE, trouble
    result = PathResult(
        path=path,
        profile=profile,
        cycles=tuple(cycles),
        best_cycle=best.number,
        distance=task.distance,
        status=status,
        message=message,
        settings=settings | placement | {"threads": torch.get_num_threads()},
        seconds=sum(cycle.seconds for cycle in cycles) + perf_counter() - began,
    )
    if folder is not None and is_main_process():
        result.save(folder)
    if status is Status.INTERRUPTED and len(cycles) - 1 != until_cycle:
        tell_interrupted(message, folder)
    if best.number == 0 and len(cycles) > 1:
        warnings.warn(
            "no relaxed path was lower than the straight line, which is returned: the ends lie in "
            "one basin, or the learning rates are too high for this model.",
            NoEffectWarning,
            stacklevel=2,
        )
    return result


def chosen(cycles: list[CycleResult], schedule: Schedule) -> CycleResult:
    """The first cycle with the lowest saddle, or the last one if it has climbed."""
    if climbs(schedule, cycles[-1].number) and cycles[-1].status is Status.FINISHED:
        return cycles[-1]
    return min(cycles, key=lambda cycle: cycle.profile.saddle())


def run_cycles(
    task: Task,
    schedule: Schedule,
    backend: str,
    folder: FilePath | None,
    display: Any,
    until: int,
    log: Log | None,
) -> tuple[list[CycleResult], Path, Status, str]:
    """Do the cycles that are not on disk yet; give all, and the path of the chosen one."""
    path = best = task.line()
    cycles = [straight(task, schedule, "loop" if backend == "auto" else backend)]
    if task.distance == 0:
        tell_cycle(log, cycles[0], 0)
        return cycles, best, Status.FINISHED, "the ends are equal, so the path is a point."
    with display.task("AutoNEB", schedule.steps) as bar:
        for number, cycle in enumerate(schedule.cycles, start=1):
            if number > until:
                done = f"{until} of {len(schedule.cycles)} cycles were asked for."
                return cycles, best, Status.INTERRUPTED, done
            found = load_cycle(folder, number, task.start.device)
            if found:
                bar.advance(cycle.steps)
            else:
                if number == 1:
                    tell_cycle(log, cycles[0], 0)
                try:
                    with interruptible() as interrupt:
                        found = run_cycle(
                            task, schedule, number, path, cycles[-1].profile, folder, backend,
                            lambda wish=interrupt: go_on(bar, wish),
                        )  # fmt: skip
                except KeyboardInterrupt:
                    done = f"{number - 1} of {len(schedule.cycles)} cycles are finished."
                    return cycles, best, Status.INTERRUPTED, done
                save_cycle(folder, *found)
                tell_cycle(log, found[0], sum(one.steps for one in (*cycles, found[0])))
            result, path = found
            cycles.append(result)
            if chosen(cycles, schedule) is result:
                best = path
            if result.status is not Status.FINISHED:
                return cycles, best, result.status, result.message
    return cycles, best, Status.FINISHED, ""


def go_on(bar: Any, interrupt: Any) -> None:
    """Show a step; stop after it if the user pressed Ctrl-C."""
    bar.advance()
    if interrupt.requested:
        raise KeyboardInterrupt


def straight(task: Task, schedule: Schedule, backend: str) -> CycleResult:
    """Cycle 0: the straight line, on the examples that decide."""
    began = perf_counter()
    profile = task.measure(task.line(), schedule.samples, backend, everything=False)
    refuse_bad_ends(profile)
    seconds = perf_counter() - began
    return CycleResult(
        number=0,
        num_pivots=0,
        inserted=(),
        steps=0,
        learning_rate=None,
        backend=backend,
        profile=profile,
        length_ratio=1.0,
        force=None,
        perturbed=False,
        status=Status.FINISHED,
        message="",
        seconds=seconds,
    )


@quiet_vmap()
def run_cycle(
    task: Task,
    schedule: Schedule,
    number: int,
    path: Path,
    before: Profile,
    folder: FilePath | None,
    backend: str,
    on_step: Callable[[], None],
) -> tuple[CycleResult, Path]:
    """Insert, relax, and evaluate, with random numbers of this cycle only."""
    began = perf_counter()
    cycle = schedule.cycles[number - 1]
    pivots, weights, inserted = insert(cycle, schedule, path, before)
    if task.stack.streams and torch.cuda.is_available():
        pivots = pivots.pin_memory()
    fresh = number * EPOCHS_APART
    with isolated_rng(task.seed, "cycle", number, batches=task.batches, epoch=fresh):
        stream = endless(task.batches, task.stack.device)
        with mode(task.stack.model, norm_trains=True):
            backend = backend_of(task, folder, number, backend, pivots, next(stream))
            stack = task.stack.with_backend(backend)
            relaxed, perturbed = relax_from(
                task, schedule, cycle, number, pivots, weights,
                band_of(
                    stack, stream, weight_decay=schedule.weight_decay,
                    shared_batch=schedule.shared_batch,
                ),
                on_step,
            )  # fmt: skip
    path = task.path(relaxed.path, weights)
    profile = task.measure(path, schedule.samples, backend, everything=False)
    status, pivot = relaxed.status, relaxed.pivot
    bad = (~torch.isfinite(profile.train_loss)).nonzero()
    if status is Status.FINISHED and len(bad):  # the very last step went astray
        status, pivot = Status.NOT_FINITE, int(bad[0]) // (schedule.samples + 1)
    message = ""
    if status is Status.NOT_FINITE:
        message = (
            f"cycle {number}: the loss of pivot {pivot} was not finite at step "
            f"{relaxed.step}; the last good path is kept. Lower the learning rate of the schedule."
        )
    result = CycleResult(
        number=number,
        num_pivots=len(pivots) - 2,
        inserted=inserted,
        steps=relaxed.step,
        learning_rate=cycle.learning_rate,
        backend=backend,
        profile=profile,
        length_ratio=path.length() / task.distance,
        force=None if relaxed.force is None else float(relaxed.force.max()),
        perturbed=perturbed,
        status=status,
        message=message,
        seconds=perf_counter() - began,
    )
    return result, path


def backend_of(
    task: Task,
    folder: FilePath | None,
    number: int,
    backend: str,
    pivots: Tensor,
    batch: tuple[Any, Any],
) -> str:
    """Decide how a cycle runs its pivots; a cycle that goes on after a kill decides the same."""
    if backend != "auto":
        return backend
    file = None if folder is None else folder / f"cycle-{number:02d}-backend.json"
    return kept_choice(file, lambda: faster_backend(task.stack, pivots[1:-1], batch))
