"""Baity-Jesi et al. 2018 in a few sentences: when a network in training is like a glass."""

from collections.abc import Sequence
from typing import Any

from lowland.report.words import format_measured, format_number
from lowland.reproduce.baityjesi2018_numbers import at_lag, courses_of
from lowland.reproduce.baityjesi2018_published import NAME
from lowland.reproduce.baityjesi2018_rules import late_scores
from lowland.reproduce.every_story import picture, said, verdicts
from lowland.reproduce.runs import Runs
from lowland.results import Claim

__all__ = ["OWN", "tell"]

CLAIMED = (
    "A glass is a liquid that was cooled too fast: caught behind barriers, it moves the less the "
    "older it is, for ever. The paper claims that a network with enough weights ages like that "
    "only while its loss falls; at the bottom it meets no barriers, and what sets its pace is the "
    "noise of the random batches (in the run that the authors published, to within 20 % at all "
    "late ages)."
)

LAG = 10.0  # time in which the p-spin is watched, in its own units

OWN = """\
# trains model by plain SGD and watches how far its weights move: the less, the older it is?
from lowland.dynamics import measure_dynamics

found = measure_dynamics(model, loss_fn, batches, steps=500)
phases = found.phases(samples=20)
print(f"the loss falls from update {phases.t1:.0f} on, and slowly after {phases.t2:.0f}")
for age in found.two_time.waits[::4]:
    lags, moved = found.two_time.curve(age)
    print(f"{lags[-1]} updates after update {age}: mean square distance {moved[-1]:.2g}")
"""


def tell(
    settings: dict[str, Any],
    parts: dict[str, Any],
    claims: Sequence[Claim],
    figures: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Tell the story of a run."""
    phases = parts["phases"]
    wide = [one for one in courses_of(phases, "over") if one["course"] != NAME]
    narrow = courses_of(phases, "under")
    name = wide[0]["course"] if wide else ""
    return {
        "claimed": CLAIMED,
        "measured": said(
            *(sentence(wide[0], claims, len(wide)) for sentence in (staged, aging, pace) if wide),
            barriers(parts["quenches"], claims),
            stuck(narrow[0], claims, len(narrow)) if narrow else None,
            glass(parts["exact"], claims),
        ),
        "figure": picture(figures, f"displacement-{name}", "displacement-", "glass-displacement-"),
        "own": OWN,
    }


def staged(one: dict[str, Any], claims: Sequence[Claim], of: int) -> str:
    """C1: the three stages."""
    ends = format_measured([seed["t2"] for seed in one["alone"]])
    left = format_measured([100 * seed["loss_ratio"] for seed in one["alone"]], "%")
    return (
        f"A network with enough weights ({one['course']}, {one['params']:,} weights): its loss is "
        f"flat for {one['phases']['t1']:.0f} updates, falls until update {ends}, then creeps down "
        f"to {left} of its first value{verdicts(claims, 'C1', of=of)}."
    )


def aging(one: dict[str, Any], claims: Sequence[Claim], of: int) -> str | None:
    """C3: while the loss falls, the older the slower."""
    fall = one["aging"]["fall"]
    if fall is None:
        return None
    return (
        f"While its loss falls it ages: in the same {one['aging']['lag']} updates it moves "
        f"{format_number(fall)} times less at the end of that stage than at its beginning (mean "
        f"square distance of the weights, mean of n = {one['seeds']} runs; each curve of the "
        "picture begins at one age tw)"
        f"{verdicts(claims, 'C3', of=of)}."
    )


def pace(one: dict[str, Any], claims: Sequence[Claim], of: int) -> str | None:
    """C4: at the bottom, dividing by the noise brings the ages together."""
    raw, divided = late_scores(one)
    if raw is None or divided is None:
        return None
    return (
        f"At the bottom its pace still differs from age to age, by {format_number(raw)} (scatter "
        f"of the logarithm; 0 if age did not matter), and by {format_number(divided)} once it is "
        f"divided by the noise of the batches (mean of n = {one['seeds']} runs)"
        f"{verdicts(claims, 'C4', of=of)}."
    )


def barriers(found: Runs, claims: Sequence[Claim]) -> str | None:
    """C9: no hill between two states at the bottom."""
    learned = [one for one in found if one["kind"] == "over"]
    late = [
        [line["bump"] / one["first"] for line in one["lines"] if line["from"] > one["t2"]]
        for one in learned
    ]
    highest = [100 * max(each) for each in late if each]
    if not highest:
        return None
    return (
        "Between two of its states at the bottom, both freed from the noise, the straight line "
        f"rises by {format_measured(highest, '%')} of the first loss at most"
        f"{verdicts(claims, 'C9')}."
    )


def stuck(one: dict[str, Any], claims: Sequence[Claim], of: int) -> str:
    """C6: too few weights."""
    left = format_measured([100 * seed["loss_ratio"] for seed in one["alone"]], "%")
    raw, divided = late_scores(one)
    beside = ""
    if raw is not None and divided is not None:
        beside = (
            f"; its pace differs by {format_number(raw)} from age to age, by "
            f"{format_number(divided)} once it is divided by the noise"
        )
    return (
        f"A network with too few weights ({one['course']}, {one['params']:,} weights) ends at "
        f"{left} of its first loss{beside}{verdicts(claims, 'C6', of=of)}."
    )


def glass(exact: Runs, claims: Sequence[Claim]) -> str | None:
    """C7: the glass that can be solved."""
    for one in exact:
        moved = [(curve["wait"], at_lag(curve, LAG)) for curve in one["curves"]]
        known = [(wait, value) for wait, value in moved if value]
        if one["temperature"] > 0 and len(known) > 1:
            (young, far), (old, near) = known[0], known[-1]
            return (
                "Beside it a glass whose equations can be solved (the p-spin model at temperature "
                f"{one['temperature']:g}): in a time of {LAG:g} it moves {far / near:.2f} times "
                f"less at age {old:g} than at age {young:g}{verdicts(claims, 'C7')}."
            )
    return None
