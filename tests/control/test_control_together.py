"""``Together`` steps both kinds of weights at the learning rates that anybody's schedule sets."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lowland.control import (
    DiscreteMSA,
    Together,
    discrete_parameters,
    discretize,
    float_parameters,
    train_msa,
)
from lowland.errors import NoEffectWarning
from small_networks import class_batches, norm_mlp, seeded

losses = nn.CrossEntropyLoss(reduction="none")
WARMUP = (0.0, 0.5, 1.0, 0.5, 0.0)


def made(factor=None):
    """A model of one float parameter and one discrete one; gradients are 1 at every step."""
    model = discretize(nn.Sequential(nn.Linear(1, 1, bias=True), nn.BatchNorm1d(1, affine=False)))
    floats = torch.optim.SGD(float_parameters(model), lr=0.5)
    return model, Together(DiscreteMSA(discrete_parameters(model)), floats, factor)


def moves(model, optimizer, scheduler=None, steps=5):
    """How far the float goes in each step: its learning rate, as its gradient is 1."""
    found = []
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = model[0].bias.item()
        optimizer.step()
        found.append(before - model[0].bias.item())
        if scheduler is not None:
            scheduler.step()
    return found


def test_a_schedule_of_the_trainer_holds():
    """As Transformers brings it: of all groups, with a warm-up from zero."""
    model, optimizer = made()
    scheduler = LambdaLR(optimizer, lambda step: WARMUP[min(step, 4)])
    assert moves(model, optimizer, scheduler) == pytest.approx([0.5 * part for part in WARMUP])
    assert [group["lr"] for group in optimizer.discrete.param_groups] == [0.0]


def test_a_schedule_holds_after_a_resume():
    model, optimizer = made()
    scheduler = LambdaLR(optimizer, lambda step: WARMUP[min(step, 4)])
    first = moves(model, optimizer, scheduler, steps=2)
    other, resumed = made()
    again = LambdaLR(resumed, lambda step: WARMUP[min(step, 4)])
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    again.load_state_dict(scheduler.state_dict())
    found = first + moves(other, resumed, again, steps=3)
    assert found == pytest.approx([0.5 * part for part in WARMUP])


def test_a_factor_of_its_own_holds():
    model, optimizer = made(lambda step: WARMUP[step])
    assert moves(model, optimizer) == pytest.approx([0.5 * part for part in WARMUP])
    later, resumed = made(lambda step: WARMUP[min(step, 4)])
    resumed.load_state_dict(optimizer.state_dict())
    assert moves(later, resumed, steps=1) == pytest.approx([0.0])


def test_of_two_schedules_the_factor_holds_and_says_so_once():
    model, optimizer = made(lambda step: WARMUP[step])
    scheduler = LambdaLR(optimizer, lambda step: 0.1)
    with pytest.warns(NoEffectWarning, match="by factor or by another schedule, not by both") as w:
        found = moves(model, optimizer, scheduler)
    assert found == pytest.approx([0.5 * part for part in WARMUP])
    assert len(w) == 1


def test_train_msa_takes_a_schedule():
    """At a learning rate of zero the floats stay as they were."""
    model = seeded(norm_mlp, 0)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.ndim == 1}
    train_msa(
        model,
        losses,
        class_batches(4, sizes=(8, 8)),
        epochs=2,
        skip="6",
        schedule=lambda optimizer: LambdaLR(optimizer.floats, lambda step: 0.0),
    )
    assert before
    assert all(torch.equal(model.get_parameter(name), value) for name, value in before.items())


@pytest.mark.parametrize("factor", [None, lambda step: 1.0], ids=["no factor", "factor"])
def test_a_group_that_nobody_would_step_is_refused(factor):
    model, optimizer = made(factor)
    new = nn.Parameter(torch.zeros(1))
    for group in ({"params": [new]}, {"params": [new], "lr": 0.5}):
        with pytest.raises(ValueError, match=r"groups of Together must be those.*Add it to floats"):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 2
    optimizer.floats.add_param_group({"params": [new]})
    again = Together(optimizer.discrete, optimizer.floats, factor)
    new.grad = torch.ones(1)
    assert moves(model, again, steps=1) == pytest.approx([0.5])
    assert new.item() == pytest.approx(-0.5)
