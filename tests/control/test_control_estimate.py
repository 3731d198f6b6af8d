"""The terms of the error estimate against Jacobians that are formed one number at a time."""

from functools import partial

import pytest
import torch
from torch import float64, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call

from lowland.control.estimate import error_estimate
from lowland.params import call_at
from small_networks import Tied, class_batches, generators, losses, same, seeded, snapshot

EXACT = {"rel": 1e-10, "abs": 1e-12}


def squared(output, target):
    return (output - target).square().sum(1)


def chain():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.PReLU(3), nn.Linear(3, 2)).double()


def normed():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()


def images():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Softplus(), nn.Flatten(), nn.Linear(2, 2))
    return model.double()


KINDS = {"chain": (chain, (4,)), "batch norm": (normed, (4,)), "images": (images, (1, 2, 2))}


def problem(kind):
    make, shape = KINDS[kind]
    torch.manual_seed(0)
    model, inputs = make(), torch.randn(5, *shape, dtype=float64)
    return model, inputs, torch.randn(5, 2, dtype=float64), moved(model, 0.5)


def moved(model, scale):
    draws = torch.Generator().manual_seed(1)
    return {
        name: value.detach() + scale * torch.randn(value.shape, dtype=float64, generator=draws)
        for name, value in model.named_parameters()
    }


def cost(name, x, params):
    """A running cost of states and of controls, in two of the layers."""
    if not params or name == "1":
        return None
    weight = next(iter(params.values()))
    return (x.flatten(1).square() * weight.flatten()[0]).sum(1) + weight.square().sum()


