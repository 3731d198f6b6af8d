"""Several machines share one folder: who works on what, and who has died over it."""

import os
import shutil
import socket
import threading
from pathlib import Path as FilePath
from time import monotonic
from uuid import uuid4

from lowland.results import read_json, write_json

__all__ = ["Claims"]

# Seconds between signs of life, and without one until a claim is given to someone else.
BEAT = 5.0
STALE = 60.0


class Claims:
    """Jobs that this process works on, marked by folders that only one process can make.

    A context manager: inside it a thread gives signs of life; at its end every claim is given back.
    A claim saves double work and decides nothing: results are the same whoever computes them, and
    are written atomically.

    Attributes:
        folder: Where the claims lie.
        own: Names of the jobs of this process.
    """

    def __init__(self, folder: FilePath):
        self.folder = folder
        self.own: set[str] = set()
        self.beats = 0
        self.seen: dict[str, tuple[object, float]] = {}
        self.ended = threading.Event()
        self.writing = threading.Lock()
        self.thread = threading.Thread(target=self.beat, name="signs of life", daemon=True)

    def __enter__(self) -> "Claims":
        """Begin to give signs of life."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give every claim back."""
        self.ended.set()
        self.thread.join()
        for name in list(self.own):
            self.release(name)

    def take(self, name: str) -> bool:
        """Try to claim a job.

        Args:
            name: Of the job; a word that a folder can have.

        Returns:
            Whether it is ours now, or was before.
        """
        place = self.folder / name
        if name in self.own:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        if place.exists() and self.is_stale(name):
            grave = self.folder / f".{name}.{uuid4().hex}"
            try:
                os.replace(place, grave)  # of several who find it stale, one succeeds
            except OSError:
                return False
            shutil.rmtree(grave, ignore_errors=True)
        try:
            place.mkdir()
        except FileExistsError:
            return False
        with self.writing:
            self.own.add(name)
            self.sign(name)
        return True

    def release(self, name: str) -> None:
        """Give a claim back.

        Args:
            name: Of a job that was claimed.
        """
        with self.writing:
            self.own.discard(name)
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def is_stale(self, name: str) -> bool:
        """Whether the owner of a claim is dead: its process is gone, or it gives no sign of life.

        Clocks of machines differ, so a sign of life is a change that we see, not a time.

        Args:
            name: Of the job.

        Returns:
            False at the first look at a claim of another machine.
        """
        try:
            sign = read_json(self.folder / name / "owner.json")
        except (OSError, ValueError):  # not written yet, or just given back
            sign = None
        if sign and sign["host"] == socket.gethostname() and not is_alive(sign["process"]):
            return True
        before, since = self.seen.get(name, (None, None))
        if since is None or sign != before:
            self.seen[name] = (sign, monotonic())
            return False
        return monotonic() - since > STALE

    def sign(self, name: str) -> None:
        """Leave a sign of life."""
        sign = {"host": socket.gethostname(), "process": os.getpid(), "beat": self.beats}
        write_json(self.folder / name / "owner.json", sign)

    def beat(self) -> None:
        """Give signs of life until the end."""
        while not self.ended.wait(BEAT):
            with self.writing:
                self.beats += 1
                for name in self.own:
                    self.sign(name)


def is_alive(process: int) -> bool:
    """Whether another process of this machine still runs."""
    if process == os.getpid():  # a claim of ours that we do not know of is from before
        return False
    if os.name != "posix":  # where signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
