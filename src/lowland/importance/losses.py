"""A loss per sequence, from a loss per token."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["TokenCrossEntropy", "as_sequences"]


class TokenCrossEntropy(nn.Module):
    """Cross-entropy of sequences, one loss per sequence; a class for a whole one is one token.

    Args:
        reduction: ``"sum"`` or ``"mean"`` over the tokens of a sequence that count.
        weight: Of each class.
        label_smoothing: As in torch.
        ignore_index: Target of tokens that do not count.
        combine: How scores of tokens make one of a sequence, see :func:`token_scores`.

    Raises:
        ValueError: If ``reduction`` or ``combine`` is unknown.

    Source:
        Ours, as the sum or mean over tokens that language models are trained with.
    """

    weight: Tensor | None

    def __init__(
        self,
        reduction: str = "sum",
        *,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        combine: str = "norm",
    ):
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(
                f"reduction must be 'sum' or 'mean' over the tokens; got {reduction!r}."
            )
        if combine not in ("norm", "triangle"):
            raise ValueError(f"combine must be 'norm' or 'triangle'; got {combine!r}.")
        self.register_buffer("weight", weight)
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.combine = combine

    def forward(
        self, logits: Float[Tensor, "batch *time classes"], target: Tensor
    ) -> Float[Tensor, " batch"]:
        """Compute the loss of each sequence.

        Args:
            logits: Scores of the classes at every step, or of a classifier once.
            target: Classes, shape ``(batch, time)``, of a classifier ``(batch,)``.

        Returns:
            Losses in nats per sequence, or per token for ``"mean"``.

        Raises:
            ValueError: If the targets are no classes, or not of these shapes.
        """
        logits, target = as_sequences(logits, target)
        each = cross_entropy(
            logits.transpose(1, 2),
            target,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            reduction="none",
        )
        total = each.sum(1)
        if self.reduction == "sum":
            return total
        return total / (target != self.ignore_index).sum(1).clamp(min=1)


def as_sequences(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Take a classifier's output for a sequence of one token.

    Args:
        logits: Shape ``(batch, time, classes)`` or ``(batch, classes)``.
        target: Classes, shape ``(batch, time)`` or ``(batch,)``.

    Returns:
        Both with an axis of time.

    Raises:
        ValueError: If the targets are no classes, or the shapes are not of these.

    Source:
        Ours.
    """
    is_classes = not (target.is_floating_point() or target.is_complex())
    if not is_classes or logits.ndim not in (2, 3) or target.shape != logits.shape[:-1]:
        raise ValueError(
            "TokenCrossEntropy needs logits (batch, time, classes) and classes (batch, time), or "
            "(batch, classes) and (batch,) of a classifier; got "
            f"{tuple(logits.shape)} and {target.dtype} {tuple(target.shape)}. For other targets "
            "pass loss_fn=, with one loss per row; in a Trainer, shift=False unless logits "
            "predict the next label."
        )
    return (logits, target) if logits.ndim == 3 else (logits.unsqueeze(1), target.unsqueeze(1))
