"""Two minima and the data they are joined on, checked and ready."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity.checks import (
    refuse_no_model,
    refuse_no_whole,
)
from lowland.connectivity.ends import read_ends
from lowland.connectivity.path import Path
from lowland.connectivity.profile import Profile, measure_profile
from lowland.connectivity.stack import Stack
from lowland.training import (
    Source,
    as_pair,
    batch_count,
    check_batches,
    check_not_empty,
    isolated_rng,
    tensors_in,
    to_device,
)

__all__ = ["TRIED", "Task", "make_task", "refuse_bad_ends"]

# Examples on which backends are tried: batch norm in training mode needs more than one.
TRIED = 32


@dataclass(frozen=True)
class Task:
    """What a search for a path starts from.

    Attributes:
        stack: What all networks of a path have in common.
        start: Vector of one minimum.
        end: Vector of the other.
        batches: Training batches to relax on.
        reported: Training batches that reported losses are measured on.
        test_batches: Test batches, or None.
        deciding: The first examples of ``reported``, in memory: they decide between cycles.
        calibration: Examples of ``batches``, augmented as they are, in memory: batch-norm
            statistics are recomputed on them, as those of the minima were on such examples.
        seed: Seed of the search.
    """

    stack: Stack
    start: Float[Tensor, " params"]
    end: Float[Tensor, " params"]
    batches: Any
    reported: Any
    test_batches: Any
    deciding: list[tuple[Any, Any]]
    calibration: list[tuple[Any, Any]]
    seed: int

    @property
    def distance(self) -> float:
        """Euclidean distance of the two minima."""
        return float(torch.linalg.vector_norm(self.end - self.start))

    def line(self) -> Path:
        """The straight line, a path of two pivots."""
        return self.path(torch.stack([self.start, self.end]), torch.ones(1, dtype=torch.float64))

    def path(self, pivots: Tensor, weights: Tensor) -> Path:
        """A path of this task."""
        fixed, fixed_end = dict(self.stack.saved), dict(self.stack.saved_end)
        return Path(pivots, weights, self.stack.layout, fixed, fixed_end)

    def measure(self, path: Path, samples: int, backend: str, *, everything: bool) -> Profile:
        """Evaluate a path on the deciding examples, or on everything that is to be reported."""
        return measure_profile(
            self.stack.with_backend(backend),
            path.pivots,
            samples,
            self.reported if everything else self.deciding,
            calibration=self.calibration,
            test_batches=self.test_batches if everything else None,
            seed=self.seed,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What tells this task from another, as plain values."""
        loss_fn = self.stack.loss_fn
        lengths = [length_of(data) for data in (self.batches, self.reported, self.test_batches)]
        return {
            "seed": self.seed,
            "model": type(self.stack.model).__name__,
            "params": self.stack.params.size,
            "loss_fn": getattr(loss_fn, "__qualname__", type(loss_fn).__name__),
            "start": digest(self.start),
            "end": digest(self.end),
            "fixed": digest(self.stack.fixed),
            "data": digest(self.deciding[0]),
            "batches": lengths,
        }


def make_task(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batches: Any,
    start: Source,
    end: Source,
    *,
    batch_norm: str,
    examples: int,
    calibration: int,
    test_batches: Any,
    evaluation_batches: Any,
    seed: int,
) -> Task:
    """Read both minima and enough data, and refuse what no path can be found for.

    Args:
        model: The architecture; stays as it is.
        loss_fn: From output and target to one loss per example.
        batches: Training batches to relax on.
        start: A state dict, a module, or a checkpoint file.
        end: Likewise.
        batch_norm: ``"recalibrate"`` or ``"interpolate"``.
        examples: Fixed training examples that decide between cycles.
        calibration: Examples over which batch-norm statistics are recomputed.
        test_batches: Test batches, or None.
        evaluation_batches: Training batches that reported losses are measured on; by default
            ``batches.evaluation()`` if there is one, else ``batches``.
        seed: Seed of the search.

    Returns:
        The task.

    Raises:
        TypeError: If the model is no module.
        ValueError: If the ends do not fit, there is no batch, or a number is wrong.
    """
    refuse_no_model(model, "start and end")
    refuse_no_whole(1, examples=examples, calibration=calibration)
    check_batches(batches)
    given = {"evaluation_batches": evaluation_batches, "test_batches": test_batches}
    for name, data in given.items():
        if data is not None:
            check_batches(data, name)
    stack, a, b = read_ends(model, loss_fn, start, end, batch_norm=batch_norm)
    if test_batches is not None:  # an empty one would be noticed only at the very end
        with isolated_rng(seed, "evaluation", batches=test_batches):
            first_examples(test_batches, 1, a.device)
    reported = evaluation_batches
    if reported is None:
        reported = batches.evaluation() if hasattr(batches, "evaluation") else batches
    chooses = reported.subset(examples) if hasattr(reported, "subset") else reported
    with isolated_rng(seed, "evaluation", batches=chooses):
        deciding = first_examples(chooses, examples, a.device)
    with isolated_rng(seed, "calibration", batches=batches):
        calibrating = first_examples(batches, calibration if stack.statistics.size else 1, a.device)
    # One example alone has no variance: the rest of a data set may be that small.
    several = [batch for batch in calibrating if batch_count(batch[1]) > 1]
    return Task(
        stack=stack,
        start=a,
        end=b,
        batches=batches,
        reported=reported,
        test_batches=test_batches,
        deciding=deciding,
        calibration=several or calibrating,
        seed=seed,
    )


def refuse_bad_ends(profile: Profile) -> None:
    """Refuse ends whose loss is not finite.

    Args:
        profile: Of a path between them.

    Raises:
        ValueError: If the training loss of an end is not finite.
    """
    for end, loss in (("start", profile.train_loss[0]), ("end", profile.train_loss[-1])):
        if not torch.isfinite(loss):
            raise ValueError(
                f"both ends must have a finite loss; that of {end} is {float(loss)}. Check the "
                "checkpoint, the model and how the inputs are normalized."
            )


def first_examples(batches: Any, number: int, device: torch.device) -> list[tuple[Any, Any]]:
    """Keep whole batches until they hold a number of examples."""
    kept, count = [], 0
    for batch in batches:
        kept.append(to_device(as_pair(batch), device))
        count += batch_count(kept[-1][1])
        if count >= number:
            break
    check_not_empty(len(kept))
    return kept


def length_of(batches: Any) -> int | None:
    """Number of batches, None where it is not known."""
    try:
        return len(batches)
    except TypeError:  # also of a loader over a stream
        return None


def digest(values: Any) -> str:
    """Fingerprint of the bits of tensors, also in containers."""
    found = hashlib.sha256()
    for tensor in tensors_in(values):
        whole = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(whole.numpy().tobytes())
    return found.hexdigest()[:16]
