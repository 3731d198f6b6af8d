"""``lowland.boosting.chain``: the parts in their order are the model, and nothing of it moves."""

import copy

import pytest
import torch
from look_alikes import Basic, PlainResNet, TimmResNet, VisionResNet
from torch import nn

from lowland.boosting.chain import as_chain
from lowland.errors import UnsupportedModelError
from lowland.models import build
from small_networks import generators, same, seeded, snapshot


def images(*shape, count=5):
    return torch.randn(count, *shape, dtype=torch.float64)


class Residual(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.inner(x))


def residual_net():
    return nn.Sequential(nn.Flatten(), *[Residual() for _ in range(3)], nn.Linear(4, 3))


def with_stem():
    stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    return nn.Sequential(stem, Residual(), Residual(), nn.Sequential(nn.Tanh(), nn.Linear(4, 3)))


def of_sequences():
    return nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)])


MODELS = {
    "residual": (residual_net, (4,), ["1", "2", "3"], ["4"]),
    "stem": (with_stem, (4,), ["stem", "1", "2"], ["3"]),
    "sequences": (of_sequences, (4,), ["0", "1"], ["2"]),
    "resnet": (
        lambda: build("resnet-8"), (3, 8, 8),
        ["stem", "stage1_block1", "stage2_block1", "stage3_block1"], ["average", "linear"],
    ),
    "wide": (
        lambda: build("wrn-10-1"), (3, 8, 8),
        ["stem", "stage1_block1", "stage2_block1", "stage3_block1"],
        ["norm", "relu", "average", "linear"],
    ),
    "mlp": (
        lambda: build("mlp-4-6-5-3"), (4,), ["linear1", "linear2"], ["linear3"],
    ),
    "cnn": (
        lambda: build("cnn-4x2"), (3, 32, 32), ["conv1", "conv2", "hidden"], ["linear"],
    ),
    "torchvision": (
        VisionResNet, (3, 8, 8),
        ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1"], ["avgpool", "flatten", "fc"],
    ),
    "timm": (
        TimmResNet, (3, 8, 8),
        ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1"], ["global_pool", "fc"],
    ),
    "timm with dropout": (
        lambda: TimmResNet(0.5), (3, 8, 8),
        ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1"], ["global_pool", "fc"],
    ),
    "functions": (
        PlainResNet, (3, 8, 8),
        ["stem", "layer1.0", "layer1.1", "layer2.0", "layer2.1"], ["linear"],
    ),
}  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request):
    make, shape, names, head = MODELS[request.param]
    model = seeded(make, 0).double()
    for module in model.modules():  # statistics as after training
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model, images(*shape), names, head


def test_the_parts(case):
    """Names, logits to the bit, every parameter in exactly one part."""
    model, inputs, names, head = case
    keys = list(model.state_dict())
    chain = as_chain(model, inputs)
    assert [part.name for part in chain.parts] == names
    assert list(chain.head._modules) == head
    assert chain.has_stem == (names[0] == "stem")
    assert list(model.state_dict()) == keys
    model.eval()
    assert torch.equal(chain(inputs), model(inputs))
    found = [id(w) for part in [*chain.parts, chain.head] for w in part.parameters()]
    assert sorted(found) == sorted(map(id, model.parameters()))


def test_the_model_is_left_alone(case):
    model, inputs, *_ = case
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    kept = inputs.clone()
    before, draws = snapshot(model), generators()
    as_chain(model, inputs)
    assert same(snapshot(model), before)
    assert same(generators(), draws)
    assert torch.equal(inputs, kept)


