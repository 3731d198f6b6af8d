"""Claims of Katharopoulos & Fleuret 2018 about scores, the switch and the noise floor."""

from statistics import fmean
from typing import Any

from lowland.reproduce.katharopoulos2018_numbers import CLOCKS, pick
from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = [
    "as_good_as_exact",
    "cheap",
    "few_lines",
    "loss_can_hurt",
    "pool_size",
    "probabilities_match",
    "switch_turns",
    "variance_reduced_gradients",
]


def as_good_as_exact(settings: dict[str, Any], looks: Runs) -> Claim:
    """C1: the bound takes away almost as much variance as the exact norm."""
    bound, exact = (means(looks, "distance", name) for name in ("bound", "exact"))
    later = [step for step in bound if step > (49 if on_digits(settings) else 0)]
    truths = [abs(bound[step] - exact[step]) <= 0.06 for step in later]
    if on_digits(settings):
        rule = (
            "distance to the pool's gradient / uniform: ≤ 0.6 at step 50, ≤ 0.25 at step 1200, "
            "within 0.06 of the exact norm from step 50 on (means over seeds)"
        )
        truths += [bound.get(50, 1.0) <= 0.6, bound.get(1200, 1.0) <= 0.25]
        truths = truths if 1200 in bound else []
    else:
        rule = (
            "distance to the pool's gradient / uniform within 0.06 of the exact norm at every "
            "look after the first, and below 0.9 at the last"
        )
        truths += [bound[max(later)] < 0.9] if later else []
    shown = ", ".join(f"{bound[s]:.2f} / {exact[s]:.2f} at step {s}" for s in bound)
    note = f"Bound / exact norm: {shown}." if shown else ""
    last = max(bound, default=0)
    cause = "features and Jacobians whose norms still differ a lot between examples (rho)."
    if truths and all(truths[: len(later)]):
        cause = (
            f"not the bound, as the exact norm reaches {exact[last]:.2f} itself at step {last}: "
            "the limits were calibrated with another split and one seed."
        )
    return claim(
        "C1",
        "Sampling by the bound takes away about as much variance as sampling by the exact norm.",
        "0.952 and 0.900 after 3,000 steps, 0.424 and 0.389 after 48,000 (CIFAR-100, Fig. 1)",
        rule,
        tuple(look["distance"]["bound"] for look in looks if look["step"] == last),
        f"x uniform, step {last}",
        truths,
        note,
        cause,
    )


def probabilities_match(settings: dict[str, Any], looks: Runs) -> Claim:
    """C2: probabilities by the bound are close to the ideal ones."""
    pearson = means(looks, "pearson", "bound")
    by_bound, by_loss = (means(looks, "squared_error", name) for name in ("bound", "loss"))
    later = [step for step in pearson if step > (49 if on_digits(settings) else 0)]
    least = 0.94 if on_digits(settings) else 0.9
    truths = [pearson[s] >= least and by_bound[s] < by_loss[s] for s in later]
    errors = ", ".join(f"{by_bound[s]:.2g} / {by_loss[s]:.2g} at step {s}" for s in by_bound)
    return claim(
        "C2",
        "Probabilities by the bound match those by the exact norm better than loss does.",
        "squared error 0.002, by loss 0.017; Pearson 0.939 and 0.825 (CIFAR-100, Fig. 2)",
        f"Pearson with the exact norm ≥ {least:g} and a smaller squared error than by loss, at "
        f"every look {'from step 50 on' if on_digits(settings) else 'after the first'} "
        "(means over seeds)",
        tuple(look["pearson"]["bound"] for look in looks if look["step"] in later),
        "Pearson",
        truths,
        f"Squared error by bound / by loss: {errors}." if errors else "",
        "few examples with a gradient left, whose features differ in norm.",
    )


def loss_can_hurt(settings: dict[str, Any], looks: Runs) -> Claim:
    """C3: on many classes, sampling by loss can be worse than uniform at first."""
    rule = "distance / uniform above 1 by loss, at a look where the bound's is below that"
    by_loss, bound = (means(looks, "distance", name) for name in ("loss", "bound"))
    many = bool(settings["variance"]) and settings["variance"]["task"]["data"] == "cifar100"
    truths = [any(by_loss[s] > 1 and bound[s] < by_loss[s] for s in by_loss if s)] if many else []
    highest = max(by_loss.values(), default=None)
    note = "" if highest is None else f"Highest mean ratio by loss: {highest:.2f}. "
    if not truths:
        note += "Not visible with ten classes; it needs a hundred (CIFAR-100)."
    return claim(
        "C3",
        "Sampling by loss can increase the variance early in training.",
        "up to 1.18 x uniform (CIFAR-100, Fig. 1)",
        rule,
        tuple(look["distance"]["loss"] for look in looks) if many else (),
        "x uniform",
        truths,
        note,
        "looks that come after the early part.",
    )


