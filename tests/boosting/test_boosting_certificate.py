"""Certificates: the hand examples O3 to O8, and bounds that no hypothesis may ever break."""

from math import exp, log, sqrt

import pytest
import torch
from torch import float64, tensor
from torch.testing import assert_close

from lowland.boosting import binary_output
from lowland.boosting.alphas import LARGEST_ALPHA, closed_alpha
from lowland.boosting.certificate import certificate
from lowland.boosting.costs import edge, exponential_loss, pair_weights
from oracles.slow_boosting import slow_chain, slow_stumps


def certify(outputs, target, **options):
    """One certificate per depth, each with the closed-form chain of the one before."""
    found, previous, alpha, last = [], None, 0.0, 0.0
    for output in outputs:
        now = certificate(
            output, target, previous=previous, alpha_previous=alpha, edge_previous=last, **options
        )
        found.append(now)
        previous, alpha, last = output, now.alpha_closed, now.edge
    return found


def binary(labels, *outputs):
    rows = [binary_output(tensor(o, dtype=float64), tensor(labels)) for o in outputs]
    return [output for output, _ in rows], rows[0][1]


def near(values):
    return pytest.approx(values, abs=6e-7)


HAND = ((1, 1, 1, -1), (1, 1, -0.5, -1), (1, 1, -0.9, -1))
LABELS = (1, 1, -1, -1)


def test_the_hand_example():
    """O3."""
    found = certify(*binary(LABELS, *HAND))
    assert [c.edge for c in found] == near([1 / 2, 3 / 4, 0.964843])
    assert [c.alpha for c in found] == near([0.549306, 0.972955, 2.011668])
    assert [c.loss for c in found] == near([0.866025, 0.437170, 0.141217])
    assert [c.step_ratio for c in found] == near([0.866025, 0.504801, 0.323025])
    assert [c.gamma_squared for c in found] == near([1 / 4, 5 / 12, 0.842106])
    assert [c.covariance for c in found] == near([0, -0.068365, -0.006925])
    assert [c.bounds["B2"] for c in found] == near([0.866025, 0.661438, 0.262828])
    assert [c.error for c in found] == [1 / 4, 0, 0]
    assert all(c.holds_condition and not c.is_separated for c in found)
    assert found[0].covariance == 0


def test_gamma_alone_does_not_imply_progress():
    """O4: the edge grows, gamma^2 = 7/27, and the loss rises."""
    first, second = certify(*binary(LABELS, HAND[0], (1, -1, -1, -1)))
    assert second.edge == pytest.approx(2 / 3)
    assert second.gamma_squared == pytest.approx(7 / 27)
    assert second.alpha == pytest.approx(log(5) / 2)
    assert second.covariance == near(0.172133)
    assert second.loss == pytest.approx(2 / sqrt(5))
    assert second.loss > first.loss
    assert second.loss > sqrt(5) / 3
    assert not second.holds_condition
    assert second.bounds["B2"] is None
    assert second.bounds["B0"] == second.loss
    assert second.bounds["B1"] is not None


def test_an_unchanged_hypothesis():
    """O5: the closed form sees an edge of 0; the line search changes nothing."""
    outputs, target = binary(LABELS, HAND[0], HAND[0])
    _, second = certify(outputs, target)
    assert second.edge == pytest.approx(0, abs=1e-16)
    assert second.alpha == pytest.approx(0, abs=1e-16)
    assert second.loss == pytest.approx(1)
    assert second.gamma_squared == pytest.approx(-1 / 3)
    assert not second.holds_condition
    searched = certify(outputs, target, alpha="line_search")
    assert [c.alpha for c in searched] == pytest.approx([log(3) / 2] * 2)
    assert searched[1].loss / searched[0].loss == pytest.approx(1)


def test_the_printed_inequality_fails():
    """O6: Z_1 > sqrt(1 - gamma_1^2) though the condition holds; B2 stands."""
    outputs, target = binary((1, 1, 1), (0, 0.5, 0), (1, 1, -1))
    first, second = certify(outputs, target)
    assert [first.edge, second.edge] == near([1 / 6, 0.314910])
    assert second.step_ratio == near(0.969069)
    assert sqrt(1 - second.gamma_squared) == near(0.962585)
    assert second.covariance == near(-0.006282)
    assert second.holds_condition
    assert second.loss == near(0.943009)
    assert second.bounds["B2"] == near(0.949122)


