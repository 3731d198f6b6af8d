"""Train modules and heads by gradients, in one process or several, or let an oracle fit them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland.boosting.feature_set import Features
from lowland.boosting.generalization import l1_norms, project_model_l1_
from lowland.boosting.gradient_free import fit_head, fitted_block, functional_gradient
from lowland.boosting.local import Local, Module, evaluated, local_loss
from lowland.results import Status
from lowland.training import (
    Log,
    Progress,
    TrainResult,
    all_sum,
    length_of,
    rank_and_world,
    recalibrate,
    train,
)
from lowland.training.together import sum_of_all

__all__ = [
    "Plan",
    "average_buffers",
    "check_equal_batches",
    "fit",
    "is_fitted",
    "joint_optimizer",
    "share",
    "train_local",
]


@dataclass(frozen=True)
class Plan:
    """What every round is asked to do; the arguments of ``train_boosted``."""

    objective: str
    alpha: str
    stop: str | Callable[[list[dict[str, Any]]], bool]
    epochs: int
    check_every: int
    gamma_threshold: float
    optimizer: Callable[..., Optimizer]
    rate_schedule: Callable[[Optimizer], Any] | None
    batch_size: int
    transport: float | None
    l1: float | None
    oracle: Callable[..., Any] | None
    recalibrate: bool
    precision: str
    seed: int
    save_every: float
    log: Log | None = None

    @property
    def loss_fn(self) -> Callable[[Any, Any], Tensor]:
        """The objective, with the transport regularizer if there is one."""
        return local_loss(self.objective, self.transport)


def train_local(
    local: Local,
    batches: Any,
    plan: Plan,
    folder: Path | None,
    display: Progress | bool,
    look: Callable[[nn.Module], dict[str, Any]] | None = None,
    enough: Callable[[list[dict[str, Any]]], bool] | None = None,
    max_steps_now: int | None = None,
) -> TrainResult:
    """Train heads and modules by gradients; in several processes by the mean of all gradients."""
    check_equal_batches(batches)
    trained = train(
        local,
        plan.loss_fn,
        batches,
        epochs=plan.epochs,
        optimizer=joint_optimizer(plan.optimizer, local, plan.l1),
        schedule=plan.rate_schedule,
        seed=plan.seed,
        precision=plan.precision,
        out=folder,
        save_every=plan.save_every,
        evaluate_every=plan.check_every,
        measure=look,
        until=None if enough is None else agreed(enough),
        progress=display,
        log=plan.log,
        max_steps_now=max_steps_now,
    )
    average_buffers(local)
    if plan.recalibrate and trained.status is Status.FINISHED:
        recalibrate(local, batches, examples=10**9)
        average_buffers(local)
    return trained


def joint_optimizer(
    make: Callable[..., Optimizer], model: nn.Module, radius: float | None = None
) -> Callable[..., Optimizer]:
    """Let an optimizer use the mean gradient of all processes, and keep weights small."""
    if radius is not None:
        l1_norms(model)  # refuses weights that cannot be held

    def optimizer(params: list[nn.Parameter]) -> Optimizer:
        made = make(params)
        if rank_and_world()[1] > 1:
            made.register_step_pre_hook(lambda *_: average_gradients(params))
            setattr(made, "shares_gradients", True)  # noqa: B010, for the learning curve
        if radius is not None:
            hold = partial(project_model_l1_, model, radius)
            made.register_step_post_hook(lambda *_: hold())
        return made

    return optimizer


def agreed(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Let all processes stop where one wants to: what each has seen is different."""
    return lambda rows: sum_of_all([float(bool(rule(rows)))])[0] > 0


def is_fitted(module: Module) -> bool:
    """Whether a module is a block that is fitted without gradients."""
    return len(module.parts) == 1 and fitted_block(module.parts[0]) is not None


def fit(
    module: Module,
    head: nn.Module,
    previous: nn.Module | None,
    alpha: float,
    data: Features,
    oracle: Callable[..., Any] | None,
) -> None:
    """Let an oracle fit a module and its head in place, on the whole training set at once.

    A head that is to say where the features of a block without gradient should move is fitted to
    them first.
    """
    chunks = list(data.chunks())
    values = tuple(map(torch.cat, zip(*(values for values, _, _ in chunks), strict=True)))
    target = torch.cat([target for _, target, _ in chunks])
    known = [weights for _, _, weights in chunks if weights is not None]
    before = None
    if previous is not None:
        with evaluated(previous):
            before = previous(*values).softmax(1)
    if oracle is not None:
        oracle(values, target, before, alpha, module, head)
        return
    block = fitted_block(module.parts[0])
    if block is not None:  # as is_fitted has said
        weights = torch.cat(known) if known else None
        fit_head(head, values, target, weights=weights)
        functional_gradient(values, target, before, alpha, block, head, weights=weights)


def average_gradients(params: list[nn.Parameter]) -> None:
    """Take the mean of each gradient over all processes."""
    world = rank_and_world()[1]
    for parameter in params:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = all_sum(parameter.grad) / world


def average_buffers(module: nn.Module) -> None:
    """Let all processes agree on running statistics."""
    world = rank_and_world()[1]
    if world == 1:
        return
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(all_sum(buffer) / world)


def check_equal_batches(batches: Any) -> None:
    """Refuse processes that would wait for each other, on each of them."""
    rank, world = rank_and_world()
    if world == 1:
        return
    lengths = [0.0] * world
    lengths[rank] = -1 if (length := length_of(batches)) is None else length
    found = [int(number) for number in sum_of_all(lengths)]
    if len(set(found)) > 1 or found[0] < 0:
        raise ValueError(
            "every process must have the same number of batches; got "
            f"{', '.join('unknown' if number < 0 else str(number) for number in found)}. Use a "
            "DistributedSampler, or cut the rest off."
        )


@torch.no_grad()
def share(module: nn.Module) -> None:
    """Give all processes the weights of the first."""
    rank, world = rank_and_world()
    if world == 1:
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        value = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        tensor.copy_(all_sum(value if rank == 0 else torch.zeros_like(value)))
