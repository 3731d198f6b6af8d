"""Train what grown networks are compared with: end to end, refined, and by AdaBoost.MM."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland.boosting import as_chain, refine
from lowland.boosting.baselines import adaboost_mm
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.huang2018_growth import adam, boosted, falling, network
from lowland.reproduce.huang2018_settings import Growth
from lowland.reproduce.images import Images, losses, percent
from lowland.reproduce.kept import Kept
from lowland.results import plain
from lowland.training import read_state, train

__all__ = ["grow"]

PARTS = ("train", "test")


def grow(growth: Growth, images: Images, kept: Kept, display: Any) -> list[dict[str, Any]]:
    """Grow a network and train its baselines, for every seed; what is finished is kept.

    Args:
        growth: What to do.
        images: Its data.
        kept: Keeps finished parts.
        display: Progress display.

    Returns:
        One dict per seed and way.
    """
    runs = []
    for seed in range(growth.seeds):
        ways: dict[str, Callable[..., dict[str, Any]]] = {"boosted": boosted}
        if growth.epochs:
            ways["end to end"] = end_to_end
        if growth.refine_epochs:
            ways["refined"] = refined
        if growth.weak:
            ways["AdaBoost.MM"] = by_adaboost
        for way, run in ways.items():
            name = f"growths/{growth.name}/{seed}-{way.replace(' ', '-')}"
            compute = partial(run, growth, images, seed, kept.folder / name, display)
            label = {"growth": growth.name, "seed": seed, "way": way}
            found = kept(name, compute)
            accuracy = {f"{part}_accuracy": percent(found[f"{part}_error"]) for part in PARTS}
            runs.append(label | found | accuracy)
    return runs


def end_to_end(
    growth: Growth, images: Images, seed: int, folder: Path, display: Any
) -> dict[str, Any]:
    """Train the same network from the same weights end to end."""
    model = network(images, seed)
    result = train(
        model,
        losses,
        images.training(seed),
        epochs=growth.epochs,
        optimizer=adam(growth.variant.learning_rate),
        schedule=falling(growth.variant.decay),
        seed=seed,
        out=folder if growth.keep_state else None,
        test_batches=images.testing,
        evaluation_batches=images.reading,
        progress=display,
    )
    return training_summary(result, model, images)


def refined(
    growth: Growth, images: Images, seed: int, folder: Path, display: Any
) -> dict[str, Any]:
    """Train the grown network end to end."""
    model = network(images, seed)
    model.load_state_dict(read_state(folder.parent / f"{seed}-boosted" / "model.safetensors"))
    result = refine(
        model,
        images.training(seed),
        epochs=growth.refine_epochs,
        seed=seed,
        out=folder if growth.keep_state else None,
        test_batches=images.testing,
        evaluation_batches=images.reading,
        progress=display,
    )
    return training_summary(result, model, images)


def training_summary(result: Any, model: nn.Module, images: Images) -> dict[str, Any]:
    """What the report needs of a training end to end; a step updates every part of the chain."""
    pass_ctrl_c_on(result.status)
    parts = len(as_chain(model, next(iter(images.reading))[0]).parts)
    names = ("epoch", "step", "seconds", "train_error", "test_error")
    curve = [{name: row[name] for name in names} for row in result.curve]
    for row in curve:
        row["module_updates"] = parts * row["step"]
    return plain(
        {
            "status": result.status,
            "message": result.message,
            "curve": curve,
            "module_updates": parts * result.steps,
            "seconds": result.seconds,
            "parts": parts,
            "train_error": curve[-1]["train_error"],
            "test_error": curve[-1]["test_error"],
        }
    )


def by_adaboost(
    growth: Growth, images: Images, seed: int, folder: Path, display: Any
) -> dict[str, Any]:
    """Train as many independent networks of one block as the chain has parts, by AdaBoost.MM."""

    def make(number: int) -> nn.Module:
        return images.network(1000 * (seed + 1) + number, growth.weak)

    parts = len(as_chain(network(images, seed), next(iter(images.reading))[0]).parts)
    result = adaboost_mm(
        make,
        images.training(seed),
        parts,
        classes=images.classes,
        epochs=growth.variant.epochs,
        optimizer=adam(growth.variant.learning_rate),
        batch_size=images.task.batch_size,
        seed=seed,
    )
    pass_ctrl_c_on(result.status)
    curve, updates, seconds = [], 0, 0.0
    for one, error in zip(result.rounds, vote_errors(result.model, images), strict=True):
        updates, seconds = updates + one.updates, seconds + one.seconds
        curve.append(
            {"module_updates": updates, "seconds": seconds, "train_error": one.train_error}
            | {"test_error": error, "edge": one.edge, "alpha": one.alpha, "loss": one.loss}
        )
    last = curve[-1] if curve else {"train_error": None, "test_error": None}
    return plain(
        {
            "status": result.status,
            "message": result.message,
            "curve": curve,
            "module_updates": updates,
            "seconds": seconds,
            "train_error": last["train_error"],
            "test_error": last["test_error"],
        }
    )


@torch.no_grad()
def vote_errors(model: Any, images: Images) -> list[float]:
    """Test error of the first votes, for every number of them."""
    wrong = [0] * len(model.voters)
    for inputs, labels in images.testing:
        votes = torch.zeros(len(labels), images.classes, dtype=torch.float64, device=images.device)
        rows = torch.arange(len(labels), device=images.device)
        for number, (voter, alpha) in enumerate(zip(model.voters, model.alphas, strict=True)):
            votes[rows, voter(inputs).argmax(1)] += alpha
            wrong[number] += mistakes(votes, labels)
    return [count / len(images.testing.labels) for count in wrong]


def mistakes(votes: Tensor, labels: Tensor) -> int:
    """Number of wrong classes."""
    return int((votes.argmax(1) != labels).sum())
