"""Spectra that are known: semicircle, given eigenvalues, traces; and bounds that hold always."""

from math import asin, inf, pi, sqrt

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.dynamics.counts import measure_of
from lowland.dynamics.lanczos import lanczos
from lowland.dynamics.operators import Operator
from lowland.dynamics.probes import probe_vectors
from lowland.dynamics.products import hessian_product
from lowland.dynamics.spectral_density import exact_spectrum, spectral_density
from lowland.results import plain, write_json
from oracles.slow_hessian import slow_count, slow_density, slow_hessian
from small_networks import class_batches, losses, mlp


def operator_from(matrix):
    return Operator(lambda rows: rows @ matrix, len(matrix), matrix.dtype)


@pytest.fixture(scope="module")
def basis():
    draws = torch.Generator().manual_seed(3)
    return torch.linalg.qr(torch.randn(500, 500, dtype=float64, generator=draws))[0]


def rotated(values, basis):
    return operator_from(basis * values @ basis.T)


def semicircle_cdf(x):
    """Of radius 1."""
    return 0.5 + (x * sqrt(1 - x * x) + asin(x)) / pi


def test_goe_is_a_semicircle(rng):
    """Section 7.6: shares of a random symmetric matrix, within 1.5/N of its rigid spectrum."""
    size = 600
    matrix = torch.randn(size, size, dtype=float64, generator=rng)
    matrix = (matrix + matrix.T) / (2 * sqrt(2 * size))
    found = spectral_density(operator_from(matrix), steps=120, probes=8)
    exact = torch.linalg.eigvalsh(matrix)
    for x in (-0.8, -0.4, 0.0, 0.3, 0.9):
        assert float((exact < x).double().mean()) == pytest.approx(semicircle_cdf(x), abs=4e-3)
        (share,) = found.cdf([x]).tolist()
        assert share == pytest.approx(semicircle_cdf(x), abs=0.02)
        count = found.count(-inf, x)
        assert abs(count.value - slow_count(exact, -inf, x)) <= (
            count.resolution + 4 * count.standard_error
        )
    assert found.largest == pytest.approx(float(exact[-1]), abs=1e-6)
    assert found.smallest == pytest.approx(float(exact[0]), abs=1e-6)


SPECTRA = {
    "zeros and a decade": lambda r: torch.cat([torch.zeros(300, dtype=float64), 10 ** (-r[300:])]),
    "logarithmic": lambda r: 10 ** (-6 * r),
    "even": lambda r: 2 * r - 1,
    "bulk and outliers": lambda r: torch.where(r > 0.99, 10 + r, 1e-2 * (r - 0.3)),
    "seven values": lambda r: (7 * r).floor(),
}


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("steps", [10, 40])
def test_bounds_hold_for_every_probe(kind, steps, basis, rng):
    """The weight of a probe below a point, known from all eigenvectors, lies between the bounds."""
    values = SPECTRA[kind](torch.rand(500, dtype=float64, generator=rng))
    operator = rotated(values, basis)
    starts = probe_vectors(operator, range(3), 0)
    found = [measure_of(one) for one in lanczos(operator, starts, steps)]
    for start, measure in zip(starts, found, strict=True):
        shares = (basis.T @ start).square() / 500
        assert float(measure.weights.sum()) == pytest.approx(1, abs=1e-12)
        for x in (-0.5, -1e-3, 1e-5, 1e-3, 0.1, 0.5, 3.5):
            low, high = measure.below(x)
            truth = float(shares[values < x].sum())
            assert low - 1e-9 <= truth <= high + 1e-9
            quadrature = float(measure.weights[measure.nodes < x].sum())
            assert low - 1e-9 <= quadrature <= high + 1e-9
            loose = measure.below(x, 1e-4)
            assert loose[0] <= low + 1e-12
            assert high <= loose[1] + 1e-12


@pytest.mark.parametrize("kind", SPECTRA)
def test_residuals_bound_the_distance_to_an_eigenvalue(kind, basis, rng):
    values = SPECTRA[kind](torch.rand(500, dtype=float64, generator=rng))
    operator = rotated(values, basis)
    (found,) = lanczos(operator, probe_vectors(operator, range(1), 0), 30)
    measure = measure_of(found)
    distance = (measure.nodes.unsqueeze(1) - values).abs().min(1).values
    assert (distance <= measure.residuals + 1e-12).all()


def test_moments_are_exact(basis, rng):
    """Quadrature of m steps integrates powers up to 2m - 1 as the probe does."""
    values = 2 * torch.rand(500, dtype=float64, generator=rng) - 1
    operator = rotated(values, basis)
    start = probe_vectors(operator, range(1), 0)
    measure = measure_of(lanczos(operator, start, 6)[0])
    shares = (basis.T @ start[0]).square() / 500
    for power in range(12):
        expected = float((shares * values**power).sum())
        assert float((measure.weights * measure.nodes**power).sum()) == pytest.approx(
            expected, abs=1e-12
        )


def test_trace(basis, rng):
    """Section 7.6: sum of theta times tau times M; of signs on a diagonal matrix it is exact."""
    values = torch.randn(500, dtype=float64, generator=rng)
    found = spectral_density(operator_from(torch.diag(values)), steps=5, probes=3)
    assert found.trace == pytest.approx(float(values.sum()), abs=1e-9)
    assert found.trace_error == pytest.approx(0, abs=1e-9)
    found = spectral_density(rotated(values, basis), steps=5, probes=30)
    assert abs(found.trace - float(values.sum())) < 4 * found.trace_error
    for trace in found.traces:
        assert float(trace) == pytest.approx(float(values.sum()), abs=5 * sqrt(2 * 500))


