"""Importance sampling in a Lightning module: the loader gives pools, the training step chooses.

Lightning is not imported here; the user's own class brings it.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from lowland.importance.sampling import ImportanceSampling
from lowland.params import call
from lowland.training import generator, rank_and_world

__all__ = ["ImportanceModule"]


class ImportanceModule:
    """Mixin that gives a ``LightningModule`` its ``training_step``.

    ::

        class Net(ImportanceModule, L.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = ...
                loss_fn = nn.CrossEntropyLoss(reduction="none")
                self.sampling = ImportanceSampling(self, loss_fn, presample=3)

    with ``forward`` and ``configure_optimizers`` as ever. Batches of the training loader are pools:
    ``presample`` times the rows to train on. Nothing happens in a sampler, so the loader is shared
    among processes as Lightning does it; each process chooses from its own pools. With
    ``accumulate_grad_batches=k`` pass ``accumulate=k`` to the sampling.

    Attributes:
        sampling: Set by the user's class; its state goes into the checkpoints.

    Source:
        Ours.
    """

    sampling: ImportanceSampling

    def training_step(self, batch: Any, batch_idx: int = 0) -> Float[Tensor, ""]:
        """Choose rows of a pool and compute the loss to back-propagate.

        Args:
            batch: A pool, on the module's device.
            batch_idx: Not used.

        Returns:
            An unbiased estimate of the mean loss.
        """
        inputs, target = self.sampling.pair(self.sampling.select(batch))
        return self.sampling.loss(call(self, inputs), target)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        """Draw apart from the first process, whose state a checkpoint holds."""
        super().on_train_start()  # type: ignore[misc]
        sampling, rank = self.sampling, rank_and_world()[0]
        if rank > 0:
            drawer = sampling.drawer
            drawer.own = generator(drawer.seed, "importance", rank, sampling.steps)

    def on_train_end(self) -> None:
        """Let go of the model, and warn if the sampling never switched on."""
        super().on_train_end()  # type: ignore[misc]
        self.sampling.close()
        self.sampling.warn_if_idle()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the sampling.

        Args:
            checkpoint: Changed in place.
        """
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        checkpoint["importance_sampling"] = self.sampling.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the saved state of the sampling, if there is one.

        Args:
            checkpoint: What was saved, by the first process.
        """
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        if "importance_sampling" in checkpoint:
            self.sampling.load_state_dict(checkpoint["importance_sampling"])
