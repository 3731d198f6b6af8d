"""The two-time recorder as a callback of Lightning, which the user's class brings."""

from typing import Any

from lowland.dynamics.callbacks import RecorderMixin
from lowland.dynamics.recorder import TwoTimeRecorder

__all__ = ["TwoTimeCallback"]


class TwoTimeCallback(RecorderMixin):
    """Mixin for a ``Callback``: ``class Watch(TwoTimeCallback, L.Callback): pass``.

    ::

        watch = Watch(total=10_000)
        L.Trainer(max_steps=10_000, callbacks=[watch]).fit(net, loader)
        result = watch.recorder.result()

    Updates are counted by ``trainer.global_step``, so accumulated gradients make one; the state is
    saved in the trainer's checkpoints. With DDP pass ``ranks="replicated"`` to have the processes
    compared, with FSDP ``ranks="sharded"``.

    Args:
        **options: For :class:`TwoTimeRecorder`.

    Attributes:
        recorder: Made when training starts, None before.

    Source:
        Ours.
    """

    first_hook, library, behind = "on_train_start", "Lightning", "lightning.Callback"
    saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look at the weights before the first update, or go on from a checkpoint."""
        self.recorder = TwoTimeRecorder(pl_module, **self.options)
        if self.saved is not None:
            self.recorder.load_state_dict(self.saved)
        self.look(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Look at the weights after an update."""
        self.look(trainer.global_step)

    def look(self, step: int) -> None:
        """Record an update once, however many batches it took."""
        if self.recorder is not None and step > self.recorder.last:
            self.recorder.record(step)

    def state_dict(self) -> dict[str, Any]:
        """State of the recorder, for the trainer's checkpoint."""
        return {} if self.recorder is None else self.recorder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state until training starts."""
        self.saved = state_dict or None
