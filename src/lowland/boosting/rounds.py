"""One round: train a module with its head, measure what that proves, and decide its fate."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lowland.boosting.bounds import Certificate
from lowland.boosting.endings import put_back
from lowland.boosting.feature_set import Features
from lowland.boosting.fitting import Plan, fit, is_fitted, train_local
from lowland.boosting.heads import DownstreamHead
from lowland.boosting.local import Local, Module, evaluated, hypothesis
from lowland.boosting.result import Round
from lowland.boosting.statistics import measure
from lowland.boosting.stops import needs_certificate, stop_rule
from lowland.results import Status
from lowland.training import (
    Progress,
    TrainResult,
    all_sum,
    autocast,
    isolated_rng,
    kept_buffers,
    kept_mode,
)
from lowland.training.memory import saved_bytes

__all__ = ["Data", "Standing", "bytes_of_update", "decide", "round_of", "train_round"]

THETAS = (0.0, 0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Data:
    """The data sets as they enter the next module.

    Attributes:
        train: What is trained on.
        proof: What the statistics are taken over.
        validation: For the stop rule, or None.
        test: For test errors, or None.
    """

    train: Features
    proof: Features
    validation: Features | None
    test: Features | None

    def advance(self, module: nn.Module) -> None:
        """Freeze a module, and let all data go through it.

        Args:
            module: The module.
        """
        kinds = (self.train, self.proof, self.validation, self.test)
        for features in {id(f): f for f in kinds if f is not None}.values():
            features.advance(module)

    def probe(self) -> tuple[Tensor, ...]:
        """Give some examples that enter the next module."""
        values, _, _ = next(iter(self.proof.chunks()))
        return values


@dataclass(frozen=True)
class Standing:
    """Where boosting stands after the rounds that count.

    Attributes:
        head: A copy of the last head, None at first.
        edge: Its edge, or where gamma begins to be measured.
        alpha_closed: Its alpha by the closed form.
        loss: Its exponential loss; infinite at first.
    """

    head: nn.Module | None = None
    edge: float = 0.0
    alpha_closed: float = 0.0
    loss: float = float("inf")

    def certify(self, data: Data, module: nn.Module, head: nn.Module, alpha: str) -> Certificate:
        """Measure a new module and its head against this standing.

        Args:
            data: Before the module.
            module: What was trained.
            head: Its head.
            alpha: Which rule gives alpha.

        Returns:
            The certificate over the whole training set.

        Raises:
            FloatingPointError: If an output is not finite.
            ValueError: If two passes over the data differ.
        """
        chunks = hypothesis(data.proof, module, head, self.head)
        try:
            return measure(
                chunks,
                alpha_previous=self.alpha_closed,
                edge_previous=self.edge,
                alpha=alpha,
            )
        except ValueError as error:  # on every process, if one output of one process is no number
            strange = sum((~chunk[0].isfinite()).sum().cpu() for chunk in chunks())
            count = int(all_sum(torch.tensor([float(strange)]), data.proof.device)[0])
            if not count:
                raise
            raise FloatingPointError(
                f"the outputs of the head must be finite; {count} of the training set are not"
            ) from error

    def after(self, found: Round, head: nn.Module) -> "Standing":
        """Go on from a round.

        Args:
            found: The round.
            head: A copy of its head, which stays as it is.

        Returns:
            The new standing; this one if the round does not count.
        """
        if not found.counts:
            return self
        return Standing(head, found.edge, found.alpha_closed, found.loss)


def train_round(
    module: Module,
    head: nn.Module,
    standing: Standing,
    data: Data,
    plan: Plan,
    folder: Path | None,
    display: Progress | bool,
    max_steps_now: int | None,
) -> tuple[TrainResult | None, int]:
    """Train a module and its head on the features that enter.

    Args:
        module: Changed in place.
        head: Changed in place.
        standing: After the rounds before.
        data: As it enters the module.
        plan: What to do.
        folder: For the state to resume from, or None.
        display: Where progress is shown.
        max_steps_now: See :func:`lowland.training.train`.

    Returns:
        How training went, None for a block that was fitted without gradients; and the bytes that
        autograd saves in one update.
    """
    local = Local([module], [head], wants_change=plan.transport is not None)
    batches = data.train.batches(plan.batch_size, seed=plan.seed)

    if plan.oracle is not None or is_fitted(module):
        with isolated_rng(plan.seed, "oracle", module.name):
            fit(module, head, standing.head, standing.alpha_closed, data.proof, plan.oracle)
        return None, 0
    if not any(parameter.requires_grad for parameter in local.parameters()):
        return None, 0  # the user has frozen all of it
    enough = stop_rule(plan.stop, plan.gamma_threshold)

    def look(_: nn.Module) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if enough is None:
            return values
        if needs_certificate(plan.stop):
            found = standing.certify(data, module, head, plan.alpha)
            values = {"gamma": found.gamma, "edge": found.edge, "exponential_loss": found.loss}
        if data.validation is not None:
            values["validation_error"] = errors(data.validation, module, head)[0]
        return values

    trained = train_local(
        local, batches, plan, folder, display, look, enough, max_steps_now=max_steps_now
    )
    finished = trained.status is Status.FINISHED
    return trained, bytes_of_update(local, batches, plan) if finished else 0


def bytes_of_update(local: Local, batches: Any, plan: Plan) -> int:
    """Count what autograd keeps in one update, and leave no trace of it.

    Args:
        local: What is trained.
        batches: What it is trained on.
        plan: Precision and objective.

    Returns:
        Bytes.
    """
    own = local.modules()
    with kept_mode(local), kept_buffers(own), isolated_rng(plan.seed, "bytes", batches=batches):
        local.train()
        inputs, target = next(iter(batches))
        with autocast(target[0].device, plan.precision):
            return saved_bytes(lambda: plan.loss_fn(local(*inputs), target).mean(), local)


def round_of(
    found: Certificate,
    module: Module,
    head: nn.Module,
    data: Data,
    trained: TrainResult | None,
    seconds: float,
    saved: int,
) -> Round:
    """Put the numbers of a round together.

    Args:
        found: Its certificate.
        module: What was trained.
        head: Its head.
        data: As it enters the module.
        trained: How training went, None without gradients.
        seconds: Of all of it.
        saved: Bytes that autograd saves in one update.

    Returns:
        The round, kept.
    """
    test_error, test_loss = (None, None) if data.test is None else errors(data.test, module, head)
    steps = 0 if trained is None else trained.steps
    later = head.later if isinstance(head, DownstreamHead) else ()
    parts = len(module.parts) + len(later)
    return Round(
        name=module.name,
        status="kept",
        edge=found.edge,
        gamma=found.gamma,
        alpha=found.alpha,
        alpha_closed=found.alpha_closed,
        loss=found.loss,
        covariance=found.covariance,
        bounds=found.bounds,
        holds_condition=found.holds_condition,
        is_separated=found.is_separated,
        step_ratio=found.step_ratio,
        margins=[[t, found.margin_share(t), found.margin_bound(t)] for t in THETAS],
        train_error=found.error,
        test_error=test_error,
        test_loss=test_loss,
        updates=steps,
        module_updates=steps * parts,
        bytes=saved,
        cache_bytes=data.train.bytes(),
        seconds=seconds,
        curve=[] if trained is None else trained.curve,
    )


def decide(
    found: Round, module: Module, head: nn.Module, standing: Standing, data: Data, plan: Plan
) -> Round:
    """Keep a module, flag it, or put it back to a zero residual with the head before it.

    A round fails if its edge is not positive or gamma not above the threshold. It is put back if
    the exponential loss rose too, its budget was not fixed, and the module can be the identity.

    Args:
        found: The round.
        module: What it trained; changed if it is put back.
        head: Likewise.
        standing: Before the round.
        data: As it enters the module.
        plan: What was asked for.

    Returns:
        The round with its status.
    """
    if found.edge > 0 and found.gamma > plan.gamma_threshold:
        return found
    if plan.stop == "fixed" or not found.loss > standing.loss:
        return replace(found, status="flagged")
    is_back = put_back(module.parts, head, standing.head, data.proof)
    return replace(found, status="identity" if is_back else "flagged")


def errors(data: Features, module: nn.Module, head: nn.Module) -> tuple[float, float]:
    """Share of wrong classes and mean cross-entropy, over all processes."""
    sums = torch.zeros(3, dtype=torch.float64)
    with evaluated(module, head):
        for values, target, _ in data.chunks():
            logits = head(*module(*values))
            loss = cross_entropy(logits.float(), target, reduction="sum")
            wrong = (logits.argmax(1) != target).sum()
            count = torch.tensor(float(len(target)))
            sums += torch.stack([wrong.cpu(), loss.cpu(), count]).double()
    wrong, loss, count = all_sum(sums, data.target.device).tolist()
    return wrong / count, loss / count
