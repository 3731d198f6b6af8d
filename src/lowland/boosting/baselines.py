"""What growing block by block is compared with: AdaBoost.MM over independent networks.

The other baselines are training end to end, :func:`lowland.training.train` on the model itself,
and the same with :func:`lowland.boosting.checkpointing.checkpointed`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import Optimizer

from lowland.boosting.alphas import closed_alpha
from lowland.boosting.checkpointing import Checkpointed, checkpointed
from lowland.boosting.features import Features, read_features
from lowland.boosting.fitted import wide
from lowland.params import call
from lowland.results import Status
from lowland.training import (
    all_sum,
    batch_count,
    choose_device,
    device_of,
    isolated_rng,
    kept_mode,
    seed_from,
    train,
)

__all__ = ["AdaBoostResult", "Checkpointed", "Vote", "VoteRound", "adaboost_mm", "checkpointed"]


@dataclass(frozen=True)
class VoteRound:
    """One round of AdaBoost.MM, measured on the training set.

    Attributes:
        edge: How much better than chance the network votes under the costs of its round, -1 to 1.
        alpha: Weight of its vote.
        loss: Exponential loss of all votes so far: the mean over examples of the sum over wrong
            classes; at most the number of wrong classes times the product of
            ``sqrt(1 - edge ** 2)``.
        train_error: Share of examples that the votes so far give a wrong class.
        updates: Gradient updates of the round.
        seconds: Time of the round.
    """

    edge: float
    alpha: float
    loss: float
    train_error: float
    updates: int
    seconds: float


@dataclass(frozen=True)
class AdaBoostResult:
    """What :func:`adaboost_mm` made.

    Attributes:
        status: How it ended.
        message: The same in a sentence.
        model: The vote, in eval mode.
        rounds: One entry for each network of the vote.
    """

    status: Status
    message: str
    model: "Vote"
    rounds: tuple[VoteRound, ...]

    def record(self) -> dict[str, Any]:
        """List everything but the networks.

        Returns:
            Plain values, ready for JSON.
        """
        return {
            "status": self.status.name,
            "message": self.message,
            "rounds": [asdict(row) for row in self.rounds],
        }


class Vote(nn.Module):
    """Networks that vote for one class each.

    Args:
        modules: Each turns inputs into logits ``(batch, classes)``.
        alphas: Weights of their votes.
        classes: Number of classes.
    """

    alphas: Tensor

    def __init__(self, modules: Sequence[nn.Module], alphas: Sequence[float], classes: int):
        super().__init__()
        self.classes = classes
        self.voters = nn.ModuleList(modules)
        self.register_buffer("alphas", torch.tensor(alphas))

    def forward(self, *inputs: Any, **named: Any) -> Float[Tensor, "batch classes"]:
        """Count the votes.

        Args:
            *inputs: As the networks take them.
            **named: Likewise.

        Returns:
            For each class, the sum of the weights of those that vote for it.
        """
        votes = self.alphas.new_zeros(batch_count(inputs, named), self.classes)
        for voter, alpha in zip(self.voters, self.alphas, strict=True):
            votes = votes + alpha * ballot(voter(*inputs, **named))
        return votes


def ballot(logits: Float[Tensor, "batch classes"]) -> Int[Tensor, "batch classes"]:
    """Give 1 to the class of the largest logit, 0 to the others."""
    return one_hot(logits.argmax(1), logits.shape[1])


def adaboost_mm(
    make_module: Callable[[int], nn.Module],
    batches: Any,
    rounds: int,
    *,
    classes: int,
    epochs: int = 5,
    optimizer: Callable[..., Optimizer] | None = None,
    batch_size: int = 100,
    cache: str = "auto",
    seed: int = 0,
    device: str | None = None,
) -> AdaBoostResult:
    r"""Boost independent networks by AdaBoost.MM, the paper's baseline.

    With the votes :math:`F(i, l)` so far, mistaking the class :math:`y_i` for :math:`l` costs
    :math:`C(i, l) = e^{F(i, l) - F(i, y_i)}`, and being right earns the sum of these,
    :math:`w_i`. A network that votes :math:`h` has the edge
    :math:`\delta = -\sum_i C(i, h_i) / \sum_i w_i` and the weight :math:`\operatorname{artanh}
    \delta`. It is trained by gradients on the logarithmic form of these costs,
    :math:`w_i \ln(1 + \sum_{l \ne y} (K C(i, l) / w_i) e^{z_l - z_y})` with :math:`K` wrong
    classes, in the first round plain cross-entropy. The source leaves the weak learner open; this
    one is ours. Networks are trained from where ``make_module`` left them, in place.

    Args:
        make_module: From the number of a round, counted from 0, to a network for the inputs.
        batches: Re-iterable of ``(inputs, target)``; inputs are a tensor or a tuple of tensors.
        rounds: Number of networks.
        classes: Number of classes.
        epochs: Passes over the data in each round.
        optimizer: Makes the optimizer from the parameters; by default Adam at 0.001.
        batch_size: Examples of an update.
        cache: Where inputs and votes are kept, see :func:`lowland.boosting.read_features`.
        seed: Seed of the order of the examples and of what ``make_module`` draws.
        device: Where to train, ``"auto"`` or as torch spells it; None is where the first network
            is.

    Returns:
        The vote, and each round in numbers. A round with an edge of 0 or less, or without finite
        numbers, ends the run; its network is left out.

    Raises:
        ValueError: If an argument is not what it must be.

    Source:
        Mukherjee & Schapire, JMLR 2013, Section 6; Huang et al., ICML 2018, Section 5.
    """
    if min(rounds, epochs, batch_size) < 1 or classes < 2:
        raise ValueError(
            "rounds, epochs and batch_size must be positive and classes at least 2; "
            f"got {rounds}, {epochs}, {batch_size} and {classes}."
        )
    voters, rows, features, place = [], [], None, torch.device("cpu")
    status, message = Status.FINISHED, f"did all {rounds} rounds."
    for number in range(rounds):
        began = monotonic()
        with isolated_rng(seed, "module", number):
            voter = make_module(number)
        if features is None:
            place = device_of(voter) if device is None else choose_device(device)
            features = read_features(
                batches, entry(classes), device=place, cache=cache, seed=seed, classes=classes
            )
        learner = Learner(voter.to(features.device))
        result = train(
            learner,
            costs_of(mean_weight(features)),
            features.batches(batch_size, seed=seed_from(seed, "order", number)),
            epochs=epochs,
            optimizer=optimizer or (lambda params: torch.optim.Adam(params, lr=1e-3)),
            seed=seed_from(seed, "round", number),
        )
        edge = measure_edge(features, voter)
        if result.status is not Status.FINISHED or not edge > 0:
            status = result.status if result.status is not Status.FINISHED else Status.CONVERGED
            message = f"round {number} ended the run: edge {edge:.3g}, {result.message}"
            break
        alpha = closed_alpha(edge)
        features.advance(Voted(voter, alpha))
        loss, error = measure_votes(features)
        voters.append(voter)
        rows.append(VoteRound(edge, alpha, loss, error, result.steps, monotonic() - began))
    vote = Vote(voters, [row.alpha for row in rows], classes).eval()
    return AdaBoostResult(status, message, vote.to(place), tuple(rows))


def entry(classes: int) -> Callable[[Any], tuple[Tensor, ...]]:
    """Make the values of a batch: its inputs, then the votes, none so far."""

    def values_of(inputs: Any) -> tuple[Tensor, ...]:
        values = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        if not values or not all(isinstance(value, Tensor) for value in values):
            raise ValueError(
                "inputs must be a tensor or a tuple of tensors; "
                f"got {type(inputs).__name__}. Put a mapping's tensors into a tuple."
            )
        return (*values, wide(torch.zeros(len(values[0]), classes, device=values[0].device)))

    return values_of


class Learner(nn.Module):
    """A network beside the votes of those before."""

    def __init__(self, voter: nn.Module):
        super().__init__()
        self.voter = voter

    def forward(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        """Give logits and votes to the loss."""
        return call(self.voter, values[:-1]), values[-1]


class Voted(Learner):
    """A network that adds its vote."""

    def __init__(self, voter: nn.Module, alpha: float):
        super().__init__(voter)
        self.alpha = alpha

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Give the inputs on, and the votes with one more."""
        logits, votes = super().forward(*values)
        return (*values[:-1], votes + self.alpha * ballot(logits))


