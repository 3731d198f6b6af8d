"""``lowland.control.basic_msa`` on discrete weights: O2 by hand, the rule on autograd's slopes."""

import json
from copy import deepcopy
from itertools import product

import pytest
import torch
from torch import float64, nn, tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lowland.control.discretize import discretize
from lowland.control.marks import nonzero_share, values_of
from lowland.control.monotone import monotone_msa
from lowland.control.msa import basic_msa, gradient_step
from lowland.results import Status
from small_networks import class_batches, losses, norm_mlp, seeded


def two_point(start):
    """O2: one weight, one example, loss (theta - 0.2)^2; M = -1.6 at 1 and 2.4 at -1."""
    model = nn.Linear(1, 1, bias=False, dtype=float64)
    nn.init.constant_(model.weight, start)
    batches = [(tensor([[1.0]], dtype=float64), tensor([0.2], dtype=float64))]
    return model, squares, batches


def squares(output, target):
    return (output[:, 0] - target).square()


def visited(start, **options):
    """Weights before every sweep and after the last, read from the loss; and the result."""
    model, loss_fn, batches = two_point(start)
    result = basic_msa(model, loss_fn, batches, values=(-1, 1), **options)
    at = {0.64: 1, 1.44: -1}
    path = [at[round(row["loss"], 9)] for row in result.curve]
    assert path[-1] == model.weight.item()
    return path, result


def test_without_a_penalty_two_points_cycle():
    """O2: +1, -1, +1, ...; the result says so."""
    path, result = visited(1, steps=6)
    assert path == [1, -1] * 3 + [1]
    assert result.status is Status.FINISHED
    assert result.summary["period"] == 2
    assert "repeat every 2 steps" in result.message
    assert [row["changed"] for row in result.curve[:-1]] == [1] * 6


@pytest.mark.parametrize("twice_rho", [1.6, 2.0, 2.39])
def test_a_penalty_between_stays_at_the_better_point(twice_rho):
    """O2: -1 moves to +1 and stays; there M = -1.6 is not below -2 rho."""
    path, result = visited(-1, rho=twice_rho / 2, steps=6)
    assert path == [-1, 1]
    assert result.status is Status.CONVERGED
    assert result.steps == 1
    assert visited(1, rho=twice_rho / 2, steps=6)[0] == [1]


@pytest.mark.parametrize("start", [-1, 1])
def test_a_large_penalty_freezes(start):
    """O2: 2 rho >= 2.4."""
    for rho in (1.2, 5.0):
        path, result = visited(start, rho=rho, steps=6)
        assert path == [start]
        assert result.status is Status.CONVERGED


@pytest.mark.parametrize("rho", [0.0, 0.25, 0.9, 0.999])
def test_the_relative_rule_always_cycles_here(rho):
    """O2: a single weight is its own largest."""
    path, result = visited(-1, rho=rho, threshold="relative", steps=4)
    assert path == [-1, 1, -1, 1, -1]
    assert result.summary["period"] == 2


def signs(*sizes, values=(-1.0, 1.0), seed=0):
    """A tanh network whose weights are drawn from a set."""
    draws = torch.Generator().manual_seed(seed)
    layers = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layer = nn.Linear(a, b, bias=False, dtype=float64)
        index = torch.randint(len(values), (b, a), generator=draws)
        layer.weight.data = tensor(values, dtype=float64)[index]
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("values", "lam", "rho", "threshold"),
    [
        ((-1.0, 1.0), 0.0, 0.01, "absolute"),
        ((-1.0, 1.0), 0.0, 0.5, "relative"),
        ((-1.0, 0.0, 1.0), 0.01, 0.01, "absolute"),
        ((-1.0, 0.0, 1.0), 0.001, 0.25, "relative"),
        ((-2.0, -0.5, 0.0, 1.0), 0.01, 0.02, "absolute"),
    ],
)
def test_one_sweep_is_the_rule_on_autograds_gradients(values, lam, rho, threshold):
    """All layers from the old weights; every weight by enumeration in plain Python."""
    model = signs(4, 5, 3, values=values)
    [(inputs, target)] = class_batches(4, sizes=(12,), dtype=float64)
    weights = [*model.parameters()]
    gradients = torch.autograd.grad(losses(model(inputs), target).mean(), weights)
    wanted = []
    for weight, gradient in zip(weights, gradients, strict=True):
        penalty = rho
        if threshold == "relative":
            pairs = zip(weight.flatten().tolist(), (-gradient).flatten().tolist(), strict=True)
            m = max((abs(m) for w, m in pairs if w * m <= 0), default=0.0)
            penalty = rho * m / min(b - a for a, b in zip(values, values[1:], strict=False))

        def best(w, m, penalty=penalty):
            return max(values, key=lambda v: m * v - lam * v * v - penalty * (v - w) ** 2)

        new = [
            best(w, -g)
            for w, g in zip(weight.flatten().tolist(), gradient.flatten().tolist(), strict=True)
        ]
        wanted.append(tensor(new, dtype=float64).view_as(weight))
    options = {"lam": lam, "rho": rho, "threshold": threshold}
    result = basic_msa(model, losses, [(inputs, target)], values=values, steps=1, **options)
    assert result.curve[0]["changed"] > 0
    for found, new in zip(model.parameters(), wanted, strict=True):
        assert torch.equal(found, new)


