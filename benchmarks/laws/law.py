"""A law of growth: what theory says, how it is measured, and the power that fits the numbers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt
from time import process_time
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch: the profiler's own messages
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from torch.profiler import ProfilerActivity, profile

__all__ = ["Fit", "Law", "cpu_seconds", "fit_power", "held_bytes", "peak_bytes", "record_of"]

Point = tuple[float, float]

LONG = 0.5  # seconds of CPU time


@dataclass(frozen=True)
class Law:
    """How one quantity grows with one variable.

    Attributes:
        name: For the command line: ``room-quantity-variable``.
        quantity: What is measured.
        variable: What it grows with.
        unit: ``"s"`` of CPU time on one thread, ``"bytes"``, or what is counted.
        expected: Exponent from theory.
        values: What ``measure`` is called with, ascending.
        measure: From a value to the variable as it came out, and the quantity.
        size: The law without its constant: what the quantity is divided by.
        constant: What the quotient is, in words.
        first: Where the fit begins, in values: below, fixed costs hide the law.
        why: Where the exponent comes from.
    """

    name: str
    quantity: str
    variable: str
    unit: str
    expected: float
    values: tuple[float, ...]
    measure: Callable[[Any], Point]
    size: Callable[[float], float]
    constant: str
    why: str
    first: float = 0

    @property
    def room(self) -> str:
        """First word of the name."""
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class Fit:
    """The power ``factor * x ** exponent`` through some points, and the exponent's error."""

    exponent: float
    error: float
    factor: float


def fit_power(points: list[Point]) -> Fit:
    """Fit a power by least squares of logarithms.

    Args:
        points: At least three, of positive numbers.

    Returns:
        The power; its error assumes that all logarithms scatter alike.

    Raises:
        ValueError: If there are too few points, or one is not positive.
    """
    if len(points) < 3 or min(min(point) for point in points) <= 0:
        raise ValueError(f"a power needs at least three points, all positive; got {points}.")
    x, y = zip(*((log(a), log(b)) for a, b in points), strict=True)
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    left = [b - mean_y - slope * (a - mean_x) for a, b in zip(x, y, strict=True)]
    error = sqrt(sum(rest**2 for rest in left) / (len(x) - 2) / spread)
    return Fit(slope, error, exp(mean_y - slope * mean_x))


def record_of(law: Law) -> dict[str, Any]:
    """Measure a law, fit it, and give everything as plain values."""
    began = process_time()
    found = [(value, law.measure(value)) for value in law.values]
    points = [point for _, point in found]
    fitted = [point for value, point in found if value >= law.first]
    fit = fit_power(fitted)
    x, y = fitted[-1]
    return {
        "name": law.name,
        "quantity": law.quantity,
        "variable": law.variable,
        "unit": law.unit,
        "expected": law.expected,
        "exponent": fit.exponent,
        "error": fit.error,
        "range": [fitted[0][0], x],
        "constant": y / law.size(x),
        "constant_is": law.constant,
        "points": points,
        "why": law.why,
        "cpu_seconds": process_time() - began,
    }


def cpu_seconds(work: Callable[[], object], *, least: float = 0.02, repeats: int = 3) -> float:
    """CPU time of one call, the smallest of some blocks: other jobs only add.

    Args:
        work: What is timed. It is called once before.
        least: Seconds of a block: it is made of as many calls as that takes.
        repeats: Number of blocks.

    Returns:
        Seconds of a call. One that takes half a second needs no block, and no warming up.
    """
    first = seconds_of(work, 1)
    if first > LONG:
        return min([first, *(seconds_of(work, 1) for _ in range(repeats - 2))])
    count = max(1, round(least / max(first, 1e-7)))
    return min(seconds_of(work, count) for _ in range(repeats)) / count


def seconds_of(work: Callable[[], object], count: int) -> float:
    """CPU time of a block."""
    began = process_time()
    for _ in range(count):
        work()
    return process_time() - began


def peak_bytes(work: Callable[[], object]) -> int:
    """Most bytes that torch had asked for at once during some work, beyond those before."""
    return allocated(work)[0]


def held_bytes(work: Callable[[], object]) -> int:
    """Bytes that are still there afterwards, with what the work returned."""
    return allocated(work)[1]


def allocated(work: Callable[[], object]) -> tuple[int, int]:
    """Follow torch's allocator on the host: the highest point, and the end."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as watched:
        kept = work()
    events = watched.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = top = 0
    for _, change in changes:
        now += change
        top = max(top, now)
    del kept
    return top, now
