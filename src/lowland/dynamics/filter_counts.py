"""Eigenvalues in an interval by a step filter of Chebyshev polynomials: no basis is stored."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.dynamics.chebyshev import Moments, spectral_range
from lowland.dynamics.counts import TOLERANCE, Count, errors_of_chance
from lowland.dynamics.lanczos import limits
from lowland.dynamics.operators import Operator, check_operator
from lowland.dynamics.probes import probe_vectors
from lowland.dynamics.spectral_density import operator_of
from lowland.training import generator

__all__ = ["filtered_count"]


def filtered_count(
    model: nn.Module | Operator,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    batches: Any = None,
    *,
    low: float,
    high: float,
    degree: int = 200,
    max_degree: int = 3200,
    probes: int = 10,
    seed: int = 0,
    kind: str = "hessian",
    batch_norm: str = "eval",
    max_bytes: int = 2**31,
) -> Count:
    r"""Count the eigenvalues in an interval, holding six vectors per probe at most.

    The step is smoothed by Jackson's kernel, which is positive; so the filters of a narrower and
    of a wider interval bound the number from both sides, whatever the spectrum. The degree is
    doubled until the bounds are close. Where Lanczos bases fit in memory,
    :func:`lowland.dynamics.flat_directions` settles with fewer products.

    Args:
        model: A module, or an :class:`lowland.dynamics.operators.Operator`.
        loss_fn: With a module, one loss per example.
        batches: With a module, re-iterable of (inputs, target), not augmented.
        low: Lower end of the interval, or minus infinity.
        high: Upper end, or infinity.
        degree: Of the polynomial to begin with; half as many products per probe. It tells apart
            what is :math:`\pi / d` of half the spectrum's width apart.
        max_degree: Up to here.
        probes: Random vectors.
        seed: Of the probes.
        kind: ``"hessian"`` or ``"gauss_newton"``.
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.
        max_bytes: Of vectors held at once, and of graphs kept; probes go together as far as theirs
            fit, at least one.

    Returns:
        The number, its errors, and the verdict: ``resolution`` is its largest distance from the
        bounds.

    Raises:
        ValueError: If the interval is empty, degree or probes are not positive, or the operator is
            not one symmetric matrix.

    Source:
        Di Napoli, Polizzi & Saad, Numer. Linear Algebra Appl. 23 (2016); the bounds are ours.
        Specification, section 3.5.
    """
    if not low < high:
        raise ValueError(f"low must be less than high; got {low} and {high}.")
    if min(degree, max_degree, probes) < 1:
        raise ValueError(
            f"degree and probes must be at least 1; got {min(degree, max_degree)} and {probes}."
        )
    operator = operator_of(model, loss_fn, batches, kind, batch_norm, max_bytes)
    check_operator(operator, generator(seed, "check"))
    span = spectral_range(operator, seed)
    group = max(1, max_bytes // (6 * operator.size * 8))
    found: list[Tensor] = []
    for first in range(0, probes, group):
        numbers = range(first, min(first + group, probes))
        starts = probe_vectors(operator, numbers, seed)
        shares, span = settled(operator, starts, span, low, high, degree, max_degree)
        found.append(shares)
    return judge(torch.cat(found), operator.size, low, high, max_degree)


def settled(
    operator: Operator,
    starts: Float[Tensor, "probes params"],
    span: tuple[float, float],
    low: float,
    high: float,
    degree: int,
    max_degree: int,
) -> tuple[Float[Tensor, "probes 3"], tuple[float, float]]:
    """Double the degree until the bounds are close; begin again if the span was too small."""
    while True:
        moments = Moments(starts, span)
        for limit in limits(min(degree, max_degree), max_degree):
            moments.grow(operator, (limit + 1) // 2)
            if moments.escapes:
                break
            shares = moments.within(low, high)
            least, likely, most = shares.mean(0).tolist()
            # A third of the allowed error; the probes need the rest.
            if (most - least) / 2 <= max(TOLERANCE * likely, 0.5 / operator.size) / 3:
                return shares, span
        else:
            return shares, span
        span = moments.center - 1.5 * moments.radius, moments.center + 1.5 * moments.radius


def judge(
    shares: Float[Tensor, "probes 3"], size: int, low: float, high: float, max_degree: int
) -> Count:
    """Make a count of the bounds and estimates of all probes, with the verdict."""
    least, likely, most = (size * shares.mean(0)).tolist()
    resolution = max(most - likely, likely - least)
    spread, chance = errors_of_chance(shares[:, 1], size)
    error, allowed = resolution + chance, max(TOLERANCE * likely, 0.5)
    if resolution > allowed:
        reason = (
            f"the edges of the filter cannot tell on which side {resolution:.3g} eigenvalues lie; "
            f"take a higher degree (max_degree was {max_degree}), or a wider interval"
        )
    elif error > allowed:
        reason = (
            f"{len(shares)} probes are too few: at 99.9 % the count may be wrong by {error:.3g}; "
            "take more"
        )
    else:
        reason = f"at 99.9 % the count is wrong by {error:.3g} at most"
    return Count(likely, spread, resolution, error <= allowed, reason, low, high)