@pytest.mark.parametrize("mode", ["values", "argmax"])
def test_batches_in_pieces_are_one_batch(mode):
    """Uneven pieces, weighted by their numbers of examples."""
    pieces = class_batches(4, sizes=(7, 1, 12, 4), dtype=float64)
    whole = [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]
    options = {
        "values": (-1, 1),
        "rho": 0.01,
    }  # a column of equal weights has M = 0 but for rounding
    options = {"argmax": gradient_step(0.5)} if mode == "argmax" else options
    runs = []
    for batches in (pieces, whole):
        model = signs(4, 6, 3)
        result = basic_msa(model, losses, batches, steps=5, **options)
        runs.append((model.state_dict(), [row["loss"] for row in result.curve]))
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-13)
    for name, value in runs[0][0].items():
        assert_close(value, runs[1][0][name], rtol=1e-12, atol=1e-13)


def test_only_so_many_layers_a_step():
    """One tensor changes, not always the same; the seed decides which."""
    [batch] = class_batches(4, sizes=(12,), dtype=float64)
    paths = []
    for seed in (0, 0, 1):
        model, path = signs(4, 5, 5, 3), []
        for step in range(1, 7):
            before = [p.clone() for p in model.parameters()]
            trial = deepcopy(model)
            options = {"values": (-1, 1), "layers_per_step": 1, "seed": seed}
            basic_msa(trial, losses, [batch], steps=step, **options)
            path.append(
                [not torch.equal(a, b) for a, b in zip(before, trial.parameters(), strict=True)]
            )
        assert sum(path[0]) == 1
        assert sum(path[-1]) > 1
        paths.append(path)
    assert paths[0] == paths[1]
    assert paths[0] != paths[2]


def test_running_statistics_are_those_of_the_data():
    """Set at the end, so that eval mode is what was trained; weights need no gradient (C2)."""
    model = seeded(norm_mlp, 1).double().requires_grad_(requires_grad=False)
    for layer in (model[0], model[3], model[6]):
        layer.weight.sign_()
    model.eval()
    [(inputs, target)] = class_batches(4, sizes=(20,), dtype=float64)
    result = basic_msa(model, losses, [(inputs, target)], values=(-1, 1), rho=0.5, steps=3,
                       threshold="relative")  # fmt: skip
    assert not any(module.training for module in model.modules())
    assert model[1].momentum == 0.1
    hidden = model[0](inputs)
    assert_close(model[1].running_mean, hidden.mean(0))
    assert_close(model[1].running_var, hidden.var(0))
    assert result.nonzero == 1.0
    assert {0.0} == {
        float((p.abs() - 1).abs().max()) for n, p in model.named_parameters() if p.ndim > 1
    }


def test_noise_is_the_same_at_every_sweep():
    """Dropout, and a loader that shuffles: the second run repeats the first."""
    parts = [torch.cat(p) for p in zip(*class_batches(4, dtype=float64), strict=True)]
    runs = []
    for noise in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)
            model = nn.Sequential(*signs(4, 6, 3))
            model.insert(2, nn.Dropout(0.5))
            loader = DataLoader(TensorDataset(*parts), 8, shuffle=True)
            before = torch.get_rng_state()
            runs.append(basic_msa(model, losses, loader, values=(-1, 1), steps=4, rho=0.01))
            assert torch.equal(before, torch.get_rng_state())
    assert runs[0].curve == runs[1].curve


@pytest.mark.parametrize("steps", [2, 50])
def test_a_log_is_told_the_curve(steps):
    """Row by row, to the last one; where the weights settle, that is before the steps are done."""
    model, seen = discretize(seeded(norm_mlp, 0), skip="6"), []
    batches = class_batches(4, sizes=(8, 8))
    result = basic_msa(
        model, losses, batches, steps=steps, rho=0.1, log=lambda values, step: seen.append(values)
    )
    assert seen == result.curve
    assert len(seen) == result.steps + 1


def test_results_reach_the_folder(tmp_path):
    model, loss_fn, batches = two_point(-1)
    options = {"values": (-1, 1), "rho": 1.0, "steps": 5}
    result = basic_msa(model, loss_fn, batches, out=tmp_path / "run", **options)
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved == json.loads(json.dumps(result.record()))
    assert saved["status"] == "converged"
    with pytest.raises(ValueError, match="must belong to the run"):
        basic_msa(model, loss_fn, batches, out=tmp_path / "run", **options | {"rho": 2.0})


