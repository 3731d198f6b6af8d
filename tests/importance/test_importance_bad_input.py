"""Every bad input of specification 8 meets a sentence: what must hold, what came, what to do."""

from math import inf, nan

import pytest
import torch
from torch import nn

from lowland.errors import UnsupportedModelError
from lowland.importance import (
    ImportanceSampling,
    TokenCrossEntropy,
    batch_multiplier,
    binary_cross_entropy_scores,
    cross_entropy_scores,
    draw,
    equivalent_batch,
    focal_scores,
    head_gradient_scores,
    last_layer_scores,
    pays,
    scores,
    squared_error_scores,
    threshold,
    token_scores,
)
from small_networks import class_batches, dropout, losses, mlp, seeded

ALWAYS = {"replay": [[0, True]]}
BATCHES = class_batches(4, sizes=(8,) * 6)


def sampling(model=None, loss_fn=losses, **options):
    return ImportanceSampling(seeded(mlp, 0) if model is None else model, loss_fn, **options)


def train(model=None, loss_fn=losses, batches=BATCHES, **options):
    model = seeded(mlp, 0) if model is None else model
    chosen = sampling(model, loss_fn, **options)
    for x, y in chosen(batches):
        chosen.loss(model(x), y).backward()


# The class


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presample": 1}, "presample must be above 1.*got 1"),
        ({"presample": 0.5}, "presample must be above 1.*got 0.5"),
        ({"presample": nan}, "presample must be above 1.*got nan"),
        ({"presample": inf}, "presample must be above 1 and finite.*got inf"),
        ({"presample": 1.05, "batch_size": 8}, "pool larger than the batch; got 1.05 times 8"),
        ({"tau_threshold": 0.9}, "tau_threshold must be at least 1.*got 0.9"),
        ({"tau_threshold": nan}, "tau_threshold must be at least 1.*got nan"),
        ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\); got 1.0"),
        ({"smoothing": -0.1}, r"smoothing must lie in \[0, 1\); got -0.1"),
        ({"mixing": 1.0}, r"mixing must lie in \[0, 1\); got 1.0"),
        ({"mixing": -0.1}, r"mixing must lie in \[0, 1\); got -0.1"),
        ({"backward_cost": -1}, "backward_cost must be at least 0.*got -1"),
        ({"amortize": 0}, "amortize must be at least 1.*got 0"),
        ({"accumulate": 0}, "accumulate must be a whole number, at least 1; got 0"),
        ({"weight_power": nan}, "weight_power must be a finite number; got nan"),
        ({"batch_size": 0}, "batch_size must be .* at least 1; got 0"),
        ({"score": "norm"}, "score must be one of .*'bound'.*got 'norm'"),
        ({"decision": "always"}, "decision must be one of .*'two_stage'.*got 'always'"),
        ({"tau_rule": "v2"}, "tau_rule must be one of .*'v3'.*got 'v2'"),
        ({"scheme": "stratified"}, "scheme must be one of .*'systematic'.*got 'stratified'"),
        ({"costs": "guessed"}, "costs must be one of .*'measured'.*got 'guessed'"),
        ({"batch_norm": "train"}, "batch_norm must be one of .*'frozen'.*got 'train'"),
        ({"sizes": "random"}, "sizes must be one of .*'constant_time'.*got 'random'"),
        ({"score_precision": "fp8"}, "score_precision must be None or 'bf16'; got 'fp8'"),
    ],
    ids=str,
)
def test_options(options, message):
    """At once, not at the first step that needs them."""
    with pytest.raises(ValueError, match=message):
        sampling(**options)


def test_a_pool_no_larger_than_the_batch():
    """Only the first batch tells its size."""
    with pytest.raises(ValueError, match="pool larger than the batch; got 1.05 times 8.*2 to 6"):
        train(presample=1.05)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_of_torch_that_is_reduced(reduction):
    with pytest.raises(ValueError, match=f'got reduction="{reduction}".*Pass reduction="none"'):
        sampling(loss_fn=nn.CrossEntropyLoss(reduction=reduction))


@pytest.mark.parametrize(
    ("loss_fn", "shape"),
    [
        (lambda output, target: losses(output, target).mean(), "scalar"),
        (lambda output, target: output.square(), r"\(8, 3\)"),
        (lambda output, target: losses(output, target)[:5], r"\(5,\)"),
    ],
    ids=["scalar", "too many axes", "too few rows"],
)
@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
def test_losses_of_a_wrong_shape(loss_fn, shape, options):
    message = "one loss per example" + (f".*{shape}" if not options else "")
    with pytest.raises(ValueError, match=message):
        train(loss_fn=loss_fn, **options)


class Answer:
    """An output of a user's own kind, which torch does not look into."""

    def __init__(self, values):
        self.values = values


