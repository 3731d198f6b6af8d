"""The folder of one search for a path: claimed by its settings, and read back cycle by cycle."""

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import torch

from lowland.connectivity.path import Path
from lowland.connectivity.path_result import CycleResult, PathResult
from lowland.results import Status, open_folder, read_json, write_json
from lowland.training import broadcast, is_main_process

__all__ = ["kept_choice", "load_cycle", "load_result", "open_search", "save_cycle"]


def open_search(
    out: str | FilePath | None,
    settings: Mapping[str, Any],
    *,
    restart: bool,
    device: torch.device,
) -> tuple[FilePath | None, PathResult | None]:
    """Return to the folder of a search, or begin one.

    With several processes the first of them makes the folder, and all see the same answer.

    Args:
        out: The folder, or None.
        settings: What decides the numbers.
        restart: Forget what lies there.
        device: Where the pivots of a finished path go, unless they lay on the host.

    Returns:
        The folder, and its result if it holds one that was not interrupted.

    Raises:
        ValueError: If the folder belongs to another search.
    """
    if out is None:
        return None, None
    folder = open_folder(out, settings, restart) if is_main_process() else FilePath(out)
    if not broadcast((folder / "result.json").exists()):
        return folder, None
    found = load_result(folder, str(device))
    return folder, None if found.status is Status.INTERRUPTED else found


def load_result(folder: FilePath, device: str) -> PathResult:
    """Read a result; a path that was found on the host may not fit anywhere else.

    Args:
        folder: A folder written by :meth:`PathResult.save`.
        device: Where the pivots go, unless they lay on the host.

    Returns:
        The result.
    """
    settings = read_json(folder / "result.json")["settings"]
    return PathResult.load(folder, "cpu" if settings.get("pivots_on") == "cpu" else device)


def kept_choice(
    file: FilePath | None,
    decide: Callable[[], Any],
    still_holds: Callable[[Any], bool] = lambda _: True,
) -> Any:
    """Decide something once: a run that goes on after a kill decides the same.

    Args:
        file: Where the choice is kept, or None.
        decide: Gives it, as a plain value, the same on every process.
        still_holds: Whether a choice from the file is one for this call.

    Returns:
        The choice.
    """
    choice = read_json(file) if file is not None and is_main_process() and file.exists() else None
    choice = broadcast(choice)
    if choice is None or not still_holds(choice):
        choice = decide()
        if file is not None and is_main_process():
            write_json(file, choice)
    return choice


def save_cycle(folder: FilePath | None, result: CycleResult, path: Path) -> None:
    """Put a finished cycle on disk; its JSON comes last and says that it is whole."""
    if folder is not None and is_main_process():
        path.save(folder / f"cycle-{result.number:02d}.safetensors")
        write_json(folder / f"cycle-{result.number:02d}.json", result)


def load_cycle(
    folder: FilePath | None, number: int, device: torch.device
) -> tuple[CycleResult, Path] | None:
    """Read a cycle, if it is on disk."""
    if folder is None or not broadcast((folder / f"cycle-{number:02d}.json").exists()):
        return None
    path = Path.load(folder / f"cycle-{number:02d}.safetensors", device=str(device))
    return CycleResult.from_plain(read_json(folder / f"cycle-{number:02d}.json")), path
