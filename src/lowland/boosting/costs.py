"""Margins, weights, costs, edge and loss of one hypothesis: the theory on tensors, in float64."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = [
    "binary_output",
    "cost_matrix",
    "covariance",
    "edge",
    "exponential_loss",
    "margins",
    "pair_weights",
]

SLACK = 1e-6  # a softmax in float32 leaves [0, 1] by less


def margins(
    output: Float[Tensor, "batch classes"], target: Integer[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    r"""Measure by how much the output of the right class exceeds that of every other.

    :math:`r(i, l) = o(i, y_i) - o(i, l)`, in :math:`[-1, 1]` for outputs that are probabilities.

    Args:
        output: Rows of a simplex, for instance a softmax.
        target: Class of each example.

    Returns:
        The margins in float64; 0 in the column of the right class, which is no pair.

    Raises:
        ValueError: If the shapes do not fit, there is one class only, a target is not one of the
            classes, or a margin is not a number between -1 and 1.

    Source:
        Huang et al., ICML 2018, Appendix F.
    """
    check_target(output, target)
    found = raw_margins(output, target)
    if not (found.abs() <= 1 + SLACK).all():
        raise ValueError(not_bounded(f"a margin of size {float(found.abs().max())}"))
    return found.clamp(-1, 1)


def check_target(output: Tensor, target: Tensor) -> None:
    """Refuse what no statistic could be made of."""
    if output.ndim != 2 or target.shape != output.shape[:1]:
        raise ValueError(
            "output must have shape (batch, classes) and target shape (batch,); got "
            f"{tuple(output.shape)} and {tuple(target.shape)}. Pass classes, not one-hot rows."
        )
    if output.shape[1] < 2:
        raise ValueError(
            f"there must be at least two classes; got {output.shape[1]} output per example. For "
            "one column of outputs in [-1, 1] with labels -1 and 1 call "
            "lowland.boosting.binary_output first."
        )
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"target must hold integer classes; got {target.dtype}. Call .long().")
    if len(target):
        low, high = (int(value) for value in target.aminmax())
        if low < 0 or high >= output.shape[1]:
            raise ValueError(
                f"target must hold classes 0..{output.shape[1] - 1}, one for each output; got "
                f"{low}..{high}. Do the labels begin at 1, or is the head too small?"
            )


def raw_margins(output: Tensor, target: Tensor) -> Tensor:
    """The margins, whatever the outputs are."""
    o = in_float64(output.detach())
    return o.gather(1, target.long()[:, None].to(o.device)) - o


def in_float64(tensor: Tensor) -> Tensor:
    """Float64, for which a device without it hands the tensor to the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def not_bounded(what: str) -> str:
    """The sentence for outputs that the theory does not know."""
    return (
        "outputs must be finite and bounded, rows of a simplex, so that margins lie in [-1, 1]; "
        f"got {what}. Pass logits.double().softmax(1)."
    )


