"""A little noise, for a path that a symmetric start holds on its hill."""

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.path import segment_lengths

__all__ = ["with_noise"]

# Norm of the noise, in lengths of a segment.
NOISE = 0.01


def with_noise(
    points: Float[Tensor, "points params"], generator: torch.Generator
) -> Float[Tensor, "points params"]:
    """Move the inner points of a path or a curve a little, in every direction alike.

    Args:
        points: Pivots or control points, ends included.
        generator: Source of randomness, on the host.

    Returns:
        A copy; its ends bit for bit.
    """
    size = NOISE * float(segment_lengths(points).mean()) / points.shape[1] ** 0.5
    noise = torch.randn(points[1:-1].shape, generator=generator, dtype=points.dtype)
    points = points.clone()
    points[1:-1] += size * noise.to(points.device)
    return points
