"""Katharopoulos & Fleuret 2018 in a few sentences: work on the examples that still matter."""

from collections.abc import Sequence
from typing import Any

from lowland.report.words import format_measured
from lowland.reproduce.every_story import picture, said, verdicts
from lowland.reproduce.katharopoulos2018_numbers import RACES, decisions, pick, ratio, word
from lowland.reproduce.runs import Runs, mean
from lowland.results import Claim

__all__ = ["OWN", "tell"]

CLAIMED = (
    "Late in a training most examples are learned, and working on them again changes almost "
    "nothing. The paper draws examples by a cheap estimate of how much each would change the "
    "weights, as soon as this pays, and claims a training loss more than 10 times lower in the "
    "same time (CIFAR-10), and 0.317 instead of 0.397 for a recurrent network that reads digits."
)

OWN = """\
# your own training loop: three lines change, the first, the one with batches and the loss
from lowland.importance import ImportanceSampling

sampling = ImportanceSampling(model, loss_fn)
for epoch in range(10):
    for inputs, target in sampling(batches):
        sampling.loss(model(inputs), target).backward()
        optimizer.step()
        optimizer.zero_grad()
print(sampling.summary())
"""

BUDGETS = {
    "cost": "for equal work",
    "seconds": "in equal time",
    "steps": "after equally many updates",
}

WORK = "Equal work: one backward pass counts as two forward passes, and scoring counts too."

# The claim that each race is judged by; digits are no substitute for the images of C6.
JUDGED = {"images": "C6", "images-100": "C6", "fine-tuning": "C8", "sequences": "C9"}


def tell(
    settings: dict[str, Any],
    parts: dict[str, Any],
    claims: Sequence[Claim],
    figures: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Tell the story of a run."""
    runs = parts["races"]
    raced = [race_of(settings, runs, race, claims) for race in settings["races"]]
    explain = WORK if any(raced) and settings["judged_by"] == "cost" else None
    on_digits = all(race["task"]["data"] == "digits" for race in settings["races"])
    best = "sequences-seconds" if on_digits else "images-seconds"
    return {
        "claimed": CLAIMED,
        "measured": said(
            estimate(parts["variance"], claims),
            *raced,
            explain,
            rule(settings, runs, claims),
        ),
        "figure": picture(figures, best, "images-seconds", "images-steps", "distances"),
        "own": OWN,
    }


def estimate(looks: Runs, claims: Sequence[Claim]) -> str | None:
    """C1: what the cheap score is worth beside the exact one."""
    if not looks:
        return None
    last = max(look["step"] for look in looks)
    found = [look["distance"] for look in looks if look["step"] == last]
    by_bound = format_measured([one["bound"] for one in found])
    exact = mean(found, "exact")
    beside = "" if exact is None else f"; drawn by the exact, slow measure, {exact:.2f} times"
    return (
        f"After {last:,} updates, what a batch drawn by the estimate asks of the weights is "
        f"{by_bound} times as far from what all examples ask of them as with a random batch"
        f"{beside}{verdicts(claims, 'C1')}."
    )


def race_of(
    settings: dict[str, Any], runs: Runs, race: dict[str, Any], claims: Sequence[Claim]
) -> str | None:
    """Choosing beside shuffling, under the budget that decides."""
    clock, name = settings["judged_by"], race["name"]
    found = ratio(pick(runs, name, clock, "paper"), pick(runs, name, clock, "uniform"))
    if found is None:
        return None
    if found.is_below:
        outcome = "lower"
    elif found.is_above:
        outcome = "higher"
    else:
        outcome = "no difference that these runs can show"
    interval = "" if found.low is None else ", with the 95 % interval"
    judged = verdicts(claims, JUDGED[name]) if name in JUDGED else ""
    return (
        f"{RACES.get(name, name)} ({race['task']['model']} on {race['task']['data']}), "
        f"{BUDGETS[clock]}: the training loss with chosen examples is {word(found)} times that "
        f"with shuffled ones (n = {found.n}{interval}): {outcome}{judged}."
    )


def rule(settings: dict[str, Any], runs: Runs, claims: Sequence[Claim]) -> str | None:
    """C11: whether it is known beforehand when choosing pays."""
    decided = [case for case in decisions(settings, runs) if case["measured"] != "undecided"]
    if not decided:
        return None
    right = sum(case["paper"] == (case["measured"] == "pays") for case in decided)
    return (
        f"The paper's rule for when choosing pays was right in {right} of the {len(decided)} "
        f"comparisons with a clear outcome{verdicts(claims, 'C11')}."
    )
