"""``PSpin`` and its Langevin dynamics: exact covariance, autograd, infinite size as the limit."""

import json

import pytest
import torch
from torch import float64
from torch.testing import assert_close

from lowland.dynamics.landscape import negative_fraction
from lowland.dynamics.langevin import LangevinRun, simulate_p_spin
from lowland.dynamics.mean_field import solve_mean_field
from lowland.dynamics.mixture import as_mixture
from lowland.dynamics.p_spin import PSpin, on_sphere
from lowland.results import Status

MIXED = {2: 0.5, 3: 1.0, 4: 0.3}


def hamiltonian(model, spins):
    """N times the energy, as a function of one configuration."""
    return model.size * torch.func.functional_call(model, {"spins": spins[None]}, ()).sum()


@pytest.mark.parametrize("order", [2, 3, 4, MIXED], ids=str)
def test_energies_have_the_exact_covariance(order):
    """Over couplings: N f(q) between two configurations of overlap q, at N = 3 (4 sigma)."""
    f = as_mixture(order).f
    pair = on_sphere(torch.tensor([[1.0, 0.2, -0.5], [0.3, 1.0, -1.0]], dtype=float64))
    q = float(pair[0] @ pair[1]) / 3
    draws = torch.stack([3 * PSpin(3, order, seed=seed).energy(pair) for seed in range(600)])
    found = draws.T @ draws / len(draws)
    same, other = (3 * float(f(torch.tensor([x]).numpy())[0]) for x in (1.0, q))
    assert_close(found.diag().mean().item(), same, rtol=4 * 600**-0.5, atol=0)
    assert abs(found[0, 1].item() - other) < 4 * same * 600**-0.5 * 2**0.5


@pytest.mark.parametrize("order", [2, 3, 4, MIXED], ids=str)
def test_force_and_hessian_are_those_of_autograd(order):
    """Minus the gradient; the Hessian on the sphere is the projected one plus the pull."""
    model = PSpin(9, order, seed=1, replicas=3)
    energy = model()
    (gradient,) = torch.autograd.grad(energy.sum(), model.spins)
    assert_close(model.force(), -9 * gradient, rtol=1e-12, atol=1e-12)
    assert_close(model.energy(), energy, rtol=1e-14, atol=1e-14)
    spins = model.spins[2].detach()
    plain = torch.autograd.functional.hessian(lambda s: hamiltonian(model, s), spins)
    project = torch.eye(9, dtype=float64) - torch.outer(spins, spins) / 9
    whole = project @ plain @ project + project * (spins @ model.force()[2]) / 9
    expected = torch.cat([torch.linalg.eigvalsh(model.tangent_hessian(2)), torch.zeros(1)])
    assert_close(torch.linalg.eigvalsh(whole), expected.sort().values, rtol=0, atol=1e-12)


def test_hessian_on_the_sphere_is_that_along_great_circles():
    """Second differences of H along cos(a) s + sin(a) v."""
    model = PSpin(8, MIXED, seed=2)
    s = model.spins[0].detach()
    basis = torch.linalg.qr(s[None].T, mode="complete").Q[:, 1:]
    curvature = torch.linalg.eigh(model.tangent_hessian())
    v, a = basis @ curvature.eigenvectors[:, 0] * 8**0.5, 1e-3
    heights = [
        hamiltonian(model, s * torch.cos(x) + v * torch.sin(x)).item()
        for x in torch.tensor([-a, 0, a], dtype=float64)
    ]
    second = (heights[0] - 2 * heights[1] + heights[2]) / a**2
    assert second == pytest.approx(8 * curvature.eigenvalues[0].item(), rel=1e-5)


def test_replicas_share_couplings_and_the_seed_decides():
    """One contraction for all; nothing global is drawn; spins lie on the sphere."""
    before = torch.get_rng_state()
    model = PSpin(12, 3, seed=5, replicas=4)
    again, other = PSpin(12, 3, seed=5, replicas=4), PSpin(12, 3, seed=6, replicas=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model(), again())
    assert not torch.equal(model(), other())
    assert list(model.state_dict()) == ["spins"]
    alone = torch.cat([model.force(model.spins[i : i + 1].detach()) for i in range(4)])
    assert_close(alone, model.force(), rtol=1e-13, atol=1e-13)
    assert_close(model.spins.square().sum(1), torch.full((4,), 12.0, dtype=float64))
    assert_close(model("a batch that is not looked at"), model())


