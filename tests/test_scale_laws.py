"""The laws of growth in ``benchmarks``: a power is found exactly, and bytes are counted as made."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from math import e, sqrt
from pathlib import Path

import pytest
import torch

from lowland.training import all_sum

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import from the folder of the benchmarks, which is no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.5, -1.0])
def test_a_power_gives_its_exponent(load, exponent):
    fit = load("laws.law").fit_power([(x, 3 * x**exponent) for x in (10, 70, 300, 9000)])
    assert fit.exponent == pytest.approx(exponent, abs=1e-12)
    assert fit.factor == pytest.approx(3, rel=1e-12)
    assert fit.error == pytest.approx(0, abs=1e-7)


def test_the_error_is_that_of_a_straight_line(load):
    """Logarithms (0, 0), (1, 1), (2, 1): slope 1/2, squared residuals 1/6, spread 2."""
    fit = load("laws.law").fit_power([(1, 1), (e, e), (e**2, e)])
    assert fit.exponent == pytest.approx(1 / 2)
    assert fit.error == pytest.approx(sqrt(1 / 12))


@pytest.mark.parametrize("points", [[(1, 1), (2, 2)], [(1, 1), (2, 0), (3, 3)]])
def test_no_power_through_too_few_points_or_zeros(load, points):
    with pytest.raises(ValueError, match="at least three points, all positive"):
        load("laws.law").fit_power(points)


def test_bytes_are_those_of_the_tensors(load):
    """Two vectors at once, one of which stays; what was there before does not count."""
    law, before = load("laws.law"), torch.ones(1000)
    assert law.peak_bytes(lambda: before + torch.ones(1000)) == 8000
    assert law.held_bytes(lambda: before + torch.ones(1000)) == 4000


def test_what_is_handed_to_a_group_is_counted(load):
    """A sum of ten floats, by one of two; nothing where there is one process."""
    ranks = load("laws.ranks")
    for world, bytes_handed in ((2, [40]), (1, [])):
        with ranks.counted(world) as found:
            assert torch.equal(all_sum(torch.ones(10)), torch.ones(10))
        assert found == bytes_handed


def test_every_law_can_be_asked_for(load):
    """By a name of its own, and with enough values to fit a power."""
    laws = load("laws").LAWS
    assert len({law.name for law in laws}) == len(laws)
    for law in laws:
        assert list(law.values) == sorted(law.values)
        assert sum(value >= law.first for value in law.values) >= 3


def test_copies_grow_with_waiting_times_exactly(load):
    """One vector of D floats for each, and nothing else."""
    every = {law.name: law for law in load("laws").LAWS}
    found = load("laws.law").record_of(
        replace(every["dynamics-copies-waits"], values=(1, 2, 4), first=0)
    )
    assert found["exponent"] == pytest.approx(1, abs=1e-12)
    assert found["constant"] == 1
    assert found["range"] == [1, 4]


def test_a_band_hands_over_every_gradient_and_loss(load):
    """4 P (D + 1) bytes for P pivots by the loop: the ends are run by every process."""
    ranks, networks = load("laws.ranks"), load("laws.networks")
    size = networks.weights_of(networks.perceptron(500))
    for pivots in (1, 3):
        assert ranks.band_bytes(500, pivots) == 4 * pivots * (size + 1)


def test_the_script_writes_what_it_measured(load, monkeypatch, tmp_path, capsys):
    scale = load("scale")
    small = [replace(law, values=law.values[:3], first=0) for law in scale.LAWS]
    monkeypatch.setattr(scale, "LAWS", small)
    file = tmp_path / "scale.json"
    monkeypatch.setattr(
        sys, "argv", ["scale.py", "--law", "boosting-saved-b", "ranks-pool", "--out", str(file)]
    )
    threads = torch.get_num_threads()
    try:
        scale.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads(file.read_text())
    assert [law["name"] for law in found["laws"]] == ["boosting-saved-block", "ranks-pool"]
    assert all(law["exponent"] == pytest.approx(0, abs=1e-12) for law in found["laws"])
    assert "boosting-saved-block" in capsys.readouterr().out


def test_an_unknown_law_is_told(load, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scale.py", "--law", "nothing"])
    with pytest.raises(SystemExit, match="no law begins with nothing"):
        load("scale").main()
