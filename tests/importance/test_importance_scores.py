"""Scores: one backward pass per example gives the same norms as every closed form of the table."""

from math import sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lowland.importance import (
    TokenCrossEntropy,
    binary_cross_entropy_scores,
    cross_entropy_scores,
    focal_scores,
    head_gradient_scores,
    huber_scores,
    l1_scores,
    scores,
    sigmoid_squared_error_scores,
    smooth_l1_scores,
    squared_error_scores,
    token_scores,
)
from oracles.slow_importance import slow_focal, slow_scores

ROWS, CLASSES = 7, 5
EXACT = {"rtol": 1e-12, "atol": 1e-15}


def logits_of(rng, *shape):
    return 3 * torch.randn(*shape, dtype=torch.float64, generator=rng)


def uniform(rng, *shape):
    return torch.rand(*shape, dtype=torch.float64, generator=rng)


def classes(rng, *shape, of=CLASSES):
    return torch.randint(of, shape, generator=rng)


# O1: the printed numbers


@pytest.mark.parametrize(
    ("label", "smoothing", "expected"),
    [
        (0, 0.0, 0.198003723),
        (1, 0.0, 1.224093356),
        (2, 0.0, 1.281707771),
        (0, 0.1, 0.120959033),
    ],
)
def test_printed_numbers(label, smoothing, expected):
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    score = cross_entropy_scores(logits, torch.tensor([label]), label_smoothing=smoothing)
    assert score.item() == pytest.approx(expected, abs=5.1e-10)


@pytest.mark.parametrize(
    ("count", "expected"), [(2, 0.707107), (10, 0.948683), (67, 0.992509), (100, 0.994987)]
)
def test_uniform_logits(count, expected):
    """Nothing learned yet: ``sqrt(1 - 1/C)`` for every example, so tau starts at 1."""
    score = cross_entropy_scores(torch.zeros(4, count), torch.arange(4) % count)
    assert_close(score, torch.full((4,), sqrt(1 - 1 / count)))
    assert score[0].item() == pytest.approx(expected, abs=5.1e-7)


# O1: the table against autograd


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", ["class", "normalized", "any sum"])
def test_cross_entropy(rng, smoothing, weighted, target):
    """Labels, soft targets, class weights and smoothing, in every combination torch has."""
    logits = logits_of(rng, ROWS, CLASSES)
    wanted = classes(rng, ROWS) if target == "class" else uniform(rng, ROWS, CLASSES)
    if target == "normalized":
        wanted = wanted / wanted.sum(1, keepdim=True)
    weight = 0.2 + uniform(rng, CLASSES) if weighted else None
    loss_fn = nn.CrossEntropyLoss(weight, reduction="none", label_smoothing=smoothing)
    slow = slow_scores(loss_fn, logits, wanted)
    direct = cross_entropy_scores(logits, wanted, weight=weight, label_smoothing=smoothing)
    assert_close(direct, slow, **EXACT)
    assert_close(scores(loss_fn, logits, wanted), slow, **EXACT)
    assert_close(head_gradient_scores(loss_fn, logits, wanted), slow, **EXACT)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classes_kept_as_bytes(rng, smoothing):
    """As image sets are stored, and as torch's loss takes them; weights are looked up, no mask."""
    logits, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS)
    weight = 0.2 + uniform(rng, CLASSES)
    loss_fn = nn.CrossEntropyLoss(weight, reduction="none", label_smoothing=smoothing)
    slow = slow_scores(loss_fn, logits, target)
    assert_close(scores(loss_fn, logits, target.to(torch.uint8)), slow, **EXACT)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_rows_score_nothing(rng, smoothing, ignored):
    logits, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS)
    target[[1, 4]] = ignored
    loss_fn = nn.CrossEntropyLoss(reduction="none", ignore_index=ignored, label_smoothing=smoothing)
    slow = slow_scores(loss_fn, logits, target)
    assert not slow[[1, 4]].any()
    direct = cross_entropy_scores(logits, target, ignore_index=ignored, label_smoothing=smoothing)
    assert not direct[[1, 4]].any()
    assert_close(direct, slow, **EXACT)
    assert_close(scores(loss_fn, logits, target), slow, **EXACT)


