"""The pictures of Baity-Jesi et al. 2018, described in plain values for the report."""

from typing import Any

from lowland.report.figures import lines, series, shown
from lowland.reproduce.baityjesi2018_numbers import mean_curves, normalized
from lowland.reproduce.baityjesi2018_tables import (
    DIFFERENCES,
    clones,
    flat_table,
    phases_table,
    published,
    quench_table,
)
from lowland.reproduce.runs import Runs

__all__ = ["draw"]

MOST = 8  # waiting times in a picture

Figure = dict[str, Any]


def draw(settings: dict[str, Any], parts: dict[str, Any]) -> list[Figure]:
    """Describe all figures."""
    runs, phases = parts["runs"], parts["phases"]
    figures: list[Figure | None] = []
    for found in phases:
        mine = [run for run in runs if run["course"] == found["course"]]
        figures.append(learning(mine, found))
        if found["kind"] != "flat":
            figures += [family(mine), divided(mine), cloned(mine)]
    figures += [*glass(parts["exact"]), simulated(parts["exact"], parts["simulated"])]
    figures += [flat(parts["flat"]), descent(parts["exact"])]
    figures += map(quench, parts["quenches"])
    figures += [widths(parts["widths"]), phases_table(phases), clones(phases)]
    figures += [quench_table(parts["quenches"]), flat_table(parts["flat"])]
    figures += [published(parts["published"]), DIFFERENCES]
    return shown(figures)


def some(waits: list[Any]) -> list[Any]:
    """A few of many, the first and the last among them."""
    if len(waits) <= MOST:
        return waits
    return [waits[round(k * (len(waits) - 1) / (MOST - 1))] for k in range(MOST)]


def learning(runs: Runs, found: dict[str, Any]) -> Figure:
    """Loss against log time, with its three stages."""
    name, phases = found["course"], found["phases"]
    drawn = []
    for number, run in enumerate(runs):
        rows = [row for row in run["losses"] if row["step"] > 0]
        steps = [row["step"] for row in rows]
        label = f"seed {run['seed']}"
        drawn.append(series(label, steps, [row["loss"] for row in rows], color=number))
    marks = [
        {"x": phases[key], "y": None, "text": text}
        for key, text in (("t1", "t1"), ("t2", "t2"))
        if phases[key] is not None
    ]
    return lines(
        f"loss-{name}",
        f"{name}: training loss against log time",
        f"{len(runs)} seeds, M = {found['params']} weights. t1 and t2: breaks of three lines in "
        "ln n, fitted to the mean over seeds.",
        "updates n",
        "training loss",
        drawn,
        x_log=True,
        marks=marks,
    )


def family(runs: Runs) -> Figure:
    """Displacements for several ages."""
    curves = mean_curves(runs)
    return lines(
        f"displacement-{runs[0]['course']}",
        f"{runs[0]['course']}: displacement since several waiting times",
        f"Mean square displacement per weight, mean over {len(runs)} seeds; raw.",
        "lag t (updates)",
        "Δ(tw, tw + t)",
        [series(f"tw = {w}", curves[w]["lag"], curves[w]["displacement"])
         for w in some(list(curves))],
        x_log=True,
        y_log=True,
    )  # fmt: skip


def divided(runs: Runs) -> Figure:
    """The same, divided by the gradient noise: the paper's collapse."""
    curves = normalized(runs)
    return lines(
        f"collapse-{runs[0]['course']}",
        f"{runs[0]['course']}: displacement over the gradient noise",
        f"Δ(tw, tw + t) / D(tw), mean over {len(runs)} seeds. Late curves of a network that has "
        "learned fall on one: its motion depends on its age only by the noise.",
        "lag t (updates)",
        "Δ / D(tw)",
        [series(f"tw = {w}", curves[w]["lag"], curves[w]["displacement"])
         for w in some(list(curves))],
        x_log=True,
        y_log=True,
    )  # fmt: skip


def cloned(runs: Runs) -> Figure:
    """Raw motion, and what remains of it between clones."""
    drawn = []
    for number, one in enumerate(runs[0]["clones"]):
        label = f"tw = {one['wait']}"
        drawn += [
            series(f"raw, {label}", one["lag"], one["raw"], "dashed", color=number),
            series(f"clones, {label}", one["lag"], one["displacement"], color=number),
        ]
    return lines(
        f"clones-{runs[0]['course']}",
        f"{runs[0]['course']}: drift and noise",
        "First seed. Clones start from the same weights and see other batches: their variance is "
        "the part of the motion that noise makes.",
        "lag t (updates)",
        "mean square per weight",
        drawn,
        x_log=True,
        y_log=True,
    )


