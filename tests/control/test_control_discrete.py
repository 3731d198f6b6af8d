"""``DiscreteMSA`` is the published rule on a moving average, and every weight stays in its set."""

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
from drawn_weights import FLOAT, give, parameter
from tests.oracles.slow_bop import slow_bop
from torch import nn, tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing import assert_close

from lowland.control.discrete import DiscreteMSA
from lowland.control.held import BINARY, TERNARY
from lowland.control.rules import binary_rule, largest_wrong, ternary_rule
from lowland.control.schedules import per_epoch


@pytest.mark.parametrize("values", [BINARY, TERNARY])
def test_fifty_steps_by_hand(values, rng):
    """Average, relative threshold, rule: written out for two tensors."""
    weights = [parameter(values, (4, 6), rng), parameter(values, (3,), rng)]
    rho, alpha, lam = 0.4, 0.8, 0.05
    optimizer = DiscreteMSA(weights, values=values, rho=rho, alpha=alpha, lam=lam)
    mine = [w.detach().clone() for w in weights]
    averages = [torch.zeros_like(w) for w in mine]
    for _ in range(50):
        give(weights, rng)
        optimizer.step()
        for i, w in enumerate(weights):
            averages[i] = alpha * averages[i] - (1 - alpha) * w.grad
            m = largest_wrong(mine[i], averages[i], values)
            if values == BINARY:
                mine[i] = binary_rule(mine[i], averages[i], rho * m / 2)  # 2 rho_k = rho m
            else:
                mine[i] = ternary_rule(mine[i], averages[i], rho * m, lam)
            assert_close(w.detach(), mine[i], rtol=0, atol=0)
            assert torch.isin(w.detach(), tensor(values, dtype=FLOAT)).all()
    for w, average in zip(weights, averages, strict=True):
        assert_close(optimizer.state[w]["average"], average)


def test_limits(rng):
    """O8: rho >= 1 freezes binary weights; rho = alpha = 0 gives minus the sign of the gradient."""
    frozen, free = parameter(BINARY, (30,), rng), parameter(BINARY, (30,), rng)
    before = frozen.detach().clone()
    stuck = DiscreteMSA([frozen], rho=1.0, alpha=0.5)
    follows = DiscreteMSA([free], rho=0.0, alpha=0.0)
    for _ in range(5):
        give([frozen, free], rng)
        free.grad[::7] = 0
        held = free.detach().clone()
        stuck.step()
        follows.step()
        assert_close(frozen.detach(), before)
        assert_close(free.detach(), torch.where(free.grad == 0, held, -free.grad.sign()))


def test_frozen_average(rng):
    """A schedule that has come to 0 is alpha = 1: the average rests."""
    weight = parameter(TERNARY, (5,), rng)
    optimizer = DiscreteMSA([weight], values=TERNARY, schedule=lambda step: float(step < 1))
    give([weight], rng)
    optimizer.step()
    average = optimizer.state[weight]["average"].clone()
    give([weight], rng)
    optimizer.step()
    assert_close(optimizer.state[weight]["average"], average, rtol=0, atol=0)


def test_a_large_price_empties(rng):
    """O8: lambda above max |M| + rho_k sets all to zero in one step."""
    weight = parameter(TERNARY, (40,), rng)
    optimizer = DiscreteMSA([weight], values=TERNARY, lam=100.0)
    give([weight], rng)
    optimizer.step()
    assert not weight.any()