BAD = [
    ({}, r"must have discrete weights, or values must be given; Linear has none.*discretize"),
    ({"values": (-1, 1), "argmax": gradient_step(1.0)}, "only one of values and argmax"),
    ({"values": ()}, "values must be different finite numbers"),
    ({"values": (-1, 0.5)}, r"every weight must be one of .*discretize"),
    ({"values": (-1, 1), "rho": -1.0}, "rho, the penalty on a move, must be finite and at least 0"),
    ({"values": (-1, 1), "lam": float("nan")}, "lam, the price of a weight, must be finite"),
    ({"values": (-1, 1), "threshold": "soft"}, 'threshold must be "relative" or "absolute"'),
    ({"values": (-1, 1), "layers_per_step": 0}, "layers_per_step must be a whole number"),
    ({"values": (-1, 1), "steps": 0}, "steps must be a whole number, at least 1; got 0"),
    ({"values": (-1, 1), "steps": 1.5}, "steps must be a whole number, at least 1; got 1.5"),
    ({"argmax": gradient_step(0.1), "rho": 0.5}, "must penalize moves itself; got 0.0, 0.5"),
    ({"argmax": lambda trajectory: {"other": torch.ones(1)}}, "must fit the parameters"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input(options, words):
    model, loss_fn, batches = two_point(1)
    with pytest.raises(ValueError, match=words):
        basic_msa(model, loss_fn, batches, **{"steps": 1} | options)
    assert model.weight.item() == 1


def test_bad_data_and_models():
    model, loss_fn, batches = two_point(1)
    options = {"values": (-1, 1), "steps": 1}
    with pytest.raises(ValueError, match="at least one batch; got none"):
        basic_msa(model, loss_fn, [], **options)
    with pytest.raises(ValueError, match="iterable more than once"):
        basic_msa(model, loss_fn, iter(batches), **options)
    with pytest.raises(ValueError, match=r"one loss per example, shape \(1,\); got a scalar"):
        basic_msa(model, lambda o, t: loss_fn(o, t).mean(), batches, **options)
    with pytest.raises(ValueError, match="must have a linear, convolutional or embedding layer"):
        basic_msa(nn.BatchNorm1d(1), loss_fn, batches, **options)
    with pytest.raises(ValueError, match="eta, the step size, must be above 0"):
        gradient_step(0.0)


def test_a_product_that_is_not_finite_is_named():
    """sign(NaN) never reaches a weight."""
    model = signs(2, 2, 1)
    batches = [(torch.ones(3, 2, dtype=float64), torch.zeros(3, dtype=float64))]

    def root(output, target):
        return (output[:, 0] * 0).abs().sqrt()  # finite, with the slope 0 * inf

    before = deepcopy(model.state_dict())
    result = basic_msa(model, root, batches, values=(-1, 1), steps=3)
    assert result.status is Status.NOT_FINITE
    assert "costate of the output of layer '2'" in result.message
    assert "weights are those" in result.message or "weights are as given" in result.message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_ties_and_exhaustive_sets():
    """For two weights every start is followed to its end: a fixed point or a cycle."""
    inputs = tensor([[1.0, 0.5], [-0.3, 1.0]], dtype=float64)
    batches = [(inputs, tensor([0.1, -0.4], dtype=float64))]
    for start in product((-1.0, 0.0, 1.0), repeat=2):
        model = nn.Linear(2, 1, bias=False, dtype=float64)
        model.weight.data = tensor([start], dtype=float64)
        result = basic_msa(model, squares, batches, values=(-1, 0, 1), lam=0.01, steps=12)
        assert (result.status is Status.CONVERGED) != (result.summary["period"] is not None)


@pytest.mark.parametrize("row_scale", [False, True])
def test_models_that_were_discretized_bring_their_sets(row_scale):
    """No values needed; M reaches a weight behind its scale, which stays as it is."""
    model = seeded(norm_mlp, 1).double()
    discretize(model, (-1, 0, 1), row_scale=row_scale, skip=["6"])
    kept = {n: p.detach().clone() for n, p in model.named_parameters() if n not in values_of(model)}
    [(inputs, target)] = class_batches(4, sizes=(20,), dtype=float64)
    peer = deepcopy(model).train()
    losses(peer(inputs), target).mean().backward()
    result = basic_msa(model, losses, [(inputs, target)], lam=1e-3, steps=1)
    assert len(values_of(model)) == 2
    for name in values_of(model):
        m = -peer.get_parameter(name).grad
        assert torch.equal(model.get_parameter(name), torch.where(m.abs() > 1e-3, m.sign(), 0.0))
    assert all(torch.equal(kept[name], model.get_parameter(name)) for name in kept)
    assert result.nonzero == pytest.approx(nonzero_share(model))
    heights = [row["loss"] for row in monotone_msa(model, losses, [(inputs, target)]).curve]
    assert heights == sorted(heights, reverse=True)
    with pytest.raises(ValueError, match="must be those that the model was discretized to"):
        basic_msa(model, losses, [(inputs, target)], values=(-1, 1), steps=1)
