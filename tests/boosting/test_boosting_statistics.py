"""Statistics by chunks and by processes are those of the whole training set."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close
from two_boosters import ALPHAS, COUNT, certify, chunked, data, one_process

from forked import run_ranks
from lowland.boosting import statistics
from lowland.boosting.certificate import certificate
from lowland.boosting.statistics import Statistics, measure
from lowland.results import read_json


def assert_same(one, other, tolerance=1e-12):
    """The same numbers, in records of any depth."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name], tolerance)
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, tolerance)
    else:
        assert one == pytest.approx(other, rel=tolerance, abs=1e-14)


def whole():
    output, previous, target, weights = data()
    return [
        certificate(
            output, target, previous=previous, weights=weights, alpha_previous=0.3,
            edge_previous=0.2, alpha=alpha,
        )
        for alpha in ALPHAS
    ]  # fmt: skip


@pytest.mark.parametrize("cuts", [(0, COUNT), (0, 10, 20, COUNT), (0, 1, 2, 2, 22, COUNT)])
def test_chunks_of_any_size(cuts):
    """A ragged last chunk counts as much as its examples; an empty one counts nothing."""
    found = certify(chunked(*cuts))
    for record, expected in zip(found["records"], whole(), strict=True):
        assert_same(record, expected.record())
    assert_same(found["shares"], whole()[0].margin_shares[::50].tolist())


def test_pieces_of_chunks(monkeypatch):
    """What is looked at together is small, however large a chunk is."""
    expected = [c.record() for c in whole()]
    monkeypatch.setattr(statistics, "PIECE", 9)  # two rows of four classes
    assert_same([c.record() for c in whole()], expected)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """Uneven shares, a process without any, and a bad number on one process that all hear of."""
    run_ranks(one_process, tmp_path)
    first, second = (read_json(tmp_path / f"rank-{rank}.json") for rank in (0, 1))
    assert first == second
    alone = certify(chunked(0, COUNT))
    assert_same(first["uneven"], alone)
    assert_same(first["one has none"], alone)
    assert "finite and bounded" in first["refused"]


def test_one_pass_for_an_edge():
    """What a stop rule asks for between updates."""
    statistics_of = Statistics(alpha_previous=0.3)
    for output, previous, target, weights in chunked(0, 9, COUNT):
        statistics_of.add(output, target, previous=previous, weights=weights)
    found, expected = statistics_of.result(), whole()[0]
    assert found.edge == pytest.approx(expected.edge, abs=1e-15)
    assert found.error == pytest.approx(expected.error, abs=1e-15)
    assert found.examples == COUNT


def test_number_of_passes():
    """Two, and a few for the line search."""
    calls = []

    def read():
        calls.append(1)
        return chunked(0, 12, COUNT)

    measure(read, alpha_previous=0.3)
    assert len(calls) == 2
    measure(read, alpha_previous=0.3, alpha="line_search")
    assert 4 <= len(calls) - 2 <= 10


def test_many_classes(rng):
    """A chunk of 50,000 classes at a time, labels where the margins are large."""
    target = torch.randint(50_000, (6,), generator=rng)
    logits = torch.randn(6, 50_000, generator=rng)
    logits[range(6), target] += 12
    output = logits.double().softmax(1)
    found = measure(lambda: ((output[i : i + 1], None, target[i : i + 1], None) for i in range(6)))
    right = output.gather(1, target[:, None]).mean().item()
    assert found.edge == pytest.approx((50_000 * right - 1) / 49_999, abs=1e-12)
    assert_same(found.record(), certificate(output, target).record())


def test_outputs_of_lower_precision(rng):
    """Float32 and bfloat16 outputs, which may need a gradient, are judged in float64."""
    target = torch.randint(3, (8,), generator=rng)
    logits = torch.randn(8, 3, generator=rng, requires_grad=True)
    expected = certificate(logits.double().softmax(1), target)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        found = certificate(logits.softmax(1).to(dtype), target)
        assert found.edge == pytest.approx(expected.edge, abs=tolerance)
        assert found.loss == pytest.approx(expected.loss, abs=5 * tolerance)
    assert logits.grad is None


@pytest.mark.parametrize("row", [0, 3])
def test_covariance_does_not_cancel(row):
    """A loss of 1e-11 where the old hypothesis was right, or wrong, beside weights of exp(8)."""
    previous = tensor([[1, 0], [1, 0], [1, 0], [0.5, 0.5]], dtype=torch.float64)
    output = tensor([[1, 0]] * 4, dtype=torch.float64)
    output[row] = tensor([1 - 1e-11, 1e-11], dtype=torch.float64)
    target = torch.zeros(4, dtype=torch.long)
    found = certificate(output, target, previous=previous, alpha_previous=8.0)
    assert (found.covariance > 0) == (row == 0)


@pytest.mark.untyped
def test_bad_chunks():
    first, second = chunked(0, 9, COUNT)
    with pytest.raises(ValueError, match="same classes; got 4 and then 3"):
        measure(lambda: [first, tuple(x[:, :3] if x.ndim == 2 else x % 3 for x in second)])
    reads = iter([[first, second], [first]])
    with pytest.raises(ValueError, match="same 23 examples with the same outputs; got 9"):
        measure(lambda: next(reads))
    with pytest.raises(ValueError, match="weight above zero"):
        measure(list)
    used = iter([iter([first, second])] * 2)
    with pytest.raises(ValueError, match="got 0 in a later pass"):
        measure(lambda: next(used))


def test_shares_of_margins():
    """Shares grow with theta, from the worst margin to the best."""
    shares = whole()[0].margin_shares
    assert (shares.diff() >= 0).all()
    assert shares[0] == 0
    assert_close(shares[-1], tensor(1.0, dtype=torch.float64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_on_an_accelerator():
    """Outputs there, labels and weights here or there: the numbers of the CPU."""
    output, previous, target, weights = data()
    expected = whole()[1].record()
    for place in ("cpu", "cuda"):
        found = certificate(
            output.cuda(), target.to(place), previous=previous.to(place),
            weights=weights.to(place), alpha_previous=0.3, edge_previous=0.2, alpha="line_search",
        )  # fmt: skip
        assert_same(found.record(), expected)
