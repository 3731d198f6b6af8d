"""``lowland.importance.race``: the same start and data for all, honest clocks, exact budgets."""

from time import perf_counter, sleep

import pytest
import torch
from torch import nn

from lowland.importance import ImportanceSampling, UniformSampling
from lowland.importance.race import Arm, race, steps_down
from lowland.results import Status, plain
from lowland.training import use_threads
from small_networks import generators, same

pytestmark = pytest.mark.filterwarnings("ignore:examples are scored in evaluation mode")

losses = nn.CrossEntropyLoss(reduction="none")


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other take longer than these steps."""
    with use_threads(1):
        yield


def data(seed, count=31, rows=8):
    """Batches of a random order that the seed decides."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(count * rows, 4, generator=draws)
    y = (x[:, 0] > 0).long()
    return list(zip(x.split(rows), y.split(rows), strict=True))


def network(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.ReLU(), nn.Linear(6, 2))


def arm(name, sampling=None, rate=0.1, seen=None):
    def make(seed):
        model = network(seed)
        optimizer = torch.optim.SGD(model.parameters(), rate)
        if seen is not None:
            optimizer.register_step_pre_hook(
                lambda one, *_: seen.append((name, one.param_groups[0]["lr"]))
            )
        return model, optimizer, sampling(model) if sampling else UniformSampling(losses)

    return Arm(name, make)


def always(model):
    """Importance sampling from the second step on, as soon as scores differ at all."""
    return ImportanceSampling(model, losses, presample=3, tau_threshold=1.0, smoothing=0.0)


def never(model):
    return ImportanceSampling(model, losses, presample=3, tau_threshold=1e9)


def run(arms, **options):
    test = data(99)
    options = {"evaluation_batches": test, "test_batches": test, "evaluations": 4} | options
    return race(arms, losses, data, **options)


def numbers(result):
    """What no clock decides."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.curve]


def test_equal_arms_end_equal():
    """Same weights, same rows, same dropout: to the bit, however turns are cut."""
    a, b = run([arm("a"), arm("b")], steps=20, slice_seconds=0.0)
    assert numbers(a) == numbers(b)
    (alone,) = run([arm("a")], steps=20, slice_seconds=10.0)
    assert numbers(alone) == numbers(a)
    (other,) = run([arm("a")], steps=20, seed=1)
    assert numbers(other) != numbers(a)


def test_a_switch_that_is_off_is_plain_sgd():
    plain_arm, off = run([arm("plain"), arm("off", never)], steps=20)
    assert [row["train_loss"] for row in off.curve] == [
        row["train_loss"] for row in plain_arm.curve
    ]
    assert (off.active_share, plain_arm.active_share) == (0.0, None)
    assert off.cost == plain_arm.cost


def test_equal_steps():
    for result in run([arm("uniform"), arm("on", always)], steps=10):
        assert result.steps == 10
        assert result.status is Status.FINISHED
        assert [row["share"] for row in result.curve] == [0.0, 0.3, 0.5, 0.8, 1.0]


def test_modelled_cost_counts_rows():
    """3 b for an ordinary step, B + 3 b for an active one; evaluation costs nothing."""
    uniform, on = run([arm("uniform"), arm("on", always)], steps=9)
    assert uniform.cost == 9 * 3 * 8
    active = round(on.active_share * 9)
    assert active > 0
    assert on.cost == 9 * 3 * 8 + active * 24
    (cheap,) = run([arm("uniform")], steps=9, backward_cost=1.0)
    assert cheap.cost == 9 * 2 * 8


def test_equal_cost():
    """Nobody stops before the budget is spent, nobody goes on after."""
    for result in run([arm("uniform"), arm("on", always)], cost=500.0):
        assert 500 <= result.cost < 500 + 24 + 24


def test_equal_seconds():
    """Evaluation is on nobody's clock, however long it takes."""

    class Slow(list):
        def __iter__(self):
            sleep(0.05)
            return super().__iter__()

    begin = perf_counter()
    results = run(
        [arm("uniform"), arm("on", always)],
        seconds=0.05,
        evaluation_batches=Slow(data(99)),
        slice_seconds=0.01,
    )
    assert perf_counter() - begin > 2 * 0.05 + 10 * 0.05
    for result in results:
        assert 0.05 <= result.seconds < 0.1


