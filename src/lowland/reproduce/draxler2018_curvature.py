"""How curved the loss is along a path where it leaves its minima (claim C9)."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.connectivity import PathResult
from lowland.dynamics import hessian_product, spectral_density
from lowland.problems import trivial_directions
from lowland.training import generator

__all__ = ["measure_curvature"]

# Random directions that the others are compared with.
RANDOM = 20


def measure_curvature(
    model: nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    inputs: Tensor,
    target: Tensor,
    found: PathResult,
) -> list[dict[str, float]]:
    r"""Rayleigh quotients :math:`v^T H v / \lambda_{max}` at both ends of a path, in float64.

    Args:
        model: A plain ReLU perceptron, as :func:`lowland.problems.trivial_directions` wants it.
        loss_fn: One loss per example.
        inputs: All training inputs.
        target: Their targets.
        found: The path.

    Returns:
        For each end the quotients of the path's tangent, of the chord to the other end, and the
        mean over random directions, all without their parts along trivial directions; the largest
        eigenvalue; the number of trivial directions; and the share of the tangent that they are.

    Source:
        The specification's section 7.6.
    """
    rows = []
    for path in (found.path, found.path.reversed()):
        network = deepcopy(model)
        network.load_state_dict(path.state_dict(0))
        network, x = network.double(), inputs.double()
        pivots = path.pivots.double()
        trivial = torch.linalg.qr(trivial_directions(network, x).T).Q
        hessian = hessian_product(network, loss_fn, [(x, target)])
        largest = spectral_density(hessian, steps=40, probes=1).largest
        draws = torch.randn(
            RANDOM, pivots.shape[1], dtype=pivots.dtype, generator=generator(0, "random directions")
        )
        tangent, chord = pivots[1] - pivots[0], pivots[-1] - pivots[0]
        kept = without(trivial, torch.stack([tangent, chord, *draws.to(pivots)]))
        quotients = (kept * hessian(kept.T).T).sum(1) / (kept.square().sum(1) * largest)
        rows.append(
            {
                "tangent": float(quotients[0]),
                "chord": float(quotients[1]),
                "random": float(quotients[2:].mean()),
                "largest": float(largest),
                "trivial": trivial.shape[1],
                "trivial_share": 1 - float(kept[0].square().sum() / tangent.square().sum()),
            }
        )
    return rows


def without(
    basis: Float[Tensor, "params directions"], vectors: Float[Tensor, "vectors params"]
) -> Float[Tensor, "vectors params"]:
    """Project an orthonormal basis out, twice for rounding."""
    for _ in range(2):
        vectors = vectors - (vectors @ basis) @ basis.T
    return vectors
