"""Langevin training of a quadratic loss: the variance of the discretized process is known."""

from copy import deepcopy

import pytest
import torch
from torch import float64, nn
from torch.testing import assert_close

from lowland.dynamics.langevin_sgd import LangevinSGD
from small_networks import class_batches, dropout, losses, seeded


def spring(size, dtype=float64):
    return nn.Parameter(torch.zeros(size, dtype=dtype))


def descend(w, optimizer, stiffness, steps):
    for _ in range(steps):
        w.grad = stiffness * w.detach()
        optimizer.step()


@pytest.mark.parametrize("stiffness", [0.5, 4.0, 15.0])
def test_the_stationary_variance(stiffness):
    """2 T eta / (1 - (1 - eta h)^2), where continuous time would say T / h."""
    rate, temperature, size = 0.1, 0.3, 6_000
    w = spring(size)
    descend(w, LangevinSGD([w], rate, temperature=temperature), stiffness, 120)
    expected = 2 * temperature * rate / (1 - (1 - rate * stiffness) ** 2)
    assert w.var().item() == pytest.approx(expected, rel=4 * (2 / size) ** 0.5)
    assert abs(w.mean().item()) < 4 * (expected / size) ** 0.5


def test_without_a_loss_it_diffuses():
    """Delta = 2 T eta t."""
    w = spring(20_000)
    descend(w, LangevinSGD([w], 0.1, temperature=0.3), 0.0, 50)
    assert w.var().item() == pytest.approx(2 * 0.3 * 0.1 * 50, rel=4 * (2 / 20_000) ** 0.5)


def test_cold_it_is_gradient_descent():
    """The bits of torch's SGD at T = 0, on a network."""
    models = [seeded(dropout, 1) for _ in range(2)]
    optimizers = [
        LangevinSGD(models[0].parameters(), 0.1, temperature=0.0),
        torch.optim.SGD(models[1].parameters(), 0.1),
    ]
    for x, y in class_batches(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(3)
            optimizer.zero_grad()
            losses(model(x), y).mean().backward()
            optimizer.step()
    for mine, torchs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(mine, torchs)


def test_groups_and_schedules():
    """Each group has its own rate and temperature, and both may change."""
    hot, cold = spring(4000), spring(4000)
    groups = [{"params": [hot]}, {"params": [cold], "temperature": 0.0, "lr": 0.5}]
    optimizer = LangevinSGD(groups, 0.1, temperature=2.0)
    hot.grad, cold.grad = torch.zeros_like(hot), torch.ones_like(cold)
    optimizer.step()
    assert_close(cold.detach(), torch.full_like(cold, -0.5))
    assert hot.var().item() == pytest.approx(0.4, rel=0.1)
    optimizer.param_groups[0]["temperature"] = 0.0
    before = hot.detach().clone()
    optimizer.step()
    assert torch.equal(hot.detach(), before)


def test_its_own_randomness():
    """The same seed gives the same run whatever the global generators say, and leaves these."""
    runs = []
    for noise, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        w = spring(50)
        descend(w, LangevinSGD([w], 0.1, temperature=1.0, seed=seed), 1.0, 5)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append(w.detach().clone())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_resume_gives_the_same_bits(tmp_path):
    w = spring(50)
    optimizer = LangevinSGD([w], 0.1, temperature=1.0)
    descend(w, optimizer, 1.0, 7)
    saved = {"w": w.detach().clone(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "state.pt")
    descend(w, optimizer, 1.0, 7)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = nn.Parameter(state["w"])
    resumed = LangevinSGD([again], 0.1, temperature=1.0, seed=99)
    resumed.load_state_dict(state["optimizer"])
    descend(again, resumed, 1.0, 7)
    assert torch.equal(w, again)


def test_copies_and_new_noise():
    """A deep copy goes on with the same noise; a replica is given its own."""
    w = spring(50)
    twins = [deepcopy((w, LangevinSGD([w], 0.1, temperature=1.0))) for _ in range(3)]
    twins[2][1].reseed(5)
    for mine, optimizer in twins:
        descend(mine, optimizer, 1.0, 3)
    assert torch.equal(twins[0][0], twins[1][0])
    assert not torch.equal(twins[0][0], twins[2][0])


def test_a_closure_and_a_frozen_parameter():
    """The loss comes back; what has no gradient takes no part."""
    w, idle = spring(3), spring(3)
    optimizer = LangevinSGD([w, idle], 0.1, temperature=1.0)

    def closure():
        optimizer.zero_grad()
        loss = (w - 1).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert not idle.any()
    assert w.all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr": 0.0, "temperature": 1.0}, "lr must be positive and finite; got 0.0"),
        ({"lr": 0.1, "temperature": -1.0}, "temperature must be finite and at least 0; got -1.0"),
        ({"lr": 0.1, "temperature": float("nan")}, "temperature must be"),
    ],
)
def test_bad_input(options, match):
    with pytest.raises(ValueError, match=match):
        LangevinSGD([spring(2)], **options)
    other = torch.optim.SGD([spring(2)], 0.1).state_dict()
    optimizer = LangevinSGD([spring(2)], 0.1, temperature=1.0)
    with pytest.raises(ValueError, match="state must be one of LangevinSGD"):
        optimizer.load_state_dict(other)
