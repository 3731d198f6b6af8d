"""The rounds of a run, one after the other or all together."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor, nn

from lowland.boosting.chain import Chain
from lowland.boosting.endings import put_back, take_out
from lowland.boosting.feature_set import freeze
from lowland.boosting.fitting import Plan, share, train_local
from lowland.boosting.heads import make_head, warm_start
from lowland.boosting.identity import copy_previous, zero_start
from lowland.boosting.kept import keep_round, kept_round
from lowland.boosting.local import Local, Module, evaluated
from lowland.boosting.result import Round
from lowland.boosting.rounds import Data, Standing, bytes_of_update, decide, round_of, train_round
from lowland.boosting.told import log_of_block, tell_round
from lowland.results import Status
from lowland.training import Progress

__all__ = ["Run", "behind", "boost", "boost_in_parallel"]

Ending = tuple[Status, str]


@dataclass
class Run:
    """Boosting between two rounds.

    Attributes:
        chain: Of the user's model.
        modules: Its parts, as they are trained together.
        inputs: A batch of the model.
        data: As it enters the first of the pending modules.
        plan: What every round is asked to do.
        classes: Number of classes.
        head: Kind of head.
        init: How a module begins.
        drop: Whether modules that failed leave the model.
        keeps_heads: Whether the heads of all rounds are wanted.
        folder: For the state to resume from, or None.
        standing: After the rounds so far.
        is_whole: Whether the model computes what the last certificate is about.
        rounds: The rounds so far.
        heads: Copies of their heads, or of the last one only.
        pending: Modules that are finished and that the data has not gone through: it need not,
            until something is trained on it.
        warm: Which parameters the heads of the rounds so far have trained.
    """

    chain: Chain
    modules: list[Module]
    inputs: Any
    data: Data
    plan: Plan
    classes: int
    head: str | Callable[..., nn.Module]
    init: str
    drop: bool
    keeps_heads: bool
    folder: Path | None
    standing: Standing
    is_whole: bool = False
    rounds: list[Round] = field(default_factory=list)
    heads: list[nn.Module] = field(default_factory=list)
    pending: list[Module] = field(default_factory=list)
    warm: set[int] = field(default_factory=set)

    @property
    def updates(self) -> int:
        """Updates of the rounds so far."""
        return sum(found.updates for found in self.rounds)

    def place(self, name: str) -> Path | None:
        """A folder for a part of the run."""
        return None if self.folder is None else self.folder / name

    def probe(self) -> tuple[Tensor, ...]:
        """Some examples as they enter the next module."""
        values = self.data.probe()
        for module in self.pending:
            values = behind(module, values)
        return values

    def catch_up(self) -> None:
        """Let the data go through the modules that are finished."""
        while self.pending:
            try:
                self.data.advance(self.pending[0])
            except FloatingPointError as error:
                raise FloatingPointError(f"behind {self.pending[0].name}, {error}") from error
            del self.pending[0]

    def begin(self, index: int, values: tuple[Tensor, ...]) -> nn.Module:
        """Give a module the weights that it begins with, and make its head.

        A part with weights that the user has frozen begins as it is, and so does one that was
        trained before, in the heads of earlier ones.

        Args:
            index: Of the module.
            values: What enters it, some examples.

        Returns:
            The head.
        """
        before = list(self.modules[index - 1].parts[-1:]) if index else []
        for part in self.modules[index].parts:
            weights = list(part.parameters())
            is_warm = any(id(weight) in self.warm for weight in weights)
            if all(weight.requires_grad for weight in weights) and not is_warm:
                if self.init == "zero":
                    zero_start(part, values)
                elif self.init == "copy_previous" and before:
                    copy_previous(part, before[-1])
            share(part)
            before.append(part)
            values = behind(part, values)
        return self.new_head(index, values)

    def new_head(self, index: int, values: tuple[Tensor, ...]) -> nn.Module:
        """Make the head of a round; with the weights of the one before where shapes agree."""
        last = min((index + 1) * len(self.modules[0].parts), len(self.chain.parts)) - 1
        made = make_head(self.head, self.chain, last, values, self.classes, self.plan.seed)
        if self.heads and all(weight.requires_grad for weight in made.parameters()):
            warm_start(made, self.heads[-1])
        self.warm |= {id(weight) for weight in made.parameters()}
        return made

    def finish(self, module: Module, head: nn.Module, found: Round) -> None:
        """Take note of a round, and freeze its module."""
        kept = deepcopy(head).requires_grad_(requires_grad=False).eval()
        self.rounds.append(found)
        self.heads = [*self.heads, kept] if self.keeps_heads else [kept]
        self.standing = self.standing.after(found, kept)
        freeze(module)
        self.pending.append(module)

    def close(self) -> Ending:
        """Give the model the last head, and take out what was put back if that was asked for."""
        if not warm_start(self.chain.head, self.heads[-1]):
            raise AssertionError("the last head has the shapes of the model's own")
        self.is_whole = True
        for index, found in enumerate(self.rounds):
            parts = self.modules[index].parts
            is_gone = self.drop and found.status == "identity"
            if is_gone and take_out(self.chain.model, parts, self.inputs):
                self.rounds[index] = replace(found, status="dropped")
        used = sum(found.counts for found in self.rounds)
        return Status.FINISHED, f"{used} of {len(self.rounds)} modules are in use."

    def retreat(self, index: int, message: str) -> Ending:
        """End where a number was not finite, with the function of the rounds before if possible.

        For that all modules from this one on must be able to be the identity.

        Args:
            index: Of the module that was trained.
            message: What happened.

        Returns:
            Status and message.
        """
        rest = [part for module in self.modules[index:] for part in module.parts]
        head, before = self.chain.head, self.standing.head
        self.is_whole = put_back(rest, head, before, self.data.proof, self.pending)
        if self.is_whole:
            message += f" The model ends with {self.rounds[-1].name}; behind it is the identity."
        return Status.NOT_FINITE, message


def boost(run: Run, display: Progress, max_steps_now: int | None) -> Ending:
    """Train the modules one after the other."""
    with display.task("boosting", len(run.modules)) as task:
        for index, module in enumerate(run.modules):
            folder = run.place(f"round-{index + 1:02}")
            head = run.begin(index, run.probe())
            found = kept_round(folder, module, head)
            if found is None:
                try:
                    run.catch_up()
                    found = one_round(run, module, head, folder, display, max_steps_now)
                except FloatingPointError as error:
                    found = Status.NOT_FINITE, str(error).rstrip(".") + "."
            if isinstance(found, tuple):
                status, message = found
                message = f"{module.name}: {message}"
                is_broken = status is Status.NOT_FINITE
                return run.retreat(index, message) if is_broken else (status, message)
            run.finish(module, head, found)
            task.advance(note=f"edge {found.edge:.4g}, error {100 * found.train_error:.3g} %")
    return run.close()


def one_round(
    run: Run,
    module: Module,
    head: nn.Module,
    folder: Path | None,
    display: Progress,
    max_steps_now: int | None,
) -> Round | Ending:
    """Train a module, measure it, decide its fate, and write that down."""
    data, standing, number = run.data, run.standing, len(run.rounds) + 1
    plan = replace(run.plan, log=log_of_block(run.plan.log, number, run.updates))
    begun = monotonic()
    trained, saved = train_round(module, head, standing, data, plan, folder, display, max_steps_now)
    if trained is not None:
        if trained.status is not Status.FINISHED:
            return trained.status, trained.message
        begun = monotonic() - trained.seconds  # of earlier calls too
    certificate = standing.certify(data, module, head, plan.alpha)
    seconds = monotonic() - begun
    found = round_of(certificate, module, head, data, trained, seconds, saved)
    found = decide(found, module, head, standing, data, plan)
    if folder is not None:
        keep_round(folder, found, module, head)
    tell_round(run.plan.log, found, number, run.updates + found.updates)
    return found


def boost_in_parallel(run: Run, display: Progress, max_steps_now: int | None) -> Ending:
    """Train all modules in every step, each on detached features; then measure one by one."""
    values, heads = run.probe(), []
    for index, module in enumerate(run.modules):
        heads.append(run.begin(index, values))
        values = behind(module, values)
    local = Local(run.modules, heads, wants_change=run.plan.transport is not None)
    batches = run.data.train.batches(run.plan.batch_size, seed=run.plan.seed)
    folder = run.place("parallel")
    trained = train_local(local, batches, run.plan, folder, display, max_steps_now=max_steps_now)
    if trained.status is not Status.FINISHED:
        return trained.status, f"all modules together: {trained.message}"
    saved = bytes_of_update(local, batches, run.plan)
    for module, head in zip(run.modules, heads, strict=True):
        try:
            run.catch_up()
            certificate = run.standing.certify(run.data, module, head, run.plan.alpha)
        except FloatingPointError as error:
            return Status.NOT_FINITE, f"{module.name}: {str(error).rstrip('.')}."
        share_of_time = trained.seconds / len(run.modules)
        found = round_of(certificate, module, head, run.data, trained, share_of_time, saved)
        run.finish(module, head, decide(found, module, head, run.standing, run.data, run.plan))
        tell_round(run.plan.log, run.rounds[-1], len(run.rounds), found.updates)
    return run.close()


def behind(part: nn.Module, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What comes out of a part for some examples."""
    with evaluated(part):
        return part(*values)