THREE = [
    [[0.5, 0.25, 0.25]] * 2,
    [[0.7, 0.2, 0.1], [0.2, 0.6, 0.2]],
    [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]],
]


def test_three_classes():
    """O7."""
    found = certify([tensor(o, dtype=float64) for o in THREE], tensor([0, 1]))
    assert [c.edge for c in found] == near([0.0625, 0.474119, 0.7])
    assert [c.alpha for c in found] == near([0.062582, 0.515370, 0.867301])
    assert [c.loss for c in found] == near([1.992361, 1.567141, 1.089846])
    assert [c.gamma_squared for c in found] == near([0.003906, 0.221749, 0.342115])
    assert [c.covariance for c in found] == near([0, -0.000355, 0])
    assert [c.bounds["B2"] for c in found] == near([1.996090, 1.760922, 1.428286])
    assert found[2].covariance_holds  # it is zero up to rounding


def test_everything_is_that_of_the_slow_version(rng):
    """Six examples of four classes, five depths, errors by loops."""
    target = torch.randint(4, (6,), generator=rng)
    outputs = [(2 * torch.randn(6, 4, generator=rng, dtype=float64)).softmax(1) for _ in range(5)]
    outputs = [(o + torch.eye(4, dtype=float64)[target]) / 2 for o in outputs]
    slow = slow_chain([o.tolist() for o in outputs], target.tolist())
    for ours, theirs in zip(certify(outputs, target), slow, strict=True):
        for name in ("edge", "alpha", "gamma_squared", "loss", "step_ratio", "covariance", "error"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-13), name
        assert ours.covariance_holds == (theirs.covariance <= 1e-15)
        if ours.covariance_holds:
            assert ours.bounds["B2"] == pytest.approx(theirs.bound, rel=1e-13)
        else:
            assert ours.bounds["B2"] is None


def test_boosting_of_stumps_is_this_boosting(rng):
    """O8: with o = sum b c / sum b and alpha = sum b, weights and Z are those of AdaBoost."""
    inputs = torch.randn(40, 3, generator=rng, dtype=float64)
    labels = torch.where(inputs.sum(1) + 0.5 * torch.randn(40, generator=rng) > 0, 1, -1)
    score, alpha, product = torch.zeros(40, dtype=float64), 0.0, 1.0
    for votes, error, b, weights in slow_stumps(inputs.tolist(), labels.tolist(), 10):
        before = alpha
        score, alpha = score + b * tensor(votes, dtype=float64), alpha + b
        output, target = binary_output((score / alpha).clamp(-1, 1), labels)
        assert_close(
            pair_weights(output, target, alpha).sum(1), tensor(weights, dtype=float64), rtol=1e-11,
            atol=0,
        )  # fmt: skip
        product *= 2 * sqrt(error * (1 - error))
        assert exponential_loss(output, target, alpha) == pytest.approx(product, rel=1e-12)
        assert (
            edge(*binary_output(tensor(votes).double(), labels)) == pytest.approx(1 - 2 * error)
            or before
        )  # later errors are weighted
    assert product < 0.9


def test_numbers_of_scikit_learn():
    """O8: half the weights it prints for its first three errors on the breast-cancer data."""
    errors = (0.07732865, 0.11859307, 0.15565842)
    halves = (1.23960431, 1.00291066, 0.84544658)
    assert [closed_alpha(1 - 2 * e) for e in errors] == pytest.approx(halves, abs=5e-8)


