"""One table of several paths between the same two minima."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path as FilePath
from typing import Any

from lowland.connectivity.folder import load_result
from lowland.connectivity.path_result import PathResult
from lowland.errors import OutcomeError
from lowland.results import Status, plain, read_json, write_json

__all__ = ["ComparedPath", "Comparison", "compared"]

FILE = "comparison.json"


@dataclass(frozen=True)
class ComparedPath:
    """A path in numbers; every metric takes its own maximum along the path.

    Attributes:
        method: How it was found.
        saddle: Highest training loss along the path, ends included.
        barrier_max: Saddle above the higher end.
        barrier_mid: Saddle above the mean of both ends.
        barrier_lin: Largest excess over linear interpolation of the ends' losses.
        test_loss: Highest test loss, or None without test data.
        test_error: Highest test error, or None without test data or classes.
        length_ratio: Length over the distance of its own ends.
        gradients: Gradients of the loss of one network on one batch that it took.
        seconds: Wall time, evaluation included.
        status: How the search ended.
    """

    method: str
    saddle: float
    barrier_max: float
    barrier_mid: float
    barrier_lin: float
    test_loss: float | None
    test_error: float | None
    length_ratio: float
    gradients: int
    seconds: float
    status: Status


def compared(method: str, result: PathResult) -> ComparedPath:
    """Read a row off a result.

    Args:
        method: How the path was found.
        result: The result.

    Returns:
        The row.
    """
    profile = result.profile
    steps = [(part.steps, part.num_pivots) for part in result.cycles]
    is_curve = "curve" in result.settings  # one network per step; a band runs all of its pivots
    return ComparedPath(
        method=method,
        saddle=result.saddle,
        barrier_max=result.barrier_max,
        barrier_mid=result.barrier_mid,
        barrier_lin=result.barrier_lin,
        test_loss=None if profile.test_loss is None else profile.saddle("test_loss"),
        test_error=None if profile.test_error is None else profile.saddle("test_error"),
        length_ratio=result.length_ratio,
        gradients=sum(count if is_curve else count * pivots for count, pivots in steps),
        seconds=result.seconds,
        status=result.status,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Several paths between the same two minima.

    Attributes:
        rows: The paths in numbers, in the order of ``results``.
        results: The paths themselves, by the names of their folders; the settings of
            ``"aligned-line"`` tell what the alignment did.
        status: ``FINISHED``, or how the first path that did not finish ended.
        message: More about the status, or empty.
        settings: Plain values that decided the numbers.
        seconds: Wall time, over all calls that shared a folder.
    """

    rows: tuple[ComparedPath, ...]
    results: dict[str, PathResult]
    status: Status
    message: str
    settings: dict[str, Any]
    seconds: float

    def __repr__(self) -> str:
        """The saddles."""
        saddles = ", ".join(f"{row.method}: {row.saddle:.4g}" for row in self.rows)
        return f"Comparison({saddles}; status={self.status.name})"

    def table(self) -> str:
        """Write the rows as text, one line each under a line of names.

        Returns:
            Lines of equal columns; numbers with four significant digits, ``-`` where there is none.
        """
        names = [f.name for f in fields(ComparedPath) if f.name != "status"]
        lines = [[name.replace("_", " ") for name in names]]
        lines += [[cell(getattr(row, name)) for name in names] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                word.ljust(width) if column == 0 else word.rjust(width)
                for column, (word, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def raise_for_status(self) -> "Comparison":
        """Turn a bad outcome into an exception.

        Returns:
            This comparison.

        Raises:
            OutcomeError: If a path did not finish.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(f"the comparison ended: {self.status.value}; {self.message}")
        return self

    def record(self) -> dict[str, Any]:
        """Everything but the paths themselves, as plain values.

        Returns:
            A dict that JSON can hold.
        """
        return plain({f.name: getattr(self, f.name) for f in fields(self) if f.name != "results"})

    def save(self, folder: str | FilePath) -> FilePath:
        """Write ``comparison.json``, and a folder for each path.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = FilePath(folder)
        for name, result in self.results.items():
            result.save(folder / name)
        write_json(folder / FILE, self.record() | {"folders": list(self.results)})
        return folder

    @classmethod
    def load(cls, folder: str | FilePath, device: str = "cpu") -> "Comparison":
        """Read a comparison.

        Args:
            folder: A folder written by :meth:`save`.
            device: Where the pivots go, unless they lay on the host.

        Returns:
            The comparison.
        """
        values = read_json(FilePath(folder) / FILE)
        rebuilt = {
            "rows": tuple(row_from_plain(row) for row in values["rows"]),
            "results": {
                name: load_result(FilePath(folder) / name, device) for name in values["folders"]
            },
            "status": Status[values["status"].upper()],
        }
        return cls(**{f.name: rebuilt.get(f.name, values.get(f.name)) for f in fields(cls)})


def row_from_plain(values: Mapping[str, Any]) -> ComparedPath:
    """Rebuild a row; what JSON could not hold was not finite."""
    known: dict[str, Any] = {
        name: float("inf") if value is None and not name.startswith("test") else value
        for name, value in values.items()
    }
    known["status"] = Status[values["status"].upper()]
    return ComparedPath(**known)


def cell(value: Any) -> str:
    """Write a value of a table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
