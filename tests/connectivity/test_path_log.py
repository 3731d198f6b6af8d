"""A search tells each cycle, curve or pair once, over all calls that share a folder."""

import pytest
from killed_curve import at_batch, fit
from killed_search import search

from lowland.connectivity import connect_minima, find_path, fit_curve
from lowland.results import Status
from small_networks import SHORT, class_batches, losses, mlp, seeded, two

pytestmark = pytest.mark.filterwarnings("ignore::lowland.errors.NoEffectWarning")


def told():
    """A list, and a tracker that fills it; wall time is left out."""
    rows = []
    return rows, lambda values, step: rows.append(
        (step, {name: value for name, value in values.items() if name != "seconds"})
    )


def press_ctrl_c():
    raise KeyboardInterrupt


def test_cycles_on_disk_are_not_told_again(tmp_path):
    """The straight line and three cycles, at the sums of their steps; in one call or in three."""
    rows, log = told()
    result = search(None, log=log)
    steps = [sum(cycle.steps for cycle in result.cycles[: n + 1]) for n in range(4)]
    assert [step for step, _ in rows] == steps
    assert steps[0] == 0
    assert [row["cycle"] for _, row in rows] == [0, 1, 2, 3]
    assert [row["saddle"] for _, row in rows] == [c.profile.saddle() for c in result.cycles]
    parts, log = told()
    for until in (1, 2, None):
        search(tmp_path, until_cycle=until, log=log)
    search(tmp_path, log=log)  # finished
    assert parts == rows


def test_a_curve_is_told_when_it_is_done(tmp_path):
    """Not when it was interrupted; and the straight line only by a call that begins."""
    rows, log = told()
    assert fit(tmp_path, before_batch=at_batch(160, press_ctrl_c), log=log).status is (
        Status.INTERRUPTED
    )
    assert [step for step, _ in rows] == [0]
    result = fit(tmp_path, log=log)
    assert [step for step, _ in rows] == [0, 130]
    assert [row["saddle"] for _, row in rows] == [c.profile.saddle() for c in result.cycles]


def test_equal_ends_are_told_once():
    """Nothing is searched: the straight line is all there is."""
    model, _ = two(mlp)
    for driver, options in ((find_path, {"schedule": SHORT}), (fit_curve, {})):
        rows, log = told()
        driver(model, losses, class_batches(4), model, model, backend="loop", log=log, **options)
        assert [(step, row["barrier_max"]) for step, row in rows] == [(0, 0.0)]


def test_pairs_on_disk_are_not_told_again(tmp_path):
    """Their number goes on from the call before."""
    minima = [seeded(mlp, seed) for seed in (1, 2, 3)]
    rows, log = told()

    def explore(budget):
        return connect_minima(
            minima[0], losses, class_batches(4), minima, schedule=SHORT, backend="loop",
            suggest="paper", budget=budget, out=tmp_path, log=log,
        )  # fmt: skip

    explore(1)
    assert [step for step, _ in rows] == [1]
    landscape = explore(3)
    assert [step for step, _ in rows] == [1, 2, 3]
    assert [(row["a"], row["b"]) for _, row in rows] == [(e.a, e.b) for e in landscape.edges]
    for (_, row), edge in zip(rows, landscape.edges, strict=True):
        assert row["highest_train_loss"] == edge.saddles["train_loss"]
