"""When a round ends, and what becomes of it: rules replayed by hand, the model measured anew."""

from copy import deepcopy

import pytest
import torch
from boosted import adam, agrees, batched, boost, chain_of, data, examples, outputs, still, tower
from look_alikes import Classifier, VisionResNet
from test_boosting_train import images, texts
from torch import nn

from lowland.boosting.endings import take_out
from lowland.boosting.stops import is_flat, stop_rule
from lowland.results import Status
from small_networks import same, seeded


def test_the_paper_stops_early():
    """As soon as gamma exceeds the threshold; only rounds that fail spend the whole budget."""
    model, batches = tower(), data(40)
    result = boost(model, batches, stop="paper", gamma_threshold=0.2, epochs=30)
    for found in result.rounds:
        gammas = [row["gamma"] for row in found.curve]
        assert all(gamma <= 0.2 for gamma in gammas[:-1])
        assert found.gamma == gammas[-1]
        assert (found.status == "kept") == (gammas[-1] > 0.2)
        assert found.gamma > 0.2 or len(gammas) == 30
    assert len(result.rounds[0].curve) < 30
    agrees(model, batches, result)


def test_a_start_above_every_edge_makes_the_first_round_spend_its_budget():
    """As the paper's 0.93; with a threshold far below 0 it is kept."""
    rounds = [
        boost(tower(1), data(40), stop="paper", edge_start=0.7, gamma_threshold=least).rounds
        for least in (0.5, -0.985)
    ]
    assert [len(found[0].curve) for found in rounds] == [4, 1]
    assert [found[0].status for found in rounds] == ["flagged", "kept"]
    assert rounds[0][0].gamma < 0


@pytest.mark.parametrize("alpha", ["closed", "line_search"])
def test_gamma_and_b2_use_the_closed_alpha(alpha):
    """The chain of edges does not know what alpha the user chose; with it, L and B0 differ."""
    found = boost(tower(), data(40), alpha=alpha).rounds
    closed = boost(tower(), data(40)).rounds
    for one, other in zip(found, closed, strict=True):
        for name in ("edge", "gamma", "alpha_closed", "covariance", "step_ratio"):
            assert getattr(one, name) == getattr(other, name)
        assert one.bounds["B2"] == other.bounds["B2"]
        assert (one.alpha == one.alpha_closed) == (alpha == "closed")
        assert one.bounds["B0"] == one.loss <= other.loss + 1e-12


def test_plateau_and_validation():
    """Two checks without progress; both replayed from the curves."""
    spare = data(24, seed=1)
    for stop, options in (("plateau", {}), ("validation", {"validation_batches": spare})):
        result = boost(tower(), data(40), stop=stop, epochs=25, check_every=2, **options)
        name = "train_loss" if stop == "plateau" else "validation_error"
        for found in result.rounds:
            values = [row[name] for row in found.curve]
            flat = [is_flat(values[:k], 0.01 * (stop == "plateau")) for k in range(1, len(values))]
            assert not any(flat)
            assert found.curve[-1]["epoch"] == 25 or is_flat(values, 0.01 * (stop == "plateau"))
        assert any(found.curve[-1]["epoch"] < 25 for found in result.rounds)


def test_flat_by_hand():
    assert not is_flat([3.0, 3.0], 0.01)
    assert is_flat([3.0, 3.0, 2.98], 0.01)
    assert not is_flat([3.0, 3.0, 2.96], 0.01)
    assert not is_flat([0.2, 0.3, 0.1], 0.0)
    assert is_flat([0.2, 0.3, 0.2], 0.0)


def test_a_function_stops():
    """It is shown gamma, edge and the exponential loss after each check."""
    seen = []

    def enough(rows):
        seen.append(sorted(rows[-1]))
        return len(rows) == 2

    rounds = boost(tower(), data(40), stop=enough, epochs=9).rounds
    assert [len(found.curve) for found in rounds] == [2] * 4
    assert {"edge", "exponential_loss", "gamma", "train_loss"} <= set(seen[0])
    with pytest.raises(ValueError, match="stop must be one of.*got 'soon'"):
        stop_rule("soon", 0.0)


def against(values, target, previous, alpha, block, head):
    """An oracle that makes the worst of the second block and of the last one, else learns."""
    if block.name in ("2", "4") and previous is not None:
        with torch.no_grad():
            block.parts[0]._modules[block.name].linear2.weight.normal_(0, 9, generator=draws())
            for weight in head.parameters():
                weight.neg_()
        return
    learn(values, target, block, head)


def draws():
    return torch.Generator().manual_seed(4)


def learn(values, target, block, head):
    block.train()
    optimizer = torch.optim.Adam([*block.parameters(), *head.parameters()], 0.02)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(*block(*values)), target).backward()
        optimizer.step()


