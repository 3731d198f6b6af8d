"""A loss per sequence, from a loss per token."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["TokenCrossEntropy"]


class TokenCrossEntropy(nn.Module):
    """Cross-entropy of sequences, one loss per sequence.

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
        self, logits: Float[Tensor, "batch time classes"], target: Int[Tensor, "batch time"]
    ) -> Float[Tensor, " batch"]:
        """Compute the loss of each sequence.

        Args:
            logits: Scores of the classes at every step.
            target: Classes.

        Returns:
            Losses in nats per sequence, or per token for ``"mean"``.
        """
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
