"""Several recipes at a time, on a core each; a process that is done with one takes the next."""

import contextlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["Job", "end_with_parent", "has_parent", "run_side_by_side"]

PARENT = "LOWLAND_PARENT"
SECONDS_BETWEEN_LOOKS = 0.2
KILLED = "a process was killed; the same command goes on from the last saved state"


class Job(NamedTuple):
    """A command to run.

    Attributes:
        name: What to call it.
        words: Behind ``lowland``.
    """

    name: str
    words: tuple[str, ...]


def run_side_by_side(
    jobs: Sequence[Job], at_once: int, *, progress: Any = False
) -> dict[str, tuple[int, str]]:
    """Run commands of this library in processes of their own, and wait for all of them.

    A process runs one command after the other: what they import, torch above all, is imported once
    for each process, not for each command. Ctrl-C reaches the commands once, so that each saves
    what it has done.

    Args:
        jobs: The commands, the longest first.
        at_once: How many run at a time.
        progress: As for :func:`lowland.training.open_progress`.

    Returns:
        Exit code and last words of each, by name.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when all have ended.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(at_once, len(jobs)), spawn, initializer=begin) as pool:
        try:
            return hand_out(jobs, at_once, pool, progress)
        except BaseException as error:
            is_stopped = isinstance(error, KeyboardInterrupt)
            for process in multiprocessing.active_children():
                if is_stopped and process.pid:
                    os.kill(process.pid, signal.SIGINT)
                else:  # after an error of ours: nobody is left behind
                    process.kill()
            raise


def hand_out(
    jobs: Sequence[Job], at_once: int, pool: ProcessPoolExecutor, progress: Any
) -> dict[str, tuple[int, str]]:
    """Give a command to whoever is free, until all are done."""
    waiting, running, ended = list(jobs), {}, {}

    def look() -> None:
        for name in [name for name, future in running.items() if future.done()]:
            ended[name] = outcome(running.pop(name))
        while waiting and len(running) < at_once:  # never more: Ctrl-C finds nothing in line
            job = waiting.pop(0)
            try:
                running[job.name] = pool.submit(run_command, job.words)
            except BrokenProcessPool:
                ended[job.name] = 1, KILLED

    look()
    from lowland.training import open_progress  # torch comes with it: after the commands began

    with open_progress(progress) as display, display.task("recipes", len(jobs)) as task:
        shown = 0
        while waiting or running:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            look()
            task.advance(len(ended) - shown, note=", ".join(running))
            shown = len(ended)
    return ended


def outcome(future: Future) -> tuple[int, str]:
    """Exit code and last words of a command, also of one whose process was killed."""
    try:
        return future.result()
    except BrokenProcessPool:
        return 1, KILLED


def begin() -> None:
    """In a fresh process: end with the parent, and do not hear the terminal's Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    if hasattr(os, "getppid"):
        os.environ[PARENT] = str(os.getppid())
    end_with_parent()


def run_command(words: Sequence[str]) -> tuple[int, str]:
    """Run a command in this process; give its exit code and the end of what it said."""
    said = io.StringIO()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = import_module("lowland.cli").main(list(words))
    except SystemExit as end:  # wrong words
        code = int(end.code or 0)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code, said.getvalue()[-2000:].strip()


def has_parent() -> bool:
    """Whether this process was started here."""
    return PARENT in os.environ


def end_with_parent() -> None:
    """In a process that was started here: end when the one that started it is gone."""
    parent = os.environ.get(PARENT)
    if parent is None or not hasattr(os, "getppid"):
        return

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
