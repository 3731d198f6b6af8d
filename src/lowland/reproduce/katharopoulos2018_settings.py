"""The settings of the recipe katharopoulos2018, at every scale."""

from dataclasses import dataclass, replace

from lowland.reproduce.images import Task
from lowland.reproduce.katharopoulos2018_noise import Noise

__all__ = ["FineTuning", "Race", "Settings", "Task", "Variance", "settings"]


@dataclass(frozen=True)
class Variance:
    """How much variance each score takes away in the course of a training with uniform batches.

    Attributes:
        task: What is learned.
        looks: Updates after which everything is measured.
        pool: Images in the pool.
        size: Draws from it.
        draws: Repetitions.
        seeds: Trainings.
        learning_rate: At first.
        momentum: Of SGD.
        weight_decay: Of SGD.
        decay_at: Shares of the training after which the learning rate falls to a fifth.
        timed: Images whose scores are timed.
    """

    task: Task
    looks: tuple[int, ...]
    pool: int = 512
    size: int = 32
    draws: int = 30
    seeds: int = 3
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_at: tuple[float, ...] = (0.4, 0.8)
    timed: int = 512


@dataclass(frozen=True)
class FineTuning:
    """A backbone trained on some classes, before the race is about the others.

    Attributes:
        data: Data set of the backbone.
        classes: The first so many classes are the backbone's; the others are the race's. All
            classes for both where the data sets differ.
        steps: Updates of the backbone.
        learning_rate: Of the backbone.
    """

    data: str
    classes: int
    steps: int
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Race:
    """Arms, budgets and seeds on one task.

    Attributes:
        name: ``"images"``, ``"fine-tuning"`` or ``"sequences"``.
        task: What is learned.
        steps: Updates of the uniform arm; they set all three budgets.
        clocks: Budgets: ``"steps"``, ``"cost"`` (modelled) and ``"seconds"``.
        grid: Arms that run at every learning rate, under all budgets but wall clock.
        tuned: Arms that run under these budgets at their tuned learning rate only.
        clocked: Arms that run at equal wall clock, at their tuned learning rate.
        rates: Learning rates.
        tuning_seeds: Seeds of their own that choose the rate of each arm, at equal modelled cost;
            with 0, the rate for a seed is chosen by the other seeds of the race.
        tuning_share: Length of the tuning runs, as a share of the budget.
        seeds: Seeds of the race.
        presample: Pool over batch.
        rule: ``"v1"`` takes the square root of tau, as the paper's experiments did.
        threshold: Of tau, in the units of ``rule``; None for the paper's formula.
        optimizer: ``"sgd"`` or ``"adam"``.
        momentum: Of SGD.
        weight_decay: Of SGD.
        clip: Largest norm of the gradient, or None.
        decay_at: Shares of the budget after which the learning rate falls to a fifth.
        evaluations: Looks at the losses.
        turn: Seconds of a turn.
        seconds: The wall-clock budget; None for what ``steps`` uniform updates took.
        precision: ``"float32"`` or ``"bf16"``.
        flush_denormals: Whether a CPU takes numbers below the smallest normal one for zero. Long
            sequences make many of them; a pixel LSTM then trains 7 to 10 times faster.
        pretrained: The backbone, if there is one.
    """

    name: str
    task: Task
    steps: int
    clocks: tuple[str, ...] = ("steps", "cost", "seconds")
    grid: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    clocked: tuple[str, ...] = ()
    rates: tuple[float, ...] = (0.1,)
    tuning_seeds: int = 0
    tuning_share: float = 1.0
    seeds: int = 5
    presample: float = 3.0
    rule: str = "v3"
    threshold: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    decay_at: tuple[float, ...] = (0.4, 0.8)
    evaluations: int = 8
    turn: float = 0.02
    seconds: float | None = None
    precision: str = "float32"
    flush_denormals: bool = False
    pretrained: FineTuning | None = None


