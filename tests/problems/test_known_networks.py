"""``lowland.problems``: the networks have the losses, ends and symmetries that they promise."""

import pytest
import torch
from torch import float64, linspace, nn
from torch.testing import assert_close

from lowland.errors import UnsupportedModelError
from lowland.params import call_at, trainable
from lowland.problems import (
    XorNetwork,
    choreography,
    find_xor_minimum,
    linear_loss,
    logistic_loss,
    rescaled_pair,
    sign_flipped_pair,
    swap_units,
    trivial_directions,
    xor_data,
    xor_ends,
    xor_scores,
    xor_targets,
)

PAIRS = [sign_flipped_pair(1), sign_flipped_pair(2), sign_flipped_pair(4), rescaled_pair()]


OUTER = nn.Linear(2, 2)


def mean_loss(pair, state):
    inputs, target = pair.batches[0]
    return pair.loss_fn(call_at(pair.model, state, inputs), target).mean().item()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_pairs_are_minima_with_the_line_between_them(pair):
    """Loss 0 at both ends; the middle of the line is its maximum."""
    assert mean_loss(pair, pair.start) == mean_loss(pair, pair.end) == 0
    assert linear_loss(pair.vectors()).tolist() == [0, 0]
    layout = trainable(pair.model)
    for vector, state in zip(pair.vectors(), (pair.start, pair.end), strict=True):
        assert torch.equal(layout.flatten(state), vector)
        pair.model.load_state_dict(state)
    line = torch.lerp(*pair.vectors(), linspace(0, 1, 1001, dtype=float64)[:, None])
    assert linear_loss(line).max().item() == pytest.approx(pair.line_max, abs=1e-15)


@pytest.mark.parametrize("pair", PAIRS[1:], ids=lambda pair: pair.name)
def test_there_is_a_path_at_the_minimax_value(pair):
    """The half circle, and the hyperbola: loss 0 all the way, within rounding."""
    t = linspace(0, 1, 201, dtype=float64)
    if len(pair.start["inner"]) == 1:
        inner, outer = (2 * 4 ** (t - 1))[:, None], (2 * 4 ** (-t))[:, None]
    else:
        inner = torch.zeros(201, len(pair.start["inner"]), dtype=float64)
        inner[:, 0], inner[:, 1] = (torch.pi * t).cos(), (torch.pi * t).sin()
        outer = inner
    path = torch.cat([inner, outer], dim=1)
    assert_close(path[[0, -1]], pair.vectors(), rtol=0, atol=1e-15)
    assert linear_loss(path).max() < 1e-30 + pair.minimax


def test_sign_flip_of_nothing_is_refused():
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        sign_flipped_pair(0)


def state_of(rng, widths=(4, 6, 3), bias=True):
    model = nn.Sequential(
        nn.Linear(widths[0], widths[1], bias=bias), nn.ReLU(), nn.Linear(widths[1], widths[2])
    ).double()
    state = model.state_dict()
    for value in state.values():
        value.copy_(torch.randn(value.shape, dtype=float64, generator=rng))
    state["2.weight"][:, 5] = 0
    return model, {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU()])
@pytest.mark.parametrize("bias", [True, False])
def test_choreography_keeps_what_the_network_says(rng, activation, bias):
    """Eight stops, seven segments that each move something, one function; the last is the swap."""
    model, state = state_of(rng, bias=bias)
    model[1] = activation
    inputs = torch.randn(64, 4, dtype=float64, generator=rng)
    path = choreography(state, 0, 3, 5)
    said = call_at(model, state, inputs)
    assert len(path) == 8
    for here, there in zip(path[:-1], path[1:], strict=True):
        assert any(not torch.equal(here[name], there[name]) for name in state)
        for alpha in (0.0, 0.3, 0.5, 1.0):
            between = {name: torch.lerp(here[name], there[name], alpha) for name in state}
            assert_close(call_at(model, between, inputs), said, rtol=0, atol=1e-13)
    swapped = swap_units(state, 0, 3)
    assert all(torch.equal(path[-1][name], swapped[name]) for name in state)
    halfway = {name: torch.lerp(state[name], swapped[name], 0.5) for name in state}
    assert (call_at(model, halfway, inputs) - said).abs().max() > 0.01


