"""The nudged elastic band: slide a whole path downhill without letting it fall off its saddle."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lowland.connectivity.path import redistribute, segment_lengths
from lowland.errors import NoEffectWarning
from lowland.results import Status

__all__ = ["Relaxed", "from_potential", "project", "relax", "tangents"]

LossAndGrad = Callable[[Tensor], tuple[Tensor, Tensor]]

# Losses stay on the device; every so many steps the host looks whether they are still finite.
STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
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
        tangent: ``"paper"``, ``"improved"`` or ``"official"``, see :func:`tangents`.
        project_gradient: False gives the plain string method, for comparison.
        spring_constant: Stiffness in units of loss per squared distance; None redistributes.
        climb: Let the highest interior pivot climb along the path to the saddle, without springs
            on it; needs a spring constant.
        on_step: Called after every step, for progress.

    Returns:
        The relaxed band. The path given is not changed.

    Raises:
        ValueError: If an argument is out of its range, or ``loss_and_grad`` returns other shapes.

    Warns:
        NoEffectWarning: If the start is trapped by a symmetry.

    Source:
        Draxler et al., ICML 2018, Algorithm 1, Eq. E3 to E7 and E10 of the specification; the
        climbing pivot is Henkelman, Uberuaga and Jonsson, J. Chem. Phys. 113, 9901 (2000).
    """
    check_arguments(path, weights, steps, learning_rate, momentum, weight_decay)
    if climb and spring_constant is None:
        raise ValueError(
            "climb=True needs a spring_constant: redistribution would move the climbing pivot back."
        )
    path = path.clone()
    good, checked = path.clone(), 0
    velocity = torch.zeros_like(path[1:-1])
    history = path.new_zeros(steps, len(path))
    force, trapped = None, False
    for step in range(steps):
        if spring_constant is None:
            path = redistribute(path, weights)
        losses, grads = loss_and_grad(path)
        if step == 0:
            check_shapes(path, losses, grads)
        history[step] = losses
        if weight_decay:
            grads = grads.add(path[1:-1], alpha=weight_decay)
        along = tangents(path, losses, tangent)
        downhill = project(grads, along) if project_gradient else grads
        if step == 0:
            trapped = is_trapped(losses, downhill, grads)
        if spring_constant is not None:
            distances = segment_lengths(path).to(path.dtype)
            pull = spring_constant * (distances[1:] - distances[:-1])
            if climb:
                top = losses[1:-1].argmax()
                downhill[top] -= (grads[top] @ along[top]) * along[top]
                pull[top] = 0
            downhill = downhill - pull.unsqueeze(1) * along
        if step == steps - 1:
            force = torch.linalg.vector_norm(downhill, dim=1)
        velocity.mul_(momentum).add_(downhill)
        checks = (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step == steps - 1
        before = path.clone() if checks else path
        path[1:-1].sub_(velocity, alpha=learning_rate)
        if checks:
            bad = first_bad(history[checked : step + 1], path)
            if bad is not None:
                step, pivot = checked + bad[0], bad[1]
                last = history[max(checked - 1, 0)]
                seen = history[: step + 1]
                return Relaxed(good, last, None, seen, Status.NOT_FINITE, step, pivot, trapped)
            good, checked = before, step + 1
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
) -> None:
    """Refuse what the band cannot be relaxed with."""
    if path.ndim != 2 or len(path) < 3:
        raise ValueError(
            "path must hold at least one pivot between its two ends, shape (pivots >= 3, params); "
            f"got shape {tuple(path.shape)}. Insert pivots first, for instance with insert_equal."
        )
    if weights.shape != (len(path) - 1,) or not bool((weights > 0).all()):
        raise ValueError(
            f"weights must hold a positive share for each of the {len(path) - 1} segments; "
            f"got {weights.tolist()}."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}.")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive; got {learning_rate}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1); got {momentum}.")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be zero or more; got {weight_decay}.")


def check_shapes(path: Tensor, losses: Tensor, grads: Tensor) -> None:
    """Refuse a loss_and_grad that returns something else than it must."""
    inner = (len(path) - 2, path.shape[1])
    if losses.shape != (len(path),) or grads.shape != inner:
        raise ValueError(
            f"loss_and_grad must return the losses of all pivots, shape ({len(path)},), and the "
            f"gradients of the interior ones, shape {inner}; got {tuple(losses.shape)} and "
            f"{tuple(grads.shape)}."
        )


