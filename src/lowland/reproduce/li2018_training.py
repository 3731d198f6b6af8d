"""Train the networks of the recipe, by the maximum principle and by what it is compared with."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lowland.control import (
    BinaryConnect,
    DiscreteMSA,
    TernaryWeightNetwork,
    Together,
    annealing,
    discrete_parameters,
    discretize,
    float_parameters,
    glorot_learning_rates,
    nonzero_share,
    squared_hinge,
    train_msa,
    use_latent_weights,
)
from lowland.control.schedules import cosine
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images, channels_last, losses, percent
from lowland.reproduce.images import Task as Shown
from lowland.reproduce.li2018_packing import measure_packing
from lowland.reproduce.li2018_settings import Arm, Task
from lowland.results import Status, plain
from lowland.training import evaluate, isolated_rng, recalibrate, train

__all__ = ["LOSSES", "check_arm", "images_of", "train_arm"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared_hinge": squared_hinge,
    "cross_entropy": losses,
}


def images_of(task: Task, **source: Any) -> Images:
    """Read a data set and hold the last images out; pixels lie between 0 and 1, as in the code.

    Args:
        task: What is trained.
        **source: ``device``, ``data`` and ``download``.

    Returns:
        The images.

    Raises:
        ValueError: If nothing would be left to train on.
    """
    shown = Shown(task.data, task.model, task.batch_size, evaluated=task.measured)
    whole = Images.of(shown, normalize=False, **source)
    images, labels = whole.train
    left = len(labels) - task.held_out
    if left < task.batch_size:
        raise ValueError(
            f"{task.name} must keep a batch of {task.batch_size} images to train on; "
            f"{task.held_out} of {len(labels)} are held out. Lower held_out."
        )
    some = slice(0, left if task.examples is None else min(left, task.examples))
    return replace(
        whole,
        train=(images[some], labels[some]),
        held_out=(images[left:], labels[left:]),
        drop_last=task.paper_exact,
    )


def check_arm(arm: Arm) -> None:
    """Refuse a method or a loss that does not exist.

    Args:
        arm: Way of training.

    Raises:
        ValueError: If there is no such method or loss.
    """
    methods = ("msa", *COMPARATORS)
    for what, name, known in (("method", arm.method, methods), ("loss", arm.loss, LOSSES)):
        if name not in known:
            raise ValueError(f"a {what} must be one of {', '.join(known)}; got {name!r}.")


def train_arm(
    task: Task, arm: Arm, images: Images, seed: int, folder: Path, progress: Any = False
) -> dict[str, Any]:
    """Train one network; the same call after a kill goes on where it was.

    Args:
        task: What is trained.
        arm: Way of training.
        images: Its data.
        seed: Of weights, order and draws.
        folder: For the state to resume from.
        progress: Display.

    Returns:
        Plain values: how it ended, accuracies in percent after the last update with statistics of
        batch norm as the method leaves them, the nonzero share, and the curve.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with the state saved.
    """
    loss_fn, model = LOSSES[arm.loss], channels_last(images.network(seed))
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    tests, measured = images.testing, images.reading
    log = Validation(images, model, loss_fn, folder) if task.held_out else None
    options: dict[str, Any] = {
        "epochs": task.epochs,
        "seed": seed,
        "out": folder,
        "progress": progress,
        "test_batches": tests,
        "evaluation_batches": measured,
        "evaluate_every": task.evaluate_every,
        "precision": task.precision,
        "log": log,
    }
    if arm.method == "msa":
        result = by_msa(task, arm, images.training(seed), model, loss_fn, options)
        seconds = result.summary["seconds"]
    else:
        prepare, share = COMPARATORS[arm.method]
        optimizer, schedule = prepare(arm, model, task.epochs * len(images.training(0)), seed)
        batches = images.training(seed)
        result = train(
            model,
            loss_fn,
            batches,
            optimizer=optimizer,
            schedule=schedule,
            measure=lambda module: {"nonzero": share(module)},
            **options,
        )
        seconds = result.seconds
        if result.status is Status.FINISHED:
            with isolated_rng(seed, "statistics", batches=batches, epoch=0):
                recalibrate(model, batches)
    pass_ctrl_c_on(result.status)
    found = {
        "task": task.name,
        "arm": arm.name,
        "method": arm.method,
        "values": arm.values if arm.method in ("msa", "bop") else (),
        "lam": arm.lam,
        "seed": seed,
        "epochs": task.epochs,
        "status": result.status,
        "message": result.message,
        "steps": result.steps,
        "weights": weights,
        "seconds": seconds,
        "nonzero": nonzero_share(model) if arm.method == "msa" else result.curve[-1]["nonzero"],
    }
    for part, where in (("train", measured), ("test", tests)):
        value = evaluate(model, loss_fn, where)
        found |= {f"{part}_loss": value.loss, f"{part}_accuracy": percent(value.error)}
    found["packing"] = []
    if arm.method == "msa" and seed == 0 and result.status is Status.FINISHED:
        felt = images.to_read((images.train[0][: task.swept], images.train[1][: task.swept]))
        found["packing"] = measure_packing(model, loss_fn, felt, tests, folder)
    curve = [curve_row(row) for row in result.curve]
    return plain(
        found | {"curve": curve} | best_by_validation(curve, [] if log is None else log.rows())
    )


def by_msa(
    task: Task, arm: Arm, batches: Any, model: nn.Module, loss_fn: Any, options: dict[str, Any]
) -> Any:
    """Train by the room's driver."""
    return train_msa(
        model,
        loss_fn,
        batches,
        values=arm.values,
        alpha=arm.alpha,
        decay=arm.decay,
        lam=arm.lam,
        target_nonzero=arm.target_nonzero,
        paper_exact=task.paper_exact,
        **options,
    )


