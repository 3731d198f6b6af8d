"""What averaging the predictions of networks along a path brings, beside its two ends."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity.along import read_path
from lowland.connectivity.band import chosen_backend
from lowland.connectivity.checks import refuse_no_whole
from lowland.connectivity.path import Path, wide_type
from lowland.connectivity.quiet import quiet_vmap
from lowland.connectivity.stack import Stack, forward_rows, recalibrated
from lowland.connectivity.task import Task
from lowland.params import call_at
from lowland.results import plain
from lowland.training import (
    as_pair,
    batch_count,
    check_batches,
    checked_losses,
    isolated_rng,
    mistakes,
    mode,
    to_device,
)

__all__ = ["Ensemble", "measure_ensemble"]

# Coordinates of networks held at once, 256 MiB in float32.
COORDINATES_AT_ONCE = 2**26


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Networks along a path, one by one and together.

    Attributes:
        t: Where they lie, as fractions of the arc length; the ends included.
        loss: Mean test loss of each network, in the unit of the loss function.
        error: Share of wrong top-1 predictions of each.
        ensemble_loss: Mean loss of the logarithm of the averaged probabilities.
        ensemble_error: Share of wrong top-1 predictions of the averaged probabilities.
        ends_loss: The same for the two ends alone.
        ends_error: Likewise.
    """

    t: Float[Tensor, " points"]
    loss: Float[Tensor, " points"]
    error: Float[Tensor, " points"]
    ensemble_loss: float
    ensemble_error: float
    ends_loss: float
    ends_error: float

    def record(self) -> dict[str, Any]:
        """Everything as plain values.

        Returns:
            A dict that JSON can hold.
        """
        return plain(self)


def measure_ensemble(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    path: Path,
    test_batches: Any,
    *,
    points: int = 11,
    calibration: int = 2000,
    backend: str = "auto",
    seed: int = 0,
) -> Ensemble:
    r"""Average the predicted probabilities of networks along a path.

    Of the log-probabilities :math:`\log p_k` of K networks evenly spaced in arc length it takes
    :math:`\log \tfrac1K \sum_k p_k`, and gives this to ``loss_fn`` in the place of an output. The
    model itself is not changed.

    Args:
        model: The architecture. Its outputs are scores of classes, shape ``(batch, classes)``:
            logits or log-probabilities.
        loss_fn: From output and target to one loss per example, shape ``(batch,)``; it must read
            its outputs as logits, as a cross-entropy does.
        batches: Training batches of (inputs, target); batch-norm statistics of every network are
            recomputed on them, unless they moved along the path.
        path: From :func:`lowland.connectivity.find_path`, :func:`lowland.connectivity.fit_curve`
            or a file.
        test_batches: Batches to predict.
        points: Number of networks, both ends included.
        calibration: Examples over which batch-norm statistics are recomputed.
        backend: ``"vmap"``, ``"loop"`` or ``"auto"``.
        seed: Decides which examples these are where the batches draw from torch's generators.

    Returns:
        Loss and error of single networks, of all together, and of both ends together.

    Raises:
        ValueError: If the path does not fit the model, a batch is wrong, outputs are no scores of
            classes, or ``points`` is below 2.

    Source:
        The ensembles are those of Garipov et al., NeurIPS 2018 (``eval_ensemble`` of their code
        averages the same probabilities); points along a path are ours.
    """
    refuse_no_whole(2, points=points)  # the ends
    check_batches(test_batches, "test_batches")
    task, path = read_path(
        model,
        loss_fn,
        batches,
        path,
        calibration=calibration,
        test_batches=test_batches,
        seed=seed,
    )
    t = [k / (points - 1) for k in range(points)]
    ends = torch.stack([task.start, task.end])
    backend = chosen_backend(backend, task.stack, ends, task.deciding[0])
    with isolated_rng(seed, "evaluation", batches=test_batches):
        tests = [to_device(as_pair(batch), task.start.device) for batch in test_batches]
    stack = replace(task.stack, backend=backend, streams=False)  # a few are brought at once here
    return summed_up(task, path, t, tests, stack)


@quiet_vmap()
def summed_up(
    task: Task, path: Path, t: list[float], tests: list[tuple[Any, Any]], stack: Stack
) -> Ensemble:
    """Go through groups of networks and all tests, and add up probabilities as logarithms."""
    size = max(1, COORDINATES_AT_ONCE // stack.layout.size)
    single, every, both = torch.zeros(2, len(t), dtype=torch.float64), {}, {}
    for first in range(0, len(t), size):
        rows = range(first, min(first + size, len(t)))
        vectors = torch.stack([path.at(t[row]) for row in rows]).to(task.start)
        moves = stack.statistics_move
        statistics = {} if moves else recalibrated(stack, vectors, task.calibration)
        for number, (inputs, target) in enumerate(tests):
            logs = log_probabilities(stack, vectors, inputs, target, statistics)
            for row, one in zip(rows, logs, strict=True):
                single[:, row] += torch.tensor(scored(stack, one, target), dtype=torch.float64)
                every[number] = torch.logaddexp(every[number], one) if number in every else one
                if row in (0, len(t) - 1):
                    both[number] = torch.logaddexp(both[number], one) if number in both else one
    totals = torch.zeros(2, 2, dtype=torch.float64)
    for number, (_, target) in enumerate(tests):
        for kind, (logs, networks) in enumerate(((every, len(t)), (both, 2))):
            found = scored(stack, logs[number] - log(networks), target)
            totals[kind] += torch.tensor(found, dtype=torch.float64)
    count = sum(batch_count(target) for _, target in tests)
    (loss, error), ((all_loss, all_error), (ends_loss, ends_error)) = single / count, totals / count
    return Ensemble(
        torch.tensor(t, dtype=torch.float64), loss, error,
        float(all_loss), float(all_error), float(ends_loss), float(ends_error),
    )  # fmt: skip


def log_probabilities(
    stack: Stack,
    vectors: Float[Tensor, "rows params"],
    inputs: Any,
    target: Any,
    statistics: dict[str, Tensor],
) -> Float[Tensor, "rows batch classes"]:
    """Log-probabilities of the classes of one batch, by every network."""

    def run(params: dict, norms: dict, fixed: dict) -> tuple[Tensor]:
        output = call_at(stack.model, params | norms | fixed, inputs)
        if mistakes(output, target) is None:
            shapes = [tuple(v.shape) if isinstance(v, Tensor) else v for v in (output, target)]
            raise ValueError(
                "an ensemble needs outputs of shape (batch, classes) and targets that are class "
                f"indices, shape (batch,); got {shapes[0]} and {shapes[1]}."
            )
        return (output.to(wide_type(output.device)).log_softmax(1),)

    with mode(stack.model, norm_trains=False):
        return forward_rows(stack, run, vectors, target, statistics)[0]


def scored(stack: Stack, logs: Float[Tensor, "batch classes"], target: Any) -> tuple[float, float]:
    """Sum of the losses, and number of mistakes, of some log-probabilities."""
    wrong: Any = mistakes(logs, target)
    output = logs.to(torch.promote_types(stack.dtype, torch.float32))  # as the model's own would be
    return float(checked_losses(stack.loss_fn, output, target).cpu().double().sum()), float(
        wrong.sum()
    )
