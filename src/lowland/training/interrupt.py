"""Ctrl-C ends a run between two steps, so that what is saved is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["Interrupt", "interruptible"]


@dataclass
class Interrupt:
    """Notes the first Ctrl-C; the second one raises ``KeyboardInterrupt`` at once.

    Attributes:
        outer: What handled Ctrl-C before; a surrounding run takes note too.
        requested: Whether the user asked to stop.
    """

    outer: Any = None
    requested: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal.

        Args:
            number: Number of the signal.
            frame: Where the program was.

        Raises:
            KeyboardInterrupt: If the user asked before.
        """
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if isinstance(self.outer, Interrupt):
            self.outer(number, frame)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Let a block decide where to stop when the user presses Ctrl-C.

    Outside of the main thread, and where Ctrl-C is ignored, nothing changes.

    Yields:
        Look at its ``requested`` between two steps.
    """
    outer = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt(outer)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or outer in (None, signal.SIG_IGN):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, outer)
