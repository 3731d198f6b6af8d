"""The switch: plain SGD where scores are equal, else the moving average of a list and a loop."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_batches import ALWAYS, carried, distances, regression, scored, squares, watched
from torch import nn

from lowland.errors import NoEffectWarning
from lowland.importance import ImportanceSampling
from lowland.importance.switch import Switch
from oracles.slow_importance import slow_averages, slow_decisions, slow_sgd, slow_tau
from small_networks import losses, same, seeded

# O11: equal scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equal_scores_are_plain_descent(momentum, dtype, rng):
    """O11 and C5: never on, and the same bits after every batch, the smaller last one included."""
    batches = [(torch.randn(n, 3, generator=rng).to(dtype),) for n in (8, 8, 8, 8, 8, 5)] * 5
    batches = [(x, x.sum(1)) for (x,) in batches]
    plain = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)), 0).to(dtype)
    model = deepcopy(plain)
    slow_sgd(plain, distances, batches, 0.05, momentum)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    sampling = ImportanceSampling(model, distances, tau_threshold=1)
    for x, y in sampling(batches):
        assert torch.equal(sampling.weight, torch.ones(len(y)))
        optimizer.zero_grad()
        sampling.loss(model(x), y).backward()
        optimizer.step()
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    assert sampling.active_steps == 0
    assert sampling.steps == 30
    assert not sampling.switches
    assert sampling.tau == pytest.approx(slow_averages([1.0] * 30, 0.9)[-1], abs=1e-12)
    with pytest.warns(NoEffectWarning, match="never switched on"):
        sampling.warn_if_idle()


def test_equal_scores_from_a_pool_have_weight_one():
    """Were it on, the systematic draw of equal scores would be a random batch of weight 1."""
    model = regression()
    sampling = ImportanceSampling(model, squares, score=carried, **ALWAYS)
    for _, y in sampling(scored([[0.3] * 6] * 6)):
        assert sampling.is_active
        assert len(y) == 6
        assert torch.equal(sampling.weight, torch.ones(6, dtype=torch.float64))


# O4: the moving average


@pytest.mark.parametrize(
    ("scores", "threshold", "updates", "tau"),
    [([0.0, 0, 1, 0, 0, 1], 2, 11, 2.0586), ([1.0, 1, 1, 1, 1, 0, 0, 0], 1.5, 27, 1.5070)],
)
def test_steps_until_it_switches_on(scores, threshold, updates, tau):
    """O4: constant 3 exceeds 2 after 11 updates, step 12 is the first; 1.6 exceeds 1.5 after 27."""
    sampling, seen = watched([scores] * (updates + 5), tau_threshold=threshold)
    assert [active for active, *_ in seen].index(True) == updates  # counted from 0
    assert sampling.switches == [[updates, True]]
    assert seen[updates - 1][1] == pytest.approx(tau, abs=5e-5)
    assert seen[updates - 2][1] < threshold


def test_the_mean_is_fed_once_per_step():
    """By the b scores of the training pass, or by all B of the pool; never by both."""
    rng = torch.Generator().manual_seed(0)
    batches = (torch.rand(40, 6, generator=rng) ** 3).tolist()
    _, seen = watched(batches, tau_threshold=1.2, presample=3)
    active, taus = slow_decisions(batches, 3, 1.2)
    assert any(active)
    assert not all(active)
    assert [item[0] for item in seen[:-1]] == active[:-1]  # the last pool may be one batch
    assert [item[1] for item in seen] == pytest.approx(taus, rel=1e-12)


@settings(max_examples=40)
@given(
    spikes=st.lists(st.floats(1, 60), min_size=8, max_size=40),
    smoothing=st.sampled_from([0.0, 0.5, 0.9]),
    rule=st.sampled_from(["v3", "v1"]),
    presample=st.sampled_from([2, 3]),
)
def test_on_and_off_again(spikes, smoothing, rule, presample):
    """One large score per batch drives tau up and down; the switch follows the slow version."""
    batches = [[spike, 1.0, 1.0, 1.0, 1.0] for spike in spikes]
    options = {"tau_threshold": 1.5, "smoothing": smoothing, "tau_rule": rule}
    sampling, seen = watched(batches, presample=presample, **options)
    active, taus = slow_decisions(batches, presample, 1.5, smoothing=smoothing, root=rule == "v1")
    assert [item[1] for item in seen] == pytest.approx(taus, rel=1e-9)
    assert [item[0] for item in seen[:-1]] == active[:-1]
    changes = [
        [n, now]
        for n, (before, now) in enumerate(zip([False, *active], active, strict=False))
        if before != now
    ]
    assert [[n, bool(now)] for n, now in sampling.switches] == changes
    assert sampling.active_steps == sum(item[0] for item in seen)


def test_tau_threshold_by_rule():
    """Without a threshold the decision sets it: 1 + r/3 for the paper, r(r+3)/(2r-3) for both."""
    for decision, limit in (("paper", 2.0), ("two_stage", 6.0)):
        for tau, expected in ((limit - 0.05, False), (limit + 0.05, True)):
            scores = [0.0] * 2000  # a share of equal scores: tau = 1/share
            scores[: round(2000 / tau)] = [1.0] * round(2000 / tau)
            options = {"decision": decision, "costs": "modelled", "smoothing": 0.0}
            sampling, seen = watched([scores] * 5, **options)
            assert (sampling.active_steps > 0) == expected
            assert seen[0][1] == pytest.approx(2000 / round(2000 / tau))


def test_the_root_is_compared_with_the_papers_threshold():
    """``tau_rule="v1"``: tau = 3 is 1.73, below 2; tau = 4.5 is 2.12, above it."""
    options = {"decision": "paper", "tau_rule": "v1", "smoothing": 0.0}
    for scores, expected in (([0.0, 0, 1] * 3, False), ([0.0] * 7 + [1.0, 1.0], True)):
        sampling, seen = watched([scores] * 4, **options)
        assert (sampling.active_steps > 0) == expected
        assert seen[0][1] == pytest.approx(slow_tau(scores) ** 0.5)


def test_kappa():
    sampling, _ = watched([[0.0, 0, 0, 1]] * 3, smoothing=0.0, tau_threshold=50)
    assert sampling.tau == pytest.approx(4)
    assert sampling.kappa == pytest.approx(12 / 7)


@pytest.mark.parametrize("zeros", ["uniform", "pool"])
def test_scores_that_are_all_zero(zeros):
    """Nothing left to learn: tau-hat is 1, a pool is trained on uniformly, nothing is raised."""
    options = {"tau_threshold": 2} if zeros == "uniform" else dict(ALWAYS)
    sampling, seen = watched([[0.0] * 4] * 6, **options)
    assert [rows for _, _, rows, _ in seen] == [4] * (6 if zeros == "uniform" else 2)
    assert [tau for _, tau, _, _ in seen] == pytest.approx(slow_averages([1.0] * len(seen), 0.9))
    assert torch.tensor([loss for *_, loss in seen]).isfinite().all()


def test_scores_that_underflow_train_uniformly():
    """A network that is right by 1,000 nats everywhere; its scores are zero in any type."""
    model = nn.Linear(1, 3)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([1000.0, 0, 0]))
    batches = [(torch.ones(4, 1), torch.zeros(4, dtype=torch.long))] * 6
    sampling = ImportanceSampling(model, losses, **ALWAYS)
    for x, y in sampling(batches):
        assert torch.equal(sampling.weight, torch.ones(4))
        assert sampling.loss(model(x), y) == 0


def test_a_model_that_is_not_finite_is_not_masked():
    """The loss tells, and the switch keeps its sanity."""
    model = regression()
    with torch.no_grad():
        model.weight.fill_(torch.nan)
    for options in ({"tau_threshold": 2}, ALWAYS):
        sampling = ImportanceSampling(model, squares, **options)
        for x, y in sampling(scored([[1.0, 2, 3]] * 6)):
            assert sampling.loss(model(x), y).isnan()
        assert "0 of" in sampling.summary()
        assert "first at" not in sampling.summary()
        assert torch.tensor(sampling.tau).isfinite()


def test_counters_and_summary():
    sampling, _ = watched([[0.0, 0, 1]] * 30, tau_threshold=2)
    assert sampling.steps == 11 + 7  # 19 batches are six pools and a rest
    assert sampling.active_steps == 6
    assert "6 of 18 steps" in sampling.summary()
    sampling.warn_if_idle()


@pytest.mark.filterwarnings("ignore:the data set has 6 examples")
@pytest.mark.parametrize("pool", [[0.3] * 6, [0.0] * 18])
def test_a_step_that_could_not_choose_is_not_counted_as_active(pool):
    """The switch is on, but the pool is a rest of one batch, or has nothing to choose by."""
    model = regression()
    sampling = ImportanceSampling(model, squares, score=carried, batch_size=6, **ALWAYS)
    for x, y in sampling(scored([pool])):
        sampling.loss(model(x), y)
        assert not sampling.is_active
    assert (sampling.steps, sampling.active_steps) == (1, 0)
    assert sampling.switches == [[0, True]]
    with pytest.warns(NoEffectWarning, match="none was larger than a batch, or all scored zero"):
        sampling.warn_if_idle()


@pytest.mark.parametrize("options", [{"tau_rule": "v1"}, {"decision": "paper"}, {}], ids=str)
def test_the_warning_prints_the_tau_that_decided(options):
    """A last batch may bring tau above the threshold, behind the last decision."""
    switch = Switch(3, smoothing=0.0, costs="modelled", **options)
    switch.begin_step()
    switch.feed(torch.tensor([1.0] + [0.0] * 29))
    assert switch.tau > switch.smallest_tau > 1
    with pytest.warns(NoEffectWarning, match="in 1 steps: tau 0 stayed below"):
        switch.warn_if_idle()


@pytest.mark.parametrize("rule", ["v1", "v3"])
@pytest.mark.parametrize("options", [{}, {"decision": "paper"}, {"sizes": "constant_time"}])
def test_the_smallest_tau_is_where_the_switch_turns(rule, options):
    switch = Switch(3, tau_rule=rule, costs="modelled", **options)
    for factor in (0.999, 1.001):
        switch.estimate = factor * switch.smallest_tau
        assert switch.is_worth() == (factor > 1)


def test_a_busy_moment_does_not_keep_it_off():
    """Costs that were measured too high are forgotten, and scoring is timed again."""
    switch = Switch(3, smoothing=0.0)
    heavy = torch.tensor([1.0] + [0.0] * 29)
    for _ in range(3):
        switch.costs.add("uniform", 1.0)
    switch.costs.add_ratio(50.0, 1.0)  # 50 uniform steps: never worth it
    for _ in range(200):
        switch.begin_step()
        switch.feed(heavy)
        switch.settle()
        assert not switch.is_active
    assert switch.begins_trial()
    switch.costs.add_ratio(1.5, 1.0)
    assert not switch.begins_trial()  # once
    switch.feed(heavy)
    switch.settle()
    assert switch.is_active


# looking costs little while it is off


@pytest.mark.parametrize(("costs", "rare"), [("measured", True), ("modelled", False)])
def test_looking_becomes_rare_where_a_clock_decides(costs, rare):
    """With costs by the clock, scores of so short a step are looked at every 20th time."""
    seen = []
    model = regression()
    sampling = ImportanceSampling(
        model, squares, score=lambda output, target: seen.append(1) or carried(output, target),
        tau_threshold=1e9, costs=costs,
    )  # fmt: skip
    for _ in sampling(scored([[0.3, 0.5] * 3] * 301)):
        sampling.switch.costs.add("uniform", 1e-9)
        sampling.loss(model(_[0]), _[1])
    assert len(seen) in ((110, 111, 112) if rare else (301,))


def test_looking_is_not_rare_beside_long_steps():
    """A look that takes less than a hundredth of a step is always worth it."""
    switch = Switch(3, tau_threshold=1e9)
    switch.steps = 1000
    for seconds, step in ((0.01, 1001), (0.004, 1001), (0.05, 1005), (9.0, 1020)):
        switch.costs.seconds["uniform"].extend([1.0] * 3)
        switch.note_look(seconds)
        assert switch.next_look == step
