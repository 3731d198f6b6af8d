"""The claims of Baity-Jesi et al. 2018 on glass, barriers, flat directions and widths."""

from itertools import pairwise
from math import sqrt
from statistics import fmean, stdev

from lowland.reproduce.baityjesi2018_numbers import at_lag
from lowland.reproduce.baityjesi2018_rules import STUCK
from lowland.reproduce.runs import Runs
from lowland.reproduce.verdicts import claim
from lowland.results import Claim

__all__ = ["flat_grows", "glass_contrast", "no_barrier", "two_phases"]

SHARE = 0.01  # of the first loss: a bump, or a difference of losses, that does not count
SAME = 0.05  # displacements at a short lag agree to this
DECAY = (0.5, 0.85)  # of E(t) - E_th at T = 0; 2/3 is expected
LEARNED = 0.05  # of the first loss


def glass_contrast(exact: Runs, simulated: Runs, is_long: bool) -> Claim:
    """C7: the p-spin ages at all times, has a plateau, and goes to its threshold."""
    truths, notes, values = [], [], []
    for one in exact:
        name, short = f"T = {one['temperature']:g}", one["short"][1:]
        gap = one["energy"][-1] - one["limit"]
        values.append(gap)
        truths.append(DECAY[0] < one["decay"] < DECAY[1] or one["temperature"] > 0)
        notes.append(
            f"{name}: E({one['times'][-1]:g}) is {gap:.4f} above its limit {one['limit']:.4f}, "
            f"the gap falls as t^-{one['decay']:.2f}."
        )
        if one["temperature"] > 0:
            apart = max(short) / min(short) - 1
            truths.append(apart < SAME)
            ages = [at_lag(curve, 10.0) for curve in one["curves"]]
            known = [value for value in ages if value]
            truths.append(all(a > b for a, b in pairwise(known)))
            ends = f"{known[0]:.3g} to {known[-1]:.3g}" if known else "unknown"
            notes.append(
                f"Δ at t = 0.1 agrees to {100 * apart:.1f} % for tw > 1; at t = 10 it falls: "
                f"{ends}, plateau {one['plateau']:.3g}."
            )
    notes += beside_the_solution(exact, simulated)
    return claim(
        "C7",
        "A mean-field glass ages at all times, has a plateau, and its energy goes to a threshold.",
        "figure 1; E_th = -1.1547 for p = 3 (theory)",
        f"exact solution to t = 50: at T = 0 E - E_th falls with an exponent of {DECAY[0]:g} to "
        f"{DECAY[1]:g}; at T > 0 Δ at t = 0.1 agrees to {100 * SAME:g} % for tw > 1, and at t = 10 "
        "falls with tw",
        tuple(values),
        "energy above its limit",
        truths if is_long else [],
        " ".join(notes),
        "times are too short.",
    )


def beside_the_solution(exact: Runs, simulated: Runs) -> list[str]:
    """Say how far simulated energies are from the solution."""
    same = [one for one in exact if simulated
            and one["temperature"] == simulated[0]["temperature"]]  # fmt: skip
    if not same:
        return []
    energies = [sample["energy"][-1] for sample in simulated]
    error = stdev(energies) / sqrt(len(energies)) if len(energies) > 1 else float("nan")
    time = simulated[0]["times"][-1]
    near = min(range(len(same[0]["times"])), key=lambda k: abs(same[0]["times"][k] - time))
    return [
        f"Langevin, N = {simulated[0]['size']}: E({time:g}) = {fmean(energies):.3f} ± {error:.3f}, "
        f"solution {same[0]['energy'][near]:.3f}."
    ]