def test_gradients_and_statistics_are_those_of_the_model(case):
    """In training mode too: the parts are the user's modules, not copies."""
    model, inputs, *_ = case
    chain = as_chain(model, inputs)
    other = copy.deepcopy(model)
    model.train()
    other.train()
    torch.manual_seed(1)
    chain(inputs).square().sum().backward()
    torch.manual_seed(1)
    other(inputs).square().sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12), name
    for ours, theirs in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_part_has_the_modes_and_weights_of_its_modules():
    model = seeded(with_stem, 0)
    chain = as_chain(model)
    chain.parts[0].eval()
    assert not model[0].training
    assert not model[0][1].training
    assert model[1].training
    chain.parts[1].requires_grad_(requires_grad=False)
    assert not any(w.requires_grad for w in model[1].parameters())
    assert list(chain.parts[1].state_dict()) == ["1.inner.weight", "1.inner.bias"]


def test_a_stem_without_weights_prepares_the_values():
    chain = as_chain(seeded(residual_net, 0))
    assert chain.values(torch.zeros(5, 2, 2))[0].shape == (5, 4)
    assert len(as_chain(build("mlp-4-6-3")).parts) == 1


def test_named_blocks():
    model = seeded(lambda: build("resnet-20"), 0).double()
    inputs = images(3, 8, 8)
    chain = as_chain(model, inputs, blocks=["stage1_block1", "stage2_block1", "stage3_block1"])
    assert list(chain.parts[1]._modules) == ["stage1_block1", "stage1_block2", "stage1_block3"]
    assert list(chain.parts[3]._modules) == ["stage3_block1"]
    assert torch.equal(chain(inputs), as_chain(model, inputs)(inputs))
    whole = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Residual(), Residual()), nn.Linear(4, 3))
    chain = as_chain(whole, torch.randn(5, 4), blocks="1")
    assert [part.name for part in chain.parts] == ["stem", "1.0", "1.1"]


class Inside(nn.Module):
    """A block that begins with a ReLU in place."""

    def __init__(self):
        super().__init__()
        self.act, self.inner = nn.ReLU(inplace=True), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(self.act(x))


def test_blocks_that_write_to_their_input():
    """The values that they are given stay as they were, so they can be stored."""
    model = seeded(lambda: nn.Sequential(Inside(), Inside(), nn.ReLU(True), nn.Linear(4, 3)), 0)
    inputs = torch.randn(5, 4)
    chain = as_chain(model, inputs)
    expected, kept = model(inputs.clone()), inputs.clone()
    assert torch.equal(chain(inputs), expected)
    assert torch.equal(inputs, kept)


