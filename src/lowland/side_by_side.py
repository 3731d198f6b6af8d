"""Several recipes at a time, each in a process and on a thread of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Job", "end_with_parent", "has_parent", "run_side_by_side"]

PARENT = "LOWLAND_PARENT"
SECONDS_BETWEEN_LOOKS = 0.2


class Job(NamedTuple):
    """A command to run.

    Attributes:
        name: What to call it.
        words: Behind ``lowland``.
    """

    name: str
    words: tuple[str, ...]


class Running(NamedTuple):
    """A command that runs, and where its last words go."""

    job: Job
    process: subprocess.Popen
    errors: Any


def run_side_by_side(
    jobs: Sequence[Job], at_once: int, *, progress: Any = False
) -> dict[str, tuple[int, str]]:
    """Run commands of this library in processes of their own, and wait for all of them.

    Ctrl-C reaches the processes once, so that each saves what it has done.

    Args:
        jobs: The commands.
        at_once: How many run at a time.
        progress: As for :func:`lowland.training.open_progress`.

    Returns:
        Exit code and last words of each, by name.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when all have ended.
    """
    from lowland.training import open_progress

    waiting, running, ended = list(jobs), [], {}
    with open_progress(progress) as display, display.task("recipes", len(jobs)) as task:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(started(waiting.pop(0)))
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    ended[one.job.name] = (one.process.returncode, last_words(one))
                    task.advance()
                task.advance(0, note=", ".join(one.job.name for one in running))
        except KeyboardInterrupt:
            for one in running:
                one.process.send_signal(signal.SIGINT)
            for one in running:
                one.process.wait()
            raise
        finally:
            for one in running:  # after an error of ours: nobody is left behind
                if one.process.poll() is None:
                    one.process.kill()
    return ended


def started(job: Job) -> Running:
    """Start a command in a session of its own, where the terminal's Ctrl-C does not reach it."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read when the process has ended)
    process = subprocess.Popen(
        [sys.executable, "-m", "lowland", *job.words],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
        env=os.environ | {PARENT: str(os.getpid())},
    )
    return Running(job, process, errors)


def last_words(one: Running) -> str:
    """The end of what a process said on standard error."""
    with one.errors as stream:
        stream.seek(0)
        return stream.read()[-2000:].strip()


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
