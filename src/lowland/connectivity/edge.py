"""A pair of minima that was tried: the numbers of its path, and where the path lies."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path as FilePath
from typing import Any

from lowland.connectivity.graph import Pair
from lowland.connectivity.path_result import PathResult
from lowland.connectivity.profile import Profile
from lowland.results import Status

__all__ = ["Edge", "mirrored", "name_of", "number", "pair_folder"]


@dataclass(frozen=True)
class Edge:
    """The best path found between two minima.

    Attributes:
        a: Number of the minimum it starts from.
        b: Number of the one it ends at, larger than ``a``.
        saddles: Highest value along it of every metric, each at its own place.
        cycles: Highest training loss after each cycle, on the deciding examples; that of the
            straight line first.
        best_cycle: The cycle the path is from.
        num_pivots: Its pivots, ends included.
        distance: Euclidean distance of the two minima.
        length_ratio: Length of the path over it.
        status: ``FINISHED``, or ``NOT_FINITE``: the path is then the last good one.
        message: After a divergence, what happened where.
        seconds: Wall time.
    """

    a: int
    b: int
    saddles: dict[str, float]
    cycles: tuple[float, ...]
    best_cycle: int
    num_pivots: int
    distance: float
    length_ratio: float
    status: Status
    message: str
    seconds: float

    @classmethod
    def of(cls, pair: Pair, result: PathResult) -> "Edge":
        """Keep the numbers of a path."""
        return cls(
            *pair,
            saddles={name: result.profile.saddle(name) for name in metrics_of(result.profile)},
            cycles=tuple(cycle.profile.saddle() for cycle in result.cycles),
            best_cycle=result.best_cycle,
            num_pivots=len(result.path.pivots),
            distance=result.distance,
            length_ratio=result.length_ratio,
            status=result.status,
            message=result.message,
            seconds=result.seconds,
        )

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Edge":
        """Rebuild an edge; what JSON could not hold was infinite."""
        rebuilt = {
            "saddles": {name: number(value) for name, value in values["saddles"].items()},
            "cycles": tuple(number(value) for value in values["cycles"]),
            "status": Status[values["status"].upper()],
        }
        return cls(**{**values, **rebuilt})


def metrics_of(profile: Profile) -> list[str]:
    """Names of what was measured along a path."""
    names = [f.name for f in fields(profile) if f.name != "t"]
    return [name for name in names if getattr(profile, name) is not None]


def number(value: float | None) -> float:
    """Read a number that may have been infinite."""
    return inf if value is None else value


def pair_folder(folder: FilePath, pair: Pair) -> FilePath:
    """Where the path of a pair lies."""
    return folder / "pairs" / name_of(pair)


def name_of(pair: Pair) -> str:
    """Name of a pair among folders."""
    return "{}-{}".format(*pair)


def mirrored(result: PathResult) -> PathResult:
    """The same path from its end to its start."""
    profile = result.profile
    columns = {name: getattr(profile, name).flip(0) for name in metrics_of(profile)}
    return replace(
        result,
        path=result.path.reversed(),
        profile=Profile(1 - profile.t.flip(0), **columns),
    )
