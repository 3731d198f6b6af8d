"""Three lines join two trained networks of every kind, and both come back as they were."""

from copy import deepcopy

import pytest
import torch
from alignable import MODELS, network
from torch.nn.functional import cross_entropy

from lowland.connectivity import Cycle, Schedule, find_path, linear_path, recalibrate
from small_networks import generators, same, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")

QUICK = Schedule(
    (Cycle(10, 0.02, insert="equal", count=2), Cycle(5, 0.01, count=1)),
    samples=1, examples=8, calibration=8,
)  # fmt: skip


def losses(output, target):
    """Of each example; for texts the mean over their tokens."""
    if output.ndim == 2:
        return cross_entropy(output, target, reduction="none")
    return cross_entropy(output.transpose(1, 2), target, reduction="none").mean(1)


def trained(name):
    """Two networks of a kind, trained on the same batch from different weights."""
    start, batches = network(name)
    inputs, target = batches[0]
    if name == "gpt":  # the next token
        inputs, target = inputs[:, :-1], inputs[:, 1:]
    end = deepcopy(start)
    for model, other in ((start, start), (end, network(name, 1)[0])):
        with torch.no_grad():
            for own, given in zip(model.parameters(), other.parameters(), strict=True):
                if own.requires_grad:
                    own.copy_(given)
        moving = [p for p in model.parameters() if p.requires_grad]
        for _ in range(30):
            loss = losses(model(inputs), target).mean()
            slopes = torch.autograd.grad(loss, moving, materialize_grads=True)
            with torch.no_grad():
                torch._foreach_add_(moving, slopes, alpha=-0.02)
    return start, end, [(inputs, target)]


@pytest.mark.parametrize("name", MODELS)
def test_two_networks_are_joined(name):
    """The path begins and ends with the networks bit for bit, and lies no higher than the line."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start, end, batches = trained(name)
    model = deepcopy(start)
    before = snapshot(model), generators()
    line = linear_path(model, losses, batches, start, end, samples=3, calibration=8, backend="loop")
    path = find_path(model, losses, batches, start, end, schedule=QUICK, backend="loop")
    assert same(before, (snapshot(model), generators()))
    assert path.status.name == "FINISHED"
    assert path.saddle <= line.saddle + 1e-6
    for t, minimum in ((0, start), (1, end)):
        found = path.state_dict(t)
        assert same({name: found[name] for name in minimum.state_dict()}, {**minimum.state_dict()})
    pivot = 1
    model.load_state_dict(path.path.layout.views(path.path.pivots[pivot]), strict=False)
    recalibrate(model, batches)
    model.eval()
    with torch.no_grad():
        own = losses(model(batches[0][0]), batches[0][1]).mean()
    measured = path.profile.train_loss[pivot * (QUICK.samples + 1)]
    assert float(own) == pytest.approx(float(measured), rel=1e-4)