class Cut(nn.Module):
    """What only its owner can cut: two blocks with a scale of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = Residual(), Residual(), nn.Linear(4, 3)

    def forward(self, x, scale):
        x = self.first(x) * scale
        return self.out(self.second(x) * scale)


class Scaled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, scale):
        return self.inner(x) * scale


class First(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, scale):
        return self.inner(x)


def test_a_callback():
    model = seeded(Cut, 0).double()
    inputs = (images(4), images(4))

    def callback(model):
        return None, [Scaled(model.first), Scaled(model.second)], First(model.out)

    chain = as_chain(model, inputs, callback=callback)
    assert [part.name for part in chain.parts] == ["block1", "block2"]
    assert [len(chain.parts[0](*chain.values(inputs))), chain.has_stem] == [2, False]
    assert torch.equal(chain(inputs), model(*inputs))
    with pytest.raises(ValueError, match="at least one block"):
        as_chain(model, inputs, callback=lambda model: (None, [], model.out))


# Bad input


def refuse(model, inputs, words, **named):
    before = snapshot(model)
    with pytest.raises(UnsupportedModelError, match=words):
        as_chain(model, inputs, **named)
    assert same(snapshot(model), before)


def test_no_chain():
    refuse(nn.Sequential(nn.Linear(4, 3)), None, "needs a block and a head; got a Sequential")
    refuse(nn.Sequential(), None, "needs a block and a head")


def test_shared_weights():
    block = Residual()
    twice = nn.Sequential(block, block, nn.Linear(4, 3))
    refuse(twice, None, "'1' uses '1/?.inner.weight', which is '0.inner.weight' of '0'")
    tied = residual_net()
    tied[2].inner.weight = tied[1].inner.weight
    refuse(tied, None, "must not share weights or buffers; '2' uses")
    norm = nn.BatchNorm1d(4, affine=False)
    shared = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), norm), nn.Sequential(nn.Linear(4, 4), norm), nn.Linear(4, 3)
    )
    refuse(shared, None, "running_mean")
    act = nn.ReLU()  # nothing in it to share
    plain = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 3))
    assert len(as_chain(plain, torch.randn(5, 4)).parts) == 2


class Halved(Residual):
    def forward(self, x):
        return super().forward(x)[: len(x) // 2]


class Rounded(Residual):
    def forward(self, x):
        return super().forward(x).long()


class Floated(Residual):
    def forward(self, x):
        return super().forward(x.to(self.inner.weight.dtype))


def test_features_that_cannot_be_stored():
    inputs = torch.randn(6, 4)
    half = nn.Sequential(Halved(), Halved(), nn.Linear(4, 3))
    refuse(half, inputs, r"return 6 examples for 6.*'0' returns shape \(3, 4\)")
    whole = nn.Sequential(Rounded(), Floated(), nn.Linear(4, 3))
    refuse(whole, inputs, "must be real numbers; '0' returns torch.int64", blocks=["0", "1"])


def test_another_function():
    model = seeded(Cut, 0)
    inputs = (torch.randn(5, 4), torch.randn(5, 4))

    def callback(model):
        return None, [Scaled(model.first), First(model.second)], First(model.out)

    def pooled(model):
        return None, [First(model.first)], First(nn.Identity())

    refuse(model, inputs, "every block must pass all sides", callback=wrong_sides)
    refuse(model, inputs, "must give the logits of the model; got a diff", callback=callback)
    refuse(model, inputs, r"head must return logits \(batch, classes\)", callback=pooled)


def wrong_sides(model):
    class Dropping(Scaled):
        def forward(self, x, scale):
            return (self.inner(x) * scale,)

    return None, [Scaled(model.first), Dropping(model.second)], First(model.out)


def test_wrong_arguments():
    model = residual_net()
    with pytest.raises(ValueError, match="at least one module of the model; got .'9'."):
        as_chain(model, blocks=["9"])
    with pytest.raises(ValueError, match="'1' is a Residual"):
        as_chain(model, blocks="1")
    with pytest.raises(ValueError, match="in order, with something behind the last"):
        as_chain(model, blocks=["2", "1"])
    with pytest.raises(ValueError, match="something behind the last"):
        as_chain(model, blocks=["4"])
    with pytest.raises(ValueError, match="inputs must be a batch"):
        as_chain(PlainResNet())
    with pytest.raises(ValueError, match="must be one tensor; got 2"):
        as_chain(model).values((torch.zeros(2), torch.zeros(2)))
    assert as_chain(VisionResNet()).has_stem  # by its names alone
    assert isinstance(as_chain(VisionResNet()).model.layer1[0], Basic)


def test_sequences_inside_a_sequence_are_opened():
    """Stages of blocks are cut block by block; plain layers as if they stood outside."""
    stages = [nn.Sequential(*(Bump(4) for _ in range(n))) for n in (2, 3)]
    model = nn.Sequential(nn.Linear(3, 4), *stages, nn.Linear(4, 2)).double()
    chain = as_chain(model, torch.rand(5, 3, dtype=torch.float64))
    assert [part.name for part in chain.parts] == ["stem", "1.0", "1.1", "2.0", "2.1", "2.2"]
    plain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))
    wrapped = nn.Sequential(nn.Flatten(), plain)
    x = torch.rand(5, 3)
    chain = as_chain(wrapped, x)
    assert [part.name for part in chain.parts] == ["1.0", "1.2"]
    assert torch.equal(chain(x), wrapped(x))


class Bump(nn.Module):
    """A residual block of one layer."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(x)
