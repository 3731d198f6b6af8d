"""The embedded digits: the pixels of the original file, and one split for ever."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

import lowland.data
from lowland.data import channel_statistics, load


def digest(array):
    return sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_stored_pixels_are_the_original_ones():
    """Sums of the 1,797 rows of optdigits.tes in order, as uint8: pixels, then labels."""
    with np.load(Path(lowland.data.__file__).with_name("digits.npz")) as stored:
        assert stored["pixels"].shape == (1797, 8, 8)
        assert stored["pixels"].max() == 16
        assert digest(stored["pixels"]) == (
            "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
        )
        assert digest(stored["labels"]) == (
            "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
        )
        assert np.bincount(stored["labels"]).tolist() == [
            178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
        ]  # fmt: skip
        assert "CC BY 4.0" in str(stored["credit"])


def test_shapes_levels_and_note():
    digits = load("digits", data="/nowhere")  # needs no folder
    assert digits.images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.images.dtype == torch.uint8
    assert digits.labels.dtype == torch.int64
    assert digits.in_shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert digits.folder is None
    levels = digits.images.unique()
    assert len(levels) == 17
    assert levels.max() == 255
    assert ((levels * (16 / 255)).round() == torch.arange(17)).all()


def test_split_is_stratified():
    """Each class gives its share of 360 to the test set, rounded down or up."""
    digits = load("digits")
    train, test = digits.labels.bincount(), digits.test_labels.bincount()
    share = (train + test) * 360 / 1797
    assert ((test - share).abs() < 1).all()
    assert test.sum() == 360


def test_split_parts_make_up_the_whole_without_overlap():
    with np.load(Path(lowland.data.__file__).with_name("digits.npz")) as stored:
        pixels, labels = stored["pixels"], stored["labels"]
    digits = load("digits")
    both = torch.cat([digits.images, digits.test_images]).flatten(1)
    found = torch.cat([(both * (16 / 255)).round().to(torch.uint8), digits_labels(digits)], 1)
    whole = np.concatenate([pixels.reshape(1797, 64), labels[:, None]], 1)
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, whole))


def digits_labels(digits):
    return torch.cat([digits.labels, digits.test_labels])[:, None].to(torch.uint8)


def test_split_never_changes():
    """The first labels of both parts; any other split would be another data set."""
    digits = load("digits")
    assert digest(digits.test_labels.numpy().astype(np.uint8)) == TEST_LABELS
    assert digest(digits.test_images.numpy()) == TEST_IMAGES


TEST_LABELS = "514d2efbe68867e305188bb44fce2df733a0aaab5a19f57b3a760601b28c4765"
TEST_IMAGES = "ac395d7955bc29c354d214947285aa31d4a68a661dca77b8f261f15530667551"


def test_channel_statistics_are_those_of_the_pixels():
    digits = load("digits")
    mean, std = channel_statistics(digits.images)
    pixels = digits.images.double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), pixels.mean().reshape(1))
    torch.testing.assert_close(torch.tensor(std).double(), pixels.std(correction=0).reshape(1))
