"""Look for the files of a data set in the folders where people keep them; fetch them when asked."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lowland.data.catalog import Source
from lowland.errors import DataNotFoundError, MissingExtraError

__all__ = ["Found", "find_files", "hub_cache"]


@dataclass(frozen=True)
class Found:
    """The files of a data set.

    Attributes:
        folder: Where they lie.
        layout: ``"parquet"``, ``"idx"``, ``"cifar"``, ``"archive"`` or ``"mat"``.
        splits: Files of each split, in order.
    """

    folder: Path
    layout: str
    splits: Mapping[str, tuple[Path, ...]]


def find_files(
    name: str,
    source: Source,
    splits: tuple[str, ...],
    *,
    data: str | Path | None = None,
    download: bool = False,
) -> Found:
    """Find the files of a data set, in any layout.

    The search goes through ``data``, ``$LOWLAND_DATA`` and the Hugging Face cache, in this order;
    the network is touched only with ``download``, and only when the files are nowhere.

    Args:
        name: Name of the data set.
        source: Its description.
        splits: Splits that are needed, all from one folder.
        data: Folder to look into first.
        download: Fetch the files from the Hugging Face hub if they are nowhere.

    Returns:
        The files.

    Raises:
        DataNotFoundError: If ``data`` is not a folder, or the files are nowhere.
    """
    if data is not None and not Path(data).expanduser().is_dir():
        raise DataNotFoundError(f"data must be a folder that exists; got {str(data)!r}.")
    places = search_places(data)
    partial: list[str] = []
    for place, _ in places:
        for folder in candidate_folders(place, name, source):
            found = files_in(folder, source, splits, partial)
            if found:
                return found
    if download:
        snapshot = fetch(name, source, splits)
        for folder in (snapshot / source.config, snapshot):
            found = files_in(folder, source, splits, partial)
            if found:
                return found
        partial.append(f"{snapshot}, just downloaded, lacks files of {', '.join(splits)}")
    raise DataNotFoundError(not_found(name, source, splits, places, partial))


def search_places(data: str | Path | None) -> list[tuple[Path, str]]:
    """List the folders to search, each with the reason why it is searched."""
    places = [(Path(data).expanduser(), "data")] if data is not None else []
    if os.environ.get("LOWLAND_DATA"):
        places.append((Path(os.environ["LOWLAND_DATA"]).expanduser(), "$LOWLAND_DATA"))
    return [*places, (hub_cache(), "the Hugging Face cache")]


def hub_cache() -> Path:
    """Say where the Hugging Face hub keeps its downloads, without importing its package.

    Returns:
        ``$HF_HUB_CACHE``, else ``$HF_HOME/hub``, else the default below the user's cache.
    """
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HOME") or default).expanduser() / "hub"


def candidate_folders(place: Path, name: str, source: Source) -> Iterator[Path]:
    """Walk through the folders below a place that may hold the data set, special before general."""
    short = source.repo.split("/")[-1]
    for hub in (place, place / "hub"):
        for repo in (source.repo, short):  # short: the hub's names before 2024 had no owner
            for snapshot in snapshots(hub, repo):
                yield from (snapshot / source.config, snapshot)
    for base in dict.fromkeys((place / name, place / source.repo, place / short, place)):
        for inner in dict.fromkeys((source.config, *source.folders, "")):
            yield base / inner


def snapshots(hub: Path, repo: str) -> list[Path]:
    """List the revisions of a repository in a hub cache: the one called main, then the newest."""
    home = hub / f"datasets--{repo.replace('/', '--')}"
    folders = [folder for folder in home.glob("snapshots/*") if folder.is_dir()]
    main = home / "refs" / "main"
    current = main.read_text().strip() if main.is_file() else ""
    return sorted(folders, key=lambda f: (f.name != current, -f.stat().st_mtime))


def files_in(
    folder: Path, source: Source, splits: tuple[str, ...], partial: list[str]
) -> Found | None:
    """Recognize the layout of a folder by file names; note in ``partial`` what is incomplete."""
    if not folder.is_dir():
        return None
    attempts = {
        "parquet": {split: parquet_files(folder, split) for split in splits},
        source.layout: {split: classic_files(folder, source, split) for split in splits},
    }
    if source.archive and (folder / source.archive).is_file():
        attempts["archive"] = dict.fromkeys(splits, (folder / source.archive,))
    for layout, files in attempts.items():
        missing = [split for split in splits if not files[split]]
        if not missing:
            return Found(folder, layout, files)
        if len(missing) < len(splits):
            partial.append(f"{folder} has {layout} files, but not all of {', '.join(missing)}")
    return None


def parquet_files(folder: Path, split: str) -> tuple[Path, ...]:
    """Find ``split.parquet``, or a complete set of ``split-00000-of-00002.parquet`` shards."""
    single = folder / f"{split}.parquet"
    if single.is_file():
        return (single,)
    shards: dict[int, dict[int, Path]] = {}
    for file in folder.glob(f"{split}-*-of-*.parquet"):
        match = re.fullmatch(rf"{split}-(\d+)-of-(\d+)\.parquet", file.name)
        if match and file.is_file():
            shards.setdefault(int(match[2]), {})[int(match[1])] = file
    for total, files in sorted(shards.items()):
        if set(files) == set(range(total)):
            return tuple(files[number] for number in range(total))
    return ()


def classic_files(folder: Path, source: Source, split: str) -> tuple[Path, ...]:
    """Find the classic files of a split, compressed or not; empty unless all are there."""
    names = source.classic.get(split, ())
    endings = ("", ".gz") if source.layout == "idx" else ("",)
    found = []
    for name in names:
        files = [folder / f"{name}{ending}" for ending in endings]
        found += [file for file in files if file.is_file()][:1]
    return tuple(found) if len(found) == len(names) else ()


def fetch(name: str, source: Source, splits: tuple[str, ...]) -> Path:
    """Download the parquet files of a data set into the Hugging Face cache.

    Args:
        name: Name of the data set.
        source: Its description.
        splits: Splits to fetch.

    Returns:
        Folder of the snapshot.

    Raises:
        MissingExtraError: If huggingface_hub is not installed.
        DataNotFoundError: If the download fails.
    """
    try:
        from huggingface_hub import snapshot_download
    except Exception as error:
        raise MissingExtraError(
            f"downloading {name} needs huggingface_hub, which cannot be imported ({error}). "
            "Run pip install 'lowland[data]'."
        ) from error
    patterns = [f"{source.config}/{split}-*.parquet" for split in splits]
    try:
        folder = snapshot_download(
            source.repo, repo_type="dataset", allow_patterns=patterns, cache_dir=hub_cache()
        )
    except Exception as error:  # the hub raises a dozen kinds, all meaning the same here
        raise DataNotFoundError(
            f"{name} could not be downloaded from {source.repo} on the Hugging Face hub "
            f"({type(error).__name__}: {error}). {advice(name, source, splits)}"
        ) from error
    return Path(folder)


def not_found(
    name: str,
    source: Source,
    splits: tuple[str, ...],
    places: list[tuple[Path, str]],
    partial: list[str],
) -> str:
    """Say where the data set was looked for, what was incomplete, and what to do."""
    looked = "; ".join(
        f"{place} ({why}{'' if place.is_dir() else ', no such folder'})" for place, why in places
    )
    if not any(why == "$LOWLAND_DATA" for _, why in places):
        looked += "; $LOWLAND_DATA is not set"
    incomplete = f" Incomplete: {'; '.join(dict.fromkeys(partial))}." if partial else ""
    return (
        f"{name} must lie in one of the folders searched; looked in {looked}.{incomplete} "
        f"Download it with download=True (--download on the command line), or do it by hand: "
        f"{advice(name, source, splits)}"
    )


def advice(name: str, source: Source, splits: tuple[str, ...]) -> str:
    """Name the files that would do."""
    parquet = " and ".join(f"{split}-00000-of-00001.parquet" for split in splits)
    ending = ".gz" if source.layout == "idx" else ""
    classic = source.archive or " ".join(f + ending for s in splits for f in source.classic[s])
    return (
        f"Put {parquet} (from {source.config}/ of {source.repo}) or {classic} into "
        f"DIR/{name}/ and set LOWLAND_DATA=DIR. The data set 'digits' needs no file."
    )