def binary_output(
    output: Float[Tensor, " batch"], target: Integer[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch 2"], Integer[Tensor, " batch"]]:
    r"""Write a binary hypothesis in the language of two classes.

    The rows :math:`((1 - o)/2, (1 + o)/2)` have the margin :math:`r = y\,o`.

    Args:
        output: In ``[-1, 1]``.
        target: -1 or 1.

    Returns:
        Rows of a simplex, and the classes 0 and 1.

    Raises:
        ValueError: If an output or a label is another number.

    Source:
        Ours; Huang et al., ICML 2018, Section 3 has the binary theory.
    """
    if not ((target == 1) | (target == -1)).all():
        raise ValueError(f"binary labels must be -1 or 1; got {target.unique().tolist()}.")
    if not (output.abs() <= 1).all():
        raise ValueError(f"binary outputs must lie in [-1, 1]; got {output}. Clip or tanh them.")
    o = in_float64(output)
    return torch.stack([(1 - o) / 2, (1 + o) / 2], 1), (target.long() + 1) // 2


def example_weights(weights: Tensor | None, like: Tensor) -> Tensor:
    """One float64 number per row of ``like``, all equal if there are no weights."""
    if weights is None:
        return like.new_ones(len(like), dtype=torch.float64)
    if weights.shape != like.shape[:1]:
        raise ValueError(
            f"weights must hold one number per example, shape ({len(like)},); got "
            f"{tuple(weights.shape)}."
        )
    w = in_float64(weights.detach()).to(like.device)
    if not (w.isfinite() & (w >= 0)).all():
        raise ValueError(f"weights must be finite and not negative; got {weights}.")
    return w


def exponentials(r: Tensor, target: Tensor, alpha: float) -> Tensor:
    """``exp(-alpha r)`` for every pair, and 0 in the column of the right class."""
    return (-alpha * r).exp().scatter(1, target.long()[:, None].to(r.device), 0.0)


def pair_weights(
    output: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    alpha: float,
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch classes"]:
    r"""Weigh every pair of an example and a wrong class by how wrong the hypothesis is there.

    :math:`D_t(i, l) \propto w_i \exp(-\alpha_t r_t(i, l))`. The paper's recursion over rounds
    telescopes to this: the weights depend on the last hypothesis only.

    Args:
        output: Rows of a simplex, those of :math:`o_t`.
        target: Class of each example.
        alpha: Weight :math:`\alpha_t` of this depth.
        weights: Of the examples, in any scale; equal without them.

    Returns:
        A distribution over pairs, summing to 1, with 0 for the right classes.

    Raises:
        ValueError: If the arguments do not fit, or all weights are zero.

    Source:
        Huang et al., ICML 2018, Algorithms 1 and 3.
    """
    r = margins(output, target)
    q = exponentials(r, target, alpha) * example_weights(weights, r)[:, None]
    total = q.sum()
    if not total > 0:
        raise ValueError(NO_WEIGHT)
    return q / total


NO_WEIGHT = "there must be an example with a weight above zero; got none. Is the data set empty?"


def cost_matrix(
    score: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch classes"]:
    r"""Cost of putting output on each class, given the score so far.

    :math:`C_t(i, l) = w_i \exp(s_t(i, l) - s_t(i, y_i))` for wrong classes, and minus their sum for
    the right one, so that rows sum to zero. :math:`s_0 = 0` gives 1 and :math:`1 - C`.

    Args:
        score: :math:`s_t = \alpha_t o_t`; any finite numbers.
        target: Class of each example.
        weights: Of the examples; 1 without them.

    Returns:
        The costs in float64.

    Raises:
        ValueError: If the arguments do not fit or a cost is not finite.

    Source:
        Huang et al., ICML 2018, Lemma F.1 and Algorithm 3.
    """
    check_target(score, target)
    r = raw_margins(score, target)
    costs = exponentials(r, target, 1.0) * example_weights(weights, r)[:, None]
    if not costs.isfinite().all():
        raise ValueError(
            "score must be finite and small enough for exp in float64; got values from "
            f"{float(score.min())} to {float(score.max())}. It is alpha times a softmax."
        )
    return costs.scatter(1, target.long()[:, None].to(r.device), -costs.sum(1, keepdim=True))


def edge(
    output: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    *,
    previous: Float[Tensor, "batch classes"] | None = None,
    alpha: float = 0.0,
    weights: Float[Tensor, " batch"] | None = None,
) -> float:
    r"""Measure how far a hypothesis is above chance where the one before it was wrong.

    :math:`\tilde\gamma_{t+1} = E_{D_t}[r_{t+1}]`, the mean margin under the weights that the
    previous hypothesis leaves.

    Args:
        output: Rows of a simplex, those of :math:`o_{t+1}`.
        target: Class of each example.
        previous: Rows of :math:`o_t`; without it the weights of all pairs are equal.
        alpha: :math:`\alpha_t` of ``previous``.
        weights: Of the examples.

    Returns:
        The edge, in ``[-1, 1]``.

    Raises:
        ValueError: If the arguments do not fit.

    Source:
        Huang et al., ICML 2018, Eqs. 4 and 59; as a mean margin: ours.
    """
    r = margins(output, target)
    before = torch.zeros_like(r) if previous is None else previous
    weight = pair_weights(before, target, alpha if previous is not None else 0.0, weights)
    return float((weight * r).sum())


def exponential_loss(
    output: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    alpha: float,
    weights: Float[Tensor, " batch"] | None = None,
) -> float:
    r"""Mean over examples of :math:`\sum_{l \ne y} \exp(-\alpha r(i, l))`.

    Args:
        output: Rows of a simplex.
        target: Class of each example.
        alpha: Weight of this depth.
        weights: Of the examples, in any scale.

    Returns:
        The loss, without unit; ``classes - 1`` for alpha 0. With alpha >= 0 no less than the
        training error.

    Raises:
        ValueError: If the arguments do not fit, or all weights are zero.

    Source:
        Huang et al., ICML 2018, Eq. 5 and Theorem F.3.
    """
    r = margins(output, target)
    w = example_weights(weights, r)
    if not w.sum() > 0:
        raise ValueError(NO_WEIGHT)
    return float((w * exponentials(r, target, alpha).sum(1)).sum() / w.sum())


def covariance(
    output: Float[Tensor, "batch classes"],
    target: Integer[Tensor, " batch"],
    *,
    alpha: float,
    previous: Float[Tensor, "batch classes"],
    alpha_previous: float,
    weights: Float[Tensor, " batch"] | None = None,
) -> float:
    r"""Measure whether the new hypothesis errs where the old one erred.

    :math:`\mathrm{Cov}_{D_t}(\exp(-\alpha_{t+1} r_{t+1}), \exp(\alpha_t r_t))`. It is not positive
    exactly if :math:`L_{t+1} \le K\, E_{D_t}[\exp(-\alpha_{t+1} r_{t+1})]`.

    Args:
        output: Rows of a simplex, those of :math:`o_{t+1}`.
        target: Class of each example.
        alpha: :math:`\alpha_{t+1}`.
        previous: Rows of :math:`o_t`.
        alpha_previous: :math:`\alpha_t`.
        weights: Of the examples.

    Returns:
        The covariance, without unit.

    Raises:
        ValueError: If the arguments do not fit.

    Source:
        Huang et al., ICML 2018, Definitions 4.1 and F.2, where alphas and distribution are missing.
    """
    weight = pair_weights(previous, target, alpha_previous, weights)
    new = (-alpha * margins(output, target)).exp()
    old = (alpha_previous * margins(previous, target)).exp()
    old = old - (weight * old).sum()
    return float((weight * (new - (weight * new).sum()) * old).sum())