def test_the_error_of_a_share_is_as_documented(basis, rng):
    """sqrt(2 p (1 - p) / M n) for random eigenvectors."""
    values = torch.cat([torch.zeros(300, dtype=float64), torch.ones(200, dtype=float64)])
    found = spectral_density(rotated(values, basis), steps=5, probes=200)
    count = found.count(-0.5, 0.5)
    expected = 500 * sqrt(2 * 0.6 * 0.4 / 500 / 200)
    assert count.standard_error == pytest.approx(expected, rel=0.2)
    assert abs(count.value - 300) < 4 * expected


def test_density_is_a_sum_of_bumps(rng):
    matrix = torch.diag(torch.arange(20, dtype=float64))
    found = spectral_density(operator_from(matrix), steps=8, probes=2)
    for x in (0.0, 3.7, 11.0):
        slow = [
            slow_density(nodes.tolist(), weights.tolist(), x, 0.5)
            for nodes, weights in zip(found.nodes, found.weights, strict=True)
        ]
        assert float(found.density([x], 0.5)[0]) == pytest.approx(sum(slow) / 2, rel=1e-12)
    grid = torch.linspace(-5, 25, 3001, dtype=float64)
    assert float(found.density(grid, 0.5).sum() * 0.01) == pytest.approx(1, abs=1e-6)


def test_a_small_network_meets_its_full_hessian():
    """Exact spectrum, and Lanczos with as many steps as there are parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp().double()
    batches = class_batches(4, sizes=(8, 5), dtype=float64)
    truth = torch.linalg.eigvalsh(slow_hessian(model, losses, batches))
    exact = exact_spectrum(model, losses, batches)
    assert_close(exact.nodes[0], truth, rtol=1e-9, atol=1e-12)
    assert exact.trace == pytest.approx(float(truth.sum()))
    assert exact.trace_error == 0
    for low, high in ((-1e-6, 1e-6), (1e-3, 1), (-inf, -1e-6)):
        count = exact.count(low, high)
        assert count.value == pytest.approx(slow_count(truth, low, high))
        assert (count.standard_error, count.resolution, count.reliable) == (0, 0, True)
    found = spectral_density(model, losses, batches, steps=51, probes=4)
    assert found.largest == pytest.approx(float(truth[-1]), rel=1e-9)
    other = spectral_density(hessian_product(model, losses, batches), steps=51, probes=4)
    assert other.record() == found.record()
    newton = spectral_density(model, losses, batches, steps=10, kind="gauss_newton")
    assert newton.smallest > -1e-12


def test_the_record_is_plain(tmp_path, basis, rng):
    """And the same seed gives the same numbers."""
    operator = rotated(torch.rand(500, dtype=float64, generator=rng), basis)
    records = [spectral_density(operator, steps=5, seed=seed).record() for seed in (0, 0, 1)]
    assert plain(records[0]) == records[0]
    assert records[0] == records[1]
    assert records[0] != records[2]
    write_json(tmp_path / "spectrum.json", records[0])


def test_exhausted_spaces_give_exact_weights(basis):
    """More steps than distinct eigenvalues: bounds coincide, and only the probes are random."""
    values = torch.tensor([0.0] * 350 + [1.0] * 100 + [2.0] * 50, dtype=float64)
    found = spectral_density(rotated(values, basis), steps=50, probes=10)
    for low, high in ((-0.5, 0.5), (0.5, 1.5), (1.5, inf)):
        count = found.count(low, high)
        assert count.resolution < 1e-6
        assert abs(count.value - slow_count(values, low, high)) < 4.5 * count.standard_error


def test_verdicts_name_their_reason(basis, rng):
    values = SPECTRA["even"](torch.rand(500, dtype=float64, generator=rng))
    found = spectral_density(rotated(values, basis), steps=20, probes=3)
    assert "on which side" in found.count(-1e-3, 1e-3).reason
    single = spectral_density(rotated(values, basis), steps=20, probes=1)
    count = single.count(-0.5, 0.5)
    assert not count.reliable
    assert count.standard_error == pytest.approx(sqrt(2 * 0.5 * 0.5 * 500), rel=0.01)
    zeros = torch.cat([torch.zeros(300, dtype=float64), torch.rand(200, generator=rng) + 0.1])
    found = spectral_density(rotated(zeros, basis), steps=60, probes=3)
    assert "zero to rounding" in found.count(-inf, 0).reason
    assert not found.count(-inf, 0).reliable
    none = found.count(-inf, -0.05)
    assert none.reliable
    assert none.value == pytest.approx(0, abs=1e-3)
    loose = found.count(-0.05, 0.05, tolerance=0.5)
    assert loose.reliable
    assert not found.count(-0.05, 0.05, tolerance=0.003).reliable
    assert "at 99.9 %" in loose.reason


def test_bad_input(rng):
    operator = operator_from(torch.diag(torch.rand(9, dtype=float64, generator=rng)))
    batches = class_batches(4)
    for options in ({"steps": 0}, {"probes": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            spectral_density(operator, **options)
    with pytest.warns(UserWarning, match="must not exceed the number of parameters, 9"):
        spectral_density(operator, steps=10)
    with pytest.raises(ValueError, match="must come with loss_fn"):
        spectral_density(mlp())
    with pytest.raises(ValueError, match="an operator alone"):
        spectral_density(operator, losses, batches)
    found = spectral_density(operator, steps=3)
    with pytest.raises(ValueError, match="less than high"):
        found.count(1, 1)
    with pytest.raises(ValueError, match="sigma must be positive"):
        found.density([0.0], 0)
    skew = torch.randn(9, 9, dtype=float64, generator=rng)
    with pytest.raises(ValueError, match="must be symmetric"):
        spectral_density(operator_from(skew), steps=3)
