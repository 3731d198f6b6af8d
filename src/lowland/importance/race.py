"""A fair race: several ways to choose examples, one problem, the same budget, the clocks honest."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lowland.importance.compare import ArmResult
from lowland.params import call
from lowland.results import Status
from lowland.training import (
    as_pair,
    autocast,
    check_not_empty,
    device_of,
    evaluate,
    isolated_rng,
    open_progress,
    tensors_in,
    to_device,
)
from lowland.training.seeds import rng_states, set_rng_states

__all__ = ["Arm", "race", "steps_down"]

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Arm:
    """One of the ways that race against each other.

    Attributes:
        name: What to call it.
        make: ``make(seed)`` gives the model, its optimizer and a sampling: an
            :class:`lowland.importance.ImportanceSampling`, or anything else with
            ``sampling(batches)`` and ``sampling.loss(output, target)``. The same seed must give the
            same first weights in every arm.
    """

    name: str
    make: Callable[[int], tuple[nn.Module, Optimizer, Any]]


def race(
    arms: Sequence[Arm],
    loss_fn: Callable[[Any, Any], torch.Tensor],
    batches: Callable[[int], Iterable[Any]],
    *,
    steps: int | None = None,
    cost: float | None = None,
    seconds: float | None = None,
    seed: int = 0,
    schedule: Schedule | None = None,
    evaluation_batches: Iterable[Any],
    test_batches: Iterable[Any] | None = None,
    evaluations: int = 10,
    slice_seconds: float = 0.25,
    warmup: int = 2,
    backward_cost: float = 2.0,
    gradient_clip: float | None = None,
    precision: str = "float32",
    progress: Any = False,
) -> list[ArmResult]:
    r"""Train every arm under one budget, in turns of a fraction of a second, and evaluate them.

    All arms run in this process and take turns, so that a machine that slows down slows all of
    them. Of every clock of seconds is left out: evaluation, and the first ``warmup`` steps of each
    kind (by the number of rows that pass the network with and without gradient), as they compile,
    tune kernels and allocate. These steps do train, and count in the other two clocks. The
    modelled cost counts rows that enter ``model``: 1 for a forward pass, :math:`1 + \beta` with
    its backward pass; it sees neither a frozen trunk nor per-example gradients by ``torch.func``.

    Every arm gets its own batches from ``batches(seed)``, thus the same rows in the same order,
    and its own copy of the global random states, seeded alike. The learning rate follows the share
    of the budget that is spent, whichever the budget is.

    Args:
        arms: The arms, in the order of their turns.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example; it evaluates. The
            sampling of each arm has its own for training.
        batches: ``batches(seed)`` gives fresh re-iterable batches of ``(inputs, target)``.
        steps: Budget in updates.
        cost: Budget in forward passes of one example.
        seconds: Budget in seconds; exactly one of the three is given.
        seed: Given to ``arm.make`` and ``batches``.
        schedule: ``schedule(share)`` gives the factor of the learning rate after that share of the
            budget, 0 to 1; constant if None. See :func:`steps_down`.
        evaluation_batches: What the training loss is measured on.
        test_batches: What the test loss and error are measured on, if at all.
        evaluations: How often, at equal shares of the budget, besides before the first step.
        slice_seconds: Length of a turn.
        warmup: Steps of each kind that are not on the clock.
        backward_cost: :math:`\beta`, a backward pass in forward passes.
        gradient_clip: Largest norm of the gradient, if it is clipped.
        precision: See :func:`lowland.training.autocast`.
        progress: As for :func:`lowland.training.open_progress`.

    Returns:
        One result per arm, in order. An arm whose loss is not finite stops and says so.

    Raises:
        ValueError: If not exactly one budget is given, it is not positive, names are not
            distinct, or there is no arm.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 4 (equal wall clock); the rest is ours.
    """
    budget = check_race(arms, evaluations, steps=steps, cost=cost, seconds=seconds)
    options = Options(
        *budget, schedule or constant, slice_seconds, warmup, gradient_clip, precision
    )
    runners = [Runner.of(arm, batches, seed, backward_cost) for arm in arms]
    marks = [number / evaluations for number in range(evaluations + 1)]
    with (
        open_progress(progress) as display,
        display.task(f"race, seed {seed}", len(marks) * len(arms)) as task,
    ):
        for mark in marks:
            while waiting := [r for r in runners if r.status is None and r.share(options) < mark]:
                for runner in waiting:
                    runner.take_turn(options, mark)
            for runner in runners:
                look(runner, options, loss_fn, evaluation_batches, test_batches)
                task.advance()
    for runner in runners:
        runner.stream.close()  # samplings let go of their models
    return [runner.result(options) for runner in runners]


def steps_down(*at: float, by: float = 5.0) -> Schedule:
    """A learning rate that falls in steps.

    Args:
        *at: Shares of the budget after which it falls; the paper has 0.4 and 0.8.
        by: What it is divided by each time.

    Returns:
        The factor of the learning rate as a function of the share that is spent.

    Source:
        Katharopoulos & Fleuret, ICML 2018, Section 4.2.

    Example:
        >>> factor = steps_down(0.4, 0.8)
        >>> [factor(share) for share in (0.0, 0.4, 0.9)]
        [1.0, 0.2, 0.04]
    """
    return lambda share: 1 / by ** sum(share >= fall for fall in at)


def constant(share: float) -> float:
    """A learning rate that stays."""
    return 1.0


@dataclass(frozen=True)
class Options:
    """What is the same for all arms."""

    clock: str
    budget: float
    schedule: Schedule
    slice_seconds: float
    warmup: int
    gradient_clip: float | None
    precision: str


def check_race(arms: Sequence[Arm], evaluations: int, **budgets: float | None) -> tuple[str, float]:
    """Refuse a race that cannot be run; give the clock that decides, and its budget."""
    given = [(name, value) for name, value in budgets.items() if value is not None]
    if len(given) != 1 or not (given[0][1] > 0 and isfinite(given[0][1])):
        shown = ", ".join(f"{name}={value}" for name, value in budgets.items())
        raise ValueError(f"exactly one budget must be given, above zero; got {shown}.")
    names = [arm.name for arm in arms]
    if not names or len({*names}) < len(names):
        raise ValueError(f"there must be arms, each with its own name; got {names}.")
    if evaluations < 1:
        raise ValueError(f"evaluations must be at least 1; got {evaluations}.")
    return given[0]


class Meter:
    """Counts the rows that enter a model, with and without gradient.

    Attributes:
        rows: Rows without and with gradient.
        kind: What has entered since it was cleared.
    """

    def __init__(self, model: nn.Module):
        self.rows = [0, 0]
        self.kind: tuple[tuple[int, bool], ...] = ()
        self.is_on = True
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Count one forward pass.

        Args:
            module: The model.
            args: Its inputs.
            kwargs: Its named inputs.
        """
        if self.is_on and (first := next(tensors_in((args, kwargs)), None)) is not None:
            rows, learns = len(first), torch.is_grad_enabled()
            self.rows[learns] += rows
            self.kind = (*self.kind, (rows, learns))


