"""A loop that is written wrongly is told so at its first step, not after hours of training."""

import copy
from types import SimpleNamespace

import pytest
import torch
from scored_batches import ALWAYS, BATCHES, taken
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lowland.errors import FallbackWarning, NoEffectWarning
from lowland.importance import (
    ImportanceSampling,
    diagnose,
    equivalent_batch,
    gradient_norms,
    rank_examples,
)
from small_networks import losses, mlp, norm_mlp, same, seeded, snapshot

ce = nn.CrossEntropyLoss(reduction="none")


def sampling(model=None, loss_fn=losses, **options):
    return ImportanceSampling(seeded(mlp, 0) if model is None else model, loss_fn, **options)


def go(one, model, batches, change=lambda target: target):
    """The user's loop, which may change the targets."""
    for x, y in batches:
        one.loss(model(x), change(y))


# The loss of the rows that were handed out


def test_the_loss_of_chosen_rows_must_be_taken():
    """At the next batch, by either way to go through batches."""
    stream = (one := sampling(**ALWAYS))(BATCHES)
    next(stream)
    with pytest.raises(ValueError, match="loss must be called for every batch of chosen rows"):
        next(stream)
    assert not one.is_active
    pool = tuple(torch.cat(part) for part in zip(*BATCHES[:3], strict=True))
    one = sampling(batch_size=8, **ALWAYS)
    one.select(pool)
    with pytest.raises(ValueError, match="loss must be called for every batch of chosen rows"):
        one.select(pool)


def test_plain_sgd_with_a_sampling_around_is_told_once():
    with pytest.warns(NoEffectWarning, match=r"sampling.loss was not called before") as caught:
        list(sampling()(BATCHES))
    assert len(caught) == 1


def test_weights_of_ones_own_count_as_the_loss():
    """And so does a mean that has a gradient; one of a metric does not."""
    one, model = sampling(**ALWAYS), seeded(mlp, 0)
    assert len(list(taken(one, BATCHES))) == 4
    for x, y in one(BATCHES):
        one.mean(losses(model(x), y)).backward()
    stream = one(BATCHES)
    x, y = next(stream)
    one.mean((model(x).argmax(1) == y).float())
    with pytest.raises(ValueError, match="loss must be called"):
        next(stream)


def ahead(stream):
    """Reads a batch ahead, as some wrappers do."""
    held = None
    for batch in stream:
        if held is not None:
            yield held
        held = batch
    yield held


@pytest.mark.filterwarnings("ignore:sampling.loss was not called")
def test_reading_ahead():
    """The weights are those of the last batch: around the loader it does no harm."""
    model = seeded(mlp, 0)
    for options, message in ((ALWAYS, "around the loader"), ({}, "got the one before it")):
        one = sampling(model, **options)
        with pytest.raises(ValueError, match=message):
            go(one, model, ahead(one(BATCHES)))
    one = sampling(model, **ALWAYS)
    go(one, model, one(ahead(BATCHES)))
    assert one.active_steps == 4


@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
def test_targets_of_other_rows(options):
    model, one = seeded(mlp, 0), sampling(**options)
    x, y = next(stream := one(BATCHES))
    with pytest.raises(ValueError, match="targets of the rows that were handed out, in their"):
        one.loss(model(BATCHES[9][0]), 2 - BATCHES[9][1])
    one.loss(model(x), y.clone())
    one.loss(model(x), y.int().long())
    stream.close()


def test_targets_that_the_loop_changes():
    """Numbers may be scaled in the loop: a word about it, once. Another shape is nobody's."""
    model, one = nn.Linear(4, 1), sampling(loss_fn=lambda z, y: (z[:, 0] - y).square())
    with pytest.warns(FallbackWarning, match="loss got other targets.*get_targets") as caught:
        go(one, model, one([(x, y.float()) for x, y in BATCHES]), lambda y: y / 3)
    assert len(caught) == 1
    one = sampling(loss_fn=lambda z, y: (z[:, :1] - y).square()[:, 0])
    go(one, model, one(BATCHES), lambda y: y[:, None].float())


# One pass at a time


