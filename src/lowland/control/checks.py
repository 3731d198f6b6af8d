"""What the optimizer of discrete weights refuses: settings, weights, gradients."""

from collections.abc import Sequence
from math import isfinite
from typing import Any
from warnings import warn

import torch
from torch import Tensor

__all__ = [
    "check_gradients",
    "check_group",
    "check_set",
    "check_settings",
    "check_share",
    "check_values",
    "check_weight",
    "parameter_name",
]


def check_gradients(gradients: list[Any], names: list[str]) -> None:
    """Refuse gradients from which no sign can be read; one wait for the device."""
    for gradient, name in zip(gradients, names, strict=True):
        if gradient.layout is not torch.strided:
            raise ValueError(
                f"gradients must be dense; {name} has a {gradient.layout} one. "
                "Build the embedding with sparse=False."
            )
    if not gradients:
        return
    sums = torch.stack([gradient.sum(dtype=torch.float32) for gradient in gradients])
    for total, name in zip(sums.tolist(), names, strict=True):
        if not isfinite(total):
            raise FloatingPointError(
                f"gradients must be finite; that of {name} is not. Nothing was changed. With a "
                "GradScaler call scaler.step(optimizer), which skips such steps; else look for the "
                "layer where the loss overflows."
            )


def check_group(group: dict[str, Any]) -> None:
    """Check the settings of a group, and that its weights are in its set."""
    group["values"] = values = check_values(group["values"])
    if group["rho"] is None:
        group["rho"] = 0.5 if len(values) == 2 else 0.25
    check_settings(group)
    for index, weight in enumerate(group["params"]):
        check_weight(weight, values, parameter_name(group, index))


def check_settings(group: dict[str, Any]) -> None:
    """Check rho, alpha, lambda and the threshold."""
    rho, alpha, lam = group["rho"], group["alpha"], group["lam"]
    if group["threshold"] not in ("relative", "absolute"):
        raise ValueError(f'threshold must be "relative" or "absolute"; got {group["threshold"]!r}.')
    if not (rho >= 0 and isfinite(rho)):
        raise ValueError(f"rho, the penalty on a move, must be finite and at least 0; got {rho}.")
    if rho > 1 and group["threshold"] == "relative":
        warn(
            f"rho = {rho} is above 1: with the relative threshold no weight will ever change. "
            'Take rho below 1, or threshold="absolute".',
            stacklevel=5,
        )
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha, the keep rate of the average, must be in [0, 1); got {alpha}.")
    if not (lam >= 0 and isfinite(lam)):
        raise ValueError(f"lam, the price of a weight, must be finite and at least 0; got {lam}.")


def check_values(values: Sequence[float]) -> tuple[float, ...]:
    """Sort a set of values; refuse an empty one, and repeated or infinite values.

    Args:
        values: The set.

    Returns:
        The values as floats, ascending.

    Raises:
        ValueError: If it is not a set of finite numbers.
    """
    try:
        found = tuple(sorted(float(value) for value in values))
    except (TypeError, ValueError):
        raise ValueError(
            f"values must be a set of numbers, for instance (-1, 0, 1); got {values!r}."
        ) from None
    if not found or len(set(found)) < len(found) or not all(map(isfinite, found)):
        raise ValueError(
            f"values must be different finite numbers, at least one; got {tuple(values)}. "
            "For instance (-1, 1) or (-1, 0, 1)."
        )
    return found


def check_weight(weight: Tensor, values: tuple[float, ...], name: str) -> None:
    """Check that a parameter can be trained, and that it lies in its set."""
    if weight.is_complex():
        raise TypeError(f"discrete weights must be real; {name} is {weight.dtype}.")
    if not weight.requires_grad:
        raise ValueError(
            f"{name} must require a gradient, from which M is read; call requires_grad_(True), "
            "leave it out, or use lowland.control.explicit_step, which needs no gradient in it."
        )
    allowed = check_set(weight, values, name)
    outside = ~torch.isin(weight.detach(), allowed)
    if outside.any():
        raise ValueError(
            f"every weight must be one of {values}; {name} has {outside.sum()} others, for "
            f"instance {weight.detach()[outside][0].item():.6g}. Call "
            "lowland.control.discretize(model, values) first, and give this optimizer "
            "discrete_parameters(model) and any other one float_parameters(model) alone."
        )


def check_set(weight: Tensor, values: tuple[float, ...], name: str) -> Tensor:
    """Give the set in the type of a weight; refuse one that this type cannot hold."""
    allowed = weight.new_tensor(values)
    if not allowed.isfinite().all() or len(allowed.unique()) < len(values):
        raise ValueError(
            f"values must be different finite numbers in the type of the weight; {values} are not "
            f"in {weight.dtype}, the type of {name}."
        )
    return allowed


def check_share(share: float) -> float:
    """Check a share of nonzero weights."""
    if not 0 <= share <= 1:
        raise ValueError(f"target_nonzero must be a share between 0 and 1; got {share}.")
    return float(share)


def parameter_name(group: dict[str, Any], index: int) -> str:
    """Say which parameter is meant."""
    names = group.get("names") or group.get("param_names")
    return names[index] if names else f"parameter {index} of a group"
