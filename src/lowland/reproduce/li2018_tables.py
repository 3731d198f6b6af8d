"""The tables of li2018: methods, logs, all candidates, the maximum principle, bytes."""

from math import log2
from statistics import fmean
from typing import Any

from lowland.report.figures import table
from lowland.reproduce.li2018_numbers import arms_of, pick
from lowland.reproduce.li2018_packing import KINDS
from lowland.reproduce.li2018_published import ENDS, LOGS, WEIGHTS, at_epoch
from lowland.reproduce.li2018_search import METHODS
from lowland.reproduce.runs import Runs, mean, word

__all__ = [
    "beside_logs", "candidates", "comparators", "identities", "jumps", "packed_files", "principle",
    "sizes",
]  # fmt: skip


def comparators(settings: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """All methods at the end."""
    rows = []
    for task in settings["tasks"]:
        for arm in arms_of(runs, task["name"]):
            found = pick(runs, task["name"], arm)
            rows.append(
                [task["name"], arm, len(found), found[0]["epochs"]]
                + [word(found, f"{part}_accuracy", 2) for part in ("train", "test")]
                + [mean(found, "best_test_accuracy"), word(found, "nonzero", 2, 100.0)]
                + [weight_bits(found), mean(found, "seconds")]
            )
    return table(
        "methods",
        "Every method at the end of its epochs",
        "Mean ± standard deviation over the seeds, after the last update. Bits per weight are "
        "computed: 1 for two values; for three the smaller of 2 and 16 per nonzero weight; latent "
        "weights are needed in training only. Test accuracy at the epoch of best validation, where "
        "images are held out. Seconds are of training with its evaluations, on a shared machine.",
        [
            "task",
            "method",
            "seeds",
            "epochs",
            "training accuracy (%)",
            "test accuracy (%)",
            "test at best validation (%)",
            "nonzero (%)",
            "bits per weight",
            "seconds",
        ],
        rows,
    )


def weight_bits(found: Runs) -> float:
    """Bits per weight at inference, computed."""
    method, share = found[0]["method"], fmean(run["nonzero"] for run in found)
    if method == "adam":
        return 32.0
    is_ternary = method == "twn" or 0.0 in found[0]["values"]
    return min(2.0, 16 * share) if is_ternary else 1.0


def beside_logs(runs: Runs) -> dict[str, Any]:
    """Ours and the official logs, at the epochs of the logs."""
    rows: list[list[Any]] = []
    for (task, kind), log in LOGS.items():
        found = pick(runs, task, kind)
        for epoch, train, test, nonzero in log:
            ours = [row for run in found if (row := at_epoch(run, epoch)) is not None]
            if ours:
                rows.append(
                    [task, kind, epoch, train, mean(ours, "train_accuracy"), test]
                    + [mean(ours, "test_accuracy"), nonzero]
                    + [None if nonzero is None else 100 * fmean(row["nonzero"] for row in ours)]
                )
        if found and found[0]["epochs"] >= ENDS[task, kind][0]:
            best, test, final, nonzero = ENDS[task, kind]
            rows.append(
                [task, kind, f"best validation (log: {best - 1})", None, None, test]
                + [mean(found, "best_test_accuracy"), None, None]
            )
            rows.append(
                [task, kind, "last", 100.0, mean(found, "train_accuracy"), final]
                + [mean(found, "test_accuracy"), nonzero, 100 * fmean(r["nonzero"] for r in found)]
            )
    return table(
        "logs",
        "Ours beside the official logs",
        "Epochs are counted from 0, as in the logs (one run each). Accuracies and shares of "
        "nonzero weights in percent.",
        [
            "data",
            "weights",
            "epoch",
            "training, log",
            "training, ours",
            "test, log",
            "test, ours",
            "nonzero, log",
            "nonzero, ours",
        ],
        rows,
    )


def candidates(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The methods beside all 4,096 candidates."""
    return table(
        "candidates",
        "Beside all candidates: how far from the global optimum",
        "Networks 3-2-2-1 of 12 binary weights with tanh, fitted to a random float network with "
        "noise; J of all 4,096 candidates is known. The monotone method ends where no layer's own "
        "argmax is better; the others go on for all sweeps. A few starts find the optimum or come "
        "near it; the maximum principle alone does not, as the sets are not convex.",
        [
            "method",
            "problems",
            "mean J",
            "mean gap to the optimum",
            "largest gap",
            "optimum found",
            "better candidates, median (%)",
            "most (%)",
        ],
        [
            [METHODS[row["method"]], row["n"], row["loss"], row["gap"], row["largest_gap"]]
            + [row[what] for what in ("optimal", "better", "worst_better")]
            for row in found
        ],
    )


def principle(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How far every layer is from its own argmax."""
    return table(
        "residual",
        "The maximum principle, layer by layer",
        "A binary network on digits after some updates of the mini-batch method, on one batch of "
        "training images: what each layer's Hamiltonian could still gain, and the share of its "
        "weights that are not their own argmax. The gap falls with the loss; the share stays near "
        "one half, as binary sets are not convex: a good point need not meet the principle.",
        ["updates", "loss", "layer", "weights", "gap", "not their own argmax (%)"],
        [
            [one["step"], one["loss"], layer["layer"], layer["entries"], layer["gap"]]
            + [100 * layer["changes"]]
            for one in found
            for layer in one["layers"]
        ],
    )


def jumps(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What the error estimate says of a jump of all layers."""
    return table(
        "estimate",
        "The error estimate: what a jump promises and what it does",
        "All layers jump to the argmax of their Hamiltonian on this batch, without and with the "
        "published penalty. J changes by minus the gain plus the remainder, and the remainder is "
        "at most C times the sum of the errors (Jacobian norms estimated with one probe); C is "
        "what this jump asks for. Without the penalty the jump leaves the range of the promise.",
        [
            "updates",
            "jump",
            "weights moved (%)",
            "gain promised",
            "change of J",
            "remainder",
            "state error",
            "costate error",
            "C",
        ],
        [
            [one["step"], name, 100 * jump["moved"], jump["gain"], jump["change"]]
            + [jump[what] for what in ("remainder", "state_error", "costate_error", "constant")]
            for one in found
            for name, jump in one["jumps"].items()
        ],
    )


def identities(checks: dict[str, Any]) -> dict[str, Any]:
    """Claims C1 and C2 in numbers."""
    rows: list[list[Any]] = [
        ["costates and products, float64", row["network"], row["layers"], row["compared"]]
        + [max(row["costates"], row["products"])]
        for row in checks["identities"]
    ]
    rows += [
        [f"{row['steps']} steps without a gradient, {len(row['values'])} values", row["network"]]
        + [f"{row['weights']} weights, {row['changes']} changes", row["weights"], row["different"]]
        for row in checks["explicit"]
    ]
    return table(
        "identities",
        "States and costates beside autograd",
        "Above: largest absolute difference of costates and of sums of costate times state to "
        "minus autograd's derivatives. Below: weights that differ from the optimizer's.",
        ["what", "network", "layers", "compared", "difference"],
        rows,
    )


def sizes(settings: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """Bytes of the weights in several formats, computed."""
    cases = [(f"{name} (log)", count, share / 100) for name, (count, share) in WEIGHTS.items()]
    for task in settings["tasks"]:
        for arm in arms_of(runs, task["name"]):
            found = pick(runs, task["name"], arm)
            if arm.startswith("ternary") and found[0]["method"] == "msa":
                share = fmean(run["nonzero"] for run in found)
                cases.append((f"{task['name']}, {arm} (ours)", found[0]["weights"], share))
    rows = [
        [name, count, 100 * share]
        + [size / 1e6 for size in (4 * count, count / 8, count / 4, 2 * count * share)]
        + [count * entropy(share) / 8 / 1e6, 2 / share if share else None]
        for name, count, share in cases
    ]
    return table(
        "bytes",
        "Bytes of the weights, computed",
        "By arithmetic from the number of weights and the share of nonzero ones, in MB. One bit "
        "for binary weights; a list of 16-bit indices of the nonzero "
        "ones, without row starts; the entropy of independent weights as a bound. Batch norm adds "
        "8 bytes per channel.",
        [
            "network",
            "weights",
            "nonzero (%)",
            "float32",
            "1 bit (binary)",
            "2 bits",
            "16-bit indices",
            "entropy",
            "float32 / indices",
        ],
        rows,
    )


def packed_files(runs: Runs) -> dict[str, Any]:
    """Files of trained networks, weighed and run."""
    rows = [
        [f"{run['task']}, {run['arm']}, seed {run['seed']}", KINDS[row["kind"]][1], row["weights"]]
        + [100 * row["nonzero"], row["dead"], row["bytes"] / 1e6, row["float_bytes"] / 1e6]
        + [row["times_smaller"], row["error"], 100 * (1 - row["test_error"])]
        for run in runs
        for row in run.get("packing", [])
    ]
    return table(
        "files",
        "Packed files, weighed and run",
        "Each file holds the weights, batch norm folded to a factor and a summand per channel, and "
        "the forward pass; beside it the checkpoint as float32. Dead weights, which none of the "
        "first 5,000 training images feels, are set to zero first. The largest difference of "
        "outputs on 1,000 test images is relative to the largest output; the accuracy is that of "
        "the file.",
        [
            "network",
            "weights held as",
            "weights",
            "nonzero (%)",
            "dead",
            "file (MB)",
            "float32 (MB)",
            "times smaller",
            "difference",
            "test accuracy (%)",
        ],
        rows,
    )


def entropy(share: float) -> float:
    """Bits per ternary weight: whether it is zero, and a sign where it is not."""
    if not 0 < share < 1:
        return share
    return share - share * log2(share) - (1 - share) * log2(1 - share)
