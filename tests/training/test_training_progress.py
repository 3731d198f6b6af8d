"""Progress is shown live on a terminal, by rare lines in a log, and not at all when unwanted."""

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress as Display

from lowland.training import Progress, open_progress
from lowland.training import progress as module


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_log_gets_a_line_every_30_seconds(clock, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with open_progress(True) as display, display.task("training", 100) as task:
        for _ in range(50):
            clock.now += 1.5
            task.advance(note="loss 0.5")
    assert stream.getvalue().splitlines() == [
        "training: 20/100, 0:02:00 left, loss 0.5",
        "training: 40/100, 0:01:30 left, loss 0.5",
    ]


def test_tasks_inside_each_other_share_the_lines(clock):
    stream = io.StringIO()
    progress = Progress(stream=stream, last_line=clock.now)
    with open_progress(progress) as outer, outer.task("pairs", 2) as pairs:
        for _ in range(2):
            with open_progress(outer) as inner, inner.task("steps", done=4) as steps:
                for _ in range(20):
                    clock.now += 1
                    steps.advance()
            pairs.advance()
    assert stream.getvalue().splitlines() == ["steps: 14"]


@pytest.mark.parametrize("progress", [False, None])
def test_nothing_is_written_where_no_display_is_wanted(progress, clock, capsys):
    with open_progress(progress) as display, display.task("training", 3) as task:
        clock.now += 1000
        task.advance()
    assert capsys.readouterr() == ("", "")


def test_time_left_counts_this_run_only(clock):
    stream = io.StringIO()
    progress = Progress(stream=stream, last_line=clock.now)
    with progress.task("training", total=100, done=60) as task:
        for _ in range(10):
            clock.now += 6
            task.advance()
    assert stream.getvalue().splitlines()[0] == "training: 65/100, 0:03:30 left"


def test_live_display_shows_every_task_and_drops_inner_ones():
    console = Console(file=io.StringIO(), force_terminal=True)
    with Display(console=console, auto_refresh=False) as display:
        progress = Progress(display=display)
        with progress.task("outer", 2) as outer:
            with progress.task("inner", 5) as inner:
                inner.advance(5, "done")
                rows = [(row.description, row.completed) for row in display.tasks]
                assert rows == [("outer", 0), ("inner", 5)]
            outer.advance(2)
        assert [(row.description, row.completed) for row in display.tasks] == [("outer", 2)]
