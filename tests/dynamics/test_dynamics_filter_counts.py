"""A step filter counts known eigenvalues, and a count is called reliable only where it is right."""

from math import asin, cos, inf, pi, sqrt

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.dynamics.chebyshev import Moments, jackson, spectral_range, tail
from lowland.dynamics.filter_counts import filtered_count, settled
from lowland.dynamics.operators import Operator
from lowland.dynamics.spectral_density import exact_spectrum
from small_networks import class_batches, losses


def diagonal(values, calls=None, dtype=float64):
    """The operator with these eigenvalues."""
    values = torch.as_tensor(values, dtype=dtype)

    def rows(vectors):
        if calls is not None:
            calls.append(len(vectors))
        return vectors * values

    return Operator(rows, len(values), dtype)


def inside(values, low, high):
    return int(((values > low) & (values < high)).sum())


def test_the_moments_of_a_probe(rng):
    """The moments are sums of cos(k arccos) over the eigenvalues, two moments from each product."""
    values = torch.linspace(-0.9, 0.95, 30, dtype=float64)
    calls = []
    starts = torch.randn(3, 30, dtype=float64, generator=rng)
    moments = Moments(starts, (-1.0, 1.0))
    operator = diagonal(values, calls)
    moments.grow(operator, 12)
    shares = starts.square() / starts.square().sum(1, keepdim=True)
    expected = [shares @ torch.cos(k * values.arccos()) for k in range(25)]
    assert_close(torch.stack(moments.values), torch.stack(expected))
    assert calls == [3] * 12
    moments.grow(operator, 20)  # goes on where it was
    assert len(calls) == 20
    assert len(moments.values) == 41
    assert not moments.escapes


@pytest.mark.parametrize("degree", [10, 100, 1000])
def test_the_kernel_of_jackson(degree):
    """Positive, of integral 1, and as narrow as pi / degree; its tail by summation."""
    factors = jackson(degree)
    angle = torch.linspace(-pi, pi, 20 * degree + 1, dtype=float64)[:-1]
    k = torch.arange(1, degree + 1, dtype=float64)
    kernel = (1 + 2 * torch.cos(angle[:, None] * k) @ factors[1:]) / (2 * pi)
    assert kernel.min() > -1e-12
    step = 2 * pi / (20 * degree)
    assert float(kernel.sum()) * step == pytest.approx(1, abs=1e-12)
    assert float((kernel * 2 * (1 - angle.cos())).sum() * step) == pytest.approx(
        2 * (1 - cos(pi / (degree + 2))), rel=1e-9
    )
    for width in (0.7, 2.0, 6.0):
        reach = width * pi / degree
        outside = float(kernel[angle.abs() > reach].sum()) * step
        assert tail(factors, reach) == pytest.approx(outside, abs=float(kernel.max()) * 2 * step)


def test_bounds_hold_for_every_probe(rng):
    """Between them lies the weight of a probe on the eigenvectors, whatever the spectrum."""
    for trial in range(30):
        values = torch.rand(50, dtype=float64, generator=rng) * 2 - 1
        values[:20] = 0 if trial % 2 else values[0]
        start = torch.randn(1, 50, dtype=float64, generator=rng)
        moments = Moments(start, (-1.01, 1.01))
        moments.grow(diagonal(values), 5 * 2 ** (trial % 5))
        shares = start[0].square() / start.square().sum()
        for low, high in ((-0.5, 0.5), (-0.01, 0.01), (-inf, -0.2), (0.3, inf), (-inf, inf)):
            weight = float(shares[(values > low) & (values < high)].sum())
            ((least, value, most),) = moments.within(low, high).tolist()
            assert least - 1e-10 <= weight <= most + 1e-10
            assert least <= value <= most


