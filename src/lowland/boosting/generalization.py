"""The paper's bound on the test error, and the l1 constraint on weights that it assumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, log, sqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.errors import UnsupportedModelError
from lowland.training.floats import raised

__all__ = [
    "GeneralizationBound",
    "generalization_bound",
    "l1_norms",
    "margin_factor",
    "project_l1_",
    "project_model_l1_",
]


@dataclass(frozen=True)
class GeneralizationBound:
    """A bound on the probability of a wrong answer, and what it is made of.

    Attributes:
        margin_share: Share of training examples with a margin of at most theta.
        complexity: Term of the Rademacher complexity of all depths.
        depth: Term of the number of rounds.
        confidence: Term beta, of the failure probability and of theta.
    """

    margin_share: float
    complexity: float
    depth: float
    confidence: float

    @property
    def total(self) -> float:
        """The bound: the sum of the four."""
        return self.margin_share + self.complexity + self.depth + self.confidence

    @property
    def vacuous(self) -> bool:
        """Whether the bound says nothing, as an error is never above 1."""
        return self.total >= 1


def generalization_bound(
    *,
    examples: int,
    channels: int,
    norms: Sequence[float],
    theta: float,
    margin_share: float = 0.0,
    head_norm: float = 1.0,
    input_norm: float = 1.0,
    delta: float = 0.05,
) -> GeneralizationBound:
    r"""Bound the test error of a binary classifier of T modules of one layer each.

    With probability :math:`1 - \delta`, for margins of the normalized output,

    .. math:: \Pr(yF \le 0) \le \Pr_S(yF \le \theta) + \frac{4 C_0 r_\infty}{\theta}
        \sqrt{\frac{\ln 2n}{2m}} \sum_t \Lambda_t + \frac2\theta \sqrt{\frac{\ln T}{m}} + \beta

    where :math:`\Lambda_t = \prod_{t' \le t} 2 \Lambda_{t', t'-1}` doubles with every module.

    Args:
        examples: m, size of the training set.
        channels: n, width of the features.
        norms: :math:`\Lambda_{t,t-1}`, l1 norm that the incoming weights of any unit of module t
            stay below; one number per module, T of them.
        theta: Margin, in ``(0, 1]``.
        margin_share: Share of the training set with a margin of at most theta.
        head_norm: C_0, l1 norm of the last linear classifier.
        input_norm: r_inf, mean over examples of the largest coordinate of the input.
        delta: Probability with which the bound may fail.

    Returns:
        The bound with its terms and a flag: at sizes of practice it is vacuous.

    Raises:
        ValueError: If a number lies outside of its range, or ``theta^2 examples`` is not above
            ``ln T`` with T >= 2.

    Source:
        Huang et al., ICML 2018, Corollary 4.3.
    """
    rounds = len(norms)
    if rounds < 2:
        raise ValueError(f"norms must hold two modules or more, as ln T divides; got {rounds}.")
    if not (0 < theta <= 1 and 0 < delta < 1 and 0 <= margin_share <= 1):
        raise ValueError(
            "theta must lie in (0, 1], delta in (0, 1) and margin_share in [0, 1]; got "
            f"{theta}, {delta} and {margin_share}."
        )
    if examples < 1 or channels < 1 or min(*norms, head_norm, input_norm) < 0:
        raise ValueError(
            "examples and channels must be positive and no norm negative; got "
            f"{examples}, {channels}, norms {list(norms)}, head_norm {head_norm} and input_norm "
            f"{input_norm}."
        )
    many = theta**2 * examples / log(rounds)
    if many <= 1:
        raise ValueError(
            f"theta^2 * examples must be above ln T; got {theta**2 * examples} and {log(rounds)}. "
            "Choose a larger theta."
        )
    growth = sum(accumulate((2 * norm for norm in norms), lambda product, norm: product * norm))
    terms = ceil(4 / theta**2 * log(many)) * log(rounds) / examples
    return GeneralizationBound(
        margin_share=margin_share,
        complexity=4 * head_norm * input_norm / theta
        * sqrt(log(2 * channels) / (2 * examples)) * growth,
        depth=2 / theta * sqrt(log(rounds) / examples),
        confidence=sqrt(terms + log(2 / delta) / (2 * examples)),
    )  # fmt: skip


def margin_factor(edge: float, theta: float) -> float:
    r"""Bound the share of binary training examples with a margin of at most theta.

    :math:`(1 - \tilde\gamma)^{(1-\theta)/2} (1 + \tilde\gamma)^{(1+\theta)/2}`, which is
    :math:`e^{\theta\alpha} \sqrt{1 - \tilde\gamma^2}` with the closed-form alpha; it needs the
    covariance condition.

    Args:
        edge: Of the last hypothesis, in ``[0, 1]``.
        theta: In ``[-1, 1]``.

    Returns:
        The bound.

    Raises:
        ValueError: If an argument lies outside.

    Source:
        Huang et al., ICML 2018, Theorem E.1, which prints it once with a stray square root.
    """
    if not (0 <= edge <= 1 and -1 <= theta <= 1):
        raise ValueError(f"edge must lie in [0, 1] and theta in [-1, 1]; got {edge} and {theta}.")
    return (1 - edge) ** ((1 - theta) / 2) * (1 + edge) ** ((1 + theta) / 2)


@torch.no_grad()
def project_l1_(weight: Float[Tensor, "units ..."], radius: float) -> Float[Tensor, "units ..."]:
    """Move each unit's incoming weights to the nearest point of the l1 ball, in place.

    Args:
        weight: Of a linear or convolutional layer, one row per unit that receives.
        radius: l1 norm that no row may exceed.

    Returns:
        ``weight`` itself; a row that was inside keeps its bits.

    Raises:
        ValueError: If the radius is not positive.

    Source:
        Duchi et al., ICML 2008, Figure 1.
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive; got {radius}.")
    rows = weight.flatten(1)
    outside = rows.abs().sum(1) > radius
    # Sorted, the sizes stay positive after subtracting what the ball asks of the first k.
    size = raised(rows.abs())
    ordered = size.sort(1, descending=True).values
    count = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    cut = (ordered.cumsum(1) - radius) / count
    last = (ordered > cut).sum(1, keepdim=True) - 1
    shrunk = (size - cut.gather(1, last)).clamp(min=0).to(rows.dtype) * rows.sign()
    weight.copy_(torch.where(outside[:, None], shrunk, rows).view_as(weight))
    return weight


