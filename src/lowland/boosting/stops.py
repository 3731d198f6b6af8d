"""When a round has trained enough."""

from collections.abc import Callable
from typing import Any

from lowland.training import rank_and_world
from lowland.training.together import sum_of_all

__all__ = ["STOPS", "needs_certificate", "stop_rule"]

STOPS = ("fixed", "paper", "plateau", "validation")
PATIENCE = 2  # checks without progress
PROGRESS = 0.01  # of the loss, between two checks

Rows = list[dict[str, Any]]


def stop_rule(
    stop: str | Callable[[Rows], bool], gamma_threshold: float
) -> Callable[[Rows], bool] | None:
    """Make the rule that looks at a round after each check.

    Args:
        stop: ``"fixed"`` never stops before the budget is spent; ``"paper"`` as soon as gamma
            exceeds the threshold; ``"plateau"`` after two checks in which the loss did not fall by
            a hundredth; ``"validation"`` after two checks without a smaller validation error; or a
            function of the rows of the curve.
        gamma_threshold: Of the paper's rule.

    Returns:
        Function of the rows so far, with ``train_loss`` and, as the rule needs, ``gamma``,
        ``edge``, ``validation_error``; None for a fixed budget.

    Raises:
        ValueError: If there is no such rule.

    Source:
        Huang et al., ICML 2018, Section 6, and released code; the other rules are ours.
    """
    if callable(stop):
        return stop
    if stop not in STOPS:
        raise ValueError(f"stop must be one of {STOPS}, or a function of rows; got {stop!r}.")
    if stop == "paper":
        return lambda rows: rows[-1]["gamma"] > gamma_threshold
    if stop == "plateau":
        return lambda rows: is_flat(of_all([row["train_loss"] for row in rows]), PROGRESS)
    if stop == "validation":
        return lambda rows: is_flat([row["validation_error"] for row in rows], 0.0)
    return None


def needs_certificate(stop: str | Callable[[Rows], bool]) -> bool:
    """Whether a rule looks at edge and gamma.

    Args:
        stop: The rule.

    Returns:
        True for the paper's, and for a function.
    """
    return callable(stop) or stop == "paper"


def of_all(losses: list[float]) -> list[float]:
    """Mean of what all processes have seen."""
    return [loss / rank_and_world()[1] for loss in sum_of_all(losses)]


def is_flat(values: list[float], progress: float) -> bool:
    """Whether the last checks brought no progress against the best one before them."""
    if len(values) <= PATIENCE:
        return False
    return min(values[-PATIENCE:]) >= (1 - progress) * min(values[:-PATIENCE])
