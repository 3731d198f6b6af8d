"""How a claim is judged, and words for its miss: the same in every recipe."""

from collections.abc import Sequence

from lowland.report.story import CAUSE
from lowland.results import NOT_JUDGED, Claim

__all__ = ["because", "claim"]


def claim(
    name: str,
    statement: str,
    paper: str,
    rule: str,
    values: Sequence[float | None],
    unit: str,
    truths: Sequence[bool],
    note: str = "",
    cause: str = "",
) -> Claim:
    """Judge a claim by its rule.

    Args:
        name: The claim's in the specification, for instance ``"C1"``.
        statement: What is claimed.
        paper: The paper's number.
        rule: When we call it met.
        values: Ours, one per repetition.
        unit: Of these values.
        truths: Whether the rule holds, one per repetition or per part of the rule; none if the
            scale cannot show it.
        note: What a reader should know.
        cause: What we think it is, should the claim be missed.

    Returns:
        The claim.
    """
    judged = verdict(truths)
    note = (note + because(judged, cause)).strip()
    return Claim(name, statement, paper, rule, tuple(values), unit, judged, note)


def verdict(truths: Sequence[bool]) -> str:
    """Met if every repetition, or every part of the rule, is; not judged without any."""
    if not truths:
        return NOT_JUDGED
    return "met" if all(truths) else "missed"


def because(judged: str, cause: str) -> str:
    """What we think is the cause of a miss: a sentence with a blank before it, or nothing."""
    return f" {CAUSE} {cause}" if judged == "missed" and cause else ""
