"""The data and networks of the recipe, and the arms of its races by name."""

from collections import OrderedDict
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from lowland.data import Batches
from lowland.importance import ImportanceSampling
from lowland.importance.baselines import RandomSubset, UniformSampling
from lowland.importance.history import HistorySampling, RankSampling
from lowland.importance.race import Arm
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images, losses
from lowland.reproduce.katharopoulos2018_settings import Race
from lowland.training import generator, train

__all__ = ["WORDS", "backbone_images", "check_arms", "find_backbone", "make_arm", "race_images"]

WORDS = {
    "uniform": "uniform, shuffled epochs",
    "replacement": "uniform, with replacement",
    "subset": "random part of each pool",
    "larger": "uniform, twice the batch",
    "paper": "importance, paper's rule",
    "default": "importance, our defaults",
    "loss": "importance by loss",
    "history": "history (Schaul)",
    "rank": "rank (Loshchilov-Hutter)",
    "frozen-uniform": "uniform, trunk frozen",
    "frozen-paper": "importance, trunk frozen",
}


@dataclass(frozen=True)
class Plain:
    """The loop that everybody writes: no weights, no scores, nothing to pay for."""

    def __call__(self, batches: Any) -> Iterator[Any]:
        """The batches themselves.

        Args:
            batches: Any.

        Returns:
            An iterator over them.
        """
        return iter(batches)

    def loss(self, output: Any, target: Any) -> Tensor:
        """The plain mean.

        Args:
            output: Of the model.
            target: Of the batch.

        Returns:
            A scalar.
        """
        return losses(output, target).mean()


@dataclass(frozen=True)
class Replacement(Plain):
    """Uniform batches drawn with replacement, as the paper's code draws them.

    Attributes:
        draws: Source of randomness.
    """

    draws: torch.Generator

    def __call__(self, batches: Batches) -> Iterator[Any]:
        """As many batches as an epoch has.

        Args:
            batches: Where rows are taken from; their order plays no part.

        Yields:
            Batches.
        """
        count = len(batches.labels)
        for _ in range(len(batches)):
            index = torch.randint(count, (batches.batch_size,), generator=self.draws)
            yield batches.rows(index, draws=self.draws)


def make_arm(
    race: Race, images: Images, trunk: nn.Module | None, name: str, rate: float, clock: str
) -> Arm:
    """Make an arm of a race.

    Args:
        race: Its settings.
        images: Its data.
        trunk: The backbone, if there is one.
        name: One of ``WORDS``.
        rate: Learning rate at first.
        clock: The budget of the race; with ``"seconds"`` our defaults measure their own costs.

    Returns:
        The arm, called ``"name, learning rate"``.
    """

    def make(seed: int) -> tuple[nn.Module, Optimizer, Any]:
        model: Any = starting_point(race, images, trunk, seed)
        if name.startswith("frozen"):
            model[0].requires_grad_(requires_grad=False)
        return model, optimizer_of(race, model, rate), sampling_of(race, name, model, seed, clock)

    return Arm(f"{name}, {rate:g}", make)


def check_arms(race: Race) -> None:
    """Refuse arms and budgets that do not exist.

    Args:
        race: The settings.

    Raises:
        ValueError: If there is no such arm or budget, or no learning rate.
    """
    for name in (*race.grid, *race.tuned, *race.clocked):
        if name not in WORDS:
            raise ValueError(f"an arm must be one of {', '.join(WORDS)}; got {name!r}.")
        if name.startswith("frozen") and race.pretrained is None:
            raise ValueError(f"{name} must have a pretrained backbone; race {race.name} has none.")
    for clock in race.clocks:
        if clock not in ("steps", "cost", "seconds"):
            raise ValueError(f"a budget must be steps, cost or seconds; got {clock!r}.")
    if not race.rates:
        raise ValueError(f"a race must have a learning rate; {race.name} has none.")


def sampling_of(race: Race, name: str, model: Any, seed: int, clock: str) -> Any:
    """How an arm chooses its rows."""
    importance = partial(ImportanceSampling, model, losses, presample=race.presample, seed=seed)
    as_published = partial(
        importance,
        decision="paper",
        tau_rule=race.rule,
        tau_threshold=race.threshold,
        scheme="multinomial",
    )
    costs = "measured" if clock == "seconds" else "modelled"
    draws = generator(seed, "replacement")
    made = {
        "uniform": lambda: Plain(),
        "frozen-uniform": lambda: Plain(),
        "replacement": lambda: Replacement(draws),
        "subset": lambda: RandomSubset(losses, race.presample, seed),
        "larger": lambda: UniformSampling(losses, 2),
        "paper": lambda: as_published(),
        "frozen-paper": lambda: as_published(trunk=model[0]),
        "loss": lambda: as_published(score="loss"),
        "default": lambda: importance(costs=costs),
        "history": lambda: HistorySampling(losses, seed=seed),
        "rank": lambda: RankSampling(
            losses, race.steps, (100.0, 1.0), recompute_every=1200, model=model, seed=seed
        ),
    }
    return made[name]()


def optimizer_of(race: Race, model: nn.Module, rate: float) -> Optimizer:
    """The optimizer over what is trained."""
    params = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if race.optimizer == "adam":
        return Adam(params, rate, weight_decay=race.weight_decay)
    return SGD(params, rate, race.momentum, weight_decay=race.weight_decay)


def starting_point(race: Race, images: Images, trunk: nn.Module | None, seed: int) -> nn.Module:
    """A fresh network, or a copy of a backbone under a fresh head."""
    if trunk is None:
        return images.network(seed)
    with torch.no_grad():
        some, _ = images.reading.rows(torch.zeros(1, dtype=torch.long))
        features = trunk(some).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(features, images.classes)
    return nn.Sequential(OrderedDict(trunk=deepcopy(trunk), head=head.to(images.device)))


def find_backbone(race: Race, images: Images | None, out: Path, display: Any) -> nn.Module | None:
    """Train a network on the classes of the backbone, and take its last layer off.

    Args:
        race: Its settings.
        images: From :func:`backbone_images`.
        out: Folder where the training goes on after a kill.
        display: Progress display.

    Returns:
        The network without its last layer; None if the race has no backbone.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with the training saved.
    """
    tuning = race.pretrained
    if tuning is None or images is None:
        return None
    model = images.network(0)
    result = train(
        model,
        losses,
        images.training(0),
        steps=tuning.steps,
        optimizer=lambda params: SGD(params, tuning.learning_rate, race.momentum),
        out=out,
        progress=display,
    )
    pass_ctrl_c_on(result.status)
    result.raise_for_status()
    return nn.Sequential(OrderedDict([*model.named_children()][:-1]))


def backbone_images(race: Race, **source: Any) -> Images | None:
    """The data of a race's backbone.

    Args:
        race: Its settings.
        **source: ``device``, ``data`` and ``download``.

    Returns:
        All images of the first classes; None if the race has no backbone.
    """
    tuning = race.pretrained
    if tuning is None:
        return None
    task = replace(race.task, data=tuning.data, examples=None)
    return Images.of(task, **source).only(0, tuning.classes)


def race_images(race: Race, **source: Any) -> Images:
    """The data of a race: the classes that its backbone has not seen.

    Args:
        race: Its settings.
        **source: ``device``, ``data`` and ``download``.

    Returns:
        The images.
    """
    images = Images.of(race.task, **source)
    tuning = race.pretrained
    if tuning is None or tuning.data != race.task.data:
        return images
    return images.only(tuning.classes, images.classes)
