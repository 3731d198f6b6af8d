"""The values of the recipe huang2018, at every scale."""

from dataclasses import replace

from lowland.reproduce.huang2018_settings import (
    Checks,
    Collapse,
    Growth,
    Noise,
    Settings,
    Table,
    Task,
    Variant,
)

__all__ = ["settings"]

# Normal weights of variance 1 / fan-in: with 2 / fan-in the features double with every block.
INIT = "official"

DIGITS = Growth(
    "digits",
    Task("digits", "res-mlp-64-128-10x8", 100, INIT),
    Variant(epochs=8),
    epochs=12,
    refine_epochs=4,
    weak="res-mlp-64-128-10x1",
)
DEPTH = Growth(
    "depth", Task("digits", "res-mlp-64-128-10x30", 100, INIT), Variant(epochs=5), seeds=1
)

# A pass with two later blocks in every head updates 3.84 times as many modules as one with none;
# training end to end gets as many module updates, those of the refinement too.
# Section 9 of the specification, what is most likely to close the gap first.
WAYS = (
    Variant("plain head"),
    Variant("2 later blocks in the head", head="downstream-2"),
    Variant("deep head", head="deep"),
    Variant("4 blocks at a time", module_size=4),
    Variant("2 later blocks, transport", head="downstream-2", transport=1.0),
    Variant("in parallel", schedule="parallel"),
    Variant("plateau, twice the budget", stop="plateau"),
    Variant("blocks begin at random", init="default"),
    Variant("first block of every later stage in the head", head="downstream"),
    Variant("4 later blocks in the head", head="downstream-4"),
    Variant("paper's stop, twice the budget", stop="paper"),
    Variant("exponential loss", objective="exp"),
    Variant("deep head, 2 blocks at a time", head="deep", module_size=2),
    Variant("transport", transport=1.0),
    Variant("deeper head", head="deep-2"),
    Variant("deep head, in parallel", head="deep", schedule="parallel"),
    Variant("blocks begin as copies", init="copy_previous"),
)
MANY = 9  # of these an hour has time for

# Section 3.4 of the specification: learning rate, decay, threshold and first edge of the paper.
PAPER = {
    "svhn": Variant("published", 20, stop="paper", gamma_threshold=0.001, edge_start=0.75,
                    learning_rate=0.004, decay=9e-5, objective="exp", init="default"),
    "cifar10": Variant("published", 40, stop="paper", gamma_threshold=0.007, edge_start=0.93,
                       learning_rate=0.014, decay=3.46e-5, objective="exp", init="default"),
}  # fmt: skip


def settings(scale: str) -> Settings:
    """The values of a scale.

    ``smoke`` and ``laptop`` grow residual perceptrons on the embedded digits: ``laptop`` judges
    C1 to C4 and C6 to C12 and reports C5 and C13. ``hour`` grows a narrow network of 25 blocks on
    15,000 images of CIFAR-10 beside its baselines, and tries the variants of section 9, on two
    cores. ``gpu`` does both with the full data set and width, and SVHN; ``paper`` has the paper's
    hyperparameters, its network of 15 filters and its perceptron for MNIST.

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
        noise = Noise(replace(DIGITS.task, model="res-mlp-64-128-10x4"), Variant(epochs=6))
        growths = (DIGITS, DEPTH)
        return Settings(scale, growths, None, Checks(), Collapse(), noise, threads=1)
    if scale == "hour":
        return hour()
    if scale == "gpu":
        wide = Task("cifar10", "pad-resnet-50", 100, evaluated=10000)
        way = Variant(epochs=8, head="downstream-2")
        base = Growth("cifar10", wide, way, 1, 40, 9, "pad-resnet-4x16", keep_state=True)
        svhn = replace(base, name="svhn", task=replace(wide, data="svhn"))
        table = Table(wide, budget(WAYS, 10))
        return Settings(scale, (base, svhn), table, device="auto")
    if scale == "paper":
        flat = Task("mnist", "res-mlp-784-1024-10x30", 100, INIT, evaluated=10000)
        mnist = Growth("depth-mnist", flat, Variant(epochs=2), 1, 2, keep_state=True)
        grown = [
            Growth(name, Task(name, "pad-resnet-52x15", 100, evaluated=10000), variant, 1,
                   2 * variant.epochs, variant.epochs, "pad-resnet-4x15", keep_state=True)
            for name, variant in PAPER.items()
        ]  # fmt: skip
        return Settings(scale, (*grown, mnist), device="auto")
    known = "'smoke', 'laptop', 'hour', 'gpu', 'paper'"
    raise ValueError(f"scale must be one of {known}; got {scale!r}.")


def smoke() -> Settings:
    """A little of everything that a laptop does."""
    task = replace(DIGITS.task, model="res-mlp-64-128-10x3", examples=500)
    small = replace(DIGITS, task=task, variant=Variant(epochs=2), epochs=3, refine_epochs=1)
    deep = replace(
        DEPTH, task=replace(task, model="res-mlp-64-128-10x6"), variant=Variant(epochs=2)
    )
    return Settings(
        "smoke",
        (replace(small, seeds=1), deep),
        None,
        Checks("pad-resnet-26", images=2, turns=2),
        Collapse(("res-mlp-64-64-10x5",), epochs=2),
        Noise(task, Variant(epochs=2)),
        judged=False,
        threads=1,
    )


def hour() -> Settings:
    """About an hour of two cores."""
    task = Task("cifar10", "pad-resnet-50-8", 100, examples=15000, evaluated=2000)
    way = Variant(epochs=2, head="downstream-2")
    grown = Growth("cifar10-narrow", task, way, 1, 11, 3, keep_state=True)
    few = replace(task, examples=3000, tested=5000)
    models = tuple(f"res-mlp-64-256-10x{blocks}" for blocks in (5, 15, 30))
    collapse = Collapse(models, rates=(1e-3, 1e-2), epochs=14)
    checks = Checks(images=20, fitted=5, trees=((1.0, 1.0), (0.3, 0.5)))
    table = Table(few, budget(WAYS[:MANY], 2))
    return Settings("hour", (grown,), table, checks, collapse)


def budget(variants: tuple[Variant, ...], epochs: int) -> tuple[Variant, ...]:
    """Give all variants the same epochs per block; those that may stop before it, twice as many."""
    return tuple(
        replace(variant, epochs=epochs * (1 if variant.stop == "fixed" else 2))
        for variant in variants
    )
