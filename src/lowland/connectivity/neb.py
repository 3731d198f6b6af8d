"""The nudged elastic band: slide a whole path downhill without letting it fall off its saddle."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.checks import (
    refuse_no_momentum,
    refuse_no_number,
    refuse_no_rate,
    refuse_no_whole,
)
from lowland.connectivity.path import refuse_no_shares, segment_lengths
from lowland.connectivity.sweep import descend, slide
from lowland.connectivity.tangent import project, tangent_mix, tangents
from lowland.errors import NoEffectWarning
from lowland.results import Status

__all__ = ["Relaxed", "from_potential", "relax"]

LossAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]

# Losses stay on the device; every so many steps the host looks whether they are still finite.
STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Where a band came to rest.

    Attributes:
        path: Pivots after the last step (not redistributed once more), ends included; after a
            divergence those of the last check at which every loss was finite.
        losses: Loss at every pivot in the last step.
        force: Norm of the force on each interior pivot in the last step; None after a divergence.
        history: Loss at every pivot in every step.
        status: ``FINISHED``, or ``NOT_FINITE``.
        step: Number of steps done; after a divergence the step, from 0, of the first bad loss.
        pivot: After a divergence the pivot with that loss, else None.
        trapped: Whether no pivot felt a force at the first step although the middle was higher
            than the ends: a symmetric start, which only noise can leave.
    """

    path: Float[Tensor, "pivots params"]
    losses: Float[Tensor, " pivots"]
    force: Float[Tensor, " interior"] | None
    history: Float[Tensor, "steps pivots"]
    status: Status
    step: int
    pivot: int | None = None
    trapped: bool = False


def relax(
    path: Float[Tensor, "pivots params"],
    weights: Float[Tensor, " segments"],
    loss_and_grad: LossAndGrad,
    *,
    steps: int,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    tangent: str = "paper",
    project_gradient: bool = True,
    spring_constant: float | None = None,
    climb: bool = False,
    on_step: Callable[[], None] | None = None,
) -> Relaxed:
    r"""Move the interior pivots down the loss, across the path only.

    Each step redistributes the pivots along the path, projects the tangent out of every gradient,
    :math:`F_i = -(g_i - (g_i \cdot \tau_i) \tau_i)`, and takes an SGD step with momentum. The
    ends stay bit for bit. With a spring constant the pivots are held apart by forces along the
    path, :math:`k (d_i - d_{i-1}) \tau_i`, instead of by redistribution.

    Args:
        path: Pivots, ends included, at least three.
        weights: Share of the arc length of each segment; positive, sum 1.
        loss_and_grad: From the pivots ``(pivots, params)`` to the loss of every pivot
            ``(pivots,)`` and the gradient of the interior ones ``(pivots - 2, params)``;
            :func:`from_potential` makes one from a function of points.
        steps: Number of steps.
        learning_rate: Step size of the SGD step.
        momentum: Momentum of the SGD step, without dampening; not redistributed with the pivots.
        weight_decay: Adds ``weight_decay * pivot`` to the gradient before the projection; the
            losses leave it out.
        tangent: ``"paper"``, ``"improved"`` or ``"official"``, see
            :func:`lowland.connectivity.tangents`.
        project_gradient: False gives the plain string method, for comparison.
        spring_constant: Stiffness in units of loss per squared distance; None redistributes.
        climb: Let the highest interior pivot climb along the path to the saddle, without springs
            on it; needs a spring constant.
        on_step: Called after every step, for progress.

    Returns:
        The relaxed band. The path given is not changed.

    Raises:
        ValueError: If an argument is out of its range, ``weights`` do not sum to 1, or
            ``loss_and_grad`` returns other shapes.

    Warns:
        NoEffectWarning: If the start is trapped by a symmetry.

    Source:
        Draxler et al., ICML 2018, Algorithm 1, Eq. E3 to E7 and E10 of the specification; the
        climbing pivot is Henkelman, Uberuaga and Jonsson, J. Chem. Phys. 113, 9901 (2000).
    """
    check_arguments(path, weights, steps, learning_rate, momentum, weight_decay, spring_constant)
    if climb and spring_constant is None:
        raise ValueError(
            "climb=True needs a spring_constant: redistribution would move the climbing pivot back."
        )
    good, checked = path, 0
    fresh = partial(torch.empty_like, path, pin_memory=path.is_pinned())
    path, spare = fresh().copy_(path), fresh()
    spare[[0, -1]] = path[[0, -1]]
    velocity = torch.zeros_like(path[1:-1])
    history = path.new_zeros(steps, len(path))
    force, trapped = path.new_zeros(len(velocity)), False
    lengths = segment_lengths(path)
    for step in range(steps):
        if spring_constant is None:
            slide(path, lengths, weights, out=spare)
            path, spare = spare, path
        losses, grads = loss_and_grad(path)
        if step == 0:
            check_shapes(path, losses, grads)
        history[step] = losses
        if weight_decay:
            grads = grads.add(path[1:-1], alpha=weight_decay)
        if step == 0:
            trapped = is_trapped(path, losses, grads, tangent, project_gradient)
        if tangent != "paper" or spring_constant is not None:
            lengths = segment_lengths(path)
        removed = torch.full_like(losses[1:-1], project_gradient)
        pull = torch.zeros_like(removed)
        if spring_constant is not None:
            pull = spring_constant * (lengths[1:] - lengths[:-1])
            if climb:
                top = losses[1:-1].argmax()
                removed[top] += 1
                pull[top] = 0
        lengths = descend(
            path, grads, velocity, tangent_mix(losses, lengths, tangent), removed, pull,
            learning_rate=learning_rate, momentum=momentum,
            force=force if step == steps - 1 else None, out=spare,
        )  # fmt: skip
        path, spare = spare, path
        if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step == steps - 1:
            bad = first_bad(history[checked : step + 1], path)
            if bad is not None:
                step, pivot = checked + bad[0], bad[1]
                last = history[max(checked - 1, 0)]
                seen = history[: step + 1]
                kept = good.clone() if checked == 0 else good  # the path given is the caller's
                return Relaxed(kept, last, None, seen, Status.NOT_FINITE, step, pivot, trapped)
            if step < steps - 1:
                good = spare.clone() if checked == 0 else good.copy_(spare)
                checked = step + 1
        if on_step is not None:
            on_step()
    return Relaxed(path, history[-1], force, history, Status.FINISHED, steps, None, trapped)


