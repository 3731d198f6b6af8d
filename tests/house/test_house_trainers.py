"""A driver that trains changes weights and running statistics, and nothing else."""

import pytest
import torch
from rooms import ROOMS, example
from test_house_drivers import lived_in
from trials import loader

from lowland.training import norm_layers
from small_networks import generators, losses, same, snapshot

TRAINERS = {
    driver.__name__: example(room).DRIVERS[driver]
    for room in ROOMS
    for driver in example(room).TRAINS
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning"),
    pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning"),
    # of torch, for a model that is cut into parts
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]


def fixed(model):
    """The bits that no training may touch: what is frozen, and buffers that are no statistics."""
    moves = {name for name, value in model.named_parameters() if value.requires_grad}
    moves |= {f"{layer}.{name}" for layer, norm in norm_layers(model).items()
              for name, _ in norm.named_buffers()}  # fmt: skip
    return {name: bits for name, bits in snapshot(model)["bits"].items() if name not in moves}


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_changes_only_the_weights(name):
    """Identities, modes, hooks, gradients, momentum, what is frozen, tables, generators stay."""
    model, batches = lived_in(), loader(generator=torch.Generator())
    before, bits = snapshot(model), fixed(model)
    drawn = generators(), batches.generator.get_state()
    TRAINERS[name](model, losses, batches)
    after = snapshot(model)
    assert not same(after.pop("bits"), before.pop("bits"))
    assert same(after, before)
    assert {"0.bias", "count"} <= set(bits)
    assert same(fixed(model), bits)
    assert same((generators(), batches.generator.get_state()), drawn)


@pytest.mark.parametrize("name", TRAINERS)
def test_also_after_an_error(name):
    """Modes, hooks, gradients and generators come back where a forward pass gives up."""
    model, batches, calls = lived_in(), loader(generator=torch.Generator()), 0

    def gives_up(module, inputs):
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls > 1:
            raise ZeroDivisionError("enough")

    model[3].register_forward_pre_hook(gives_up)
    before = snapshot(model)
    drawn = generators(), batches.generator.get_state()
    with pytest.raises(ZeroDivisionError, match="enough"):
        TRAINERS[name](model, losses, batches)
    after = snapshot(model)
    assert same({**after, "bits": {}}, {**before, "bits": {}})
    assert same((generators(), batches.generator.get_state()), drawn)
