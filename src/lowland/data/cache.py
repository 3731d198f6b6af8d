"""Keep decoded arrays on disk under a hash of the files they came from."""

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

__all__ = ["cache_folder", "cached", "content_hash"]

log = logging.getLogger(__name__)

FORMAT = b"lowland arrays 1"  # change it when what is cached for the same files changes


def cache_folder() -> Path:
    """Say where decoded arrays are kept.

    Returns:
        ``$LOWLAND_CACHE``, or ``~/.cache/lowland``.
    """
    return Path(os.environ.get("LOWLAND_CACHE") or "~/.cache/lowland").expanduser()


def content_hash(name: str, files: Iterable[Path]) -> str:
    """Hash a data set's name and the contents of its files, in order.

    Args:
        name: Name of the data set.
        files: Its files; a file that is listed twice counts once.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    total = hashlib.sha256(FORMAT + name.encode())
    for file in dict.fromkeys(files):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def cached(
    name: str, digest: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Take arrays from the cache, or make them and put them there.

    A cache that cannot be read or written costs time, never the result: the arrays are made anew.

    Args:
        name: Name of the data set.
        digest: What :func:`content_hash` says about its files.
        make: Reads and decodes the files.

    Returns:
        Arrays by name.
    """
    file = cache_folder() / f"{name}-{digest[:32]}.npz"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        log.info("the cache %s cannot be read (%s); decoding again", file, error)
    arrays = dict(make())
    try:
        save(file, arrays)
    except OSError as error:
        log.info("the cache %s cannot be written (%s); going on without", file, error)
    return arrays


def save(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a temporary name, then rename: a reader sees all of them or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            # streamed, where results.write_bytes would need a second copy in memory
            np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
