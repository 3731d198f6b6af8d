"""What methods for discrete weights refuse: settings, weights, gradients."""

from collections.abc import Sequence
from math import isfinite
from typing import Any
from warnings import warn

import torch
from torch import Tensor

__all__ = [
    "check_alpha",
    "check_choice",
    "check_gradients",
    "check_group",
    "check_inside",
    "check_share",
    "check_values",
    "check_type",
    "check_weight",
    "parameter_name",
]


def check_gradients(groups: list[dict[str, Any]]) -> None:
    """Refuse gradients from which no sign can be read; one wait for the device."""
    named = [
        (weight.grad, parameter_name(group, index))
        for group in groups
        for index, weight in enumerate(group["params"])
        if weight.grad is not None
    ]
    for gradient, name in named:
        if gradient.layout is not torch.strided:
            raise ValueError(
                f"gradients must be dense; {name} has a {gradient.layout} one. "
                "Build the embedding with sparse=False."
            )
    if not named:
        return
    sums = torch.stack([gradient.sum(dtype=torch.float32) for gradient, _ in named])
    for total, (_, name) in zip(sums.tolist(), named, strict=True):
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
    check_choice(group["lam"], group["rho"], group["threshold"])
    check_alpha(group["alpha"])
    if group["rho"] > 1 and group["threshold"] == "relative":
        warn(
            f"rho = {group['rho']} is above 1: with the relative threshold no weight will ever "
            'change. Take rho below 1, or threshold="absolute".',
            stacklevel=5,
        )
    for index, weight in enumerate(group["params"]):
        check_weight(weight, values, parameter_name(group, index))


def check_choice(
    lam: float, rho: float, threshold: str = "absolute", layers_per_step: int | None = None
) -> None:
    """Refuse settings of a rule that mean nothing.

    Args:
        lam: Must be finite and at least 0.
        rho: The same.
        threshold: Must be one of the two.
        layers_per_step: Must be a whole number, at least 1, or None.

    Raises:
        ValueError: If one is not so.
    """
    if threshold not in ("relative", "absolute"):
        raise ValueError(f'threshold must be "relative" or "absolute"; got {threshold!r}.')
    for name, number in (
        ("rho, the penalty on a move,", rho),
        ("lam, the price of a weight,", lam),
    ):
        if not (number >= 0 and isfinite(number)):
            raise ValueError(f"{name} must be finite and at least 0; got {number}.")
    if layers_per_step is not None and (layers_per_step < 1 or layers_per_step % 1):
        raise ValueError(
            f"layers_per_step must be a whole number above 0, or None; got {layers_per_step}."
        )


def check_alpha(alpha: float) -> None:
    """Check the keep rate of an average."""
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha, the keep rate of the average, must be in [0, 1); got {alpha}.")


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
    if hasattr(weight, "placements"):  # a DTensor, whose class takes seconds to import
        raise TypeError(
            "discrete weights must be whole on every rank, as the largest wrong one counts; "
            f"{name} is sharded. Use DistributedDataParallel."
        )
    if not weight.requires_grad:
        raise ValueError(
            f"{name} must require a gradient, from which M is read; call requires_grad_(True), "
            "leave it out, or use lowland.control.explicit_step, which needs no gradient in it."
        )
    check_inside(weight, values, name)


def check_inside(weight: Tensor, values: tuple[float, ...], name: str) -> None:
    """Refuse a weight that is not in its set."""
    weight = weight.detach()
    outside = ~torch.isin(weight, check_type(weight, values, name))
    if outside.any():
        raise ValueError(
            f"every weight must be one of {values}; {name} has {outside.sum()} others, for "
            f"instance {weight[outside][0].item():.6g}. Call "
            "lowland.control.discretize(model, values) first, and give other optimizers "
            "float_parameters(model) alone."
        )


def check_type(weight: Tensor, values: tuple[float, ...], name: str) -> Tensor:
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
