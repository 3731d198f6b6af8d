"""What a training run keeps on disk to go on from: its state, twice, and its metrics."""

import io
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from lowland.errors import CheckpointError, FallbackWarning
from lowland.results import plain, write_bytes

__all__ = ["append_metrics", "keep_metrics", "load_run_state", "save_run_state"]

NEWEST, PREVIOUS = "state.pt", "state-previous.pt"


def save_run_state(folder: Path, state: dict[str, Any], check: bool = False) -> None:
    """Write the state of a run; the one written before it is kept.

    At every moment one of the two files is whole.

    Args:
        folder: The run's folder.
        state: Tensors and plain values.
        check: Read it back first, to learn now and not after a crash that it can be read.

    Raises:
        CheckpointError: If ``torch.load(..., weights_only=True)`` refuses the state.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    if check:
        try:
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except Exception as error:  # torch raises several kinds
            raise CheckpointError(
                "the states of optimizer and schedule must be tensors and plain values, so that "
                f"the run can resume without unpickling code; {str(error).splitlines()[-1]} "
                "Use another optimizer or schedule, or train without out."
            ) from error
    newest = folder / NEWEST
    if newest.exists():
        os.replace(newest, folder / PREVIOUS)
    write_bytes(newest, buffer.getvalue())


def load_run_state(folder: Path) -> dict[str, Any] | None:
    """Read the newest whole state of a run.

    Args:
        folder: The run's folder.

    Returns:
        The state, or None if there is none. A torn newest file is deleted, with a warning.
    """
    for file in (folder / NEWEST, folder / PREVIOUS):
        if not file.exists():
            continue
        try:
            return read_whole(file)
        except Exception as error:  # a torn file: torch raises a different kind for every place
            warnings.warn(
                f"{file} cannot be read ({str(error)[:100]}); going on from the state before it.",
                FallbackWarning,
                stacklevel=2,
            )
            file.unlink()
    return None


def read_whole(file: Path) -> dict[str, Any]:
    """Read a state whose checksums are right; torch alone does not look at them."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("a checksum is wrong")
    return torch.load(file, map_location="cpu", weights_only=True)


def append_metrics(file: Path, values: dict[str, Any]) -> None:
    """Add one line to a metrics file.

    Args:
        file: The file, JSON objects line by line.
        values: The object.
    """
    with file.open("a") as stream:
        stream.write(json.dumps(plain(values)) + "\n")


def keep_metrics(file: Path, step: int) -> None:
    """Forget the lines of steps that will be taken again.

    Args:
        file: The metrics file; it may be missing, and its last line may be torn.
        step: The last step to keep.
    """
    lines = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in lines if is_up_to(line, step)]
    if len(kept) < len(lines):
        write_bytes(file, "".join(line + "\n" for line in kept).encode())


def is_up_to(line: str, step: int) -> bool:
    """Tell whether a line is whole and not of a later step."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