def is_trapped(losses: Tensor, downhill: Tensor, grads: Tensor) -> bool:
    """Whether a band that has a hill to leave feels no force at all."""
    higher = losses[1:-1].max() > torch.maximum(losses[0], losses[-1])
    small = torch.finfo(grads.dtype).eps ** 0.5
    still = downhill.abs().max() <= small * grads.abs().max()
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


def tangents(
    path: Float[Tensor, "pivots params"], losses: Float[Tensor, " pivots"], kind: str = "paper"
) -> Float[Tensor, "interior params"]:
    r"""Direction of the path at each interior pivot, as unit vectors.

    ``"paper"`` looks to the higher neighbor (Eq. E5). ``"improved"`` does so on slopes and, where
    the pivot is a maximum or minimum, mixes both differences with the larger weight on the
    higher neighbor (Eq. E6). ``"official"`` is the published code: there it mixes *normalized*
    differences with the larger weight on the *lower* neighbor; it does not converge on
    Mueller-Brown and is here for comparison.

    Args:
        path: Pivots, ends included.
        losses: Loss at each of them.
        kind: One of the three names.

    Returns:
        Unit vectors; zero where a pivot coincides with the neighbor it looks to.

    Raises:
        ValueError: If the kind is unknown.

    Source:
        Draxler et al., ICML 2018; Henkelman and Jonsson, J. Chem. Phys. 113, 9978 (2000).
    """
    differences = path[1:] - path[:-1]
    ahead, behind = differences[1:], differences[:-1]
    rising = losses[2:] > losses[:-2]
    if kind == "paper":  # a choice of rows is faster than torch.where
        higher = torch.arange(len(rising), device=path.device) + rising
        return normalize(differences.index_select(0, higher))
    if kind not in ("improved", "official"):
        raise ValueError(f"tangent must be 'paper', 'improved' or 'official'; got {kind!r}.")
    up, down = losses[2:] - losses[1:-1], losses[1:-1] - losses[:-2]
    slope = ((up > 0) & (down > 0)) | ((up < 0) & (down < 0))
    larger, smaller = torch.maximum(up.abs(), down.abs()), torch.minimum(up.abs(), down.abs())
    if kind == "official":
        larger, smaller = smaller, larger
        ahead, behind = normalize(ahead), normalize(behind)
    mixed = mix(ahead, behind, larger, smaller, rising)
    flat = (up == 0) & (down == 0)
    even = normalize(ahead) + normalize(behind)
    mixed = torch.where(flat.unsqueeze(1), even, mixed)
    sloped = torch.where(rising.unsqueeze(1), ahead, behind)
    return normalize(torch.where(slope.unsqueeze(1), sloped, mixed))


def mix(
    ahead: Float[Tensor, "interior params"],
    behind: Float[Tensor, "interior params"],
    larger: Float[Tensor, " interior"],
    smaller: Float[Tensor, " interior"],
    rising: Bool[Tensor, " interior"],
) -> Float[Tensor, "interior params"]:
    """Blend both differences, ``larger`` belonging to the higher neighbor."""
    to_ahead = torch.where(rising, larger, smaller).unsqueeze(1)
    to_behind = torch.where(rising, smaller, larger).unsqueeze(1)
    return to_ahead * ahead + to_behind * behind


def normalize(vectors: Float[Tensor, "rows params"]) -> Float[Tensor, "rows params"]:
    """Give vectors unit length; a zero vector stays zero."""
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / norm.clamp_min(torch.finfo(vectors.dtype).tiny)


def project(
    grads: Float[Tensor, "interior params"], along: Float[Tensor, "interior params"]
) -> Float[Tensor, "interior params"]:
    r"""Remove from each gradient its part along the path, :math:`g - (g \cdot \tau) \tau`.

    Args:
        grads: Gradients of the interior pivots.
        along: Unit tangents.

    Returns:
        The part across the path; the force is its negative (Eq. E3).
    """
    return torch.addcmul(grads, (grads * along).sum(1, keepdim=True), along, value=-1)


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
