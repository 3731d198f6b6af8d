"""What each option promises, held to something that is known without it."""

import pytest
import torch
from boosted import agrees, batched, boost, chain_of, data, examples, outputs, tower
from look_alikes import VisionResNet, VisionTransformer
from test_boosting_stops import learn
from test_boosting_train import images
from torch import nn

from lowland.boosting import RandomFeatures, TreeBlock, as_chain, certificate, l1_norms
from lowland.errors import FallbackWarning, UnsupportedModelError
from lowland.results import Status
from small_networks import same, seeded

CACHES = ("device", "host", "disk")


def test_places_of_the_cache_give_the_same_bits(tmp_path):
    """And the batches of the user, recomputed, give the same statistics for the same weights."""
    states, losses = [], []
    for cache in CACHES:
        model = tower(drop=0.2)
        rounds = boost(model, data(40), cache=cache, cache_folder=tmp_path).rounds
        states.append(model.state_dict())
        losses.append([found.loss for found in rounds])
    assert same(states[0], states[1])
    assert same(states[0], states[2])
    assert losses[0] == losses[1] == losses[2]
    frozen = [tower().requires_grad_(requires_grad=False) for _ in range(2)]
    found = [boost(model, data(40), cache=cache).rounds for model, cache in
             zip(frozen, ("host", "recompute"), strict=True)]  # fmt: skip
    for one, other in zip(*found, strict=True):
        assert (one.edge, one.loss, one.covariance) == (other.edge, other.loss, other.covariance)
        assert one.cache_bytes > other.cache_bytes == 0


def test_sample_weights_are_repeated_examples():
    """Weight 2 is the same example twice, in all statistics of frozen blocks."""
    x, y = examples(40)
    weights = 1.0 + (torch.arange(40) % 3)
    twice = torch.repeat_interleave(torch.arange(40), weights.long())
    found = []
    for batches, given in ((batched(x, y), 5 * weights), (batched(x[twice], y[twice]), None)):
        model = tower().requires_grad_(requires_grad=False)
        result = boost(model, batches, sample_weights=given)
        agrees(model, batches, result, given)
        found.append(result.rounds)
    for one, other in zip(*found, strict=True):
        for name in ("edge", "gamma", "alpha", "loss", "covariance", "train_error"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12)


def test_the_scale_of_sample_weights_means_nothing():
    """All equal is none at all; examples of weight 0 are not learned."""
    plain, scaled, part = tower(), tower(), tower()
    options = {"optimizer": lambda params: torch.optim.SGD(params, 0.3)}
    boost(plain, data(40), **options)
    boost(scaled, data(40), sample_weights=torch.full((40,), 8.0), **options)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[name], value, rtol=0, atol=1e-12)
    x, y = examples(40)
    y = torch.where(torch.arange(40) < 20, y, (y + 1) % 3)
    weights = (torch.arange(40) < 20).double()
    boost(part, batched(x, y), sample_weights=weights, epochs=40)
    logits, _ = outputs(part, [(x, y)])
    assert (logits.argmax(1) == y)[:20].double().mean() > 0.9


def test_evaluation_batches_carry_the_weights():
    x, y = examples(40)
    weights = torch.linspace(0.1, 3, 40, dtype=torch.float64)
    model = tower()
    result = boost(model, batched(x, y), sample_weights=weights, evaluation_batches=[(x, y)])
    agrees(model, [(x, y)], result, weights)


def test_two_classes():
    """C = 2: K = 1, and the multi-class statistics of a model with two outputs."""
    model, batches = tower(classes=2), data(40, classes=2)
    result = boost(model, batches)
    agrees(model, batches, result)
    last = result.rounds[-1]
    assert last.loss < 1
    logits, target = outputs(model, batches)
    signs, gap = 2.0 * target - 1, logits.softmax(1) @ torch.tensor([-1.0, 1.0]).double()
    assert last.loss == pytest.approx(float((-last.alpha * signs * gap).exp().mean()))


class Augmented(torch.utils.data.Dataset):
    """A little noise from the global generator."""

    def __init__(self, count):
        self.x, self.y = examples(count)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        noise = 0.05 * torch.randn(4, dtype=torch.float64)
        return self.x[index] + noise, self.y[index]


def test_augmented_data():
    """Recomputed, with a warning; or so many views; statistics are those of the first pass."""
    clean = [examples(40)]
    loader = torch.utils.data.DataLoader(Augmented(40), 8, shuffle=True)
    with pytest.warns(FallbackWarning, match="Pass views=R"):
        result = boost(tower(), loader)
    assert "are not kept" in result.cache
    one, other = (boost(tower(), loader, views=3) for _ in range(2))
    assert "3 views of each" in one.cache
    assert same(one.model.state_dict(), other.model.state_dict())
    model = tower()
    result = boost(model, loader, views=3, evaluation_batches=clean)
    agrees(model, clean, result)


