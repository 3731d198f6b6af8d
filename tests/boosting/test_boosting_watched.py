"""Models cut by watching: the parts give the model's logits and gradients, and leave no trace."""

import copy

import pytest
import torch
from look_alikes import Classifier, Padded, VisionTransformer, tokens
from torch import nn

from lowland.boosting.chain import as_chain, logits_of
from lowland.errors import UnsupportedModelError
from lowland.params import call
from small_networks import generators, same, seeded, snapshot


@pytest.fixture
def draws():
    return torch.Generator().manual_seed(3)


def vit(draws):
    model = seeded(VisionTransformer, 0).double()
    nn.init.normal_(model.patch_embed[1].running_mean)
    return model, torch.randn(5, 3, 8, 8, dtype=torch.float64, generator=draws)


def text(draws):
    ids = tokens(draws)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    return seeded(Classifier, 0).double(), inputs


def text_without_mask(draws):
    return seeded(Classifier, 0).double(), tokens(draws)


def padded(draws):
    return seeded(Padded, 0).double(), (tokens(draws),)


MODELS = {
    "vit": (vit, 3, 1), "text": (text, 3, 4), "no mask": (text_without_mask, 3, 2),
    "torch": (padded, 2, 3),
}  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request, draws, recwarn):
    make, depth, width = MODELS[request.param]
    model, inputs = make(draws)
    return model, inputs, depth, width


def rows(inputs, index):
    if isinstance(inputs, dict):
        return {key: value[index] for key, value in inputs.items()}
    return tuple(x[index] for x in inputs) if isinstance(inputs, tuple) else inputs[index]


def logits(model, inputs):
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return logits_of(call(model, inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def test_logits(case):
    """To the bit, also of other batches; hidden values and sides have a row for each example."""
    model, inputs, depth, width = case
    keys = list(model.state_dict())
    chain = as_chain(model, inputs)
    model.eval()
    assert len(chain.parts) == 1 + depth
    assert chain.has_stem
    assert torch.equal(chain(inputs), logits(model, inputs))
    some = rows(inputs, torch.tensor([4, 1, 1, 0, 3, 2, 2]))
    assert torch.equal(chain(some), logits(model, some))
    values = chain.parts[0](*chain.values(some))
    assert [len(value) for value in values] == [7] * width
    assert len(chain.parts[1](*values)) == width
    assert list(model.state_dict()) == keys


def test_every_weight_has_one_part(case):
    model, inputs, *_ = case
    chain = as_chain(model, inputs)
    found = [id(w) for part in [*chain.parts, chain.head] for w in part.parameters()]
    expected = [id(w) for name, w in model.named_parameters() if name != "unused"]
    assert sorted(found) == sorted(expected)


def test_the_parts_of_a_vision_transformer(draws):
    """Loose parameters are told apart by who uses them; no image goes along the chain."""
    model, inputs = vit(draws)
    chain = as_chain(model, inputs)
    assert [part.name for part in chain.parts] == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    stem, head = chain.parts[0], chain.head
    assert [*stem._modules, *stem._parameters] == ["patch_embed", "cls_token", "pos_embed"]
    assert [*head._modules, *head._parameters] == ["norm", "head", "gain"]
    assert stem.cls_token is model.cls_token


def test_the_model_is_left_alone(case):
    """Modes, buffers, hooks, flags, gradients, random states; when it is used too."""
    model, inputs, *_ = case
    next(model.parameters()).requires_grad_(requires_grad=False)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before, drawn = snapshot(model), generators()
    chain = as_chain(model, inputs)
    assert same(snapshot(model), before)
    assert same(generators(), drawn)
    model.eval()
    before = snapshot(model)
    chain(inputs)
    assert same(snapshot(model), before)
    assert getattr(model, "config", None) is None or model.config.use_cache


def test_gradients(case):
    model, inputs, *_ = case
    chain = as_chain(model, inputs)
    model.eval()
    other = copy.deepcopy(model)
    chain(inputs).square().sum().backward()
    logits(other, inputs).square().sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
        else:
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-11, atol=1e-13), name


def test_a_round_touches_its_own_block_only(case):
    """On stored values a step of block and head gives no gradient, no draw, no statistic else."""
    model, inputs, *_ = case
    chain = as_chain(model, inputs)
    model.train()
    stem, first, *others = chain.parts
    stem.eval()
    with torch.no_grad():
        values = stem(*chain.values(inputs))
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    chain.head(*first(*values)).square().sum().backward()
    for part in (first, chain.head):
        assert any(w.grad is not None for w in part.parameters())
    for part in (stem, *others):
        assert all(w.grad is None for w in part.parameters())
    assert same({name: b.clone() for name, b in model.named_buffers()}, buffers)


def test_modes_of_what_lies_around(draws):
    """A function with ``self.training`` of the model follows the stem, whoever switched it."""
    model, inputs = vit(draws)
    chain = as_chain(model, inputs)
    stem = chain.parts[0]
    model.eval()
    still = stem(inputs)[0]
    assert torch.equal(stem(inputs)[0], still)
    model.train()
    assert not torch.equal(stem(inputs)[0], still)
    stem.eval()
    assert torch.equal(stem(inputs)[0], stem(inputs)[0])
    assert model.training


def test_a_copy_of_the_head(case):
    """Works, learns alone, and takes no copy of the blocks with it."""
    model, inputs, *_ = case
    chain = as_chain(model, inputs)
    model.eval()
    values = chain.values(inputs)
    for part in chain.parts:
        values = part(*values)
    head = copy.deepcopy(chain.head)
    assert torch.equal(head(*values), chain.head(*values))
    own = next(head.parameters())
    assert own is not next(chain.head.parameters())
    head(*[v.detach() for v in values]).sum().backward()
    assert own.grad is not None
    assert all(w.grad is None for w in model.parameters())
    assert list(head.how.blocks.values()) == [next(p.children()) for p in chain.parts[1:]]
    assert head.how.model.get_submodule(chain.parts[1].name) is model.get_submodule(
        chain.parts[1].name
    )


def test_blocks_by_name(draws):
    model, inputs = text(draws)
    chain = as_chain(model, inputs, blocks="encoder.layer")
    assert [part.name for part in chain.parts[1:]] == [f"encoder.layer.{i}" for i in range(3)]
    chain = as_chain(model, inputs, blocks=["encoder.layer.0", "encoder.layer.1"])
    assert [part.name for part in chain.parts[1:]] == ["encoder.layer.0", "encoder.layer.1"]
    assert "encoder.layer.2" in [key.replace("/", ".") for key in chain.head._modules]
    model.eval()
    assert torch.equal(chain(inputs), logits(model, inputs))


class Wordless(nn.Module):
    """Nothing before the blocks."""

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)])
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return self.out(x)


