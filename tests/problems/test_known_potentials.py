"""``lowland.problems``: what the potentials say about themselves is true, and as printed."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torch import float64, linspace
from torch.autograd.functional import hessian, jacobian
from torch.testing import assert_close

from lowland.problems import (
    curvy_valley,
    double_wells,
    eggcarton,
    leps_harmonic,
    mueller_brown,
    six_hump_camel,
)
from oracles.slow_neb import mueller_brown_by_hand

ALL = [
    mueller_brown(),
    double_wells(1),
    double_wells(2),
    double_wells(4),
    six_hump_camel(),
    curvy_valley(),
    eggcarton(),
    leps_harmonic(),
]
each = pytest.mark.parametrize("potential", ALL, ids=lambda potential: potential.name)


@each
def test_minima_and_saddles_are_what_they_say(potential):
    """Zero slope; no downhill direction at a minimum, one at a saddle; the values are theirs."""
    for points, downhill in ((potential.minima, 0), (potential.saddles, 1)):
        slopes = jacobian(lambda p: potential.value(p).sum(), points)
        assert slopes.abs().max() < 1e-11
        for point in points:
            curvature = torch.linalg.eigvalsh(hessian(potential.value, point))
            assert (curvature < 0).sum() == downhill
            assert curvature.abs().min() > 1e-3
    assert_close(potential.value(potential.minima), potential.minima_values, rtol=0, atol=1e-13)
    assert potential.dim == potential.minima.shape[1] == potential.saddles.shape[1]


@each
def test_minimax_values_are_heights_of_saddles(potential):
    """Symmetric, between the higher end and the line; and ultrametric, as every minimax is."""
    minimax, line_max = potential.minimax, potential.line_max
    assert torch.equal(minimax, minimax.T)
    assert torch.equal(line_max, line_max.T)
    ends = torch.maximum(minimax.diagonal()[:, None], minimax.diagonal()[None])
    assert (minimax >= ends).all()
    assert (line_max >= minimax).all()
    around = torch.maximum(minimax[:, :, None], minimax[None]).amin(1)
    assert torch.equal(around, minimax)
    passes = potential.saddle_values
    for value in minimax[~torch.eye(len(minimax), dtype=torch.bool)]:
        assert (passes - value).abs().min() < 1e-13


@each
def test_line_max(potential):
    """The maximum over the straight line, from 20,001 points of it."""
    alpha = linspace(0, 1, 20001, dtype=float64)[:, None]
    minima = potential.minima[:4]
    for i, start in enumerate(minima):
        for j, end in enumerate(minima):
            found = potential.value(torch.lerp(start, end, alpha)).max().item()
            assert found == pytest.approx(potential.line_max[i, j].item(), abs=1e-6)


def flooded(potential, start, end, low, high, size=500):
    """Lowest level at which two points lie in one lake, on a grid: a minimax value by water."""
    axes = [linspace(a, b, size, dtype=float64) for a, b in zip(low, high, strict=True)]
    height = potential.value(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)).numpy()
    cells = [
        tuple(int((axis - x).abs().argmin()) for axis, x in zip(axes, point, strict=True))
        for point in (start, end)
    ]
    below, above = max(height[cell] for cell in cells), float(height.max())
    while above - below > 1e-4:
        level = (below + above) / 2
        lakes, _ = label(height <= level, structure=np.ones((3, 3)))
        joined = lakes[cells[0]] == lakes[cells[1]] != 0
        below, above = (below, level) if joined else (level, above)
    return above


@pytest.mark.parametrize(
    ("potential", "low", "high", "tolerance"),
    [
        (mueller_brown(), (-1.8, -0.6), (1.4, 2.2), 0.02),
        (double_wells(2), (-1.5, -1.5), (1.5, 1.5), 1e-3),
        (six_hump_camel(), (-2.5, -1.5), (2.5, 1.5), 1e-3),
        (curvy_valley(), (-10, -3), (10, 3), 1e-3),
        (eggcarton(), (-1, -1), (1, 1), 1e-3),
        (leps_harmonic(), (0.4, -4), (3.4, 4), 1e-3),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_minimax_values_by_flooding(potential, low, high, tolerance):
    """No gradient, no path: raise the water until two minima lie in one lake."""
    for i in range(len(potential.minima)):
        for j in range(i):
            level = flooded(potential, potential.minima[i], potential.minima[j], low, high)
            assert level == pytest.approx(potential.minimax[i, j].item(), abs=tolerance)


PRINTED = [  # x, y, V, Hessian eigenvalues, as in section 7.1
    (-0.5582236345, 1.4417258419, -146.6995172100, 410.53, 4068.20),
    (0.6234994049, 0.0280377585, -108.1667241169, 543.84, 3005.40),
    (-0.0500108230, 0.4666941049, -80.7678181297, 221.04, 1479.20),  # x there: -0.0500108236
    (0.2124865821, 0.2929883251, -72.2489401123, -735.25, 510.89),
    (-0.8220015587, 0.6243128028, -40.6648435087, -750.86, 490.24),
]


@pytest.mark.parametrize("k", range(5))
def test_mueller_brown_to_the_printed_digits(k):
    """Values to all ten digits; positions but for 1 in the last digit of three of them."""
    potential = mueller_brown()
    point = torch.cat([potential.minima, potential.saddles])[k]
    x, y, value, soft, stiff = PRINTED[k]
    assert point.tolist() == pytest.approx([x, y], abs=1.5e-10)
    assert potential.value(point).item() == pytest.approx(value, abs=5.1e-11)
    curvature = torch.linalg.eigvalsh(hessian(potential.value, point)).tolist()
    assert curvature == pytest.approx([soft, stiff], abs=5.1e-3)


def test_mueller_brown_equals_its_table():
    """The value, and the slope by automatic differentiation, agree with sums over the table."""
    points = torch.rand(50, 2, dtype=float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    value = mueller_brown().value
    slopes = jacobian(lambda p: value(p).sum(), points)
    for point, slope in zip(points, slopes, strict=True):
        by_hand, slope_by_hand = mueller_brown_by_hand(point.tolist())
        assert value(point).item() == pytest.approx(by_hand, rel=1e-13)
        assert slope.tolist() == pytest.approx(slope_by_hand, rel=1e-11, abs=1e-11)


def test_mueller_brown_barriers_and_line():
    potential = mueller_brown()
    assert potential.minimax[0, 1].item() == pytest.approx(-40.6648435087, abs=5.1e-11)
    assert (potential.minimax[0, 1] - potential.minima_values[0]).item() == pytest.approx(
        106.0346737, abs=5.1e-8
    )
    assert potential.barrier(0, 1) == pytest.approx(67.5018806, abs=5.1e-8)
    assert potential.line_max[0, 1].item() == pytest.approx(12.67622753, abs=5.1e-9)
    at = torch.lerp(*potential.minima[:2], torch.tensor(0.306616, dtype=float64))
    assert potential.value(at).item() == pytest.approx(12.67622753, abs=1e-8)


def test_other_printed_numbers():
    """Section 7.2."""
    camel, valley, egg, leps = six_hump_camel(), curvy_valley(), eggcarton(), leps_harmonic()
    assert camel.minima[0].tolist() == pytest.approx([0.08984201, -0.71265640], abs=5.1e-9)
    assert camel.barrier(0, 1) == pytest.approx(1.0316284535, abs=5.1e-11)
    assert valley.line_max[0, 1].item() == pytest.approx(2.976668, abs=5.1e-7)
    assert valley.barrier(0, 1) == 1
    assert [egg.barrier(0, j) for j in (1, 2, 3)] == [2, 2, 2]
    assert leps.minima.tolist() == [
        pytest.approx([0.741521, 1.303419], abs=5.1e-7),
        pytest.approx([3.001276, -1.304338], abs=5.1e-7),
    ]
    assert leps.minima_values.tolist() == pytest.approx([-4.509176, -2.620287], abs=5.1e-7)
    assert leps.saddles[0].tolist() == pytest.approx([2.020828, -0.172901], abs=5.1e-7)
    assert leps.saddle_values.item() == pytest.approx(-0.875225, abs=5.1e-7)


def test_length_of_the_curvy_valley():
    """The curve y = sin x over its chord."""
    start, end = curvy_valley().minima
    x = linspace(start[0], end[0], 200001, dtype=float64)
    curve = torch.stack([x, x.sin()], dim=1)
    length = (curve[1:] - curve[:-1]).norm(dim=1).sum()
    assert (length / (end - start).norm()).item() == pytest.approx(1.206268, abs=5.1e-7)
    assert curvy_valley().value(curve).max() <= 1


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_wells_count_what_differs(dim):
    wells = double_wells(dim)
    assert (len(wells.minima), len(wells.saddles)) == (2**dim, dim * 2 ** (dim - 1))
    assert wells.line_max[0, -1] == dim
    assert wells.barrier(0, 2**dim - 1) == 1
    assert wells.barrier(0, 0) == 0


@pytest.mark.parametrize("dim", [0, 11, -1])
def test_wells_refuse_other_dimensions(dim):
    with pytest.raises(ValueError, match="dim must lie between 1 and 10; got"):
        double_wells(dim)


@each
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 5)])
def test_any_batch_shape_and_dtype(potential, shape):
    points = torch.zeros(*shape, potential.dim, dtype=torch.float32)
    found = potential.value(points)
    assert found.shape == shape
    assert found.dtype == torch.float32