def test_a_class_of_weight_zero_scores_nothing(rng):
    logits, target = logits_of(rng, ROWS, CLASSES), torch.arange(ROWS) % CLASSES
    weight = torch.tensor([0.0, 1, 2, 3, 4], dtype=torch.float64)
    score = cross_entropy_scores(logits, target, weight=weight)
    assert not score[target == 0].any()
    assert (score[target != 0] > 0).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(rng, reduction, weighted):
    logits, target = logits_of(rng, ROWS, CLASSES), uniform(rng, ROWS, CLASSES)
    of_label = {"weight": uniform(rng, CLASSES), "pos_weight": 3 * uniform(rng, CLASSES)}
    options = of_label if weighted else {}

    def loss_fn(output, wanted):
        each = F.binary_cross_entropy_with_logits(output, wanted, reduction="none", **options)
        return getattr(each, reduction)(1)

    score = binary_cross_entropy_scores(logits, target, reduction=reduction, **options)
    assert_close(score, slow_scores(loss_fn, logits, target), **EXACT)


def test_one_label_is_the_residual(rng):
    """With one label the score is ``|S - y|``; two-class softmax gives sqrt(2) times that."""
    logit, target = logits_of(rng, ROWS), classes(rng, ROWS, of=2)
    residual = (logit.sigmoid() - target).abs()
    loss_fn = nn.BCEWithLogitsLoss(reduction="none")
    assert_close(scores(loss_fn, logit, target.double()), residual, **EXACT)
    assert_close(binary_cross_entropy_scores(logit, target.double()), residual, **EXACT)
    pair = torch.stack([torch.zeros_like(logit), logit], 1)
    assert_close(cross_entropy_scores(pair, target), sqrt(2) * residual, **EXACT)


REGRESSIONS = {
    "squared": (squared_error_scores, F.mse_loss, {}),
    "huber": (huber_scores, F.huber_loss, {"delta": 0.7}),
    "smooth l1": (smooth_l1_scores, F.smooth_l1_loss, {"beta": 0.7}),
    "l1": (l1_scores, F.l1_loss, {}),
}


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 3), (ROWS, 2, 3)], ids=str)
@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions(rng, name, shape, reduction):
    closed_form, loss, options = REGRESSIONS[name]
    output, target = logits_of(rng, *shape), logits_of(rng, *shape)

    def loss_fn(output, target):
        each = (
            loss(output, target, reduction="none", **options).flatten(1)
            if (output.ndim > 1)
            else loss(output, target, reduction="none", **options).unsqueeze(1)
        )
        return getattr(each, reduction)(1)

    slow = slow_scores(loss_fn, output, target)
    assert_close(closed_form(output, target, reduction=reduction, **options), slow, **EXACT)


def test_half_of_the_squared_error(rng):
    """The half-sum scores the plain distance; sum and mean of D outputs are 2 and 2/D of it."""
    output, target = logits_of(rng, ROWS, 3), logits_of(rng, ROWS, 3)
    distance = (output - target).norm(dim=1)
    for reduction, factor in (("half", 1), ("sum", 2), ("mean", 2 / 3)):
        score = squared_error_scores(output, target, reduction=reduction)
        assert_close(score, factor * distance, **EXACT)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_squared_error_behind_a_sigmoid(rng, reduction):
    logits, target = logits_of(rng, ROWS, 3), uniform(rng, ROWS, 3)

    def loss_fn(output, wanted):
        return getattr((output.sigmoid() - wanted).square(), reduction)(1)

    score = sigmoid_squared_error_scores(logits, target, reduction=reduction)
    assert_close(score, slow_scores(loss_fn, logits, target), **EXACT)


