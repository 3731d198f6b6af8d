"""Evaluate any path again: on other data, or with batch-norm statistics found another way."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lowland.connectivity.along import read_path
from lowland.connectivity.band import chosen_backend
from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.path import Path
from lowland.connectivity.profile import Profile

__all__ = ["measure_path"]


def measure_path(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    path: Path,
    *,
    samples: int = 9,
    test_batches: Any = None,
    evaluation_batches: Any = None,
    batch_norm: str = "recalibrate",
    calibration: int = 2000,
    backend: str = "loop",
    seed: int = 0,
) -> Profile:
    """Measure loss and error along a path that somebody has found.

    With ``batch_norm="interpolate"`` running statistics are recomputed at the pivots, unless they
    moved with the path, and interpolated linearly between them, as the published code does; with
    ``"recalibrate"`` they are recomputed at every point. The difference is what interpolated
    statistics add to a saddle. Pivots that lie on the host stay there, and points are brought to
    the model a few at a time.

    Args:
        model: The architecture; left as it is.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``.
        batches: Training batches of (inputs, target).
        path: From :func:`lowland.connectivity.find_path` or a file.
        samples: Points strictly inside each segment.
        test_batches: Test batches, for test loss and error.
        evaluation_batches: Training data as the reported losses see it; by default
            ``batches.evaluation()`` if there is one (un-augmented), else ``batches``.
        batch_norm: ``"recalibrate"`` or ``"interpolate"``.
        calibration: Examples over which statistics are recomputed.
        backend: ``"vmap"``, ``"loop"`` or ``"auto"``.
        seed: Decides which examples are used where the batches draw from torch's generators.

    Returns:
        The profile.

    Raises:
        ValueError: If the path does not fit the model, or a batch or a setting is wrong.

    Source:
        The specification's section 4, row 5.
    """
    refuse_no_whole(0, samples=samples)
    task, path = read_path(
        model,
        loss_fn,
        batches,
        path,
        batch_norm=batch_norm,
        calibration=calibration,
        test_batches=test_batches,
        evaluation_batches=evaluation_batches,
        seed=seed,
    )
    backend = chosen_backend(backend, task.stack, path.pivots, task.deciding[0])
    return task.measure(path, samples, backend, everything=True)
