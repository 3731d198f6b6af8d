"""Copies of a run that go on with other batches: what is noise in their motion, and what drift."""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from warnings import warn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland.dynamics.clock import whole
from lowland.dynamics.langevin_sgd import LangevinSGD
from lowland.dynamics.sums import as_tensor, number, pieces_of
from lowland.dynamics.weights import Source, Weights
from lowland.errors import NoEffectWarning
from lowland.params import call
from lowland.results import Status, plain
from lowland.training import (
    as_pair,
    check_batches,
    checked_losses,
    device_of,
    generator,
    isolated_rng,
    seed_from,
    to_device,
)
from lowland.training.evaluate import LossFn

__all__ = ["Clones", "check_count", "clone_displacement", "fork", "measure_clones"]


@dataclass(frozen=True)
class Clones:
    r"""How copies of a run moved away from their common start, and from each other.

    Attributes:
        lag: Updates since the fork.
        displacement: :math:`\Delta_{\mathrm{clone}}`, the mean over parameters of the unbiased
            variance over replicas: noise alone.
        displacement_se: Its standard error, by a jackknife over replicas; NaN for fewer than three.
        raw: Mean over replicas of the mean square displacement from the fork: noise and drift.
        replicas: Number of copies.
        diverged_at: First lag at which a weight was no longer finite, else None.
    """

    lag: Int[Tensor, " lags"]
    displacement: Float[Tensor, " lags"]
    displacement_se: Float[Tensor, " lags"]
    raw: Float[Tensor, " lags"]
    replicas: int
    diverged_at: int | None = None

    @property
    def status(self) -> Status:
        """``NOT_FINITE`` where a copy diverged."""
        return Status.FINISHED if self.diverged_at is None else Status.NOT_FINITE

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        return plain(self) | {"status": plain(self.status)}


def clone_displacement(replicas: Sequence[Source]) -> float:
    r"""Measure how far replicas are apart.

    .. math:: \Delta_{\mathrm{clone}} = \frac1M \sum_i \mathrm{Var}_r [w_i^r]

    with the unbiased variance over R replicas; for two it is :math:`|w^1 - w^2|^2 / (2M)`. For
    independent walks it is, on average, what each has moved by noise.

    Args:
        replicas: Models, or their tensors, at least two of the same kind.

    Returns:
        The mean square per parameter.

    Raises:
        ValueError: If there are fewer than two, or they differ in size.

    Source:
        Specification, section 3.2.
    """
    vectors = [Weights(replica).read() for replica in replicas]
    sizes = {len(vector) for vector in vectors}
    if len(vectors) < 2 or len(sizes) != 1:
        raise ValueError(
            "there must be at least 2 replicas of one size; got "
            f"{len(vectors)} of sizes {sorted(sizes)}."
        )
    squares, _ = apart(vectors)
    return float(squares.sum()) / (len(vectors) * (len(vectors) - 1) * len(vectors[0]))


def apart(vectors: Sequence[Tensor]) -> tuple[Float[Tensor, " pairs"], list[tuple[int, int]]]:
    """Squared distance of every pair."""
    pieces = pieces_of([len(vectors[0])], False, vectors[0].device)
    pairs = [(a, b) for b in range(len(vectors)) for a in range(b)]
    found = [
        sum(
            number((vectors[a][start:stop] - vectors[b][start:stop]).square_().sum())
            for _, start, stop in pieces
        )
        for a, b in pairs
    ]
    return as_tensor(found, vectors[0].device).cpu(), pairs


def fork(
    model: nn.Module, optimizer: Optimizer, replicas: int, *, seed: int = 0
) -> list[tuple[Any, Any]]:
    """Copy a model with its optimizer, momentum included.

    Args:
        model: The model.
        optimizer: Of its parameters.
        replicas: Number of copies.
        seed: Of the thermal noise of the copies, where the optimizer has noise of its own
            (:class:`LangevinSGD`); each gets another.

    Returns:
        Pairs of model and optimizer that share nothing with each other or the original.

    Raises:
        ValueError: If the optimizer holds no parameter of the model, or there are fewer than two
            replicas.

    Source:
        Ours.
    """
    check_count(replicas)
    mine = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            "the optimizer must hold the parameters of the model; it holds none of them. "
            "Pass the optimizer that trains this model."
        )
    copies = []
    for index in range(replicas):
        twin = deepcopy((model, optimizer))
        for parameter in twin[0].parameters():
            parameter.grad = None
        if isinstance(twin[1], LangevinSGD):
            twin[1].reseed(seed_from(seed, "heat of a clone", index))
        copies.append(twin)
    return copies


def check_count(replicas: int) -> None:
    """Refuse a number of replicas that cannot be compared.

    Args:
        replicas: How many.

    Raises:
        ValueError: If there are fewer than two, or a part of one.
    """
    if replicas < 2 or replicas != int(replicas):
        raise ValueError(f"replicas must be a whole number, at least 2; got {replicas}.")


