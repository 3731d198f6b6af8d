"""Fit a curve: move its bends down the mean loss along it, one random point per step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.bends import known_kind
from lowland.connectivity.checks import (
    refuse_no_momentum,
    refuse_no_number,
    refuse_no_rate,
    refuse_no_whole,
)
from lowland.training import as_pair, batch_count, check_not_empty, to_device
from lowland.training.seeds import rng_states, set_rng_states

__all__ = ["Descent", "Fit", "bend_gradients", "fit_step", "rest_of_pass"]

# Losses stay on the device; every so many steps the host looks, and saves.
STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
class Descent:
    """How the bends of a curve go down.

    Attributes:
        kind: ``"bezier"`` or ``"polychain"``.
        bends: Control points between the ends.
        steps: SGD steps; none leaves the straight line.
        learning_rate: Of the first half of the steps; it falls on a line to a hundredth at nine
            tenths of them, and stays there.
        momentum: Of SGD, without dampening.
        weight_decay: Times half the squared norm of the *interpolated* weights is added to the
            loss; reported losses leave it out.
    """

    kind: str
    bends: int
    steps: int
    learning_rate: float
    momentum: float
    weight_decay: float

    def __post_init__(self):
        known_kind(self.kind)
        refuse_no_whole(1, bends=self.bends)
        refuse_no_whole(0, steps=self.steps)
        refuse_no_rate(self.learning_rate)
        refuse_no_momentum(self.momentum)
        refuse_no_number(weight_decay=self.weight_decay)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        fall = min(max(step / self.steps - 0.5, 0.0) / 0.4, 1.0)
        return self.learning_rate * (1 - 0.99 * fall)


@dataclass
class Fit:
    """A curve between two steps.

    Attributes:
        control: Control points, both ends included, shape ``(control, params)``.
        velocity: Momentum of the bends, shape ``(control - 2, params)``.
        good: The control points at the last check.
        perturbed: Whether noise had to free the bends from a symmetric start.
        step: Steps done.
        good_step: Steps at the last check.
        epoch: Passes over the batches done.
        batch: Batches of this pass read.
        seconds: Wall time of earlier calls.
        window: Losses since the last check, unread.
        rng: States of the global generators, in a fit that was read from disk.
        point: Room for a point of the curve.
    """

    control: Float[Tensor, "control params"]
    velocity: Float[Tensor, "bends params"]
    good: Float[Tensor, "control params"]
    perturbed: bool = False
    step: int = 0
    good_step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    window: list[Tensor] = field(default_factory=list)
    rng: dict[str, Any] = field(default_factory=dict)
    point: Float[Tensor, " params"] = field(init=False)

    def __post_init__(self):
        self.point = torch.empty_like(self.control[0])

    @classmethod
    def begin(cls, control: Float[Tensor, "control params"], *, perturbed: bool = False) -> "Fit":
        """Start at some control points, at rest."""
        return cls(control.clone(), torch.zeros_like(control[1:-1]), control.clone(), perturbed)

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "Fit":
        """Go on from what :meth:`state` gave."""
        moved = {name: state[name].to(device) for name in ("control", "velocity", "good")}
        return cls(**state | moved)

    def state(self) -> dict[str, Any]:
        """What the next step needs, as tensors and plain values; right after a check."""
        kept = {name: value for name, value in vars(self).items() if name != "point"}
        return kept | {"rng": rng_states()}

    def first_bad_step(self) -> int | None:
        """Read the losses since the last check; None if all is finite."""
        first = self.step - len(self.window)
        losses = torch.stack(self.window) if self.window else self.control.new_zeros(1)
        self.window = []
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            return first + int(bad[0])
        sound = torch.stack([torch.isfinite(row).all() for row in self.control])
        return None if bool(sound.all()) else self.step - 1


def fit_step(
    fit: Fit,
    shares: Float[Tensor, " control"],
    loss_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]],
    descent: Descent,
) -> None:
    """Move the bends once, by the gradient at one point of the curve.

    The same as :func:`bend_gradients` and a step of SGD, without fresh memory: on a CPU that costs
    more than the arithmetic.

    Args:
        fit: Changed in place; the ends stay bit for bit.
        shares: Share of each control point in that point.
        loss_and_grad: From a point ``(params,)`` to its loss and gradient; the gradient is written
            over, the point is when the next step begins.
        descent: How.
    """
    torch.mv(fit.control.T, shares, out=fit.point)
    loss, grad = loss_and_grad(fit.point)
    fit.window.append(loss)
    if descent.weight_decay:
        grad.add_(fit.point, alpha=descent.weight_decay)
    fit.velocity.addr_(shares[1:-1], grad, beta=descent.momentum)
    fit.control[1:-1].sub_(fit.velocity, alpha=descent.rate(fit.step))
    fit.step += 1


def bend_gradients(
    control: Float[Tensor, "control params"],
    shares: Float[Tensor, " control"],
    loss_and_grad: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    weight_decay: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, "bends params"]]:
    r"""Give the loss at a point of a curve, and its gradient with respect to the bends.

    The point :math:`\theta = \sum_k w_k c_k` is linear in the control points, so that
    :math:`\partial L / \partial c_k = w_k (\nabla L(\theta) + \lambda \theta)`.

    Args:
        control: Control points :math:`c_k`, both ends included.
        shares: Weights :math:`w_k` of the point, from
            :func:`lowland.connectivity.curve_weights`.
        loss_and_grad: From a point ``(params,)`` to its loss and gradient.
        weight_decay: The :math:`\lambda` of :math:`\tfrac{\lambda}{2} \|\theta\|^2`, which the
            loss leaves out.

    Returns:
        The loss, and the gradients of the control points between the ends.

    Source:
        Garipov et al., NeurIPS 2018, section 3 (the estimate with t uniform in 0 to 1).
    """
    shares = shares.to(control)
    point = shares @ control
    loss, grad = loss_and_grad(point)
    if weight_decay:
        grad = grad.add(point, alpha=weight_decay)
    return loss, torch.outer(shares[1:-1], grad)


def rest_of_pass(fit: Fit, batches: Any, device: torch.device) -> Iterator[tuple[Any, Any]]:
    """Go through what is left of a pass over the batches, without the smaller one at its end.

    After a resume the batches taken before are read again, and then the generators are put where
    they were.

    Args:
        fit: Its count of batches is kept up.
        batches: Re-iterable of inputs and targets.
        device: Where to.

    Yields:
        Batches on the device.

    Raises:
        ValueError: If the pass is empty.
    """
    full, taken, read = 0, fit.batch, 0
    stream = iter(batches)
    for batch in stream:
        inputs, target = as_pair(batch)
        full, read = max(full, batch_count(target)), read + 1
        if read <= taken:
            if read == taken:
                set_rng_states(fit.rng)
            continue
        fit.batch = read
        if batch_count(target) == full:
            yield to_device((inputs, target), device)
    check_not_empty(read)