class Answering(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = seeded(mlp, 0)

    def forward(self, x):
        return Answer(self.net(x))


def answer_losses(output, target):
    return losses(output.values, target)


@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
def test_an_output_of_another_kind(options):
    """There is nothing to differentiate by; what the sentence names instead works."""
    with pytest.raises(ValueError, match=r'output must be a tensor.*got a Answer.*score="loss"'):
        train(Answering(), answer_losses, **options)
    train(Answering(), answer_losses, score="loss", **options)
    train(Answering(), answer_losses, score=lambda output, y: output.values.norm(dim=1), **options)


@pytest.mark.parametrize("value", [-1.0, nan, inf])
def test_scores_that_are_none(value):
    """The first index that is wrong is named."""

    def score(output, target):
        found = torch.ones(len(target))
        found[[5, 7]] = value
        return found

    with pytest.raises(ValueError, match=f"finite and not negative; got {value} at index 5"):
        train(score=score, **ALWAYS)


@pytest.mark.parametrize("found", [torch.ones(8, 3), torch.tensor(1.0), [1.0] * 8], ids=str)
@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
@pytest.mark.untyped
def test_a_score_of_a_wrong_shape(found, options):
    with pytest.raises(ValueError, match=r"score\(output, target\).*one number per example; got"):
        train(score=lambda output, target: found, **options)


def test_a_loss_without_a_batch():
    """Before, between and after; and for other rows than were handed out."""
    chosen = sampling()
    output, target = torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)
    with pytest.raises(ValueError, match=r"loss must be called for a batch.*for x, y in"):
        chosen.loss(output, target)
    stream = chosen(BATCHES)
    next(stream)
    with pytest.raises(ValueError, match="the 8 rows that were handed out; got 5"):
        chosen.loss(output[:5], target[:5])
    stream.close()
    with pytest.raises(ValueError, match="handed out"):
        chosen.loss(output, target)


def test_tensors_of_a_batch_that_disagree():
    with pytest.raises(ValueError, match=r"first axis of every tensor.*\(8, 4\).*\(5,\)"):
        train(batches=[(torch.zeros(8, 4), torch.zeros(5, dtype=torch.long))])


def test_batches_of_a_pool_that_do_not_fit():
    """Texts that were padded batch by batch."""
    batches = [(torch.zeros(8, n), torch.zeros(8, dtype=torch.long)) for n in (4, 5, 6)]
    with pytest.raises(ValueError, match=r"examples of one shape.*\(8, 4\).*\(8, 5\).*Pad"):
        train(batches=batches, **ALWAYS)


@pytest.mark.parametrize("score", ["last_layer"])
def test_a_model_that_ends_otherwise(score):
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))
    with pytest.raises(UnsupportedModelError, match='nn.Linear.*Take score="bound"'):
        train(model, score=score, **ALWAYS)


def test_a_trunk_that_is_trained():
    model = seeded(mlp, 0)
    with pytest.raises(ValueError, match="trunk must be frozen; weight requires a gradient"):
        sampling(model, trunk=model[0])


@pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning")
def test_a_trunk_that_trains_otherwise_than_it_scores():
    model = seeded(dropout, 0)
    trunk = model[:3].requires_grad_(requires_grad=False)
    whole = nn.Sequential(trunk, model[3])
    with pytest.raises(ValueError, match=r"trunk must be in evaluation mode; .*\.eval\(\)"):
        train(whole, trunk=trunk, **ALWAYS)


@pytest.mark.parametrize("options", [{"amortize": 2}, {"sizes": "constant_time"}], ids=str)
def test_a_pool_at_hand_is_one_pool(options):
    with pytest.raises(ValueError, match=r"one pool and one batch"):
        sampling(**options).select(BATCHES[0])


# Targets


@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
def test_classes_that_the_model_lacks(options):
    """By a loss of torch too, whose own words name neither the row nor what to do."""
    batches = [(torch.zeros(8, 4), torch.full((8,), 3))] * 3
    for loss_fn in (nn.CrossEntropyLoss(reduction="none"), TokenCrossEntropy()):
        with pytest.raises(ValueError, match=r"0\.\.2; got 3 in row 0"):
            train(batches=batches, loss_fn=loss_fn, **options)


@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
def test_classes_that_are_floats(options):
    batches = [(torch.zeros(8, 4), torch.zeros(8))] * 3
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ValueError, match=r"shape \(8|24, 3\); got .*target.long\(\)"):
        train(batches=batches, loss_fn=loss_fn, **options)


def test_errors_of_torch_that_are_not_of_values():
    """They reach the user as they are."""
    batches = [(torch.zeros(8, 4), torch.zeros(8, dtype=torch.int16))] * 3
    with pytest.raises(RuntimeError, match="Long"):
        train(batches=batches, loss_fn=nn.CrossEntropyLoss(reduction="none"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 3]), r"0\.\.2; got 3 in row 1"),
        (torch.tensor([-1, 0]), r"0\.\.2; got -1 in row 0"),
        (torch.tensor([0.0, 1.0]), r"shape \(2, 3\); got \(2,\).*target.long\(\)"),
        (torch.tensor([0]), r"shape \(2,\); got \(1,\)"),
        (torch.tensor([[0], [1]]), r"shape \(2,\); got \(2, 1\)"),
    ],
    ids=["too large", "negative", "float", "too few", "a column"],
)
@pytest.mark.untyped
def test_targets_of_cross_entropy(target, message):
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    for call in (cross_entropy_scores, lambda z, y: scores(loss_fn, z, y)):
        with pytest.raises(ValueError, match=message):
            call(torch.zeros(2, 3), target)