def measure_clones(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    optimizer: Optimizer,
    lags: Iterable[int],
    replicas: int = 2,
    seed: int = 0,
) -> Clones:
    """Fork a run into replicas that see other batches, and measure how they part.

    Every replica is trained in training mode on the mean loss of each batch, with dropout and
    shuffling of its own; a list of batches is gone through in an order of its own. The model, the
    optimizer and the global generators stay as they are.

    Args:
        model: The model at the waiting time.
        loss_fn: One loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``; gone through again and again.
        optimizer: Of the model, with its state at the waiting time.
        lags: Updates after the fork at which to measure.
        replicas: Number of copies R; more of them give a standard error.
        seed: Seed of orders, shuffling, dropout and thermal noise.

    Returns:
        Displacements between the replicas, and from the fork. If a replica diverges, the lags
        before.

    Raises:
        ValueError: If there are fewer than two replicas, a lag is not whole, there is no batch,
            batches cannot be read again, or ``loss_fn`` does not return a loss per example.

    Source:
        Specification, section 3.2, clone mode.
    """
    check_batches(batches)
    lags = [lag for lag in whole(lags, "lags") if lag > 0]
    start = Weights(model).read().clone()
    runs = [Replica(*twin) for twin in fork(model, optimizer, replicas, seed=seed)]
    rows: list[list[float]] = []
    diverged_at, now = None, 0
    for lag in lags:
        try:
            advance(runs, now, lag, loss_fn, batches, seed)
        except FloatingPointError:  # an optimizer that refuses a gradient
            diverged_at = lag
            break
        now = lag
        row = compare([run.weights.read() for run in runs], start)
        if not all(value == value and abs(value) < float("inf") for value in row[:2]):
            diverged_at = lag
            break
        rows.append([lag, *row])
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    if len(rows) and not table[:, 1].any():
        warn(
            "all replicas moved alike: their batches come in the same order, or the loss has no "
            "gradient. Pass a list of batches, or a loader that shuffles.",
            NoEffectWarning,
            stacklevel=2,
        )
    return Clones(table[:, 0].long(), table[:, 1], table[:, 3], table[:, 2], replicas, diverged_at)


def advance(
    runs: Sequence["Replica"],
    now: int,
    lag: int,
    loss_fn: LossFn,
    batches: Iterable[Any],
    seed: int,
) -> None:
    """Train every replica from one lag to the next, with randomness of its own."""
    for index, run in enumerate(runs):
        apart_from_others = (1 + index) * 2**20 + now  # an epoch that no replica has seen
        with isolated_rng(seed, "clone", index, now, batches=batches, epoch=apart_from_others):
            run.advance(lag - now, loss_fn, batches, generator(seed, "order", index, now))


def compare(vectors: Sequence[Tensor], start: Tensor) -> tuple[float, float, float]:
    """Variance over replicas, displacement from the start, and the error of the former."""
    count, size = len(vectors), len(start)
    squares, pairs = apart(vectors)
    halves = squares / (2 * size)
    raw = [apart([vector, start])[0].item() / size for vector in vectors]
    error = float("nan")
    if count > 2:
        # leave out each replica in turn: the variance is a mean over the pairs that are left
        left = [halves[[r not in pair for pair in pairs]].mean() for r in range(count)]
        error = (torch.stack(left).var() * (count - 1) ** 2 / count).sqrt().item()
    return halves.mean().item(), sum(raw) / count, error


class Replica:
    """A copy of a run, with its place in the batches.

    Args:
        model: The copy.
        optimizer: Its optimizer.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer):
        self.model, self.optimizer = model, optimizer
        self.weights = Weights(model)
        self.stream: Iterator[Any] = iter(())

    def advance(
        self, steps: int, loss_fn: LossFn, batches: Iterable[Any], order: torch.Generator
    ) -> None:
        """Train for some updates.

        Args:
            steps: How many.
            loss_fn: One loss per example.
            batches: Where the next epoch comes from.
            order: Orders the epochs of a list.
        """
        self.model.train()
        device = device_of(self.model)
        for _ in range(steps):
            inputs, target = to_device(as_pair(self.following(batches, order)), device)
            self.optimizer.zero_grad()
            with torch.enable_grad():
                checked_losses(loss_fn, call(self.model, inputs), target).mean().backward()
            self.optimizer.step()

    def following(self, batches: Iterable[Any], order: torch.Generator) -> Any:
        """The next batch, of a new epoch where the last one is over."""
        for batch in self.stream:
            return batch
        self.stream = iter(reordered(batches, order))
        for batch in self.stream:
            return batch
        raise ValueError("batches must yield at least one batch; got none. Is the loader empty?")


def reordered(batches: Iterable[Any], order: torch.Generator) -> Iterable[Any]:
    """A list in an order of its own; anything else as it comes."""
    if isinstance(batches, list | tuple):
        return [batches[k] for k in torch.randperm(len(batches), generator=order).tolist()]
    return batches