@dataclass(frozen=True)
class Settings:
    """Every value of the recipe.

    Attributes:
        scale: The scale the values belong to.
        races: The races.
        variance: The experiment of the paper's Figures 1 and 2, or None.
        noise: The noise floor of softmax regression, or None.
        judged_by: Budget that decides where the paper has equal wall clock: ``"seconds"``, or
            ``"cost"`` where steps are so short that Python's own time decides the clock.
        factor: How much lower the training loss must be in C6.
        threads: CPU threads, None for as many as there are.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    scale: str
    races: tuple[Race, ...]
    variance: Variance | None
    noise: Noise | None
    judged_by: str = "seconds"
    factor: float = 1.5
    threads: int | None = None
    device: str = "auto"


DIGITS = Task("digits", "mlp-64-128-128-10", 32)
ROWS = Task("digits", "lstm-rows-32", 32)
TUNING = Task("digits", "mlp-64-128-128-5", 16)
PIXELS = Task("mnist", "lstm-permuted-128", 32, evaluated=10000)
WIDE = Task("cifar10", "wrn-28-2", 128, init="glorot", augment="crop-flip", evaluated=10000)


def settings(scale: str) -> Settings:
    """The values of a scale.

    ``smoke`` and ``laptop`` race on the embedded digits, on one thread: a perceptron, a backbone
    that is fine-tuned, and an LSTM that reads rows. They can show C1, C2, C4, C5 and C8 to C12.
    ``hour`` races small wide ResNets on a part of CIFAR-10 at equal wall clock, on two cores: C6.
    ``gpu`` has the paper's WRN-28-2, pixel LSTM and fine-tuning with shorter schedules, ``paper``
    its lengths, batches and baselines; of its data sets MIT67 and the backbone of ImageNet are not
    at hand, so that fine-tuning goes from CIFAR-100 to CIFAR-10.

    Args:
        scale: Its name.

    Returns:
        The settings.

    Raises:
        ValueError: If there is no such scale.
    """
    scales = {"smoke": smoke, "laptop": laptop, "hour": hour, "gpu": gpu, "paper": paper}
    if scale not in scales:
        known = ", ".join(f"{name!r}" for name in scales)
        raise ValueError(f"scale must be one of {known}; got {scale!r}.")
    return scales[scale]()


def laptop() -> Settings:
    """Digits: the calibration of the specification, with at least five seeds."""
    images = Race(
        "images",
        DIGITS,
        steps=320,
        grid=("uniform", "replacement", "paper", "default", "larger"),
        tuned=("subset",),
        clocked=("uniform", "paper", "default"),
        rates=(0.1, 0.2),
        evaluations=4,
    )
    fine_tuning = Race(
        "fine-tuning",
        TUNING,
        steps=250,
        clocks=("cost", "seconds"),
        grid=("uniform", "paper"),
        clocked=("uniform", "paper", "frozen-uniform", "frozen-paper"),
        rates=(0.05, 0.1),
        rule="v1",
        threshold=2.0,
        decay_at=(),
        evaluations=5,
        pretrained=FineTuning("digits", 5, 300),
    )
    sequences = Race(
        "sequences",
        ROWS,
        steps=160,
        clocks=("cost", "seconds"),
        grid=("uniform", "paper", "loss"),
        clocked=("uniform", "paper"),
        rates=(0.04,),  # the best of 0.01, 0.02, 0.04 for all arms, on three other seeds
        presample=4.0,
        rule="v1",
        threshold=1.8,
        optimizer="adam",
        clip=1.0,
        decay_at=(),
        evaluations=5,
    )
    return Settings(
        "laptop",
        (images, fine_tuning, sequences),
        Variance(DIGITS, (0, 50, 200, 800, 1200)),
        Noise(16, 1600),
        judged_by="cost",
        threads=1,
        device="cpu",
    )


def smoke() -> Settings:
    """The same in seconds: everything runs, little is shown."""
    whole = laptop()
    images, fine_tuning, sequences = whole.races
    arms = ("uniform", "replacement", "paper", "default")
    return replace(
        whole,
        scale="smoke",
        races=(
            replace(images, steps=100, rates=(0.2,), grid=arms, tuned=(), seeds=2),
            replace(fine_tuning, steps=30, rates=(0.05,), seeds=2),
            replace(sequences, steps=30, seeds=2),
        ),
        variance=Variance(DIGITS, (0, 50, 100), draws=5, seeds=1, timed=128),
        noise=Noise(4, 200, order=("iid",), schemes=("multinomial",)),
    )


def hour() -> Settings:
    """A part of CIFAR-10 and a small wide ResNet: equal wall clock on two cores."""
    task = Task(
        "cifar10", "wrn-10-1", 64, init="glorot", examples=5000, evaluated=2000, tested=2000
    )
    # Of 5,000 images none is known after 150 s (1.2 nats and more): nothing to choose.
    race = Race(
        "images",
        replace(task, examples=1000, evaluated=1000),
        steps=3000,
        clocked=("uniform", "paper", "default"),
        rates=(0.05, 0.1),
        tuning_seeds=1,
        tuning_share=0.3,
        weight_decay=5e-4,
        evaluations=12,
        turn=1.0,
        seconds=150.0,
    )
    return Settings(
        "hour",
        (race,),
        Variance(
            task, (0, 200, 500, 1000, 2000), 1024, 128, 10, seeds=1, weight_decay=5e-4, timed=64
        ),
        Noise(16, 6000),
        device="cpu",
    )


def gpu() -> Settings:
    """The paper's networks with shortened schedules."""
    whole = paper()
    images, fine_tuning, sequences = whole.races[0], whole.races[2], whole.races[3]
    return replace(
        whole,
        scale="gpu",
        races=(
            replace(images, seconds=60.0, clocked=("uniform", "paper", "default"), seeds=5),
            replace(
                fine_tuning,
                task=replace(TUNING, data="cifar10", model="wrn-28-2", init="glorot"),
                pretrained=FineTuning("cifar10", 5, 1500),
                seconds=20.0,
            ),
            replace(sequences, seconds=30.0, seeds=3),
        ),
        variance=Variance(
            WIDE, (0, 500, 1000, 2000), 1024, 128, 10, seeds=1, weight_decay=5e-4, timed=128
        ),
        noise=None,
        factor=1.5,
    )


