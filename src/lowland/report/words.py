"""Numbers and verdicts in words, as a reader wants them: few digits, the spread, the count."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import floor, isfinite, log10
from statistics import fmean, stdev
from typing import Any

VERDICTS = ("met", "missed", "not judged at this scale")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float | None, digits: int = 3) -> str:
    """One number with few digits, in words a table can hold.

    Args:
        value: The number; ``None`` or a non-finite one is a hole.
        digits: Significant digits, at least.

    Returns:
        ``"0.0086"``, ``"1,234"``, ``"2.50 × 10⁻⁵"``; a dash for a hole.

    Source:
        Ours.

    Example:
        >>> format_number(0.00863), format_number(48750), format_number(0.0000251)
        ('0.00863', '48,750', '2.51 × 10⁻⁵')
    """
    if value is None or not isfinite(value):
        return "–"
    if value == 0 or (float(value).is_integer() and abs(value) < 1e6):
        return f"{value:,.0f}".replace("-", "−")
    power = floor(log10(abs(value)))
    if -5 < power < 6:
        return f"{value:,.{max(digits - 1 - power, 0)}f}".replace("-", "−")
    text = f"{value / 10.0**power:.{digits - 1}f}".replace("-", "−")
    return f"{text} × 10{str(power).translate(SUPERSCRIPTS)}"


def format_measured(values: Sequence[float | None], unit: str = "") -> str:
    """Mean, sample standard deviation and count of repeated measurements.

    Args:
        values: One number per seed or pair; holes are counted and named.
        unit: A unit in words, such as ``"nats"``; may be empty.

    Returns:
        ``"0.0086 ± 0.0012 nats (n = 3)"``; one value comes without a spread.

    Source:
        Ours.

    Example:
        >>> format_measured([0.008, 0.009, 0.0088], "nats")
        '0.00860 ± 0.00053 nats (n = 3)'
        >>> format_measured([2.0], "%")
        '2 % (n = 1)'
    """
    text, count = mean_and_count(values, unit)
    return f"{text} ({count})" if count else text


def mean_and_count(values: Sequence[float | None], unit: str = "") -> tuple[str, str]:
    """Mean and spread with their unit, and the count; no count for what was not measured."""
    if not values:
        return "not measured", ""
    known = [float(value) for value in values if value is not None and isfinite(value)]
    holes = len(values) - len(known)
    text = f"{mean_and_spread(known)} {unit}".strip() if known else format_number(None)
    return text, f"n = {len(values)}" + (f", {holes} not finite" if holes else "")


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and spread with digits that fit together: two digits of the spread, no more."""
    mean = fmean(values)
    spread = stdev(values) if len(values) > 1 else 0.0
    if spread == 0:
        return format_number(mean)
    power = floor(log10(max(abs(mean), spread)))
    shift = power if not -5 < power < 6 else 0
    mean, spread, power = mean / 10.0**shift, spread / 10.0**shift, power - shift
    # two digits of the spread, and at most four digits of the larger of the two
    decimals = max(min(1 - floor(log10(spread)), 3 - power), 0)
    text = f"{mean:,.{decimals}f} ± {spread:,.{decimals}f}".replace("-", "−")
    return f"({text}) × 10{str(shift).translate(SUPERSCRIPTS)}" if shift else text


def format_seconds(seconds: float | None) -> str:
    """A duration in the two largest units that matter.

    Args:
        seconds: The duration in seconds; ``None`` is a hole.

    Returns:
        ``"8.3 s"``, ``"1 min 42 s"``, ``"2 h 5 min"``.

    Source:
        Ours.
    """
    if seconds is None or not isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count_verdicts(claims: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims were met, missed and not judged.

    Args:
        claims: Claims of a record, as plain mappings with a ``verdict``.

    Returns:
        A count for each of the three verdicts, zeros included.

    Source:
        Ours.
    """
    counts = Counter(claim["verdict"] for claim in claims)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def headline(claims: Sequence[Mapping[str, Any]]) -> str:
    """One sentence with the counts of all verdicts.

    Args:
        claims: Claims of a record, as plain mappings with a ``verdict``.

    Returns:
        A sentence such as ``"5 of 6 judged claims met, 1 missed; 1 not judged at this scale."``

    Source:
        Ours.
    """
    met, missed, unjudged = count_verdicts(claims).values()
    judged = met + missed
    if not claims:
        return "This run makes no claim."
    if not judged:
        one = len(claims) == 1
        return f"{'The one claim' if one else f'None of the {unjudged} claims'} " + (
            "cannot be judged at this scale." if one else "can be judged at this scale."
        )
    tail = f"; {unjudged} not judged at this scale." if unjudged else "."
    if not missed:
        which = "The one judged claim was" if judged == 1 else f"All {judged} judged claims"
        return f"{which} met{tail}"
    return f"{met} of {judged} judged claims met, {missed} missed{tail}"
