"""The tables of baityjesi2018: phases, clones, quenches, flat directions, the published run."""

from typing import Any

from lowland.report.figures import table, text
from lowland.reproduce.runs import Runs

__all__ = ["DIFFERENCES", "clones", "flat_table", "phases_table", "published", "quench_table"]

DIFFERENCES = text(
    "differences",
    "What is not as in the paper",
    "Weights are in float32 with sums in float64; the published code has float64 "
    "throughout. Momentum is never reset, gradients are not overwritten by measurements, "
    "and networks with batch norm or dropout stay in training mode: the published code errs "
    "in these, see our specification. Gradient noise is the unbiased trace of the covariance "
    "over batches of an epoch.\n\n"
    "The paper reads t1 and t2 by eye; here three lines in ln n are fitted.\n\n"
    "A raw exponent near 1 is not called diffusion: only clones, which share the drift, tell "
    "noise from drift.\n\n"
    "Losses are those of the training set in evaluation mode, at large scales of 10,000 "
    "examples.",
)


def phases_table(phases: Runs) -> dict[str, Any]:
    """Phases and collapses of every course."""
    rows = []
    for one in phases:
        found = one["phases"]
        late = found["scores"]["after_t2"]
        aging = found["aging"]["all"]
        rows.append(
            [one["course"], one["kind"], one["params"], one["seeds"]]
            + [found["t1"], found["t2"], found["t1_threshold"], found["t2_threshold"]]
            + [found["loss_ratio"], found["scores"]["before_t1"].get("raw")]
            + [late.get(name) for name in ("raw", "over_noise", "over_integral")]
            + [aging["exponent"] if aging else None, aging["score"] if aging else None]
        )
    return table(
        "phases",
        "Phases of every course",
        "t1, t2: breaks of three lines in ln n, and by thresholds of the loss. Scores: mean "
        "standard deviation over waiting times of ln Δ, 0 for a perfect collapse; before t1 raw, "
        "after t2 raw and divided by the noise. μ: Δ against t / tw^μ over all waiting times.",
        [
            "course", "kind", "weights", "seeds", "t1", "t2", "t1, threshold", "t2, threshold",
            "last / first loss", "score before t1", "score after t2", "over D(tw)", "over ∫D", "μ",
            "score at μ",
        ],
        rows,
    )  # fmt: skip


def clones(phases: Runs) -> dict[str, Any]:
    """Raw and clone exponents."""
    rows = [
        [one["course"], found["wait"], found["from"], found["to"], found["raw"], found["clone"],
         found["clone_last"] / found["raw_last"] if found["raw_last"] else None]
        for one in phases
        for found in one["cloned"]
    ]  # fmt: skip
    return table(
        "clone-exponents",
        "Exponents of the motion, raw and between clones",
        "d ln Δ / d ln t over the last decade of lags, first seed: 1 is diffusion, 2 a straight "
        "drift, below 1 a noise that saturates. Share: clones over raw at the last lag.",
        ["course", "tw", "lags from", "to", "raw exponent", "clone exponent", "share of noise"],
        rows,
    )


def quench_table(found: Runs) -> dict[str, Any]:
    """Quenches and what lies between them."""
    rows: list[list[Any]] = []
    for one in found:
        name = [one["course"], one["seed"]]
        rows += [[*name, f"quench at {row['wait']}", row["before"], row["after"], None]
                 for row in one["rows"]]  # fmt: skip
        for line in one["lines"]:
            what = f"line {line['from']} to {line['to']}"
            rows.append([*name, what, line["loss"][0], line["loss"][-1], line["bump"]])
        if one["path"]:
            path = one["path"]
            what = f"AutoNEB {path['from']} to {path['to']}, straight {path['straight']:.3g}"
            rows.append([*name, what, path["loss"][0], path["loss"][-1], path["bump"]])
    return table(
        "quenches",
        "Descent without noise, and barriers between its ends",
        "Training losses before and after a quench, or at both ends of a line or path; bump: by "
        "how much the loss in between is above the higher end.",
        ["course", "seed", "what", "loss first", "loss last", "bump"],
        rows,
    )


def flat_table(found: Runs) -> dict[str, Any]:
    """Flat and negative directions."""
    rows = [
        [row["course"], row["step"], row["params"], row["largest"], name, count["eps"],
         count["flat"], count["error"], count["negative"], "yes" if count["reliable"] else "no"]
        for row in found
        for name, count in row["counts"].items()
        if count
    ]  # fmt: skip
    return table(
        "flat-directions",
        "Flat and negative directions",
        "Eigenvalues of the Hessian of the mean training loss. Flat: |λ| < ε; negative: λ < -ε. "
        "A count that is not reliable is shown, but not judged.",
        [
            "course", "updates", "weights", "largest λ", "threshold", "ε", "flat",
            "standard error", "negative", "reliable",
        ],
        rows,
    )  # fmt: skip


def published(found: Runs) -> dict[str, Any]:
    """Our runs beside the published one."""
    rows = []
    for row in found:
        known = [value for value in row["ours"] if value is not None]
        mean = sum(known) / len(known) if known else None
        ends = [min(known), max(known)] if known else [None, None]
        ratio = mean / row["published"] if mean is not None else None
        rows.append([row["what"], row["at"], row["published"], mean, *ends, ratio])
    return table(
        "published",
        "The published run, line by line",
        "Small network on CIFAR-10, batches of 100, learning rate 0.01, momentum 0.5. Published: "
        "one run of the authors, read from their files; ours: mean, smallest and largest seed.",
        ["what", "n or tw", "published", "ours", "least", "most", "ours / published"],
        rows,
    )