def paper() -> Settings:
    """Section 4 of the paper: lengths, batches, thresholds (as square roots) and baselines."""
    images = Race(
        "images",
        WIDE,
        steps=50000,
        clocked=("uniform", "paper", "loss", "history", "rank", "default", "subset", "larger"),
        presample=5.0,
        rule="v1",
        threshold=1.5,
        weight_decay=5e-4,
        evaluations=50,
        turn=1.0,
        seeds=3,
    )
    fine_tuning = Race(
        "fine-tuning",
        Task("cifar10", "wrn-28-2", 16, init="glorot", examples=5000),
        steps=20000,
        clocked=("uniform", "paper", "loss", "frozen-uniform", "frozen-paper"),
        rates=(1e-3,),
        rule="v1",
        threshold=2.0,
        decay_at=(),
        evaluations=20,
        turn=1.0,
        seeds=3,
        pretrained=FineTuning("cifar100", 100, 50000),
    )
    sequences = Race(
        "sequences",
        PIXELS,
        steps=60000,
        clocked=("uniform", "paper", "loss"),
        rates=(1e-3,),
        presample=4.0,
        rule="v1",
        threshold=1.8,
        optimizer="adam",
        clip=1.0,
        decay_at=(),
        evaluations=20,
        turn=1.0,
        flush_denormals=True,
        seeds=3,
    )
    hundred = replace(WIDE, data="cifar100")
    return Settings(
        "paper",
        (images, replace(images, name="images-100", task=hundred), fine_tuning, sequences),
        Variance(hundred, tuple(range(0, 50001, 3000)), 1024, 128, 10, seeds=1, weight_decay=5e-4),
        Noise(16, 6000),
        factor=10.0,
    )