def test_l1_scores_are_all_equal(rng):
    """Every residual has slope 1, so tau is 1 and the method can never switch on."""
    output, target = logits_of(rng, ROWS, 4), logits_of(rng, ROWS, 4)
    assert_close(l1_scores(output, target, reduction="sum"), torch.full((ROWS,), 2.0).double())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal(rng, gamma):
    logits, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS)
    slow = slow_scores(lambda z, y: slow_focal(z, y, gamma), logits, target)
    assert_close(focal_scores(logits, target, gamma), slow, **EXACT)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.MSELoss(reduction="none"), (ROWS,)),
        (nn.L1Loss(reduction="none"), (ROWS,)),
        (nn.HuberLoss(reduction="none", delta=0.7), (ROWS,)),
        (nn.SmoothL1Loss(reduction="none", beta=0.7), (ROWS,)),
        (nn.SmoothL1Loss(reduction="none", beta=0.0), (ROWS,)),
        (nn.BCEWithLogitsLoss(reduction="none"), (ROWS,)),
        (nn.SoftMarginLoss(reduction="none"), (ROWS,)),  # no closed form here
        (nn.MultiLabelSoftMarginLoss(reduction="none"), (ROWS, CLASSES)),
    ],
    ids=repr,
)
def test_losses_of_torch(rng, module, shape):
    output, target = logits_of(rng, *shape), uniform(rng, *shape)
    assert_close(scores(module, output, target), slow_scores(module, output, target), **EXACT)


# Sequences


def masked(rng, rows=4, time=6):
    """Lengths from one to all steps; every sequence has a first step."""
    lengths = torch.randint(1, time + 1, (rows,), generator=rng)
    lengths[0], lengths[1] = time, 1
    return torch.arange(time) < lengths[:, None]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("by", ["mask", "ignore_index", "both"])
def test_sequences(rng, reduction, smoothing, by):
    """Steps left out by a mask or by their label count neither in the sum nor in the length."""
    mask, label = masked(rng), classes(rng, 4, 6)
    logits = logits_of(rng, 4, 6, CLASSES)
    ignored = torch.rand(4, 6, generator=rng) < 0.3
    ignored[:, 0] = False
    keep = {"mask": mask, "ignore_index": ~ignored, "both": mask & ~ignored}[by]
    target = label if by == "mask" else label.masked_fill(ignored, -100)
    options = {} if by == "ignore_index" else {"mask": mask}

    def loss_fn(output, row):
        step = F.cross_entropy(
            output.flatten(0, 1), row.flatten(), reduction="none", label_smoothing=smoothing
        ).view(row.shape)
        kept = next(k for k, wanted in zip(keep, label, strict=True) if wanted.equal(row[0]))
        total = (step * kept).sum(1)
        return total / kept.sum() if reduction == "mean" else total

    score = token_scores(logits, target, reduction=reduction, label_smoothing=smoothing, **options)
    assert_close(score, slow_scores(loss_fn, logits, label), **EXACT)


def test_triangle_form_is_the_looser_one(rng):
    """Sum over time of what each step scores, instead of its norm."""
    logits, target, mask = logits_of(rng, 4, 6, CLASSES), classes(rng, 4, 6), masked(rng)
    steps = cross_entropy_scores(logits.flatten(0, 1), target.flatten()).view(4, 6) * mask
    triangle = token_scores(logits, target, mask=mask, combine="triangle")
    norm = token_scores(logits, target, mask=mask, combine="norm")
    assert_close(triangle, steps.sum(1), **EXACT)
    assert_close(norm, steps.norm(dim=1), **EXACT)
    assert (triangle >= norm - 1e-12).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_cross_entropy(rng, reduction, smoothing):
    """The module is a loss per sequence, and its score is the slope of just that loss."""
    logits, target = logits_of(rng, 4, 6, CLASSES), classes(rng, 4, 6)
    target[~masked(rng)] = -100
    loss_fn = TokenCrossEntropy(reduction=reduction, label_smoothing=smoothing)
    each = F.cross_entropy(
        logits.transpose(1, 2), target, reduction="none", label_smoothing=smoothing
    )
    total = each.sum(1)
    expected = total if reduction == "sum" else total / (target != -100).sum(1)
    assert_close(loss_fn(logits, target), expected, **EXACT)
    assert_close(scores(loss_fn, logits, target), slow_scores(loss_fn, logits, target), **EXACT)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_sequence_without_labels_scores_nothing(rng, reduction):
    """No division by a length of zero."""
    logits, target = logits_of(rng, 2, 3, CLASSES), classes(rng, 2, 3)
    target[1] = -100
    score = token_scores(logits, target, reduction=reduction)
    assert score[0] > 0
    assert score[1] == 0
    loss = TokenCrossEntropy(reduction=reduction)(logits, target)
    assert loss[1] == 0


