"""Baity-Jesi et al. 2018: the dynamics of deep networks beside that of a mean-field glass.

Train networks that are wide enough and too narrow for their data, record loss, gradient noise and
two-time displacements; solve and simulate the spherical p-spin; quench, count flat directions, scan
widths; and judge the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from lowland.reproduce.baityjesi2018_claims import judge
from lowland.reproduce.baityjesi2018_courses import LOSSES, network, record_course
from lowland.reproduce.baityjesi2018_figures import draw
from lowland.reproduce.baityjesi2018_flat import count_flat
from lowland.reproduce.baityjesi2018_glass import simulate_glass, solve_glass
from lowland.reproduce.baityjesi2018_numbers import analyze
from lowland.reproduce.baityjesi2018_published import NAME, compare
from lowland.reproduce.baityjesi2018_quench import quench_course
from lowland.reproduce.baityjesi2018_scales import settings
from lowland.reproduce.baityjesi2018_settings import (
    Course,
    Flat,
    Glass,
    Quench,
    Settings,
    Task,
    Widths,
)
from lowland.reproduce.baityjesi2018_story import tell
from lowland.reproduce.baityjesi2018_widths import scan_widths
from lowland.reproduce.frame import Measured, Recipe, unfinished
from lowland.reproduce.images import Images
from lowland.reproduce.kept import Kept

__all__ = [
    "Course", "Flat", "Glass", "Quench", "Settings", "Task", "Widths", "run", "settings",
]  # fmt: skip

PAPER = {
    "title": "Comparing Dynamics: Deep Neural Networks versus Glassy Systems",
    "authors": "Marco Baity-Jesi, Levent Sagun, Mario Geiger, Stefano Spigler, Gérard Ben Arous, "
    "Chiara Cammarota, Yann LeCun, Matthieu Wyart, Giulio Biroli",
    "year": 2018,
    "arxiv": "1803.06969",
}


def with_seeds(settings: Settings, seeds: int) -> Settings:
    """Give every course, and every width, the same number of seeds."""
    widths = settings.widths and replace(settings.widths, seeds=seeds)
    courses = tuple(replace(course, seeds=seeds) for course in settings.courses)
    return replace(settings, courses=courses, widths=widths)


def read(settings: Settings, **source: Any) -> dict[str, Images]:
    """The images of every course, and of the widths."""
    check(settings)
    found = {course.name: Images.of(course.task, **source) for course in settings.courses}
    for images in found.values():
        network(images, 0)
    if settings.widths:
        found["widths"] = Images.of(settings.widths.task, **source)
    return found


def check(settings: Settings) -> None:
    """Refuse losses and courses that do not exist."""
    by_name = {course.name: course for course in settings.courses}
    for course in settings.courses:
        if course.loss not in LOSSES:
            raise ValueError(f"a loss must be one of {', '.join(LOSSES)}; got {course.loss!r}.")
    for wanted in (*settings.quenches, *settings.flat):
        if wanted.course not in by_name:
            raise ValueError(
                f"a course must be one of {', '.join(by_name)}; got {wanted.course!r}."
            )
        if not by_name[wanted.course].kept:
            raise ValueError(f"course {wanted.course} must keep weights; its kept is empty.")


def measure(settings: Settings, found: dict[str, Images], kept: Kept, display: Any) -> Measured:
    """Solve the glass, train and record, quench, count flat directions, scan widths."""
    by_name = {course.name: course for course in settings.courses}
    parts: dict[str, Any] = {"runs": [], "phases": [], "quenches": [], "flat": []}
    parts |= {"exact": [], "simulated": [], "widths": []}
    if settings.glass:
        parts["exact"] = kept("exact", partial(solve_glass, settings.glass, display))
        if settings.glass.size:
            simulate = partial(simulate_glass, settings.glass, display)
            parts["simulated"] = kept("simulated", simulate)
    for course in settings.courses:
        runs = []
        for seed in range(course.first_seed, course.first_seed + course.seeds):
            name = f"courses/{course.name}/{seed}"
            record = partial(record_course, course, found[course.name], seed)
            runs.append(kept(name, partial(record, kept.folder / name, display)))
        parts["runs"] += runs
        phases = partial(analyze, runs, settings.samples)
        parts["phases"].append(kept(f"phases/{course.name}", phases))
    for quench in settings.quenches:
        course, images = by_name[quench.course], found[quench.course]
        for seed in range(course.first_seed, course.first_seed + quench.seeds):
            folder = kept.folder / f"courses/{course.name}/{seed}"
            go = partial(quench_course, quench, course, images, seed, folder, display)
            quenched = kept(f"quenches/{course.name}/{seed}", go)
            parts["quenches"].append(quenched | beginnings(parts, course.name, seed))
    for flat in settings.flat:
        course, images = by_name[flat.course], found[flat.course]
        folder = kept.folder / f"courses/{course.name}/{course.first_seed}"
        count = partial(count_flat, flat, course, images, course.first_seed, folder)
        parts["flat"] += kept(f"flat/{course.name}", count)
    if settings.widths:
        scan = partial(scan_widths, settings.widths, found["widths"], display)
        parts["widths"] = kept("widths", scan)
    runs = parts["runs"]
    parts["published"] = compare([one for one in runs if one["course"] == NAME])
    return Measured(parts, runs, unfinished(runs, "{course}, seed {seed}".format_map))


def beginnings(parts: dict[str, Any], course: str, seed: int) -> dict[str, Any]:
    """First loss of a run, and t2 of its course: what barriers are measured by."""
    (run,) = (r for r in parts["runs"] if (r["course"], r["seed"]) == (course, seed))
    (found,) = (one for one in parts["phases"] if one["course"] == course)
    return {"first": run["losses"][0]["loss"], "t2": found["phases"]["t2"]}


run = Recipe("baityjesi2018", PAPER, with_seeds, read, measure, judge, draw, tell).run