def curve_row(row: dict[str, Any]) -> dict[str, Any]:
    """What a row of a curve says that the report needs."""
    return {
        "step": row["step"],
        "epoch": row["epoch"],
        "train_loss": row["train_loss"],
        "test_loss": row["test_loss"],
        "train_accuracy": percent(row["train_error"]),
        "test_accuracy": percent(row["test_error"]),
        "nonzero": row["nonzero"],
        "seconds": row["seconds"],
    }


class Validation:
    """Measures the accuracy on held-out images whenever the curve gets a row, into a file.

    Args:
        images: Data.
        model: The network in training.
        loss_fn: One loss per example.
        folder: Of the run.
    """

    def __init__(self, images: Images, model: nn.Module, loss_fn: Any, folder: Path) -> None:
        self.batches = images.to_read(images.held_out or images.tests)
        self.model, self.loss_fn = model, loss_fn
        self.file = folder / "validation.jsonl"

    def __call__(self, values: dict[str, Any], step: int) -> None:
        """Take a line of the metrics."""
        if "test_error" in values:
            found = evaluate(self.model, self.loss_fn, self.batches)
            row = {"step": step, "validation_accuracy": percent(found.error)}
            with self.file.open("a") as stream:
                stream.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Read what was measured; a step that was run twice counts once."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [*{row["step"]: row for row in map(json.loads, complete(lines))}.values()]


def complete(lines: list[str]) -> Iterator[str]:
    """Leave out lines that a kill cut off."""
    yield from (line for line in lines if line.startswith("{") and line.endswith("}"))


def best_by_validation(
    curve: list[dict[str, Any]], validation: list[dict[str, Any]]
) -> dict[str, Any]:
    """The epoch of the best validation accuracy, and the test accuracy there."""
    known = {row["step"]: row["validation_accuracy"] for row in validation}
    rows = [row | {"validation": known[row["step"]]} for row in curve if row["step"] in known]
    if not rows:
        return {"best_epoch": None, "best_validation": None, "best_test_accuracy": None}
    top = max(rows, key=lambda row: row["validation"])
    return {
        "best_epoch": top["epoch"],
        "best_validation": top["validation"],
        "best_test_accuracy": top["test_accuracy"],
    }


def prepare_adam(arm: Arm, model: nn.Module, steps: int, seed: int) -> tuple[Any, Any]:
    """Float weights."""
    return partial(Adam, lr=arm.learning_rate), along_cosine(steps)


def prepare_binaryconnect(arm: Arm, model: nn.Module, steps: int, seed: int) -> tuple[Any, Any]:
    """Signs of latent weights."""
    use_latent_weights(model, BinaryConnect)
    groups = glorot_learning_rates(model, arm.learning_rate)
    return lambda _: Adam(groups), along_cosine(steps)


def prepare_twn(arm: Arm, model: nn.Module, steps: int, seed: int) -> tuple[Any, Any]:
    """Three values from latent weights, with a scale per layer."""
    use_latent_weights(model, TernaryWeightNetwork)
    return partial(Adam, lr=arm.learning_rate), along_cosine(steps)


def prepare_bop(arm: Arm, model: nn.Module, steps: int, seed: int) -> tuple[Any, Any]:
    """A fixed threshold on the average: one more setting of the same optimizer."""
    discretize(model, arm.values, seed=seed)

    def make(_: Any) -> Together:
        discrete = DiscreteMSA(
            discrete_parameters(model),
            rho=arm.flip_at / 2,
            alpha=arm.alpha,
            threshold="absolute",
            schedule=annealing(steps),
        )
        floats = Adam(float_parameters(model), arm.learning_rate)
        return Together(discrete, floats, cosine(steps))

    return make, None


def along_cosine(steps: int) -> Callable[[Optimizer], LambdaLR]:
    """Let learning rates fall along half a cosine."""
    return lambda optimizer: LambdaLR(optimizer, cosine(steps))


@torch.no_grad()
def share_seen(model: nn.Module) -> float:
    """Share of nonzero weights among those that linear layers and convolutions see."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    count = sum(int(layer.weight.count_nonzero()) for layer in layers)
    return count / sum(layer.weight.numel() for layer in layers)


COMPARATORS: dict[str, tuple[Callable[..., tuple[Any, Any]], Callable[[nn.Module], float]]] = {
    "adam": (prepare_adam, share_seen),
    "binaryconnect": (prepare_binaryconnect, share_seen),
    "twn": (prepare_twn, share_seen),
    "bop": (prepare_bop, nonzero_share),
}
