"""The pictures of Baity-Jesi et al. 2018, described in plain values for the report."""

from typing import Any

from lowland.report.figures import lines, series
from lowland.reproduce.baityjesi2018_numbers import Runs, mean_curves, normalized
from lowland.reproduce.baityjesi2018_tables import (
    clones,
    differences,
    flat_table,
    phases_table,
    published,
    quench_table,
)

__all__ = ["draw"]

MOST = 8  # waiting times in a picture

Figure = dict[str, Any]


def draw(settings: dict[str, Any], parts: dict[str, Any]) -> list[Figure]:
    """Describe all figures.

    Args:
        settings: Plain settings of the recipe.
        parts: What a run has measured.

    Returns:
        Figures as the report reads them.
    """
    runs, phases = parts["runs"], parts["phases"]
    figures: list[Figure | None] = []
    for found in phases:
        mine = [run for run in runs if run["course"] == found["course"]]
        figures.append(learning(mine, found))
        if found["kind"] != "flat":
            figures += [family(mine), divided(mine), cloned(mine)]
    figures += [*glass(parts["exact"]), simulated(parts["exact"], parts["simulated"])]
    figures += [flat(parts["flat"]), descent(parts["exact"])]
    figures += [figure for one in parts["quenches"] for figure in quench(one)]
    figures += [widths(parts["widths"]), phases_table(phases), clones(phases)]
    figures += [quench_table(parts["quenches"]), flat_table(parts["flat"])]
    figures += [published(parts["published"]), differences()]
    return [figure for figure in figures if figure is not None]


def some(waits: list[Any]) -> list[Any]:
    """A few of many, the first and the last among them."""
    if len(waits) <= MOST:
        return waits
    return [waits[round(k * (len(waits) - 1) / (MOST - 1))] for k in range(MOST)]


def learning(runs: Runs, found: dict[str, Any]) -> Figure:
    """Loss against log time, with its three stages."""
    name, phases = found["course"], found["phases"]
    shown = []
    for number, run in enumerate(runs):
        rows = [row for row in run["losses"] if row["step"] > 0]
        steps = [row["step"] for row in rows]
        label = f"seed {run['seed']}"
        shown.append(series(label, steps, [row["loss"] for row in rows], color=number))
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
        shown,
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


def cloned(runs: Runs) -> Figure | None:
    """Raw motion, and what remains of it between clones."""
    found = runs[0]["clones"]
    if not found:
        return None
    shown = []
    for number, one in enumerate(found):
        label = f"tw = {one['wait']}"
        shown += [
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
        shown,
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
    shown = [
        series(f"N = {one['size']}, sample {one['sample']}", one["times"][1:], one["energy"][1:],
               "points", color=number + 1)
        for number, one in enumerate(samples[:4])
    ]  # fmt: skip
    for one in exact:
        if one["temperature"] == samples[0]["temperature"]:
            shown.append(series("infinite size", one["times"], one["energy"], color=0))
    return lines(
        "glass-simulation",
        f"p-spin: simulation beside the solution, T = {samples[0]['temperature']:g}",
        "Langevin dynamics, mean over the replicas of each disorder.",
        "time t",
        "energy per spin",
        shown,
        x_log=True,
    )


def descent(exact: Runs) -> Figure | None:
    """Negative curvatures of the p-spin."""
    if not exact:
        return None
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
    shown = []
    for number, name in enumerate(("age", "fixed", "relative")):
        rows = [row for row in found if row["counts"][name] and row["step"] > 0]
        shown.append(
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
        shown,
        x_log=True,
    )


def quench(one: dict[str, Any]) -> list[Figure]:
    """Loss along straight lines and the path between quenched states."""
    shown = [
        series(f"line {line['from']} to {line['to']}", line["at"], line["loss"], color=number)
        for number, line in enumerate(one["lines"])
    ]
    if one["path"]:
        label = f"AutoNEB {one['path']['from']} to {one['path']['to']}"
        shown.append(
            series(label, one["path"]["at"], one["path"]["loss"], "dashed", color=len(shown))
        )
    name = f"quench-{one['course']}-{one['seed']}"
    return [
        lines(
            name,
            f"{one['course']}: loss between quenched states",
            f"Seed {one['seed']}. Descent without noise from weights of several ages; the loss on "
            "the way from one end to the next.",
            "share of the way",
            "training loss",
            shown,
        )
    ]


def widths(found: Runs) -> Figure | None:
    """Where learning gets stuck."""
    if not found:
        return None
    seeds = sorted({row["seed"] for row in found})
    shown = []
    for number, seed in enumerate(seeds):
        rows = [row for row in found if row["seed"] == seed]
        x = [row["width"] for row in rows]
        shown += [
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
        shown,
        x_log=True,
    )