def l1_norms(model: nn.Module) -> dict[str, float]:
    r"""Measure the l1 norm of the incoming weights of the units of each layer.

    Args:
        model: Any module; linear, convolutional and attention layers count, biases and norms do
            not, as the theory has none.

    Returns:
        Name of the weight to the largest norm among its units.

    Raises:
        UnsupportedModelError: If a weight is computed from others, as by ``weight_norm``.
    """
    found: dict[str, float] = {}
    for name, _, rows in incoming(model):
        largest = float(rows.detach().abs().flatten(1).sum(1).max())
        found[name] = max(largest, found.get(name, 0.0))
    return found


@torch.no_grad()
def project_model_l1_(model: nn.Module, radius: float) -> None:
    """Hold the incoming weights of every unit of a model inside of the l1 ball, in place.

    Call it after each step of the optimizer. Frozen weights are left alone.

    Args:
        model: As for :func:`l1_norms`.
        radius: l1 norm that no unit may exceed.

    Raises:
        ValueError: If the radius is not positive.
        UnsupportedModelError: If a weight is computed from others, as by ``weight_norm``.

    Source:
        Huang et al., ICML 2018, Section 4.2: the constraint that no experiment there enforces.
    """
    for _, weight, rows in incoming(model):
        if weight.requires_grad:
            project_l1_(rows, radius)


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def incoming(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Name, weight, and a view of it with one row per unit that receives."""
    for prefix, module in model.named_modules():
        kinds = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
        known = ("weight",) if isinstance(module, kinds) else ()
        if isinstance(module, nn.MultiheadAttention):
            known = ATTENTION
        for name in known:
            weight = getattr(module, name)
            if weight is None:
                continue
            full = f"{prefix}.{name}" if prefix else name
            if not isinstance(weight, nn.Parameter):
                raise UnsupportedModelError(
                    f"weights must be plain parameters to be held in a ball; {full} is computed "
                    "from others. Remove its parametrization first."
                )
            if isinstance(module, TRANSPOSED):  # (in, out / groups, ...): inputs come first
                for part in weight.chunk(module.groups):
                    yield full, weight, part.transpose(0, 1)
            else:
                yield full, weight, weight
