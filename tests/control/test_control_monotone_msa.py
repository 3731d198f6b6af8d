"""``lowland.control.monotone_msa``: downhill at every step, and its end held to enumeration."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import float64, nn, tensor

from lowland.control.monotone import Part, monotone_msa, most_worthy, worth
from lowland.params import call_at
from lowland.results import Status
from small_networks import class_batches, conv_net, losses, norm_mlp, seeded

BINARY, TERNARY, OTHER = (-1.0, 1.0), (-1.0, 0.0, 1.0), (-2.0, -0.5, 0.0, 1.0)


def random_net(sizes, values, seed):
    draws = torch.Generator().manual_seed(seed)
    layers = []
    for a, b in pairwise(sizes):
        layer = nn.Linear(a, b, bias=False, dtype=float64)
        index = torch.randint(len(values), (b, a), generator=draws)
        layer.weight.data = tensor(values, dtype=float64)[index]
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def objective(model, batches, lam, named=None):
    """The loss by hand: all data at once, and the price of the weights."""
    inputs, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
    named = dict(model.named_parameters()) | (named or {})
    price = lam * sum(weight.square().sum() for weight in named.values())
    return (losses(call_at(model, named, inputs), target).mean() + price).item()


def slopes(model, batches):
    """M by autograd."""
    inputs, target = (torch.cat(parts) for parts in zip(*batches, strict=True))
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(losses(model(inputs), target).mean(), list(named.values()))
    return {name: -grad for name, grad in zip(named, grads, strict=True)}


def argmaxes(weight, m, values, lam):
    """A layer's own argmax at every penalty that makes a difference, by plain enumeration."""
    entries = list(zip(weight.flatten().tolist(), m.flatten().tolist(), strict=True))
    limits = {0.0}
    for w, p in entries:
        for v in values:
            if v != w:
                limits.add(max(0.0, (p * (v - w) - lam * (v * v - w * w)) / (v - w) ** 2))
    for rho in sorted(limits):
        rho *= 1 + 1e-9  # just above: the entry at the limit stays
        new = [
            max(values, key=lambda v, w=w, p=p: p * v - lam * v * v - rho * (v - w) ** 2)
            for w, p in entries
        ]
        yield tensor(new, dtype=float64).view_as(weight)


NETS = st.tuples(
    st.sampled_from([(4, 3), (4, 3, 3), (4, 4, 4, 3), (4, 6, 3)]),
    st.sampled_from([BINARY, TERNARY, OTHER]),
    st.sampled_from([0.0, 0.003, 0.05]),
    st.integers(0, 10**6),
)


@settings(max_examples=25)
@given(NETS)
def test_downhill_to_where_no_layer_has_a_better_argmax(net):
    """The loss falls at every step; at the end no layer's own argmax, nor its best weight helps."""
    sizes, values, lam, seed = net
    model = random_net(sizes, values, seed)
    batches = class_batches(4, sizes=(9,), dtype=float64, seed=seed)
    start = objective(model, batches, lam)
    result = monotone_msa(model, losses, batches, values=values, lam=lam)
    assert result.status is Status.CONVERGED
    heights = [row["loss"] for row in result.curve]
    assert heights[0] == pytest.approx(start, abs=1e-14)
    assert heights[-1] == pytest.approx(objective(model, batches, lam), abs=1e-14)
    assert all(after < before for before, after in pairwise(heights))
    for row, after in zip(result.curve, heights[1:], strict=False):
        least = 0.0 if "layer" in row else 1e-4 * row["gain"]
        assert row["loss"] - after >= least
        assert row["gain"] > 0
    for name, m in slopes(model, batches).items():
        weight = model.get_parameter(name).detach()
        assert set(weight.flatten().tolist()) <= set(values)
        every = [*argmaxes(weight, m, values, lam)]
        assert torch.equal(every[-1], weight)
        moving = [new for new in every if not torch.equal(new, weight)]
        for new in moving[:1] + moving[-1:]:  # the whole argmax, and the weight worth most
            assert objective(model, batches, lam, {name: new}) >= heights[-1] - 1e-13


