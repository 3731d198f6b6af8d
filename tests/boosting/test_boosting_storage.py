"""A storage gives back the rows that were put in, from wherever it keeps them."""

import os

import pytest
import torch
from tiny_parts import CPU, TinyPart, as_batches, rows

from lowland.boosting.features import read_features
from lowland.boosting.storage import PLACES, Storage


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_rows_come_back_to_the_bit(place, dtype, tmp_path):
    x = (rows(30, 12)[0] * 9).abs().to(dtype).reshape(30, 3, 4)
    storage = Storage(x[:4], 30, place, device=CPU, folder=tmp_path)
    for start in range(0, 30, 7):
        assert storage.write(start, x[start : start + 7])
    index = torch.tensor([29, 0, 3, 3])
    assert torch.equal(storage.rows(index), x[index])
    assert torch.equal(storage.slice(5, 11), x[5:11])
    assert storage.bytes() == x.numel() * x.element_size()
    assert storage.rows(index).dtype == dtype
    storage.rows(index).zero_()
    storage.slice(0, 30).zero_()
    assert torch.equal(storage.slice(0, 30), x)


@pytest.mark.parametrize("place", PLACES)
def test_floating_point_numbers_are_kept_shorter_and_come_back_in_their_type(place):
    x = rows()[0]
    storage = Storage(x, 20, place, device=CPU, dtype=torch.bfloat16)
    storage.write(0, x)
    assert storage.bytes() == 20 * 4 * 2
    assert torch.equal(storage.slice(0, 20), x.bfloat16().double())
    whole = Storage(torch.arange(20), 20, place, device=CPU, dtype=torch.bfloat16)
    whole.write(0, torch.arange(20))
    assert torch.equal(whole.slice(0, 20), torch.arange(20))


def test_what_does_not_fit_is_refused():
    x = rows()[0]
    storage = Storage(x, 20, "device", device=CPU)
    with pytest.raises(ValueError, match=r"shape \(examples, 4\) for 20 examples; got \(20, 3\)"):
        storage.write(0, x[:, :3])
    with pytest.raises(ValueError, match=r"got \(20, 4\) at 1"):
        storage.write(1, x)


def test_numbers_that_are_not_finite_are_seen():
    x = rows()[0]
    storage = Storage(x, 20, "device", device=CPU, dtype=torch.float16)
    assert storage.write(0, x)
    assert not storage.write(0, x * 1e6)
    x[3, 3] = float("nan")
    assert not storage.write(0, x)


def test_files_have_no_name_and_go_with_the_storage(tmp_path):
    """So nothing is left behind, however the process ends."""
    folder = tmp_path / "new"
    x, y = rows(5000, 40)
    features = read_features(
        as_batches(x, y, 500), lambda inputs: (inputs,), device=CPU, cache="disk", folder=folder
    )
    assert list(folder.iterdir()) == []
    assert maps(folder) == 1
    features.advance(TinyPart(40, 0))
    assert maps(folder) == 1
    del features
    assert maps(folder) == 0


def maps(folder):
    """Files of a folder that this process has mapped."""
    with open(f"/proc/{os.getpid()}/maps") as lines:
        return len({line.split()[5] for line in lines if str(folder) in line})


def test_a_full_disk_is_an_error_at_once(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Storage(rows()[0], 20, "disk", device=CPU, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.parametrize("place", PLACES)
def test_an_accelerator_gets_the_rows(place):
    device = torch.device("cuda", 0)
    x = rows(300, 12)[0].float().to(device)
    storage = Storage(x, 300, place, device=device)
    assert storage.write(0, x)
    assert storage.place.type == ("cuda" if place == "device" else "cpu")
    order = torch.randperm(300)
    for index in order.split(64):
        found = storage.rows(index.to(storage.place))
        assert found.device == device
        assert torch.equal(found, x[index.to(device)])
    assert torch.equal(storage.slice(3, 9), x[3:9])