@pytest.mark.parametrize("options", [{"cache_dtype": "bfloat16"}, {"precision": "bf16"}])
def test_half_precision(options):
    """Rounded features give rounded numbers; in training alone the statistics stay exact."""
    model, batches = tower(2).float(), data(40, dtype=torch.float32)
    result = boost(model, batches, cache="host", **options)
    assert result.status is Status.FINISHED
    agrees(model, batches, result, abs=0.05 if "cache_dtype" in options else 1e-5)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("refine_epochs", [0, 1])
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_l1_is_held_at_the_end(refine_epochs, schedule):
    model = tower(2)
    assert max(l1_norms(model).values()) > 0.7
    boost(model, data(40), l1=0.7, refine_epochs=refine_epochs, schedule=schedule)
    assert max(l1_norms(model).values()) <= 0.7 + 1e-12


class Placed(nn.Module):
    """A residual block whose kernels have their inputs first, and a table that no unit reads by."""

    def __init__(self):
        super().__init__()
        self.spread = nn.ConvTranspose1d(4, 4, 3, padding=1)
        self.places = nn.Parameter(torch.ones(1, 4, 4))

    def forward(self, x):
        return x + self.spread(x + self.places)


@pytest.mark.parametrize("refine_epochs", [0, 1])
def test_l1_is_held_for_what_a_unit_receives(refine_epochs):
    """Along the inputs of a transposed kernel; a table of places has no units."""
    torch.manual_seed(0)
    model = nn.Sequential(Placed(), Placed(), nn.Flatten(), nn.Linear(16, 3)).double()
    batches = [(x[:, :, None].expand(-1, -1, 4), y) for x, y in data(40)]
    boost(model, batches, l1=0.5, init="default", refine_epochs=refine_epochs)
    assert max(l1_norms(model).values()) <= 0.5 + 1e-12
    assert model[0].places.abs().sum() > 10


def test_l1_of_weights_that_are_computed_is_refused():
    model = tower(2)
    nn.utils.parametrizations.weight_norm(model[1].linear1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnsupportedModelError, match="weights must be plain parameters.*linear1"):
        boost(model, data(40), l1=0.7)
    assert same(dict(model.state_dict()), before)


def test_transport_keeps_residuals_small():
    """The smaller tau, the less a block moves its input."""
    moved = []
    for tau in (None, 1.0, 0.01):
        model, batches = tower(), data(40)
        boost(model, batches, transport=tau, init="default", epochs=10)
        chain = chain_of(model.eval(), batches)
        with torch.no_grad():
            values = chain.parts[0](*chain.values(examples(40)[0]))
            moved.append(float((chain.parts[1](*values)[0] - values[0]).norm()))
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.3 * moved[0]


