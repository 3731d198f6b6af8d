"""What a training run is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lowland.training.settings import length_of

__all__ = ["Log", "Plan"]

Log = Callable[[dict[str, Any], int], None]  # log(values, step), for trackers


@dataclass(frozen=True)
class Plan:
    """What a run is asked to do; the arguments of :func:`train` that its loop looks at."""

    batches: Any
    epochs: int | None
    steps: int | None
    seed: int
    test_batches: Any
    evaluation_batches: Any
    evaluate_every: int
    measure: Callable[[nn.Module], dict[str, Any]] | None
    until: Callable[[list[dict[str, Any]]], bool] | None
    save_every: float
    log: Log | None
    folder: Path | None

    @property
    def total_steps(self) -> int | None:
        """Number of updates, None if an epoch has no known length."""
        length = length_of(self.batches)
        if self.steps is not None or self.epochs is None or length is None:
            return self.steps
        return self.epochs * length
