"""The folder of one search for a path: claimed by its settings, and read back cycle by cycle."""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import torch

from lowland.connectivity.path import Path
from lowland.connectivity.path_result import CycleResult, PathResult
from lowland.results import Status, open_folder, read_json, write_json
from lowland.training import broadcast, is_main_process

__all__ = ["load_cycle", "open_search", "save_cycle"]


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
        device: Where the pivots of a finished path go.

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
    found = PathResult.load(folder, device=str(device))
    return folder, None if found.status is Status.INTERRUPTED else found


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