# Any other loss


def test_several_outputs_are_one_long_vector(rng):
    """A tuple, or a mapping: the norm over all parts together."""
    left, right = logits_of(rng, ROWS, 3), logits_of(rng, ROWS, 2, 2)
    target = uniform(rng, ROWS)

    def loss_fn(output, wanted):
        a, b = output if isinstance(output, tuple) else (output["a"], output["b"])
        return wanted * a.square().sum(1) + b.exp().sum((1, 2))

    slopes = torch.cat([2 * target[:, None] * left, right.exp().flatten(1)], 1)
    for output in ((left, right), {"a": left, "b": right}):
        assert_close(head_gradient_scores(loss_fn, output, target), slopes.norm(dim=1), **EXACT)
        assert_close(scores(loss_fn, output, target), slopes.norm(dim=1), **EXACT)


def test_the_network_is_not_differentiated(rng):
    """An output with a graph stays as it is, no gradient arrives anywhere, the score has none."""
    x, weight = uniform(rng, ROWS, 4), logits_of(rng, 4, CLASSES).requires_grad_()
    output = x @ weight
    calls = []
    output.register_hook(lambda grad: calls.append(grad))
    for loss_fn in (nn.CrossEntropyLoss(reduction="none"), nn.MultiMarginLoss(reduction="none")):
        score = scores(loss_fn, output, classes(rng, ROWS))
        assert not score.requires_grad
    assert weight.grad is None
    assert not calls


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.MultiMarginLoss])
def test_scores_without_grad_mode(rng, loss):
    """Pools are scored under ``no_grad``; a loss without a closed form must turn it on itself."""
    output, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS)
    loss_fn = loss(reduction="none")
    with torch.no_grad():
        score = scores(loss_fn, output, target)
    assert_close(score, slow_scores(loss_fn, output, target), **EXACT)


# Invariance


@pytest.mark.parametrize("shift", [-1e4, 3.0, 1e4])
def test_a_shift_of_the_logits_changes_nothing(rng, shift):
    logits, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS)
    for options in ({}, {"label_smoothing": 0.1}):
        before = cross_entropy_scores(logits, target, **options)
        after = cross_entropy_scores(logits + shift, target, **options)
        assert_close(after, before, rtol=1e-9, atol=1e-12)  # 1e4 eats four of sixteen digits


def test_permuted_classes_and_rows(rng):
    logits, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS)
    order, rows = torch.randperm(CLASSES, generator=rng), torch.randperm(ROWS, generator=rng)
    before = cross_entropy_scores(logits, target)
    moved = cross_entropy_scores(logits[:, order], order.argsort()[target])
    assert_close(moved, before, **EXACT)
    assert_close(cross_entropy_scores(logits[rows], target[rows]), before[rows], **EXACT)


def test_infinite_logits_of_impossible_classes(rng):
    """Classes masked out with -inf have no probability and no slope."""
    logits, target = logits_of(rng, ROWS, CLASSES), classes(rng, ROWS, of=3)
    masked_out = logits.clone()
    masked_out[:, 3:] = -torch.inf
    expected = cross_entropy_scores(logits[:, :3], target)
    assert_close(cross_entropy_scores(masked_out, target), expected, **EXACT)
    only = torch.full((3, 3), -torch.inf).fill_diagonal_(1.0)
    assert not cross_entropy_scores(only, torch.arange(3)).any()


def test_no_rows():
    """A rank or a filter may leave none."""
    score = cross_entropy_scores(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert score.shape == (0,)
