"""An exploration finds the paths that ``find_path`` finds, in one order, whoever computes them."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from killed_exploration import explore, minima
from killed_search import Watched, later, search
from torch.testing import assert_close

from lowland.connectivity import Cycle, Landscape, connect_minima, find_path, minimax, spanning_tree
from lowland.errors import NoEffectWarning, OutcomeError
from lowland.results import Status
from lowland.training import save_state, use_threads
from small_networks import SHORT, class_batches, losses, mlp, same, seeded, two

pytestmark = [
    pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning"),
]


@pytest.fixture(autouse=True)
def one_thread():
    with use_threads(1):
        yield


@pytest.fixture(scope="module")
def whole():
    with use_threads(1):
        return explore()


def timeless(value):
    """A record without what a clock decides."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if name != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def assert_same(found, expected):
    """The same numbers and the same paths, bit for bit."""
    assert timeless(found.record()) == timeless(expected.record())
    for edge in expected.edges:
        paths = [landscape.path(edge.a, edge.b).path for landscape in (found, expected)]
        assert same(paths[0].pivots, paths[1].pivots)


def pairs(landscape):
    return [(edge.a, edge.b) for edge in landscape.edges]


def test_every_path_is_that_of_find_path(whole):
    """With the same arguments, from the smaller number to the larger."""
    nets = minima()
    assert sorted(pairs(whole)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for edge in whole.edges[:2]:
        alone = find_path(
            nets[0], losses, Watched(lambda: None), nets[edge.a], nets[edge.b],
            schedule=SHORT, backend="loop", test_batches=class_batches(4, sizes=(5,), seed=7),
        )  # fmt: skip
        assert same(whole.path(edge.a, edge.b).path.pivots, alone.path.pivots)
        assert edge.saddles["train_loss"] == alone.saddle
        assert edge.saddles["test_error"] == alone.profile.saddle("test_error")
        assert edge.cycles == tuple(cycle.profile.saddle() for cycle in alone.cycles)


def test_minima_are_measured_as_ends_of_paths_are(whole):
    for edge in whole.edges:
        profile = whole.path(edge.a, edge.b).profile
        for metric, values in whole.minima.items():
            ends = profile.values(metric)[[0, -1]]
            assert_close(values[[edge.a, edge.b]], ends, rtol=1e-6, atol=1e-6)


def test_the_order_is_that_of_the_paper(whole):
    """A star from the lowest minimum first, to the others from low to high."""
    lowest, *others = whole.losses.argsort().tolist()
    assert pairs(whole)[:3] == [(min(lowest, k), max(lowest, k)) for k in others]
    assert whole.suggest() is None
    assert replace(whole, edges=whole.edges[:3]).suggest("paper") == pairs(whole)[3]


def test_what_the_landscape_says(whole):
    """Tree, bounds and means of every metric follow from the saddles of the edges."""
    for metric in ("train_loss", "train_error", "test_loss", "test_error"):
        saddles = whole.saddles(metric)
        assert torch.equal(whole.minimax(metric), minimax(saddles))
        assert [merge.height for merge in whole.merges(metric)] == [
            edge.saddles[metric] for edge in whole.tree(metric)
        ]
        found = [edge.saddles[metric] for edge in whole.tree()]
        assert whole.mean_saddle(metric) == pytest.approx(sum(found) / 3)
    assert whole.route(0, 2)[0] == 0
    assert whole.topographic_distance(1, 1) == 0
    with pytest.raises(KeyError, match="one of train_loss, train_error, test_loss, test_error; go"):
        whole.minimax("accuracy")
    with pytest.raises(ValueError, match="numbers from 0 to 3; got 0 and 4"):
        whole.path(0, 4)


def test_a_path_walked_backwards(whole):
    there, back = whole.path(1, 3), whole.path(3, 1)
    assert same(back.path.pivots, there.path.pivots.flip(0))
    assert same(back.profile.train_loss, there.profile.train_loss.flip(0))
    assert_close(back.profile.t, 1 - there.profile.t.flip(0))
    assert back.saddle == there.saddle


def test_save_and_load(whole, tmp_path):
    loaded = Landscape.load(whole.save(tmp_path))
    assert_same(loaded, whole)
    assert loaded.record() == whole.record()
    assert (loaded.status, loaded.suggest()) == (Status.FINISHED, None)


def test_a_budget_stops_and_may_grow(tmp_path, whole):
    """The first pairs of the whole exploration; the same folder goes on from them."""
    some = explore(tmp_path, budget=2)
    assert pairs(some) == pairs(whole)[:2]
    assert some.message == "1 more paths are needed to join all minima."
    assert some.suggest() == pairs(whole)[2]
    with pytest.raises(ValueError, match=r"\(0, 1\) was not. No path joins them yet"):
        some.path(0, 1)
    before = (tmp_path / "pairs" / "1-3" / "result.json").stat().st_mtime_ns
    more = explore(tmp_path, budget=3)
    assert pairs(more) == pairs(whole)[:3]
    assert (tmp_path / "pairs" / "1-3" / "result.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"\(0, 1\) was not. The tree leads along \(0, 3, 1\)"):
        more.path(0, 1)


@pytest.fixture(scope="module")
def early():
    with use_threads(1):
        return explore(suggest="early")


def test_early_cycles_change_the_order_and_no_path(early, whole):
    """It finishes the tree of first cycles, here without a barrier left to go round."""
    assert torch.equal(early.minimax(), whole.minimax())
    assert pairs(early) == spanning_tree(early.early)
    assert replace(early, edges=early.edges[:2]).suggest() == pairs(early)[2]
    for edge in whole.edges:
        assert early.early[edge.a, edge.b] == min(edge.cycles[:2])
    for edge in early.edges:
        paths = [landscape.path(edge.a, edge.b).path for landscape in (early, whole)]
        assert same(paths[0].pivots, paths[1].pivots)


def test_early_cycles_are_kept(early, tmp_path):
    """The budget counts finished pairs; the others lie there begun, and are gone on with."""
    some = explore(tmp_path, suggest="early", budget=2)
    assert pairs(some) == pairs(early)[:2]
    assert len(list(tmp_path.glob("pairs/*/cycle-01.json"))) == 6
    assert len(list(tmp_path.glob("pairs/*/cycle-02.json"))) == 2
    before = {f: f.stat().st_mtime_ns for f in tmp_path.glob("pairs/*/cycle-01.safetensors")}
    more = explore(tmp_path, suggest="early", executor=Later(), in_flight=1)
    assert_same(more, early)
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert Landscape.load(tmp_path).record() == more.record()


class Later:
    """An executor that does nothing until a result is asked for, and then the newest job first."""

    def __init__(self):
        self.jobs, self.most = [], 0

    def submit(self, function, *arguments):
        self.jobs.append(Job(self, function, arguments))
        self.most = max(self.most, sum(job.found is None for job in self.jobs))
        return self.jobs[-1]


class Job:
    def __init__(self, executor, function, arguments):
        self.executor, self.function, self.arguments, self.found = (
            executor, function, arguments, None,
        )  # fmt: skip

    def result(self):
        for job in reversed(self.executor.jobs):
            if job.found is None:
                job.found = job.function(*job.arguments)
        return self.found


@pytest.mark.parametrize(("in_flight", "on_disk"), [(1, False), (3, False), (3, True)])
def test_an_executor_changes_nothing(in_flight, on_disk, tmp_path):
    """Even one that finishes the last pair first; ``in_flight`` pairs are under way."""
    here = explore(in_flight=in_flight, budget=3)
    executor, out = Later(), tmp_path if on_disk else None
    there = explore(out, executor=executor, in_flight=in_flight, threads=in_flight, budget=3)
    assert_same(there, here)
    assert executor.most == in_flight
    assert not on_disk or not any((tmp_path / "claims").iterdir())


@pytest.mark.slow
def test_a_pool_of_processes():
    """The real thing: spawned, so that nothing is shared but what is sent."""
    here = explore(count=3, budget=1)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there = explore(count=3, budget=1, executor=pool)
    assert there.settings["in_flight"] == 1
    assert_same(there, here)


class PowerCut(Exception):
    pass


def power_cut():
    raise PowerCut


@pytest.mark.parametrize("last", ["0-2", "2-3"])
def test_cut_off_among_early_cycles_or_after_them(last, early, tmp_path):
    """The pair 2-3 is the last to begin."""
    with pytest.raises(PowerCut):
        explore(tmp_path, later(tmp_path / "pairs" / last, 1, power_cut), suggest="early")
    assert len(list(tmp_path.glob("pairs/*/cycle-01.json"))) == (2 if last == "0-2" else 6)
    assert_same(explore(tmp_path, suggest="early"), early)


def press_ctrl_c():
    raise KeyboardInterrupt


def test_ctrl_c_keeps_what_is_finished(tmp_path, whole):
    second = "{}-{}".format(*pairs(whole)[1])
    press = later(tmp_path / "pairs" / second, 1, press_ctrl_c)
    stopped = explore(tmp_path, press)
    assert (stopped.status, stopped.message) == (Status.INTERRUPTED, "1 pairs are finished.")
    assert pairs(stopped) == pairs(whole)[:1]
    assert stopped.suggest() == pairs(whole)[1]
    assert Landscape.load(tmp_path).status is Status.INTERRUPTED
    with pytest.raises(OutcomeError, match="interrupted"):
        stopped.raise_for_status()
    assert_same(explore(tmp_path).raise_for_status(), whole)


def test_a_pair_that_diverges_is_an_edge(tmp_path):
    """Its path is the last good one, here the straight line; the others are tried all the same."""
    wild = replace(SHORT, cycles=(Cycle(3, 1e30, insert="equal", count=2),))
    found = explore(tmp_path, schedule=wild, count=3)
    assert found.status is Status.FINISHED
    assert found.message == "diverged, with the last good path kept: 1-2, 0-1, 0-2."
    assert [edge.status for edge in found.edges] == [Status.NOT_FINITE] * 3
    assert found.minimax().isfinite().all()
    assert Landscape.load(tmp_path).record() == found.record()


def test_files_and_modules_are_minima(tmp_path):
    a, b = two(mlp)
    file = save_state(tmp_path / "b.safetensors", b)
    options = {"schedule": SHORT, "backend": "loop"}
    found = [
        connect_minima(a, losses, class_batches(4), sources, **options)
        for sources in ([a, b], [a.state_dict(), str(file)])
    ]
    assert_same(*found)


def test_nothing_gained_is_said_once():
    """Equal minima: the straight lines are points, and nothing is relaxed, so nothing is said."""
    line = replace(SHORT, cycles=(Cycle(1, 1e-12, insert="equal", count=1),))
    with pytest.warns(NoEffectWarning, match="no relaxed path was lower") as told:
        explore(schedule=line, count=3)
    assert len(told) == 1


def connect(nets, model=None, **options):
    options = {"schedule": SHORT, "backend": "loop"} | options
    return connect_minima(model or seeded(mlp, 0), losses, class_batches(4), nets, **options)


def infinite():
    net = seeded(mlp, 5)
    with torch.no_grad():
        net[0].weight.fill_(float("inf"))
    return net


def frozen(seed):
    net = seeded(mlp, seed)
    net[0].weight.requires_grad_(requires_grad=False)
    return net


BAD = {
    "one minimum": (lambda: connect([seeded(mlp, 1)]), r"at least 2 minima to connect; got 1"),
    "other keys": (
        lambda: connect([seeded(mlp, 1), seeded(mlp, 2), {"0.weight": torch.ones(6, 4)}]),
        r"minima\[2\] must fit the model; missing: 0.bias",
    ),
    "not finite": (
        lambda: connect([seeded(mlp, 1), seeded(mlp, 2), infinite()]),
        r"minima\[2\] \(end\): end must hold finite parameters; 0.weight does not",
    ),
    "frozen": (
        lambda: connect([frozen(1), frozen(1), frozen(2)], frozen(1)),
        r"minima\[0\] \(start\) and minima\[2\] \(end\): frozen parameters",
    ),
    "budget": (
        lambda: connect(two(mlp), budget=0),
        "budget must be a whole number, at least 1; got 0",
    ),
    "half a pair": (lambda: connect(two(mlp), budget=1.5), "a whole number, .*got 1.5"),
    "first cycles": (
        lambda: connect(two(mlp)).suggest("early"),
        "'early' needs the first cycle of every pair.*suggest='bounded'",
    ),
    "twice the same": (
        lambda: connect(two(mlp)).path(1, 1),
        "joins two different minima; got 1 twice. Take one of the pairs of .edges",
    ),
    "rule": (lambda: connect(two(mlp), suggest="all"), "suggest must be one of .*got 'all'"),
    "in flight": (
        lambda: connect(two(mlp), in_flight=0),
        "in_flight must be a whole number, at least 1; got 0",
    ),
    "schedule": (lambda: connect(two(mlp), schedule="quick"), "schedule must be one of"),
    "executor": (lambda: connect(two(mlp), executor=len), r"must have submit\(.*got a builtin"),
    "early elsewhere": (
        lambda: connect(two(mlp), suggest="early", executor=Later()),
        "several processes need a folder that all of them see; got out=None",
    ),
    "threads": (
        lambda: connect(two(mlp), executor=ThreadPoolExecutor(1)),
        "processes of their own.*got a pool of threads",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, sentence = BAD[case]
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()


@pytest.mark.untyped
def test_arguments_of_a_wrong_type():
    with pytest.raises(ValueError, match="minima have numbers from 0 to 1; got 0 and '1'"):
        connect(two(mlp)).path(0, "1")
    with pytest.raises(ValueError, match="at least 2 minima to connect; got 1"):
        connect(seeded(mlp, 1))
    with pytest.raises(TypeError, match="model must be a "):
        connect_minima(None, losses, class_batches(4), two(mlp))


def test_a_minimum_without_a_finite_loss():
    """Its parameters are finite, but the loss overflows."""
    huge = seeded(mlp, 5)
    with torch.no_grad():
        huge[2].weight.fill_(3e38)
    with pytest.raises(ValueError, match=r"finite loss; that of minima\[1\] is (inf|nan)"):
        connect([seeded(mlp, 1), huge])


def test_a_folder_of_another_exploration(tmp_path):
    """Order and budget may change, what decides the paths may not."""
    connect(two(mlp), out=tmp_path, suggest="lowest")
    connect(two(mlp), out=tmp_path, suggest="paper", budget=1)
    with pytest.raises(ValueError, match="seed = 0, now seed = 1"):
        connect(two(mlp), out=tmp_path, seed=1)


def test_a_search_that_stops_after_a_cycle_goes_on_to_the_same_bits(tmp_path, caplog):
    """It says so in its status, and does not warn of what was asked for."""
    whole = search(None)
    part = search(tmp_path, until_cycle=1)
    assert (part.status, part.message) == (Status.INTERRUPTED, "1 of 3 cycles were asked for.")
    assert timeless(part.record())["cycles"] == timeless(whole.record())["cycles"][:2]
    assert not caplog.records
    assert same(search(tmp_path, until_cycle=9).path.pivots, whole.path.pivots)
    assert search(tmp_path).status is Status.FINISHED
    with pytest.raises(ValueError, match="until_cycle must be a whole number, at least 1; got 0"):
        search(None, until_cycle=0)


@pytest.mark.untyped
def test_minima_that_are_no_list():
    with pytest.raises(TypeError, match="minima must be a list.*got a generator"):
        connect(seeded(mlp, k) for k in range(3))
    with pytest.raises(TypeError, match="minima must be a list.*got a NoneType"):
        connect(None)
