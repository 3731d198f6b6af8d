"""What the recipe baityjesi2018 can be asked to do."""

from dataclasses import dataclass

from lowland.reproduce.images import Task

__all__ = ["Course", "Flat", "Glass", "Quench", "Settings", "Task", "Widths"]


@dataclass(frozen=True)
class Course:
    """A network that is trained and recorded.

    Attributes:
        name: For tables and files.
        kind: ``"over"``, ``"under"`` (parametrized) or ``"toy"``: the rules go by it.
        task: What is learned.
        loss: ``"ce"``, or ``"mse"`` to one-hot, in the published form.
        learning_rate: Of plain SGD, constant.
        momentum: Of SGD.
        steps: Updates.
        seeds: Repetitions, each with weights and order of its own.
        first_seed: Number of the first.
        waits: Waiting times of the recorder, spread from 1 to ``last_wait``.
        lags: Lags, spread from 1 to half of the run.
        last_wait: Half of the run if None.
        losses: Instants at which the training loss is measured.
        noise_batches: Batches for the gradient noise at every waiting time.
        replicas: Clones at every waiting time of ``cloned``, for the first seed.
        cloned: These waiting times.
        cloned_lags: Number of lags of a clone, spread from 1 to ``cloned_last``.
        cloned_last: Last of them.
        kept: Updates at which the weights are kept.
        keep_state: Whether a killed training goes on in the middle.
    """

    name: str
    kind: str
    task: Task
    loss: str = "ce"
    learning_rate: float = 0.1
    momentum: float = 0.0
    steps: int = 5000
    seeds: int = 3
    first_seed: int = 0
    waits: int = 30
    lags: int = 40
    last_wait: int | None = None
    losses: int = 60
    noise_batches: int = 40
    replicas: int = 0
    cloned: tuple[int, ...] = ()
    cloned_lags: int = 20
    cloned_last: int = 500
    kept: tuple[int, ...] = ()
    keep_state: bool = False


@dataclass(frozen=True)
class Quench:
    """Descent without noise from kept weights of a course, and what lies between its ends.

    Attributes:
        course: Name of the course.
        seeds: How many of its seeds.
        learning_rate: Of gradient descent on all examples.
        momentum: Likewise.
        steps: Updates.
        line: Points on each straight line.
        cycles: Steps of each AutoNEB cycle between the first and the last quenched state; none
            leaves the path out.
        pivots: Pivots of the path.
        path_rate: Learning rate of AutoNEB.
    """

    course: str
    seeds: int = 1
    learning_rate: float = 0.2
    momentum: float = 0.9
    steps: int = 240
    line: int = 24
    cycles: tuple[int, ...] = (50,)
    pivots: int = 5
    path_rate: float = 0.02


@dataclass(frozen=True)
class Flat:
    """Count flat directions along a course, by three thresholds.

    Attributes:
        course: Name of the course, whose ``kept`` weights are taken.
        exact: Whether all eigenvalues are computed; else by Lanczos quadrature.
        relative: Threshold as a share of the largest eigenvalue.
        fixed: Threshold in loss per squared parameter.
        probes: Random vectors of the quadrature.
        steps: Lanczos steps of each.
        examples: Training examples of the loss, from the first on.
    """

    course: str
    exact: bool = True
    relative: float = 1e-3
    fixed: float = 1e-3
    probes: int = 10
    steps: int = 100
    examples: int | None = None


@dataclass(frozen=True)
class Widths:
    """Train one hidden layer of many widths, to see where learning gets stuck.

    Attributes:
        task: What is learned; the network of the task is not used.
        widths: Hidden units.
        learning_rate: Of plain SGD.
        steps: Updates.
        seeds: Repetitions.
    """

    task: Task
    widths: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 16, 32, 64)
    learning_rate: float = 0.1
    steps: int = 2000
    seeds: int = 3


@dataclass(frozen=True)
class Glass:
    """The spherical p-spin: solved at infinite size, and simulated.

    Attributes:
        order: p.
        temperatures: T of the solutions.
        until: Last time.
        waits: Waiting times of the displacements.
        size: Spins of the simulation; 0 leaves it out.
        samples: Disorders.
        replicas: Of each.
        simulated: T of the simulation.
        simulated_until: Its last time.
    """

    order: int = 3
    temperatures: tuple[float, ...] = (0.0, 0.5)
    until: float = 50.0
    waits: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0)
    size: int = 64
    samples: int = 3
    replicas: int = 4
    simulated: float = 0.5
    simulated_until: float = 20.0


@dataclass(frozen=True)
class Settings:
    """Every value of the recipe.

    Attributes:
        scale: The scale the values belong to.
        courses: Networks that are trained and recorded.
        glass: The p-spin, or None.
        quenches: Claim C9.
        flat: Claim C10.
        widths: Claim C13, or None.
        judged: Whether runs are long enough for the claims.
        samples: Bootstrap samples over seeds and waiting times.
        threads: CPU threads, None for as many as there are.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    scale: str
    courses: tuple[Course, ...]
    glass: Glass | None = None
    quenches: tuple[Quench, ...] = ()
    flat: tuple[Flat, ...] = ()
    widths: Widths | None = None
    judged: bool = True
    samples: int = 20
    threads: int | None = None
    device: str = "cpu"
