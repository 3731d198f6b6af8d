"""What a run of boosting tells a tracker while it goes on: blocks in training, and rounds."""

from lowland.boosting.result import Round
from lowland.results import plain
from lowland.training import Log

__all__ = ["log_of_block", "tell_round"]


def log_of_block(log: Log | None, number: int, done: int) -> Log | None:
    """Let the training of a block go on counting where the one before it ended.

    Args:
        log: The user's, or None.
        number: Of the round, from 1.
        done: Updates of the rounds before.

    Returns:
        What :func:`lowland.training.train` is to call.
    """
    if log is None:
        return None
    return lambda values, step: log({**values, "step": done + step, "round": number}, done + step)


def tell_round(log: Log | None, found: Round, number: int, step: int) -> None:
    """Tell the numbers of a round; their names begin with ``round_``.

    Args:
        log: The user's, or None.
        found: The round.
        number: Of it, from 1.
        step: Updates so far.
    """
    if log is not None:
        values = {name: v for name, v in vars(found).items() if name not in ("curve", "margins")}
        known = {f"round_{name}": v for name, v in plain(values).items() if v is not None}
        log({"step": step, "round": number, **known}, step)