def wrong_costs(
    votes: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """Cost of each wrong class, 0 for the right one."""
    costs = (votes - votes.gather(1, target[:, None])).exp()
    return costs.scatter(1, target[:, None], 0)


def costs_of(mean: float) -> Callable[[Any, Tensor], Tensor]:
    """Make the loss of a round, from the mean weight of an example."""

    def loss_fn(output: tuple[Tensor, Tensor], target: Tensor) -> Float[Tensor, " batch"]:
        logits, votes = output
        costs = wrong_costs(votes, target)
        weight = costs.sum(1)
        offset = ((costs.shape[1] - 1) * costs / weight[:, None]).log()
        offset = offset.scatter(1, target[:, None], 0).to(logits.dtype)
        share = (weight / mean).to(logits.dtype)
        return share * cross_entropy(logits + offset, target, reduction="none")

    return loss_fn


def mean_weight(features: Features) -> float:
    """Mean over the examples of the sum of the costs; the exponential loss of the votes."""
    return measure_votes(features)[0]


@torch.no_grad()
def measure_votes(features: Features) -> tuple[float, float]:
    """Exponential loss and error of the votes so far."""
    sums = torch.zeros(3, dtype=torch.float64)
    for values, target, _ in features.chunks():
        loss = float(wrong_costs(values[-1], target).sum())
        wrong = float((values[-1].argmax(1) != target).sum())
        sums += torch.tensor([loss, wrong, len(target)], dtype=torch.float64)
    loss, wrong, count = all_sum(sums, features.device).tolist()
    return loss / count, wrong / count


@torch.no_grad()
def measure_edge(features: Features, voter: nn.Module) -> float:
    """Edge of a network under the costs of the votes before it."""
    sums = torch.zeros(2, dtype=torch.float64)
    with kept_mode(voter):
        voter.eval()
        for values, target, _ in features.chunks():
            costs = wrong_costs(values[-1], target)
            chosen = call(voter, values[:-1]).argmax(1)
            lost = costs.gather(1, chosen[:, None]).squeeze(1)  # 0 where it is right
            earned = torch.where(chosen == target, costs.sum(1), -lost).sum()
            sums += torch.tensor([float(earned), float(costs.sum())], dtype=torch.float64)
    earned, total = all_sum(sums, features.device).tolist()
    return min(1.0, earned / total)  # the rounding of sums