@pytest.mark.parametrize("values", [BINARY, TERNARY, OTHER])
@pytest.mark.parametrize("lam", [0.0, 0.2])
def test_moves_are_the_argmax_of_some_penalty(values, lam, rng):
    """For every number of moving weights: exactly so many, at the penalty that it names."""
    options = tensor(values, dtype=float64)
    for _ in range(20):
        weight = options[torch.randint(len(values), (2, 3), generator=rng)]
        m = torch.randn(2, 3, dtype=float64, generator=rng)
        found = worth(weight, m, values, lam)
        for new in argmaxes(weight, m, values, lam):
            size = int((new != weight).sum())
            if size:
                move = most_worthy([Part("w", weight, m, values, lam)], found.flatten(), size)
                assert torch.equal(move.weights["w"] != weight, new != weight)
                score = [
                    max(
                        values,
                        key=lambda v, w=w, p=p, r=move.rho: p * v - lam * v * v - r * (v - w) ** 2,
                    )
                    for w, p in zip(weight.flatten().tolist(), m.flatten().tolist(), strict=True)
                ]
                assert move.weights["w"].flatten().tolist() == score
                gain = (m * (move.weights["w"] - weight)).sum()
                gain -= lam * (move.weights["w"].square() - weight.square()).sum()
                assert move.gain == pytest.approx(gain.item(), abs=1e-14)


def test_equal_worths_move_in_order():
    """A tie at the limit never moves more weights than asked for."""
    weight = torch.ones(5, dtype=float64)
    m = tensor([-1.0, -1.0, -2.0, -1.0, 3.0], dtype=float64)
    parts, found = [Part("w", weight, m, BINARY)], worth(weight, m, BINARY)
    moved = [most_worthy(parts, found, k).weights["w"].tolist() for k in (1, 2, 3, 4)]
    assert moved[0] == [1, 1, -1, 1, 1]
    assert moved[1] == [-1, 1, -1, 1, 1]
    assert moved[2] == [-1, -1, -1, 1, 1]
    assert moved[3] == [-1, -1, -1, -1, 1]


def gaps_to_the_optimum(sizes, problems):
    """Height above the best of all 2^n weights, as a share of that of the average weights."""
    found = []
    for seed in range(problems):
        model = random_net(sizes, BINARY, seed)
        batches = class_batches(sizes[0], sizes=(10,), dtype=float64, seed=seed)
        weights = [*model.parameters()]
        counts = [p.numel() for p in weights]
        corners = tensor([*product(BINARY, repeat=sum(counts))], dtype=float64)
        hidden, target = batches[0]
        for depth, (part, p) in enumerate(zip(corners.split(counts, dim=1), weights, strict=True)):
            hidden = (hidden.tanh() if depth else hidden) @ part.view(-1, *p.shape).mT
        right = hidden[:, torch.arange(len(target)), target]
        every = (hidden.logsumexp(2) - right).mean(1)
        best, mean = every.min().item(), every.mean().item()
        result = monotone_msa(model, losses, batches, values=BINARY)
        end = result.curve[-1]["loss"]
        assert end >= best - 1e-12
        found.append((end - best) / (mean - best))
    return tensor(found)


@pytest.mark.parametrize(
    ("sizes", "mean_gap", "hits"), [((4, 3), 0.1, 0.25), ((3, 2, 3), 0.25, 0.15)], ids=str
)
def test_twelve_weights_end_near_the_best_of_4096(sizes, mean_gap, hits):
    """Not always at it, as a step looks at M alone.

    Over 200 problems one layer ends 5 % of the way from the average to the best above the best,
    and at it in 40 %; two layers 13 % and 36 %; the bounds leave room for 20 problems.
    """
    found = gaps_to_the_optimum(sizes, 20)
    assert found.mean() < mean_gap
    assert (found < 1e-9).float().mean() > hits


