"""Laws of observation: the two-time recorder and gradient noise."""

from functools import partial

from torch import nn

from laws.law import Law, Point, cpu_seconds, held_bytes, peak_bytes
from laws.networks import batch_of, losses, perceptron, weights_of
from lowland.dynamics import TwoTimeRecorder, gradient_noise

__all__ = ["LAWS"]

WEIGHTS, WAITS = 20_000, 4


def recorded(source: nn.Module, waits: int, memory: str) -> TwoTimeRecorder:
    """A recorder whose waiting times are all open."""
    recorder = TwoTimeRecorder(source, waits=range(waits), lags=range(1, waits + 1), memory=memory)
    for step in range(waits):
        recorder.record(step)
    return recorder


def kept(recorder: TwoTimeRecorder) -> int:
    """Bytes of all copies, or of all sketches with their samples."""
    tensors = [part for parts in recorder.store.kept.values() for part in parts]
    return sum(part.numel() * part.element_size() for part in tensors)


def copies_by_waits(memory: str, waits: int) -> Point:
    """Copies, or sketches, of all waiting times."""
    return waits, kept(recorded(perceptron(WEIGHTS), waits, memory))


def copies_by_params(params: float) -> Point:
    """Exact copies at four waiting times."""
    model = perceptron(params)
    return weights_of(model), kept(recorded(model, WAITS, "exact"))


def sketches_by_params(params: float) -> Point:
    """What a recorder with sketches holds beside them."""
    model, made = perceptron(params), []
    held = held_bytes(lambda: made.append(recorded(model, WAITS, "sketch")))
    return weights_of(model), held - kept(made[0])


def look_by_waits(waits: int) -> Point:
    """One instant at which all waiting times are compared with now."""
    store = recorded(perceptron(WEIGHTS), waits, "exact").store
    return waits, cpu_seconds(lambda: store.measure(list(range(waits))))


def look_by_params(params: float) -> Point:
    """One instant with four waiting times."""
    model = perceptron(params)
    store = recorded(model, WAITS, "exact").store
    return weights_of(model), cpu_seconds(lambda: store.measure(list(range(WAITS))))


def noise_by_batches(pair: bool, batches: int) -> Point:
    """Most bytes of gradient noise."""
    model, data = perceptron(WEIGHTS), [batch_of(16)] * batches
    work = partial(gradient_noise, model, losses, data, n_batches=batches, pair=pair)
    return batches, peak_bytes(work)


def noise_seconds(batches: int) -> Point:
    """Time of gradient noise."""
    model, data = perceptron(WEIGHTS), [batch_of(16)] * batches
    work = partial(gradient_noise, model, losses, data, n_batches=batches)
    return batches, cpu_seconds(work, repeats=2)


def noise_by_params(pair: bool, params: float) -> Point:
    """Most bytes of gradient noise of eight batches."""
    model, data = perceptron(params), [batch_of(4)] * 8
    work = partial(gradient_noise, model, losses, data, n_batches=8, pair=pair)
    return weights_of(model), peak_bytes(work)


SIZES = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6)

LAWS = (
    Law(
        "dynamics-copies-waits", "exact copies", "open waiting times W", "bytes", 1.0,
        (2, 6, 20, 60, 200), partial(copies_by_waits, "exact"),
        lambda w: 4 * w * weights_of(perceptron(WEIGHTS)), "vectors of D floats per waiting time",
        "one copy of the weights for each waiting time that still waits for a pair",
    ),
    Law(
        "dynamics-copies-params", "exact copies, 4 waiting times", "weights D", "bytes", 1.0,
        SIZES, copies_by_params, lambda d: 4 * WAITS * d, "vectors per waiting time", "the same",
    ),
    Law(
        "dynamics-sketches-waits", "sketches", "open waiting times W", "bytes", 1.0,
        (2, 6, 20, 60, 200), partial(copies_by_waits, "sketch"), lambda w: w,
        "bytes per waiting time, at any D beyond 65,536 at most 327,680",
        "16,384 numbers and 65,536 sampled coordinates, or all of them",
    ),
    Law(
        "dynamics-sketches-params", "a recorder beside its sketches", "weights D", "bytes", 1.0,
        (3e5, 1e6, 3e6, 1e7, 3e7), sketches_by_params, lambda d: 4 * d, "vectors of D floats",
        "the first weights, a sign each, and a vector to read into; sketches do not grow",
    ),
    Law(
        "dynamics-look-waits", "looking at one instant", "waiting times W compared", "s", 1.0,
        (2, 6, 20, 60, 200, 600), look_by_waits, lambda w: w * WEIGHTS,
        "seconds per weight and waiting time", "one difference for each", first=6,
    ),
    Law(
        "dynamics-look-params", "looking at one instant, 4 waiting times", "weights D", "s", 1.0,
        SIZES, look_by_params, lambda d: WAITS * d, "seconds per weight and waiting time",
        "the same", first=3e4,
    ),
    Law(
        "dynamics-noise-seconds", "gradient_noise", "batches n", "s", 1.0,
        (4, 12, 40, 120, 400), noise_seconds, lambda n: n, "seconds per batch of 16",
        "one gradient for each", first=4,
    ),
    Law(
        "dynamics-noise-batches", "bytes of gradient_noise", "batches n", "bytes", 1.0,
        (10, 30, 100, 300, 1000), partial(noise_by_batches, False),
        lambda n: 8 * n * weights_of(perceptron(WEIGHTS)), "float64 vectors per batch",
        "one gradient for each while they fit into 1 GB, then sums of eight groups",
    ),
    Law(
        "dynamics-noise-pairs", "bytes of gradient_noise(pair=True)", "batches n", "bytes", 0.0,
        (4, 12, 40, 120, 400), partial(noise_by_batches, True),
        lambda n: 8 * weights_of(perceptron(WEIGHTS)), "float64 vectors", "two gradients at a time",
    ),
    Law(
        "dynamics-noise-params", "bytes of gradient_noise, 8 batches", "weights D", "bytes", 1.0,
        SIZES, partial(noise_by_params, False), lambda d: 8 * d, "float64 vectors",
        "eight groups at least, their sum, and the gradient", first=3e4,
    ),
    Law(
        "dynamics-noise-pairs-params", "bytes of gradient_noise(pair=True)", "weights D", "bytes",
        1.0, SIZES, partial(noise_by_params, True), lambda d: 8 * d, "float64 vectors",
        "two gradients, and their making", first=3e4,
    ),
)  # fmt: skip