KNOWN = {
    "clusters": torch.tensor([0.0] * 700 + [0.5] * 200 + [3.0] * 100, dtype=float64),
    "half zero": torch.cat([torch.zeros(500), torch.linspace(0.2, 10, 500)]).double(),
    "outliers": torch.cat([0.05 * torch.linspace(-1, 1, 990), torch.arange(1, 11)]).double(),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_counts(name):
    """Diagonal operators with gaps at the ends of the interval."""
    values = KNOWN[name]
    found = filtered_count(diagonal(values), low=-0.1, high=0.1, probes=4)
    truth = inside(values, -0.1, 0.1)
    assert found.reliable, found.reason
    assert found.value == pytest.approx(truth, abs=0.03 * truth)
    assert found.resolution < 0.03 * truth
    assert (found.low, found.high) == (-0.1, 0.1)


def goe(size, rng):
    matrix = torch.randn(size, size, dtype=float64, generator=rng)
    return (matrix + matrix.T) / sqrt(2 * size)  # semicircle of radius 2


@pytest.mark.parametrize(("low", "high"), [(-0.5, 1.0), (-inf, -1.0), (0.0, inf)])
def test_semicircle(low, high, rng):
    """Eigenvalues everywhere, at the ends of the interval too: the count is the law's."""
    size = 400
    matrix = goe(size, rng)
    operator = Operator(lambda rows: rows @ matrix, size, float64)
    found = filtered_count(operator, low=low, high=high, degree=400, max_degree=400, probes=50)

    def law(x):
        x = min(max(x / 2, -1.0), 1.0)
        return 0.5 + (x * sqrt(1 - x * x) + asin(x)) / pi

    assert found.value == pytest.approx(size * (law(high) - law(low)), rel=0.05)
    truth = inside(torch.linalg.eigvalsh(matrix), low, high)
    assert found.value == pytest.approx(truth, abs=4 * found.standard_error + 1)


def test_accepted_counts_are_right(rng):
    """Random spectra, thresholds and degrees: of all reliable counts none is off by 3 %."""
    accepted = 0
    for trial in range(20):
        size = 300
        values = torch.randn(size, dtype=float64, generator=rng) * 10.0 ** (-(trial % 4))
        values[: 60 * (trial % 5)] = 0
        values[-3:] = torch.tensor([1.0, 2.0, 5.0])
        for eps in (1e-3, 1e-2, 0.1, 1.0):
            found = filtered_count(
                diagonal(values), low=-eps, high=eps, degree=50, max_degree=400, probes=20
            )
            truth = inside(values, -eps, eps)
            accepted += found.reliable
            if found.reliable:
                assert abs(found.value - truth) <= max(0.03 * truth, 0.5)
    assert accepted > 15


def test_an_edge_through_a_cluster_is_told():
    """Half of the eigenvalues sit right at the end: no degree settles on which side."""
    values = torch.cat([torch.full((50,), 0.5), torch.linspace(-1, 1, 50)]).double()
    found = filtered_count(diagonal(values), low=-0.2, high=0.5, degree=50, max_degree=200)
    assert not found.reliable
    assert "max_degree was 200" in found.reason
    assert found.resolution > 20


def test_too_few_probes_are_told(rng):
    matrix = goe(60, rng)
    operator = Operator(lambda rows: rows @ matrix, 60, float64)
    found = filtered_count(operator, low=0.0, high=inf, degree=6400, max_degree=6400, probes=2)
    assert not found.reliable
    assert "2 probes are too few" in found.reason


def test_the_degree_is_doubled_only_as_far_as_needed():
    """A wide gap at the ends settles at once, a narrow one takes more products."""
    used = []
    for gap in (1.0, 0.05):
        values = torch.cat([torch.zeros(500), torch.full((500,), gap), torch.ones(100)]).double()
        calls = []
        found = filtered_count(diagonal(values, calls), low=-inf, high=gap / 2, degree=50)
        assert found.reliable, found.reason
        used.append(len(calls))
    assert used[1] > used[0] + 50


@pytest.mark.parametrize("dtype", [torch.float32, float64], ids=str)
def test_the_range_of_a_spectrum(dtype, rng):
    """All eigenvalues lie inside, and not far inside."""
    for values in (torch.linspace(3, 4, 200), torch.zeros(9), torch.tensor([-7.0, 1e-3])):
        low, high = spectral_range(diagonal(values, dtype=dtype), seed=0)
        assert low <= values.min()
        assert values.max() <= high
        assert not values.any() or high - low <= 1.1 * float(values.max() - values.min())


def test_a_range_that_is_too_small_is_widened(rng):
    """An outlier that the first look misses: moments beyond 1 give it away."""
    values = torch.linspace(-1, 1, 300, dtype=float64)
    values[7] = 3.0
    starts = torch.ones(2, 300, dtype=float64)
    shares, span = settled(diagonal(values), starts, (-1.1, 1.1), 2.0, inf, 200, 800)
    assert span[1] > 3
    assert_close(300 * shares[:, 1], torch.ones(2, dtype=float64), atol=0.2, rtol=0)


def test_a_network(rng):
    """The same count as from all eigenvalues of a small network's Hessian."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    batches = [(x.double(), y) for x, y in class_batches(6)]
    exact = exact_spectrum(model, losses, batches)
    found = filtered_count(model, losses, batches, low=0.02, high=inf, probes=10, max_degree=400)
    truth = exact.count(0.02, inf).value
    assert found.value == pytest.approx(truth, abs=4 * found.standard_error + found.resolution)


def test_the_same_seed_gives_the_same_count(rng):
    operator = diagonal(torch.randn(100, dtype=float64, generator=rng))
    first, again, other = (
        filtered_count(operator, low=-1.0, high=1.0, probes=2, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.value == other.value  # of a diagonal operator every probe of signs sees the same


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"low": 1.0, "high": 1.0}, "low must be less than high; got 1.0 and 1.0"),
        ({"low": 0.0, "high": 1.0, "degree": 0}, "degree and probes must be at least 1; got 0"),
        ({"low": 0.0, "high": 1.0, "probes": 0}, "degree and probes must be at least 1"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises(ValueError, match=match):
        filtered_count(diagonal([1.0, 2.0]), **options)
    with pytest.raises(ValueError, match="must come with loss_fn and batches"):
        filtered_count(nn.Linear(2, 2), low=0.0, high=1.0)
