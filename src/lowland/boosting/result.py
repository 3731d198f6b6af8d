"""What boosting leaves: one record per round, and the model that the certificates are about."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lowland.errors import OutcomeError
from lowland.results import Status, environment, plain, write_json
from lowland.training import TrainResult, save_state

__all__ = ["BoostResult", "Round"]


@dataclass(frozen=True)
class Round:
    """What one round found, over the whole training set and in eval mode.

    Attributes:
        name: Of its parts in the model: ``"stem"``, ``"layer1.0"``.
        status: ``"kept"``; ``"flagged"``, if the condition failed and the part was kept all the
            same; ``"identity"``, if it was put back to a zero residual; ``"dropped"``, if it was
            taken out.
        edge: Mean margin under the weights of the round before, from -1 to 1.
        gamma: Signed root of the normalized improvement of the edge.
        alpha: Weight of this depth, by the rule that was asked for.
        alpha_closed: The same by the closed form; edges are measured with it.
        loss: Exponential loss at ``alpha``; K = C - 1 for outputs that know nothing.
        covariance: Of the weak-learning condition, which wants it not to be positive.
        bounds: ``"B0"``, ``"B1"``, ``"B2"`` on the training error; None where void.
        holds_condition: Whether gamma and covariance are as the theory wants them.
        is_separated: Whether the edge is 1 up to rounding.
        step_ratio: Z, exponential loss over that of the round before, both at closed-form alphas.
        margins: ``[theta, share, bound]``: examples with a margin of at most theta.
        train_error: Share of wrong classes.
        test_error: The same on the test batches, None without.
        test_loss: Cross-entropy there, nats.
        updates: Updates of this round's weights.
        module_updates: The same times the parts that each update went through, those in the
            head too.
        bytes: What autograd saves in one update.
        cache_bytes: What is kept of the features that enter.
        seconds: Wall time, over all calls that shared the folder.
        curve: Rows of its training.
    """

    name: str
    status: str
    edge: float
    gamma: float
    alpha: float
    alpha_closed: float
    loss: float
    covariance: float
    bounds: dict[str, float | None]
    holds_condition: bool
    is_separated: bool
    step_ratio: float
    margins: list[list[float | None]]
    train_error: float
    test_error: float | None
    test_loss: float | None
    updates: int
    module_updates: int
    bytes: int
    cache_bytes: int
    seconds: float
    curve: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def counts(self) -> bool:
        """Whether the model computes what this round trained."""
        return self.status in ("kept", "flagged")


@dataclass(frozen=True)
class BoostResult:
    """How boosting went.

    Attributes:
        status: ``FINISHED``, ``INTERRUPTED`` or ``NOT_FINITE``.
        rounds: One per module of the chain, in their order.
        message: A sentence on how it ended.
        cache: A sentence on where the features were kept.
        model: The user's own object.
        exits: The heads of all rounds, in their order, if they were to be kept.
        refinement: How training end to end afterwards went, None without.
        is_whole: Whether the model computes what the last round that counts is about. Not if the
            run was interrupted, and after numbers that are not finite only if the blocks behind
            could become the identity.
    """

    status: Status
    rounds: list[Round]
    message: str
    cache: str
    model: nn.Module = field(repr=False)
    exits: list[nn.Module] = field(default_factory=list, repr=False)
    refinement: TrainResult | None = None
    is_whole: bool = True

    @property
    def certified(self) -> Round | None:
        """The round whose certificate is about the model, before any refinement; None if none."""
        if not self.is_whole:
            return None
        return next((found for found in reversed(self.rounds) if found.counts), None)

    def record(self) -> dict[str, Any]:
        """Give everything but the weights as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        device = next((str(p.device) for p in self.model.parameters()), "cpu")
        numbers = {
            "status": self.status,
            "message": self.message,
            "cache": self.cache,
            "is_whole": self.is_whole,
            "rounds": self.rounds,
            "refinement": None if self.refinement is None else self.refinement.record(),
            "environment": environment(device),
        }
        return plain(numbers)

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json``, ``model.safetensors`` and, if kept, ``exits.safetensors``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = Path(folder)
        save_state(folder / "model.safetensors", self.model)
        if self.exits:
            save_state(folder / "exits.safetensors", nn.ModuleList(self.exits).state_dict())
        write_json(folder / "result.json", self.record())
        return folder

    def raise_for_status(self) -> None:
        """Raise if boosting did not come to its end.

        Raises:
            OutcomeError: If it was interrupted, or met a number that is not finite.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(self.message)
