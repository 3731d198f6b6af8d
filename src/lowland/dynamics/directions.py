"""How filters turned and how they grew: what a scale-invariant weight did, and its norm."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.dynamics.weights import Source
from lowland.training import wide_type

__all__ = ["FilterMotion", "direction_displacement"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class FilterMotion:
    r"""The displacement of a layer, filter by filter, in two parts that add up.

    .. math:: |w' - w|^2 = (|w'| - |w|)^2 + 2 |w| |w'| (1 - \cos)

    Attributes:
        rotation: 1 - cosine of the angle between a filter and itself later: 0 to 2; 0 for a filter
            that is zero at either time, as it has no direction.
        turning: Squared distance by rotation, :math:`2 |w| |w'| (1 - \cos)`.
        radial: Squared distance by growth, :math:`(|w'| - |w|)^2`.
        params: Weights of a filter.
    """

    rotation: Float[Tensor, " filters"]
    turning: Float[Tensor, " filters"]
    radial: Float[Tensor, " filters"]
    params: int

    @property
    def displacement(self) -> float:
        r""":math:`\Delta` of the layer, both parts, mean square per parameter."""
        total = self.turning.sum() + self.radial.sum()
        return total.item() / (self.params * len(self.radial))

    @property
    def rms_angle(self) -> float:
        """Root mean square angle of the filters in radians, while it is small: a chord."""
        return (2 * self.rotation.mean()).sqrt().item()


def direction_displacement(start: Source, end: Source) -> dict[str, FilterMotion]:
    """Split the displacement of each filter into rotation and growth.

    Weights before a batch norm are scale invariant: when they grow, the function stays, and the
    raw displacement mixes that with what the filters learned, which is in their directions.

    Args:
        start: A model, or its tensors by name (a state dict) or in a sequence, at the first time.
        end: The same at the second. Output filters lie along the first axis; where one of the two
            is a model, those of its transposed convolutions along the second.

    Returns:
        For each tensor of two or more axes that both have; others have no filters.

    Raises:
        ValueError: If both do not hold the same tensors, none of them has filters, or one is not
            finite.

    Source:
        Specification, section 8; the split is the law of cosines.
    """
    before, after = tensors_of(start), tensors_of(end)
    # a state dict has buffers, a model's parameters do not
    shared = [name for name in before if name in after]
    lacking = [n for n in (*before, *after) if n not in shared]
    both_named = isinstance(start, nn.Module) == isinstance(end, nn.Module)
    if not shared or (lacking and both_named):
        raise ValueError(
            f"start and end must hold the same tensors; got {[*before]} and {[*after]}. Pass two "
            "states of one model."
        )
    transposed = groups_of_transposed(start) | groups_of_transposed(end)
    found: dict[str, FilterMotion] = {}
    for name in shared:
        old, new = before[name], after[name]
        if old.shape != new.shape:
            raise ValueError(
                f"start and end must have the same shapes; {name} was {tuple(old.shape)} and is "
                f"{tuple(new.shape)}."
            )
        if old.ndim > 1:
            rows = [as_filters(tensor, transposed.get(name, 0)) for tensor in (old, new)]
            if not all(row.isfinite().all() for row in rows):
                raise ValueError(f"weights must be finite; {name} is not. Has the run diverged?")
            found[name] = motion(*rows)
    if not found:
        raise ValueError(
            f"there must be at least one tensor of two or more axes; got {shared}, which have no "
            "filters."
        )
    return found


def tensors_of(source: Source) -> dict[str, Tensor]:
    """Tensors by name, those of a model that are trained."""
    if isinstance(source, nn.Module):
        return {n: p.detach() for n, p in source.named_parameters() if p.requires_grad}
    named = source if isinstance(source, Mapping) else dict(enumerate(source))
    return {str(name): tensor.detach() for name, tensor in named.items()}


def groups_of_transposed(source: Source) -> dict[str, int]:
    """Weights of transposed convolutions, by name, with their number of groups."""
    if not isinstance(source, nn.Module):
        return {}
    return {
        f"{prefix}.weight".lstrip("."): module.groups
        for prefix, module in source.named_modules()
        if isinstance(module, TRANSPOSED)
    }


def as_filters(tensor: Tensor, groups: int) -> Float[Tensor, "filters params"]:
    """One row per output filter, in float64 where the device has it."""
    rows = tensor.to(wide_type(tensor.device))
    if groups:  # (inputs, outputs of a group, ...)
        rows = rows.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return rows.flatten(1)


def motion(
    old: Float[Tensor, "filters params"], new: Float[Tensor, "filters params"]
) -> FilterMotion:
    """Compare filters; by unit vectors, as 1 - cosine would cancel for small angles."""
    lengths = old.norm(dim=1), new.norm(dim=1)
    directed = (lengths[0] > 0) & (lengths[1] > 0)
    units = [
        rows / torch.where(directed, length, 1.0).unsqueeze(1)
        for rows, length in zip((old, new), lengths, strict=True)
    ]
    chord = (units[1] - units[0]).square().sum(1)
    rotation = torch.where(directed, chord / 2, 0.0)
    radial = (lengths[1] - lengths[0]).square()
    return FilterMotion(rotation, 2 * lengths[0] * lengths[1] * rotation, radial, old.shape[1])
