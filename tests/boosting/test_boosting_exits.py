"""Early exits: a loop over single examples, each through all depths, is the oracle."""

import pytest
import torch
from boosted import boost, chain_of, data, outputs, tower
from look_alikes import VisionTransformer
from test_boosting_train import images

from lowland.boosting.exits import predict_early
from small_networks import same, seeded, snapshot


@pytest.fixture(scope="module")
def trained():
    model, batches = tower(), data(40)
    chain = chain_of(model, batches)
    return chain, boost(model, batches, exits=True).exits, batches


def one_by_one(chain, heads, inputs, confidence, size=1):
    """Logits and depth of each example by itself."""
    chain.model.eval()
    found = []
    for x in inputs:
        values = chain.values(x[None])
        for depth, head in enumerate(heads, 1):
            for part in chain.parts[(depth - 1) * size : depth * size]:
                values = part(*values)
            logits = head(*values)[0]
            if logits.softmax(0).max() >= confidence:
                break
        found.append((logits, depth))
    return torch.stack([logits for logits, _ in found]), [depth for _, depth in found]


@torch.no_grad()
@pytest.mark.parametrize("confidence", [0.0, 0.4, 0.5, 0.6, 0.8, 1.1])
def test_each_example_leaves_where_it_would_alone(trained, confidence):
    chain, heads, batches = trained
    inputs = torch.cat([x for x, _ in batches])
    logits, depth = predict_early(chain, heads, inputs, confidence=confidence)
    expected, depths = one_by_one(chain, heads, inputs, confidence)
    assert depth.tolist() == depths
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    if confidence == 0.5:
        assert len(set(depths)) > 2
    if confidence in (0.0, 1.1):
        assert set(depths) == {1 if confidence == 0 else 4}


def test_nobody_leaves_the_model(trained):
    """With a confidence above 1 it is the model, to the bit."""
    chain, heads, batches = trained
    found = [predict_early(chain, heads, x, confidence=1.5)[0] for x, _ in batches]
    assert torch.equal(torch.cat(found).double(), outputs(chain.model, batches)[0])


def test_those_who_left_are_not_computed(trained):
    chain, heads, batches = trained
    seen = []
    hooks = [part.register_forward_hook(lambda _, x, y: seen.append(len(x[0])))
             for part in chain.parts]  # fmt: skip
    inputs = torch.cat([x for x, _ in batches])
    _, depth = predict_early(chain, heads, inputs, confidence=0.5)
    assert seen == [int((depth >= number).sum()) for number in (1, 2, 3, 4)]
    predict_early(chain, heads, inputs, confidence=0.0)
    assert seen[4:] == [40]
    for hook in hooks:
        hook.remove()


def test_modules_of_two_and_a_model_with_modes(recwarn):
    """A transformer, dropout everywhere; nothing is left behind."""
    model, batches = seeded(VisionTransformer, 0).double(), images(16)
    chain = chain_of(model, batches)
    heads = boost(model, batches, exits=True, module_size=2, chain=chain).exits
    assert len(heads) == 2
    before = snapshot(model)
    inputs = batches[0][0]
    logits, depth = predict_early(chain, heads, inputs, confidence=0.5, module_size=2)
    assert same(snapshot(model), before)
    with torch.no_grad():
        expected, depths = one_by_one(chain, heads, inputs, 0.5, 2)
    assert depth.tolist() == depths
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_refused(trained):
    chain, heads, batches = trained
    with pytest.raises(ValueError, match="one head for each of 4 modules; got 3. Train with exits"):
        predict_early(chain, heads[1:], batches[0][0], confidence=0.5)
    with pytest.raises(ValueError, match="one head for each of 0 modules"):
        predict_early(chain, heads, batches[0][0], confidence=0.5, module_size=0)
    for confidence in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="confidence must be a number, not negative; got"):
            predict_early(chain, heads, batches[0][0], confidence=confidence)


def test_without_exits_there_are_none():
    assert boost(tower(1), data(40), epochs=1).exits == []
