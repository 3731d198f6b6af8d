"""One update of the weights, the losses so far, and the last weights known to be finite."""

from copy import deepcopy
from dataclasses import dataclass, field
from math import isfinite
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lowland.params import call
from lowland.results import Status
from lowland.training.device import autocast
from lowland.training.evaluate import LossFn, as_pair, checked_losses, device_of
from lowland.training.nested import batch_count, to_device
from lowland.training.ranks import rank_and_world

__all__ = ["Run", "check_run", "run_state", "set_run_state", "take_step"]

FINAL = (Status.FINISHED, Status.NOT_FINITE)


@dataclass
class Run:
    """A training run between two updates.

    Attributes:
        model: The user's model.
        loss_fn: One loss per example.
        optimizer: Updates the model's parameters.
        schedule: Sets the learning rate after every update, or None.
        average: An ``AveragedModel``, or None.
        precision: Of the forward pass.
        sampling: Chooses the examples of every step, or None; see :func:`lowland.training.train`.
        observer: Looks at the model after every update, or None.
        step: Updates done.
        epoch: Whole epochs done.
        batch: Batches of this epoch read.
        window: Mean loss and number of examples of the steps since the last check, unread.
        loss_sum: Sum of the losses since the last row of the curve.
        loss_count: Number of their examples.
        curve: Rows of the learning curve.
        seconds: Wall time of earlier calls; of all calls when the run has ended.
        begun: When this call began.
        status: How it ended, None while it runs.
        message: The same in words.
        good: Copies of the weights at the last check, and their step.
        rng: States of the global generators, in a run that was resumed.
        saved: When the run was last saved, or began.
        is_saved: Whether this call has saved it.
    """

    model: nn.Module
    loss_fn: LossFn
    optimizer: Optimizer
    schedule: Any = None
    average: Any = None
    precision: str = "float32"
    sampling: Any = None
    observer: Any = None
    step: int = 0
    epoch: int = 0
    batch: int = 0
    window: list[tuple[Tensor, int]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_count: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    begun: float = field(default_factory=monotonic)
    status: Status | None = None
    message: str = ""
    good: tuple[int, list[dict[str, Any]]] = (0, [])
    rng: dict[str, Any] = field(default_factory=dict)
    saved: float = field(default_factory=monotonic)
    is_saved: bool = False

    def __post_init__(self):
        self.device = device_of(self.model)

    @property
    def elapsed(self) -> float:
        """Wall time over all calls, in seconds."""
        return self.seconds if self.status else self.seconds + monotonic() - self.begun

    @property
    def learning_rate(self) -> float | None:
        """Learning rate of the next update, of the first parameter group; None without one."""
        rate = self.optimizer.param_groups[0].get("lr")
        return None if rate is None else float(rate)

    @property
    def is_shared(self) -> bool:
        """Whether several processes make the same weights, each from batches of its own."""
        is_one = rank_and_world()[1] == 1
        averages = getattr(self.optimizer, "shares_gradients", False)
        return not is_one and (averages or isinstance(self.model, DistributedDataParallel))

    @property
    def modules(self) -> list[nn.Module]:
        """What holds weights: the model, and their average if there is one."""
        return [self.model] if self.average is None else [self.model, self.average]

    def end(self, status: Status, message: str) -> None:
        """Say how the run ended."""
        self.seconds, self.status, self.message = self.elapsed, status, message


def take_step(run: Run, batch: Any) -> None:
    """Update the weights once, without waiting for the device.

    Args:
        run: Changed in place.
        batch: ``(inputs, target)``.
    """
    inputs, target = (to_device(part, run.device) for part in as_pair(batch))
    with autocast(run.device, run.precision):
        loss = mean_loss(run, call(run.model, inputs), target)
    run.optimizer.zero_grad()
    loss.backward()
    run.optimizer.step()
    if run.schedule is not None:
        run.schedule.step()
    if run.average is not None:
        run.average.update_parameters(run.model)
    run.window.append((loss.detach(), batch_count(target)))
    run.step += 1
    if run.observer is not None:
        run.observer.record(run.step)


def mean_loss(run: Run, output: Any, target: Any) -> Tensor:
    """The mean loss of a batch, or the estimate of it that belongs to how the batch was chosen."""
    if run.sampling is not None:
        return run.sampling.loss(output, target)
    losses = checked_losses(run.loss_fn, output, target)
    return losses.mean(dtype=torch.promote_types(losses.dtype, torch.float32))


def check_run(run: Run) -> float | None:
    """Read the losses since the last check, and keep a copy of the weights if all is finite.

    Otherwise the run ends as ``NOT_FINITE``, with the weights of the copy before.

    Args:
        run: Changed in place.

    Returns:
        Mean loss since the last check; None if there was no step, or one was not finite.
    """
    if not run.window:
        return None
    first = run.step - len(run.window) + 1
    losses = torch.stack([loss for loss, _ in run.window]).tolist()
    counts = [count for _, count in run.window]
    run.window = []
    bad = next((index for index, loss in enumerate(losses) if not isfinite(loss)), None)
    if bad is not None:
        give_up(run, f"the loss of step {first + bad} is {losses[bad]}")
        return None
    name = broken_parameter(run.model)
    if name:
        give_up(run, f"parameter {name} is not finite after step {run.step}")
        return None
    keep_good(run)
    total = sum(loss * count for loss, count in zip(losses, counts, strict=True))
    for loss, count in zip(losses, counts, strict=True):  # one by one, wherever checks fall
        run.loss_sum += loss * count
        run.loss_count += count
    return total / sum(counts)


def broken_parameter(model: nn.Module) -> str | None:
    """Name the first parameter that is not finite, waiting for the device once."""
    named = [(name, value.isfinite().all()) for name, value in model.named_parameters()]
    if not named:
        return None
    is_finite = torch.stack([flag for _, flag in named]).tolist()
    return next((name for (name, _), ok in zip(named, is_finite, strict=True) if not ok), None)


def keep_good(run: Run) -> None:
    """Copy the weights, into the copies there are already."""
    if not run.good[1]:
        run.good = (run.step, [deepcopy(module.state_dict()) for module in run.modules])
        return
    for module, copy in zip(run.modules, run.good[1], strict=True):
        state = module.state_dict()
        for name, value in state.items():
            if isinstance(value, Tensor):
                copy[name].copy_(value)
            else:  # a module's extra state
                copy[name] = deepcopy(value)
    run.good = (run.step, run.good[1])


def give_up(run: Run, what: str) -> None:
    """End a run with the last good weights."""
    step, copies = run.good
    for module, copy in zip(run.modules, copies, strict=True):
        module.load_state_dict(copy)
    run.step = step
    run.end(
        Status.NOT_FINITE,
        f"{what}; the model is back at step {step}. Lower the learning rate, or look for a batch "
        "that is not finite.",
    )


def run_state(run: Run, rng: dict[str, Any]) -> dict[str, Any]:
    """Collect what a run needs to go on.

    Args:
        run: The run, checked.
        rng: States of the global generators.

    Returns:
        Tensors and plain values.
    """
    return {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": None if run.schedule is None else run.schedule.state_dict(),
        "average": None if run.average is None else run.average.state_dict(),
        "sampling": None if run.sampling is None else run.sampling.state_dict(),
        "observer": None if run.observer is None else run.observer.state_dict(),
        "rng": rng,
        "step": run.step,
        "epoch": run.epoch,
        "batch": run.batch,
        "loss_sum": run.loss_sum,
        "loss_count": run.loss_count,
        "curve": run.curve,
        "seconds": run.elapsed,
        "status": run.status.name if run.status in FINAL else None,
        "message": run.message,
    }


def set_run_state(run: Run, state: dict[str, Any]) -> None:
    """Put a run where a saved one was.

    Args:
        run: Changed in place.
        state: What :func:`run_state` returned.
    """
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.schedule is not None:
        run.schedule.load_state_dict(state["schedule"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    if run.sampling is not None:
        run.sampling.load_state_dict(state["sampling"])
    if run.observer is not None:
        run.observer.load_state_dict(state["observer"])
    for name in ("step", "epoch", "batch", "loss_sum", "loss_count", "curve", "rng", "message"):
        setattr(run, name, state[name])
    run.seconds, run.begun = state["seconds"], monotonic()
    run.status = None if state["status"] is None else Status[state["status"]]
