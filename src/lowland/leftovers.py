"""What earlier runs left in a folder: what is ours to move, and what is somebody else's."""

import json
import logging
import os
import re
from itertools import count
from pathlib import Path
from platform import node
from time import time

__all__ = ["is_moved_aside", "move_aside", "remove_temporaries", "temporary_for"]

# What all rooms and recipes write, besides JSON; anything else in a run's folder is not ours. A
# name that is missing here makes a restart refuse, and a half-written file stay.
WRITTEN = re.compile(
    r"(metrics|validation)\.jsonl|state(-previous)?\.pt|report\.(html|md)|figures/[^/]+\.(png|svg|csv)"
    r"|(path|control|cycle-\d+|model|average|weights(-\d+)?|aligned|exits|mean_field"
    r"|float32|binary|sparse16|entropy)\.safetensors"
)
TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]*)-(?P<process>\d+)\.tmp")

# Seconds after which nobody writes to a temporary file any more.
OLD = 24 * 3600


def temporary_for(file: Path) -> Path:
    """Name the file that is written in place of another, until it is whole.

    Args:
        file: The other.

    Returns:
        A name beside it that tells this process.
    """
    return file.with_name(f".{file.name}.{host()}-{os.getpid()}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Delete the half-written files of processes that are dead, in a folder but not below it.

    Args:
        folder: Of a run. Files of other machines go after a day, names that we do not write never.
    """
    for file in folder.glob(".*.tmp"):
        found = temporary(file)
        if found and (is_dead(found["host"], int(found["process"])) or is_old(file)):
            file.unlink(missing_ok=True)


def temporary(file: Path) -> re.Match[str] | None:
    """Take the name of a half-written file apart; None for any other."""
    found = TEMPORARY.fullmatch(file.name)
    if found is None or file.is_symlink() or not file.is_file():
        return None
    return found if found["name"].endswith(".json") or WRITTEN.fullmatch(found["name"]) else None


def is_dead(where: str, process: int) -> bool:
    """Whether a process of this machine is gone; of another machine nobody knows."""
    if os.name != "posix" or where != host():  # elsewhere signal 0 is no question
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def is_old(file: Path) -> bool:
    """Whether nobody has written to a file for long."""
    try:
        return time() - file.stat().st_mtime > OLD
    except OSError:  # renamed or deleted meanwhile
        return False


def host() -> str:
    """The name of this machine, without its domain."""
    return node().split(".")[0]


def move_aside(folder: Path) -> None:
    """Make room for a new run: rename the folder of an old one, and say so; delete nothing.

    No file tells for certain that we wrote it: a copy of a run looks as the run does.

    Args:
        folder: With a ``lowland.json``; an empty folder takes its place. Where it is a link, the
            folder behind it is renamed, and the link stays.

    Raises:
        ValueError: If it holds what is not ours, or the working directory.
    """
    folder = folder.resolve()
    if all(file.name == "lowland.json" for file in folder.iterdir()):
        return
    refuse_foreign(folder)
    if Path.cwd().is_relative_to(folder):
        raise ValueError(
            f"a folder that restart moves must not be the working directory or above it; {folder} "
            "is. Go to another, or choose another folder."
        )
    names = (folder.with_name(f"{folder.name}.old-{number}") for number in count(1))
    old = next(name for name in names if not (name.exists() or name.is_symlink()))
    folder.rename(old)  # at once: a kill leaves the whole old folder, or none of it
    folder.mkdir()
    logging.getLogger("lowland").warning(
        "restart: what was in %s now lies in %s. Delete that if nobody needs it.", folder, old
    )


def is_moved_aside(name: str) -> bool:
    """Say whether a folder has the name of one that a restart has moved.

    Args:
        name: Of the folder.

    Returns:
        Whether it ends in ``.old-1`` or another number.
    """
    return re.fullmatch(r".+\.old-\d+", name) is not None


def refuse_foreign(folder: Path) -> None:
    """Refuse to move a folder with something in it that lowland did not write.

    JSON is ours if it is laid out as we write it; other files are known by their names.

    Args:
        folder: Of a run.

    Raises:
        ValueError: If there is such a file, or a link.
    """
    every = (file for file in sorted(folder.rglob("*")) if file.is_symlink() or file.is_file())
    found = [str(file.relative_to(folder)) for file in every if not is_ours(file)]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"a folder that restart moves must hold only what lowland wrote; {folder} also holds "
            f"{', '.join(found[:3])}{more}. Move that away, or choose another folder."
        )


def is_ours(file: Path) -> bool:
    """Whether a file is one that lowland writes."""
    if file.is_symlink():
        return False
    if file.name == "lowland.json" or TEMPORARY.fullmatch(file.name):
        return True
    if file.suffix == ".json":
        try:
            text = file.read_text()
            return json.dumps(json.loads(text), indent=1) + "\n" == text
        except ValueError:
            return False
    return bool(
        WRITTEN.fullmatch(file.name) or WRITTEN.fullmatch(f"{file.parent.name}/{file.name}")
    )