def test_two_passes_at_once_are_refused():
    """Where both give the same rows at the second step, else at the first."""
    model = seeded(mlp, 0)
    for options, message in (({}, "a pass must end before the next one begins"), (ALWAYS, "rows")):
        one = sampling(**options)
        with pytest.raises(ValueError, match=message):
            go(one, model, (batch for batch, _ in zip(one(BATCHES), one(BATCHES), strict=True)))
        assert one.steps == 2


def test_a_pass_that_was_left_gives_way():
    """A notebook's interrupted loop may still hold its stream; modes are put back."""
    model = seeded(norm_mlp, 0)
    before, options = snapshot(model), {"batch_norm": "frozen", "score": "last_layer"}
    one = sampling(model, **options, **ALWAYS)
    held = one(BATCHES)
    next(held)
    for x, y in one(BATCHES):
        one.loss(model(x), y)
    held.close()
    assert same(snapshot(model), before)
    assert one.active_steps == 5


@pytest.mark.parametrize("options", [{"presample": 2.5}, {"amortize": 3}, {"batch_size": 5}])
def test_a_state_saved_after_a_break_holds_the_rows(options):
    """The same as one saved inside the loop; the next pass of this run begins afresh."""
    one = sampling(**options, **ALWAYS)
    for _ in taken(one, BATCHES):
        inside = copy.deepcopy(one.state_dict())
        break
    after = one.state_dict()
    assert after["held"] is not None or after["waiting"]
    for part in ("held", "waiting"):
        assert same(after[part], inside[part])
    assert after["switch"]["steps"] == 1
    x, _ = next(stream := one(iter(BATCHES)))
    again = sampling(**options, **ALWAYS)
    again.load_state_dict(after)
    assert not torch.equal(next(again(iter(BATCHES[6:])))[0], x)
    stream.close()


def test_a_data_set_is_not_small_because_it_is_taken_up_in_the_middle():
    one = sampling(batch_size=8, **ALWAYS)
    list(taken(one, BATCHES))
    again = sampling(batch_size=8, **ALWAYS)
    again.load_state_dict(one.state_dict())
    assert len(list(taken(again, BATCHES[-2:]))) == 1
    with pytest.warns(FallbackWarning, match="fewer than a pool"):
        list(taken(again, BATCHES[-2:]))


def test_states_of_something_else():
    with pytest.raises(ValueError, match="state must be what state_dict.*lacks.*'switch'"):
        sampling().load_state_dict({})


# Models that take or give something else