@pytest.mark.peer
def test_boosting_of_scikit_learn():
    """O8: its weights are ours with o = sum b c / sum b; after ten rounds L = 0.11907384."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415

    x, y = load_breast_cancer(return_X_y=True)
    peer = ensemble.AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=1), n_estimators=10, random_state=0
    ).fit(x, y)
    score, alpha = torch.zeros(len(y), dtype=float64), 0.0
    for weak, weight in zip(peer.estimators_, peer.estimator_weights_, strict=True):
        score = score + weight / 2 * tensor(2.0 * weak.predict(x) - 1, dtype=float64)
        alpha += weight / 2
    output, target = binary_output((score / alpha).clamp(-1, 1), tensor(2 * y - 1))
    assert exponential_loss(output, target, alpha) == pytest.approx(0.11907384, abs=5e-8)


def test_a_first_round_of_one_hot_votes():
    """O8: accuracy 0.8 among ten classes."""
    target = torch.arange(10)
    votes = torch.eye(10)[torch.where(target < 8, target, (target + 1) % 10)]
    found = certificate(votes, target)
    assert found.edge == near(0.777778)
    assert found.alpha == near(1.039721)
    assert found.loss == near(4.711270)
    assert found.bounds["B2"] == near(5.656854)
    assert found.error == pytest.approx(0.2)


def vectorized(count, classes, rng):
    """Random sequences of three hypotheses for five examples, and all their statistics at once.

    Leading axis: sequences; ``r`` has the shape ``(sequences, pairs)``.
    """
    examples, depths = 5, 3
    shape = (count, examples, classes)
    labels = torch.randint(classes, shape[:2], generator=rng)
    hot = torch.nn.functional.one_hot(labels, classes).bool()
    scale = torch.rand(count, 1, 1, generator=rng, dtype=float64) * 8
    push = torch.rand(count, 1, 1, generator=rng, dtype=float64) * 3
    logits = torch.zeros(shape, dtype=float64)
    old, alpha_old, edge_old = torch.zeros(count, examples, classes - 1, dtype=float64), 0.0, 0.0
    outputs, found = [], []
    for _ in range(depths):
        keep = torch.rand(count, 1, 1, generator=rng, dtype=float64)
        logits = keep * logits + scale * torch.randn(shape, generator=rng, dtype=float64)
        logits = logits + push * hot
        output = logits.softmax(-1)
        own = output.masked_select(hot).view(count, examples, 1)
        r = own - output.masked_select(~hot).view(count, examples, classes - 1)
        d = (-torch.as_tensor(alpha_old)[..., None, None] * old).exp()
        loss_old = d.sum((1, 2)) / examples
        d = d / d.sum((1, 2), keepdim=True)
        gt = (d * r).sum((1, 2))
        alpha = gt.clamp(min=0).atanh().clamp(max=LARGEST_ALPHA)
        a = (-alpha[:, None, None] * r).exp()
        b = (torch.as_tensor(alpha_old)[..., None, None] * old).exp()
        mean_a, mean_b = (d * a).sum((1, 2)), (d * b).sum((1, 2))
        covariance = (d * (a - mean_a[:, None, None]) * (b - mean_b[:, None, None])).sum((1, 2))
        loss, e = a.sum((1, 2)) / examples, r.mean((1, 2))
        outputs.append(output)
        found.append(
            dict(
                edge=gt, alpha=alpha, covariance=covariance, loss=loss, e=e,
                error=(r.amin(2) <= 0).double().mean(1), ratio=loss / loss_old,
                gamma_squared=1 - (1 - gt.clamp(min=0) ** 2) / (1 - torch.as_tensor(edge_old) ** 2),
                b2=(classes - 1) * (1 - gt**2).clamp(min=0).sqrt(),
                b1=(classes - 1) * (1 - e**2).sqrt(), best=least(r) / examples,
            )
        )  # fmt: skip
        old, alpha_old, edge_old = r, alpha, gt.clamp(min=0)
    return outputs, labels, found


def least(r):
    """Smallest sum of exp(-a r) over a in [0, 12], by thirds, for all sequences at once."""
    low, high = torch.zeros(len(r), dtype=float64), torch.full((len(r),), LARGEST_ALPHA).double()
    sums = [torch.zeros(0)]
    for _ in range(50):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        sums = [(-x[:, None, None] * r).exp().sum((1, 2)) for x in (left, right)]
        lower = sums[0] <= sums[1]
        low, high = torch.where(lower, low, left), torch.where(lower, right, high)
    return torch.minimum(*sums)


ROUNDING = 1 + 1e-9


def violations(count, rng):
    """Count broken bounds over random sequences; and how often the printed inequality fails."""
    tried, broken, met, printed = 0, 0, 0, 0
    for classes in (2, 3, 5):
        _, _, found = vectorized(count // 3 + 1, classes, rng)
        for t in found:
            used, has_mean = t["alpha"] > 0, t["e"] >= 0
            condition = used & (t["covariance"] <= 0) & (t["alpha"] < LARGEST_ALPHA)
            condition &= t["edge"] < 1 - 1e-7
            broken += int((t["error"] > t["loss"] * ROUNDING).sum())
            broken += int((has_mean & (t["best"] > t["b1"] * ROUNDING)).sum())
            broken += int((has_mean & used & (t["error"] > t["b1"] * ROUNDING)).sum())
            broken += int((condition & (t["loss"] > t["b2"] * ROUNDING)).sum())
            weak = condition & (t["gamma_squared"] > 0)
            printed += int((weak & (t["ratio"] ** 2 > (1 - t["gamma_squared"]) * ROUNDING)).sum())
            met += int(weak.sum())
        tried += len(found[0]["edge"])
    return tried, broken, met, printed


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_bound_is_ever_broken(count, rng):
    """B0 and B1 always, B2 where the covariance condition holds; the printed one does break."""
    tried, broken, met, printed = violations(count, rng)
    assert tried >= count
    assert broken == 0
    assert met > tried / 4
    assert 0 < printed < met / 2


def test_certificates_are_those_of_the_search(rng):
    """What the search counts are our certificates, and ours keep their promises one by one."""
    outputs, labels, found = vectorized(150, 3, rng)
    for k in range(150):
        chain = certify([o[k] for o in outputs], labels[k])
        searched = certify([o[k] for o in outputs], labels[k], alpha="line_search")
        for ours, theirs, best in zip(chain, found, searched, strict=True):
            for name in ("edge", "alpha", "covariance", "loss", "error", "gamma_squared"):
                expected = theirs[name][k].item()
                assert getattr(ours, name) == pytest.approx(expected, rel=1e-8, abs=1e-12)
            assert ours.step_ratio == pytest.approx(theirs["ratio"][k].item(), rel=1e-9)
            assert best.loss == pytest.approx(theirs["best"][k].item(), rel=1e-6)
            assert best.edge == ours.edge
            assert best.covariance == ours.covariance
            assert best.bounds["B1"] is None or best.loss <= best.bounds["B1"] * ROUNDING
            for made in (ours, best):
                for bound in made.bounds.values():
                    assert bound is None or made.error <= bound * ROUNDING
            assert ours.bounds["B2"] is None or ours.loss <= ours.bounds["B2"] * ROUNDING


def test_margins_are_bounded(rng):
    """The share of margins up to theta is at most exp(theta alpha) L."""
    outputs, labels, _ = vectorized(40, 4, rng)
    for output, target in zip(outputs[2], labels, strict=True):
        found = certificate(output, target)
        if found.alpha == 0:
            continue
        own = output.gather(1, target[:, None])
        smallest = (own - output).scatter(1, target[:, None], 2.0).amin(1)
        for theta in (-0.5, 0.0, 0.25, 0.3, 0.999, 1.0):
            share = (smallest <= theta).double().mean().item()
            assert found.margin_share(theta) == pytest.approx(share)
            assert share <= found.margin_bound(theta) * ROUNDING
        assert found.margin_share(0.0) == pytest.approx(found.error)


def test_margin_shares_include_their_end():
    output = tensor([[0.65, 0.35], [0.1, 0.9], [0.5, 0.5]], dtype=float64)
    found = certificate(output, tensor([0, 0, 1]))
    shares = [found.margin_share(t) for t in (-0.801, -0.8, 0, 0.299, 0.3)]
    assert shares == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])


def test_separated_examples():
    """Gt = 1: alpha ends, the bounds are what the last alpha proves, and they still hold."""
    target = tensor([0, 1, 2])
    found = certificate(torch.eye(3), target)
    assert found.is_separated
    assert found.alpha == LARGEST_ALPHA
    assert found.loss == pytest.approx(2 * exp(-12))
    assert found.bounds["B2"] == found.bounds["B1"] == pytest.approx(found.loss)
    after = certificate(
        torch.eye(3), target, previous=torch.eye(3), alpha_previous=found.alpha_closed,
        edge_previous=found.edge,
    )  # fmt: skip
    assert after.gamma_squared == 0
    assert after.is_separated


def test_worse_than_chance():
    """Alpha is 0 and every bound is void, never a number."""
    found = certificate(tensor([[0.2, 0.8], [0.4, 0.6]]), tensor([0, 1]))
    assert found.edge < 0
    assert found.alpha == 0
    assert found.loss == 1
    assert found.bounds == {"B0": None, "B1": None, "B2": None}
    assert found.margin_bound(0.0) is None
    assert found.gamma_squared == 0
    assert not found.holds_condition


def test_an_alpha_of_the_user():
    """Loss and B0 take it; what diagnoses stays with the closed form; the error has all bounds."""
    outputs, target = binary(LABELS, *HAND)
    plain = certify(outputs, target)
    ours = certify(outputs, target, alpha=3.0)
    for a, b in zip(plain, ours, strict=True):
        assert b.alpha == 3.0
        assert b.bounds["B0"] == b.loss != a.loss
        for name in ("edge", "gamma", "covariance", "step_ratio", "loss_closed", "alpha_closed"):
            assert getattr(a, name) == getattr(b, name)
        assert a.bounds["B2"] == b.bounds["B2"]


def test_weights_are_repetitions(rng):
    outputs, labels, _ = vectorized(1, 3, rng)
    outputs, target = [o[0] for o in outputs], labels[0]
    counts = tensor([2, 0, 1, 3, 1])
    again = [o.repeat_interleave(counts, 0) for o in outputs]
    weighted = certify(outputs, target, weights=counts.double() / 7)
    for a, b in zip(weighted, certify(again, target.repeat_interleave(counts)), strict=True):
        for name in ("edge", "alpha", "loss", "covariance", "error", "uniform_edge"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-14)
        assert_close(a.margin_shares, b.margin_shares)


def test_order_and_names_of_classes_do_not_matter(rng):
    outputs, labels, _ = vectorized(1, 5, rng)
    outputs, target = [o[0] for o in outputs], labels[0]
    order, names = torch.randperm(5, generator=rng), torch.randperm(5, generator=rng)
    moved = [o[order][:, names.argsort()] for o in outputs]
    for a, b in zip(certify(outputs, target), certify(moved, names[target[order]]), strict=True):
        for name in ("edge", "alpha", "loss", "covariance", "error"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-14)


def test_record_is_plain():
    found = certify(*binary(LABELS, *HAND))[1].record()
    assert found["bounds"]["B2"] == near(0.661438)
    assert found["gamma"] == near(sqrt(5 / 12))
    assert all(isinstance(v, float | int | bool | dict) for v in found.values())


@pytest.mark.untyped
def test_bad_arguments():
    output, target = torch.full((2, 3), 1 / 3), tensor([0, 1])
    with pytest.raises(ValueError, match="'closed', 'line_search' or a number; got 'best'"):
        certificate(output, target, alpha="best")
    for alpha in (-1.0, 13.0, float("nan")):
        with pytest.raises(ValueError, match=r"between 0 and 12\.0"):
            certificate(output, target, alpha=alpha)
    with pytest.raises(ValueError, match="alpha_previous must lie"):
        certificate(output, target, previous=output, alpha_previous=-0.1)
    with pytest.raises(ValueError, match="previous must hold the outputs"):
        certificate(output, target, alpha_previous=0.5)
    with pytest.raises(ValueError, match="shape of output"):
        certificate(output, target, previous=output[:1], alpha_previous=0.5)
    with pytest.raises(ValueError, match="an edge is a mean margin"):
        certificate(output, target, edge_previous=2.0)
    for spoiled in (output * torch.nan, output * 9 * tensor([1, -1, 1])):
        with pytest.raises(ValueError, match="finite and bounded.*2 rows of 2"):
            certificate(spoiled, target)
        with pytest.raises(ValueError, match="finite and bounded"):
            certificate(output, target, previous=spoiled, alpha_previous=0.5)
    with pytest.raises(ValueError, match="weight above zero"):
        certificate(output, target, weights=torch.zeros(2))
    with pytest.raises(ValueError, match="weight above zero"):
        certificate(output[:0], target[:0])
    found = certificate(output, target)
    with pytest.raises(ValueError, match="theta is a margin"):
        found.margin_share(1.5)
