"""Phases, collapse and aging on curves that were made with known breaks and exponents."""

from math import exp, log

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lowland.dynamics.clock import log_times, plan
from lowland.dynamics.collapse import (
    aging_exponent,
    collapse_score,
    has_plateau,
    local_exponents,
)
from lowland.dynamics.normalized import mean_curves, over_integral, over_noise
from lowland.dynamics.phases import find_phases
from lowland.dynamics.pieces import fit_pieces, threshold_times
from lowland.dynamics.recorder import TwoTimeRecorder

T = 10**5
STEPS = torch.tensor(log_times(1, T, 100), dtype=torch.float64)
WAITS = log_times(10, T / 2, 30)
LAGS = torch.tensor(log_times(1, T / 2, 60)[1:], dtype=torch.float64)


def bent(t1=40.0, t2=3000.0, top=2.3, bottom=0.02, late=0.0):
    """Flat, a line in ln n, and flat (or a gentler line) again."""
    x = STEPS.clamp(min=1).log()
    share = ((x - log(t1)) / log(t2 / t1)).clamp(0, 1)
    return top - (top - bottom) * share - late * (x - log(t2)).clamp(min=0)


def aging(mu, waits=WAITS, lags=LAGS):
    """Displacements that depend on t / tw^mu alone, and saturate."""
    return {w: (lags, lags / w**mu / (1 + lags / w**mu)) for w in waits if w > 0}


def test_breaks_to_the_digits():
    fit = fit_pieces(STEPS, bent())
    assert fit.breaks == (pytest.approx(40, rel=0.005), pytest.approx(3000, rel=0.005))
    slope = -2.28 / log(3000 / 40)
    assert fit.slopes[0] == pytest.approx(0, abs=2e-3)
    assert fit.slopes[1] == pytest.approx(slope, rel=2e-3)
    assert fit.slopes[2] == pytest.approx(0, abs=2e-3)
    assert fit.residual < 1e-6


def test_fewer_pieces():
    x = STEPS.clamp(min=1).log()
    line = fit_pieces(STEPS, 2 - 0.1 * x, 1)
    assert line.slopes == (pytest.approx(-0.1),)
    assert line.bic < fit_pieces(STEPS, 2 - 0.1 * x, 3).bic
    kink = fit_pieces(STEPS, 2 - 0.1 * (x - log(300)).clamp(min=0), 2)
    assert kink.breaks == (pytest.approx(300, rel=0.005),)
    assert fit_pieces(STEPS, bent(), 3).bic < fit_pieces(STEPS, bent(), 1).bic - 100


def test_against_brute_force(rng):
    """Noisy data: no pair of a grid of breaks is better than the fit."""
    y = bent() + 0.1 * torch.randn(len(STEPS), dtype=torch.float64, generator=rng)
    fit = fit_pieces(STEPS, y)
    x = STEPS[1:].log().numpy()
    best = np.inf
    for a in np.linspace(x[0], x[-1], 50)[1:-1]:
        for b in np.linspace(x[0], x[-1], 50)[1:-1]:
            if a < b:
                m = np.stack([0 * x + 1, x, np.maximum(x - a, 0), np.maximum(x - b, 0)], 1)
                solved = np.linalg.lstsq(m, y[1:].numpy(), rcond=None)[0]
                best = min(best, np.mean((m @ solved - y[1:].numpy()) ** 2))
    assert fit.residual <= best * (1 + 1e-9)


def test_thresholds_by_their_words():
    steps = torch.tensor([0.0, 1, 5, 20, 80, 300])
    assert threshold_times(steps, torch.tensor([2.0, 1.99, 1.5, 0.5, 0.09, 0.01])) == (5, 80)
    assert threshold_times(steps, torch.tensor([2.0, 2.0, 1.8, 1.5, 1.4, 1.3])) == (5, None)
    assert threshold_times(steps, torch.ones(6)) == (None, None)
    assert threshold_times(steps, torch.tensor([2.0, 2.0, 2.1, 2.2, 2.3, 2.4])) == (None, None)


def test_collapse():
    """0 for one curve in three disguises; sd of ln y for curves that are shifted."""
    curve = LAGS**0.7
    assert collapse_score([(LAGS, curve)] * 3) == pytest.approx(0, abs=1e-12)
    shifted = [(LAGS, curve * exp(s)) for s in (-0.2, 0.0, 0.2)]
    assert collapse_score(shifted) == pytest.approx(0.2)
    coarse = [(LAGS[k::3], LAGS[k::3] ** 0.7) for k in range(3)]
    assert collapse_score(coarse) == pytest.approx(0, abs=1e-12)
    with_zeros = [(torch.cat([torch.zeros(1), LAGS]), torch.cat([torch.zeros(1), curve]))] * 3
    assert collapse_score(with_zeros) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("mu", [0.0, 0.3, 0.6, 1.0, 1.2])
