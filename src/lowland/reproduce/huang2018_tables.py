"""The tables of huang2018: all ways at the end, variants, rounds, blocks without gradient."""

from typing import Any

from lowland.report.figures import table
from lowland.reproduce.huang2018_numbers import at, chosen, curve_of, names_of, signed_square
from lowland.reproduce.runs import Runs, word

__all__ = ["WAYS", "fitted", "rounds_table", "timing", "totals", "variants"]

WAYS = ("boosted", "end to end", "refined", "AdaBoost.MM")


def totals(runs: Runs) -> dict[str, Any]:
    """All ways at the end, and end to end at the budget of boosting."""
    rows: list[list[Any]] = []
    for name in names_of(runs, "boosted"):
        boosted = chosen(runs, name, "boosted")
        for way in WAYS:
            found = chosen(runs, name, way)
            if found:
                rows.append(
                    [name, way, len(found), found[0]["module_updates"]]
                    + [word(found, f"{part}_accuracy", 2) for part in ("train", "test")]
                    + [sum(run["seconds"] for run in found) / len(found)]
                )
        for clock, words in (("module_updates", "module updates"), ("seconds", "wall clock")):
            pairs = zip(boosted, chosen(runs, name, "end to end"), strict=False)
            known = [(one, at(two, clock, curve_of(one)[-1][clock])) for one, two in pairs]
            shown = [{"test": 100 * (1 - error)} for _, error in known if error is not None]
            if shown:
                budget = curve_of(known[0][0])[-1]
                rows.append(
                    [name, f"end to end, {words} of boosting", len(shown)]
                    + [budget["module_updates"] if clock == "module_updates" else None, None]
                    + [word(shown, "test", 2)]
                    + [budget["seconds"] if clock == "seconds" else None]
                )
    return table(
        "ways",
        "Every way at its end",
        "Mean ± standard deviation over the seeds. Module updates of one seed; seconds with "
        "evaluations. Training accuracy end to end may be over a part of the images (settings). "
        "The last rows of a network: end to end where it has used as much as boosting.",
        [
            "network",
            "way",
            "seeds",
            "module updates",
            "training accuracy (%)",
            "test accuracy (%)",
            "seconds",
        ],
        rows,
    )


def variants(runs: Runs) -> dict[str, Any]:
    """The variants of section 9."""
    rows = []
    names = list(dict.fromkeys(run["variant"] for run in runs))
    for name in names:
        found = [run for run in runs if run["variant"] == name]
        rounds = found[0]["rounds"]
        best = max(rounds, key=lambda one: 1 - (one["test_error"] or 1))
        rows.append(
            [name, len(found), word(found, "train_accuracy", 2), word(found, "test_accuracy", 2)]
            + [100 * (1 - best["test_error"]), rounds.index(best) + 1, len(rounds)]
            + [rounds[-1]["edge"], sum(one["gamma"] > 0 for one in rounds)]
            + [sum(one["status"] != "kept" for one in rounds)]
            + [found[0]["module_updates"], max(one["bytes"] for one in rounds) / 2**20]
            + [sum(run["seconds"] for run in found) / len(found)]
        )
    return table(
        "variants",
        "Ways to grow the same network",
        "Equal images, seeds and epochs per round, unless the name says otherwise; the first row "
        "is what the others change. Best: highest test accuracy at any depth, of the first seed; "
        "no choice that one could make without test images.",
        [
            "variant",
            "seeds",
            "training accuracy (%)",
            "test accuracy (%)",
            "best test (%)",
            "at round",
            "of rounds",
            "last edge",
            "rounds with gamma > 0",
            "rounds that failed",
            "module updates",
            "largest update (MiB)",
            "seconds",
        ],
        rows,
    )


def rounds_table(runs: Runs) -> dict[str, Any]:
    """Every round of the first seed of every network."""
    rows: list[list[Any]] = []
    for name in names_of(runs, "boosted"):
        for number, one in enumerate(chosen(runs, name, "boosted")[0]["rounds"], 1):
            rows.append(
                [name, number, one["name"], one["status"], one["edge"]]
                + [signed_square(one["gamma"]), one["alpha"], one["loss"], one["bounds"]["B2"]]
                + [one["covariance"], one["step_ratio"]]
                + [100 * one["train_error"], 100 * (one["test_error"] or 0.0)]
                + [one["bytes"] / 2**20, one["seconds"]]
            )
    return table(
        "rounds",
        "Every round of the first seed",
        "Whole training set, eval mode, float64. Z is the exponential loss over that of the round "
        "before. MiB are what autograd saves in one update.",
        [
            "network",
            "round",
            "part",
            "status",
            "edge",
            "gamma²",
            "alpha",
            "exponential loss",
            "B2",
            "covariance",
            "Z",
            "training error (%)",
            "test error (%)",
            "MiB",
            "seconds",
        ],
        rows,
    )


def fitted(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Blocks without gradient."""
    return table(
        "fitted",
        "Blocks without gradient",
        "Digits: each block is fitted to the negative gradient of the loss by the features, then "
        "the logistic head anew (C = 0.1). Block 0 is the head on the pixels.",
        [
            "block of",
            "block",
            "cross-entropy (nats)",
            "edge",
            "training error (%)",
            "test error (%)",
        ],
        [
            [one["kind"], depth, row["train_loss"], row["edge"]]
            + [100 * row["train_error"], 100 * row["test_error"]]
            for one in found
            for depth, row in enumerate(one["rows"])
        ],
    )


def timing(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Time per update by depth."""
    words = {"host": "kept in memory", "recompute": "recomputed"}
    return table(
        "timing",
        "Time of an update by depth",
        "Digits, residual perceptron; fastest of interleaved epochs.",
        ["features", "depth", "ms", "depth ", "ms ", "ratio"],
        [
            [words[row["cache"]], row["depths"][0], 1e3 * row["seconds"][0]]
            + [row["depths"][1], 1e3 * row["seconds"][1], row["ratio"]]
            for row in found
        ],
    )
