"""Train a whole network end to end, beginning with the weights that boosting left."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lowland.boosting.fitting import average_buffers, check_equal_batches, joint_optimizer
from lowland.training import TrainResult, train

__all__ = ["refine"]

WARM_UP = 100  # steps over which the learning rate rises; the first ones of Adam are its largest


def refine(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    epochs: int,
    optimizer: Callable[..., Optimizer] | None = None,
    l1: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Any = False,
    **training: Any,
) -> TrainResult:
    """Train all blocks together by cross-entropy, after a short warm-up.

    Expect a dip at first: batch norms train again, and no block has ever seen a gradient from
    behind it. In several processes each has its own batches, equally many.

    Args:
        model: The model that :func:`lowland.boosting.train_boosted` returned.
        batches: Re-iterable of ``(inputs, classes)``.
        epochs: Passes over them.
        optimizer: Makes the optimizer; Adam at 0.0003, as blocks that have learned their examples
            lose a point on the digits at 0.001.
        l1: Bound on the l1 norm of every unit's incoming weights, or None.
        seed: Seed of everything random.
        out: Folder for the state to resume from.
        progress: See :func:`lowland.training.open_progress`.
        **training: Further arguments of :func:`lowland.training.train`.

    Returns:
        How it went.

    Source:
        Huang et al., ICML 2018, Section 6, "BoostResNet + e2eBP"; the warm-up is ours.
    """
    options: dict[str, Any] = {"schedule": warm_up} | training
    make = optimizer or (lambda params: torch.optim.Adam(params, 3e-4))
    check_equal_batches(batches)
    trained = train(
        model,
        losses,
        batches,
        epochs=epochs,
        optimizer=joint_optimizer(make, model, l1),
        seed=seed,
        out=out,
        progress=progress,
        **options,
    )
    average_buffers(model)
    return trained


def losses(output: Any, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each example, in nats."""
    return cross_entropy(getattr(output, "logits", output), target.long(), reduction="none")


def warm_up(optimizer: Optimizer) -> LambdaLR:
    """Let the learning rate rise to its value."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
