"""The two-time recorder as a callback of Hugging Face's Trainer, which the user's class brings."""

from pathlib import Path
from typing import Any

import torch

from lowland.dynamics.callbacks import RecorderMixin, read_recorder
from lowland.dynamics.recorder import TwoTimeRecorder

__all__ = ["TwoTimeCallback"]


class TwoTimeCallback(RecorderMixin):
    """Mixin for a ``TrainerCallback``: ``class Watch(TwoTimeCallback, TrainerCallback): pass``.

    The state is written beside every checkpoint of the Trainer, one file per process, and found
    there again when training resumes. ``watch.recorder.result()`` gives what was seen.

    Args:
        **options: For :class:`TwoTimeRecorder`.

    Attributes:
        recorder: Made when training begins, None before.

    Source:
        Ours.
    """

    first_hook, library, behind = "on_train_begin", "transformers", "transformers.TrainerCallback"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the weights before the first update, or go on from a checkpoint."""
        self.recorder = TwoTimeRecorder(kwargs["model"], **self.options)
        if state.global_step:
            self.recorder.load_state_dict(read_recorder(state_file(args, state)))
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
