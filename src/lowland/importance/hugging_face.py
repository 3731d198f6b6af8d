"""Importance sampling in Hugging Face's ``Trainer``: the loader gives pools, the loss chooses.

Transformers is not imported here; the user's own class brings it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland.importance.losses import TokenCrossEntropy
from lowland.importance.sampling import ImportanceSampling

__all__ = ["ImportanceTrainer"]


class ImportanceTrainer:
    r"""Mixin for a ``Trainer``, for instance ``class MyTrainer(ImportanceTrainer, Trainer)``.

    The training loader makes pools, ``presample`` times ``per_device_train_batch_size`` rows padded
    together, and each (micro-)step trains on one batch from a pool. So an update consumes a pool,
    on or off: set ``max_steps``, or more epochs. The loss is

    .. math:: \frac{1}{b\,T} \sum_j w_j \sum_t l_{jt}

    with a *fixed* number of tokens T per sequence. Dividing by the tokens of the chosen rows, as
    Trainer does, would be a ratio of two random numbers, and biased. Evaluation is Trainer's.

    Args:
        *args: For the Trainer.
        tokens_per_sequence: T, the expected number of target tokens of a sequence; 1 for
            classifiers.
        presample: Pool over batch.
        loss_fn: One loss per sequence, not divided by its tokens; None takes
            :class:`TokenCrossEntropy`, also for classes of whole sequences. Label smoothing, class
            weights and targets that are no classes belong here.
        shift: Whether logits predict the next label, as in causal language models. It is not asked
            for classifiers of whole sequences, whose logits have no axis of time.
        importance: Further keywords of :class:`ImportanceSampling`; ``accumulate`` is the number
            of gradient accumulation steps by default.
        **kwargs: For the Trainer.

    Attributes:
        sampling: The :class:`ImportanceSampling`; its state goes into the checkpoints.

    Raises:
        ValueError: If the Trainer has a loss of its own, or ``tokens_per_sequence`` is not
            positive.

    Source:
        Ours.
    """

    def __init__(
        self,
        *args: Any,
        tokens_per_sequence: float,
        presample: float = 3.0,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        shift: bool = True,
        importance: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if not tokens_per_sequence > 0:
            raise ValueError(f"tokens_per_sequence must be positive; got {tokens_per_sequence}.")
        if trainer.label_smoother is not None or trainer.compute_loss_func is not None:
            raise ValueError(
                "the Trainer must leave the loss to the sampling; got label_smoothing_factor or "
                "compute_loss_func. Pass loss_fn, for instance TokenCrossEntropy(...)."
            )
        trainer.model_accepts_loss_kwargs = False  # the loss is not divided by tokens of a batch
        self.tokens_per_sequence, self.presample = tokens_per_sequence, presample
        self.logits = Logits(trainer.model, shift)
        settings = {"accumulate": trainer.args.gradient_accumulation_steps, **(importance or {})}
        self.sampling = ImportanceSampling(
            self.logits,
            loss_fn or TokenCrossEntropy(),
            presample=presample,
            get_targets=self.logits.targets,
            **settings,
        )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; afterwards warn if the sampling never switched on.

        Args:
            *args: As for the Trainer.
            **kwargs: As for the Trainer.

        Returns:
            What the Trainer returns.
        """
        try:
            output = super().train(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.sampling.close()
        self.sampling.warn_if_idle()
        return output

    def get_train_dataloader(self) -> Any:
        """Make the Trainer's loader with pools for batches.

        Returns:
            The loader, shared among processes as ever.
        """
        trainer: Any = self
        size = trainer._train_batch_size
        trainer._train_batch_size = round(size * self.presample)
        try:
            return super().get_train_dataloader()  # type: ignore[misc]
        finally:
            trainer._train_batch_size = size

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Choose rows of a pool and compute the loss to back-propagate.

        Args:
            model: The model, perhaps wrapped.
            inputs: A pool; in evaluation an ordinary batch.
            return_outputs: Whether to return the outputs too, those of the chosen rows.
            num_items_in_batch: Not used in training.

        Returns:
            The loss, and outputs if asked for.
        """
        if not model.training:
            parent: Any = super()
            return parent.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        features, target = self.sampling.pair(self.sampling.select(inputs))
        outputs = model(**features)
        loss = self.sampling.loss(self.logits.of(outputs), target) / self.tokens_per_sequence
        return (loss, outputs) if return_outputs else loss

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the sampling beside the random states of this process."""
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        torch.save(self.sampling.state_dict(), self.state_file(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with the saved state of the sampling, if there is one."""
        super()._load_rng_state(checkpoint)  # type: ignore[misc]
        if checkpoint is not None and self.state_file(checkpoint).is_file():
            state = torch.load(self.state_file(checkpoint), map_location="cpu", weights_only=True)
            self.sampling.load_state_dict(state)

    def state_file(self, folder: str) -> Path:
        """Name the file of this process.

        Args:
            folder: A checkpoint.

        Returns:
            The file.
        """
        trainer: Any = self
        return Path(folder) / f"importance_sampling_{trainer.args.process_index}.pt"


class Logits(nn.Module):
    """A model that returns the logits to compare with the labels, and nothing else.

    Args:
        model: A model of Transformers.
        shift: Whether its logits predict the next label.
    """

    def __init__(self, model: nn.Module, shift: bool):
        super().__init__()
        self.model = model
        self.shift = shift

    def forward(self, **inputs: Any) -> Tensor:
        """Run the model.

        Args:
            **inputs: Without labels.

        Returns:
            Logits.
        """
        return self.of(self.model(**inputs))

    def of(self, outputs: Any) -> Tensor:
        """Take the logits from the model's outputs.

        Args:
            outputs: With ``logits``.

        Returns:
            Logits, without the last step if they predict the next label.
        """
        logits = outputs.logits
        return logits[:, :-1] if self.shift and logits.ndim > 2 else logits

    def targets(self, batch: Any) -> Tensor:
        """Take the labels that belong to the logits.

        Args:
            batch: With ``"labels"``.

        Returns:
            Labels, without the first step if logits predict the next label. Those of several
            classes at once are floats.
        """
        labels = batch["labels"]
        is_of_steps = labels.ndim > 1 and not labels.is_floating_point()
        return labels[:, 1:] if self.shift and is_of_steps else labels