@pytest.mark.parametrize("drop", [False, True])
def test_a_block_that_ruins_all_is_put_back(drop):
    """The identity, or taken out; the certified round is the one before."""
    model, batches = tower(), data(40)
    keys = [*model.state_dict()]
    chain = chain_of(model, batches)
    result = boost(model, batches, stop="paper", oracle=against, drop=drop, chain=chain)
    word = "dropped" if drop else "identity"
    assert [found.status for found in result.rounds][:3] == ["kept", "kept", word]
    assert result.certified is [found for found in result.rounds if found.counts][-1]
    agrees(model, batches, result)
    failed = [found.name for found in result.rounds if found.status == word]
    assert failed
    gone = [key for key in keys if key.split(".")[0] in failed]
    assert [*model.state_dict()] == [key for key in keys if not (drop and key in gone)]
    if drop:
        assert all(isinstance(model.get_submodule(name), nn.Identity) for name in failed)
    else:
        x = torch.randn(5, 6, dtype=torch.float64, generator=draws())
        assert all(torch.equal(model.eval().get_submodule(name)(x), x) for name in failed)
    model.eval()
    with torch.no_grad():
        assert torch.equal(chain(batches[0][0]), model(batches[0][0]))


def test_a_block_that_was_put_back_can_learn_again():
    """Only its last layer is zero."""
    model, batches = tower(), data(40)
    result = boost(model, batches, stop="paper", oracle=against)
    name = next(found.name for found in result.rounds if found.status == "identity")
    block = model.get_submodule(name)
    assert block.linear1.weight.abs().sum() > 0
    assert not block.linear2.weight.any()


def test_fixed_never_rejects():
    """An edge that is not positive: flagged, alpha 0, bounds void; the weights stay."""
    model, batches, kept = tower(), data(40), {}

    def ruins(values, target, previous, alpha, block, head):
        learn(values, target, block, head)
        if block.name == "3":
            with torch.no_grad():
                for weight in head.parameters():
                    weight.neg_()
            kept["3"] = deepcopy(block.state_dict())

    result = boost(model, batches, oracle=ruins)
    last = result.rounds[-1]
    assert last.status == "flagged"
    assert last.edge <= 0
    assert last.alpha == 0
    assert last.bounds == {"B0": None, "B1": None, "B2": None}
    assert result.certified is last
    assert same([*kept["3"].values()], [*model[3].state_dict().values()])
    assert agrees(model, batches, result).loss == 2.0
    assert result.record()["rounds"][-1]["margins"][0][2] is None


def test_blocks_that_cannot_be_the_identity_are_flagged():
    """A stage that begins with another shape; a head of another kind."""
    batches = images(dtype=torch.float32)

    def ruins(values, target, previous, alpha, block, head):
        learn(values, target, block, head)
        if block.name == "layer2.0":
            with torch.no_grad():
                for weight in head.parameters():
                    weight.mul_(-9)

    model = seeded(VisionResNet, 0)
    result = boost(model, batches, oracle=ruins, stop="paper")
    by_name = {found.name: found for found in result.rounds}
    assert by_name["layer2.0"].status == "flagged"
    assert by_name["layer2.0"].alpha == 0
    agrees(model, batches, result, abs=1e-6)


def test_the_first_round_has_nothing_to_go_back_to():
    def ruins(values, target, previous, alpha, block, head):
        with torch.no_grad():
            head[0].weight.normal_(0, 9) if isinstance(head, nn.Sequential) else None

    result = boost(tower(1), data(40), stop="paper", oracle=ruins, gamma_threshold=0.9)
    assert result.rounds[0].status == "flagged"


def test_an_unchanged_hypothesis_is_rejected():
    """O5: a round that does nothing is put back, whatever it was worth before."""
    model, batches = tower(), data(40)

    def only_first(values, target, previous, alpha, block, head):
        if previous is None:
            learn(values, target, block, head)
            learn(values, target, block, head)

    result = boost(model, batches, stop="paper", oracle=only_first, init="zero")
    assert result.rounds[0].status == "kept"
    assert {found.status for found in result.rounds[1:]} <= {"identity", "flagged"}
    assert result.status is Status.FINISHED
    agrees(model, batches, result)


def test_what_a_model_asks_of_its_blocks_cannot_be_taken_out():
    """Keyword arguments, a tuple: the block stays, as the identity if it can be."""
    model, batches = seeded(Classifier, 0).double(), texts(True)
    chain = chain_of(model, batches)
    before, keys = outputs(model, batches)[0], [*model.state_dict()]
    assert not take_out(model, chain.parts[1:2], batches[0][0])
    assert [*model.state_dict()] == keys
    assert torch.equal(outputs(model, batches)[0], before)


def test_the_identity_is_proved_on_all_data():
    """A block that is the identity on the first batch only is not put back."""
    x, y = examples(40)
    x = torch.cat([x[:8].abs(), x[8:]])

    class Rectified(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return torch.relu(x + self.linear(x))

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return x + self.linear(x)

    def ruins(values, target, previous, alpha, block, head):
        learn(values, target, block, head)
        if block.name == "1":
            with torch.no_grad():
                for weight in head.parameters():
                    weight.mul_(-3)

    blocks = nn.ModuleDict({"a": Plain(), "b": Rectified()})
    model = nn.Sequential(nn.Sequential(blocks["a"]), nn.Sequential(blocks["b"]), nn.Linear(4, 3))
    batches = batched(x, y)
    result = boost(model.double(), batches, oracle=ruins, stop="paper", optimizer=adam())
    assert result.rounds[1].status == "flagged"
    agrees(model, batches, result)
    assert boost(tower(1), data(40), optimizer=still, stop="paper").rounds[1].status != "dropped"
