"""The direction of a path at its pivots, and what of a gradient lies along it."""

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.checks import refuse_unknown
from lowland.connectivity.path import segment_lengths

__all__ = ["TANGENTS", "project", "tangent_mix", "tangents"]

TANGENTS = ("paper", "improved", "official")


def tangents(
    path: Float[Tensor, "pivots params"], losses: Float[Tensor, " pivots"], kind: str = "paper"
) -> Float[Tensor, "interior params"]:
    r"""Direction of the path at each interior pivot, as unit vectors.

    ``"paper"`` looks to the higher neighbor (Eq. E5). ``"improved"`` does so on slopes and, where
    the pivot is a maximum or minimum, mixes both differences with the larger weight on the
    higher neighbor (Eq. E6). ``"official"`` is the published code: there it mixes *normalized*
    differences with the larger weight on the *lower* neighbor; it does not converge on
    Mueller-Brown and is here for comparison.

    Args:
        path: Pivots, ends included.
        losses: Loss at each of them.
        kind: One of the three names.

    Returns:
        Unit vectors; zero where a pivot coincides with the neighbor it looks to.

    Source:
        Draxler et al., ICML 2018; Henkelman and Jonsson, J. Chem. Phys. 113, 9978 (2000).
    """
    ahead, behind = tangent_mix(losses, segment_lengths(path), kind).to(path.dtype).unsqueeze(2)
    differences = path[1:] - path[:-1]
    mixed = (ahead * differences[1:]).addcmul_(behind, differences[:-1])
    norm = torch.linalg.vector_norm(mixed, dim=1, keepdim=True)
    return mixed / norm.clamp_min(torch.finfo(mixed.dtype).tiny)


def tangent_mix(
    losses: Float[Tensor, " pivots"], lengths: Float[Tensor, " segments"], kind: str
) -> Float[Tensor, "two interior"]:
    r"""How much of the segment ahead and of the one behind makes the direction at a pivot.

    The direction is :math:`a (p_{i+1} - p_i) + b (p_i - p_{i-1})`, not of unit length.

    Args:
        losses: Loss at every pivot, ends included.
        lengths: Of the segments; ``"paper"`` does not look at them.
        kind: As in :func:`tangents`.

    Returns:
        The weights a and b, one row each, the larger of them 1.

    Raises:
        ValueError: If the kind is unknown.

    Source:
        Eq. E5 and E6 of the specification.
    """
    rising = losses[2:] > losses[:-2]
    uphill = torch.stack([rising, ~rising]).to(lengths.dtype)
    if kind == "paper":
        return uphill
    refuse_unknown(TANGENTS, tangent=kind)
    up, down = losses[2:] - losses[1:-1], losses[1:-1] - losses[:-2]
    slope = ((up > 0) & (down > 0)) | ((up < 0) & (down < 0))
    larger, smaller = torch.maximum(up.abs(), down.abs()), torch.minimum(up.abs(), down.abs())
    if kind == "official":
        larger, smaller = smaller, larger
    unit = torch.stack([inverse(lengths[1:]), inverse(lengths[:-1])])
    mixed = torch.stack(
        [torch.where(rising, larger, smaller), torch.where(rising, smaller, larger)]
    )
    mixed = mixed * unit if kind == "official" else mixed.to(lengths.dtype)
    flat = (up == 0) & (down == 0)
    mixed = torch.where(slope, uphill, torch.where(flat, unit, mixed))
    return mixed * inverse(mixed.amax(0))


def inverse(lengths: Float[Tensor, " some"]) -> Float[Tensor, " some"]:
    """One over a length; zero for a length of zero."""
    return torch.where(lengths > 0, 1 / lengths, 0)


def project(
    grads: Float[Tensor, "interior params"], along: Float[Tensor, "interior params"]
) -> Float[Tensor, "interior params"]:
    r"""Remove from each gradient its part along the path, :math:`g - (g \cdot \tau) \tau`.

    Args:
        grads: Gradients of the interior pivots.
        along: Unit tangents.

    Returns:
        The part across the path; the force is its negative (Eq. E3).
    """
    return torch.addcmul(grads, (grads * along).sum(1, keepdim=True), along, value=-1)