def test_pieces_are_one_batch():
    pieces = class_batches(4, sizes=(7, 1, 12, 4), dtype=float64)
    whole = [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]
    ends = []
    for batches in (pieces, whole):
        model = random_net((4, 6, 3), TERNARY, 0)
        result = monotone_msa(model, losses, batches, values=TERNARY, lam=1e-3)
        ends.append(([row["loss"] for row in result.curve], model.state_dict()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-13)
    for name, value in ends[0][1].items():
        assert torch.equal(value, ends[1][1][name])


def test_layers_per_step_ends_where_nothing_helps_either():
    batches = class_batches(4, sizes=(20,), dtype=float64)
    ends = []
    for seed in (0, 0, 1):
        model = random_net((4, 6, 6, 3), BINARY, 0)
        result = monotone_msa(model, losses, batches, values=BINARY, layers_per_step=1, seed=seed)
        assert result.status is Status.CONVERGED
        heights = [row["loss"] for row in result.curve]
        assert all(after < before for before, after in pairwise(heights))
        again = monotone_msa(model, losses, batches, values=BINARY)
        assert (again.status, again.steps) == (Status.CONVERGED, 0)
        ends.append(heights)
    assert ends[0] == ends[1] != ends[2]


@pytest.mark.parametrize(("make", "shape"), [(norm_mlp, (4,)), (conv_net, (1, 4, 4))])
def test_batch_norm_and_convolution(make, shape):
    """In train mode; float parameters stay, and eval mode meets the statistics of the data."""
    model = seeded(make, 1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.sign_()
    kept = {name: p.detach().clone() for name, p in model.named_parameters() if p.ndim == 1}
    model.train()
    batches = class_batches(*shape, sizes=(30,), dtype=float64)
    result = monotone_msa(model, losses, batches, values=BINARY)
    assert result.status is Status.CONVERGED
    assert result.curve[-1]["loss"] < result.curve[0]["loss"]
    assert all(torch.equal(kept[name], model.get_parameter(name)) for name in kept)
    inputs, target = batches[0]
    assert losses(model(inputs), target).mean().item() == pytest.approx(
        result.curve[-1]["loss"], abs=1e-13
    )


def test_it_stops_after_steps():
    model = random_net((4, 6, 3), BINARY, 3)
    batches = class_batches(4, sizes=(20,), dtype=float64)
    result = monotone_msa(model, losses, batches, values=BINARY, steps=1)
    assert (result.status, result.steps, len(result.curve)) == (Status.FINISHED, 1, 2)
    assert result.summary["trials"] >= 1


BAD = [
    ({"values": (-1, 1, 1)}, "values must be different finite numbers"),
    ({"values": (-1, 0.5)}, r"every weight must be one of .*discretize"),
    ({"lam": -1.0}, "lam, the price of a weight, must be finite and at least 0; got -1.0"),
    ({"sufficient": 1.0}, r"sufficient, the least fall per gain, must be in \[0, 1\)"),
    ({"layers_per_step": 0}, "layers_per_step must be a whole number"),
    ({"steps": 0}, "steps must be a whole number, at least 1"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input(options, words):
    model = random_net((4, 3), BINARY, 0)
    with pytest.raises(ValueError, match=words):
        monotone_msa(model, losses, class_batches(4, dtype=float64), **{"values": BINARY} | options)


def test_a_loss_that_is_not_finite_ends_at_once():
    model = random_net((4, 3), BINARY, 0)
    [(inputs, target)] = class_batches(4, sizes=(5,), dtype=float64)
    result = monotone_msa(model, losses, [(inputs / 0, target)], values=BINARY)
    assert (result.status, result.steps, result.curve) == (Status.NOT_FINITE, 0, [])
    assert "weights are as given" in result.message
