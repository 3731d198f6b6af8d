"""Train a model under the two-time microscope: weights, losses, gradient noise and clones."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lowland.dynamics.clock import brief, log_times, whole
from lowland.dynamics.clones import check_count
from lowland.dynamics.measure_result import Dynamics
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.watch import Watch
from lowland.results import Status
from lowland.training import Progress, check_batches, choose_device, is_main_process, train
from lowland.training.evaluate import LossFn

__all__ = ["measure_dynamics"]

LOSSES = 100  # of the published scripts


def measure_dynamics(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    steps: int,
    optimizer: Callable[..., Optimizer] | None = None,
    waits: Iterable[int] | None = None,
    lags: Iterable[int] | None = None,
    loss_times: Iterable[int] | None = None,
    loss_batches: Iterable[Any] | None = None,
    noise_times: Iterable[int] | None = None,
    noise_batches: int = 20,
    sharpness_times: Iterable[int] = (),
    clone_times: Iterable[int] = (),
    clone_lags: Iterable[int] | None = None,
    replicas: int = 2,
    test_batches: Iterable[Any] | None = None,
    recorder: dict[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None | Progress = False,
    **training: Any,
) -> Dynamics:
    """Train a model in place, and record how it moves; the weights are those of training alone.

    Measuring draws nothing from the generators that training uses, and changes nothing: with and
    without it, training ends with the same bits. With ``out`` the same call after a kill goes on
    where it was last saved. Where the noise or a clone is not finite, training goes on, and the
    status says so at the end.

    Args:
        model: Any module.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``.
        steps: Number of updates.
        optimizer: Makes the optimizer; plain SGD at 0.1, as the theory has it.
        waits: Waiting times, in completed updates; None plans 50 waits and 100 lags.
        lags: Lags; together with ``waits``.
        loss_times: When to measure the training loss; None takes 100 logarithmic times.
        loss_batches: On what; None takes ``batches``.
        noise_times: When to measure the gradient noise; None takes the waiting times.
        noise_batches: Batches for that; 0 measures none.
        sharpness_times: When to find the largest eigenvalue of the Hessian, on ``loss_batches``:
            10 to 160 products over all of them.
        clone_times: Waiting times at which replicas are forked.
        clone_lags: Lags at which these are compared; None takes ``lags``.
        replicas: Number of replicas.
        test_batches: Data for the test error at the end.
        recorder: Further arguments of :class:`TwoTimeRecorder`.
        device: Where to move the model to; None leaves it.
        seed: Seed of training and of what is measured.
        out: Folder for the state to resume from and the result.
        progress: See :func:`lowland.training.open_progress`.
        **training: Further arguments of :func:`lowland.training.train`.

    Returns:
        What was seen.

    Raises:
        ValueError: If an argument is not what it must be.

    Source:
        Baity-Jesi et al., ICML 2018; specification, section 3.
    """
    lags = None if lags is None else list(lags)
    if noise_batches < 0 or noise_batches == 1:
        raise ValueError(f"noise_batches must be 0 or at least 2; got {noise_batches}.")
    if steps < 1 or steps != int(steps):
        raise ValueError(f"steps must be a whole number, at least 1; got {steps}.")
    loss_times = log_times(1, steps, LOSSES) if loss_times is None else loss_times
    loss_times = inside(loss_times, steps, "loss_times")
    clone_times = inside(clone_times, steps, "clone_times")
    sharpness_times = inside(sharpness_times, steps, "sharpness_times")
    if noise_times is not None:
        noise_times = inside(noise_times, steps, "noise_times")
    if clone_lags is not None:
        clone_lags = whole(clone_lags, "clone_lags")
    elif lags is not None:
        clone_lags = lags
    else:
        clone_lags = log_times(1, max(1, steps // 2), 20)
    if clone_times:
        check_count(replicas)
    if loss_batches is not None:
        check_batches(loss_batches, "loss_batches")
    if device is not None:
        model.to(choose_device(device))
    grid: dict[str, Any] = {"total": steps, "seed": seed}
    if waits is not None or lags is not None:
        grid |= {"waits": waits, "lags": lags}
    seen = TwoTimeRecorder(model, **grid | (recorder or {}))
    made: list[Optimizer] = []

    def make(params: Any) -> Optimizer:
        made.append((optimizer or (lambda p: torch.optim.SGD(p, lr=0.1)))(params))
        return made[0]

    watch = Watch(
        model,
        loss_fn,
        batches,
        seen,
        made,
        loss_times=loss_times,
        loss_batches=batches if loss_batches is None else loss_batches,
        noise_times=seen.clock.waits if noise_times is None else noise_times,
        noise_batches=noise_batches,
        sharpness_times=sharpness_times,
        clone_times=clone_times,
        clone_lags=clone_lags,
        replicas=replicas,
        seed=seed,
    )
    trained = train(
        model, loss_fn, batches, steps=steps, optimizer=make, observer=watch, seed=seed, out=out,
        progress=progress, test_batches=test_batches, **training,
    )  # fmt: skip
    two_time = seen.result()
    status, message = trained.status, trained.message
    if status is Status.FINISHED and two_time.diverged_at is not None:
        status = Status.NOT_FINITE
        message = f"a weight was not finite at update {two_time.diverged_at}."
    if status is Status.FINISHED and watch.broken:
        status, message = Status.NOT_FINITE, watch.broken
    found = Dynamics(
        status, message, two_time, watch.losses, watch.noise, watch.clones,
        type(made[0]).__name__, type(made[0]) is torch.optim.SGD, trained.steps,
        trained.seconds, trained, watch.sharpness,
    )  # fmt: skip
    if out is not None and status is not Status.INTERRUPTED and is_main_process():
        found.save(out)
    return found


def inside(times: Iterable[int], steps: int, name: str) -> list[int]:
    """Times of the run; refuse those at which it is not."""
    found = list(times)
    if any(not (0 <= time <= steps and time == int(time)) for time in found):
        raise ValueError(
            f"{name} must be whole numbers of updates, 0 to {steps}, the last; got {brief(found)}."
        )
    return found