def check_arguments(
    path: Tensor,
    weights: Tensor,
    steps: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    spring_constant: float | None,
) -> None:
    """Refuse what the band cannot be relaxed with."""
    if path.ndim != 2 or len(path) < 3:
        raise ValueError(
            "path must hold at least one pivot between its two ends, shape (pivots >= 3, params); "
            f"got shape {tuple(path.shape)}. Insert pivots first, for instance with insert_equal."
        )
    if len(weights) != len(path) - 1:
        raise ValueError(
            f"weights must hold a positive share for each of the {len(path) - 1} segments; "
            f"got {weights.tolist()}."
        )
    refuse_no_shares(weights)
    refuse_no_whole(1, steps=steps)
    refuse_no_rate(learning_rate)
    refuse_no_momentum(momentum)
    refuse_no_number(weight_decay=weight_decay)
    if spring_constant is not None:
        refuse_no_number(spring_constant=spring_constant)


def check_shapes(path: Tensor, losses: Tensor, grads: Tensor) -> None:
    """Refuse a loss_and_grad that returns something else than it must."""
    inner = (len(path) - 2, path.shape[1])
    if losses.shape != (len(path),) or grads.shape != inner:
        raise ValueError(
            f"loss_and_grad must return the losses of all pivots, shape ({len(path)},), and the "
            f"gradients of the interior ones, shape {inner}; got {tuple(losses.shape)} and "
            f"{tuple(grads.shape)}."
        )


def is_trapped(
    path: Tensor, losses: Tensor, grads: Tensor, tangent: str, project_gradient: bool
) -> bool:
    """Whether a band that has a hill to leave feels no force at all."""
    higher = losses[1:-1].max() > torch.maximum(losses[0], losses[-1])
    most, least = grads.abs().amax(), losses.new_zeros(())
    for i, grad in enumerate(grads.split(1)):
        near = slice(i, i + 3)
        if project_gradient:
            grad = project(grad, tangents(path[near], losses[near], tangent))
        least = torch.maximum(least, grad.abs().amax())
    still = least <= torch.finfo(grads.dtype).eps ** 0.5 * most
    if not bool(higher & still):
        return False
    warnings.warn(
        "the band feels no force although its middle is higher than its ends: its start is "
        "symmetric, or already a best path. Add a little noise to the interior pivots to tell.",
        NoEffectWarning,
        stacklevel=3,
    )
    return True


def first_bad(losses: Tensor, path: Tensor) -> tuple[int, int] | None:
    """Find the first step and pivot whose loss, or at last whose position, is not finite."""
    if bool(torch.isfinite(losses).all() & torch.isfinite(path).all()):
        return None
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        return int(bad[0, 0]), int(bad[0, 1])
    return len(losses) - 1, int((~torch.isfinite(path)).any(dim=1).nonzero()[0])


def from_potential(value: Callable[[Tensor], Tensor]) -> LossAndGrad:
    """Make the ``loss_and_grad`` of :func:`relax` from a function of points.

    Args:
        value: From points ``(points, params)`` to one loss each, ``(points,)``.

    Returns:
        A function from pivots to the losses of all and the gradients of the interior ones.
    """

    def loss_and_grad(path: Tensor) -> tuple[Tensor, Tensor]:
        inner = path[1:-1].detach().requires_grad_()
        losses = value(inner)
        (grads,) = torch.autograd.grad(losses.sum(), inner)
        with torch.no_grad():
            ends = value(path[[0, -1]])
        return torch.cat([ends[:1], losses.detach(), ends[1:]]), grads

    return loss_and_grad
