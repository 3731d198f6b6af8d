"""What a search tells: a tracker of its cycles and pairs, the log of an interruption."""

import logging
from pathlib import Path as FilePath
from typing import Any

from lowland.connectivity.edge import Edge
from lowland.connectivity.path_result import CycleResult
from lowland.results import plain
from lowland.training import Log

__all__ = ["tell_cycle", "tell_interrupted", "tell_pair"]


def tell_cycle(log: Log | None, found: CycleResult, step: int) -> None:
    """Tell the numbers of a cycle, the straight line being number 0.

    Args:
        log: The user's, or None.
        found: The cycle.
        step: SGD steps of all cycles so far.
    """
    named = ("num_pivots", "learning_rate", "length_ratio", "force", "status", "seconds")
    values = {name: getattr(found, name) for name in named}
    profile = found.profile
    values |= {"saddle": profile.saddle(), "barrier_max": profile.barrier_max()}
    if profile.train_error is not None:
        values["highest_error"] = profile.saddle("train_error")
    tell(log, {"step": step, "cycle": found.number} | values)


def tell_pair(log: Log | None, found: Edge, step: int) -> None:
    """Tell the numbers of the path between two minima; those of saddles begin with ``highest_``.

    Args:
        log: The user's, or None.
        found: The pair.
        step: Pairs finished so far.
    """
    named = ("a", "b", "best_cycle", "num_pivots", "distance", "length_ratio", "status", "seconds")
    values = {name: getattr(found, name) for name in named}
    values |= {f"highest_{name}": value for name, value in found.saddles.items()}
    tell(log, {"step": step} | values)


def tell(log: Log | None, values: dict[str, Any]) -> None:
    """Tell what is known, as plain values."""
    if log is not None:
        known = {name: value for name, value in plain(values).items() if value is not None}
        log(known, known["step"])


def tell_interrupted(message: str, folder: FilePath | None) -> None:
    """Say how far a search has come, and whether it can go on.

    Args:
        message: How far.
        folder: Where it is saved, or None.
    """
    again = "the same call goes on" if folder else "without out= nothing is saved"
    logging.getLogger("lowland").warning("interrupted: %s %s.", message, again)