class OneArgument(nn.Module):
    """Takes a mapping or a tuple as one argument."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        return self.head(sum(batch.values() if isinstance(batch, dict) else batch))


@pytest.mark.parametrize("kind", ["mapping", "tuple"])
@pytest.mark.parametrize("options", [{}, ALWAYS], ids=["uniform", "chosen"])
def test_a_model_of_one_argument(kind, options):
    """Told at the first batch, with the cure; and the cure works."""
    make = {"mapping": lambda x: {"a": x, "b": x}, "tuple": lambda x: (x, x)}[kind]
    data, model = [(make(x), y) for x, y in BATCHES], OneArgument()
    one = sampling(model, **options)
    with pytest.raises(ValueError, match=r"OneArgument does not.*get_inputs=lambda batch: \(batch"):
        go(one, model, one(data))
    assert one.steps == 1
    one = sampling(model, get_inputs=lambda batch: (batch[0],), **options)
    go(one, model, one(data))


def test_inputs_that_a_hook_rearranges():
    """A model that takes them after all is left alone."""
    model = OneArgument()
    model.register_forward_pre_hook(
        lambda _, args, kwargs: ((kwargs or args[0],), {}), with_kwargs=True
    )
    one = sampling(model)
    go(one, model, one([({"a": x, "b": x}, y) for x, y in BATCHES]))
    assert model.calls == len(BATCHES) + 1  # the first batch once more


class WithLogits(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = seeded(mlp, 0)

    def forward(self, x):
        return SimpleNamespace(logits=self.net(x))


@pytest.mark.parametrize("score", ["bound", "loss", "gradient_norm"])
@pytest.mark.filterwarnings("ignore:torch.func cannot batch")
def test_outputs_with_logits(score):
    """A loss of torch gets the logits; any other one must take the output apart."""
    model, found = WithLogits(), []
    for whole in (False, True):
        one = sampling(model, ce, score=score, **ALWAYS)
        for x, y in one(BATCHES):
            output = model(x)
            found.append(one.loss(output if whole else output.logits, y).item())
    assert found[:4] == found[4:]
    one = sampling(model, nn.NLLLoss(reduction="none"), score=score, **ALWAYS)
    with pytest.raises(ValueError, match="loss_fn must take what the model returns.*output.logits"):
        next(one(BATCHES))


def test_a_column_of_outputs():
    """The classic that makes a matrix of losses."""
    model, one = nn.Linear(4, 1), sampling(loss_fn=nn.MSELoss(reduction="none"))
    with pytest.raises(ValueError, match=r"got \(8, 1\) and \(8,\).*squeeze"):
        go(one, model, one(BATCHES), lambda y: y.float())


def test_frozen_norms_that_the_loop_thaws():
    model = seeded(norm_mlp, 0)
    one = sampling(model, batch_norm="frozen", **ALWAYS)
    with pytest.warns(FallbackWarning, match="not in every step") as caught:
        go(one, lambda x: model.train()(x), one(BATCHES))
    assert len(caught) == 1
    one = sampling(model, batch_norm="frozen", **ALWAYS)
    for x, y in one(BATCHES):
        one.loss(model(x), y)
        model.eval()  # a validation in between
        model.train()


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presample": "3"}, "presample must be above 1.*got '3'"),
        ({"tau_threshold": "2"}, "tau_threshold must be at least 1.*got '2'"),
        ({"batch_size": 2.5}, "batch_size must be a whole number.*got 2.5"),
        ({"amortize": 1.5}, "amortize must be at least 1.*got 1.5"),
        ({"accumulate": 1.5}, "accumulate must be a whole number, at least 1; got 1.5"),
        ({"weight_power": "half"}, "weight_power must be a finite number; got 'half'"),
        ({"seed": "one"}, "seed must be a whole number; got 'one'"),
        ({"replay": 3}, "replay must be switches.*got 3"),
        ({"replay": [1, 2]}, r"replay must be switches.*got \[1, 2\]"),
        ({"replay": [[5, True], [0, False]]}, "in the order of the steps"),
    ],
    ids=str,
)
@pytest.mark.untyped
def test_options_of_another_kind(options, message):
    with pytest.raises(ValueError, match=message):
        sampling(**options)


@pytest.mark.untyped
def test_what_is_no_model_or_no_loss():
    for model, loss_fn in ((seeded(mlp, 0), None), (lambda x: x, losses)):
        with pytest.raises(ValueError, match="model must be a torch.nn.Module and loss_fn a func"):
            ImportanceSampling(model, loss_fn)


def test_numbers_out_of_range():
    model, (x, y) = seeded(mlp, 0), BATCHES[0]
    with pytest.raises(ValueError, match="at least one example; got none"):
        gradient_norms(model, losses, x[:0], y[:0])
    with pytest.raises(ValueError, match="draws must be at least 1 per pool, or None; got 0"):
        diagnose(model, losses, BATCHES, draws=0)
    for value in (float("nan"), -1.0, float("inf")):
        with pytest.raises(ValueError, match="scores must be finite and not negative; got"):
            equivalent_batch(torch.tensor([1.0, value]))


# Orders of the data


def test_ranks_belong_to_rows():
    data = TensorDataset(*(torch.cat(part) for part in zip(*BATCHES, strict=True)))
    model = seeded(mlp, 0)
    expected = rank_examples(model, losses, BATCHES).scores
    ordered = BatchSampler(SequentialSampler(data), 10, drop_last=False)
    for loader in (DataLoader(data, 10), DataLoader(data, batch_sampler=ordered)):
        assert torch.allclose(rank_examples(model, losses, loader).scores, expected)
    assert len(rank_examples(model, losses, DataLoader(Subset(data, range(9)), 4)).scores) == 9
    with pytest.raises(ValueError, match="drop_last=True.*Pass drop_last=False"):
        rank_examples(model, losses, DataLoader(data, 10, drop_last=True))
    for options in (
        {"shuffle": True},
        {"sampler": SubsetRandomSampler(range(96))},
        {"sampler": WeightedRandomSampler([1.0] * 96, 96)},
        {"batch_sampler": BatchSampler(RandomSampler(data), 4, drop_last=False)},
    ):
        with pytest.raises(ValueError, match="fixed order of the data.*shuffle=False and no"):
            rank_examples(model, losses, DataLoader(data, **options))
