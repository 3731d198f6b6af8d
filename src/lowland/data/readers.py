"""Read the pixels and labels of one split from the files of one layout."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lowland.data.catalog import SOURCES, Source
from lowland.data.pickles import read_cifar_batch
from lowland.errors import MissingExtraError

__all__ = ["Split", "check_sum", "read_split"]


class Split(NamedTuple):
    """One split, decoded.

    Attributes:
        images: Shape ``(n, channels, height, width)``, uint8.
        labels: Shape ``(n,)``, int64.
        coding: How the files hold the pixels; ``"JPEG"`` means that some were lost.
    """

    images: np.ndarray
    labels: np.ndarray
    coding: str


def read_split(layout: str, files: tuple[Path, ...], source: Source, split: str) -> Split:
    """Read one split.

    Args:
        layout: ``"parquet"``, ``"idx"``, ``"cifar"``, ``"archive"`` or ``"mat"``.
        files: Its files, in order.
        source: Description of the data set.
        split: ``"train"``, ``"test"`` or ``"extra"``.

    Returns:
        The decoded split.
    """
    if layout == "parquet":
        result = read_parquet(files, source)
    elif layout == "idx":
        result = Split(read_idx(files[0])[:, None], read_idx(files[1]), "raw")
    elif layout == "mat":
        result = read_mat(files)
    else:
        batches = (
            archive_members(files[0], source.classic[split])
            if layout == "archive"
            else (file.read_bytes() for file in files)
        )
        result = read_cifar(batches, files[0])
    return checked(result, files[0], source)


def check_sum(file: Path, source: Source) -> None:
    """Compare the MD5 of a classic file with the published one; MD5 finds damage, not malice.

    Args:
        file: A classic file; one whose sum is not published passes unless it is known to belong
            to another data set (MNIST and Fashion-MNIST share their file names).
        source: Description of the data set it should belong to.

    Raises:
        ValueError: If the sums differ.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    wanted = source.md5.get(file.name)
    others = (s.md5.get(file.name) for s in SOURCES.values() if s.repo != source.repo)
    if (wanted and digest != wanted) or (not wanted and digest in others):
        raise ValueError(
            f"{file} must be the published file of {source.repo.split('/')[-1]}, "
            f"MD5 {wanted or 'unlisted'}; got MD5 {digest}. It is damaged or belongs to another "
            "data set: remove it or download it again."
        )


def checked(split: Split, file: Path, source: Source) -> Split:
    """Return the split, or say why it is not of this data set."""
    images, labels = split.images, split.labels.astype(np.int64)
    where = f"{file.parent} (expected {source.repo.split('/')[-1]})"
    if images.shape[1:] != source.shape or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 of shape {source.shape}; got {images.dtype} of shape "
            f"{images.shape[1:]} in {where}. Point data= at the right folder."
        )
    if len(images) != len(labels) or not len(labels):
        raise ValueError(
            f"there must be one label per image; got {len(images)} images and {len(labels)} "
            f"labels in {where}."
        )
    if labels.min() < 0 or labels.max() >= len(source.classes):
        raise ValueError(
            f"labels must lie in 0..{len(source.classes) - 1}; got {labels.min()}..{labels.max()} "
            f"in {where}. Point data= at the right folder."
        )
    return Split(np.require(images, requirements=["C", "W"]), labels, split.coding)


def read_idx(file: Path) -> np.ndarray:
    """Read an idx file: two zero bytes, type 8 (uint8), number of axes, big-endian sizes, data."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    axes = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist()) if len(data) >= 4 + 4 * axes else ()
    start = 4 + 4 * axes
    if not shape or len(data) != start + int(np.prod(shape)):
        raise ValueError(
            f"{file} must be a complete idx file of bytes; got {len(data)} bytes starting with "
            f"{data[:4]!r}. Download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_mat(files: tuple[Path, ...]) -> Split:
    """Read SVHN's MATLAB files: X (height, width, channels, n); y (n, 1) with 10 for digit 0."""
    from scipy.io import loadmat

    parts = [loadmat(file, variable_names=("X", "y")) for file in files]
    images = np.concatenate([part["X"].transpose(3, 2, 0, 1) for part in parts])
    labels = np.concatenate([part["y"].reshape(-1) for part in parts])
    return Split(images, labels % 10, "raw")


