"""Li & Hao 2018 in a few sentences: networks whose weights are -1, 1 and, mostly, 0."""

from collections.abc import Sequence
from typing import Any

from lowland.report.words import format_measured, format_number
from lowland.reproduce.every_story import picture, said, verdicts
from lowland.reproduce.li2018_claims import DIAL
from lowland.reproduce.li2018_figures import TITLES
from lowland.reproduce.li2018_numbers import pick
from lowland.reproduce.runs import Runs
from lowland.results import Claim

__all__ = ["OWN", "tell"]

CLAIMED = (
    "Weights can be limited to -1 and 1, or to -1, 0 and 1, and trained without a derivative in "
    "any weight, by the rules of optimal control. The paper claims that such networks are nearly "
    "as accurate as others (98.79 % on MNIST), and that only 1.79 % of the weights need to differ "
    "from zero."
)

OWN = """\
# gives model weights of -1, 0 and 1, times a factor for each output; one in ten is not zero
from lowland.control import discretize, pack, train_msa

discretize(model, values=(-1, 0, 1), row_scale=True)
result = train_msa(model, loss_fn, batches, values=(-1, 0, 1), target_nonzero=0.1, epochs=10)
print(f"{100 * result.nonzero:.1f} % of the weights are not zero")
packed = pack(model)  # gives the same outputs; packed.save("file") keeps it
print(f"{packed.bytes()} bytes")
"""


def tell(
    settings: dict[str, Any],
    parts: dict[str, Any],
    claims: Sequence[Claim],
    figures: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Tell the story of a run."""
    runs = parts["runs"]
    names = [task["name"] for task in settings["tasks"]]

    def tag(claim: str, name: str, arm: str) -> str:
        known = [one for one in JUDGED[claim] if pick(runs, one, arm)]
        return verdicts(claims, claim) if known[:1] == [name] else ""

    return {
        "claimed": CLAIMED,
        "measured": said(
            *(binary(runs, name, tag("C5", name, "binary")) for name in names),
            *(ternary(runs, name, tag("C6", name, "ternary")) for name in names),
            *(asked(runs, name, tag("C6b", name, DIAL)) for name in names),
            *(weighed(runs, name) for name in names),
            derivatives(parts["checks"] or {}, claims),
        ),
        "figure": picture(figures, *(f"nonzero-{name}" for name in names), "test-accuracy-"),
        "own": OWN,
    }


# The tasks that a claim is judged by, the first one that was run.
JUDGED = {
    "C5": ("cifar10", "cifar10-quarter", "digits"),
    "C6": ("cifar10-quarter", "mnist", "digits"),
    "C6b": ("digits", "mnist-ours"),
}


def title(name: str) -> str:
    """A task in words."""
    return TITLES.get(name, name)


def accuracy(runs: Runs) -> str:
    """Test accuracy in words."""
    return format_measured([run["test_accuracy"] for run in runs], "%")


def binary(runs: Runs, name: str, tag: str) -> str | None:
    """C5: two values, beside float weights."""
    found, dense = pick(runs, name, "binary"), pick(runs, name, "float")
    if not found:
        return None
    beside = f", with ordinary weights on {accuracy(dense)}" if dense else ""
    return (
        f"{title(name)}: with weights of -1 and 1 the network is right on {accuracy(found)} of the "
        f"test images{beside}{tag}."
    )


def ternary(runs: Runs, name: str, tag: str) -> str | None:
    """C6: mostly zeros."""
    found = pick(runs, name, "ternary")
    if not found:
        return None
    share = format_measured([100 * run["nonzero"] for run in found], "%")
    return (
        f"{title(name)}: with zeros allowed, {share} of the weights are not zero in the end, and "
        f"it is right on {accuracy(found)}{tag}."
    )


def asked(runs: Runs, name: str, tag: str) -> str | None:
    """C6b: a share that was asked for."""
    found, dense = pick(runs, name, DIAL), pick(runs, name, "binary")
    if not found:
        return None
    share = format_measured([100 * run["nonzero"] for run in found], "%")
    beside = f", against {accuracy(dense)} without zeros" if dense else ""
    return (
        f"{title(name)}: told to keep 2 %, it keeps {share} and is right on {accuracy(found)}"
        f"{beside}{tag}."
    )


def weighed(runs: Runs, name: str) -> str | None:
    """What the smallest file weighs."""
    rows = [row for run in pick(runs, name, DIAL) for row in run.get("packing", [])]
    if not rows:
        return None
    smallest = min(rows, key=lambda row: row["bytes"])["kind"]
    same = [row for row in rows if row["kind"] == smallest]
    error = format_number(max(row["error"] for row in same))
    return (
        f"{title(name)}: the file of that network is "
        f"{format_measured([row['times_smaller'] for row in same])} times smaller than with "
        f"ordinary weights, and it runs: its outputs differ by {error} at most, relatively."
    )


def derivatives(checks: dict[str, Any], claims: Sequence[Claim]) -> str | None:
    """C2: nothing needs a derivative in the weights."""
    rows = checks.get("explicit")
    if not rows:
        return None
    changes, different = (sum(row[key] for row in rows) for key in ("changes", "different"))
    return (
        f"{len(rows)} small networks trained without any derivative in their weights made "
        f"{changes:,} changes of a weight; {different:,} weights ended up other than when the "
        f"derivatives were used{verdicts(claims, 'C2')}."
    )
