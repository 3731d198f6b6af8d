"""Parts of a recipe that are finished are kept, and not done again."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from lowland.results import read_json, write_json

__all__ = ["Kept"]


class Kept:
    """What is finished lies in a folder, with the seconds it took.

    Attributes:
        folder: The folder.
        seconds: Of everything that was asked for.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.seconds = 0.0

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        """Read plain values from a file, or compute and write them.

        Args:
            name: Of the file, without its ending.
            compute: Gives what :func:`lowland.results.plain` can treat; what it says of its own
                ``"seconds"``, which may belong to several calls, goes before the clock's if it is
                more.

        Returns:
            What the file holds.
        """
        file = self.folder / f"{name}.json"
        if not file.exists():
            begin = perf_counter()
            values = compute()
            seconds = perf_counter() - begin
            if isinstance(values, dict):
                seconds = max(seconds, values.get("seconds") or 0.0)
            write_json(file, {"seconds": seconds, "values": values})
        found = read_json(file)
        self.seconds += found["seconds"]
        return found["values"]
