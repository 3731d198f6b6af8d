"""The claims of Huang et al. 2018 that are identities, inequalities and costs."""

from typing import Any

from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = [
    "bounds_hold", "identity_holds", "memory_is_small", "no_gradient_needed", "plain_model",
    "updates_stay_cheap",
]  # fmt: skip

PRECISION = {"float64": 1e-12, "float32": 1e-5}
ROUNDING = 1e-9

# Oracle O12 of the specification: MiB per 100 images, network of 25 blocks, plain heads.
SAVED = {
    "end to end": 366.6, "stem": 13.7, "stage1_block1": 31.3, "stage2_block1": 18.8,
    "stage2_block2": 15.7, "stage3_block1": 9.6, "stage3_block2": 8.1,
}  # fmt: skip


def identity_holds(runs: Runs) -> Claim:
    """C1: the output is the sum of the weak module classifiers."""
    rows = [row for run in runs for row in run.get("depths", [])]
    errors = [(row["dtype"], max(row["error"], row.get("model", 0.0))) for row in rows]
    return claim(
        "C1",
        "The network's output is the sum of weak module classifiers, over its last alpha.",
        "Lemma 3.2, exact",
        "relative error at every depth, and of the model itself: ≤ 1e-12 (float64), ≤ 1e-5 "
        "(float32)",
        tuple(error for dtype, error in errors if dtype == "float64"),
        "relative error, float64",
        [error <= PRECISION[dtype] for dtype, error in errors],
        "",
        "the model returned is not what the rounds were measured on.",
    )


def bounds_hold(runs: Runs) -> Claim:
    """C2: no bound is ever violated."""
    broken, depths, fails, steps, firsts = [], 0, 0, 0, []
    for run in runs:
        first = None
        for number, one in enumerate(run.get("rounds", []), 1):
            depths += 1
            known = [bound for bound in one["bounds"].values() if bound is not None]
            broken += [bound for bound in known if one["train_error"] > bound * (1 + ROUNDING)]
            if one["holds_condition"]:
                steps += 1
                fails += one["step_ratio"] > (1 - one["gamma"] ** 2) ** 0.5 * (1 + ROUNDING)
            second = one["bounds"]["B2"]
            if first is None and second is not None and second < 1:
                first = number
        if run.get("rounds"):
            firsts.append(first)
    known = [str(first) for first in firsts if first is not None]
    note = ""
    if depths:
        note = (
            f"{depths} rounds. B2 says something (falls below 1) from block "
            f"{', '.join(known) or 'none'} on in {len(known)} of {len(firsts)} networks. The "
            f"per-step inequality fails in {fails} of {steps} rounds that meet its condition."
        )
    return claim(
        "C2",
        "The training error is below a bound that decays with depth.",
        "(C - 1) exp(-T gamma² / 2) under the condition; printed per step, which does not hold",
        "training error ≤ B0, B1 and B2, wherever they are not void, in every round",
        (float(len(broken)),) if depths else (),
        "violations",
        [not broken] if depths else [],
        note,
        "an error of ours: these are theorems.",
    )


def memory_is_small(runs: Runs, found: list[dict[str, Any]]) -> Claim:
    """C9: the memory of an update is that of one block."""
    equal = [
        {one["bytes"] for one in run["rounds"]}
        for run in runs
        if run["way"] == "boosted" and (run["growth"] == "digits" or run["growth"] == "depth")
    ]
    truths = [len(sizes) == 1 for sizes in equal]
    rows = {row["part"]: row for row in found}
    note, values = "", ()
    if set(SAVED) <= set(rows) and len(found) == 26:
        ours = {
            name: float(rows[name]["MiB" if name == "end to end" else "plain"]) for name in SAVED
        }
        truths += [abs(ours[name] / SAVED[name] - 1) <= 0.1 for name in SAVED]
        largest = max(row["plain"] for row in found[1:])
        values = (ours["end to end"] / largest,)
        words = ", ".join(f"{name} {value:.1f}" for name, value in ours.items())
        note = f"MiB per 100 images: {words}."
    return claim(
        "C9",
        "The memory of an update does not grow with depth.",
        "M1 + M2 against M1 T + M2: 25 times for 25 blocks; 11.7 times as early stages are larger "
        "(specification)",
        "equal bytes in every round of a residual perceptron; saved bytes of the network of 25 "
        "blocks within 10 % of oracle O12",
        values,
        "x smaller than end to end",
        truths,
        note,
        "another torch saves other tensors.",
    )


def updates_stay_cheap(found: list[dict[str, Any]], is_long: bool) -> Claim:
    """C10: the time of an update does not grow with depth."""
    kept = [row for row in found if row["cache"] == "host"]
    note = " ".join(
        f"{'Kept' if row['cache'] == 'host' else 'Recomputed'} features: "
        f"{1e3 * row['seconds'][0]:.2f} ms at depth {row['depths'][0]}, "
        f"{1e3 * row['seconds'][1]:.2f} ms at depth {row['depths'][1]}, ratio {row['ratio']:.2f}."
        for row in found
    )
    return claim(
        "C10",
        "The time of an update does not grow with depth.",
        "C1 + C2 against C1 T + C2",
        "kept features: time per update at depth 20 at most 1.2 times that at depth 2 (fastest of "
        "interleaved epochs)",
        tuple(row["ratio"] for row in kept),
        "x",
        [row["ratio"] <= 1.2 for row in kept] if is_long else [],
        note,
        "other work on the machine.",
    )


def plain_model(runs: Runs) -> Claim:
    """C11: the grown model is the user's own, without heads."""
    boosted = [run for run in runs if run["way"] == "boosted"]
    truths = []
    for run in boosted:
        counted = [one for one in run["rounds"] if one["status"] in ("kept", "flagged")]
        last = counted[-1] if counted else None
        same = last is not None and abs(last["test_error"] - run["test_error"]) < ROUNDING
        truths.append(run["is_plain"] and same)
    return claim(
        "C11",
        "The final model is a plain residual network; all heads but the last are gone.",
        "text, and Fig. 1",
        "same class and state-dict keys as a fresh network, and the test error of the last round, "
        "for every network and seed",
        tuple(float(truth) for truth in truths),
        "1 for yes",
        truths,
        "",
        "the last head is not the model's own.",
    )


def no_gradient_needed(found: list[dict[str, Any]]) -> Claim:
    """C12: blocks without gradient."""
    truths, notes = [], []
    for one in found:
        losses = [row["train_loss"] for row in one["rows"]]
        falls = all(b < a for a, b in zip(losses, losses[1:], strict=False))
        if one["kind"] in ("random features", "trees"):
            truths.append(falls)
        tests = [100 * (1 - row["test_error"]) for row in one["rows"]]
        notes.append(
            f"{one['kind']}: cross-entropy {losses[0]:.3f} to {losses[-1]:.4f}, test "
            f"{tests[0]:.1f}, {tests[1]:.1f}, ..., {tests[-1]:.1f} %."
        )
    return claim(
        "C12",
        "It works with modules that have no gradient.",
        "text only; digits, prototype: random features 96.2 to 98.4 % after one block, one tree "
        "96.2 to 90.0 %",
        "training cross-entropy falls at every block, for random features and for whole trees",
        tuple(one["rows"][-1]["train_loss"] for one in found),
        "nats at the end",
        truths,
        " ".join(notes),
        "a step that the refitted head cannot use.",
    )
