"""A certificate: what one hypothesis proves about the training error at its depth."""

from dataclasses import dataclass, field, fields
from math import exp
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lowland.boosting.alphas import LARGEST_EDGE, closed_alpha, improvement, signed_root

__all__ = ["BINS", "Certificate"]

BINS = 2000  # of margins, over [-1, 1]
ROUNDING = 1e-12  # a covariance this small beside its two means is zero


@dataclass(frozen=True)
class Certificate:
    r"""What the statistics of one hypothesis say, over a whole training set.

    With :math:`K = C - 1` wrong classes, :math:`r` the margins and :math:`D_t` the weights that the
    previous hypothesis leaves. Two chains stand side by side: ``edge``, ``gamma``, ``covariance``,
    ``step_ratio``, ``loss_closed`` and the bound ``B2`` have the closed-form alpha at both depths,
    whatever the user chose; ``alpha``, ``loss``, ``B0`` and margins of scores have the chosen one.

    Attributes:
        edge: :math:`\tilde\gamma_{t+1} = E_{D_t}[r_{t+1}]`, in ``[-1, 1]``.
        edge_previous: That of the hypothesis before.
        alpha_previous: Closed-form alpha of the hypothesis before.
        alpha: Chosen weight of this depth.
        alpha_closed: Its weight by the closed form; 0 for an edge that is not positive.
        loss: Exponential loss at ``alpha``: the mean over examples of a sum over wrong classes.
        loss_closed: The same at ``alpha_closed``.
        loss_previous: The same of the hypothesis before, at ``alpha_previous``.
        covariance: Of :math:`\exp(-\alpha_{t+1} r_{t+1})` and :math:`\exp(\alpha_t r_t)` under
            :math:`D_t`; not positive where the new hypothesis errs where the old one erred.
        covariance_scale: Product of their means, beside which rounding is judged.
        uniform_edge: e, the mean margin without the weights of a previous hypothesis.
        error: Share of examples with a wrong class at or above the right one: a tie is an error.
        classes: C.
        examples: Number of examples.
        margin_shares: Share of examples with a smallest margin of at most -1, -0.999, ..., 1.
    """

    edge: float
    edge_previous: float
    alpha_previous: float
    alpha: float
    alpha_closed: float
    loss: float
    loss_closed: float
    loss_previous: float
    covariance: float
    covariance_scale: float
    uniform_edge: float
    error: float
    classes: int
    examples: int
    margin_shares: Float[Tensor, " thetas"] = field(repr=False, compare=False)

    @property
    def gamma_squared(self) -> float:
        """Normalized improvement on the previous edge, with its sign."""
        return improvement(self.edge, self.edge_previous)

    @property
    def gamma(self) -> float:
        """Signed root of ``gamma_squared``."""
        return signed_root(self.gamma_squared)

    @property
    def step_ratio(self) -> float:
        """Z: ``loss_closed`` over ``loss_previous``; the paper's bound on it does not hold."""
        return self.loss_closed / self.loss_previous

    @property
    def is_separated(self) -> bool:
        """Whether the edge is 1 up to rounding: every example right, and nothing left to boost."""
        return self.edge >= LARGEST_EDGE

    @property
    def covariance_holds(self) -> bool:
        """Whether the covariance is not positive, up to rounding."""
        return self.covariance <= ROUNDING * self.covariance_scale

    @property
    def holds_condition(self) -> bool:
        """Whether the weak-learning condition holds: gamma > 0 and the covariance condition."""
        return self.gamma_squared > 0 and self.covariance_holds

    @property
    def bounds(self) -> dict[str, float | None]:
        """Bounds on the training error, 0 or more (above 1 they say nothing); None where void.

        * ``"B0"`` is the exponential loss, without an assumption, once alpha is positive.
        * ``"B1"`` is ``K sqrt(1 - e^2)``, for a mean margin e that is not negative. It bounds the
          loss at the line-search alpha, and the error at any alpha.
        * ``"B2"`` is ``K sqrt(1 - edge^2)``, where the covariance condition holds at this step. It
          bounds ``loss_closed``, and the error at any alpha.

        Where alpha meets its largest value, the last two are what that alpha still proves.
        """
        wrong, is_used = self.classes - 1, self.alpha > 0
        has_mean = is_used and self.uniform_edge >= 0
        proves = is_used and self.edge > 0 and self.covariance_holds
        return {
            "B0": self.loss if is_used else None,
            "B1": wrong * chord(self.uniform_edge) if has_mean else None,
            "B2": wrong * chord(self.edge) if proves else None,
        }

    def margin_share(self, theta: float) -> float:
        """Share of training examples whose smallest margin is at most theta.

        Args:
            theta: In ``[-1, 1]``, rounded to a multiple of 0.001.

        Returns:
            From 0 to 1.

        Raises:
            ValueError: If theta lies outside.
        """
        check_theta(theta)
        return float(self.margin_shares[round((theta + 1) * BINS / 2)])

    def margin_bound(self, theta: float) -> float | None:
        r"""Bound that share by :math:`e^{\theta\alpha} L`.

        Args:
            theta: In ``[-1, 1]``.

        Returns:
            The bound, which is void, None, if alpha is not positive.

        Raises:
            ValueError: If theta lies outside.

        Source:
            Huang et al., ICML 2018, Theorem E.1; for any hypothesis: ours.
        """
        check_theta(theta)
        return exp(theta * self.alpha) * self.loss if self.alpha > 0 else None

    def record(self) -> dict[str, Any]:
        """Give every number as a plain value.

        Returns:
            The attributes but the margins, what is derived from them, and the bounds.
        """
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "margin_shares"}
        for name in ("gamma", "gamma_squared", "step_ratio", "is_separated", "holds_condition"):
            numbers[name] = getattr(self, name)
        return numbers | {"bounds": self.bounds}


def chord(edge: float) -> float:
    """Bound the mean of ``exp(-alpha r)`` over margins with this mean, at the alpha it gives."""
    # By convexity at most cosh(alpha) - edge sinh(alpha): sqrt(1 - edge^2) at the closed-form
    # alpha, and still true where that alpha is cut off.
    alpha = closed_alpha(edge)
    return ((1 - edge) * exp(alpha) + (1 + edge) * exp(-alpha)) / 2


def check_theta(theta: float) -> None:
    """Refuse a margin that no hypothesis can have."""
    if not -1 <= theta <= 1:
        raise ValueError(f"theta is a margin and must lie in [-1, 1]; got {theta}.")
