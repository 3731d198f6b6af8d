"""What a row of the learning curve says of the loss, in one process or in several."""

from typing import Any

from lowland.training.evaluate import evaluate
from lowland.training.ranks import all_mean
from lowland.training.run import Run

__all__ = ["mean_so_far", "measure_on"]


def measure_on(run: Run, batches: Any) -> dict[str, float | None]:
    """Evaluate on batches if there are any.

    Args:
        run: Its model, where it is now.
        batches: ``(inputs, target)``, or None.

    Returns:
        ``loss`` and ``error``, over the examples of all processes that make these weights; nothing
        without batches.
    """
    if batches is None:
        return {}
    found = evaluate(run.model, run.loss_fn, batches, precision=run.precision)
    if not run.is_shared:
        return {"loss": found.loss, "error": found.error}
    known = [found.loss] if found.error is None else [found.loss, found.error]
    loss, *error = all_mean(known, found.count, run.device)
    return {"loss": loss, "error": error[0] if error else None}


def mean_so_far(run: Run) -> float:
    """Give the mean loss since the last row of the curve.

    Args:
        run: Checked.

    Returns:
        The mean over the examples of all processes that make these weights.
    """
    mean = run.loss_sum / run.loss_count
    return all_mean([mean], run.loss_count, run.device)[0] if run.is_shared else mean
