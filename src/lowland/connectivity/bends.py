"""Curves given by a few control points: Bezier curves, and polygonal chains."""

from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.checks import refuse_unknown
from lowland.connectivity.path import segment_lengths, wide_type

__all__ = ["KINDS", "as_polyline", "curve_weights", "known_kind", "straight_control"]

KINDS = ("bezier", "polychain")

# Straight pieces that stand for a Bezier curve. The middle of a piece of 1/m of the parameter lies
# |second derivative| / (8 m^2) off the curve: with one bend 1/m^2 = 1/400 of how far the whole
# curve lies off its chord. On two pairs of digits networks the saddle was 1 % higher than with 240
# pieces, against 3 % with 10 and 16 to 21 % with 5; every piece costs memory for a network.
BEZIER_PIECES = 20


def curve_weights(
    kind: str, t: Float[Tensor, " points"], num_control: int
) -> Float[Tensor, "points control"]:
    r"""Share of each control point in each point of a curve.

    Bezier: the Bernstein polynomials :math:`\binom{n}{k} t^k (1 - t)^{n - k}` with
    :math:`n` one less than the number of control points; polychain: the hat functions
    :math:`\max(0, 1 - |n t - k|)`, so that every piece of the chain takes an equal share of t.

    Args:
        kind: ``"bezier"`` or ``"polychain"``.
        t: Parameters of the points, from 0 (start) to 1 (end).
        num_control: Number of control points, both ends included, at least 2.

    Returns:
        Weights, not negative; every row sums to 1, and at 0 and 1 it is the end alone.

    Raises:
        ValueError: If the kind is unknown, there are fewer than two control points, or a
            parameter lies outside 0 and 1.

    Source:
        Garipov et al., NeurIPS 2018, Eq. 4 and 5, for any number of bends.
    """
    known_kind(kind)
    if num_control < 2:
        raise ValueError(f"a curve needs at least its two ends; got {num_control} control points.")
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(f"t must lie between 0 (start) and 1 (end); got {t.tolist()}.")
    degree = num_control - 1
    k = torch.arange(num_control, dtype=t.dtype, device=t.device)
    t = t.unsqueeze(1)
    if kind == "polychain":
        return (1 - (degree * t - k).abs()).clamp_min(0)
    choose = torch.tensor([comb(degree, i) for i in range(num_control)], dtype=t.dtype)
    return choose.to(t.device) * t**k * (1 - t) ** (degree - k)


def known_kind(kind: str) -> str:
    """Refuse a kind of curve that is none."""
    refuse_unknown(KINDS, kind=kind)
    return kind


def straight_control(
    start: Float[Tensor, " params"], end: Float[Tensor, " params"], bends: int
) -> Float[Tensor, "control params"]:
    """Put bends evenly on the straight line, which is then the curve of either kind.

    Args:
        start: One end.
        end: The other.
        bends: Number of control points between them.

    Returns:
        Control points; the ends bit for bit.
    """
    t = torch.arange(bends + 2, dtype=start.dtype, device=start.device) / (bends + 1)
    control = torch.lerp(start, end, t.unsqueeze(1))
    control[0], control[-1] = start, end
    return control


def as_polyline(
    kind: str, control: Float[Tensor, "control params"]
) -> tuple[Float[Tensor, "pivots params"], Float[Tensor, " segments"]]:
    """Cut a curve into straight pieces.

    Args:
        kind: ``"bezier"`` or ``"polychain"``.
        control: Its control points. Those of a chain are its pivots; a Bezier curve is sampled at
            21 even values of its parameter.

    Returns:
        Pivots, both ends bit for bit, and the share of each segment in the length. Those of a
        chain are no copy.
    """
    pivots = control
    if known_kind(kind) == "bezier":
        pieces = torch.arange(
            BEZIER_PIECES + 1, dtype=wide_type(control.device), device=control.device
        )
        t = pieces / BEZIER_PIECES
        pivots = curve_weights(kind, t, len(control)).to(control.dtype) @ control
        pivots[0], pivots[-1] = control[0], control[-1]
    lengths = segment_lengths(pivots)
    least = torch.finfo(lengths.dtype).eps * lengths.sum()  # pivots may coincide
    shares = lengths.clamp_min(least) if least > 0 else torch.ones_like(lengths)
    return pivots, (shares / shares.sum()).cpu()
