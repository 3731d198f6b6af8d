"""The embedded digits: 1,797 images of 8x8 pixels, so that everything runs without a download.

The pixels are the test set of *Optical Recognition of Handwritten Digits* (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998), license CC BY 4.0 as stated by UCI (unverified).
They are the same 1,797 images, in the same order, that scikit-learn ships as ``load_digits``:
32x32 bitmaps of digits written by 13 people, reduced to counts of set pixels in 4x4 cells.
"""

from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

__all__ = ["read_digits"]

TEST_SIZE = 360


def read_digits() -> dict[str, np.ndarray]:
    """Read the digits, split once and for all into 1,437 for training and 360 for testing.

    The 17 gray levels 0..16 are spread over 0..255 (``round(level * 255 / 16)``) so that these
    images are scaled as all others are; ``round(pixel * 16 / 255)`` gives the level back.

    Returns:
        ``train_images`` (1437, 1, 8, 8) and ``test_images`` (360, 1, 8, 8), uint8;
        ``train_labels`` and ``test_labels``, int64. Both keep the original order.

    Source:
        UCI Machine Learning Repository, Optical Recognition of Handwritten Digits; split: ours.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        levels, labels = stored["pixels"], stored["labels"].astype(np.int64)
    images = np.rint(levels * (255 / 16)).astype(np.uint8)[:, None]
    test = np.isin(np.arange(len(labels)), test_indices(tuple(labels.tolist())))
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }


@cache
def test_indices(labels: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the test images: from each class the first few in the order of a hash.

    Each class gives its share of 360, rounded down; the seats left over go to the largest
    remainders. A hash of the index, unlike a generator, is the same in every version of anything.

    Args:
        labels: Classes of all images.

    Returns:
        Indices of the test images, ascending.
    """
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    share = {label: len(of) * TEST_SIZE / len(labels) for label, of in members.items()}
    seats = {label: int(part) for label, part in share.items()}
    by_remainder = sorted(share, key=lambda label: (seats[label] - share[label], label))
    for label in by_remainder[: TEST_SIZE - sum(seats.values())]:
        seats[label] += 1
    chosen = [sorted(of, key=hash_of)[: seats[label]] for label, of in members.items()]
    return tuple(sorted(index for part in chosen for index in part))


def hash_of(index: int) -> bytes:
    """Hash an image's index, with the name of the split as the seed."""
    return sha256(f"lowland digits split 1: {index}".encode()).digest()