def test_warm_up_is_not_on_the_clock():
    """The first steps of each kind, thus also the first active ones."""

    class SlowAtFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)
            self.seen = set()

        def forward(self, x):
            if self.training or not torch.is_grad_enabled():
                kind = (len(x), torch.is_grad_enabled())
                if kind not in self.seen:
                    sleep(0.25)
                    self.seen.add(kind)
            return self.linear(x)

    def make(seed):
        model = SlowAtFirst()
        return model, torch.optim.SGD(model.parameters(), 0.1), always(model)

    model, optimizer, sampling = make(0)
    model.seen.add((96, False))  # the evaluation's
    one = Arm("slow", lambda seed: (model, optimizer, sampling))
    test = [tuple(torch.cat(part) for part in zip(*data(99), strict=True))]
    (result,) = race([one], losses, data, steps=20, evaluation_batches=test)
    assert len(model.seen) >= 3
    assert result.seconds < 0.25


def test_turns():
    """Arms take turns within the share between two evaluations."""
    seen = []
    run([arm("a", seen=seen), arm("b", seen=seen)], steps=8, slice_seconds=0.0)
    assert [name for name, _ in seen] == ["a", "b"] * 8


def test_the_learning_rate_follows_the_share():
    seen = []
    run([arm("a", seen=seen)], steps=10, schedule=steps_down(0.4, 0.8))
    assert [rate for _, rate in seen] == pytest.approx([0.1] * 4 + [0.02] * 4 + [0.004] * 2)
    seen.clear()
    (result,) = run([arm("a", always, seen=seen)], cost=400.0, schedule=steps_down(0.5))
    before = sum(rate == 0.1 for _, rate in seen)
    assert 0 < before < len(seen) == result.steps
    assert [rate for _, rate in seen] == pytest.approx(
        [0.1] * before + [0.02] * (len(seen) - before)
    )


def test_gradients_are_clipped():
    wild, tame = (
        run([arm("a", rate=5.0)], steps=8),
        run([arm("a", rate=5.0)], steps=8, gradient_clip=1e-9),
    )
    start = tame[0].curve[0]["train_loss"]
    assert tame[0].train_loss == pytest.approx(start, abs=1e-6)
    assert abs(wild[0].train_loss - start) > 1e-3


def test_what_is_not_finite_stops():
    """The other arms go on; no NaN in a record."""
    bad, good = run([arm("bad", rate=1e30), arm("good")], steps=20)
    assert (bad.status, good.status) == (Status.NOT_FINITE, Status.FINISHED)
    assert good.steps == 20
    assert bad.steps < 20
    assert bad.record()["train_loss"] is None
    assert plain(good.record()) == good.record()


def test_nothing_else_changes():
    """The global generators."""
    before = generators()
    run([arm("a"), arm("b", always)], steps=6)
    assert same(generators(), before)


def test_bad_input():
    one = arm("a")
    for budgets in ({}, {"steps": 1, "cost": 1.0}, {"seconds": 0.0}, {"cost": float("inf")}):
        with pytest.raises(ValueError, match="exactly one budget must be given, above zero; got"):
            run([one], **budgets)
    with pytest.raises(ValueError, match=r"each with its own name; got \['a', 'a'\]"):
        run([one, one], steps=1)
    with pytest.raises(ValueError, match=r"there must be arms.*got \[\]"):
        run([], steps=1)
    with pytest.raises(ValueError, match="evaluations must be at least 1; got 0"):
        run([one], steps=1, evaluations=0)
    with pytest.raises(ValueError, match="at least one batch; got none"):
        race([one], losses, lambda seed: [], steps=1, evaluation_batches=data(0))
