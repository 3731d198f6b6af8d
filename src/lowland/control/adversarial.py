"""Adversarial training by the maximum principle: the adversary acts on the first layer only."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from lowland.errors import UnsupportedModelError
from lowland.training import checked_losses, kept_mode
from lowland.training.evaluate import LossFn

__all__ = ["pgd_perturbation", "yopo_step"]


def pgd_perturbation(
    model: nn.Module,
    loss_fn: LossFn,
    inputs: Float[Tensor, "batch ..."],
    target: Any,
    *,
    eps: float,
    step_size: float,
    steps: int,
    bounds: tuple[float, float] | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, "batch ..."]:
    """Look for the perturbation of the inputs that raises the loss most, by signs of gradients.

    The model is attacked in eval mode, as it will be used, and comes back as it was.

    Args:
        model: Any module of one input tensor.
        loss_fn: Returns one loss per example, shape ``(batch,)``.
        inputs: Unperturbed.
        target: What the loss compares the output with.
        eps: Largest change of one input number, in units of the inputs.
        step_size: Change of one number per step.
        steps: Number of steps.
        bounds: Interval that inputs lie in and perturbed ones stay in, for instance ``(0, 1)`` for
            pixels.
        generator: Draws the start, uniform in ``±eps``; None starts at the inputs.

    Returns:
        What to add to the inputs.

    Raises:
        ValueError: If a number is out of range, or the inputs have no gradient or leave the bounds.
        UnsupportedModelError: If the loss has no graph.

    Source:
        Madry et al., ICLR 2018, Section 2.1.
    """
    check_attack(inputs, eps, step_size, bounds, steps=steps)
    eta = start(inputs, eps, bounds, generator)
    with kept_mode(model):
        model.eval()
        for _ in range(steps):
            eta.requires_grad_()
            losses = checked_losses(loss_fn, model(inputs + eta), target)
            check_graph(losses)
            (slope,) = torch.autograd.grad(losses.sum(), eta)
            eta = moved(eta.detach(), slope, inputs, eps, step_size, bounds)
    return eta


def yopo_step(
    first: nn.Module,
    rest: nn.Module,
    loss_fn: LossFn,
    inputs: Float[Tensor, "batch ..."],
    target: Any,
    *,
    eps: float,
    step_size: float,
    full_steps: int,
    inner_steps: int,
    bounds: tuple[float, float] | None = None,
    generator: Generator | None = None,
) -> tuple[Float[Tensor, "batch ..."], Float[Tensor, ""]]:
    r"""Add to ``.grad`` the gradient of YOPO-m-n, at the price of m forward and backward passes.

    The perturbation :math:`\eta` enters the Hamiltonian of the first layer only,
    :math:`H_0 = p_1 \cdot f_0(x + \eta)`. So each of the ``full_steps`` (m) passes through the
    model gives a costate :math:`p_1`, which then stays fixed for ``inner_steps`` (n) updates
    :math:`\eta \leftarrow \eta - a\, \mathrm{sign}\, \nabla_\eta H_0` through the first layer
    alone: downhill, as the adversary raises the loss and :math:`p = -\partial J / \partial x`.
    The same m passes give the gradient of the weights, at the :math:`\eta` each of them began with.
    Follow it by the step of any optimizer. Running statistics see all m passes.

    Args:
        first: The first layer: of a sequential model ``model[:1]``, or ``[:2]`` if it flattens.
        rest: All others; the model is ``rest(first(inputs))``.
        loss_fn: Returns one loss per example, shape ``(batch,)``.
        inputs: Unperturbed.
        target: What the loss compares the output with.
        eps: See :func:`pgd_perturbation`.
        step_size: Change of one number per inner step.
        full_steps: m; 5 in the paper with n = 3, or 3 with n = 5.
        inner_steps: n; with n = 1 this is PGD with m steps, for the price of its attack.
        bounds: Interval that inputs lie in and perturbed ones stay in.
        generator: Draws the start as in the paper, uniform in ``±eps``; None starts at the inputs.

    Returns:
        The last perturbation, and the loss: its mean over examples and the m passes.

    Raises:
        ValueError: If a number is out of range, or the inputs have no gradient or leave the bounds.
        UnsupportedModelError: If the loss has no graph.

    Source:
        Zhang et al., NeurIPS 2019, Algorithm 1; but the mean over the m passes, not their sum.
    """
    check_attack(inputs, eps, step_size, bounds, full_steps=full_steps, inner_steps=inner_steps)
    eta = start(inputs, eps, bounds, generator)
    total = torch.zeros((), device=inputs.device)
    for _ in range(full_steps):
        state, costate = first(inputs + eta), []
        if not state.requires_grad:  # the first layer is frozen
            state.requires_grad_()
        state.register_hook(costate.append)
        losses = checked_losses(loss_fn, rest(state), target)
        check_graph(losses)
        loss = losses.mean() / full_steps
        loss.backward()
        total = total + loss.detach()
        for _ in range(inner_steps):
            eta.requires_grad_()
            hamiltonian = (-costate[0] * first(inputs + eta)).sum()  # the hook gives dJ/dx_1
            (slope,) = torch.autograd.grad(hamiltonian, eta)
            eta = moved(eta.detach(), -slope, inputs, eps, step_size, bounds)
    return eta, total


def check_attack(inputs: Tensor, eps: float, step_size: float, bounds: Any, **counts: int) -> None:
    """Refuse inputs without a gradient or out of bounds, and numbers out of range."""
    if not inputs.is_floating_point():
        raise ValueError(
            f"inputs must be floating-point numbers; got {inputs.dtype}. Scale images to 0..1."
        )
    if not (eps > 0 and step_size > 0):
        raise ValueError(f"eps and step_size must be positive; got {eps} and {step_size}.")
    for name, count in counts.items():
        if not (count >= 1 and count % 1 == 0):
            raise ValueError(f"{name} must be a whole number, at least 1; got {count}.")
    if bounds is not None and not ((inputs >= bounds[0]) & (inputs <= bounds[1])).all():
        raise ValueError(
            f"inputs must lie in bounds, {tuple(bounds)}; got numbers from {inputs.min():.6g} to "
            f"{inputs.max():.6g}. Clamp them, or give the bounds of the scaled inputs."
        )


def check_graph(losses: Tensor) -> None:
    """Refuse losses that know nothing of the inputs."""
    if not losses.requires_grad:
        raise UnsupportedModelError(
            "the loss must be differentiable in the inputs; it has no graph. Return scores, not "
            "classes, and do not detach them."
        )


def start(inputs: Tensor, eps: float, bounds: Any, generator: Generator | None) -> Tensor:
    """Begin at the inputs or at random, within reach and bounds."""
    eta = torch.zeros_like(inputs)
    if generator is not None:
        eta.uniform_(-eps, eps, generator=generator)
    return moved(eta, torch.zeros_like(eta), inputs, eps, 0.0, bounds)


def moved(
    eta: Tensor, slope: Tensor, inputs: Tensor, eps: float, step_size: float, bounds: Any
) -> Tensor:
    """Go a step along the signs of a slope, within reach and bounds."""
    eta = (eta + step_size * slope.sign()).clamp(-eps, eps)
    return eta if bounds is None else (inputs + eta).clamp(*bounds) - inputs