def test_gradient_descent_goes_downhill_to_a_minimum():
    """At T = 0 energies fall, at late times all curvatures are positive."""
    model = PSpin(16, 3, seed=0, replicas=3)
    run = simulate_p_spin(model, until=100.0, time_step=0.1)
    assert run.status is Status.FINISHED
    assert (run.energy.diff(dim=0) <= 1e-12).all()
    assert_close(run.energy[-1], model.energy())
    for replica in range(3):
        assert torch.linalg.eigvalsh(model.tangent_hessian(replica))[0] > 0


def test_order_two_finds_the_largest_eigenvalue():
    """Gradient descent in a quadratic form ends at its top eigenvector."""
    model = PSpin(20, 2, seed=3)
    top = torch.linalg.eigvalsh(model.couplings_2)[-1].item()
    run = simulate_p_spin(model, until=150.0, time_step=0.1)
    assert run.energy[-1].item() == pytest.approx(-top, abs=1e-6)


def test_heun_is_of_second_order():
    """Half the step, a quarter of the error."""
    fine = simulate_p_spin(PSpin(16, 3, seed=1), until=2.0, time_step=0.001).energy[-1]
    errors = [
        (simulate_p_spin(PSpin(16, 3, seed=1), until=2.0, time_step=h).energy[-1] - fine).item()
        for h in (0.04, 0.02)
    ]
    assert 3 < errors[0] / errors[1] < 5.5


def test_high_temperature_is_equilibrium():
    """E = -f(1)/T above T_d, here at T = 2: -0.25; mean of 12 couplings within 4 sigma."""
    late = []
    for seed in range(12):
        model = PSpin(24, 3, seed=seed, replicas=4)
        run = simulate_p_spin(model, 2.0, until=3.0, times=[2, 2.5, 3], seed=seed)
        late.append(run.energy[1:].mean())
    late = torch.stack(late)
    assert abs(late.mean() + 0.25) < 4 * late.std() / 12**0.5 + 0.01


class Diary:
    """Something to record with."""

    def __init__(self, model):
        self.model, self.steps, self.spins = model, [], []

    def record(self, step):
        self.steps.append(step)
        self.spins.append(self.model.spins.detach().clone())


def test_tables_are_those_of_a_diary():
    """Correlations by hand; a recorder is called before the first step and after every one."""
    model = PSpin(10, 3, seed=0, replicas=2)
    diary = Diary(model)
    arguments = {"until": 0.2, "times": [0.1], "waiting_times": [0.04, 0.1], "seed": 3}
    run = simulate_p_spin(model, 0.4, recorder=diary, **arguments)
    assert diary.steps == list(range(11))
    assert run.times.tolist() == pytest.approx([0, 0.04, 0.1])
    expected = (diary.spins[2] * diary.spins[5]).mean(1)
    assert_close(run.correlation[0, 2], expected)
    assert_close(run.correlation[1, 2], torch.ones(2, dtype=float64))
    assert run.correlation[:, 0].isnan().all()
    assert run.response is None
    again = simulate_p_spin(PSpin(10, 3, seed=0, replicas=2), 0.4, **arguments)
    assert torch.equal(again.energy, run.energy)


def test_response_is_the_derivative_by_a_field():
    """At T = 0 and one step after the wait: time_step times the part of the field on the sphere."""
    run = simulate_p_spin(
        PSpin(30, 3, seed=0), until=0.11, time_step=0.01, times=[0.11], waiting_times=[0.1],
        response_field=1e-4,
    )  # fmt: skip
    assert run.response[0, -1].item() == pytest.approx(0.01, rel=0.2)
    assert run.response[0, run.times.tolist().index(pytest.approx(0.1))].item() == 0


def test_a_field_elsewhere_changes_nothing():
    """The copies that feel a field leave the model's own path alone, bit for bit."""
    paths = []
    for field in (None, 0.1):
        model = PSpin(10, 3, seed=0, replicas=2)
        simulate_p_spin(model, 0.5, until=0.4, waiting_times=[0.1, 0.2], response_field=field)
        paths.append(model.spins.detach())
    assert_close(*paths, rtol=1e-13, atol=1e-13)


def test_files_of_a_run(tmp_path):
    run = simulate_p_spin(PSpin(6, seed=0), 0.1, until=0.1, waiting_times=[0.1])
    record = json.loads((run.save(tmp_path) / "langevin.json").read_text())
    assert record["status"] == "finished"
    assert record["correlation"][0][0] == [None]
    assert record["energy"][-1] == run.energy[-1].tolist()
    run.raise_for_status()


