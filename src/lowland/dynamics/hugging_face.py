"""The two-time recorder as a callback of Hugging Face's Trainer, which the user's class brings."""

from pathlib import Path
from typing import Any

import torch

from lowland.dynamics.recorder import TwoTimeRecorder

__all__ = ["TwoTimeCallback"]


class TwoTimeCallback:
    """Mixin for a ``TrainerCallback``: ``class Watch(TwoTimeCallback, TrainerCallback): pass``.

    The state is written beside every checkpoint of the Trainer, one file per process, and found
    there again when training resumes. ``watch.recorder.result()`` gives what was seen.

    Args:
        **options: For :class:`TwoTimeRecorder`.

    Attributes:
        recorder: Made when training begins, None before.

    Raises:
        TypeError: If a class does not put this mixin in front of a callback of transformers.

    Source:
        Ours.
    """

    def __init__(self, **options: Any):
        if not hasattr(super(), "on_train_begin"):
            raise TypeError(
                "TwoTimeCallback must stand in front of a callback of transformers; got "
                f"{type(self).__name__} without one behind it. Install transformers, and write "
                "class Watch(TwoTimeCallback, transformers.TrainerCallback): pass."
            )
        super().__init__()
        self.options = options
        self.recorder: TwoTimeRecorder | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the weights before the first update, or go on from a checkpoint.

        Raises:
            FileNotFoundError: If the checkpoint was written without this callback.
        """
        self.recorder = TwoTimeRecorder(kwargs["model"], **self.options)
        if state.global_step:
            file = state_file(args, state)
            if not file.exists():
                raise FileNotFoundError(
                    f"a checkpoint to resume from must hold the recorder's state; {file} is not "
                    "there. Train from the start with this callback, or resume without it."
                )
            saved = torch.load(file, map_location="cpu", weights_only=True)
            self.recorder.load_state_dict(saved)
        else:
            self.recorder.record(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the weights after an update."""
        if self.recorder is not None:
            self.recorder.record(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the recorder beside the checkpoint that was just written."""
        if self.recorder is not None:
            torch.save(self.recorder.state_dict(), state_file(args, state))


def state_file(args: Any, state: Any) -> Path:
    """The file of this process, in the checkpoint of the last update."""
    folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    return folder / f"two_time_{args.process_index}.pt"
