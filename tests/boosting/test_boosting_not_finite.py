"""Numbers that are not finite end a run with a status, and with the rounds before them."""

import json
import math

import pytest
import torch
from boosted import agrees, boost, data, tower
from killed_boosting import run
from look_alikes import VisionResNet
from test_boosting_stops import learn
from test_boosting_train import images
from torch import nn

from lowland.errors import OutcomeError
from lowland.results import Status, plain
from small_networks import seeded


def breaks(name, how):
    """An oracle that breaks one block."""

    def oracle(values, target, previous, alpha, block, head):
        learn(values, target, block, head)
        if block.name == name:
            with torch.no_grad():
                how(block, head)

    return oracle


def check(result, name, count, tmp_path):
    """Status, message, no number that is none; it can be saved."""
    assert result.status is Status.NOT_FINITE
    assert result.message.startswith(f"{name}: ")
    assert len(result.rounds) == count
    numbers = json.dumps(result.record(), allow_nan=False)
    assert json.loads(numbers) == plain(result.record())
    assert all(math.isfinite(value) for found in result.rounds for value in vars(found).values()
               if isinstance(value, float))  # fmt: skip
    assert any(result.save(tmp_path / "saved").iterdir())
    assert all(weight.isfinite().all() for weight in result.model.state_dict().values())
    with pytest.raises(OutcomeError, match=name):
        result.raise_for_status()


def test_a_learning_rate_that_is_far_too_large(tmp_path):
    """The first block cannot even begin; the weights of the last check before are there."""

    def wild(params):
        return torch.optim.SGD(params, 1e300)

    result = boost(tower(2), data(40), optimizer=wild)
    check(result, "stem", 0, tmp_path)
    assert result.certified is None
    assert "Lower the learning rate" in result.message


@pytest.mark.parametrize("stop", ["fixed", "paper"])
def test_in_a_later_block(stop, tmp_path):
    """The blocks from there on are the identity: the model is what the round before certified."""
    model, rates = tower(3), iter([0.02, 0.02, 1e300, 0.02])

    def optimizer(params):
        if sum(p.numel() for p in params) == sum(p.numel() for p in model.parameters()):
            return torch.optim.SGD(params, 1.0)  # only to look at its settings
        return torch.optim.SGD(params, next(rates))

    result = boost(model, data(40), optimizer=optimizer, stop=stop, epochs=3)
    check(result, "2", 2, tmp_path)
    assert "ends with 1; behind it is the identity" in result.message
    assert result.certified is result.rounds[1]
    agrees(model, data(40), result)


def test_an_oracle_that_returns_no_number(tmp_path):
    """Outputs that are not finite, found by the statistics."""

    def how(block, head):
        head.get_submodule("4").weight.fill_(torch.inf)

    model = tower(3)
    result = boost(model, data(40), oracle=breaks("2", how))
    check(result, "2", 2, tmp_path)
    assert "outputs of the head must be finite; " in result.message
    agrees(model, data(40), result)


def test_features_that_do_not_fit(tmp_path):
    """Finite logits from features that float16 cannot hold: what comes next cannot be trained."""

    def how(block, head):
        last = block.parts[0].get_submodule("1").linear2
        last.bias[0] += 1e6
        head.get_submodule("4").weight[:, 0] = 0

    model = tower(3)
    result = boost(model, data(40), oracle=breaks("1", how), cache_dtype="float16", cache="host")
    check(result, "2", 2, tmp_path)
    assert "behind 1, features must be finite" in result.message
    assert result.certified is result.rounds[1]
    agrees(model, data(40), result, abs=1e-3)


def test_blocks_that_cannot_be_the_identity_leave_no_certificate(tmp_path):
    model = seeded(VisionResNet, 0)

    def how(block, head):
        for weight in head.parameters():
            weight.fill_(torch.nan)

    result = boost(model, images(dtype=torch.float32), oracle=breaks("layer1.1", how))
    check(result, "layer1.1", 2, tmp_path)
    assert not result.is_whole
    assert result.certified is None
    assert not result.record()["is_whole"]


def test_all_together(tmp_path):
    def wild(params):
        return torch.optim.SGD(params, 1e300)

    result = boost(tower(2), data(40), optimizer=wild, schedule="parallel")
    check(result, "all modules together", 0, tmp_path)


def test_a_folder_says_the_same_again(tmp_path):
    def optimizer(params):
        return torch.optim.SGD(params, 1e300)

    first = run(tmp_path / "out", optimizer=optimizer)
    again = run(tmp_path / "out", optimizer=optimizer)
    assert first.status is again.status is Status.NOT_FINITE
    assert first.message == again.message


def test_inputs_that_are_no_numbers():
    """Bad data is refused before anything is trained."""
    batches = data(40)
    batches[2][0][1, 1] = torch.nan
    model = tower(1)
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(FloatingPointError, match="features must be finite.*at the input"):
        boost(model, batches)
    assert all(map(torch.equal, before, model.parameters()))


def test_the_exponential_loss_under_label_noise():
    """A third of the labels is wrong: nothing overflows, in float32 too."""
    draws = torch.Generator().manual_seed(0)
    batches = []
    for x, y in data(120, dtype=torch.float32):
        wrong = torch.rand(len(y), generator=draws) < 1 / 3
        batches.append((x, torch.where(wrong, (y + 1) % 3, y)))
    model = tower(3).float()
    far = nn.Sequential(*list(model)[:-1], nn.Linear(6, 3))
    with torch.no_grad():
        far[-1].weight.mul_(100)  # cross-entropies far above 20 at first
    result = boost(far, batches, objective="exp", epochs=6)
    assert result.status is Status.FINISHED
    agrees(far, batches, result, abs=1e-5)
