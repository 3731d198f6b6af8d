"""What training by the maximum principle leaves: how it ended, the losses, the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lowland.errors import OutcomeError
from lowland.results import Status, environment, plain, write_json
from lowland.training import save_state

__all__ = ["MSAResult"]


@dataclass(frozen=True)
class MSAResult:
    """How a run went.

    Attributes:
        status: ``FINISHED`` or ``CONVERGED`` for a run that did what it was asked, else
            ``MAX_STEPS``, ``INTERRUPTED`` or ``NOT_FINITE``.
        curve: One row per step, or per evaluation: ``step``, ``loss`` or ``train_loss`` (nats per
            example) and what the driver adds.
        steps: Updates that made these weights.
        message: A sentence on how it ended.
        nonzero: Share of the discrete weights that are not zero, 0 to 1; None without any.
        summary: Further plain values of the driver.
        state: Copy of the model's state dict.
    """

    status: Status
    curve: list[dict[str, Any]]
    steps: int
    message: str
    nonzero: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def record(self) -> dict[str, Any]:
        """Give everything but the weights as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {
            "status": self.status,
            "message": self.message,
            "steps": self.steps,
            "nonzero": self.nonzero,
            "curve": self.curve,
            "summary": self.summary,
            "environment": environment(),
        }
        return plain(numbers)

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json`` and ``model.safetensors``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = Path(folder)
        tensors = {name: v for name, v in self.state.items() if isinstance(v, Tensor)}
        save_state(folder / "model.safetensors", tensors)
        write_json(folder / "result.json", self.record())
        return folder

    def raise_for_status(self) -> None:
        """Raise if the run did not do what it was asked.

        Raises:
            OutcomeError: If it was interrupted, gave up, or met a number that is not finite.
        """
        if self.status not in (Status.FINISHED, Status.CONVERGED):
            raise OutcomeError(self.message)