def test_aging_exponents(mu):
    found = aging_exponent(aging(mu, [w for w in WAITS if w < 2000]), samples=20)
    assert found.exponent == pytest.approx(mu, abs=0.003)
    assert found.low - 0.06 <= mu <= found.high + 0.06
    assert found.score < 0.01
    assert not found.at_edge
    if mu in (0.0, 1.0):
        assert found.scores[str(mu)] == min(v for v in found.scores.values() if v is not None)


def test_an_exponent_at_the_edge_of_the_overlap():
    """Waits three decades apart, lags over three: at 1 nothing is left to compare."""
    lags = torch.tensor(log_times(1, 1000, 40)[1:], dtype=torch.float64)
    found = aging_exponent(aging(1.2, (10, 100, 1000, 10_000), lags), samples=2)
    assert found.exponent < 1
    assert found.at_edge
    beyond = aging_exponent(aging(2.0, (10, 20, 40)), samples=2)
    assert (beyond.exponent, beyond.at_edge) == (1.5, True)


def test_aging_of_noisy_curves(rng):
    """The interval of the bootstrap is about as wide as the scatter."""
    found = []
    for _ in range(8):
        noisy = {
            w: (t, y * (0.15 * torch.randn((), generator=rng, dtype=torch.float64)).exp())
            for w, (t, y) in aging(0.5).items()
        }
        found.append(aging_exponent(noisy, samples=30))
    values = np.array([each.exponent for each in found])
    widths = np.array([each.high - each.low for each in found]) / 2
    assert abs(values.mean() - 0.5) < 0.05
    assert 0.3 < np.sqrt((widths**2).mean()) / values.std() < 3


def test_local_exponents():
    y = torch.where(LAGS < 100, LAGS**2 / 100, LAGS.clamp(max=1000))
    found = local_exponents(LAGS, y)
    assert [round(each["exponent"], 6) for each in found[:2]] == [2, 2]
    assert found[2]["exponent"] == pytest.approx(1, abs=1e-6)
    assert found[3]["exponent"] == pytest.approx(0, abs=1e-6)
    assert (found[0]["from"], found[0]["to"]) == (1, 10)
    assert has_plateau(LAGS, y)
    assert not has_plateau(LAGS, LAGS**0.3)
    assert has_plateau(LAGS[:3], LAGS[:3]) is None
    half = torch.where(LAGS < 100, LAGS, torch.where(LAGS < 500, 100, LAGS - 400))
    assert not has_plateau(LAGS, half)  # flat for less than a decade


def diffusing(noise):
    """Delta of a walk whose steps have variance D(n), which falls with n."""
    whole = torch.cat([torch.zeros(1, dtype=torch.float64), noise.cumsum(0)])
    return {w: (LAGS, whole[w + LAGS.long()] - whole[w]) for w in WAITS if w + LAGS[-1] <= T}


def test_noise_collapses_diffusion():
    """Delta / int D = 1 for every wait; Delta / D(tw) where D hardly drifts."""
    n = torch.arange(T + 1, dtype=torch.float64)
    noise = 3 / (1 + n / 50) ** 0.5
    curves = diffusing(noise)
    for t, y in over_integral(curves, (n[::10], noise[::10])).values():
        assert_close(y, torch.ones_like(t), rtol=0.03, atol=0)
    given = (STEPS, torch.from_numpy(np.interp(STEPS, n, noise)))
    for wait, (t, y) in over_noise(curves, given).items():
        early = t < wait / 10
        assert_close(y[early], t[early], rtol=0.06, atol=0)


def test_a_run_that_learns():
    """Breaks, aging on the way, and at the bottom diffusion: stationary up to the noise."""
    n = torch.arange(T + 1, dtype=torch.float64)
    noise = torch.where(n < 3000, 1.0, (3000 / n.clamp(min=1)) ** 1.5)
    lags = LAGS[LAGS <= 2000]
    curves = {w: (lags, noise[w] * lags) for w in WAITS}
    found = find_phases([(STEPS, bent())], curves, (STEPS, noise[STEPS.long()]), samples=20)
    assert found.t1 == pytest.approx(40, rel=0.01)
    assert found.t2 == pytest.approx(3000, rel=0.01)
    assert found.t1_interval is None
    assert 40 < found.t1_threshold < 60
    assert found.scores["after_t2"]["over_noise"] == pytest.approx(0, abs=1e-3)
    assert found.scores["after_t2"]["raw"] > 0.5
    assert found.stationary_after_t2 is True
    assert found.glassy is False
    assert found.bic_gain > 0
    assert found.plateau["after_t2"] is False
    assert found.aging["between"].exponent < 0.05
    assert all(e["exponent"] == pytest.approx(1) for e in found.exponents[WAITS[-1]])
    assert found.record()["scores"]["all"]["raw"] == found.scores["all"]["raw"]


