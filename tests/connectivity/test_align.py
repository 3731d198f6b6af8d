"""``align``: undoes any permutation exactly, and leaves the function alone."""

from itertools import permutations

import pytest
import torch
from alignable import MODELS, grouped, network
from torch import nn
from torch.testing import assert_close

from lowland.connectivity import align, linear_path
from lowland.connectivity.forward import find_symmetry
from lowland.connectivity.permutations import shuffled
from lowland.errors import CheckpointError
from lowland.params import call
from lowland.problems import choreography, swap_units
from lowland.results import Status
from lowland.training import read_state, recalibrate, save_state
from small_networks import class_batches, generators, losses, mlp, same, snapshot, train, two


def assert_same_function(found, expected):
    """Up to rounding in float64, in units of the largest output."""
    scale = max(1.0, float(expected.abs().max()))
    assert_close(found, expected, rtol=0, atol=1e-12 * scale)


def outputs(model, state, inputs):
    """What a network says in float64 and evaluation mode."""
    model.load_state_dict(state)
    with torch.no_grad():
        wide = inputs.double() if inputs.is_floating_point() else inputs
        return call(model.double().eval(), wide)


def permuted_copy(model, batches, seed=3):
    """The model's state with all groups permuted at random."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    forward, symmetry, _ = find_symmetry(model, batches[0][0], state, 0)
    draws = torch.Generator().manual_seed(seed)
    moved = symmetry.permute({n: state[n] for n in forward.names}, shuffled(symmetry, draws))
    names, every = {}, [*model.named_parameters(remove_duplicate=False)]
    first = {name: names.setdefault(id(p), name) for name, p in every}
    return state, {name: moved[first.get(name, name)] for name in state}


@pytest.mark.parametrize("method", ["weights", "activations"])
@pytest.mark.parametrize("name", MODELS)
def test_a_permuted_copy_comes_back(name, method):
    """Bit for bit; the permuted copy differs, and is the same function."""
    model, batches = network(name)
    state, copy = permuted_copy(model, batches)
    assert any(not torch.equal(state[n], copy[n]) for n in state)
    found = align(model, batches, state, copy, method=method)
    assert [*found.state] == [*state]
    for key, value in state.items():
        assert torch.equal(found.state[key], value), key
        assert found.state[key].dtype == value.dtype
    assert len(found.groups) == MODELS[name][2]
    assert found.status is Status.CONVERGED
    expected = outputs(model, state, batches[0][0])
    assert_same_function(outputs(model, copy, batches[0][0]), expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_function_of_another_network_stays(name):
    """Nearer in parameters, the same outputs; the model comes back as it was."""
    model, batches = network(name)
    other, _ = network(name, seed=1)
    if name in ("frozen trunk", "adapters", "extra buffers"):
        for key, value in other.state_dict().items():  # what does not move is equal, as in use
            trained = {n for n, p in other.named_parameters() if p.requires_grad}
            if key not in trained:
                value.copy_(model.state_dict()[key])
    before = snapshot(model), snapshot(other), generators()
    found = align(model, batches, model, other)
    assert same(before, (snapshot(model), snapshot(other), generators()))
    assert found.objective[1] >= found.objective[0]
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(found.state[key], parameter)
    expected = outputs(other, other.state_dict(), batches[0][0])
    assert_same_function(outputs(model, found.state, batches[0][0]), expected)


def test_a_perceptron_permuted_by_hand():
    """The permutations reported are the inverse of those applied."""
    model, batches = network("mlp with batch norm")
    state, draws = read_state(model), torch.Generator().manual_seed(1)
    one, two = (torch.randperm(32, generator=draws) for _ in range(2))
    copy = dict(state)
    for layer, units in (("linear1", one), ("norm1", one), ("linear2", two), ("norm2", two)):
        for key in [k for k in state if k.startswith(f"{layer}.") and state[k].ndim]:
            copy[key] = copy[key][units]
    copy["linear2.weight"] = copy["linear2.weight"][:, one]
    copy["linear3.weight"] = copy["linear3.weight"][:, two]
    found = align(model, batches, state, copy)
    assert all(torch.equal(found.state[key], value) for key, value in state.items())
    assert torch.equal(found.permutations["linear1.weight[0]"], one.argsort())
    assert torch.equal(found.permutations["linear2.weight[0]"], two.argsort())
    assert found.objective[1] == pytest.approx(1, abs=1e-12)


class WithUnusedTable(nn.Module):
    """Makes a mask that nothing reads, before its layers."""

    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, x):
        torch.full((4, 4), 1.0).triu(1)
        return self.layers(x)


def test_an_unused_table_hides_no_axis():
    """What the outputs do not depend on changes nothing of what is found."""
    a, b = two(mlp)
    plain = align(a, class_batches(4), a, b)
    wrapped = [WithUnusedTable() for _ in range(2)]
    for model, layers in zip(wrapped, (a, b), strict=True):
        model.layers = layers
    found = align(wrapped[0], class_batches(4), *wrapped)
    assert len(found.permutations) == len(plain.permutations) > 0
    for name, table in plain.permutations.items():
        assert torch.equal(found.permutations[f"layers.{name}"], table)


def test_it_shows_as_one_line():
    a, b = two(mlp)
    assert len(repr(align(a, class_batches(4), a, b))) < 120


def test_attention_heads_permuted_by_hand():
    """Heads as wholes; inside of a head queries and keys together, values for themselves."""
    model, batches = network("gpt")
    state, draws = read_state(model), torch.Generator().manual_seed(1)
    copy = dict(state)
    heads = torch.randperm(4, generator=draws)
    units = {
        kind: torch.cat([4 * h + torch.randperm(4, generator=draws) for h in heads.tolist()])
        for kind in ("queries", "values")
    }
    rows = torch.cat([units["queries"], 16 + units["queries"], 32 + units["values"]])
    for kind in ("weight", "bias"):
        copy[f"blocks.0.qkv.{kind}"] = state[f"blocks.0.qkv.{kind}"][rows]
    copy["blocks.0.proj.weight"] = state["blocks.0.proj.weight"][:, units["values"]]
    found = align(model, batches, state, copy)
    assert all(torch.equal(found.state[key], value) for key, value in state.items())


def test_swapped_units_of_the_choreography():
    """Two neurons that changed places at constant loss: un-swapping leaves no barrier at all."""
    (model, _), batches = two(mlp), class_batches(4)
    small = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for inner, outer in zip(small.parameters(), model.parameters(), strict=True):
            inner.copy_(outer[tuple(slice(n) for n in inner.shape)])
    train(small, batches, losses)
    with torch.no_grad():
        for spare, trained in zip(model.parameters(), small.parameters(), strict=True):
            spare[tuple(slice(n) for n in trained.shape)] = trained
        model[2].weight[:, 5] = 0
    path = choreography(model.state_dict(), 0, 1, 5)
    state, swapped = path[0], swap_units(path[0], 0, 1)
    assert all(torch.equal(path[-1][key], swapped[key]) for key in swapped)
    assert linear_path(model, losses, batches, state, swapped).barrier_max > 0
    found = align(model, batches, state, swapped)
    assert found.permutations["0.weight[0]"].tolist() == [1, 0, 2, 3, 4, 5]
    assert linear_path(model, losses, batches, state, found.state).barrier_max == 0


@pytest.mark.parametrize("method", ["weights", "activations"])
def test_trained_networks_come_nearer(method):
    """The line between two trained networks climbs less high after their units are matched."""
    batches = class_batches(4, sizes=(32,) * 8)
    ends = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3))
        train(model, batches, losses)
        ends.append(read_state(model))
    before = linear_path(model, losses, batches, *ends).barrier_max
    found = align(model, batches, *ends, method=method)
    after = linear_path(model, losses, batches, ends[0], found.state).barrier_max
    assert after < before / 2
    assert found.objective[1] > found.objective[0]


def test_a_tiny_layer_against_all_permutations():
    """With one group the assignment problem has no better answer among all 720."""
    model, end = two(mlp)
    start, other = read_state(model), read_state(end)
    distances = []
    for order in permutations(range(6)):
        moved = [other["0.weight"][[*order]], other["0.bias"][[*order]]]
        moved += [other["2.weight"][:, [*order]], other["2.bias"]]
        pairs = zip(moved, start.values(), strict=True)
        distances.append((sum(float((a - b).square().sum()) for a, b in pairs), order))
    found = align(model, class_batches(4), start, other)
    assert tuple(found.permutations["0.weight[0]"].tolist()) == min(distances)[1]


def test_repair_recomputes_statistics():
    model, batches = network("resnet")
    end, _ = network("resnet", seed=1)
    plain, found = (align(model, batches, model, end, repair=r) for r in (False, True))
    model.load_state_dict(plain.state)
    recalibrate(model, batches)
    for key, value in model.state_dict().items():
        assert torch.equal(found.state[key], value), key


def test_files_and_record(tmp_path):
    model, end = two(mlp)
    save_state(tmp_path / "end.safetensors", end)
    found = align(model, class_batches(4), model, tmp_path / "end.safetensors", seed=1)
    again = align(model, class_batches(4), model, end, seed=1)
    assert found.record() | {"seconds": 0} == again.record() | {"seconds": 0}
    saved = read_state(found.save(tmp_path) / "aligned.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in found.state.items())
    assert found.record()["groups"] == {"0.weight[0]": ["0.weight[0]", "0.bias[0]", "2.weight[1]"]}


def test_bad_input():
    model, end = two(mlp)
    batches, broken = class_batches(4), read_state(end)
    broken["0.bias"][0] = torch.nan
    with pytest.raises(ValueError, match=r"end must hold finite parameters.*0\.bias"):
        align(model, batches, model, broken)
    with pytest.raises(CheckpointError, match="end must fit the model; missing"):
        align(model, batches, model, {"0.weight": torch.zeros(6, 4)})
    with pytest.raises(CheckpointError, match="start must fit the model"):
        align(model, batches, grouped(), end)
    with pytest.raises(ValueError, match="method must be"):
        align(model, batches, model, end, method="magic")
    with pytest.raises(ValueError, match="passes must be a whole number, at least 1; got 0"):
        align(model, batches, model, end, passes=0)
    with pytest.raises(ValueError, match="at least one batch"):
        align(model, [], model, end)
    with pytest.raises(ValueError, match="iterable more than once"):
        align(model, iter(batches), model, end)


@pytest.mark.untyped
def test_bad_types():
    with pytest.raises(TypeError, match="model must be a torch"):
        align({}, class_batches(4), mlp(), mlp())
