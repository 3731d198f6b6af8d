"""The residual of the maximum principle is 0 where no candidate is better: all are tried."""

from itertools import product

import pytest
import torch
from torch import float64, nn, tensor
from torch.testing import assert_close

from lowland.control.discretize import discretize
from lowland.control.hamiltonian import hamiltonian, hamiltonian_gradients
from lowland.control.marks import values_of
from lowland.control.residual import maximum_principle_residual
from lowland.control.trajectory import control_products, states_and_costates
from lowland.errors import UnsupportedModelError
from lowland.models import resnet
from small_networks import Tied, class_batches, losses, norm_mlp, seeded


def squared(output, target):
    return (output - target).square().sum(1)


def tiny(values, seed=0):
    """A discrete layer with 2x3 weights, an activation, and a discrete layer with 2x2."""
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2, bias=False)).double()
    for layer in (model[0], model[2]):
        index = torch.randint(len(values), layer.weight.shape, generator=draws)
        layer.weight.data = tensor(values, dtype=float64)[index]
    inputs = torch.randn(7, 3, dtype=float64, generator=draws)
    return model, inputs, torch.randn(7, 2, dtype=float64, generator=draws)


def best_of_all(trajectory, layer, name, values, lam):
    """The largest sum of H - lam |W|^2 over every candidate of a layer."""
    shape = trajectory.params[name].shape
    found = []
    for candidate in product(values, repeat=shape.numel()):
        weight = tensor(candidate, dtype=float64).view(shape)
        value = hamiltonian(trajectory, {name: weight}, layers=(layer,))[layer]
        found.append(float(value - lam * weight.square().sum()))
    return max(found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("values", "lam"), [((-1, 1), 0.0), ((-1, 0, 1), 0.0), ((-1, 0, 1), 0.3), ((-0.5, 0.25), 0.1)]
)
def test_the_gap_is_that_of_all_candidates(values, lam, seed):
    """Enumerated layer by layer, with nothing assumed about the layer."""
    model, inputs, target = tiny(values, seed)
    trajectory = states_and_costates(model, squared, inputs, target)
    found = maximum_principle_residual(trajectory, values=values, lam=lam)
    assert list(found) == ["0", "2"]
    for name, residual in found.items():
        weight = f"{name}.weight"
        now = hamiltonian(trajectory)[name] - lam * trajectory.params[weight].square().sum()
        best = best_of_all(trajectory, name, weight, values, lam)
        assert residual.gap == pytest.approx(best - float(now), abs=1e-12)
        assert 0 <= residual.gain <= residual.gap
        assert residual.entries == trajectory.params[weight].numel()
    bias = hamiltonian_gradients(trajectory, ["0.bias"])["0.bias"]
    assert found["0"].gradient == pytest.approx(float(bias.norm()), abs=1e-12)
    assert found["2"].gradient == 0


@pytest.mark.parametrize("values", [(-1, 1), (-1, 0, 1)])
@pytest.mark.parametrize("layer", ["linear", "transposed", "shared"])
def test_the_gap_behind_the_rooms_own_row_scale(layer, values, rng):
    """H is linear in the weight behind its scale too: against every candidate."""
    if layer == "transposed":
        model = nn.Sequential(nn.ConvTranspose1d(2, 1, 3, bias=False), nn.Tanh(), nn.Flatten())
    else:
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
        model = nn.Sequential(*model, model[0]) if layer == "shared" else model
    model = discretize(model, values, row_scale=True).double()
    name = "0.parametrizations.weight.original"
    model.get_parameter("0.parametrizations.weight.0.scale").data.mul_(0.7)
    inputs = torch.randn(5, 2, 3 if layer == "transposed" else 2, dtype=float64, generator=rng)
    inputs = inputs if layer == "transposed" else inputs[:, 0]
    target = torch.ones_like(model(inputs)).detach()
    trajectory = states_and_costates(model, squared, inputs, target)
    found = maximum_principle_residual(trajectory, values=values_of(model), lam=0.1)
    weight = trajectory.params[name]
    assert found["0"].entries == weight.numel()
    if layer == "shared":
        slope = hamiltonian_gradients(trajectory, [name])[name]
        best = torch.stack([slope * v - 0.1 * v**2 for v in values]).amax(0)
        gap = (best - slope * weight + 0.1 * weight**2).sum()
        assert list(found) == ["0"]
    else:
        now = hamiltonian(trajectory)["0"] - 0.1 * weight.square().sum()
        gap = best_of_all(trajectory, "0", name, values, 0.1) - now
    assert found["0"].gap == pytest.approx(float(gap), abs=1e-12)
    plain = maximum_principle_residual(trajectory, values=values, lam=0.1)
    assert plain == found


def test_another_parametrization_is_refused():
    """Weight norm is not linear in its direction."""
    model = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    name = "parametrizations.weight.original1"
    model.get_parameter(name).data.sign_()
    x = torch.ones(3, 2)
    trajectory = states_and_costates(model, squared, x, x)
    with pytest.raises(UnsupportedModelError, match=f"is not in '{name}'"):
        maximum_principle_residual(trajectory, values={name: (-1, 1)})


