"""Load an image data set whole, as uint8 tensors in memory."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from lowland.data.cache import cached, content_hash
from lowland.data.catalog import DIGITS, EMBEDDED, Source, source_of
from lowland.data.digits import read_digits
from lowland.data.find import Found, find_files
from lowland.data.readers import check_sum, read_split

__all__ = ["Dataset", "channel_statistics", "load"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image classification data set.

    Attributes:
        name: Its name.
        images: Training images, values 0..255.
        labels: Their classes.
        test_images: Test images.
        test_labels: Their classes.
        classes: Class names in label order.
        note: What to say when quoting a number: the form of the files, and whether it is lossy.
        folder: Where the files were found, None for the embedded digits.
    """

    name: str
    images: UInt8[Tensor, "n channels height width"]
    labels: Int[Tensor, " n"]
    test_images: UInt8[Tensor, "n_test channels height width"]
    test_labels: Int[Tensor, " n_test"]
    classes: tuple[str, ...]
    note: str = ""
    folder: Path | None = None

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image, as :func:`lowland.models.build` takes it."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def __repr__(self) -> str:
        """Name the set and its sizes; the images themselves would fill the screen."""
        sizes = f"{len(self.images)} images of {' x '.join(map(str, self.in_shape))}"
        return f"Dataset({self.name!r}, {sizes}, {len(self.test_images)} to test on)"


def load(
    name: str,
    *,
    data: str | Path | None = None,
    download: bool = False,
    extra: bool = False,
) -> Dataset:
    """Load a data set: the embedded digits, or one that lies in files.

    Files are looked for in ``data``, in ``$LOWLAND_DATA`` and in the Hugging Face cache, in this
    order, directly or in a folder named like the data set, in any of these layouts: the parquet
    files of the Hugging Face hub (one, or all shards of, each split), CIFAR's
    ``cifar-10-python.tar.gz`` or its unpacked folder, MNIST's idx files with or without ``.gz``,
    SVHN's ``.mat`` files. Classic files are checked against their published MD5; CIFAR's pickles
    are read without running them (:mod:`lowland.data.pickles`). What is slow to decode is kept in
    ``$LOWLAND_CACHE``, by default ``~/.cache/lowland``, under a hash of the files.

    Args:
        name: ``"digits"``, ``"cifar10"``, ``"cifar100"``, ``"mnist"``, ``"svhn"`` or
            ``"fashion_mnist"``.
        data: Folder to look into first.
        download: Fetch the files from the Hugging Face hub if they are in none of the folders;
            without it the network is never touched.
        extra: Add the 531,131 further images of SVHN to its training set.

    Returns:
        The data set, on the CPU.

    Raises:
        ValueError: If there is no such data set, or a file is damaged or of another data set.

    Example:
        >>> digits = load("digits")
        >>> digits.images.shape, digits.test_images.shape
        (torch.Size([1437, 1, 8, 8]), torch.Size([360, 1, 8, 8]))
    """
    if name == EMBEDDED:
        note = "8x8 digits from UCI, gray levels 0..16 spread over 0..255"
        return as_dataset(name, read_digits(), DIGITS, note, None)
    source = source_of(name)
    if extra and "extra" not in source.classic:
        raise ValueError(f"extra must be False except for svhn; got extra=True for {name!r}.")
    splits = ("train", "test", "extra") if extra else ("train", "test")
    found = find_files(name, source, splits, data=data, download=download)
    arrays = read_or_cached(name, source, found)
    coding = str(arrays["coding"])
    note = f"{found.layout} files, images stored as {coding}"
    if coding == "JPEG":
        note += ", which is lossy: these are not the original pixels"
    return as_dataset(name, arrays, source.classes, note, found.folder)


def read_or_cached(name: str, source: Source, found: Found) -> dict[str, np.ndarray]:
    """Decode all splits, through the cache unless decoding is as fast as reading a cache."""
    decode = partial(decode_all, source, found)
    if found.layout == "idx":
        return decode()
    files = [file for split in found.splits.values() for file in split]
    return cached(name, content_hash(name + " ".join(found.splits), files), decode)


def decode_all(source: Source, found: Found) -> dict[str, np.ndarray]:
    """Check and decode the files; an extra split goes to the end of the training set."""
    if found.layout != "parquet":
        for file in dict.fromkeys(file for split in found.splits.values() for file in split):
            check_sum(file, source)
    splits = {
        split: read_split(found.layout, files, source, split)
        for split, files in found.splits.items()
    }
    train = [splits[split] for split in ("train", "extra") if split in splits]
    lossy = any(split.coding == "JPEG" for split in splits.values())
    return {
        "train_images": joined([split.images for split in train]),
        "train_labels": joined([split.labels for split in train]),
        "test_images": splits["test"].images,
        "test_labels": splits["test"].labels,
        "coding": np.array("JPEG" if lossy else splits["test"].coding),
    }


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate, without a copy of a single part."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def as_dataset(
    name: str,
    arrays: dict[str, np.ndarray],
    classes: tuple[str, ...],
    note: str,
    folder: Path | None,
) -> Dataset:
    """Wrap arrays as tensors."""
    return Dataset(
        name,
        torch.from_numpy(arrays["train_images"]),
        torch.from_numpy(arrays["train_labels"]),
        torch.from_numpy(arrays["test_images"]),
        torch.from_numpy(arrays["test_labels"]),
        classes,
        note,
        folder,
    )


def channel_statistics(
    images: UInt8[Tensor, "n channels height width"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure the mean and the standard deviation of each channel, in units where 255 is 1.

    Args:
        images: Images of values 0..255.

    Returns:
        Means and standard deviations (over all pixels, divisor n), as
        :class:`~lowland.data.Batches` takes them; exact up to the last rounding.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double().cpu()
        share /= share.sum()
        mean = (share * levels).sum()
        means.append(mean.item())
        deviations.append((share * (levels - mean) ** 2).sum().sqrt().item())
    return tuple(means), tuple(deviations)