def no_barrier(found: Runs, is_long: bool) -> Claim:
    """C9: between quenched states there is no bump, and descent without noise ends as low."""
    truths, notes, values = [], [], []
    for one in found:
        first, end = one["first"], one["rows"][-1]["before"]
        late = [line for line in one["lines"] if line["from"] > one["t2"]]
        bumps = [line["bump"] / first for line in late]
        above = [(row["after"] - end) / first for row in one["rows"] if row["wait"] > one["t2"]]
        note = (
            f"{one['course']}, seed {one['seed']}: largest bump after t2 "
            f"{100 * max(bumps, default=0):.3g} % of the first loss on {len(late)} straight lines; "
            f"quenches end at most {100 * max(above, default=0):.2g} % above the end of training."
        )
        if one["path"]:
            path = one["path"]
            note += (
                f" From {path['from']} to {path['to']}: {100 * path['straight'] / first:.3g} % "
                f"straight, {100 * path['bump'] / first:.3g} % on the AutoNEB path."
            )
        notes.append(note)
        if one["kind"] == "over":
            truths += [bump < SHARE for bump in bumps] + [rest < SHARE for rest in above]
            values += bumps
            if one["path"]:
                truths.append(one["path"]["bump"] < SHARE * first)
    return claim(
        "C9",
        "Networks cross no barriers: what slows them down is flatness.",
        "by argument: escapes would take times exponential in the number of weights",
        "networks that learn, tw > t2: no bump above 1 % of the first loss on straight lines "
        "between quenched states, nor on the AutoNEB path from the first to the last; descent "
        "without noise ends at most 1 % of the first loss above the end of training (revised after "
        "a first look at seed 0, where quenches a quarter as long differed by 1.45 %)",
        tuple(values),
        "bump / first loss",
        truths if is_long else [],
        " ".join(notes),
        "a quench that is shorter than what was left of the training.",
    )


def flat_grows(found: Runs, exact: Runs, is_long: bool) -> Claim:
    """C10: the older, the more flat directions."""
    truths, notes, values = [], [], []
    for name, words in (("fixed", "fixed ε"), ("relative", "share of the largest"),
                        ("age", "1 / age")):  # fmt: skip
        rows = [row for row in found if row["counts"][name] and row["counts"][name]["reliable"]]
        if len(rows) < 2:
            continue
        shares = [row["counts"][name]["flat"] / row["params"] for row in rows]
        values.append(shares[-1] - shares[0])
        truths.append(shares[-1] > shares[0])
        steps = f"{rows[0]['step']} to {rows[-1]['step']}"
        notes.append(
            f"{words}: {100 * shares[0]:.1f} to {100 * shares[-1]:.1f} % flat (updates {steps})."
        )
    for one in exact:
        negative = one["negative"]
        truths.append(negative[-1] < negative[0])
        notes.append(
            f"p-spin, T = {one['temperature']:g}: negative curvatures {100 * negative[0]:.1f} to "
            f"{100 * negative[-1]:.2f} %."
        )
    return claim(
        "C10",
        "The motion slows down as more directions become flat.",
        "by reference to Hessians of the same group; no number",
        "the share of directions with |λ| < ε is larger at the end than at the beginning, by each "
        "of three thresholds; the p-spin's share of negative curvatures falls",
        tuple(values),
        "change of the flat share",
        truths if is_long and values else [],
        " ".join(notes),
        "the thresholds move in different directions: 1 / age falls faster than eigenvalues do.",
    )


def two_phases(found: Runs, is_long: bool) -> Claim:
    """C13: between two widths learning sets in."""
    truths, notes, values = [], [], []
    for seed in sorted({row["seed"] for row in found}):
        rows = sorted((r for r in found if r["seed"] == seed), key=lambda row: row["width"])
        ratios = {row["width"]: row["last"] / row["first"] for row in rows}
        stuck = [width for width, ratio in ratios.items() if ratio > STUCK]
        slow = max((width for width, ratio in ratios.items() if ratio >= LEARNED), default=0)
        learned = [width for width in ratios if width > slow]
        ordered = bool(stuck and learned) and max(stuck) < min(learned)
        truths.append(ordered and min(learned) <= 8 * max(stuck))
        values.append(float(min(learned)) if learned else None)
        onset = f"learned from h = {min(learned)}" if learned else "no width has learned"
        notes.append(
            f"Seed {seed}: stuck up to h = {max(stuck, default=0)}, {onset}; wrong examples "
            f"{100 * rows[0]['error']:.0f} to {100 * rows[-1]['error']:.1f} %."
        )
    return claim(
        "C13",
        "Two phases, with too few and with enough weights, are separated by a width.",
        "loss stuck for h = 10, at zero for h = 10,000 (figures); no number",
        f"every width up to some h ends above {STUCK:g} of its first loss, every width from some "
        f"h* ≤ 8 h on below {LEARNED:g}",
        tuple(values),
        "h*",
        truths if is_long else [],
        " ".join(notes),
        "the change is gradual in the number of updates that were done.",
    )
