"""One step after the other: pool, score, draw, weight and loss are each made by hand as well."""

from itertools import chain, islice

import pytest
import torch
from scored_batches import (
    ALWAYS,
    BATCHES,
    Notes,
    carried,
    regression,
    scored,
    squares,
    taken,
    watched,
)
from torch import nn
from torch.testing import assert_close

from lowland.errors import FallbackWarning
from lowland.importance import (
    ImportanceSampling,
    TokenCrossEntropy,
    constant_time,
    constant_variance,
    cross_entropy_scores,
    equivalent_batch,
)
from oracles.slow_importance import (
    slow_averages,
    slow_gradients,
    slow_last_layer,
    slow_scores,
    slow_tau,
)
from small_networks import class_batches, losses, mlp, seeded


@pytest.mark.parametrize("scheme", ["systematic", "multinomial", "residual"])
def test_every_step_of_the_algorithm(scheme):
    """Pool, score, draw, weight, loss: each from the one before, by hand."""
    model, notes = seeded(mlp, 0), Notes()
    sampling = ImportanceSampling(model, losses, scheme=scheme, **ALWAYS, **notes())
    assert all(p.grad is None for p in model.parameters())
    for number, (x, y) in enumerate(sampling(BATCHES)):
        pool = BATCHES[3 * number : 3 * number + 3]
        inputs, target = (torch.cat(part) for part in zip(*pool, strict=True))
        step, score = notes.scores[-1]
        _, index, weight = notes.draws[-1]
        assert step == number
        assert_close(score.double(), slow_scores(losses, model(inputs), target), rtol=1e-5, atol=0)
        assert torch.equal(x, inputs[index])
        assert torch.equal(y, target[index])
        assert_close(weight, score.sum() / (24 * score[index]))
        assert torch.equal(sampling.weight, weight)
        each = losses(model(x), y)
        assert_close(sampling.loss(model(x), y), (weight * each).sum() / 8)
        correct = (model(x).argmax(1) == y).float()
        assert_close(sampling.mean(correct), (weight * correct).sum() / 8)
        assert all(p.grad is None for p in model.parameters())
    assert number == 3


def test_gradients_are_unbiased():
    """Over 300 passes through one pool, within four standard errors of the pool's gradient."""
    model = seeded(mlp, 0).double()
    batches = class_batches(4, sizes=(6, 6, 6), dtype=torch.float64)
    with torch.no_grad():
        model[2].weight *= 4
    inputs, target = (torch.cat(part) for part in zip(*batches, strict=True))
    expected = slow_gradients(model, losses, inputs, target).mean(0)
    for options in ({}, {"mixing": 0.3, "scheme": "multinomial"}, {"merge_duplicates": True}):
        sampling = ImportanceSampling(model, losses, **ALWAYS, **options)
        found = []
        for x, y in chain.from_iterable(sampling(batches) for _ in range(300)):
            grads = torch.autograd.grad(sampling.loss(model(x), y), [*model.parameters()])
            found.append(torch.cat([g.flatten() for g in grads]))
        found = torch.stack(found)
        error = found.std(0) / 300**0.5
        assert ((found.mean(0) - expected).abs() <= 4 * error + 1e-12).all()
        assert found.std(0).max() > 0.01


def test_the_last_pool_is_smaller():
    """Its own size goes into its weights; a rest of no more than a batch is trained on as it is."""
    for sizes, expected in (
        ((8,) * 5, [8, 8]),
        ((8, 8, 8, 8, 5), [8, 8]),
        ((8, 8, 8, 8), [8, 8]),
        ((8, 8, 8, 5), [8, 5]),
        ((5,), [5]),
    ):
        notes = Notes()
        model = seeded(mlp, 0)
        sampling = ImportanceSampling(model, losses, batch_size=8, **ALWAYS, **notes())
        seen = []
        with_warning = sum(sizes) < 24
        batches = class_batches(4, sizes=sizes)
        if with_warning:
            with pytest.warns(FallbackWarning, match="fewer than a pool"):
                found = [(y, sampling.weight.clone()) for _, y in sampling(batches)]
        else:
            found = [(y, sampling.weight.clone()) for _, y in sampling(batches)]
        seen = [len(y) for y, _ in found]
        assert seen == expected
        rest = sum(sizes) % 24
        if rest <= 8:
            assert torch.equal(found[-1][1], torch.ones(rest))
        else:
            score, index = notes.scores[-1][1], notes.draws[-1][1]
            assert len(score) == rest
            assert_close(found[-1][1], score.sum() / (rest * score[index]))


def test_every_epoch_has_a_step():
    """A data set of one row, smaller than anything."""
    sampling = ImportanceSampling(seeded(mlp, 0), losses, batch_size=8, **ALWAYS)
    with pytest.warns(FallbackWarning, match="fewer than a pool"):
        assert len([*taken(sampling, class_batches(4, sizes=(1,)))]) == 1
    assert [*sampling([])] == []


