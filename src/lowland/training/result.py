"""What training leaves: how it ended, the learning curve, the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lowland.errors import OutcomeError
from lowland.results import Status, environment, plain, read_json, write_json
from lowland.training.checkpoints import read_safetensors, save_state

__all__ = ["TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """How a training run ended.

    Attributes:
        status: ``FINISHED``, ``INTERRUPTED`` or ``NOT_FINITE``.
        curve: One row per evaluation: ``step``; ``epoch`` (whole epochs done); ``train_loss`` (on
            ``evaluation_batches``, else the mean over the steps since the row before);
            ``train_error`` (None without ``evaluation_batches``); ``test_loss`` and ``test_error``
            (None without ``test_batches``); ``learning_rate`` of the next step; ``seconds``.
        steps: Updates that made these weights.
        seconds: Wall time, over all calls that shared the folder.
        message: A sentence on how it ended.
        state: Copy of the model's state dict.
        average: Copy of the averaged weights under the model's names, None without averaging.
    """

    status: Status
    curve: list[dict[str, Any]]
    steps: int
    seconds: float
    message: str
    state: Mapping[str, Any] = field(repr=False)
    average: Mapping[str, Tensor] | None = field(default=None, repr=False)

    @property
    def device(self) -> str:
        """Where the weights lie."""
        tensors = [value for value in self.state.values() if isinstance(value, Tensor)]
        return str(tensors[0].device) if tensors else "cpu"

    def record(self) -> dict[str, Any]:
        """Give everything but the weights as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {
            "status": self.status,
            "message": self.message,
            "steps": self.steps,
            "seconds": self.seconds,
            "curve": self.curve,
            "environment": environment(self.device),
        }
        return plain(numbers)

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json``, ``model.safetensors`` and, if averaged, ``average.safetensors``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = Path(folder)
        tensors = {name: v for name, v in self.state.items() if isinstance(v, Tensor)}
        save_state(folder / "model.safetensors", tensors)
        if self.average is not None:
            save_state(folder / "average.safetensors", self.average)
        write_json(folder / "result.json", self.record())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "TrainResult":
        """Read what :meth:`save` wrote.

        Args:
            folder: Where from.

        Returns:
            The result, with its weights on the CPU.
        """
        folder = Path(folder)
        values = read_json(folder / "result.json")
        average = folder / "average.safetensors"
        return cls(
            Status[values["status"].upper()],
            *(values[name] for name in ("curve", "steps", "seconds", "message")),
            state=read_safetensors(folder / "model.safetensors"),
            average=read_safetensors(average) if average.exists() else None,
        )

    def raise_for_status(self) -> None:
        """Raise if the run did not do all its steps.

        Raises:
            OutcomeError: If it was interrupted, or met a number that is not finite.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(self.message)
