"""How far the noise of the gradient would carry the weights if there were no curvature."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

__all__ = ["free_displacement", "momentum_factor"]


def momentum_factor(momentum: float, lag: float | Num[Tensor, "*lags"]) -> Float[Tensor, "*lags"]:
    r"""Say how many independent steps a lag is worth under heavy-ball momentum.

    .. math:: S_\mu(t) = \frac{t + 2 \sum_{k=1}^{t-1} (t - k) \mu^k}{1 - \mu^2}

    With noise alone, no curvature and a stationary velocity,
    :math:`M \Delta(t_w, t_w + t) = \eta^2 D \, S_\mu(t)`. It tends to :math:`t / (1 - \mu)^2`.

    Args:
        momentum: :math:`\mu`, from 0 to below 1.
        lag: t in updates, 0 or more.

    Returns:
        The factor, in float64.

    Raises:
        ValueError: If momentum or a lag is out of range.

    Source:
        Specification, section 2; the sum is written in closed form.

    Example:
        >>> [round(value, 3) for value in momentum_factor(0.5, torch.tensor([1, 2, 10])).tolist()]
        [1.333, 4.0, 34.672]
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1; got {momentum}.")
    t = torch.as_tensor(lag, dtype=torch.float64)
    if not ((t >= 0) & t.isfinite()).all():
        raise ValueError(f"lags must be finite and not negative; got {lag}.")
    rest = t * (1 - momentum) - 1 + momentum**t
    return (t + 2 * momentum * rest / (1 - momentum) ** 2) / (1 - momentum**2)


def free_displacement(
    lag: float | Num[Tensor, "*lags"],
    trace: float,
    params: int,
    *,
    learning_rate: float,
    momentum: float = 0.0,
    mean_square: float = 0.0,
) -> Float[Tensor, "*lags"]:
    r"""Predict the displacement by noise and a constant mean gradient, without curvature.

    .. math:: \Delta = \frac{\eta^2}{M} \left( D \, S_\mu(t) + \frac{G^2 t^2}{(1-\mu)^2} \right)

    Args:
        lag: t in updates.
        trace: D, see :class:`lowland.dynamics.GradientNoise`.
        params: M.
        learning_rate: :math:`\eta`, of plain SGD.
        momentum: :math:`\mu`.
        mean_square: :math:`G^2`; 0 for noise alone.

    Returns:
        The mean square displacement per parameter, in float64.

    Raises:
        ValueError: If the learning rate or the number of parameters is not positive.

    Source:
        Specification, section 2.
    """
    if not learning_rate > 0 or params < 1:
        raise ValueError(
            f"learning_rate and params must be positive; got {learning_rate} and {params}."
        )
    t = torch.as_tensor(lag, dtype=torch.float64)
    walk = trace * momentum_factor(momentum, t)
    return learning_rate**2 / params * (walk + mean_square * t**2 / (1 - momentum) ** 2)
