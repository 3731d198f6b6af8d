"""Rows of a whole data set: the same from a loader and from batches, augmented, or refused."""

import pytest
import torch
from rows_as_losses import ALL, given_loss, images, loader, rows, step
from torch.utils.data import DataLoader, TensorDataset

from lowland.data import Batches
from lowland.importance.history import HistorySampling
from lowland.importance.whole_set import whole_set


@pytest.mark.parametrize("name", ["history", "rank", "pruning"])
def test_a_loader_and_batches_give_the_same_rows(name):
    """And the loader's own sampler plays no part."""
    found = []
    for data in (images(), loader(), loader(shuffle=True)):
        sampling = ALL[name]()
        found.append([step(sampling, (y.double(), y)) for _ in range(3) for _, y in sampling(data)])
    assert found[0] == found[1] == found[2]


def test_a_loader_collates_as_it_was_told():
    data = loader(10, 4, drop_last=True, collate_fn=lambda parts: ("mine", len(parts)))
    whole = whole_set(data)
    assert (whole.count, whole.batch_size, whole.steps) == (10, 4, 2)
    assert whole.rows(torch.tensor([3, 3, 1]), None) == ("mine", 3)


def test_rows_are_augmented_where_batches_are():
    """By the sampling's own draws: two batches of the same row differ, two runs do not."""
    pixels = torch.randint(256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    data = Batches(pixels.to(torch.uint8), torch.arange(4), 16, augment="crop-flip")
    first, second = (next(HistorySampling(given_loss, seed=seed)(data)) for seed in (5, 5))
    assert torch.equal(first[0], second[0])
    assert len(first[0].unique(dim=0)) > 8


@pytest.mark.parametrize("name", ["history", "rank", "pruning"])
def test_data_whose_rows_cannot_be_asked_for_is_refused(name):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    for data in (rows(), DataLoader(Stream(), 4), DataLoader(TensorDataset(torch.ones(3)), None)):
        with pytest.raises(ValueError, match="chooses among all rows needs a DataLoader"):
            next(ALL[name]()(data))
    sampling = ALL[name]()
    next(sampling(images()))
    with pytest.raises(ValueError, match="losses are known of, 40 rows; got 30"):
        next(sampling(images(30)))
    with pytest.raises(ValueError, match="losses must not be negative.*got -1"):
        sampling.loss(-torch.ones(8), torch.ones(8))
