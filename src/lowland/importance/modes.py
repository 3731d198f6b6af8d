"""Modes of the model: how it is scored, and what its batch norms do while examples are chosen."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lowland.errors import FallbackWarning
from lowland.training import kept_mode, norm_layers

__all__ = ["BATCH_NORMS", "Modes", "random_layers"]

BATCH_NORMS = ("eval_score", "frozen", "pool")
COUPLED = (
    "the output is normalized over the batch, so that a loss depends on the other rows and its "
    "score bounds no gradient: take a layer or group norm behind the last layer, or none"
)


class Modes:
    """Puts a model in the modes that scoring and training on chosen rows need, and back.

    Args:
        model: Any module.
        batch_norm: ``"eval_score"`` scores with running statistics and trains as the user's loop
            does; ``"frozen"`` uses running statistics in training too, and leaves them as they
            are; ``"pool"`` feeds them from the pool, which is uniform, and not from chosen rows.

    Raises:
        ValueError: If ``batch_norm`` is none of these.

    Attributes:
        notes: What to know where rows were chosen, in sentences.
    """

    def __init__(self, model: nn.Module, batch_norm: str):
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"batch_norm must be one of {BATCH_NORMS}; got {batch_norm!r}.")
        self.model = model
        self.batch_norm = batch_norm
        self.notes: list[str] = []
        self.has_scored = self.has_looked = False
        self.has_told = False
        self.momenta: dict[nn.Module, float | None] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Put batch norms back at the end of a block.

        Yields:
            Nothing.
        """
        layers = norm_layers(self.model).values()
        modes = {layer: layer.training for layer in layers}
        self.momenta = {layer: layer.momentum for layer in layers}
        try:
            yield
        finally:
            for layer in layers:
                layer.momentum = self.momenta[layer]
                if self.batch_norm == "frozen":
                    layer.training = modes[layer]
            self.momenta = {}

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Score in evaluation mode; ``"pool"`` updates batch-norm statistics by the way.

        Yields:
            Nothing.
        """
        if not self.has_scored:
            self.has_scored = True
            self.note(other_modes(self.model, self.batch_norm))
        with kept_mode(self.model):
            self.model.eval()
            if self.batch_norm == "pool":
                self.set_momenta(chosen=False)
                for layer in self.momenta:
                    layer.train()
            yield

    def look_at(self, output: Any) -> None:
        """Note, once, whether a model's output is normalized over the batch.

        Args:
            output: With its graph.
        """
        if self.has_looked or not isinstance(output, Tensor) or output.grad_fn is None:
            return
        self.has_looked = True
        if self.batch_norm != "frozen" and "BatchNorm" in output.grad_fn.name():
            self.note(COUPLED)

    def note(self, what: str) -> None:
        """Keep a sentence that is not known yet."""
        if what and what not in self.notes:
            self.notes.append(what)

    def before_step(self, *, chosen: bool) -> None:
        """Set batch norms for the training pass that follows.

        Args:
            chosen: Whether its rows were chosen by their scores.
        """
        if self.batch_norm == "pool":
            self.set_momenta(chosen=chosen)
        elif self.batch_norm == "frozen":
            for layer in self.momenta:
                layer.eval()

    def check_frozen(self) -> None:
        """Warn once if batch norms that are to be frozen have trained after all."""
        if self.batch_norm != "frozen" or self.has_told:
            return
        if any(layer.training for layer in self.momenta):
            self.has_told = True
            warnings.warn(
                'with batch_norm="frozen" batch norms must stay in evaluation mode, where the '
                "sampling puts them; this step has trained them. Call model.train() before "
                "sampling(batches), not in every step.",
                FallbackWarning,
                stacklevel=3,
            )

    def set_momenta(self, *, chosen: bool) -> None:
        """Let batch norms learn their statistics, or not."""
        for layer, momentum in self.momenta.items():
            layer.momentum = 0.0 if chosen else momentum  # type: ignore[assignment]


def random_layers(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Find what drops numbers or whole branches at random, in the mode that a model is in.

    Args:
        model: Any module.

    Returns:
        Layers and kinds, ``"dropout"`` or ``"stochastic depth"``, by name. Functions that a
        forward pass calls are not seen.

    Source:
        Ours; ``DropPath`` is the name in timm and transformers, ``StochasticDepth`` in torchvision.
    """
    found = {}
    for name, layer in model.named_modules():
        skips = type(layer).__name__.endswith(("DropPath", "StochasticDepth"))
        if skips or isinstance(layer, _DropoutNd | nn.RNNBase | nn.MultiheadAttention):
            rates = [getattr(layer, rate, None) for rate in ("p", "drop_prob", "dropout")]
            if layer.training and any(rates):
                found[name] = layer, "stochastic depth" if skips else "dropout"
    return found


def other_modes(model: nn.Module, batch_norm: str) -> str:
    """Say that scores come from another mode than gradients, if they do."""
    kinds = []
    if batch_norm == "eval_score" and any(m.training for m in norm_layers(model).values()):
        kinds.append("batch norm, whose statistics chosen rows shift (see batch_norm=)")
    kinds += sorted({kind for _, kind in random_layers(model).values()})
    if not kinds:
        return ""
    return (
        f"rows are scored in evaluation mode, but the model trains with {' and '.join(kinds)}: the "
        "variance may not fall as estimated"
    )
