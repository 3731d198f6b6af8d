"""``solve_mean_field``: exact series in both times, the closed form of p = 2, published digits."""

import json
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lowland.dynamics.mean_field import solve_mean_field
from lowland.dynamics.mean_field_result import MeanField
from lowland.dynamics.spherical_sk import SphericalSK
from lowland.results import Status
from oracles.slow_mean_field import at, series

F = Fraction


def test_the_series_has_the_fractions_of_the_specification():
    """Section 7.3: the oracle itself, to the last digit."""
    c, _, energy = series({3: 1}, 0, 7)
    assert energy == [0, F(-3, 2), 0, F(9, 4), 0, F(-27, 5), 0, F(1971, 140)]
    assert (c[2, 0], c[4, 0]) == (F(-3, 4), F(45, 32))
    c, _, energy = series({3: 1}, F(1, 2), 5)
    assert energy == [0, F(-3, 2), F(9, 8), F(27, 16), F(-549, 128), F(-225, 256)]
    assert (c[1, 0], c[2, 0], c[3, 0]) == (F(-1, 2), F(-5, 8), F(59, 48))
    _, _, energy = series({2: 1}, 0, 7)
    assert energy == [0, -1, 0, F(2, 3), 0, F(-2, 3), 0, F(32, 45)]


SERIES = [(3, {3: 1}, 0), (3, {3: 1}, F(1, 2)), ({2: 1.0, 4: 0.5}, {2: 1, 4: F(1, 4)}, F(1, 3))]


@pytest.mark.parametrize(("order", "squares", "temperature"), SERIES, ids=str)
def test_short_times_follow_the_series(order, squares, temperature):
    """Energy, correlation and response, of a mixture too; what is left is the next power."""
    c, r, energy = series(squares, temperature, 7)
    found = solve_mean_field(order, float(temperature), until=0.1, step=1 / 400)
    exact = sum(float(x) * found.times**n for n, x in enumerate(energy))
    assert_allclose(found.energy, exact, rtol=0, atol=4e-7)
    for t, earlier in ((0.1, 0.0), (0.1, 0.04), (0.0625, 0.06), (0.05, 0.05)):
        assert found.C(t, earlier) == pytest.approx(at(c, t, earlier), abs=4e-7)
        assert found.R(t, earlier) == pytest.approx(at(r, t, earlier), abs=4e-7)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.3])