def test_an_ignored_class_is_not_out_of_range():
    assert not cross_entropy_scores(torch.zeros(2, 3), torch.tensor([-100, -100])).any()


@pytest.mark.untyped
def test_logits_of_sequences():
    """The class axis of torch's own loss is the second; here it is the last, by a loss of ours."""
    with pytest.raises(ValueError, match=r"\(batch, classes\).*TokenCrossEntropy"):
        cross_entropy_scores(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(batch, time, classes\).*\(2, 4\)"):
        token_scores(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.long))


@pytest.mark.untyped
@pytest.mark.parametrize("function", [squared_error_scores, binary_cross_entropy_scores])
def test_outputs_that_would_broadcast(function):
    """A column against a row: the classic that makes a matrix."""
    with pytest.raises(ValueError, match=r"one shape; got \(8, 1\) and \(8,\)"):
        function(torch.zeros(8, 1), torch.zeros(8))


def test_loss_modules_on_more_than_a_number():
    """There is a matrix of losses; which reduction was meant is the user's to say."""
    with pytest.raises(ValueError, match="one loss per example"):
        scores(nn.MSELoss(reduction="none"), torch.zeros(4, 3), torch.zeros(4, 3))


def test_a_loss_that_forgets_the_output():
    with pytest.raises(ValueError, match="depend on the model's output"):
        head_gradient_scores(lambda z, y: y * 1.0, torch.zeros(4, 3), torch.ones(4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: squared_error_scores(torch.zeros(2), torch.zeros(2), reduction="max"),
        lambda: token_scores(
            torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), reduction="max"
        ),
        lambda: TokenCrossEntropy(reduction="max"),
    ],
    ids=["numbers", "tokens", "loss"],
)
def test_reductions(call):
    with pytest.raises(ValueError, match="reduction must be .*got 'max'"):
        call()


def test_ways_to_combine_tokens():
    with pytest.raises(ValueError, match="combine must be .*got 'max'"):
        TokenCrossEntropy(combine="max")


def test_focal_of_a_missing_class():
    with pytest.raises(ValueError, match=r"0\.\.2; got 7"):
        focal_scores(torch.zeros(1, 3), torch.tensor([7]), 2.0)


@pytest.mark.untyped
def test_too_many_axes_of_time():
    with pytest.raises(ValueError, match=r"got \(1, 2, 3, 4\)"):
        last_layer_scores(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))


# Draws


@pytest.mark.parametrize("value", [-1.0, -1e-30, nan, inf, -inf])
@pytest.mark.parametrize("scheme", ["systematic", "multinomial", "residual"])
def test_scores_to_draw_from(value, scheme):
    score = torch.ones(9)
    score[[4, 6]] = value
    with pytest.raises(ValueError, match="at index 4"):
        draw(score, 3, scheme)


def test_nothing_to_draw_from():
    with pytest.raises(ValueError, match="must not all be zero"):
        draw(torch.zeros(3), 2)
    with pytest.raises(ValueError, match=r"shape \(pool,\); got \(0,\)"):
        draw(torch.zeros(0), 2)


@pytest.mark.untyped
def test_scores_with_two_axes():
    with pytest.raises(ValueError, match=r"shape \(pool,\); got \(2, 3\)"):
        draw(torch.ones(2, 3), 2)
    with pytest.raises(ValueError, match=r"shape \(pool,\); got \(2, 3\)"):
        equivalent_batch(torch.ones(2, 3))


def test_how_to_draw():
    for options, message in (
        ({"size": 0}, "size must be at least 1.*got 0"),
        ({"scheme": "Systematic"}, "scheme must be one of .*got 'Systematic'"),
        ({"mixing": 1.0}, r"mixing must lie in \[0, 1\); got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(torch.ones(3), **{"size": 2} | options)


# Decisions


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equivalent_batch(torch.ones(0)), r"got \(0,\)"),
        (lambda: equivalent_batch(torch.ones(2), rule="v2"), "rule must be one of .*got 'v2'"),
        (lambda: batch_multiplier(0.5, 3.0), "at least 1; got 0.5"),
        (lambda: batch_multiplier(nan, 3.0), "at least 1; got nan"),
        (lambda: batch_multiplier(2.0, 0.5), "at least 1; got 2.0 and 0.5"),
        (lambda: batch_multiplier(2.0, 3.0, pool=9, examples=8), r"1\.\.8.*got 9"),
        (lambda: threshold(1.0), "ratio must be above 1.*got 1.0"),
        (lambda: threshold(3.0, decision="any"), "decision must be one of .*got 'any'"),
        (lambda: threshold(3.0, score_cost=1.0), "both costs or none; got score_cost=1.0"),
        (lambda: threshold(3.0, score_cost=1.0, train_cost=0.0), "costs must be positive"),
        (lambda: pays(2.0, 3.0, backward_cost=-1.0), "backward_cost at least 0.*-1.0"),
    ],
)
def test_decisions(call, message):
    with pytest.raises(ValueError, match=message):
        call()