@pytest.mark.parametrize(("waits", "field"), [([0.05, 0.1], 0.1), ([0.1], None), ([], None)])
def test_a_run_is_read_back_as_it_was_saved(waits, field, tmp_path):
    run = simulate_p_spin(
        PSpin(6, seed=0, replicas=3), 0.1, until=0.1, waiting_times=waits, response_field=field
    )
    again = LangevinRun.load(run.save(tmp_path))
    assert again.record() == run.record()
    assert_close(again.correlation, run.correlation, equal_nan=True, rtol=0, atol=0)
    assert (again.response is None) == (field is None)


def mean_and_error(values):
    """Over couplings: replicas of the same couplings are not independent."""
    return values.mean(0), values.std(0) / len(values) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "size"), [(0.0, 64), (0.0, 128), (0.5, 64)])
def test_finite_size_tends_to_mean_field(temperature, size):
    """Section 7.5: energies, correlation and response within 4 sigma and a 1/N of size 2."""
    exact = solve_mean_field(3, temperature, until=8)
    seen = []
    for seed in range(12):
        model = PSpin(size, 3, seed=seed, replicas=4)
        run = simulate_p_spin(
            model, temperature, until=8, times=[1, 8], waiting_times=[4], response_field=0.05,
            seed=seed,
        )  # fmt: skip
        one, last = run.times.tolist().index(1), -1
        pairs = [run.correlation[0, last].mean(), run.response[0, last].mean()]
        seen.append(torch.stack([run.energy[one].mean(), run.energy[last].mean(), *pairs]))
    mean, error = mean_and_error(torch.stack(seen))
    pair = [float(exact.C(8, 4)), exact.integrated_response(8, 4)]
    expected = torch.tensor([*exact.E([1, 8]).tolist(), *pair], dtype=float64)
    assert ((mean - expected).abs() < 4 * error + 2 / size).all(), (mean, error, expected)


@pytest.mark.slow
def test_negative_curvatures_at_a_hundred_and_twenty_spins():
    """Section 7.4: the semicircle at the sample's own energy, within 4 sigma at every time."""
    excess = torch.zeros(6, 3, dtype=float64)
    for seed in range(6):
        model = PSpin(120, 3, seed=seed)
        for index, span in enumerate((1.0, 1.0, 8.0)):  # until 1, 2 and 10
            simulate_p_spin(model, until=span)
            eigenvalues = torch.linalg.eigvalsh(model.tangent_hessian())
            expected = float(negative_fraction(3, model.energy().item()))
            excess[seed, index] = (eigenvalues < 0).double().mean() - expected
    mean, error = mean_and_error(excess)
    assert (error < 0.005).all()
    assert (mean.abs() < 4 * error).all()


def simulate(**arguments):
    return simulate_p_spin(PSpin(6, seed=0), **({"until": 0.1} | arguments))


BAD = [
    (lambda: PSpin(1), "size, the number of spins, must be an integer >= 2; got 1"),
    (lambda: PSpin(6, 1), "must be an integer >= 2; got 1"),
    (lambda: PSpin(6, replicas=0), "replicas must be an integer >= 1; got 0"),
    (lambda: simulate(temperature=-1.0), "temperature must be finite and at least 0; got -1.0"),
    (lambda: simulate(time_step=0.2), "time_step must lie above 0 and be at most 0.144 here"),
    (lambda: simulate(until=0.0), "until must be finite and at least one time_step; got 0.0"),
    (lambda: simulate(waiting_times=[0.3]), "waiting_times must lie between 0 and 0.1; got"),
    (lambda: simulate(times=[-0.1]), "times must lie between 0 and 0.1; got"),
    (lambda: simulate(response_field=0.0), "response_field must be finite and above 0; got 0.0"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_meets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_spins_that_are_not_finite_are_refused():
    model = PSpin(6, seed=0)
    model.spins.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="energy must be finite before the first step"):
        simulate_p_spin(model, until=1.0)


@pytest.mark.untyped
def test_spins_and_replicas_are_whole():
    with pytest.raises(ValueError, match="size, the number of spins, must be an integer >= 2"):
        PSpin(6.5)
    with pytest.raises(ValueError, match="replicas must be an integer >= 1; got 1.5"):
        PSpin(6, replicas=1.5)