def cheap(looks: Runs) -> Claim:
    """C4: the score is far cheaper than exact norms."""
    times = [look["milliseconds"] for look in looks if "milliseconds" in look]
    ratios = [time["one_by_one"] / time["bound"] for time in times]
    batched = ", ".join(f"{time['batched'] / time['bound']:.3g}" for time in times)
    return claim(
        "C4",
        "The bound is more than ten times cheaper than exact gradient norms.",
        "more than 10 x, against backward passes of single examples",
        "milliseconds one by one / by the bound > 10, for every seed",
        tuple(ratios),
        "x",
        [value > 10 for value in ratios],
        f"Against per-example gradients batched by torch.func: {batched} x." if times else "",
        "a network so small that the forward pass is all overhead.",
    )


def switch_turns(switch: dict[str, Any], settings: dict[str, Any], runs: Runs) -> Claim:
    """C5: on when it should be, never on when there is nothing to choose."""
    cases = switch["cases"]
    truths = [case["measured"] == case["predicted"] for case in cases]
    shown = ", ".join(
        f"tau {c['tau']:g} > {c['threshold']:g}: step {c['measured'] or 'never'}" for c in cases
    )
    begins = []
    for race in settings["races"]:
        for clock in CLOCKS:
            paper = pick(runs, race["name"], clock, "paper")
            first = [next((s / run["steps"] for s, on in run["switches"] if on), None)
                     for run in paper]  # fmt: skip
            if paper and None not in first:
                begins.append(f"{race['name']} {fmean(map(float, first)):.0%}")  # type: ignore[arg-type]
                break
    note = f"{shown}; with an L1 loss on in {switch['useless_active']} steps."
    if begins:
        note += f" In the races the paper's rule switches on after: {', '.join(begins)} of steps."
    return claim(
        "C5",
        "Sampling starts when tau says so, and never where all examples are alike.",
        "after 13 % (CIFAR-10) and 60 % (CIFAR-100) of the time",
        "the first active step is that of the running mean, exactly, and with an L1 loss there is "
        "none",
        tuple(float(case["measured"]) for case in cases if case["measured"]),
        "first active step",
        [*truths, switch["useless_active"] == 0],
        note,
        "a switch that is out of step; this is a fault of ours.",
    )


def pool_size(noise: dict[str, Any] | None) -> Claim:
    """C10: what a larger pool gains is what the two-stage variance says."""
    rows = [
        row
        for row in (noise or {}).get("rows", ())
        if (row["order"], row["scheme"]) == ("iid", "multinomial")
    ]
    sure = rows and all(row["ratio_error"] <= 0.05 * row["ratio"] for row in rows)
    truths = [abs(row["ratio"] / row["two_stage"] - 1) <= 0.10 for row in rows]
    truths += [abs(row["single_stage"] / row["ratio"] - 1) > 0.10 for row in rows[:1]]
    truths += [a["ratio"] > b["ratio"] for a, b in zip(rows, rows[1:], strict=False)]
    shown = "; ".join(
        f"B = {row['pool']}: {row['ratio']:.3f} ± {row['ratio_error']:.3f}, two-stage "
        f"{row['two_stage']:.3f}, single-stage {row['single_stage']:.3f}"
        for row in rows
    )
    return claim(
        "C10",
        "A larger pool takes away more noise, by the two-stage variance.",
        "final training loss 9.9e-4, 8.5e-4, 5.1e-4 for B = 384, 640, 1024 (CIFAR-10, b = 128)",
        "excess loss / uniform within 10 % of the two-stage prediction for both pools, smaller for "
        "the larger one, and more than 10 % away from 1/tau for the smaller one",
        tuple(row["ratio"] for row in rows),
        "x uniform",
        truths if sure and len(rows) > 1 else [],
        f"{shown}." if shown else "",
        "chains too short to be stationary.",
    )


def few_lines(switch: dict[str, Any]) -> Claim:
    """C12: a few lines of the user's loop."""
    lines = switch["lines"]
    return claim(
        "C12",
        "The method takes a few lines in an existing training loop.",
        "a few lines",
        "at most 3 lines of the README's loop are new or changed, import left out",
        (float(lines),),
        "lines",
        [lines <= 3],
        "",
        "an interface that asks for too much.",
    )


def variance_reduced_gradients() -> Claim:
    """C13: out of scope."""
    return Claim(
        "C13",
        "SVRG, Katyusha and SCSG stay behind SGD.",
        "best of them more than 10 x the training loss (CIFAR-10, appendix)",
        "out of scope: these methods are not part of this library",
        note="The claim is about other methods.",
    )


def means(looks: Runs, what: str, score: str) -> dict[int, float]:
    """Mean over the seeds at every look; looks where it is not defined are left out."""
    values: dict[int, list[float]] = {}
    for look in looks:
        if look[what][score] is not None:
            values.setdefault(look["step"], []).append(look[what][score])
    return {step: fmean(numbers) for step, numbers in values.items()}


def on_digits(settings: dict[str, Any]) -> bool:
    """Whether the rules of the calibrated digits apply."""
    return bool(settings["variance"]) and settings["variance"]["task"]["data"] == "digits"
