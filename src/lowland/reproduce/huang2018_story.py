"""Huang et al. 2018 in a few sentences: a residual network that grows block by block."""

from collections.abc import Sequence
from typing import Any

from lowland.report.words import format_measured, format_number
from lowland.reproduce.every_story import picture, said, values_of, verdicts
from lowland.reproduce.huang2018_claims import CLOCK
from lowland.reproduce.huang2018_figures import title
from lowland.reproduce.huang2018_numbers import chosen, gaps, names_of
from lowland.reproduce.runs import Runs
from lowland.results import Claim

__all__ = ["OWN", "tell"]

CLAIMED = (
    "A residual network can be trained one block after the other, each with a small classifier of "
    "its own and then left as it is, instead of all blocks at once. The paper claims that every "
    "block brings down a proven bound on the training error, in the memory of a single block, and "
    "that this is ahead of ordinary training for equally many updates of blocks: 93.8 against 83 % "
    "test accuracy (SVHN)."
)

OWN = """\
# model: a residual network, your own object; its blocks are found and trained one by one
from lowland.boosting import train_boosted

result = train_boosted(model, batches, epochs=5)
for found in result.rounds:
    bound = found.bounds["B0"]  # proven; below 1 it says something
    print(f"{found.name}: training error {found.train_error:.3f}, at most {bound:.3f}")
"""


def tell(
    settings: dict[str, Any],
    parts: dict[str, Any],
    claims: Sequence[Claim],
    figures: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Tell the story of a run."""
    runs = parts["runs"]
    name = next(iter(names_of(runs, "boosted")), "")
    grown = chosen(runs, name, "boosted")
    judged = sum(not one.startswith("depth") for one in names_of(runs, "boosted"))
    return {
        "claimed": CLAIMED,
        "measured": said(
            errors(name, grown, claims, judged),
            bound(grown, claims),
            beside(runs, name, claims, len(names_of(runs, "end to end"))),
            refined(runs, name, claims, len(names_of(runs, "refined"))),
            memory(claims),
        ),
        "figure": picture(figures, f"bounds-{name}", "bounds-", "memory"),
        "own": OWN,
    }


def errors(name: str, grown: Runs, claims: Sequence[Claim], of: int) -> str | None:
    """C3: what the blocks bring."""
    if not grown:
        return None
    first = format_measured([100 * run["rounds"][0]["train_error"] for run in grown], "%")
    last = format_measured([100 * run["rounds"][-1]["train_error"] for run in grown], "%")
    blocks = max(len(run["rounds"]) for run in grown)
    better = sum(one["gamma"] > 0 for run in grown for one in run["rounds"])
    every = sum(len(run["rounds"]) for run in grown)
    several = f", {len(grown)} times" if len(grown) > 1 else ""
    return (
        f"{title(name)}, {blocks} blocks grown one by one{several}: the training error falls from "
        f"{first} after the first block to {last} after the last, and {better} of {every} blocks "
        f"improved on what was there{verdicts(claims, 'C3', of=of)}."
    )


def bound(grown: Runs, claims: Sequence[Claim]) -> str | None:
    """C2: the bound, which holds and falls."""
    if not grown:
        return None
    first, last = (
        format_measured([run["rounds"][place]["bounds"]["B0"] for run in grown])
        for place in (0, -1)
    )  # fmt: skip
    broken = format_number(sum(values_of(claims, "C2")))
    return (
        f"The proven bound on that error goes from {first} to {last} (below 1 it says something); "
        f"in {broken} cases the error lay above a bound{verdicts(claims, 'C2')}."
    )


def beside(runs: Runs, name: str, claims: Sequence[Claim], of: int) -> str | None:
    """C6: beside training all blocks at once."""
    found = gaps(runs, name, "boosted", "end to end", CLOCK)
    if not found:
        return None
    own = format_measured([run["test_accuracy"] for run in chosen(runs, name, "boosted")], "%")
    return (
        f"It is right on {own} of the test images, {apart(found)} ordinary training of all blocks "
        f"at once with as many updates of blocks{verdicts(claims, 'C6', of=of)}."
    )


def refined(runs: Runs, name: str, claims: Sequence[Claim], of: int) -> str | None:
    """C7: trained further, all blocks at once."""
    found = gaps(runs, name, "refined", "end to end")
    if not found:
        return None
    return (
        f"Trained further with all blocks at once, it ends {apart(found)} ordinary training of the "
        f"same length in all{verdicts(claims, 'C7', of=of)}."
    )


def apart(points: Sequence[float]) -> str:
    """A difference in words that say its sign."""
    is_below = sum(points) < 0
    size = format_measured([-value if is_below else value for value in points])
    return f"{size} percentage points {'below' if is_below else 'above'}"


def memory(claims: Sequence[Claim]) -> str | None:
    """C9: what an update needs."""
    found = values_of(claims, "C9")
    if not found:
        return None
    return (
        "One update of a block in a network of 25 convolutional blocks keeps "
        f"{format_number(found[0])} times less in memory than an update of all blocks"
        f"{verdicts(claims, 'C9')}."
    )
