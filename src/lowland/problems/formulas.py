"""The potentials as plain functions of points, one value per point."""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "camel_value",
    "curvy_valley_value",
    "eggcarton_value",
    "leps_value",
    "mueller_brown_value",
    "wells_value",
]


def mueller_brown_value(point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate the sum of four Gaussians, :math:`\sum_k A_k \exp(a_k x^2 + b_k x y + c_k y^2)`.

    Args:
        point: Coordinates; each Gaussian counts them from its own center.

    Returns:
        The value.

    Source:
        Mueller and Brown, Theor. Chim. Acta 53, 75 (1979).
    """
    x, y = point[..., 0], point[..., 1]
    first = -200 * torch.exp(-((x - 1) ** 2) - 10 * y**2)
    second = -100 * torch.exp(-(x**2) - 10 * (y - 0.5) ** 2)
    dx, dy = x + 0.5, y - 1.5
    third = -170 * torch.exp(-6.5 * dx**2 + 11 * dx * dy - 6.5 * dy**2)
    dx, dy = x + 1, y - 1
    fourth = 15 * torch.exp(0.7 * dx**2 + 0.6 * dx * dy + 0.7 * dy**2)
    return first + second + third + fourth


def wells_value(point: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate :math:`\sum_a (x_a^2 - 1)^2`.

    Args:
        point: Coordinates, any number of them.

    Returns:
        The value.
    """
    return (point.square() - 1).square().sum(-1)


def camel_value(point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate :math:`(4 - 2.1 x^2 + x^4/3) x^2 + x y + (4 y^2 - 4) y^2`.

    Args:
        point: Coordinates.

    Returns:
        The value.
    """
    x, y = point[..., 0], point[..., 1]
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


def curvy_valley_value(point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate :math:`(y - \sin x)^2 + 4 b (b x^4 - x^2) + 1`, :math:`b = 1 / (2 X^2)`.

    Args:
        point: Coordinates.

    Returns:
        The value, with :math:`X = 5 \pi / 2`.
    """
    x, y = point[..., 0], point[..., 1]
    b = 2 / (5 * pi) ** 2
    return (y - torch.sin(x)) ** 2 + 4 * b * (b * x**4 - x**2) + 1


def eggcarton_value(point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate :math:`\cos 2 \pi x + \cos 2 \pi y`.

    Args:
        point: Coordinates.

    Returns:
        The value.
    """
    return torch.cos(2 * pi * point).sum(-1)


# Distance of A and C, and the oscillator's stiffness and coupling.
REACH, STIFFNESS, COUPLING = 3.742, 0.2025, 1.154
# Per pair of atoms AB, BC, AC: well depth, and the Sato parameter (a, b, c of the source).
DEPTHS, SATO = (4.746, 4.746, 3.445), (0.05, 0.80, 0.05)


def leps_value(point: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    r"""Evaluate the LEPS surface and the oscillator :math:`2 k (r - (r_{AC}/2 - x/c))^2`.

    Args:
        point: Distance :math:`r` of A and B, and the oscillator's coordinate :math:`x`.

    Returns:
        The energy.

    Source:
        Jonsson, Mills and Jacobsen (1998), with b = 0.80.
    """
    r, x = point[..., 0], point[..., 1]
    oscillator = 2 * STIFFNESS * (r - (REACH / 2 - x / COUPLING)) ** 2
    distances = (r, REACH - r, torch.full_like(r, REACH))
    pairs = zip(distances, DEPTHS, SATO, strict=True)
    coulomb, exchange = [], []
    for distance, depth, sato in pairs:
        decay = torch.exp(-1.942 * (distance - 0.742))
        coulomb.append(depth / 2 * (1.5 * decay**2 - decay) / (1 + sato))
        exchange.append(depth / 4 * (decay**2 - 6 * decay) / (1 + sato))
    ab, bc, ac = exchange
    squared = ab**2 + bc**2 + ac**2 - ab * bc - bc * ac - ab * ac
    return sum(coulomb) - torch.sqrt(squared) + oscillator