def slow_terms(model, inputs, target, params, running):
    """By loops: run the chain, then differentiate every output number in every input number."""
    count, layers = len(inputs), [*model.named_children()]
    states = [inputs]
    for _, layer in layers:
        states.append(layer(states[-1]).detach())
    own = {
        name: (
            {local: value.detach() for local, value in layer.named_parameters()},
            {local: params[f"{name}.{local}"] for local, _ in layer.named_parameters()},
        )
        for name, layer in layers
    }

    def total(chosen, x0=None, start=0):
        x, found = inputs if x0 is None else x0, 0.0
        for t, (name, layer) in enumerate(layers):
            if t < start:
                continue
            given = own[name][chosen]
            if running:
                value = cost(name, x, {f"{name}.{k}": v for k, v in given.items()})
                found = found + (0 if value is None else value.mean())
            x = functional_call(layer, given, (x,))
        return found + squared(x, target).mean()

    found = {}
    for t, (name, layer) in enumerate(layers):
        old, new = own[name]
        if not old:
            continue
        x = states[t]
        after = states[t + 1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(total(0, after, t + 1), after)
        move = functional_call(layer, new, (x,)) - functional_call(layer, old, (x,))
        jacobians = [
            jacobian(lambda x, c=c, layer=layer: functional_call(layer, c, (x,)), x)
            for c in (old, new)
        ]
        gain, running_error = float((-slope * move).sum()), 0.0
        costs = [
            partial(cost, name, params={f"{name}.{local}": value for local, value in c.items()})
            for c in (old, new)
        ]
        if running and costs[0](x) is not None:
            gain -= float((costs[1](x) - costs[0](x)).mean())
            for s in range(count):
                row = x[s : s + 1]
                a, b = (jacobian(lambda r, c=c: c(r)[0], row) for c in costs)
                running_error += float((b - a).square().sum()) / count
        state_error = sum(float(move[s].square().sum()) for s in range(count)) / count
        costate_error = float((jacobians[1] - jacobians[0]).square().sum()) / count
        found[name] = (gain, state_error, costate_error, running_error)
    return float(total(1) - total(0)), found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("running", [False, True])
def test_every_term(kind, running):
    """Gain, and the three errors of each layer; they add up; the change is that of J."""
    model, inputs, target, params = problem(kind)
    change, slow = slow_terms(model, inputs, target, params, running)
    found = error_estimate(
        model, squared, inputs, target, params, running_cost=cost if running else None
    )
    assert found.change == pytest.approx(change, **EXACT)
    assert found.by_layer.keys() == slow.keys()
    for name, terms in slow.items():
        layer = found.by_layer[name]
        ours = (layer.gain, layer.state_error, layer.costate_error, layer.running_cost_error)
        for a, b in zip(ours, terms, strict=True):
            assert a == pytest.approx(b, **EXACT)
    for number, name in enumerate(("gain", "state_error", "costate_error", "running_cost_error")):
        expected = sum(terms[number] for terms in slow.values())
        assert getattr(found, name) == pytest.approx(expected, **EXACT)
    assert found.remainder == pytest.approx(found.change + found.gain, **EXACT)
    assert (found.running_cost_error > 0) == running


def test_a_linear_layer_in_closed_form():
    """Section 2: the costate error of a linear layer is the squared length of its move."""
    model, inputs, target, params = problem("chain")
    found = error_estimate(model, squared, inputs, target, params)
    move = params["0.weight"] - model[0].weight.detach()
    assert found.by_layer["0"].costate_error == pytest.approx(float(move.square().sum()), **EXACT)


def test_the_estimate_holds_with_one_constant():
    """Smooth layers: remainder / errors stays bounded as the move shrinks, gain takes all."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    inputs, target = torch.randn(8, 4).double(), torch.randn(8, 2).double()
    found = [
        error_estimate(model, squared, inputs, target, moved(model, scale))
        for scale in (1.0, 0.1, 0.01, 0.001)
    ]
    assert abs(found[-1].remainder) < 1e-2 * abs(found[-1].change)
    assert found[-1].constant == pytest.approx(found[-2].constant, rel=0.1)
    for estimate in found:
        errors = estimate.state_error + estimate.costate_error
        assert estimate.remainder == pytest.approx(estimate.constant * errors)
    assert max(estimate.constant for estimate in found) < 10


def test_some_controls():
    """Those left out stay; a layer without new controls has no terms."""
    model, inputs, target, params = problem("chain")
    found = error_estimate(model, squared, inputs, target, {"3.bias": params["3.bias"]})
    assert list(found.by_layer) == ["3"]
    assert found.costate_error == 0
    still = error_estimate(model, squared, inputs, target, {})
    assert (still.change, still.gain, still.remainder, still.constant) == (0, 0, 0, 0)


def test_a_tied_weight():
    """Both uses count, and the change is that of the tied model."""
    model = seeded(Tied, 0).double()
    inputs, target = class_batches(4, dtype=float64)[0]
    params = {"inner.weight": model.inner.weight.detach() + 0.1}
    found = error_estimate(model, losses, inputs, target, params)
    assert list(found.by_layer) == ["inner", "again"]
    with torch.no_grad():
        new = losses(call_at(model, params, inputs), target).mean()
        old = losses(model(inputs), target).mean()
    assert found.change == pytest.approx(float(new - old), **EXACT)


@pytest.mark.parametrize("kind", ["chain", "batch norm"])
def test_random_directions(kind):
    """Unbiased: within four standard errors of the exact norm, from 50 groups of 8 directions."""
    model, inputs, target, params = problem(kind)
    exact = error_estimate(model, squared, inputs, target, params).costate_error
    draws = torch.Generator().manual_seed(0)
    found = torch.tensor([
        error_estimate(
            model, squared, inputs, target, params, probes=8, generator=draws
        ).costate_error
        for _ in range(50)
    ])  # fmt: skip
    assert found.std() > 0
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / 50**0.5


def test_the_model_comes_back():
    """Dropout draws the same at both controls: the change is that of the weights alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))
    model.double()
    inputs, target = torch.randn(5, 4).double(), torch.randn(5, 2).double()
    before, draws = snapshot(model), generators()
    still = dict(model.named_parameters())
    assert error_estimate(model, squared, inputs, target, still).change == 0
    error_estimate(model, squared, inputs, target, moved(model, 1.0))
    assert same(snapshot(model), before)
    assert same(generators(), draws)


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"0.weight": torch.zeros(2)}, {}, r"'0.weight' must have shape \(3, 4\); got \(2,\)"),
        ({"w": torch.zeros(2)}, {}, "params must name controls of the model; got 'w'"),
        ({}, {"probes": 0}, "probes must be at least 1 and come with a generator; got 0"),
        ({}, {"probes": 4}, "come with a generator; got 4, None"),
    ],
)
def test_bad_input(params, options, message):
    model, inputs, target, _ = problem("chain")
    with pytest.raises(ValueError, match=message):
        error_estimate(model, squared, inputs, target, params, **options)
