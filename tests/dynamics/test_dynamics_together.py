"""Langevin, recorder, Lanczos quadrature and mean field meet on one glass (oracle 7.4)."""

import pytest
import torch

from lowland.dynamics import (
    PSpin,
    TwoTimeRecorder,
    negative_fraction,
    simulate_p_spin,
    solve_mean_field,
    spectral_density,
)
from lowland.dynamics.operators import Operator

SPINS, SAMPLES, STEP = 120, 6, 0.02


def quench(seed):
    """One sample at T = 0 until t = 2, recorded; its energy, displacement and spectrum."""
    model = PSpin(SPINS, 3, seed=seed)
    recorder = TwoTimeRecorder(model, waits=[0, 50], lags=[50])
    run = simulate_p_spin(
        model, 0.0, until=2.0, time_step=STEP, times=[1.0, 2.0], waiting_times=[0.0, 1.0],
        recorder=recorder, seed=seed,
    )  # fmt: skip
    hessian = model.tangent_hessian(0).detach()
    operator = Operator(lambda rows: rows @ hessian, len(hessian), hessian.dtype)
    spectrum = spectral_density(operator, steps=60, probes=12, seed=seed)
    return run, recorder.result(), spectrum, torch.linalg.eigvalsh(hessian)


def test_four_tools_agree_on_the_spherical_p_spin():
    """N = 120, six samples: E(t), Delta = 2 (1 - C), and the share of negative directions."""
    exact = solve_mean_field(3, 0.0, until=2.0)
    runs = [quench(seed) for seed in range(SAMPLES)]
    for time in (1.0, 2.0):
        energies = torch.stack([run.energy[run.times == time].mean() for run, *_ in runs])
        # the error of six samples, and a hundredth for the finite size
        assert energies.mean().item() == pytest.approx(exact.E(time), abs=0.06)
    for run, two_time, spectrum, eigenvalues in runs:
        seen = two_time.at(50, 50)  # t_w = 1, t = 1, per spin
        assert seen == pytest.approx(2 * (1 - run.correlation[1, -1].mean().item()), abs=1e-9)
        negative = (eigenvalues < 0).double().mean().item()
        found = spectrum.count(float("-inf"), 0.0)
        assert found.value / SPINS == pytest.approx(negative, abs=0.03)
    displacement = torch.tensor([two_time.at(50, 50) for _, two_time, *_ in runs]).mean()
    assert displacement.item() == pytest.approx(2 * (1 - exact.C(2.0, 1.0)), abs=0.03)
    shares = torch.tensor([(values < 0).double().mean() for *_, values in runs]).mean().item()
    semicircle = [negative_fraction(3, run.energy[-1].mean().item()) for run, *_ in runs]
    assert shares == pytest.approx(sum(semicircle) / SAMPLES, abs=0.015)
    assert negative_fraction(3, exact.E(2.0)) == pytest.approx(0.0512, abs=5e-4)