def test_scale_of_the_loss(rng):
    """O9: binary weights do not know it; ternary ones only relative to lambda."""
    start = [parameter(BINARY, (50,), rng), parameter(TERNARY, (50,), rng)]
    grads = [[torch.randn(50, dtype=FLOAT, generator=rng) for _ in range(2)] for _ in range(20)]
    ends = []
    for scale in (1.0, 2.0**-9):
        weights = [nn.Parameter(w.detach().clone()) for w in start]
        optimizer = DiscreteMSA(
            [
                {"params": weights[:1], "values": BINARY},
                {"params": weights[1:], "values": TERNARY, "lam": 0.02 * scale},
            ],
            alpha=0.9,
        )
        for pair in grads:
            for w, g in zip(weights, pair, strict=True):
                w.grad = g * scale
            optimizer.step()
        ends.append([w.detach() for w in weights])
    for a, b in zip(*ends, strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_absolute_threshold_is_bop(rng):
    """O10: a fixed threshold tau = 2 rho flips where the average agrees with the weight."""
    weight = parameter(BINARY, (20,), rng)
    gamma, tau = 0.1, 0.05
    optimizer = DiscreteMSA([weight], rho=tau / 2, alpha=1 - gamma, threshold="absolute")
    start, grads, ends = weight.tolist(), [], []
    for _ in range(40):
        give([weight], rng)
        optimizer.step()
        grads.append(weight.grad.tolist())
        ends.append(weight.tolist())
    assert slow_bop(start, grads, gamma, tau)[0] == ends


def test_any_set_stays_in_it(rng):
    """O11: after every step, after a round trip, after a change of type."""
    values = (-2.0, -0.3, 0.0, 1.5)
    weight = parameter(values, (100,), rng, torch.float32)
    optimizer = DiscreteMSA([weight], values=values, alpha=0.5, lam=0.01)
    before = weight.detach().clone()
    for _ in range(10):
        give([weight], rng)
        optimizer.step()
        assert torch.isin(weight.detach(), tensor(values)).all()
    assert (weight != before).any()
    for dtype in (torch.bfloat16, torch.float64):
        moved = nn.Parameter(tensor(values, dtype=dtype)[[0, 1, 3, 2]])
        optimizer = DiscreteMSA([moved], values=values, alpha=0.5)
        give([moved], rng)
        optimizer.step()
        assert torch.isin(moved.detach(), tensor(values, dtype=dtype)).all()
        assert optimizer.state[moved]["average"].dtype in (torch.float32, torch.float64)


def test_saved_state_goes_on_to_the_bit(rng):
    """Averages, step counts and gamma come back, a double average as a double one."""
    weight = parameter(TERNARY, (60,), rng, torch.float32)
    grads = [torch.randn(60, generator=rng) for _ in range(20)]

    def schedule(step):
        return 0.1**step

    def run(optimizer, w, some):
        for g in some:
            w.grad = g.clone()
            optimizer.step()

    whole = nn.Parameter(weight.detach().clone())
    straight = DiscreteMSA([whole], values=TERNARY, lam=1e-3, schedule=schedule, alpha=0.5)
    run(straight, whole, grads)
    first = nn.Parameter(weight.detach().clone())
    begun = DiscreteMSA([first], values=TERNARY, lam=1e-3, schedule=schedule, alpha=0.5)
    run(begun, first, grads[:9])
    saved = deepcopy(begun.state_dict())
    assert saved["state"][0]["average"].dtype == torch.float64
    second = nn.Parameter(first.detach().clone())
    resumed = DiscreteMSA([second], values=TERNARY, schedule=schedule)
    resumed.load_state_dict(saved)
    run(resumed, second, grads[9:])
    assert_close(second, whole, rtol=0, atol=0)
    one, other = (o.state[w]["average"] for o, w in ((resumed, second), (straight, whole)))
    assert one.dtype == torch.float64
    assert_close(one, other, rtol=0, atol=0)


def test_gamma_is_kept_in_double_precision():
    """Where 1 - alpha in float32 stalls at 5.96e-7, gamma goes on falling."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = DiscreteMSA([weight], alpha=0.999, schedule=lambda step: 0.95**step)
    optimizer.param_groups[0]["steps"] = 400
    assert_close(optimizer.gamma, (1 - 0.999) * 0.95**400, rtol=1e-12, atol=0)
    assert optimizer.gamma < 2e-12


def test_small_increments_are_not_lost():
    """Below gamma = 1e-5 a float32 average would not move at all."""
    weight = nn.Parameter(torch.ones(1))
    optimizer = DiscreteMSA([weight], alpha=1 - 1e-9)
    optimizer.average(weight, 1.0).fill_(1.0)
    weight.grad = torch.zeros(1)
    for _ in range(3):
        optimizer.step()
    average = optimizer.state[weight]["average"]
    assert average.dtype == torch.float64
    assert_close(1 - average.item(), 3e-9, rtol=1e-6, atol=0)


def test_layers_per_step(rng):
    """So many tensors a step, drawn from seed and step; averages of all go on."""
    weights = [parameter(BINARY, (8,), rng) for _ in range(5)]
    optimizer = DiscreteMSA(weights, rho=0.0, alpha=0.0, layers_per_step=2, seed=3)
    chosen = []
    for _ in range(30):
        before = [w.detach().clone() for w in weights]
        for w in weights:
            w.grad = w.detach().clone()  # every weight should flip
        optimizer.step()
        moved = [not torch.equal(a, w.detach()) for a, w in zip(before, weights, strict=True)]
        assert sum(moved) == 2
        chosen.append(moved)
    assert {sum(column) > 3 for column in zip(*chosen, strict=True)} == {True}


def test_skipped_amp_steps_skip_the_average(rng):
    """A GradScaler that finds an infinity leaves average, weights and step count alone."""
    weight = parameter(BINARY, (10,), rng, torch.float32)
    optimizer = DiscreteMSA([weight])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for bad in (False, True, False):
        before = deepcopy((weight.detach().clone(), optimizer.state_dict()))
        optimizer.zero_grad()
        loss = (weight * torch.arange(10.0)).sum() * (float("inf") if bad else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if bad:
            assert_close(weight.detach(), before[0])
            assert_close(optimizer.state_dict()["state"], before[1]["state"])
    assert optimizer.param_groups[0]["steps"] == 2


def test_accumulated_gradients_are_one_average(rng):
    """Two backward passes and one step are one step on their sum."""
    whole = parameter(BINARY, (10,), rng)
    parts = nn.Parameter(whole.detach().clone())
    a, b = (torch.randn(10, dtype=FLOAT, generator=rng) for _ in range(2))
    one, two = DiscreteMSA([whole]), DiscreteMSA([parts])
    (whole @ (a + b)).backward()
    (parts @ a).backward()
    (parts @ b).backward()
    one.step()
    two.step()
    assert_close(one.state[whole]["average"], two.state[parts]["average"])
    assert_close(whole, parts)


def test_closure_is_called_once(rng):
    """As in every torch optimizer."""
    weight, calls = parameter(BINARY, (4,), rng), []

    def closure():
        calls.append(1)
        loss = weight.sum()
        loss.backward()
        return loss

    before = weight.sum().item()
    assert DiscreteMSA([weight]).step(closure).item() == before
    assert calls == [1]


BAD = [
    ({"values": ()}, "values must be different finite numbers"),
    ({"values": (1, 1)}, "values must be different finite numbers"),
    ({"rho": -0.1}, "rho, the penalty on a move, must be finite and at least 0; got -0.1"),
    ({"alpha": 1.0}, r"alpha, the keep rate of the average, must be in \[0, 1\); got 1.0"),
    ({"alpha": -0.1}, "alpha, the keep rate"),
    ({"lam": -1.0}, "lam, the price of a weight, must be finite and at least 0"),
    ({"threshold": "fixed"}, 'threshold must be "relative" or "absolute"; got \'fixed\''),
    ({"values": (-1, 0, 2)}, r"every weight must be one of \(-1.0, 0.0, 2.0\); .* has 1 others"),
    ({"target_nonzero": 0.1}, r"target_nonzero needs the values \(-1, 0, 1\)"),
    ({"values": (-1, 0, 1), "target_nonzero": 2.0}, "target_nonzero must be a share between 0"),
    ({"values": (-1, 1), "target_nonzero": 0.1}, r"Begin with discretize\(model, \(-1, 0, 1\)\)"),
    ({"values": (-1, 0, 1), "target_nonzero": 0.1, "lam": 1}, "only one of target_nonzero, .*lam"),
    ({"values": 5}, "values must be a set of numbers"),
    ({"schedule": 3}, "schedule must be a function of the step; got 3"),
    ({"layers_per_step": 1.5}, "layers_per_step must be a whole number"),
    ({"values": (-1, 1e50, 1)}, "values must be different finite numbers in the type"),
    ({"layers_per_step": 0}, "layers_per_step must be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings(settings, message):
    """Every setting out of range meets a sentence."""
    weight = nn.Parameter(tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=message):
        DiscreteMSA([weight], **settings)


def test_bad_parameters():
    """Weights outside the set, without a gradient, complex, or in two groups."""
    with pytest.raises(ValueError, match="for instance 0.5"):
        DiscreteMSA([nn.Parameter(tensor([1.0, 0.5]))])
    with pytest.raises(ValueError, match="must require a gradient"):
        DiscreteMSA([nn.Parameter(tensor([1.0]), requires_grad=False)])
    with pytest.raises(TypeError, match="must be real"):
        DiscreteMSA([nn.Parameter(tensor([1.0 + 0j]))])
    weight = nn.Parameter(tensor([1.0]))
    with pytest.raises(ValueError, match="more than one parameter group"):
        DiscreteMSA([{"params": [weight]}, {"params": [weight]}])
    with pytest.warns(UserWarning, match="no weight will ever change"):
        DiscreteMSA([weight], rho=1.5)


def test_sharded_weights_are_refused(tmp_path):
    """Each rank would see the largest wrong weight of its own rows."""
    file = f"file://{tmp_path / 'group'}"
    dist.init_process_group("gloo", init_method=file, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        weight = nn.Parameter(distribute_tensor(torch.ones(2, 3), mesh, [Shard(0)]))
        with pytest.raises(TypeError, match="whole on every rank, .*; parameter 0 .* is sharded"):
            DiscreteMSA([weight])
    finally:
        dist.destroy_process_group()


def test_a_group_that_is_refused_is_not_kept():
    optimizer = DiscreteMSA([nn.Parameter(torch.zeros(2))], values=TERNARY, target_nonzero=0.5)
    for values, message in ((BINARY, "target_nonzero needs"), ((0.5, 1), "one of")):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group({"params": [nn.Parameter(-torch.ones(2))], "values": values})
        assert len(optimizer.param_groups) == 1


def test_bad_gradients():
    """NaN names the layer and changes nothing; sparse gradients are refused."""
    weight = nn.Parameter(tensor([1.0, -1.0]))
    optimizer = DiscreteMSA([{"params": [weight], "names": ["fc.weight"]}])
    weight.grad = tensor([float("nan"), 1.0])
    with pytest.raises(FloatingPointError, match="that of fc.weight is not. Nothing was changed"):
        optimizer.step()
    assert weight.tolist() == [1.0, -1.0]
    assert "average" not in optimizer.state[weight]
    assert optimizer.param_groups[0]["steps"] == 0
    weight.grad = tensor([1.0, 0.0]).to_sparse()
    with pytest.raises(ValueError, match="gradients must be dense; fc.weight has a"):
        optimizer.step()


def test_loaded_state_checks_the_model(rng):
    """A model whose weights have left the set is refused when the state is loaded."""
    weight = parameter(BINARY, (4,), rng)
    optimizer = DiscreteMSA([weight])
    saved = optimizer.state_dict()
    with torch.no_grad():
        weight.fill_(0.3)
    with pytest.raises(ValueError, match="every weight must be one of"):
        optimizer.load_state_dict(saved)


def test_weights_that_another_optimizer_moved_are_told(rng):
    """Adam over all parameters beside it is found out at the next step."""
    weight = parameter(BINARY, (4,), rng, torch.float32)
    optimizer = DiscreteMSA([{"params": [weight], "names": ["fc.weight"]}])
    other = torch.optim.Adam([weight], 0.01)
    give([weight], rng)
    optimizer.step()
    optimizer.step()
    other.step()
    with pytest.raises(ValueError, match=r"fc\.weight has 4 others.*float_parameters"):
        optimizer.step()


def test_weights_that_were_loaded_are_fine(rng):
    """Writing values of the set is not refused."""
    weight = parameter(BINARY, (4,), rng)
    optimizer = DiscreteMSA([weight])
    give([weight], rng)
    optimizer.step()
    with torch.no_grad():
        weight.copy_(-weight)
    optimizer.step()


def test_copies(rng):
    """A copy of model and optimizer steps as the original does."""
    weight = parameter(TERNARY, (30,), rng)
    optimizer = DiscreteMSA([weight], values=TERNARY, lam=0.01, schedule=per_epoch(0.5, 2))
    give([weight], rng)
    optimizer.step()
    twin, copied = deepcopy((weight, optimizer))
    give([weight], rng)
    twin.grad = weight.grad.clone()
    optimizer.step()
    copied.step()
    assert_close(twin, weight, rtol=0, atol=0)
    assert copied.gamma == optimizer.gamma


def test_learning_rate_schedulers_anneal_the_average(rng):
    """``lr`` is a factor on 1 - alpha."""
    weight = parameter(BINARY, (4,), rng)
    optimizer = DiscreteMSA([weight], alpha=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    give([weight], rng)
    optimizer.step()
    scheduler.step()
    assert_close(optimizer.gamma, 0.05)
    optimizer.param_groups[0]["lr"] = 11.0
    with pytest.raises(ValueError, match=r"schedule and lr must keep 1 - alpha between 0 and 1"):
        optimizer.step()


def test_a_foreign_state_is_refused(rng):
    weight = parameter(BINARY, (4,), rng)
    with pytest.raises(ValueError, match="must come from a DiscreteMSA"):
        DiscreteMSA([weight]).load_state_dict(torch.optim.Adam([weight]).state_dict())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_move_to_another_type_in_mid_run(dtype, rng):
    """O11: the weights stay in their set, and the average keeps its precision."""
    model = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        model.weight.copy_(parameter(TERNARY, (4, 6), rng))
    optimizer = DiscreteMSA([model.weight], values=TERNARY, alpha=0.5)
    for move in (False, True, False):
        if move:
            model.to(dtype)
        give([model.weight], rng)
        optimizer.step()
        assert torch.isin(model.weight.detach(), tensor(TERNARY, dtype=model.weight.dtype)).all()
    assert model.weight.dtype == dtype
    assert optimizer.state[model.weight]["average"].dtype in (torch.float32, torch.float64)
