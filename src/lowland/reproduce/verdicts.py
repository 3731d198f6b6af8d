"""Verdicts on claims, and words for their misses: the same in every recipe."""

from collections.abc import Sequence

from lowland.results import NOT_JUDGED

__all__ = ["because", "verdict"]


def verdict(truths: Sequence[bool]) -> str:
    """Met if every repetition, or every part of the rule, is.

    Args:
        truths: One per repetition; none if nothing was measured.

    Returns:
        A verdict.
    """
    if not truths:
        return NOT_JUDGED
    return "met" if all(truths) else "missed"


def because(judged: str, cause: str) -> str:
    """What we think is the cause, if a claim was missed.

    Args:
        judged: The verdict.
        cause: In words.

    Returns:
        A sentence with a blank before it, or nothing.
    """
    return f" Likely cause of the miss: {cause}" if judged == "missed" else ""