def test_order_two_has_the_closed_form(temperature):
    """All that is returned, on and off the grid, within 1e-5; the error is known to a factor."""
    exact = SphericalSK(temperature)
    found = solve_mean_field(2, temperature, until=10, step=0.025)
    assert_allclose(found.energy, exact.E(found.times), rtol=0, atol=2e-5)
    late = found.times >= 1
    misses = np.abs(found.energy - exact.E(found.times))[late]
    assert found.error[late].max() / 3 < misses.max() < 3 * found.error[late].max()
    t, earlier = np.array([[10.0, 10, 9.97, 2, 2], [5.0, 0, 3.11, 1.9, 1]])
    assert_allclose(found.C(t, earlier), exact.C(t, earlier), rtol=0, atol=1e-5)
    assert_allclose(found.R(t, earlier), exact.R(t, earlier), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", ["geometric", "uniform"])
def test_the_error_falls_with_the_fourth_power(grid):
    """Half the step (and spacing), a sixteenth of the error."""
    exact = float(SphericalSK(0.5).E(5.0))
    errors = [
        abs(
            solve_mean_field(
                2, 0.5, until=5, step=1 / n, grid=grid, spacing=2.0 / n if n > 10 else 0.2
            ).energy[-1]
            - exact
        )
        for n in (10, 20, 40)
    ]
    assert 10 < errors[0] / errors[1] < 25
    assert 10 < errors[1] / errors[2] < 25


# Section 7.3 for p = 3: energies by time, then C(8, 4), C(8, 0) and R(8, 4).
TABLES = {
    0.0: ({1: -0.7825, 2: -0.9262, 4: -1.0152, 5: -1.0357, 8: -1.0692}, 0.9090, 0.3115, 0.05085),
    0.5: ({1: -0.5870, 2: -0.6859, 4: -0.7526, 5: -0.769, 8: -0.7972}, 0.6110, 0.1859, 0.0650),
    1.0: ({1: -0.4307, 4: -0.4935, 8: -0.4994}, 0.2003, 0.0297, 0.06045),
}


@pytest.mark.parametrize("temperature", TABLES)
def test_tables_of_order_three(temperature):
    """The printed digits, whose last is uncertain by one or two."""
    energies, *pairs = TABLES[temperature]
    found = solve_mean_field(3, temperature, until=8, step=1 / 40)
    assert_allclose(found.E([*energies]), [*energies.values()], rtol=0, atol=1.2e-4)
    values = [found.C(8, 4), found.C(8, 0), found.R(8, 4)]
    assert_allclose(values, pairs, rtol=0, atol=6e-5)
    assert found.identity_error < 1e-14


def test_a_quench_to_zero_temperature_until_fifty():
    """Steps chosen by the solver: 5e-4 (printed: -1.1095 and -1.1305), and the estimate holds."""
    found = solve_mean_field()
    assert found.status is Status.FINISHED
    assert found.step == 0.05
    reference = {1: -0.782508, 2: -0.926219, 5: -1.035656, 10: -1.081598, 20: -1.109506}
    reference[50] = -1.130552  # extrapolated from steps of 1/20, 1/40 and 1/80
    for t, energy in reference.items():
        miss = abs(float(found.E(t)) - energy)
        assert miss < 2.5e-4
        assert miss < 2 * found.error[round(t / found.step)]
    assert len(found.rows[-1].nodes) < 140


@pytest.mark.slow
def test_far_times_of_the_tables():
    """The last columns; energies above the threshold decay with exponent 2/3 in time."""
    cold = solve_mean_field(3, 0.0, until=50, step=1 / 40)
    assert_allclose(cold.E([10, 20, 50]), [-1.0816, -1.1095, -1.1305], rtol=0, atol=1.2e-4)
    above = np.log(cold.E([10, 20, 50]) + 2 / np.sqrt(3))
    assert -np.diff(above) / np.log([2, 2.5]) == pytest.approx([0.69, 0.68], abs=0.006)
    warm = solve_mean_field(3, 0.5, until=50, step=1 / 40)
    assert_allclose(warm.E([10, 20, 50]), [-0.808, -0.834, -0.856], rtol=0, atol=6e-4)
    hot = solve_mean_field(3, 1.0, until=50)
    assert hot.energy[-1] == pytest.approx(-0.5, abs=1e-4)


def test_short_lags_forget_the_age_and_long_lags_do_not():
    """Section 7.3, T = 0.5: the contrast to which networks are compared."""
    found = solve_mean_field(3, 0.5, until=30, step=0.04)
    waits = np.array([1, 5, 10, 20])
    short = found.C(waits + 0.1, waits)
    assert_allclose(short, [0.9543, 0.9562, 0.9564, 0.9566], rtol=0, atol=1.2e-4)
    long = found.C(waits + 10, waits)
    assert_allclose(long, [0.315, 0.488, 0.560, 0.615], rtol=0, atol=6e-4)
    assert_allclose(found.displacement(waits, 10.0), 2 * (1 - long), rtol=0, atol=1e-15)


def test_equilibrium_obeys_the_fluctuation_dissipation_theorem():
    """At T = 1 and a late waiting time T R is the derivative of C by the earlier time."""
    found = solve_mean_field(3, 1.0, until=16, step=0.025)
    for lag in (0.25, 1.0, 3.0):
        earlier, d = 16 - lag, 1e-3
        slope = (found.C(16, earlier + d) - found.C(16, earlier - d)) / (2 * d)
        assert found.R(16, earlier) == pytest.approx(slope, abs=5e-5)
        gained = found.integrated_response(16, earlier)
        assert gained == pytest.approx(1 - found.C(16, earlier), abs=5e-5)


def test_forgetting_changes_little():
    """The same equations with every instant kept."""
    whole = solve_mean_field(3, 0.2, until=15, grid="uniform")
    found = solve_mean_field(3, 0.2, until=15)
    assert_allclose(found.energy, whole.energy, rtol=0, atol=3e-6)
    t, earlier = np.array([[15.0, 15, 15, 7.3, 1.01], [14.5, 7, 0.4, 3.3, 0.63]])
    assert_allclose(found.C(t, earlier), whole.C(t, earlier), rtol=0, atol=1e-5)
    assert_allclose(found.R(t, earlier), whole.R(t, earlier), rtol=0, atol=1e-5)
    assert len(found.rows[-1].nodes) < len(whole.rows[-1].nodes) / 3


def test_an_amplitude_is_a_unit_of_time():
    """With H = a H_3 and T = 0, E_a(t) = a E(a t): step for step, to rounding."""
    one = solve_mean_field(3, until=4, step=0.05)
    two = solve_mean_field({3: 2.0}, until=2, step=0.025)
    assert_allclose(two.energy, 2 * one.energy, rtol=1e-12, atol=1e-14)
    assert two.identity_error is None


def test_tables_of_pairs():
    """Lower triangles with ones on the diagonal; single pairs agree."""
    found = solve_mean_field(3, 0.5, until=4, step=0.1)
    times = np.array([0, 0.1, 0.5, 1, 3.9, 4])
    c, r = found.triangles(times)
    assert_allclose(np.diag(c), 1, rtol=0, atol=1e-14)
    assert_allclose(np.diag(r), 1, rtol=0, atol=1e-14)
    assert not np.triu(c, 1).any()
    assert not np.triu(r, 1).any()
    assert (c[4, 2], r[5, 1]) == (found.C(3.9, 0.5), found.R(4, 0.1))


def test_files_of_a_solution(tmp_path):
    """The record is JSON without NaN; the tensors hold every row."""
    from lowland.results import read_tensors

    found = solve_mean_field(4, 0.3, until=3)
    folder = found.save(tmp_path)
    again = MeanField.load(folder)
    assert again.record() == found.record()
    assert again.amplitudes == found.amplitudes
    assert again.C(2.5, [0.1, 1.0]).tolist() == found.C(2.5, [0.1, 1.0]).tolist()
    assert again.R(2.5, 1.0) == found.R(2.5, 1.0)
    record = json.loads((folder / "mean_field.json").read_text())
    assert (record["status"], record["amplitudes"]) == ("finished", {"4": 1.0})
    assert record["energy"][-1] == found.energy[-1]
    tensors, _ = read_tensors(folder / "mean_field.safetensors")
    lengths = tensors["row_lengths"].tolist()
    assert len(lengths) == len(found.rows)
    assert tensors["row_values"].shape == (2, sum(lengths))
    assert_allclose(tensors["row_values"][:, -lengths[-1] :], found.rows[-1].values)


def test_too_long_a_step_is_seen_in_the_estimate():
    """Stable, and yet wrong by 0.005: equilibrium at T = 3 has E = -1/6."""
    found = solve_mean_field(8, 3.0, until=10, step=0.06)
    assert abs(found.energy[-1] + 1 / 6) > 0.004
    assert found.error[-1] > 0.001
    assert solve_mean_field(8, 3.0, until=10).energy[-1] == pytest.approx(-1 / 6, abs=5e-4)


BAD = [
    ({"temperature": -0.1}, "temperature must be finite and at least 0; got -0.1"),
    ({"temperature": float("nan")}, "temperature must be finite"),
    ({"order": 1}, "order, the spins per coupling, must be an integer >= 2; got 1"),
    ({"order": {3: 0.0}}, "a mixture must have an amplitude above 0"),
    ({"order": {3: -1.0}}, "the amplitude of order 3 must be finite and >= 0; got -1.0"),
    ({"order": {}}, "a mixture must have an amplitude above 0"),
    ({"until": 0.0}, "until, the last time, must be finite and above 0; got 0.0"),
    ({"step": 0.0}, "step must be finite and above 0; got 0.0"),
    ({"step": 0.2}, "step times mu must be at most 0.5; mu is 2.*Take a shorter step"),
    ({"temperature": 9.0, "step": 0.1}, "step times mu must be at most 0.5"),
    ({"grid": "adaptive"}, 'grid must be "geometric" or "uniform"; got "adaptive"'),
    ({"spacing": 0.5}, "spacing must lie above 0 and be at most 0.2; got 0.5"),
    ({"until": 5000.0, "grid": "uniform"}, "a uniform grid must fit into 8 GiB; 100000 steps"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[str(a) for a, _ in BAD])
def test_bad_input_meets_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_mean_field(**arguments)


@pytest.mark.untyped
def test_an_order_must_be_whole():
    with pytest.raises(ValueError, match="must be an integer >= 2; got 2.5"):
        solve_mean_field(2.5)


@pytest.mark.untyped
def test_an_order_may_come_from_an_array():
    """As a sweep over numpy integers has it."""
    found = solve_mean_field({np.int64(3): 1.0}, until=0.1)
    assert found.amplitudes == {3: 1.0}
    assert json.loads(json.dumps(found.record()["amplitudes"])) == {"3": 1.0}


def test_times_outside_are_refused():
    found = solve_mean_field(3, until=1)
    with pytest.raises(ValueError, match="times must lie between 0 and 1; got 1.5"):
        found.E(1.5)
    with pytest.raises(ValueError, match="a pair must be"):
        found.C(0.5, 0.7)