def archive_members(file: Path, names: tuple[str, ...]) -> Iterator[bytes]:
    """Read members of a ``.tar.gz`` into memory; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            stream = archive.extractfile(member) if member.isfile() and name in names else None
            if stream is not None:
                found[name] = stream.read()
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{file} must hold {', '.join(names)}; it lacks {', '.join(missing)}.")
    yield from (found[name] for name in names)


def read_cifar(batches: Iterator[bytes], file: Path) -> Split:
    """Read CIFAR's python batches: rows of 1,024 red, green and blue pixels each."""
    images, labels = [], []
    for batch in batches:
        pixels, classes = read_cifar_batch(batch, str(file))
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels.append(classes)
    return Split(np.concatenate(images), np.concatenate(labels), "raw")


def read_parquet(files: tuple[Path, ...], source: Source) -> Split:
    """Read parquet shards as the hub has them: a struct of coded image bytes, and a label."""
    parquet = parquet_module()
    images, labels, codings = [], [], set()
    for file in files:
        with parquet.ParquetFile(file) as shard:
            columns = columns_of(shard.schema_arrow, file)
            check_classes(shard.schema_arrow, columns[1], file, source)
            for rows in shard.iter_batches(batch_size=1024, columns=list(columns)):
                cells = rows.column(columns[0]).field("bytes")
                decoded = [decode(cell.as_py(), source.shape[0], file) for cell in cells]
                images.append(stack(decoded, file))
                codings |= {coding for _, coding in decoded}
                labels.append(rows.column(columns[1]).to_numpy(zero_copy_only=False))
    if not images:
        raise ValueError(f"{files[0]} must hold at least one row; got none.")
    coding = "JPEG" if "JPEG" in codings else "/".join(sorted(codings))
    return Split(np.concatenate(images), np.concatenate(labels), coding)


def parquet_module() -> Any:
    """Import what reads parquet files, or say how to get it."""
    try:
        import pyarrow.parquet
        from PIL import Image  # noqa: F401  (asked for here, so that both are missed at once)
    except Exception as error:
        raise MissingExtraError(
            f"reading parquet files needs pyarrow and pillow, which cannot be imported ({error}). "
            "Run pip install 'lowland[data]'."
        ) from error
    return pyarrow.parquet


def columns_of(schema: Any, file: Path) -> tuple[str, str]:
    """Choose the image column and the label column."""
    image = next((name for name in ("img", "image") if name in schema.names), None)
    label = next((name for name in ("label", "fine_label") if name in schema.names), None)
    if image is None or label is None:
        raise ValueError(
            f"{file} must have a column img or image, and label or fine_label; "
            f"got {', '.join(schema.names)}."
        )
    return image, label


def check_classes(schema: Any, label: str, file: Path, source: Source) -> None:
    """Refuse a file whose own class names are those of another data set.

    Spelling differs between publishers ("T - shirt / top"), so half of the names must agree.

    Args:
        schema: Schema of the file, with the hub's description if it has one.
        label: Name of the label column.
        file: Its name.
        source: Description of the data set it should hold.

    Raises:
        ValueError: If it describes another data set.
    """
    try:
        info = json.loads(schema.metadata[b"huggingface"])["info"]
        names = [str(name) for name in info["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return  # the description is optional
    agree = sum(bare(a) == bare(b) for a, b in zip(names, source.classes, strict=False))
    if 2 * agree < len(source.classes):
        raise ValueError(
            f"{file} must hold {source.repo.split('/')[-1]}, classes "
            f"{', '.join(source.classes[:3])}, ...; it says {', '.join(names[:3])}, ... "
            "Point data= at the right folder."
        )


def bare(name: str) -> str:
    """Reduce a class name to its letters and digits."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def decode(data: bytes | None, channels: int, file: Path) -> tuple[np.ndarray, str]:
    """Decode one image to (channels, height, width), with the name of its coding."""
    from PIL import Image

    if data is None:
        raise ValueError(f"{file} must hold the bytes of every image; got a path only.")
    with Image.open(io.BytesIO(data)) as image:
        coding = str(image.format)
        wanted = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == wanted else image.convert(wanted))
    return (pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)), coding


def stack(decoded: list[tuple[np.ndarray, str]], file: Path) -> np.ndarray:
    """Stack images of one size."""
    shapes = {pixels.shape for pixels, _ in decoded}
    if len(shapes) != 1:
        raise ValueError(f"{file} must hold images of one size; got {sorted(shapes)[:3]}.")
    return np.stack([pixels for pixels, _ in decoded])
