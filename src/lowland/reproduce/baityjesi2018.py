"""Baity-Jesi et al. 2018: the dynamics of deep networks beside that of a mean-field glass.

Train networks that are wide enough and too narrow for their data, record loss, gradient noise and
two-time displacements; solve and simulate the spherical p-spin; quench, count flat directions, scan
widths; and judge the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
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
from lowland.reproduce.baityjesi2018_widths import scan_widths
from lowland.reproduce.katharopoulos2018_tasks import Images
from lowland.reproduce.kept import Kept
from lowland.results import Record, Status, environment, open_folder, plain
from lowland.training import choose_device, open_progress, use_threads

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


def run(
    settings: Settings,
    *,
    seeds: int | None = None,
    out: str | Path,
    progress: Any = False,
    data: str | Path | None = None,
    download: bool = False,
    restart: bool = False,
    command: str = "",
) -> Record:
    """Run every experiment of a scale, and judge the claims.

    Whatever is finished lies in ``out`` and is not done again; a course that keeps its state goes
    on in the middle.

    Args:
        settings: From :func:`settings`, changed at will.
        seeds: Seeds of every course and width, instead of those of the settings.
        out: Folder for finished parts and the record.
        progress: As for :func:`lowland.training.open_progress`.
        data: Folder to look for data sets in, first.
        download: Whether a data set may be downloaded.
        restart: Forget what lies in ``out``.
        command: What to print for whoever wants to repeat the run.

    Returns:
        The record, also written to ``record.json``.

    Raises:
        ValueError: If a network, a loss or a course does not exist.
        KeyboardInterrupt: After Ctrl-C, with everything finished saved.
    """
    if seeds is not None:
        widths = settings.widths and replace(settings.widths, seeds=seeds)
        courses = tuple(replace(course, seeds=seeds) for course in settings.courses)
        settings = replace(settings, courses=courses, widths=widths)
    device = choose_device(settings.device)
    source = {"device": device, "data": data, "download": download}
    by_name = check(settings)
    found = {course.name: Images.of(course.task, **source) for course in settings.courses}
    for images in found.values():  # a wrong name is told before anything is written
        network(images, 0)
    kept = Kept(open_folder(out, plain(settings), restart))
    parts: dict[str, Any] = {"runs": [], "phases": [], "quenches": [], "flat": []}
    parts |= {"exact": [], "simulated": [], "widths": []}
    with use_threads(settings.threads), open_progress(progress) as display:
        used = environment(str(device))
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
            read = partial(analyze, runs, settings.samples)
            parts["phases"].append(kept(f"phases/{course.name}", read))
        for quench in settings.quenches:
            course, images = by_name[quench.course], found[quench.course]
            for seed in range(course.first_seed, course.first_seed + quench.seeds):
                folder = kept.folder / f"courses/{course.name}/{seed}"
                go = partial(quench_course, quench, course, images, seed, folder, display)
                found_here = kept(f"quenches/{course.name}/{seed}", go)
                parts["quenches"].append(found_here | beginnings(parts, course.name, seed))
        for flat in settings.flat:
            course, images = by_name[flat.course], found[flat.course]
            folder = kept.folder / f"courses/{course.name}/{course.first_seed}"
            count = partial(count_flat, flat, course, images, course.first_seed, folder)
            parts["flat"] += kept(f"flat/{course.name}", count)
        if settings.widths:
            images = Images.of(settings.widths.task, **source)
            parts["widths"] = kept("widths", partial(scan_widths, settings.widths, images, display))
    parts["published"] = compare([one for one in parts["runs"] if one["course"] == NAME])
    record = Record(
        recipe="baityjesi2018",
        paper=PAPER,
        scale=settings.scale,
        settings=plain(settings),
        seeds=sorted({one["seed"] for one in parts["runs"]}),
        runs=parts["runs"],
        claims=judge(plain(settings), parts),
        figures=draw(plain(settings), parts),
        environment=used,
        seconds=kept.seconds,
        command=command,
        status=plain(Status.FINISHED),
        notes=notes_of(found, parts["runs"]),
    )
    record.save(kept.folder / "record.json")
    return record


def beginnings(parts: dict[str, Any], course: str, seed: int) -> dict[str, Any]:
    """First loss of a run, and t2 of its course: what barriers are measured by."""
    (run,) = (r for r in parts["runs"] if (r["course"], r["seed"]) == (course, seed))
    (found,) = (one for one in parts["phases"] if one["course"] == course)
    return {"first": run["losses"][0]["loss"], "t2": found["phases"]["t2"]}


def check(settings: Settings) -> dict[str, Course]:
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
    return by_name


def notes_of(found: dict[str, Images], runs: list[dict[str, Any]]) -> list[str]:
    """What a reader should know: the form of the data, and runs that did not finish."""
    notes = [images.note for images in found.values() if images.note]
    for one in runs:
        if one["status"] != plain(Status.FINISHED):
            notes.append(f"{one['course']}, seed {one['seed']}: {one['message']}")
    return list(dict.fromkeys(notes))
