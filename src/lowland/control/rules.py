r"""The discrete control that maximizes the augmented Hamiltonian, weight by weight.

A layer linear in its weights has :math:`\sum_s H_t = \langle W, M\rangle` with
:math:`M = \sum_s p_{s,t+1} x_{s,t}^T`, minus the weight gradient. With the regularizer
:math:`\lambda v^2` and the penalty :math:`\rho (v - w)^2` on the move, every weight is maximized
alone.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import hardshrink

from lowland.control.checks import check_choice

__all__ = ["binary_rule", "finite_set_rule", "largest_wrong", "ternary_rule"]


def binary_rule(
    weight: Float[Tensor, "*shape"],
    average: Float[Tensor, "*shape"],
    rho: float | Float[Tensor, ""],
) -> Float[Tensor, "*shape"]:
    r"""Maximize :math:`M v - \rho (v - w)^2` over :math:`v \in \{-1, 1\}`.

    That is the sign of :math:`M + 2\rho w`; a tie keeps the weight.

    Args:
        weight: The present weights w, -1 or 1.
        average: M, or its moving average; finite.
        rho: Penalty on a move, at least 0, in the units of M.

    Returns:
        The new weights.

    Raises:
        ValueError: If ``rho`` is negative or not finite.

    Source:
        Li & Hao, ICML 2018, the binary update; specification section 2.
    """
    rho = float(rho)
    check_choice(0.0, rho)
    if rho == 0:
        return torch.where(weight * average < 0, -weight, weight)
    return torch.add(average, weight, alpha=2 * above(rho, average)).sign_()


def ternary_rule(
    weight: Float[Tensor, "*shape"],
    average: Float[Tensor, "*shape"],
    rho: float | Float[Tensor, ""],
    lam: float | Float[Tensor, ""] = 0.0,
) -> Float[Tensor, "*shape"]:
    r"""Maximize :math:`M v - \lambda v^2 - \rho (v - w)^2` over :math:`v \in \{-1, 0, 1\}`.

    That is the sign of :math:`M + 2\rho w` where it is larger than :math:`\rho + \lambda`, else 0.
    A tie keeps the weight, or else takes the value nearest to it.

    Args:
        weight: The present weights w, -1, 0 or 1.
        average: M, or its moving average; finite.
        rho: Penalty on a move, at least 0, in the units of M.
        lam: Price of a weight that is not zero, at least 0, in the units of M.

    Returns:
        The new weights.

    Raises:
        ValueError: If ``rho`` or ``lam`` is negative or not finite.

    Source:
        Li & Hao, ICML 2018, the ternary update; specification section 2.
    """
    rho, lam = float(rho), float(lam)
    check_choice(lam, rho)
    limit = rho + lam
    if rho == 0:
        wanted = torch.where(average.abs() > limit, average.sign(), 0.0)
        return torch.where((average.abs() == limit) & (weight * average >= 0), weight, wanted)
    drive = torch.add(average, weight, alpha=2 * above(rho, average))
    return hardshrink(drive, limit).sign_()


def above(rho: float, average: Tensor) -> float:
    """Round a penalty up by a unit in the last place, so that a tie keeps the weight."""
    return rho * (1 + torch.finfo(average.dtype).eps)


def finite_set_rule(
    weight: Float[Tensor, "*shape"],
    average: Float[Tensor, "*shape"],
    values: Sequence[float],
    rho: float | Float[Tensor, ""],
    lam: float | Float[Tensor, ""] = 0.0,
) -> Float[Tensor, "*shape"]:
    r"""Maximize :math:`M v - \lambda v^2 - \rho (v - w)^2` over any finite set, by enumeration.

    A tie keeps the weight, or else takes the value nearest to it.

    Args:
        weight: The present weights w, each one of ``values``.
        average: M, or its moving average; finite.
        values: The set.
        rho: Penalty on a move, at least 0.
        lam: Price of a squared weight, at least 0.

    Returns:
        The new weights.

    Raises:
        ValueError: If ``rho`` or ``lam`` is negative or not finite.

    Source:
        Ours; specification section 2, "general finite set".
    """
    check_choice(float(lam), float(rho))
    new, best = weight, weight * average - lam * weight**2
    for value in values:
        score = value * average - lam * value**2 - rho * (value - weight) ** 2
        is_nearer = (
            (score == best) & (new != weight) & ((value - weight).abs() < (new - weight).abs())
        )
        is_better = (score > best) | is_nearer
        new = torch.where(is_better, value, new)
        best = torch.where(is_better, score, best)
    return new


def largest_wrong(
    weight: Float[Tensor, "*shape"],
    average: Float[Tensor, "*shape"],
    values: Sequence[float],
    lam: float | Float[Tensor, ""] = 0.0,
) -> Float[Tensor, ""]:
    r"""Find the largest :math:`|M|` among the weights that the Hamiltonian alone would change.

    A weight is wrong when it does not maximize :math:`M v - \lambda v^2`. For -1, 1 and for
    -1, 0, 1 that is a weight without the sign of M, zeros included, whatever lambda is, as in the
    authors' code.

    Args:
        weight: The present weights.
        average: M, or its moving average; finite.
        values: The set.
        lam: Price of a squared weight; not used for -1, 0, 1.

    Returns:
        m, 0 if no weight is wrong.

    Source:
        Li & Hao, ICML 2018, the relative threshold; specification sections 2 and 4.
    """
    if not average.numel():
        return average.new_zeros(())
    if set(values) == {-1.0, 1.0}:
        return -(weight * average).amin().clamp(max=0)
    if set(values) == {-1.0, 0.0, 1.0}:
        # |M| where the signs differ or the weight is 0, else 0; torch.where takes 50 times as long
        return average.abs().sub_((weight * average).relu_()).amax()
    wanted = finite_set_rule(weight, average, values, 0.0, lam)
    return torch.where(wanted != weight, average.abs(), 0.0).amax()