def test_no_stem():
    model = seeded(Wordless, 0)
    inputs = torch.randn(5, 4)
    chain = as_chain(model, inputs)
    assert not chain.has_stem
    assert [part.name for part in chain.parts] == ["steps.0", "steps.1", "steps.2"]
    assert torch.equal(chain.values(inputs)[0], inputs)
    assert torch.equal(chain(inputs), model(inputs))


# Bad input


def refuse(model, inputs, words, **named):
    before = snapshot(model)
    with pytest.raises(UnsupportedModelError, match=words):
        as_chain(model, inputs, **named)
    assert same(snapshot(model), before)


def changed(forward, **parts):
    """The model above with another forward pass."""
    made = seeded(type("Changed", (Wordless,), {"forward": forward}), 0)
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def test_what_is_no_chain():
    inputs = torch.randn(5, 4)

    def twice(self, x):
        return self.out(self.steps[0](self.steps[1](self.steps[1](self.steps[0](x)))))

    def backwards(self, x):
        for step in reversed(self.steps):
            x = step(x)
        return self.out(x)

    def left_out(self, x):
        return self.out(self.steps[1](self.steps[0](x)))

    def side_by_side(self, x):
        return self.out(sum(step(x) for step in self.steps))

    def between(self, x):
        for step in self.steps:
            x = self.norm(step(x))
        return self.out(x)

    def past(self, x):
        y = self.norm(x)
        for step in self.steps:
            x = step(x)
        return self.out(x + y)

    def transposed(self, x):
        x = x.transpose(0, 1)
        for step in self.steps:
            x = step(x)
        return self.out(x.mean(0))

    refuse(changed(twice), inputs, "called once; 'steps.1' is called twice")
    refuse(changed(backwards), inputs, "in their order; 'steps.2' is called where 'steps.0'")
    refuse(changed(left_out), inputs, "must be called; 'steps.2' is not")
    refuse(changed(side_by_side), inputs, "given something else than 'steps.0' returned")
    refuse(changed(between, norm=nn.LayerNorm(4)), inputs, "something else than 'steps.0'")
    refuse(changed(past, norm=nn.LayerNorm(4)), inputs, "'norm.*' matters to both")
    refuse(changed(transposed), torch.randn(5, 7, 4), "must have the batch as first axis")


def test_what_the_head_sees_of_the_inputs():
    """A way past the blocks without weights: the inputs go along the chain for it."""

    def past(self, x):
        y = x.tanh()
        for step in self.steps:
            x = step(x)
        return self.out(x + y)

    model, inputs = changed(past), torch.randn(5, 4)
    chain = as_chain(model, inputs)
    assert [id(v) for v in chain.values(inputs)] == [id(inputs)] * 2
    assert torch.equal(chain(inputs), model(inputs))


def test_arguments_of_one_block_only(draws):
    class Own(Wordless):
        def forward(self, x):
            for number, step in enumerate(self.steps):
                x = step(x, number)
            return self.out(x)

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x, number):
            return self.inner(x) * number

    model = seeded(Own, 0)
    model.steps = nn.ModuleList([Step() for _ in range(3)])
    refuse(model, torch.randn(5, 4), "argument 2 of 'steps.1' is not that of 'steps.0'.*callback=")


def test_calls_that_differ_from_batch_to_batch(draws):
    """A mask that the model drops when nothing is padded; another length."""
    model, inputs = text(draws)
    model.drops_mask = True
    chain = as_chain(model, inputs)
    model.eval()
    full = {"input_ids": inputs["input_ids"][[0, 3]], "attention_mask": torch.ones(2, 7).long()}
    with pytest.raises(UnsupportedModelError, match="'attention_mask' is different.*eager"):
        chain(full)
    short = rows(inputs, (slice(None), slice(0, 5)))
    with pytest.raises(UnsupportedModelError, match="'positions' is different now. Pad all"):
        chain(short)
    with pytest.raises(UnsupportedModelError, match="the model must be called in the same way"):
        chain.values(inputs["input_ids"])


def test_inputs_to_watch(draws):
    model, inputs = text(draws)
    with pytest.raises(ValueError, match="at least two examples.*got 1"):
        as_chain(model, rows(inputs, slice(0, 1)))
    refuse(nn.Bilinear(2, 2, 3), torch.randn(5, 2), "list of at least two blocks")


def test_outputs():
    assert logits_of({"logits": torch.ones(1)}) == 1
    with pytest.raises(UnsupportedModelError, match="must return logits.*got a NoneType"):
        logits_of(None)
