"""Statics, aging solution, the closed form of p = 2 and the semicircle: printed digits, limits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lowland.dynamics.landscape import hessian_edges, negative_fraction
from lowland.dynamics.spherical_sk import SphericalSK
from lowland.dynamics.statics import aging_solution, statics

# Section 7.2: T_d, q_d, T_s, q_s, E_th, E_ground.
STATICS = {
    3: (0.6123724, 1 / 2, 0.5860540, 0.6450074, -1.1547005, -1.1716748),
    4: (0.5443311, 2 / 3, 0.5030394, 0.8045218, -1.2247449, -1.2686097),
}


@pytest.mark.parametrize("order", STATICS)
def test_temperatures_and_energies(order):
    found = statics(order)
    values = (
        found.dynamic_temperature,
        found.dynamic_overlap,
        found.static_temperature,
        found.static_overlap,
        found.threshold_energy,
        found.ground_energy,
    )
    assert_allclose(values, STATICS[order], rtol=0, atol=6e-8)


def test_the_static_point_solves_its_equations():
    """Both equations of one step of symmetry breaking at x = 1, as they stand in the literature."""
    for order in (3, 4, 5, 12):
        found = statics(order)
        q, b2 = found.static_overlap, found.static_temperature**-2
        assert b2 * order * q ** (order - 1) / 2 == pytest.approx(q / (1 - q), rel=1e-12)
        assert b2 * q**order / 2 + np.log(1 - q) + q == pytest.approx(0, abs=1e-12)
        assert found.static_temperature < found.dynamic_temperature
        assert found.ground_energy < found.threshold_energy


def test_order_two_has_one_transition():
    """Threshold and ground state are the largest eigenvalue; T_d = T_s = 1."""
    found = statics(2)
    assert found.dynamic_temperature == found.static_temperature == 1
    assert found.threshold_energy == found.ground_energy == -1
    aged = aging_solution(2, 0.3)
    assert aged.overlap == pytest.approx(0.7, abs=1e-12)
    assert aged.energy == pytest.approx(-0.85, abs=1e-12)
    assert (aged.ratio, aged.effective_temperature) == (0, float("inf"))


# Section 7.2, p = 3: q, X, T_eff, E_inf, plateau.
AGING = {
    0.1: (0.940466, 0.063303, 1.579701, -1.104189, 0.119069),
    0.2: (0.876675, 0.140673, 1.421735, -1.052513, 0.246649),
    0.3: (0.807219, 0.238822, 1.256167, -0.999386, 0.385563),
    0.4: (0.729638, 0.370543, 1.079498, -0.944368, 0.540724),
    0.5: (0.638824, 0.565376, 0.884367, -0.886693, 0.722352),
    0.6: (0.519285, 0.925725, 0.648140, -0.824666, 0.961430),
}


@pytest.mark.parametrize("temperature", AGING)
def test_aging_solution(temperature):
    found = aging_solution(3, temperature)
    values = (found.overlap, found.ratio, found.effective_temperature, found.energy, found.plateau)
    assert_allclose(values, AGING[temperature], rtol=0, atol=6e-7)
    q = found.overlap
    assert 3 * q * (1 - q) ** 2 == pytest.approx(temperature**2, abs=1e-10)


def test_aging_ends_at_the_transitions():
    """T to 0: the threshold, T_eff = sqrt 3. At T_d: equilibrium energy, X = 1."""
    cold, almost = aging_solution(3, 0.0), aging_solution(3, 1e-7)
    assert cold.effective_temperature == pytest.approx(3**0.5, abs=1e-15)
    assert almost.effective_temperature == pytest.approx(3**0.5, abs=1e-6)
    assert cold.energy == statics(3).threshold_energy == pytest.approx(almost.energy, abs=1e-6)
    for order in (3, 4, 7):
        t = statics(order).dynamic_temperature
        below, above = aging_solution(order, t - 1e-10), aging_solution(order, t + 1e-10)
        assert below.energy == pytest.approx(above.energy, abs=1e-5)
        assert below.ratio == pytest.approx(1, abs=1e-3)
    assert aging_solution(3, statics(3).dynamic_temperature).energy == pytest.approx(-0.8164966)


def test_closed_form_of_order_two():
    """Section 7.3, the printed digits."""
    cold = SphericalSK(0.0)
    energies = [-0.433127, -0.658047, -0.819249, -0.925988, -0.962740]
    assert_allclose(cold.E([0.5, 1, 2, 5, 10]), energies, rtol=0, atol=6e-7)
    assert_allclose(cold.C(10, [5, 0]), [0.9169666, 0.1565581], rtol=0, atol=6e-8)
    assert float(cold.E(400.0)) == pytest.approx(-1 + 3 / 3200, abs=2e-6)
    warm = SphericalSK(0.5)
    values = warm.C([5.0, 5, 2], [2.5, 0, 1])
    assert_allclose(values, [0.587473, 0.145469, 0.686610], rtol=0, atol=6e-7)
    assert float(warm.E(2000.0)) == pytest.approx(-0.75, abs=4e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.0 - 1e-7, 1.0 + 1e-7, 1.6])
def test_closed_form_solves_its_volterra_equation(temperature):
    """Gamma = g + 2T g * Gamma by brute force; C(t, t) = 1; equilibrium above T = 1."""
    glass = SphericalSK(temperature)
    points, weights = np.polynomial.legendre.leggauss(200)
    for t in (0.3, 2.0):
        s = t * (points + 1) / 2
        memory = (weights * t / 2) @ (glass.free(t - s) * glass.growth(s)[0])
        right = glass.free(t) + 2 * temperature * memory
        assert float(glass.growth(t)[0]) == pytest.approx(float(right), rel=1e-12)
    assert_allclose(glass.C([0.0, 1, 9], [0.0, 1, 9]), 1, rtol=0, atol=1e-12)
    if temperature > 1.1:
        assert float(glass.E(30.0)) == pytest.approx(-1 / (2 * temperature), abs=1e-6)


def test_closed_form_is_continuous_at_the_transition():
    values = [
        [float(SphericalSK(t).E(7.0)), SphericalSK(t).C(7, 2)] for t in (1 - 1e-9, 1, 1 + 1e-9)
    ]
    assert_allclose(values[0], values[1], rtol=0, atol=1e-8)
    assert_allclose(values[2], values[1], rtol=0, atol=1e-8)


def test_semicircle_along_the_quench():
    """Section 7.4 at the energies of section 7.3; the edge is 0 at the threshold."""
    energies = [-0.571433, -0.782508, -0.926219, -1.035656, -1.081598, -1.109506, -1.130552]
    shares = [0.1983, 0.1044, 0.0512, 0.0196, 0.0095, 0.0046, 0.0018]
    edges = [-1.75, -1.12, -0.69, -0.36, -0.22, -0.14, -0.07]
    assert_allclose(negative_fraction(3, energies), shares, rtol=0, atol=6e-5)
    assert_allclose(hessian_edges(3, energies)[0], edges, rtol=0, atol=6e-3)
    for order in (2, 3, 4, 9):
        threshold = statics(order).threshold_energy
        assert hessian_edges(order, threshold)[0] == pytest.approx(0, abs=1e-12)
        assert negative_fraction(order, threshold) == pytest.approx(0, abs=1e-12)
        assert negative_fraction(order, threshold - 0.1) == 0


def test_share_is_the_integral_of_the_semicircle():
    lower, upper = hessian_edges(4, -0.6)
    x = np.linspace(lower, 0, 200_001)
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    density = 2 / (np.pi * radius**2) * np.sqrt(np.maximum(radius**2 - (x - center) ** 2, 0))
    assert np.trapezoid(density, x) == pytest.approx(float(negative_fraction(4, -0.6)), abs=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statics(1), "must be an integer >= 2; got 1"),
        (lambda: aging_solution(3, -1.0), "temperature must be finite and at least 0; got -1.0"),
        (lambda: negative_fraction(0, -1.0), "must be an integer >= 2; got 0"),
        (lambda: SphericalSK(-0.5), "temperature must be finite and >= 0; got -0.5"),
        (lambda: SphericalSK(0.5).C(1, 2), "a pair must be"),
    ],
)
def test_bad_input_meets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
