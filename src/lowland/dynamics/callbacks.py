"""What the callbacks of Lightning and Hugging Face share: mixins that refuse to stand alone."""

from pathlib import Path
from typing import Any, ClassVar

import torch

from lowland.dynamics.recorder import TwoTimeRecorder

__all__ = ["RecorderMixin", "read_recorder"]


class RecorderMixin:
    """Keeps the recorder of a callback.

    Args:
        **options: For :class:`TwoTimeRecorder`.

    Attributes:
        recorder: Made when training begins, None before.
        first_hook: What the framework calls when training begins.
        library: The framework.
        behind: The framework's class that must stand behind the mixin.

    Raises:
        TypeError: If no callback of the framework stands behind the mixin.
    """

    first_hook: ClassVar[str]
    library: ClassVar[str]
    behind: ClassVar[str]

    def __init__(self, **options: Any):
        if not hasattr(super(), self.first_hook):
            package = self.behind.partition(".")[0]
            raise TypeError(
                f"TwoTimeCallback must stand in front of a callback of {self.library}; got "
                f"{type(self).__name__} without one behind it. Install {package}, and write "
                f"class Watch(TwoTimeCallback, {self.behind}): pass."
            )
        super().__init__()
        self.options = options
        self.recorder: TwoTimeRecorder | None = None


def read_recorder(file: Path) -> dict[str, Any]:
    """Read the state that a callback has saved.

    Args:
        file: Beside the checkpoint.

    Returns:
        For :meth:`TwoTimeRecorder.load_state_dict`.

    Raises:
        FileNotFoundError: If the checkpoint was written without the callback.
    """
    if not file.exists():
        raise FileNotFoundError(
            f"a checkpoint to resume from must hold the recorder's state; {file} is not "
            "there. Train from the start with this callback, or resume without it."
        )
    return torch.load(file, map_location="cpu", weights_only=True)
