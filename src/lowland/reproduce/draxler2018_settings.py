"""The settings of the recipe draxler2018, at every scale."""

from dataclasses import dataclass, replace

from lowland.connectivity import SCHEDULES, Cycle, Schedule
from lowland.reproduce.draxler2018_xor import Xor

__all__ = ["Settings", "Training", "settings"]


@dataclass(frozen=True)
class Training:
    """How the minima are trained: SGD without weight decay, as in the published configurations.

    Attributes:
        epochs: Passes over the training set.
        batch_size: Images per batch.
        learning_rate: At first.
        momentum: Of SGD.
        decay_at: Fractions of the run after which the learning rate falls by 10.
        augment: None, or ``"crop-flip"``.
        init: ``"he"``, or ``"official"`` for the published N(0, 1 / fan-in).
    """

    epochs: int
    batch_size: int
    learning_rate: float = 0.1
    momentum: float = 0.9
    decay_at: tuple[float, ...] = (0.5, 0.75)
    augment: str | None = None
    init: str = "he"


@dataclass(frozen=True)
class Settings:
    """Every value of the recipe.

    Attributes:
        scale: The scale the values belong to.
        data: Data set.
        models: Architectures.
        minima: Networks per architecture; every two of them are a pair.
        training: How they are trained.
        schedule: How paths are found.
        path_batch_size: Images per batch while a path is relaxed.
        backend: How pivots are run; a name gives the same bits on every run.
        line_samples: Points between the ends of a straight line.
        reported_examples: Training images that reported losses are measured on; None for all.
        plane: Grid points in each direction of the plane through the first path; 0 for none.
        xor: The experiment with the XOR network, or None.
        rule: Which of the specification's rules for C1 and C2 applies: ``"digits"``,
            ``"cifar"`` or ``"paper"``.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    scale: str
    data: str
    models: tuple[str, ...]
    minima: int
    training: Training
    schedule: Schedule
    path_batch_size: int = 128
    backend: str = "auto"
    line_samples: int = 24
    reported_examples: int | None = None
    plane: int = 25
    xor: Xor | None = None
    rule: str = "digits"
    device: str = "cpu"


def settings(scale: str) -> Settings:
    """The values of a scale.

    ``smoke`` and ``laptop`` join small perceptrons on the embedded digits: they can show C1, C2,
    C4, C5, C6, C8 and C10. ``hour`` joins two ResNet-8 on CIFAR-10 on two cores, with a sixteenth
    of the paper's steps. ``gpu`` does the same with ResNet-20 and the paper's 14 cycles at
    a tenth of their length. ``paper`` is one pair of the paper's ResNet-20, with
    the published lengths and batches.

    Args:
        scale: Its name.

    Returns:
        The settings.

    Raises:
        ValueError: If there is no such scale.
    """
    if scale == "smoke":
        return Settings(
            scale,
            "digits",
            ("mlp-64-32-10",),
            minima=3,
            training=Training(60, 128),
            schedule=replace(SCHEDULES["laptop"](), cycles=short_cycles(50), samples=4),
            backend="vmap",
            plane=9,
            xor=Xor(hidden=(2, 4), repetitions=3, steps=800),
        )
    if scale == "laptop":
        return Settings(
            scale,
            "digits",
            ("mlp-64-32-32-10",),
            minima=3,
            training=Training(60, 128),
            schedule=SCHEDULES["laptop"](),
            backend="vmap",
            xor=Xor(hidden=(2, 3, 4), repetitions=3, steps=2000),
        )
    if scale == "hour":
        cycles = (
            Cycle(300, 0.1, insert="equal", count=5),
            Cycle(300, 0.1, count=1),
            Cycle(300, 0.01, count=1),
            Cycle(100, 0.001, count=0),
        )
        return Settings(
            scale,
            "cifar10",
            ("resnet-8",),
            minima=2,
            training=Training(10, 128, augment="crop-flip"),
            schedule=Schedule(cycles, samples=3, examples=1000),
            backend="loop",
            line_samples=9,
            reported_examples=5000,
            plane=9,
            rule="cifar",
        )
    if scale == "gpu":
        return Settings(
            scale,
            "cifar10",
            ("resnet-20",),
            minima=3,
            training=Training(30, 128, augment="crop-flip"),
            schedule=replace(SCHEDULES["laptop"](), calibration=5000),
            rule="paper",
            device="auto",
        )
    if scale == "paper":
        return Settings(
            scale,
            "cifar10",
            ("resnet-20",),
            minima=2,
            training=Training(164, 128, augment="crop-flip", init="official"),
            schedule=SCHEDULES["paper"](),
            path_batch_size=512,
            rule="paper",
            device="auto",
        )
    known = "'smoke', 'laptop', 'hour', 'gpu', 'paper'"
    raise ValueError(f"scale must be one of {known}; got {scale!r}.")


def short_cycles(steps: int) -> tuple[Cycle, ...]:
    """Five cycles that touch everything."""
    rates = (0.1, 0.1, 0.1, 0.01, 0.001)
    return (
        Cycle(steps, rates[0], insert="equal", count=3),
        *(Cycle(steps, rate) for rate in rates[1:]),
    )
