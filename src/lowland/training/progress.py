"""How far a long job is: a live display on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Display

__all__ = ["Progress", "Task", "open_progress"]

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_FRAMES = 0.1


@dataclass
class Progress:
    """Shows tasks live, as lines, or not at all.

    Attributes:
        display: Live display, or None.
        stream: Where lines go (it has ``write`` and ``flush``), or None.
        last_line: When the last line was written; all tasks share it, so a log stays short.
        open_tasks: Number of tasks that are running, one inside another.
    """

    display: Display | None = None
    stream: Any = None
    last_line: float = field(default_factory=lambda: monotonic())
    open_tasks: int = 0

    @contextmanager
    def task(self, description: str, total: int | None = None, done: int = 0) -> Iterator["Task"]:
        """Show a task while a block runs.

        Args:
            description: What is being done.
            total: Number of steps, None if unknown.
            done: Steps done before, by an earlier run.

        Yields:
            The task; call its ``advance`` after each step.
        """
        task = Task(self, description, total, done, done)
        self.open_tasks += 1
        if self.display is not None:
            task.row = self.display.add_task(description, total=total, completed=done, note="")
        try:
            yield task
        finally:
            self.open_tasks -= 1
            task.show()
            if self.display is not None and self.open_tasks:  # inner rows make room for the next
                self.display.remove_task(task.row)


@dataclass
class Task:
    """One job with steps; :meth:`advance` costs nothing to speak of.

    Attributes:
        progress: Where it is shown.
        description: What is being done.
        total: Number of steps, None if unknown.
        done: Steps done.
        start: Steps done before this run.
        note: A few words behind the numbers.
        begun: When it began, in seconds.
        shown: When it was shown last.
        row: Its row of the live display.
    """

    progress: Progress
    description: str
    total: int | None
    done: int
    start: int
    note: str = ""
    begun: float = field(default_factory=lambda: monotonic())
    shown: float = 0.0
    row: TaskID = TaskID(0)

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count steps.

        Args:
            n: Number of steps done now.
            note: New words to show, if any.
        """
        self.done += n
        self.note = note or self.note
        if self.progress.display is not None:
            if monotonic() - self.shown >= SECONDS_BETWEEN_FRAMES:
                self.show()
        elif self.progress.stream is not None:
            now = monotonic()
            if now - self.progress.last_line >= SECONDS_BETWEEN_LINES:
                self.progress.last_line = now
                self.progress.stream.write(self.line(now) + "\n")
                self.progress.stream.flush()

    def show(self) -> None:
        """Bring the live display up to date."""
        if self.progress.display is not None:
            self.shown = monotonic()
            self.progress.display.update(self.row, completed=self.done, note=self.note)

    def line(self, now: float) -> str:
        """Say in one line how far the task is."""
        words = [f"{self.description}: {self.done}"]
        if self.total:
            words[0] += f"/{self.total}"
            steps = self.done - self.start
            if steps:
                words.append(duration((now - self.begun) * (self.total - self.done) / steps))
        return ", ".join([*words, self.note] if self.note else words)


def duration(seconds: float) -> str:
    """Say how long something still takes."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left"


@contextmanager
def open_progress(progress: bool | None | Progress = None) -> Iterator[Progress]:
    """Open a display for the jobs of a block.

    Args:
        progress: True shows a live display with the time left where standard error is a terminal
            or a notebook (with ipywidgets, which rich needs there), and else writes one line every
            30 s to standard error; None shows the live display only; False shows nothing. A
            :class:`Progress` that is open already is used as it is, so that jobs nest.

    Yields:
        The display.
    """
    if isinstance(progress, Progress):
        yield progress
        return
    console = Console(stderr=True)
    is_live = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    if progress is not False and is_live:
        context = Display(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
    else:
        context = nullcontext()
    with context as display:
        yield Progress(display, sys.stderr if progress and display is None else None)
