"""When choosing examples pays: how much variance it takes away, and what it costs."""

from math import floor, inf, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.training.floats import wide_type

__all__ = [
    "batch_multiplier",
    "constant_time",
    "constant_variance",
    "equivalent_batch",
    "pays",
    "second_moment_ratio",
    "threshold",
]

DECISIONS = ("two_stage", "paper")
TAU_RULES = ("v3", "v1")


def equivalent_batch(scores: Float[Tensor, " pool"], *, rule: str = "v3") -> Float[Tensor, ""]:
    r"""Estimate tau: how many times larger a uniform batch would have the same variance.

    .. math:: \tau = B \sum_i p_i^2 = B \frac{\sum_i s_i^2}{(\sum_i s_i)^2} = 1 + \mathrm{CV}^2(s)

    It lies between 1 and B, and looks at the second stage only: draws from a given pool.

    Args:
        scores: Of a pool, non-negative, any scale.
        rule: ``"v3"``, or ``"v1"`` for the square root of it, which the first version of the
            paper and the official code use and the third version retracts.

    Returns:
        tau; 1 for scores that are all zero.

    Raises:
        ValueError: If there is no score, one is negative or not finite, or the rule is unknown.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Eq. 27 of arXiv v3, simplified by
        :math:`\lVert p - u \rVert^2 = \sum p^2 - 1/B`.

    Example:
        >>> round(equivalent_batch(torch.tensor([1.0, 1.0, 1.0, 3.0])).item(), 9)
        1.333333333
    """
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores must have shape (pool,); got {tuple(scores.shape)}.")
    wide = scores.detach().to(wide_type(scores.device))
    if not ((wide >= 0) & wide.isfinite()).all():
        raise ValueError(
            "scores must be finite and not negative; got "
            f"{wide.min().item():.4g} to {wide.max().item():.4g}."
        )
    largest = wide.max()  # squares of very large or small scores have no number
    total, squares, count = score_sums(wide / largest if largest > 0 else wide).tolist()
    return wide.new_tensor(tau_from_sums(total, squares, count, rule))


def score_sums(scores: Float[Tensor, " pool"]) -> Float[Tensor, "3"]:
    """Sum, sum of squares and number, in float64 where the device has it; they add over ranks."""
    scores = scores.detach()
    s = scores.to(wide_type(scores.device))
    return torch.stack([s.sum(), s.dot(s), s.new_tensor(float(len(s)))])


def tau_from_sums(total: float, squares: float, count: float, rule: str = "v3") -> float:
    """Tau from the sums of one pool or of several; NaN where a score is."""
    if rule not in TAU_RULES:
        raise ValueError(f"rule must be one of {TAU_RULES}; got {rule!r}.")
    if total == 0:
        return 1.0
    square = total * total
    tau = count * squares / square if square else inf
    tau = max(tau, 1.0) if tau == tau else tau  # rounding
    return sqrt(tau) if rule == "v1" else tau


def batch_multiplier(
    tau: float, ratio: float, *, pool: int | None = None, examples: int | None = None
) -> float:
    r"""Say how many times larger a uniform batch would have the same variance, pool included.

    The pool is itself a random choice: relative to a uniform batch the variance is
    :math:`1/\tau + b/B`, hence :math:`\kappa = \tau r / (\tau + r) \le r`.

    Args:
        tau: Equivalent batch of the draw from the pool (rule ``"v3"``).
        ratio: :math:`r = B/b`.
        pool: Pool size B, if the pool is drawn without replacement from a finite set.
        examples: Number of examples N of that set; the pool's part gets the factor
            :math:`(N - B)/(N - 1)`.

    Returns:
        kappa.

    Raises:
        ValueError: If tau or the ratio is below 1, or the pool larger than the set.

    Source:
        Ours; the paper leaves the pool's variance out.
    """
    if not tau >= 1 or not ratio >= 1:
        raise ValueError(f"tau and ratio must be at least 1; got {tau} and {ratio}.")
    finite = 1.0
    if pool is not None and examples is not None:
        if not 1 <= pool <= examples:
            raise ValueError(f"pool must lie in 1..{examples}, the examples; got {pool}.")
        finite = (examples - pool) / max(examples - 1, 1)
    return 1 / (1 / tau + finite / ratio)


def pays(
    tau: float,
    ratio: float,
    *,
    decision: str = "two_stage",
    score_cost: float | None = None,
    train_cost: float | None = None,
    backward_cost: float = 2.0,
) -> bool:
    """Decide whether choosing examples is worth its cost.

    A step costs ``q = (score_cost + train_cost) / train_cost`` uniform steps. ``"two_stage"``
    asks for ``kappa > q``, ``"paper"`` for ``tau > q``. Without measured costs a forward pass of
    one example is the unit: ``q = 1 + ratio / (1 + backward_cost)``, the paper's
    ``B + 3b < 3 tau b``.

    Args:
        tau: Equivalent batch, rule ``"v3"``.
        ratio: Pool over batch.
        decision: ``"two_stage"`` or ``"paper"``.
        score_cost: Measured cost of getting and scoring a pool beyond getting a batch, any unit.
        train_cost: Measured cost of a uniform step, in the same unit.
        backward_cost: Backward pass in forward passes, where nothing was measured.

    Returns:
        Whether it pays.

    Raises:
        ValueError: If an argument is out of range, or only one cost is given.

    Source:
        Section 3.3 of the paper for its rule; the two-stage rule is ours.

    Example:
        >>> pays(4.0, 3.0, decision="paper"), pays(4.0, 3.0), pays(7.0, 3.0)
        (True, False, True)
    """
    return tau > threshold(
        ratio,
        decision=decision,
        score_cost=score_cost,
        train_cost=train_cost,
        backward_cost=backward_cost,
    )