def glass(exact: Runs) -> list[Figure]:
    """The p-spin's energy, and its displacements with their plateau."""
    if not exact:
        return []
    energy = lines(
        "glass-energy",
        "p-spin: energy against log time",
        f"Spherical p-spin, p = {exact[0]['order']}, infinite size: solution of the "
        "Cugliandolo-Kurchan equations after a quench. Dashed: the threshold where it ends.",
        "time t",
        "energy per spin",
        [
            item
            for number, one in enumerate(exact)
            for item in (
                series(f"T = {one['temperature']:g}", one["times"], one["energy"], color=number),
                series(f"limit, T = {one['temperature']:g}", [one["times"][0], one["times"][-1]],
                       [one["limit"]] * 2, "dashed", color=number),
            )
        ],
        x_log=True,
    )  # fmt: skip
    families = [
        lines(
            f"glass-displacement-{number}",
            f"p-spin: displacement since several waiting times, T = {one['temperature']:g}",
            "Infinite size, exact. Short lags do not know the age; then a plateau, "
            f"2 (1 - q) = {one['plateau']:.4g}; it is left the later, the older the system.",
            "lag t",
            "2 (1 - C(tw + t, tw))",
            [series(f"tw = {c['wait']:g}", c["lag"], c["displacement"]) for c in one["curves"]]
            + [series("plateau", [one["curves"][0]["lag"][0], one["curves"][0]["lag"][-1]],
                      [one["plateau"]] * 2, "dashed")],
            x_log=True,
            y_log=True,
        )
        for number, one in enumerate(exact)
        if one["curves"]
    ]  # fmt: skip
    return [energy, *families]


def simulated(exact: Runs, samples: Runs) -> Figure | None:
    """Energies of finite systems beside the solution."""
    if not samples:
        return None
    drawn = [
        series(f"N = {one['size']}, sample {one['sample']}", one["times"][1:], one["energy"][1:],
               "points", color=number + 1)
        for number, one in enumerate(samples[:4])
    ]  # fmt: skip
    for one in exact:
        if one["temperature"] == samples[0]["temperature"]:
            drawn.append(series("infinite size", one["times"], one["energy"], color=0))
    return lines(
        "glass-simulation",
        f"p-spin: simulation beside the solution, T = {samples[0]['temperature']:g}",
        "Langevin dynamics, mean over the replicas of each disorder.",
        "time t",
        "energy per spin",
        drawn,
        x_log=True,
    )


def descent(exact: Runs) -> Figure:
    """Negative curvatures of the p-spin."""
    return lines(
        "glass-negative",
        "p-spin: share of directions that go down",
        "Share of negative curvatures at the energy of each time: a semicircle that slides up.",
        "time t",
        "share of negative curvatures",
        [series(f"T = {one['temperature']:g}", one["times"], one["negative"]) for one in exact],
        x_log=True,
    )


def flat(found: Runs) -> Figure | None:
    """Flat directions against time."""
    if not found:
        return None
    drawn = []
    for number, name in enumerate(("age", "fixed", "relative")):
        rows = [row for row in found if row["counts"][name] and row["step"] > 0]
        drawn.append(
            series(
                {"age": "λ < 1 / age", "fixed": "fixed threshold",
                 "relative": "share of the largest"}[name],
                [row["step"] for row in rows],
                [100 * row["counts"][name]["flat"] / row["params"] for row in rows],
                color=number,
            )
        )  # fmt: skip
    return lines(
        "flat",
        f"{found[0]['course']}: flat directions against time",
        f"Share of the {found[0]['params']} directions with |λ| below a threshold; three "
        "thresholds, which can disagree.",
        "updates n",
        "flat directions (%)",
        drawn,
        x_log=True,
    )


def quench(one: dict[str, Any]) -> Figure:
    """Loss along straight lines and the path between quenched states."""
    drawn = [
        series(f"line {line['from']} to {line['to']}", line["at"], line["loss"], color=number)
        for number, line in enumerate(one["lines"])
    ]
    if one["path"]:
        label = f"AutoNEB {one['path']['from']} to {one['path']['to']}"
        drawn.append(
            series(label, one["path"]["at"], one["path"]["loss"], "dashed", color=len(drawn))
        )
    return lines(
        f"quench-{one['course']}-{one['seed']}",
        f"{one['course']}: loss between quenched states",
        f"Seed {one['seed']}. Descent without noise from weights of several ages; the loss on "
        "the way from one end to the next.",
        "share of the way",
        "training loss",
        drawn,
    )


def widths(found: Runs) -> Figure:
    """Where learning gets stuck."""
    drawn = []
    for number, seed in enumerate(sorted({row["seed"] for row in found})):
        rows = [row for row in found if row["seed"] == seed]
        x = [row["width"] for row in rows]
        drawn += [
            series(f"loss, seed {seed}", x, [r["last"] / r["first"] for r in rows], color=number),
            series(f"wrong, seed {seed}", x, [r["error"] for r in rows], "dashed", color=number),
        ]
    return lines(
        "widths",
        "Width scan: where learning gets stuck",
        "One hidden layer, the same updates for all: last over first training loss, and the share "
        "of training examples that are wrong.",
        "hidden units h",
        "share",
        drawn,
        x_log=True,
    )