@dataclass
class Runner:
    """An arm that runs: its network, its data, its clocks."""

    name: str
    model: nn.Module
    optimizer: Optimizer
    sampling: Any
    stream: Generator[Any]
    meter: Meter
    rng: dict[str, Any]
    rates: list[float]
    backward_cost: float
    factor: float = 1.0
    steps: int = 0
    seconds: float = 0.0
    kinds: Counter = field(default_factory=Counter)
    curve: list[dict[str, Any]] = field(default_factory=list)
    trace: list[list[Any]] = field(default_factory=list)
    status: Status | None = None

    @classmethod
    def of(cls, arm: Arm, batches: Callable[[int], Any], seed: int, backward_cost: float):
        """Make the parts of an arm; its global random states start alike for all."""
        with isolated_rng(seed, "race"):
            model, optimizer, sampling = arm.make(seed)
            model.train()
            stream = endless(sampling, batches(seed))
        with isolated_rng(seed, "race steps"):
            rng = rng_states()
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        return cls(
            arm.name, model, optimizer, sampling, stream, Meter(model), rng, rates, backward_cost
        )

    @cached_property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

    @property
    def cost(self) -> float:
        """Modelled cost so far, in forward passes of one example."""
        scored, trained = self.meter.rows
        return scored + (1 + self.backward_cost) * trained

    def share(self, options: Options) -> float:
        """The share of the budget that is spent."""
        return getattr(self, options.clock) / options.budget

    def take_turn(self, options: Options, mark: float) -> None:
        """Train until the turn is over or the share of the budget reaches a mark."""
        device, mine = self.device, rng_states()
        set_rng_states(self.rng)
        try:
            with autocast(device, options.precision):
                wait_for(device)
                begin, before, left_out = perf_counter(), self.seconds, 0.0
                while self.share(options) < mark:
                    start = perf_counter()
                    self.step(options)
                    if self.is_new(options.warmup):
                        wait_for(device)
                        left_out += perf_counter() - start
                    now = perf_counter()
                    self.seconds = before + now - begin - left_out
                    if now - begin > options.slice_seconds:
                        break
                wait_for(device)
                self.seconds = before + perf_counter() - begin - left_out
        finally:
            self.rng = rng_states()
            set_rng_states(mine)
        self.trace.append([*self.clocks, *self.switch])

    def step(self, options: Options) -> None:
        """One update."""
        factor = options.schedule(min(self.share(options), 1.0))
        if factor != self.factor:
            self.factor = factor
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
        inputs, target = to_device(as_pair(next(self.stream)), self.device)
        self.sampling.loss(call(self.model, inputs), target).backward()
        if options.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), options.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    def is_new(self, warmup: int) -> bool:
        """Tell whether the last step was among the first of its kind."""
        kind, self.meter.kind = self.meter.kind, ()
        self.kinds[kind] += 1
        return self.kinds[kind] <= warmup

    @property
    def clocks(self) -> tuple[int, float, float]:
        """Updates, seconds, modelled cost."""
        return self.steps, self.seconds, self.cost

    @property
    def switch(self) -> tuple[float | None, bool | None]:
        """The running tau and whether importance sampling is on, where the sampling has them."""
        tau, active = (getattr(self.sampling, name, None) for name in ("tau", "is_active"))
        return None if tau is None else float(tau), None if active is None else bool(active)

    def result(self, options: Options) -> ArmResult:
        """What the arm has come to."""
        last, active = self.curve[-1], getattr(self.sampling, "active_steps", None)
        return ArmResult(
            self.name,
            options.clock,
            self.status or Status.FINISHED,
            *self.clocks,
            None if active is None else int(active) / max(self.steps, 1),
            last["train_loss"],
            last["train_error"],
            last["test_loss"],
            last["test_error"],
            self.curve,
            self.trace,
            [list(turn) for turn in getattr(self.sampling, "switches", ())],
        )


