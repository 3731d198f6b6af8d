"""The settings of the recipe draxler2018, at every scale."""

from dataclasses import dataclass, replace

from lowland.connectivity import SCHEDULES, Cycle, Schedule
from lowland.reproduce.draxler2018_published import TABLE
from lowland.reproduce.draxler2018_xor import Xor

__all__ = ["Network", "Settings", "Training", "settings"]


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
class Network:
    """An architecture whose minima are joined.

    Attributes:
        name: As :func:`lowland.models.build` knows it.
        minima: Networks trained, each from a seed of its own.
        pairs: Pairs that are joined, in the paper's order; None for all.
        judged: Whether the claims on paths ask for it; others are only compared by size (C3).
        as_published: Whether one pair is also relaxed with batch-norm statistics as coordinates.
        curvature: Whether the Hessian is looked at along the first path (C9); for perceptrons.
        compared: Whether one pair is also joined by curves, and by a line after alignment.
        epochs: Passes over the training set, instead of those of the recipe.
        shorten: Divides the steps of every cycle.
    """

    name: str
    minima: int = 4
    pairs: int | None = None
    judged: bool = True
    as_published: bool = False
    curvature: bool = False
    compared: bool = False
    epochs: int | None = None
    shorten: int = 1

    def within(self, settings: "Settings") -> "Settings":
        """The recipe's settings as they are for this network."""
        cycles = [replace(c, steps=c.steps // self.shorten) for c in settings.schedule.cycles]
        return replace(
            settings,
            training=replace(settings.training, epochs=self.epochs or settings.training.epochs),
            schedule=replace(settings.schedule, cycles=tuple(cycles)),
        )


@dataclass(frozen=True)
class Settings:
    """Every value of the recipe.

    Attributes:
        scale: The scale the values belong to.
        data: Data set.
        networks: Architectures.
        training: How they are trained.
        schedule: How paths are found.
        sizes: Names of networks from narrow to wide, or from shallow to deep (C3).
        path_batch_size: Images per batch while a path is relaxed.
        backend: How pivots are run; a name gives the same bits on every run.
        line_samples: Points between the ends of a straight line.
        reported_examples: Training images that reported losses are measured on; None for all.
        plane: Grid points in each direction of the plane through the first path; 0 for none.
        curve_steps: Steps of each curve of a comparison.
        xor: The experiment with the XOR network, or None.
        rule: Which of the specification's rules for C1 and C2 applies: ``"digits"``,
            ``"cifar"`` or ``"paper"``.
        threads: CPU threads, None for as many as there are.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    scale: str
    data: str
    networks: tuple[Network, ...]
    training: Training
    schedule: Schedule
    sizes: tuple[tuple[str, ...], ...] = ()
    path_batch_size: int = 128
    backend: str = "auto"
    line_samples: int = 24
    reported_examples: int | None = None
    plane: int = 25
    curve_steps: int = 1000
    xor: Xor | None = None
    rule: str = "digits"
    threads: int | None = None
    device: str = "cpu"


def settings(scale: str) -> Settings:
    """The values of a scale.

    ``smoke`` and ``laptop`` join small perceptrons on the embedded digits: ``laptop`` judges C1 to
    C10. ``hour`` joins four minima each of CNN-12, CNN-48 and ResNet-8 on CIFAR-10 on two cores,
    with a sixteenth of the paper's steps, and for ResNet-8 a quarter of that. ``gpu`` has ten of
    the paper's architectures, four minima of ResNet-20 among them, with the paper's 14 cycles at a
    tenth of their length. ``paper`` has its fourteen architectures with ten minima each, at the
    published lengths and batches; CIFAR-100 by ``--set data=cifar100``.

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
            (
                Network("mlp-64-32-10", 3, compared=True, curvature=True),
                Network("mlp-64-8-10", 2, judged=False),
                Network("mlp-bn-64-16-10", 2, judged=False, as_published=True),
            ),
            training=Training(20, 128),
            schedule=replace(SCHEDULES["laptop"](), cycles=short_cycles(20), samples=4),
            sizes=(("mlp-64-8-10", "mlp-64-32-10"),),
            backend="vmap",
            plane=9,
            curve_steps=60,
            xor=Xor(hidden=(2, 4), repetitions=3, steps=800),
            threads=1,
        )
    if scale == "laptop":
        return Settings(
            scale,
            "digits",
            (
                Network("mlp-64-32-32-10", pairs=3),
                Network("mlp-64-8-10", 2, judged=False, shorten=4),
                Network("mlp-64-16-10", 2, judged=False, shorten=4),
                Network("mlp-64-32-10", 2, judged=False, shorten=4, compared=True),
                Network("mlp-64-12-10", 2, judged=False, epochs=300, curvature=True),
                Network("mlp-bn-64-32-10", 2, judged=False, shorten=4),
            ),
            training=Training(60, 128),
            schedule=SCHEDULES["laptop"](),
            sizes=(("mlp-64-8-10", "mlp-64-16-10", "mlp-64-32-10"),),
            backend="vmap",
            curve_steps=500,
            xor=Xor(hidden=(2, 4), repetitions=3, steps=1000),
            threads=1,
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
            (
                Network("cnn-12"),
                Network("cnn-48", pairs=3),
                Network("resnet-8", pairs=3, epochs=5),
            ),
            training=Training(10, 128, augment="crop-flip"),
            schedule=Schedule(cycles, samples=3, examples=1000),
            sizes=(("cnn-12", "cnn-48"),),
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
            (
                Network("resnet-20", compared=True, as_published=True),
                *(Network(name, 2) for name in GPU_NETWORKS),
            ),
            training=Training(30, 128, augment="crop-flip"),
            schedule=replace(SCHEDULES["laptop"](), calibration=5000),
            sizes=SIZES,
            rule="paper",
            device="auto",
        )
    if scale == "paper":
        return Settings(
            scale,
            "cifar10",
            tuple(Network(row.model, 10, pairs=18) for row in TABLE if row.data == "cifar10"),
            training=Training(164, 128, augment="crop-flip", init="official"),
            schedule=SCHEDULES["paper"](),
            sizes=SIZES,
            path_batch_size=512,
            rule="paper",
            device="auto",
        )
    known = "'smoke', 'laptop', 'hour', 'gpu', 'paper'"
    raise ValueError(f"scale must be one of {known}; got {scale!r}.")


GPU_NETWORKS = (
    "cnn-12", "cnn-24", "cnn-36", "cnn-48", "cnn-96", "cnn-48x2", "cnn-48x3", "resnet-8",
    "resnet-32",
)  # fmt: skip
SIZES = (
    ("cnn-12", "cnn-24", "cnn-36", "cnn-48", "cnn-96"),
    ("cnn-48", "cnn-48x2", "cnn-48x3"),
    ("resnet-8", "resnet-20", "resnet-32"),
)


def short_cycles(steps: int) -> tuple[Cycle, ...]:
    """Five cycles that touch everything."""
    rates = (0.1, 0.1, 0.1, 0.01, 0.001)
    return (
        Cycle(steps, rates[0], insert="equal", count=3),
        *(Cycle(steps, rate) for rate in rates[1:]),
    )