def test_a_run_that_does_not():
    """Stuck above 0, full aging, and noise that explains nothing: glassy."""
    losses = bent(bottom=1.3)
    noise = 0.5 + 0.1 * STEPS.clamp(min=1).log()
    found = find_phases((STEPS, losses), aging(1.0), (STEPS, noise), samples=20)
    assert found.stationary_after_t2 is False
    assert found.glassy is True
    assert found.aging["all"].exponent == pytest.approx(1, abs=0.01)
    assert found.loss_ratio == pytest.approx(1.3 / 2.3)
    assert found.t2_threshold == found.t2
    assert found.t2_threshold == pytest.approx(3000, rel=0.01)
    early = find_phases((STEPS, bent(bottom=1.3, t2=9e4)), aging(1.0), (STEPS, noise), samples=2)
    assert early.loss_gained_late > 0.1
    assert not early.glassy  # it still falls


def test_seeds_give_intervals(rng):
    """Runs whose breaks scatter by 20 percent: the interval is that of their mean."""
    scatter = torch.randn(8, 2, generator=rng, dtype=torch.float64) * 0.2
    runs = [(STEPS, bent(40 * exp(a), 3000 * exp(b))) for a, b in scatter.tolist()]
    found = find_phases(runs, samples=40)
    for (low, high), value, expected in (
        (found.t1_interval, found.t1, 40),
        (found.t2_interval, found.t2, 3000),
    ):
        assert low < value < high
        assert 0.4 < log(high / low) / (2 * 0.2 / 8**0.5) < 2
        assert abs(log(value / expected)) < 0.25
    assert found.seeds == 8
    assert found.scores["all"] == {"raw": None}
    assert found.glassy is None
    assert find_phases(runs, samples=40) == found


def test_other_times_are_interpolated():
    few = STEPS[::2]
    runs = [(STEPS, bent()), (few, bent()[::2])]
    assert find_phases(runs, samples=3).t2 == pytest.approx(3000, rel=0.05)


def test_from_recorders(rng):
    """Averages over runs, straight from what recorders return."""
    results = []
    for _ in range(2):
        w = torch.zeros(300, dtype=torch.float64)
        recorder = TwoTimeRecorder([w], clock=plan(400, mode="shared"))
        for n in range(401):
            recorder.record(n)
            w += torch.randn(300, dtype=torch.float64, generator=rng)
        results.append(recorder.result())
    curves = mean_curves(results)
    first, second = (result.at(10, 1) for result in results)
    lags, values = curves[10]
    assert values[lags == 1].item() == pytest.approx((first + second) / 2)
    losses = (STEPS[STEPS <= 400], bent(20, 100)[STEPS <= 400])
    found = find_phases(losses, results, (STEPS, torch.ones_like(STEPS)), samples=5)
    assert found.scores["all"]["raw"] < 0.2
    assert found.aging["all"].exponent < 0.1
    assert find_phases(losses, results[0], samples=5).scores["all"]["raw"] < 0.3


def test_noise_that_vanishes_leaves_the_rest():
    """A run without a gradient has no noise to divide by, and still phases."""
    noise = (STEPS, 0 * STEPS)
    found = find_phases((STEPS, bent()), aging(1.0), noise, samples=5)
    assert found.t1 == pytest.approx(40, rel=0.01)
    assert found.scores["all"]["raw"] is not None
    assert found.scores["all"]["over_noise"] is None
    assert found.scores["all"]["over_integral"] is None
    assert found.stationary_after_t2 is None


@pytest.mark.untyped
def test_curves_are_tensors():
    with pytest.raises(ValueError, match=r"pair of tensors.*Use torch.as_tensor"):
        find_phases((STEPS.tolist(), bent().tolist()))


@pytest.mark.untyped
def test_one_loss_for_each_time():
    with pytest.raises(ValueError, match="one loss for each time"):
        fit_pieces(STEPS, bent()[:-1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_pieces(STEPS, bent(), 4), "pieces must be 1, 2 or 3"),
        (lambda: fit_pieces(STEPS[:5], bent()[:5]), "at least 7 finite losses"),
        (lambda: fit_pieces(STEPS, bent() * torch.nan), "got 0"),
        (lambda: collapse_score([(LAGS, LAGS)] * 2), "at least 3 curves"),
        (lambda: collapse_score([(LAGS[:7], LAGS[:7])] * 3), "3 curves with 7"),
        (lambda: collapse_score([]), "0 curves with 0"),
        (lambda: aging_exponent({0: (LAGS, LAGS), 5: (LAGS, LAGS)}), "got 1 waiting times"),
        (lambda: find_phases([]), "at least one learning curve"),
        (lambda: find_phases((STEPS, bent() * torch.nan)), f"{len(STEPS)} values not finite"),
        (lambda: find_phases((STEPS, 0 * STEPS)), "first loss must be positive"),
        (lambda: over_noise(aging(1.0), (STEPS, 0 * STEPS)), "positive at some time"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
