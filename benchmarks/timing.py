"""Ratios of running times that survive a busy machine: taken in turns, in one process."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

__all__ = ["Comparison", "compare", "quartiles", "table"]


@dataclass(frozen=True)
class Comparison:
    """How long one thing takes, measured in units of another.

    Attributes:
        ratio: Median over the rounds of the time of ours over that of the peer.
        quartiles: Of the same ratios.
        rounds: How many.
        seconds: Of one call of ours, the fastest block.
        peer_seconds: Likewise of the peer.
    """

    ratio: float
    quartiles: tuple[float, float]
    rounds: int
    seconds: float
    peer_seconds: float


def compare(
    ours: Callable[[int], object],
    peer: Callable[[int], object],
    *,
    rounds: int,
    block_seconds: float = 0.1,
    clock: Callable[[], float] = perf_counter,
) -> Comparison:
    """Time two things in turns, each round in the opposite order of the one before.

    Args:
        ours: Does its work a given number of times.
        peer: Likewise.
        rounds: Number of ratios.
        block_seconds: Repeat so often that a block takes about this long.
        clock: Gives seconds; ``process_time`` leaves out what other processes take.

    Returns:
        The comparison.
    """
    for warm_up in (ours, peer):
        warm_up(1)
    count = max(1, round(block_seconds / seconds_of(ours, 1, clock)))
    times = []
    for number in range(rounds):
        first, second = (peer, ours) if number % 2 else (ours, peer)
        pair = [seconds_of(work, count, clock) for work in (first, second)]
        times.append(pair[::-1] if number % 2 else pair)
    ratios = [mine / other for mine, other in times]
    fastest = [min(column) / count for column in zip(*times, strict=True)]
    return Comparison(median(ratios), quartiles(ratios), rounds, *fastest)


def seconds_of(
    work: Callable[[int], object], count: int, clock: Callable[[], float] = perf_counter
) -> float:
    """Time one block."""
    began = clock()
    work(count)
    return clock() - began


def quartiles(values: list[float]) -> tuple[float, float]:
    """Between which the middle half of some values lies."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def table(columns: list[str], rows: list[list[object]]) -> str:
    """Lay out a table in Markdown, readable on a terminal too."""
    cells = [columns, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
