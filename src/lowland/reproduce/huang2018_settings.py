"""What the recipe huang2018 can be asked to do."""

from dataclasses import dataclass

from lowland.reproduce.images import Task

__all__ = ["Checks", "Collapse", "Growth", "Noise", "Settings", "Table", "Task", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One way to grow a network block by block.

    Attributes:
        name: Its name in tables and claims.
        epochs: Budget of a block, passes over the images.
        objective: ``"ce"``, ``"exp"`` or ``"released"``.
        alpha: ``"closed"`` or ``"line_search"``.
        head: ``"plain"``, ``"deep"``, ``"deep-2"`` or ``"downstream"``.
        init: What a block begins as: ``"default"``, ``"zero"`` or ``"copy_previous"``.
        stop: ``"fixed"``, ``"paper"`` or ``"plateau"``.
        check_every: Epochs between two looks of the stop rule.
        gamma_threshold: What gamma must exceed.
        edge_start: Edge that the first gamma is measured from.
        module_size: Blocks that are trained together.
        schedule: ``"sequential"`` or ``"parallel"``.
        transport: Step size tau of the penalty on residuals, or None.
        l1: Bound on the l1 norm of every unit's incoming weights, or None.
        learning_rate: Of Adam.
        decay: d of the learning rate ``learning_rate / (1 + k d)`` after k updates.
        recalibrate: Take batch-norm statistics anew before a block is frozen.
        views: Versions of each image that are kept, where images are augmented.
    """

    name: str = "boosted"
    epochs: int = 10
    objective: str = "ce"
    alpha: str = "closed"
    head: str = "plain"
    init: str = "zero"
    stop: str = "fixed"
    check_every: int = 1
    gamma_threshold: float = 0.0
    edge_start: float = 0.0
    module_size: int = 1
    schedule: str = "sequential"
    transport: float | None = None
    l1: float | None = None
    learning_rate: float = 1e-3
    decay: float = 0.0
    recalibrate: bool = False
    views: int | None = None


@dataclass(frozen=True)
class Growth:
    """A network that is grown, beside what it is compared with.

    Attributes:
        name: ``"digits"``, ``"depth"`` or the data set: the rules go by it.
        task: What is learned.
        variant: How.
        seeds: Repetitions.
        epochs: Of training end to end beside it, where as many module updates as boosting's come
            before the last; 0 leaves it out.
        refine_epochs: Of training the grown network end to end; 0 leaves it out.
        weak: Network of one block, of which AdaBoost.MM takes one per round; None leaves it out.
        keep_state: Whether a killed run goes on in mid-block; takes a file for every block.
    """

    name: str
    task: Task
    variant: Variant
    seeds: int = 3
    epochs: int = 0
    refine_epochs: int = 0
    weak: str | None = None
    keep_state: bool = False


@dataclass(frozen=True)
class Table:
    """Variants on one task, in the order of their importance.

    Attributes:
        task: What is learned.
        variants: How.
        seeds: Repetitions of each.
    """

    task: Task
    variants: tuple[Variant, ...]
    seeds: int = 1


@dataclass(frozen=True)
class Checks:
    """What is exact, what an update costs, and blocks without gradient.

    Attributes:
        memory: Architecture whose saved bytes are counted by stage; None leaves it out.
        images: Random images of a batch there; bytes are scaled to 100.
        fitted: Blocks without gradient, grown on the digits.
        trees: Share of the best step, and of the examples, that a tree takes; one kind for each.
        timed: Depth whose time per update is compared with that of depth 2.
        turns: Interleaved epochs of that comparison.
    """

    memory: str | None = "pad-resnet-50"
    images: int = 4
    fitted: int = 2
    trees: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    timed: int = 20
    turns: int = 10


@dataclass(frozen=True)
class Collapse:
    """End-to-end training of deep residual perceptrons, for several starts and learning rates.

    Attributes:
        models: Architectures of growing depth.
        inits: Initializations.
        rates: Learning rates of Adam.
        epochs: Passes over the digits.
    """

    models: tuple[str, ...] = ("res-mlp-64-64-10x5", "res-mlp-64-64-10x30")
    inits: tuple[str, ...] = ("official", "he")
    rates: tuple[float, ...] = (1e-3,)
    epochs: int = 4


@dataclass(frozen=True)
class Noise:
    """Training with wrong labels, with and without the l1 constraint of the theory.

    Attributes:
        task: What is learned.
        variant: How; its ``l1`` is set by ``radii``.
        share: Of training labels that are drawn anew.
        radii: Bounds on the l1 norm of each unit's incoming weights, None for no bound.
        seeds: Repetitions.
    """

    task: Task
    variant: Variant
    share: float = 0.2
    radii: tuple[float | None, ...] = (None, 4.0, 1.0)
    seeds: int = 1


@dataclass(frozen=True)
class Settings:
    """Every value of the recipe.

    Attributes:
        scale: The scale the values belong to.
        growths: Networks that are grown.
        table: Variants, or None.
        checks: What is exact, or None.
        collapse: Claim C5, or None.
        noise: Claim C13, or None.
        judged: Whether runs are long enough for the claims on accuracy.
        threads: CPU threads, None for as many as there are.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    scale: str
    growths: tuple[Growth, ...]
    table: Table | None = None
    checks: Checks | None = None
    collapse: Collapse | None = None
    noise: Noise | None = None
    judged: bool = True
    threads: int | None = None
    device: str = "cpu"