def test_modules_of_two():
    model, batches = tower(4), data(40)
    result = boost(model, batches, module_size=2)
    assert [found.name for found in result.rounds] == ["stem + 1", "2 + 3", "4"]
    assert [found.module_updates // found.updates for found in result.rounds] == [2, 2, 1]
    agrees(model, batches, result)


def test_parallel_blocks_do_not_see_each_other():
    """Each has the gradient of its own head on features without a graph."""
    model, batches = tower(2), [examples(40)]
    twin = tower(2)
    rate = 0.1
    options = {"optimizer": lambda params: torch.optim.SGD(params, rate), "epochs": 1}
    result = boost(
        model, batches, schedule="parallel", init="default", batch_size=40, cache="recompute",
        **options,
    )  # fmt: skip
    agrees(model, batches, result)
    assert [found.updates for found in result.rounds] == [1] * 3
    chain = as_chain(twin, batches[0][0])
    x, y = batches[0]
    values, last = chain.values(x), len(chain.parts) - 1
    twin.train()
    for index, part in enumerate(chain.parts):
        values = part(*(value.detach() for value in values))
        if index == last:
            nn.functional.cross_entropy(chain.head(*values), y).backward()
    for name in ("2.linear1.weight", "3.weight"):
        weight = twin.get_parameter(name)
        torch.testing.assert_close(
            model.get_parameter(name), weight - rate * weight.grad, rtol=0, atol=1e-14
        )
    assert model.get_parameter("1.linear1.weight").ne(twin.get_parameter("1.linear1.weight")).any()


def test_parallel_begins_with_identities():
    model, batches = tower(), data(40)
    result = boost(model, batches, schedule="parallel", optimizer=lambda p: torch.optim.SGD(p, 0.0))
    assert all(not block.linear2.weight.any() for block in list(model)[1:-1])
    agrees(model, batches, result)


HEADS = ["plain", "deep", "deep-2", "downstream", "downstream-2", "function"]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", [VisionResNet, VisionTransformer])
def test_heads_of_all_kinds(head, kind):
    """The last round has the model's own head, so that the model is what it certifies."""
    model, batches = seeded(kind, 0).double(), images()

    def function(values, classes):
        middle = nn.AdaptiveAvgPool1d(1), nn.Flatten()
        return nn.Sequential(nn.Flatten(2), *middle, nn.LazyLinear(classes).double())

    head = function if head == "function" else head
    result = boost(model, batches, head=head, epochs=2, exits=True)
    assert result.status is Status.FINISHED
    agrees(model, batches, result)


def test_released_objective():
    """It is a poor one; it learns something on large batches all the same."""
    model, batches = tower(2), [examples(200)]
    result = boost(model, batches, objective="released", batch_size=200, epochs=60)
    agrees(model, batches, result)
    assert result.rounds[-1].train_error < 0.55
    better = boost(tower(2), batches, batch_size=200, epochs=60).rounds[-1]
    assert better.train_error < result.rounds[-1].train_error


def test_exponential_objective_lowers_its_loss():
    model, batches = tower(), data(80)
    result = boost(model, batches, objective="exp", epochs=8)
    losses = [found.loss for found in result.rounds]
    assert losses[-1] < losses[0] < 2
    agrees(model, batches, result)


def test_blocks_without_gradient_among_others():
    """Random features and a tree between ordinary blocks: the loss falls at every depth."""
    draws = torch.Generator().manual_seed(0)
    net = tower(2)
    model = nn.Sequential(
        net[0], net[1], RandomFeatures(6, 32, generator=draws).double(),
        TreeBlock(6, depth=3).double(), net[2], net[3],
    )  # fmt: skip
    batches = data(120)
    chain = as_chain(model, batches[0][0], blocks=["1", "2", "3", "4"])
    result = boost(model, batches, chain=chain, epochs=10)
    assert [found.name for found in result.rounds] == ["stem", "1", "2", "3", "4"]
    assert [found.updates > 0 for found in result.rounds] == [True, True, False, False, True]
    agrees(model, batches, result)
    losses = [found.loss for found in result.rounds]
    assert losses[3] < losses[2] < losses[1]


def test_only_blocks_without_gradient():
    """From the first on: its head has to be fitted before it can say where to go."""
    draws = torch.Generator().manual_seed(0)
    blocks = [RandomFeatures(4, 64, generator=draws).double() for _ in range(3)]
    model = nn.Sequential(nn.Flatten(), *blocks, nn.Linear(4, 3).double())
    batches = data(120)
    chain = as_chain(model, batches[0][0], blocks=["1", "2", "3"])
    result = boost(model, batches, chain=chain, test_batches=data(60, seed=1))
    errors = [found.train_error for found in result.rounds]
    assert errors[-1] < 0.3
    losses = [found.loss for found in result.rounds]
    assert losses == sorted(losses, reverse=True)
    agrees(model, batches, result)


def test_an_oracle_is_told_what_was_before():
    """Values, classes, the simplex rows and the alpha of the round before, for all examples."""
    seen = []

    def oracle(values, target, previous, alpha, block, head):
        seen.append((values, target, previous, alpha))
        torch.randn(3)
        learn(values, target, block, head)

    model, batches = tower(2), data(40)
    result = boost(model, batches, oracle=oracle, exits=True)
    chain = chain_of(model.eval(), batches)
    values, before = (torch.cat([x for x, _ in batches]),), None
    for part, head, found, told in zip(chain.parts, result.exits, result.rounds, seen, strict=True):
        assert torch.equal(told[0][0], values[0])
        assert torch.equal(told[1], torch.cat([y for _, y in batches]))
        if before is not None:
            torch.testing.assert_close(told[2], before, rtol=0, atol=1e-14)
        with torch.no_grad():
            values = part(*values)
            before = head(*values).softmax(1)
        found_alpha = certificate(before, told[1]).alpha if told[2] is None else found.alpha
        assert found.alpha_closed == pytest.approx(found_alpha, abs=1e-12)
    assert [told[3] for told in seen[1:]] == [found.alpha_closed for found in result.rounds[:-1]]


def test_recalibrated_norms_have_the_statistics_of_the_data():
    """Of the features that enter a block, with its final weights."""
    model, batches = tower(1), [examples(40)]
    boost(model, batches, recalibrate=True, batch_size=40)
    model.eval()
    with torch.no_grad():
        inside = model[1].linear1(model[0](batches[0][0]))
    torch.testing.assert_close(model[1].norm.running_mean, inside.mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(model[1].norm.running_var, inside.var(0), rtol=0, atol=1e-12)


def test_test_data_and_a_rate_schedule():
    model, batches, spare = tower(1), data(40), data(40, seed=3)
    result = boost(
        model, batches, test_batches=spare,
        rate_schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1 / (1 + step)
        ),
    )  # fmt: skip
    logits, target = outputs(model, spare)
    last = result.rounds[-1]
    assert last.test_error == pytest.approx(float((logits.argmax(1) != target).double().mean()))
    loss = float(nn.functional.cross_entropy(logits, target))
    assert last.test_loss == pytest.approx(loss, rel=1e-6)
    assert last.curve[-1]["learning_rate"] == pytest.approx(0.02 / (1 + last.updates))


def test_refinement_goes_on_from_the_certified_model():
    """The certificate is about the model before it."""
    model, batches = tower(1), data(40)
    result = boost(model, batches, refine_epochs=3, test_batches=data(16))
    assert len(result.refinement.curve) == 3
    twin = tower(1)
    assert boost(twin, batches, test_batches=data(16)).rounds[-1].loss == result.certified.loss
    assert not same(twin.state_dict(), model.state_dict())
