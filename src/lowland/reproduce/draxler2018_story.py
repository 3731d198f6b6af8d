"""Draxler et al. 2018 in a few sentences: a hill between two networks, and a way around it."""

from collections.abc import Sequence
from typing import Any

from lowland.report.words import format_measured, format_number
from lowland.reproduce.draxler2018_claims import ends, saddle
from lowland.reproduce.every_story import picture, said, values_of, verdicts
from lowland.reproduce.runs import Runs
from lowland.results import Claim

__all__ = ["OWN", "tell"]

CLAIMED = (
    "Two networks that were trained separately seem to lie in two valleys: on the straight line "
    "from the weights of one to those of the other, the loss climbs over a hill. The paper claims "
    "that a bent path leads around the hill, on which the loss hardly rises: for ResNet-20 on "
    "CIFAR-10 to 0.0324, from 0.0162 at its ends."
)

OWN = """\
# start, end: two trained copies of model, as modules, state dicts or checkpoint files
from lowland.connectivity import find_path, linear_path

line = linear_path(model, loss_fn, batches, start, end)
path = find_path(model, loss_fn, batches, start, end)
print(f"highest loss: {line.saddle:.3f} on the straight line, {path.saddle:.3f} on the path")
model.load_state_dict(path.state_dict(0.5))  # the network in the middle of the path
"""


def tell(
    settings: dict[str, Any],
    parts: dict[str, Any],
    claims: Sequence[Claim],
    figures: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Tell the story of a run."""
    runs = [run for run in parts["runs"] if run["judged"] and run["on_tree"]]
    measured = []
    if runs:
        measured = [joined(settings, parts["runs"], runs), hill(runs)]
        measured += [around(runs, claims), along(runs, claims)]
    return {
        "claimed": CLAIMED,
        "measured": said(*measured),
        "figure": picture(figures, "line-and-path"),
        "own": OWN,
    }


def joined(settings: dict[str, Any], every: Runs, runs: Runs) -> str:
    """What was trained and joined."""
    kinds = list(dict.fromkeys(run["model"] for run in runs))
    networks = {(run["model"], seed) for run in every if run["judged"] for seed in run["seeds"]}
    return (
        f"{len(networks)} networks ({', '.join(kinds)}) were trained on {settings['data']} from "
        f"different random starts; {len(runs)} path{'s join' if len(runs) > 1 else ' joins'} them."
    )


def hill(runs: Runs) -> str:
    """How high the straight line climbs."""
    higher = sum(max(ends(run, "train_loss")) for run in runs) / len(runs)
    line = format_measured([saddle(run, of="line") for run in runs])
    return (
        f"On the straight line between two of them the training loss climbs to {line}, from "
        f"{format_number(higher)} at the higher end."
    )


def around(runs: Runs, claims: Sequence[Claim]) -> str:
    """How high the path climbs."""
    ratios = values_of(claims, "C1")
    path = format_measured([saddle(run) for run in runs])
    if max(ratios) < 1.0005:
        beside = "the loss of the higher end itself, so that there is no hill at all"
    else:
        beside = f"{format_measured(ratios)} times the loss of the higher end"
    return f"On the bent path it reaches {path} at most: {beside}{verdicts(claims, 'C1')}."


def along(runs: Runs, claims: Sequence[Claim]) -> str:
    """What the path costs in test error and in length."""
    rises, lengths = (format_measured(values_of(claims, name)) for name in ("C2", "C6"))
    return (
        f"Along the path the error on test images rises by {rises} percentage points, and the path "
        f"is {lengths} times as long as the straight line{verdicts(claims, 'C2', 'C6')}."
    )
