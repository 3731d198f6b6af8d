"""The values of the recipe baityjesi2018, at every scale."""

from dataclasses import replace
from typing import Any

from lowland.reproduce.baityjesi2018_published import COURSE
from lowland.reproduce.baityjesi2018_settings import (
    Course,
    Flat,
    Glass,
    Quench,
    Settings,
    Task,
    Widths,
)

__all__ = ["settings"]

DIGITS = Task("digits", "mlp-64-128-10", 32)
OVER = Course(
    "digits", "over", DIGITS, steps=4000, seeds=5, replicas=4, cloned=(2000,),
    kept=(100, 1000, 4000),
)  # fmt: skip
UNDER = Course(
    "digits-2", "under", replace(DIGITS, model="mlp-64-2-10"), steps=3500, seeds=5, replicas=4,
    cloned=(1750,), kept=(100, 2000, 3500),
)  # fmt: skip
TOY = Course(
    "toy", "toy", replace(DIGITS, model="bruna-512"), "mse", learning_rate=5.0, steps=2000,
    seeds=5, noise_batches=20, replicas=4, cloned=(1000,),
)  # fmt: skip
SMALL = Course(
    "digits-16", "flat", replace(DIGITS, model="mlp-64-16-10"), steps=3000, seeds=1, waits=12,
    lags=20, losses=40, kept=(0, 30, 100, 500, 3000),
)  # fmt: skip


def settings(scale: str) -> Settings:
    """The values of a scale.

    ``smoke`` and ``laptop`` train perceptrons on the embedded digits, wide enough and too narrow
    to learn them, beside the exact curves of the p-spin: ``laptop`` judges all claims but C11, with
    five seeds.
    ``hour`` repeats the published run on CIFAR-10 and trains two architectures on two data sets,
    for C11, on one core. ``gpu`` adds ResNet-18 and the toy model with 10,000 hidden units;
    ``paper`` has as many updates as the paper's launch scripts, 10^6 in units of eta B n.

    Args:
        scale: Its name.

    Returns:
        The settings.

    Raises:
        ValueError: If there is no such scale.
    """
    if scale == "smoke":
        return smoke()
    if scale == "laptop":
        return Settings(
            scale,
            (OVER, UNDER, TOY, SMALL),
            Glass(),
            (Quench("digits", seeds=2), Quench("digits-2", cycles=())),
            (Flat("digits-16", examples=250),),
            Widths(DIGITS, seeds=5),
            threads=1,
        )
    if scale == "hour":
        return Settings(
            scale,
            (COURSE, *several(5000, 20000)),
            Glass(size=128, samples=6),
            (Quench("cifar10-conv", steps=60, line=9, pivots=3),),
            (Flat("cifar10-conv", exact=False, probes=4, examples=200),),
            Widths(replace(DIGITS, data="cifar10", examples=2000), steps=4000, seeds=2),
            threads=1,
        )
    if scale == "gpu":
        resnet = Course(
            "resnet-18", "over", Task("cifar10", "torchvision:resnet18", 100, evaluated=10000),
            learning_rate=0.01, steps=50000, waits=50, lags=100, keep_state=True,
            kept=(1000, 5000, 20000, 50000),
        )  # fmt: skip
        toy = Course(
            "toy-10000", "toy", Task("cifar10", "bruna-10000", 100, evaluated=10000), "mse",
            learning_rate=0.5, steps=200_000, seeds=5, waits=50, lags=100, keep_state=True,
            replicas=4, cloned=(100_000,), cloned_last=5000,
        )  # fmt: skip
        return Settings(
            scale,
            (COURSE, resnet, toy, *several(None, 50000)),
            Glass(size=256, samples=10, until=200.0),
            (Quench("resnet-18"),),
            (Flat("resnet-18", exact=False, examples=5000),),
            Widths(replace(DIGITS, data="cifar10"), (2, 4, 8, 16, 32, 64, 128, 512), steps=50000),
            device="auto",
        )
    if scale == "paper":
        return Settings(scale, paper(), Glass(size=512, samples=10, until=1000.0), device="auto")
    known = "'smoke', 'laptop', 'hour', 'gpu', 'paper'"
    raise ValueError(f"scale must be one of {known}; got {scale!r}.")


def smoke() -> Settings:
    """A little of everything that a laptop does."""
    short: dict[str, Any] = {
        "steps": 300,
        "seeds": 2,
        "waits": 12,
        "lags": 20,
        "losses": 30,
        "noise_batches": 5,
    }
    ends: dict[str, Any] = {
        "replicas": 2,
        "cloned": (150,),
        "cloned_last": 50,
        "kept": (100, 200, 300),
    }
    over = replace(OVER, **short | ends)
    under = replace(UNDER, **short | ends | {"kept": ()})
    toy = replace(TOY, **short | {"replicas": 0, "cloned": ()})
    small = replace(
        SMALL, task=replace(SMALL.task, model="mlp-64-4-10"), **short | {"seeds": 1},
        kept=(0, 100, 300),
    )  # fmt: skip
    glass = Glass(until=10.0, waits=(1.0, 2.0, 5.0), size=16, samples=2, simulated_until=4.0)
    return Settings(
        "smoke",
        (over, under, toy, small),
        glass,
        (Quench("digits", steps=20, line=5, cycles=(5,), pivots=2),),
        (Flat("digits-16", examples=100),),
        Widths(DIGITS, (1, 2, 8), steps=100, seeds=2),
        judged=False,
        samples=5,
        threads=1,
    )


def several(examples: int | None, steps: int) -> tuple[Course, ...]:
    """Two architectures on two data sets (claim C11)."""
    task = Task("cifar10", "conv1020-relu", 100, examples=examples)
    conv = Course(
        "cifar10-conv", "over", task, learning_rate=0.05, steps=steps, seeds=2, keep_state=True,
        replicas=2, cloned=(steps // 2,), kept=(steps // 100, steps // 4, steps // 2, steps),
    )  # fmt: skip
    plain = replace(conv, replicas=0, cloned=(), kept=())
    flat = replace(task, model="mlp-3072-128-10")
    gray = replace(task, data="mnist")
    return (
        conv,
        replace(plain, name="cifar10-mlp", task=flat, seeds=3),
        replace(plain, name="mnist-conv", task=gray),
        replace(plain, name="mnist-mlp", task=replace(gray, model="mlp-784-128-10"), seeds=3),
        replace(
            plain, name="cifar10-toy-10", kind="under", task=replace(task, model="bruna-10"),
            loss="mse", learning_rate=0.5,
        ),
    )  # fmt: skip


def paper() -> tuple[Course, ...]:
    """The paper's networks, each for 10^6 / (eta B) updates."""
    found = []
    for data in ("cifar10", "cifar100"):
        for model, kind, loss, rate in (
            ("conv1020-relu", "over", "ce", 0.01),
            ("alex6464", "over", "ce", 0.01),
            ("torchvision:resnet18", "over", "ce", 0.01),
            ("bruna-10", "under", "mse", 0.1),
            ("bruna-10000", "toy", "mse", 0.1),
        ):
            name = f"{data}-{model.removeprefix('torchvision:')}"
            found.append(
                Course(
                    name, kind, Task(data, model, 100), loss, rate, 0.5, round(1e6 / (rate * 100)),
                    seeds=1, waits=50, lags=100, losses=100, keep_state=True,
                )
            )  # fmt: skip
    return tuple(found)
