"""The straight line between two minima, evaluated like any other path."""

from collections.abc import Callable
from pathlib import Path as FilePath
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from lowland.connectivity.band import chosen_backend, known_backend
from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.folder import open_search
from lowland.connectivity.path_result import PathResult
from lowland.connectivity.task import TRIED, make_task
from lowland.results import Status
from lowland.training import Source, is_main_process, open_progress

__all__ = ["linear_path"]


def linear_path(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    start: Source,
    end: Source,
    *,
    samples: int = 24,
    test_batches: Any = None,
    evaluation_batches: Any = None,
    batch_norm: str = "recalibrate",
    calibration: int = 2000,
    backend: str = "auto",
    seed: int = 0,
    out: str | FilePath | None = None,
    restart: bool = False,
    progress: Any = False,
) -> PathResult:
    """Evaluate the straight line between two minima.

    The model itself is not changed.

    Args:
        model: The architecture.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target).
        start: One minimum: a state dict, a module, or a checkpoint file.
        end: The other.
        samples: Points strictly between the ends.
        test_batches: Test batches, for test loss and error.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        batch_norm: ``"recalibrate"`` recomputes running statistics at every point,
            ``"interpolate"`` interpolates those of the ends.
        calibration: Examples over which they are recomputed.
        backend: ``"vmap"``, ``"loop"`` or ``"auto"``.
        seed: Decides which examples are used where the batches draw from torch's generators.
        out: Folder for the result; a finished one is read back.
        restart: Begin anew; what lies in ``out`` is moved to ``<out>.old-1``, ``-2`` and so on.
        progress: True, False, None (only on a terminal), or a running progress display.

    Returns:
        A path of two pivots with its profile at ``samples + 2`` points; ``.status`` and
        ``.message`` tell if a loss there is not finite.

    Raises:
        ValueError: If the ends do not fit, or a batch or a setting is wrong.
    """
    began = perf_counter()
    refuse_no_whole(0, samples=samples)
    task = make_task(
        model,
        loss_fn,
        batches,
        start,
        end,
        batch_norm=batch_norm,
        examples=TRIED,
        calibration=calibration,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        seed=seed,
    )
    line = task.line()
    settings = task.fingerprint() | {"batch_norm": batch_norm, "samples": samples}
    settings |= {"calibration": calibration, "asked": known_backend(backend)}
    folder, before = open_search(out, settings, restart=restart, device=task.start.device)
    if before is not None:
        return before
    backend = chosen_backend(backend, task.stack, line.pivots, task.deciding[0])
    with open_progress(progress) as display, display.task("straight line", 1) as bar:
        profile = task.measure(line, samples, backend, everything=True)
        bar.advance()
    trouble = profile.trouble()
    result = PathResult(
        path=line,
        profile=profile,
        cycles=(),
        best_cycle=0,
        distance=task.distance,
        status=Status.NOT_FINITE if trouble else Status.FINISHED,
        message=trouble or "",
        settings=settings | {"backend": backend},
        seconds=perf_counter() - began,
    )
    if folder is not None and is_main_process():
        result.save(folder)
    return result
