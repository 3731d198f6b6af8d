"""Scores of losses behind a softmax, in the form that does not cancel for well-known examples."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from lowland.training.floats import raised

__all__ = ["cross_entropy_scores", "focal_scores", "token_scores"]

# Numbers that a piece of a large batch of logits may have, so that little memory is added.
LARGE, PIECE = 2**19, 2**16


@torch.no_grad()
def cross_entropy_scores(
    logits: Float[Tensor, "batch classes"],
    target: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    *,
    weight: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Float[Tensor, " batch"]:
    r"""Norm of ``A P - t``, the gradient of cross-entropy at the logits.

    ``P`` is the softmax, ``t`` the (smoothed, weighted) target and ``A`` its sum. For plain class
    indices, with :math:`d_c = z_c - z_y` and ``Q`` the softmax of the other classes alone,

    .. math:: s = \sigma\Bigl(\log\sum_{c \ne y} e^{d_c}\Bigr) \sqrt{1 + \lVert Q\rVert^2},

    which does not cancel, however well an example is known.

    Args:
        logits: Scores of the classes.
        target: Classes, or probabilities, which need not add up to 1.
        weight: Of each class, as in torch.
        label_smoothing: As in torch.
        ignore_index: Rows with this class get score 0.

    Returns:
        Scores in nats per unit of logit, in float32 or wider.

    Raises:
        ValueError: If logits and target do not fit each other.

    Source:
        Section 3.2 of the paper; the stable form is ours.
    """
    check_target(logits, target, ignore_index)
    parts = pieces(*logits.shape)
    if len(parts) == 1:
        return softmax_distance(logits, target, weight, label_smoothing, ignore_index)
    return torch.cat(
        [
            softmax_distance(logits[part], target[part], weight, label_smoothing, ignore_index)
            for part in parts
        ]
    )


def pieces(rows: int, classes: int) -> list[slice]:
    """Cut a large batch of logits into pieces that add little memory."""
    size = rows if rows * classes <= LARGE else max(1, PIECE // classes)
    return [slice(start, start + size) for start in range(0, max(rows, 1), max(size, 1))]


def softmax_distance(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
) -> Tensor:
    """The scores of a piece."""
    z, classes = raised(logits), logits.shape[1]
    if target.is_floating_point():
        return shifted_distance(z, raised(target), weight, label_smoothing)
    target = target.long()  # torch's loss takes bytes too
    is_kept = target != ignore_index
    label = target.clamp(0, classes - 1).unsqueeze(1)
    if label_smoothing:
        hot = one_hot(label.squeeze(1), classes).to(z.dtype)
        found = shifted_distance(z, hot, weight, label_smoothing)
    else:
        found = distance_to_label(z, label)
        if weight is not None:
            found = found * weight.to(z.dtype)[label.squeeze(1)]
    return found.mul_(is_kept)


def distance_to_label(z: Tensor, label: Tensor) -> Tensor:
    """``|P - E_y|`` without cancellation."""
    d = z - z.gather(1, label)
    d.scatter_(1, label, float("-inf"))
    if d.shape[1] == 1:
        return torch.zeros_like(d[:, 0])
    missed = d.logsumexp(1).sigmoid()  # 1 - P_y
    among_others = d.softmax(1).square().sum(1).nan_to_num(0.0)  # no class but y is possible
    return missed * (1 + among_others).sqrt()


def shifted_distance(z: Tensor, q: Tensor, weight: Tensor | None, label_smoothing: float) -> Tensor:
    """``|A P - t|`` for any target distribution."""
    t = (1 - label_smoothing) * q + label_smoothing / z.shape[1] if label_smoothing else q
    if weight is not None:
        t = t * weight.to(z.dtype)
    return (t.sum(1, keepdim=True) * z.softmax(1) - t).norm(dim=1)


def check_target(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    """Refuse targets that cross-entropy cannot have; values are looked at on the CPU only."""
    if logits.ndim != 2:
        raise ValueError(
            f"logits must have shape (batch, classes); got {tuple(logits.shape)}. For sequences "
            "pass TokenCrossEntropy, for anything else a loss_fn that returns one loss per example."
        )
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise ValueError(
                f"floating-point targets must be probabilities of shape {tuple(logits.shape)}; "
                f"got {tuple(target.shape)}. Class indices must be integers: pass target.long()."
            )
        return
    if target.shape != logits.shape[:1]:
        raise ValueError(
            f"class targets must have shape ({len(logits)},); got {tuple(target.shape)}."
        )
    if target.device.type != "cpu" or not len(target):
        return
    low, high = target.aminmax()
    if low >= 0 and high < logits.shape[1]:
        return
    wrong = ((target < 0) | (target >= logits.shape[1])) & (target != ignore_index)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"classes must lie in 0..{logits.shape[1] - 1}; got {int(target[first])} in row "
            f"{first}. Is the model's last layer too small, or do the labels begin at 1?"
        )


@torch.no_grad()
def token_scores(
    logits: Float[Tensor, "batch time classes"],
    target: Int[Tensor, "batch time"],
    *,
    mask: Bool[Tensor, "batch time"] | None = None,
    reduction: str = "sum",
    combine: str = "norm",
    weight: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Float[Tensor, " batch"]:
    r"""Score sequences, one sequence being one example.

    With :math:`e_{it}` the score of token t, a sum over tokens has
    :math:`s_i = \sqrt{\sum_t e_{it}^2}`; a mean has the same over the number of tokens.

    Args:
        logits: Scores of the classes at every step.
        target: Classes; ``ignore_index`` marks steps that do not count.
        mask: True where a step counts, besides.
        reduction: ``"sum"`` or ``"mean"`` over the steps that count.
        combine: ``"norm"``, or ``"triangle"`` for the looser bound :math:`\sum_t e_{it}`.
        weight: Of each class.
        label_smoothing: As in torch.
        ignore_index: As in torch.

    Returns:
        Scores in nats per unit of logit; 0 for a sequence without a step that counts.

    Raises:
        ValueError: If an argument is none of these, or the shapes do not fit.

    Source:
        Ours after the official code, which norms over all axes but the first.
    """
    if reduction not in ("sum", "mean") or combine not in ("norm", "triangle"):
        raise ValueError(
            "reduction must be 'sum' or 'mean' and combine 'norm' or 'triangle'; got "
            f"{reduction!r} and {combine!r}."
        )
    if logits.ndim != 3 or target.shape != logits.shape[:2]:
        raise ValueError(
            "logits must be (batch, time, classes) and target (batch, time); got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}."
        )
    each = cross_entropy_scores(
        logits.flatten(0, 1),
        target.flatten(),
        weight=weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    ).view(target.shape)
    counts = target != ignore_index
    if mask is not None:
        counts = counts & mask.bool()
        each = each * mask.bool()
    found = each.norm(dim=1) if combine == "norm" else each.sum(1)
    return found / counts.sum(1).clamp(min=1) if reduction == "mean" else found


@torch.no_grad()
def focal_scores(
    logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], gamma: float = 2.0
) -> Float[Tensor, " batch"]:
    r"""Score of the focal loss :math:`-(1-p)^\gamma \ln p` of the target's probability p.

    Args:
        logits: Scores of the classes.
        target: Classes.
        gamma: Focusing exponent; 0 is cross-entropy.

    Returns:
        Scores: :math:`|(1-p)^\gamma - \gamma p (1-p)^{\gamma-1} \ln p|` times those of
        cross-entropy.

    Raises:
        ValueError: If the target does not fit.

    Source:
        Lin et al., ICCV 2017, for the loss.
    """
    plain = cross_entropy_scores(logits, target)
    z = raised(logits)
    log_p = -cross_entropy(z, target, reduction="none")
    miss = -torch.expm1(log_p)
    slope = gamma * log_p.exp() * miss.clamp(min=torch.finfo(z.dtype).tiny) ** (gamma - 1) * log_p
    return (miss**gamma - slope).abs() * plain
