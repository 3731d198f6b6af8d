"""The descent of a curve on a real network: batches, saved states, Ctrl-C, and where it ended."""

from collections.abc import Callable
from functools import partial
from pathlib import Path as FilePath
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.connectivity.bends import curve_weights
from lowland.connectivity.fit import STEPS_BETWEEN_CHECKS, Descent, Fit, fit_step, rest_of_pass
from lowland.connectivity.quiet import quiet_vmap
from lowland.connectivity.stack import losses_and_grads
from lowland.connectivity.symmetry import with_noise
from lowland.connectivity.task import Task
from lowland.results import Status
from lowland.training import (
    broadcast,
    generator,
    interruptible,
    is_main_process,
    isolated_rng,
    mode,
)
from lowland.training.run_folder import load_run_state, save_run_state

__all__ = ["begin_or_resume", "descend"]


def begin_or_resume(
    task: Task, line: Float[Tensor, "control params"], folder: FilePath | None
) -> Fit:
    """Go on from the state on disk, or begin on the straight line.

    Args:
        task: The minima and the data.
        line: Control points on the straight line.
        folder: Where a state may lie.

    Returns:
        The fit.
    """
    state = load_run_state(folder) if folder is not None and is_main_process() else None
    state = broadcast(state)
    if state is not None:
        return Fit.from_state(state, line.device)
    trapped = is_trapped(task, line)
    if trapped:
        line = with_noise(line, generator(task.seed, "noise"))
    return Fit.begin(line, perturbed=trapped)


@quiet_vmap()
def is_trapped(task: Task, line: Float[Tensor, "control params"]) -> bool:
    """Whether no force leads aside from a straight line that has a hill: a symmetric start."""
    if not task.distance:
        return False
    along = (line[-1] - line[0]) / task.distance
    losses, forces, sideways = [], [], []
    with isolated_rng(task.seed, "symmetry"), mode(task.stack.model, norm_trains=True):
        for t in torch.arange(5, dtype=line.dtype, device=line.device) / 4:  # one after the other
            point = torch.lerp(line[0], line[-1], t)
            loss, (grad,) = losses_and_grads(task.stack, point.unsqueeze(0), *task.deciding[0])
            losses.append(loss[0])
            forces.append(grad.abs().max())
            sideways.append(grad.addcmul(grad @ along, along, value=-1).abs().max())
    higher = torch.stack(losses[1:-1]).max() > torch.maximum(losses[0], losses[-1])
    small = torch.finfo(line.dtype).eps ** 0.5
    return bool(higher & (torch.stack(sideways[1:-1]).max() <= small * torch.stack(forces).max()))


@quiet_vmap()
def descend(
    task: Task, descent: Descent, fit: Fit, folder: FilePath | None, bar: Any
) -> tuple[Status, str]:
    """Do the steps that are not done yet.

    Args:
        task: The minima and the data.
        descent: How.
        fit: Changed in place; after a divergence its control points are the last good ones.
        folder: Where the state goes every 50 steps.
        bar: Shows the steps.

    Returns:
        How the descent ended, and more about it, or nothing.
    """
    before, began = fit.seconds, perf_counter()
    shares = shares_of_steps(task, descent)

    def save() -> None:
        fit.seconds = before + perf_counter() - began
        if folder is not None and is_main_process():
            save_run_state(folder, fit.state())

    try:
        with interruptible() as interrupt, mode(task.stack.model, norm_trains=True):
            bad = None
            while fit.step < descent.steps and bad is None:
                bad = one_pass(task, descent, fit, shares, save, lambda: go_on(bar, interrupt))
    except KeyboardInterrupt:
        fit.seconds = before + perf_counter() - began
        return Status.INTERRUPTED, f"{fit.step} of {descent.steps} steps are done."
    if bad is None:
        return Status.FINISHED, ""
    fit.control, fit.step = fit.good, fit.good_step
    return Status.NOT_FINITE, (
        f"the loss was not finite at step {bad}; the last good curve is kept. Lower the learning "
        "rate."
    )


def go_on(bar: Any, interrupt: Any) -> bool:
    """Show a step; tell whether the user pressed Ctrl-C."""
    bar.advance()
    return interrupt.requested


def one_pass(
    task: Task,
    descent: Descent,
    fit: Fit,
    shares: Float[Tensor, "steps control"],
    save: Callable[[], None],
    on_step: Callable[[], bool],
) -> int | None:
    """Go once through the batches, or to the last step; give the first bad step, if any."""
    grad = torch.empty_like(fit.control[:1])
    with isolated_rng(task.seed, "curve", fit.epoch, batches=task.batches, epoch=fit.epoch):
        for batch in rest_of_pass(fit, task.batches, fit.control.device):
            fit_step(fit, shares[fit.step], partial(at_point, task, batch, grad), descent)
            is_last, is_to_stop = fit.step == descent.steps, on_step()
            is_to_check = is_last or fit.step % STEPS_BETWEEN_CHECKS == 0
            if is_to_check or is_to_stop:
                bad = fit.first_bad_step()
                if bad is not None:
                    return bad
                if is_to_check:  # not on Ctrl-C: what is good must not depend on the user
                    fit.good.copy_(fit.control)
                    fit.good_step = fit.step
                save()
            if is_last:
                return None
            if is_to_stop:
                raise KeyboardInterrupt
    fit.epoch, fit.batch = fit.epoch + 1, 0
    return None


def shares_of_steps(task: Task, descent: Descent) -> Float[Tensor, "steps control"]:
    """Draw a point of the curve for every step."""
    draws = generator(task.seed, "points of a curve")
    t = torch.rand(descent.steps, generator=draws, dtype=torch.float64)
    shares = curve_weights(descent.kind, t, descent.bends + 2)
    return shares.to(task.start)


def at_point(
    task: Task,
    batch: tuple[Any, Any],
    grad: Float[Tensor, "1 params"],
    point: Float[Tensor, " params"],
) -> tuple[Float[Tensor, ""], Float[Tensor, " params"]]:
    """Loss of one network on a batch, and its gradient, written into ``grad``."""
    losses, _ = losses_and_grads(task.stack, point.unsqueeze(0), *batch, out=grad)
    return losses[0], grad[0]
