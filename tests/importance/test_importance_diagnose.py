"""A diagnosis says what draws really gain: exact norms, a backward pass each, beside the scores."""

from math import exp, isnan

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lowland.importance import diagnose, rank_examples
from oracles.slow_importance import slow_gradients, slow_scores, slow_tau
from small_networks import class_batches, losses, mlp, norm_mlp, same, seeded, snapshot

BATCHES = class_batches(4, sizes=(20,) * 6, dtype=torch.float64)


def model_of(make=mlp):
    """A network that is sure of some answers, so that norms differ."""
    model = seeded(make, 0).double()
    with torch.no_grad():
        model[-1].weight *= 6
    return model


def pools(model):
    """Inputs, targets and exact norms of the two pools of three batches, in evaluation mode."""
    for part in (BATCHES[:3], BATCHES[3:]):
        inputs, target = (torch.cat(rows) for rows in zip(*part, strict=True))
        yield inputs, target, slow_gradients(model, losses, inputs, target).norm(dim=1)


def true_ratio(score, norms):
    """Second moment of a uniform gradient over that of a weighted one, all rows counted."""
    return (norms.square().mean() / ((norms**2 / score).mean() * score.mean())).item()


@pytest.mark.parametrize("score", ["bound", "loss", "gradient_norm", "last_layer"])
def test_every_number_of_a_diagnosis(score):
    """The multiplier is estimated from 1,280 draws; 5 % is allowed."""
    model = model_of()
    found = diagnose(model, losses, BATCHES, score=score)
    assert found.pool == 60
    assert len(found.tau) == 2
    for number, (inputs, target, norms) in enumerate(pools(model)):
        hidden, output = model[:2](inputs).detach(), model(inputs).detach()
        delta = (output.softmax(1) - one_hot(target, 3)).norm(dim=1)
        values = {
            "bound": delta,
            "loss": losses(output, target),
            "gradient_norm": norms,
            "last_layer": delta * (1 + hidden.square().sum(1)).sqrt(),
        }[score]
        assert found.tau[number] == pytest.approx(slow_tau(values.tolist()))
        assert found.tau_exact[number] == pytest.approx(slow_tau(norms.tolist()))
        assert found.multiplier[number] == pytest.approx(true_ratio(values, norms), rel=0.05)
        expected = torch.corrcoef(torch.stack([values, norms]))[0, 1].item()
        assert found.correlation[number] == pytest.approx(expected)


def test_a_noisy_score_is_found_out():
    """O13: its own tau is larger than that of the norms, what it gains is smaller."""
    rng = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 1, dtype=torch.float64)
    inputs = torch.randn(3000, 3, dtype=torch.float64, generator=rng)
    sizes = (0.9 * torch.randn(3000, dtype=torch.float64, generator=rng)).exp()
    noise = (0.5 * torch.randn(3000, dtype=torch.float64, generator=rng)).exp()
    norms = sizes * (1 + inputs.square().sum(1)).sqrt()

    def loss_fn(output, target):
        return target[:, 0] * output.squeeze(1)

    batches = [(inputs[i : i + 1000], torch.stack([sizes, norms * noise], 1)[i : i + 1000])
               for i in (0, 1000, 2000)]  # fmt: skip
    found = diagnose(model, loss_fn, batches, score=lambda output, target: target[:, 1])
    exact = slow_tau(norms.tolist())
    assert found.tau_exact == pytest.approx((exact,))
    assert found.tau[0] == pytest.approx(exact * exp(0.25), rel=0.15)
    assert found.multiplier[0] == pytest.approx(exact / exp(0.25), rel=0.15)
    assert found.multiplier[0] == pytest.approx(true_ratio(norms * noise, norms), rel=0.03)
    assert found.multiplier[0] < exact < found.tau[0]
    kappa = 1 / (1 / found.multiplier[0] + 1 / 3)
    assert found.kappa == pytest.approx(kappa)


def test_equal_scores_gain_nothing():
    def flat(output, target):
        return torch.ones(len(target))

    found = diagnose(model_of(), losses, BATCHES, score=flat)
    assert found.tau == (1.0, 1.0)
    assert found.multiplier == pytest.approx((1.0, 1.0))
    assert all(isnan(c) for c in found.correlation)


@pytest.mark.parametrize("call", [diagnose, rank_examples])
@pytest.mark.parametrize("score", ["bound", "gradient_norm", "last_layer"])
@pytest.mark.filterwarnings("ignore::lowland.errors.FallbackWarning")
def test_the_model_stays_as_it_was(call, score):
    model = model_of(norm_mlp)
    before = snapshot(model)
    call(model, losses, BATCHES, score=score)
    assert same(snapshot(model), before)


# EL2N and GraNd


@pytest.mark.parametrize("name", ["bound", "gradient_norm"])
def test_ranking(name, tmp_path):
    """EL2N is the norm of softmax minus one-hot, GraNd that of the gradient; largest first."""
    model = model_of()
    found = rank_examples(model, losses, BATCHES, score=name)
    inputs, target = (torch.cat(rows) for rows in zip(*BATCHES, strict=True))
    if name == "bound":
        expected = slow_scores(losses, model(inputs), target)
    else:
        expected = slow_gradients(model, losses, inputs, target).norm(dim=1)
    assert_close(found.scores, expected)
    assert found.order.tolist() == sorted(range(120), key=lambda i: -found.scores[i].item())
    lines = found.save(tmp_path / "rank.csv").read_text().splitlines()
    assert len(lines) == 121
    rank, index, score = lines[1].split(",")
    assert (rank, int(index)) == ("0", found.order[0].item())
    assert float(score) == pytest.approx(found.scores.max().item(), rel=1e-8)


def test_bad_input():
    rows = TensorDataset(*(torch.cat(part) for part in zip(*BATCHES, strict=True)))
    model = model_of()
    with pytest.raises(ValueError, match="fixed order.*shuffle=False"):
        rank_examples(model, losses, DataLoader(rows, 8, shuffle=True))
    for call in (diagnose, rank_examples):
        with pytest.raises(ValueError, match="at least one batch"):
            call(model, losses, [])
    with pytest.raises(ValueError, match="presample must be above 1.*got 1 "):
        diagnose(model, losses, BATCHES, presample=1)