def threshold(
    ratio: float,
    *,
    decision: str = "two_stage",
    score_cost: float | None = None,
    train_cost: float | None = None,
    backward_cost: float = 2.0,
) -> float:
    """Find the tau above which choosing examples pays.

    Args:
        ratio: Pool over batch.
        decision: As for :func:`pays`.
        score_cost: As for :func:`pays`.
        train_cost: As for :func:`pays`.
        backward_cost: As for :func:`pays`.

    Returns:
        tau; infinite if no tau is enough.

    Raises:
        ValueError: If an argument is out of range, or only one cost is given.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 3.3, for ``"paper"``; ``"two_stage"`` is ours.

    Example:
        >>> threshold(3.0, decision="paper"), threshold(3.0)
        (2.0, 6.0)
    """
    if not ratio > 1 or not backward_cost >= 0:
        raise ValueError(
            f"ratio must be above 1 and backward_cost at least 0; got {ratio} and {backward_cost}."
        )
    if decision not in DECISIONS:
        raise ValueError(f"decision must be one of {DECISIONS}; got {decision!r}.")
    if (score_cost is None) != (train_cost is None):
        raise ValueError(
            f"give both costs or none; got score_cost={score_cost}, train_cost={train_cost}."
        )
    if score_cost is None or train_cost is None:
        score_cost, train_cost = ratio, 1 + backward_cost
    if not (train_cost > 0 and score_cost > -train_cost):
        raise ValueError(
            f"costs must be positive; got score_cost={score_cost}, train_cost={train_cost}."
        )
    cost = (score_cost + train_cost) / train_cost
    return from_cost(cost, ratio, decision)


def from_cost(cost: float, ratio: float, decision: str) -> float:
    """The tau whose gain just pays a step that costs so many uniform ones."""
    if decision == "paper":
        return max(1.0, cost)
    if cost >= ratio:
        return inf
    return max(1.0, cost * ratio / (ratio - cost))  # kappa = cost, solved for tau


def second_moment_ratio(weight: Float[Tensor, " draws"], norms: Float[Tensor, " draws"]) -> float:
    r"""Say what the draw really gains, from exact gradient norms of the drawn examples.

    :math:`E_u\lVert G\rVert^2 / E_p\lVert wG\rVert^2`, estimated over draws from p as
    :math:`\sum_j w_j \lVert G_j\rVert^2 / \sum_j w_j^2 \lVert G_j\rVert^2`. A score that is only
    correlated with the norm has a larger tau than this.

    Args:
        weight: Weights of the drawn examples.
        norms: Their exact gradient norms.

    Returns:
        The multiplier of the second stage; 1 for uniform draws.

    Source:
        Ours, from Section 3.1 of the paper.
    """
    w, g = weight.double(), norms.double().square()
    weighted = float((w.square() * g).sum())
    return float((w * g).sum()) / weighted if weighted > 0 else 1.0


def constant_time(tau: float, size: int, backward_cost: float = 2.0) -> tuple[int, int]:
    """Size pool and batch so that a step costs as much as a uniform one.

    Args:
        tau: Square root of the equivalent batch, rule ``"v1"``, as in the official code.
        size: Uniform batch size b.
        backward_cost: Backward pass in forward passes.

    Returns:
        Pool and batch.

    Source:
        Official code, ``ConstantTimeImportanceTraining``; not in the paper.

    Example:
        >>> constant_time(2.0, 128)
        (160, 74)
    """
    per_row = 1 + backward_cost
    budget = per_row * size
    most = budget - per_row * max(0.2 * size, size / tau)
    pool = max(size, size + 0.5 * (most - size))  # near tau 1 there is nothing to choose
    return max(1, floor(pool)), max(1, floor((budget - pool) / per_row))


def constant_variance(tau: float, size: int, extra: float = 0.2) -> tuple[int, int]:
    """Score a uniform batch and train on as few of it as keep its variance.

    Args:
        tau: Square root of the equivalent batch, rule ``"v1"``, as in the official code.
        size: Uniform batch size b.
        extra: Share of the batch that is kept beyond ``1 / tau``.

    Returns:
        Pool and batch.

    Source:
        Official code, ``ConstantVarianceImportanceTraining``; not in the paper.
    """
    return size, max(1, min(size, floor((1 / tau + extra) * size)))
