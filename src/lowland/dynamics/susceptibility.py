"""How unlike the runs of one recipe are: fluctuations of the overlap over seeds."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["dynamic_susceptibility", "stay_fraction"]


def dynamic_susceptibility(
    overlaps: Float[Tensor, " seeds *pairs"], params: int
) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
    r"""Compute :math:`\chi_4(t_w, t) = M\, \mathrm{Var}_{seeds}\, Q(t_w, t_w + t)`.

    Of order 1 where weights move independently of each other; g times as much where groups of g
    share a fate, so that a peak in t is the mark of dynamic heterogeneity.

    Args:
        overlaps: Q of every seed, for any pairs of times: ``torch.stack([run.overlap for run in
            runs])`` of recorders with one clock, or :func:`stay_fraction`.
        params: M.

    Returns:
        The susceptibility, from the unbiased variance, and its standard error by a jackknife over
        seeds; NaN for two of them.

    Raises:
        ValueError: If there are fewer than two seeds, no parameter, or an overlap is not finite.

    Source:
        Kerr Winter & Janssen, arXiv 2405.13098; specification, section 9.
    """
    seeds = len(overlaps)
    if seeds < 2:
        raise ValueError(f"a variance needs at least 2 seeds; got {seeds}.")
    if params < 1:
        raise ValueError(f"params must be at least 1; got {params}.")
    if not overlaps.isfinite().all():
        raise ValueError("overlaps must be finite; got some that are not. Leave that seed out.")
    values = overlaps.double()
    variance = values.var(0)
    if seeds == 2:
        return params * variance, torch.full_like(variance, torch.nan)
    without = [values[[k for k in range(seeds) if k != left]].var(0) for left in range(seeds)]
    spread = torch.stack(without).var(0, correction=0)
    return params * variance, params * ((seeds - 1) * spread).sqrt()


def stay_fraction(
    start: Float[Tensor, " params"],
    end: Float[Tensor, "*times params"],
    width: float,
) -> Float[Tensor, "*times"]:
    r"""Share of the weights that have moved by less than a width: the overlap of liquids.

    For free diffusion :math:`\mathrm{erf}(a / \sqrt{2 \Delta})`, which falls as
    :math:`t^{-1/2}`; a plateau is a cage.

    Args:
        start: Weights at the waiting time.
        end: Weights later, at one time or several.
        width: a, in the unit of a weight.

    Returns:
        Shares, 0 to 1, float64.

    Raises:
        ValueError: If the width is not positive.

    Source:
        The usual overlap function of glasses; specification, section 9.
    """
    if not width > 0:
        raise ValueError(f"width must be positive; got {width}.")
    return ((end - start).abs() < width).double().mean(-1)