def test_choreography_leaves_the_state_alone(rng):
    _, state = state_of(rng)
    before = {name: value.clone() for name, value in state.items()}
    for stop in choreography(state, 0, 3, 5):
        stop["0.weight"].zero_()
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_swapping_twice_changes_nothing(rng):
    _, state = state_of(rng)
    again = swap_units(swap_units(state, 1, 4), 1, 4)
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("units", "names", "message"),
    [
        ((0, 3, 4), {}, "spare unit must have zero outgoing weights; those of unit 4"),
        ((0, 0, 5), {}, r"different ones of 0 to 5; got \(0, 0, 5\)"),
        ((0, 6, 5), {}, r"different ones of 0 to 5; got \(0, 6, 5\)"),
        ((0, 3, 5), {"inner": "first"}, "must hold 'first.weight'; it holds 0.weight, 0.bias"),
        ((0, 3, 5), {"outer": "0"}, r"0.weight must read the 6 units .* got shape \(6, 4\)"),
    ],
)
def test_choreography_refuses(rng, units, names, message):
    _, state = state_of(rng)
    with pytest.raises(ValueError, match=message):
        choreography(state, *units, **names)


def test_xor_minimum():
    """Zero slope with the penalty, positive curvature, loss .0265 without it, no mistake."""
    model, (inputs, target) = XorNetwork(2), xor_data()
    state = find_xor_minimum()
    model.load_state_dict(state)
    loss = logistic_loss(model(inputs), target).mean()
    assert loss.item() == pytest.approx(0.0265, abs=5.1e-5)
    assert torch.equal(model(inputs).argmax(1), target)
    layout = trainable(model)

    def penalized(vector):
        output = call_at(model, layout.views(vector), inputs)
        return logistic_loss(output, target).mean() + 1e-3 * vector.square().sum()

    vector = layout.flatten(state)
    assert torch.autograd.functional.jacobian(penalized, vector).abs().max() < 1e-15
    curvature = torch.linalg.eigvalsh(torch.autograd.functional.hessian(penalized, vector))
    assert curvature.min() > 1e-4


def test_xor_scores_are_a_logistic_loss():
    """Cross-entropy of (0, z) is log(1 + exp(-y z)), with y = 1 for the second class."""
    model, (inputs, target) = XorNetwork(3), xor_data()
    model.load_state_dict(xor_ends(3)[0])
    scores = model(inputs)
    assert torch.equal(scores[:, 0], torch.zeros(4, dtype=float64))
    by_hand = torch.nn.functional.softplus(-(2 * target - 1) * scores[:, 1])
    assert_close(logistic_loss(scores, target), by_hand)


@pytest.mark.parametrize("hidden", [2, 5])
def test_many_xor_networks_at_once(rng, hidden):
    """Row by row the logit of the module at that vector; the signs are those of the classes."""
    model, (inputs, target) = XorNetwork(hidden), xor_data()
    layout = trainable(model)
    vectors = torch.randn(3, layout.size, dtype=float64, generator=rng)
    alone = [call_at(model, layout.views(vector), inputs)[:, 1] for vector in vectors]
    assert_close(xor_scores(vectors, hidden), torch.stack(alone))
    assert torch.equal(xor_targets() > 0, target.bool())


@pytest.mark.parametrize("hidden", [2, 3, 6])
def test_xor_ends_say_the_same(hidden):
    model, inputs = XorNetwork(hidden), xor_data()[0]
    start, end = xor_ends(hidden)
    found = [call_at(model, state, inputs) for state in (start, end)]
    assert_close(found[0], found[1], rtol=0, atol=1e-14)
    assert not torch.equal(start["inner.weight"], end["inner.weight"])
    assert all(not state["outer.weight"][:, 2:].any() for state in (start, end))
    assert all(not state["inner.weight"][2:].any() for state in (start, end))


def test_xor_needs_two_units():
    with pytest.raises(ValueError, match="hidden must be at least 2; got 1"):
        xor_ends(1)


def test_xor_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    xor_ends(4)
    assert torch.equal(torch.get_rng_state(), before)


def test_trivial_directions_of_a_plain_network(rng):
    """Six units that are all active somewhere: six rescalings, six shifts, that of the biases."""
    model, state = state_of(rng, widths=(4, 6, 3))
    model.load_state_dict(state)
    inputs = torch.randn(200, 4, dtype=float64, generator=rng)
    directions = trivial_directions(model, inputs)
    assert directions.shape == (6 + 6 + 1, trainable(model).size)
    assert trivial_directions(model.float(), inputs).dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), "got Tanh '1'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "alternate Linear and ReLU"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "alternate .* got Linear, ReLU"),
        (nn.Bilinear(2, 2, 2), "must be an nn.Sequential"),
        (
            nn.Sequential(nn.Linear(2, 2).requires_grad_(requires_grad=False), nn.ReLU(), OUTER),
            "one is frozen or tied",
        ),
    ],
)
def test_trivial_directions_refuses(model, message):
    with pytest.raises(UnsupportedModelError, match=message):
        trivial_directions(model, torch.zeros(3, 2))