def test_the_two_point_problem():
    """O2: at +1 the other value would add 3.2, at -1 it would add 4.8: nowhere at rest."""
    for weight, gap in ((1.0, 3.2), (-1.0, 4.8)):
        model = nn.Linear(1, 1, bias=False).double()
        model.weight.data.fill_(weight)
        one = torch.ones(1, 1, dtype=float64)
        trajectory = states_and_costates(model, squared, one, 0.2 * one)
        found = maximum_principle_residual(trajectory, values=(-1, 1))["linear"]
        assert found.gap == found.gain == pytest.approx(gap, abs=1e-12)
        assert found.changes == 1


def test_at_the_argmax_nothing_is_left():
    """A layer whose costates do not know its weight: after one argmax, gap and changes are 0."""

    def linear_cost(output, target):
        return (output * target).sum(1)

    model, inputs, target = tiny((-1, 1))
    first = nn.Sequential(model[0])
    trajectory = states_and_costates(first, linear_cost, inputs, target)
    first[0].weight.data = control_products(trajectory)["0.weight"].sign()
    trajectory = states_and_costates(first, linear_cost, inputs, target)
    found = maximum_principle_residual(trajectory, values=(-1, 1))["0"]
    assert (found.gap, found.gain, found.changes) == (0.0, 0.0, 0.0)


def test_only_weights_that_lie_in_the_set():
    """One set means weights of two axes or more; a scale of 1 is no binary weight."""
    model = seeded(norm_mlp, 0).double()
    for layer in (model[0], model[6]):
        layer.weight.data.sign_()
    nn.init.ones_(model[1].weight)
    inputs, target = class_batches(4, dtype=float64)[0]
    trajectory = states_and_costates(model, losses, inputs, target)
    found = maximum_principle_residual(trajectory, values=(-1, 1))
    assert {name: residual.entries for name, residual in found.items()} == {
        "0": 24, "1": 0, "3": 0, "4": 0, "6": 15,
    }  # fmt: skip
    assert found["3"].gap is found["3"].changes is found["3"].gain is None
    named = maximum_principle_residual(trajectory, values={"1.weight": (0, 1)})
    assert [name for name, residual in named.items() if residual.entries] == ["1"]


def test_all_floats():
    """The gradient norms add up to that of J."""
    model = seeded(lambda: resnet(8, 3), 0).double()
    inputs, target = class_batches(3, 8, 8, dtype=float64)[0]
    grads = torch.autograd.grad(losses(model(inputs), target).mean(), [*model.parameters()])
    trajectory = states_and_costates(model, losses, inputs, target)
    found = maximum_principle_residual(trajectory)
    total = sum(residual.gradient**2 for residual in found.values())
    assert total == pytest.approx(float(sum(g.square().sum() for g in grads)), rel=1e-12)


def test_a_shared_weight_counts_once():
    """In the first layer that uses it, with M of all its uses."""
    model = seeded(Tied, 0).double()
    model.inner.weight.data.sign_()
    inputs, target = class_batches(4, dtype=float64)[0]
    trajectory = states_and_costates(model, losses, inputs, target)
    found = maximum_principle_residual(trajectory, values={"inner.weight": (-1, 1)})
    assert list(found) == ["inner", "mul", "outer"]
    product = control_products(trajectory)["inner.weight"]
    gap = (product.abs() - product * model.inner.weight).sum()
    assert_close(tensor(found["inner"].gap).double(), gap.detach().double())


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": ()}, r"different finite numbers, at least one; got \(\)"),
        ({"values": (1, torch.nan)}, r"different finite numbers, at least one; got \(1, nan\)"),
        ({"values": 5}, "values must be a set of numbers"),
        ({"values": {"w": (-1, 1)}}, "must name parameters of the model; got 'w'"),
        ({"values": {"0.weight": (0, 1)}}, r"'0.weight' must lie in \(0, 1\); it does not"),
        ({"values": (-1, 1), "lam": -1.0}, "lam, .* must be finite and at least 0; got -1.0"),
        ({"values": (-1, 1), "lam": torch.nan}, "lam, .* must be finite and at least 0; got nan"),
    ],
)
def test_options(options, message):
    model, inputs, target = tiny((-1, 1))
    trajectory = states_and_costates(model, squared, inputs, target)
    with pytest.raises(ValueError, match=message):
        maximum_principle_residual(trajectory, **options)


def test_costs_and_layers_that_are_not_linear():
    model, inputs, target = tiny((-1, 1))

    def running(name, x, params):
        return params["2.weight"].abs().sum().expand(7) if name == "2" else None

    trajectory = states_and_costates(model, squared, inputs, target, running_cost=running)
    with pytest.raises(ValueError, match="must not depend on the discrete weight '2.weight'"):
        maximum_principle_residual(trajectory, values=(-1, 1))

    class Cubed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3, 2, dtype=float64))

        def forward(self, x):
            return x @ self.w**3

    trajectory = states_and_costates(Cubed(), squared, inputs, target)
    with pytest.raises(UnsupportedModelError, match="linear in its discrete weight; 'matmul' is"):
        maximum_principle_residual(trajectory, values=(-1, 1))