def test_uneven_batches_make_even_pools():
    """No row is lost or read twice, whatever sizes the loader hands out."""
    sizes = (8, 3, 8, 8, 1, 8, 7, 5, 8, 8)
    batches = [(x, torch.arange(len(x)) + 100 * n) for n, (x, _) in enumerate(
        class_batches(4, sizes=sizes)
    )]  # fmt: skip
    rows = []
    sampling = ImportanceSampling(
        seeded(mlp, 0),
        lambda output, target: output.sum(1) * 0,
        score=lambda output, target: rows.extend(target.tolist()) or torch.ones(len(target)),
        presample=2.5,
        **ALWAYS,
    )
    seen = [len(y) for _, y in taken(sampling, batches)]
    assert seen == [8, 8, 8, 4]
    assert rows == [n for _, y in batches for n in y.tolist()][:60]


@pytest.mark.parametrize("amortize", [2, 4])
def test_several_batches_from_one_pool(amortize):
    """One scoring for k steps, and the gradient of each is unbiased with the scores it has."""
    model, notes = seeded(mlp, 0), Notes()
    options = {"amortize": amortize, **ALWAYS, **notes()}
    sampling = ImportanceSampling(model, losses, **options)
    seen = [(x, sampling.weight) for x, _ in sampling(BATCHES)]
    assert len(seen) == 4 * amortize
    assert len(notes.scores) == 4
    assert len(notes.draws) == 4 * amortize
    for number, (x, weight) in enumerate(seen):
        pool = torch.cat([b for b, _ in BATCHES[3 * (number // amortize) :][:3]])
        score = notes.scores[number // amortize][1]
        _, index, _ = notes.draws[number]
        assert torch.equal(x, pool[index])
        assert_close(weight, score.sum() / (24 * score[index]))


def test_merged_duplicates_have_the_same_gradient():
    """Fewer rows, and the loss is still divided by the number of draws."""
    batches = [(x, y) for x, y in class_batches(4, sizes=(4,) * 30, dtype=torch.float64)]
    gradients = []
    for merge in (False, True):
        model = seeded(mlp, 0).double()
        sampling = ImportanceSampling(
            model, losses, merge_duplicates=merge, scheme="multinomial", **ALWAYS
        )
        found, rows = [], 0
        for x, y in sampling(batches):
            grads = torch.autograd.grad(sampling.loss(model(x), y), [*model.parameters()])
            found.append(torch.cat([g.flatten() for g in grads]))
            rows += len(y)
        gradients.append((torch.stack(found), rows))
    (with_all, all_rows), (with_fewer, fewer_rows) = gradients
    assert_close(with_fewer, with_all)
    assert fewer_rows < all_rows


def test_micro_batches_share_an_estimate():
    """``accumulate=k``: tau comes from the sums over k batches, and moves once for them."""
    rng = torch.Generator().manual_seed(1)
    batches = torch.rand(12, 4, generator=rng).tolist()
    _, seen = watched(batches, accumulate=3, tau_threshold=50)
    pooled = [slow_tau(sum(batches[i : i + 3], [])) for i in range(0, 12, 3)]
    assert [seen[i][1] for i in (2, 5, 8, 11)] == pytest.approx(slow_averages(pooled, 0.9))
    assert seen[0][1] == 0


def test_mixing_bounds_weights_and_leaves_tau():
    """The estimate is made before the uniform share is mixed in."""
    batches = [[100.0, 0.01, 1, 1, 1, 1]] * 6
    taus = []
    for mixing in (0.0, 0.25):
        model = regression()
        sampling = ImportanceSampling(model, squares, score=carried, mixing=mixing, **ALWAYS)
        weights = [sampling.weight for _ in sampling(scored(batches))]
        taus.append(sampling.tau)
        assert mixing == 0 or all((w <= 4 + 1e-9).all() for w in weights)
    assert taus[0] == taus[1]


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_attention_to_hard_examples(power):
    """The knob of 2017: weights ``w^k``, with the weighted sum of scores as it was."""
    notes = Notes()
    sampling = ImportanceSampling(seeded(mlp, 0), losses, weight_power=power, **ALWAYS, **notes())
    for _ in sampling(BATCHES):
        score, (_, index, told) = notes.scores[-1][1], notes.draws[-1]
        unbiased = score.sum() / (24 * score[index])
        assert torch.equal(sampling.weight, told)
        assert_close(told / told[0], (unbiased / unbiased[0]) ** power)
        assert_close((told * score[index]).sum(), (unbiased * score[index]).sum())


@pytest.mark.parametrize("sizes", ["constant_time", "constant_variance"])
def test_sizes_of_the_official_code(sizes):
    """Pool and batch follow the root of tau, and each weight the pool that it was drawn from.

    One score of 16 is not zero: tau is 16 in every batch and in every pool, its root 4, above both
    thresholds.
    """
    notes, model = Notes(), regression()
    batches = scored([[0.0] * 15 + [1.0]] * 40)
    sampling = ImportanceSampling(
        model, squares, score=carried, sizes=sizes, smoothing=0.0, **notes()
    )
    expected = {"constant_time": constant_time, "constant_variance": constant_variance}[sizes]
    before = []
    for x, y in islice(sampling(batches), 12):
        sampling.loss(model(x), y)
        if before:
            pool, size = expected(slow_tau(before) ** 0.5, 16)
            score = notes.scores[-1][1]
            assert sampling.is_active
            assert (len(y), len(score)) == (size, pool)
            assert_close(sampling.weight, (score.sum() / pool).expand(size))  # all drawn score 1
        before = score.tolist() if before else y.tolist()
    assert sampling.active_steps == 11


# Scores by name


def test_named_scores():
    """Each is what its name says, in evaluation mode, from the pool."""
    model = seeded(mlp, 0)
    inputs, target = (torch.cat(part) for part in zip(*BATCHES[:3], strict=True))
    output = model(inputs).detach()
    hidden = model[:2](inputs)
    delta = output.softmax(1) - nn.functional.one_hot(target, 3)
    expected = {
        "bound": slow_scores(losses, output, target),
        "loss": losses(output, target),
        "gradient_norm": slow_gradients(model, losses, inputs, target).norm(dim=1),
        "last_layer": torch.tensor(slow_last_layer(delta, hidden)),
    }
    for name, values in expected.items():
        notes = Notes()
        sampling = ImportanceSampling(model, losses, score=name, **ALWAYS, **notes())
        next(iter(sampling(BATCHES)))
        assert_close(notes.scores[0][1].double(), values.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["bound", "loss", "gradient_norm", "last_layer"])
def test_the_free_estimate_is_that_of_the_batch(score):
    """While uniform, tau comes from the rows and the pass that train anyway."""
    model, calls = seeded(mlp, 0), []
    model.register_forward_hook(lambda *_: calls.append(1))
    sampling = ImportanceSampling(model, losses, score=score, tau_threshold=1e6)
    taus = []
    for x, y in sampling(BATCHES):
        sampling.loss(model(x), y).backward()
        hidden, output = model[:2](x), model[2](model[:2](x))
        delta = output.softmax(1) - nn.functional.one_hot(y, 3)
        values = {
            "bound": lambda o=output, y=y: slow_scores(losses, o, y),
            "loss": lambda o=output, y=y: losses(o, y),
            "gradient_norm": lambda x=x, y=y: slow_gradients(model[:], losses, x, y).norm(dim=1),
            "last_layer": lambda d=delta, h=hidden: torch.tensor(slow_last_layer(d, h)),
        }[score]()
        taus.append(slow_tau(values.tolist()))
    assert sampling.tau == pytest.approx(slow_averages(taus, 0.9)[-1], rel=1e-4)
    if score != "gradient_norm":
        assert len(calls) == len(BATCHES)


def test_sequences_in_the_loop():
    """One sequence is one example: loss, score and draw are per sequence."""
    rng = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, 5, 3, generator=rng) for _ in range(6)]
    targets = [torch.randint(4, (4, 5), generator=rng) for _ in range(6)]
    for target in targets:
        target[0, 3:] = -100
    model, notes = nn.Linear(3, 4), Notes()
    sampling = ImportanceSampling(model, TokenCrossEntropy(), **ALWAYS, **notes())
    batches = [*zip(inputs, targets, strict=True)]
    for x, y in sampling(batches):
        assert x.shape == (4, 5, 3)
        sampling.loss(model(x), y).backward()
    pool, wanted = torch.cat(inputs[:3]), torch.cat(targets[:3])
    slow = slow_scores(TokenCrossEntropy(), model(pool), wanted)
    assert_close(notes.scores[0][1].double(), slow, rtol=1e-5, atol=0)


def test_scores_are_those_of_the_loss_at_hand(rng):
    """The tau of a first step, from torch's own loss with everything switched on."""
    model = seeded(mlp, 0).double()
    x = torch.randn(16, 4, dtype=torch.float64, generator=rng)
    y = torch.randint(3, (16,), generator=rng)
    y[::4] = -100
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    loss_fn = nn.CrossEntropyLoss(weight, reduction="none", label_smoothing=0.1)
    sampling = ImportanceSampling(model, loss_fn, smoothing=0.0, tau_threshold=1e6)
    for a, b in sampling([(x, y)]):
        sampling.loss(model(a), b)
    score = cross_entropy_scores(model(x), y, weight=weight, label_smoothing=0.1)
    assert sampling.tau == pytest.approx(equivalent_batch(score).item(), rel=1e-12)
    assert sampling.tau == pytest.approx(slow_tau(slow_scores(loss_fn, model(x), y).tolist()))