def endless(sampling: Any, batches: Any) -> Generator[Any]:
    """Go through epoch after epoch."""
    epoch = 0
    while True:
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(epoch)
        read = 0
        for batch in sampling(batches):
            read += 1
            yield batch
        check_not_empty(read)
        epoch += 1


def look(
    runner: Runner,
    options: Options,
    loss_fn: Callable[[Any, Any], torch.Tensor],
    evaluation_batches: Any,
    test_batches: Any,
) -> None:
    """Evaluate an arm, off its clocks, and add a row to its curve."""
    if runner.status is not None:
        return
    runner.meter.is_on = False
    found: list[Any] = [None, None]
    for place, batches in enumerate((evaluation_batches, test_batches)):
        if batches is not None:
            found[place] = evaluate(runner.model, loss_fn, batches, precision=options.precision)
    runner.meter.is_on = True
    train, test = found
    tau, active = runner.switch
    row = {
        "share": runner.share(options),
        "steps": runner.steps,
        "seconds": runner.seconds,
        "cost": runner.cost,
        "train_loss": train.loss,
        "train_error": train.error,
        "test_loss": None if test is None else test.loss,
        "test_error": None if test is None else test.error,
        "tau": tau,
        "is_active": active,
    }
    runner.curve.append(row)
    if not isfinite(train.loss):
        runner.status = Status.NOT_FINITE


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
