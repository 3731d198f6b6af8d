"""Li & Hao 2018, An Optimal Control Approach to Deep Learning: discrete-weight networks.

Check the maximum principle against autograd and closed forms, search among all candidates of small
networks, train binary and ternary networks beside what they are compared with and beside the
official logs, and judge the paper's claims on what came out.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lowland.reproduce.li2018_checks import measure_checks
from lowland.reproduce.li2018_claims import judge
from lowland.reproduce.li2018_figures import draw
from lowland.reproduce.li2018_search import measure_search
from lowland.reproduce.li2018_settings import Arm, Checks, Search, Settings, Task, settings
from lowland.reproduce.li2018_training import Images, check_arm, train_arm
from lowland.results import Record, Status, environment, open_folder, plain, read_json, write_json
from lowland.training import choose_device, open_progress, use_threads

__all__ = ["Arm", "Checks", "Search", "Settings", "Task", "run", "settings"]

PAPER = {
    "title": "An Optimal Control Approach to Deep Learning and Applications to Discrete-Weight "
    "Neural Networks",
    "authors": "Qianxiao Li, Shuji Hao",
    "year": 2018,
    "arxiv": "1803.01299",
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

    Whatever is finished lies in ``out`` and is not done again; a training goes on in mid-epoch.

    Args:
        settings: From :func:`settings`, changed at will.
        seeds: Seeds of every training, instead of those of the settings.
        out: Folder for finished parts and the record.
        progress: As for :func:`lowland.training.open_progress`.
        data: Folder to look for data sets in, first.
        download: Whether a data set may be downloaded.
        restart: Forget what lies in ``out``.
        command: What to print for whoever wants to repeat the run.

    Returns:
        The record, also written to ``record.json``.

    Raises:
        ValueError: If a method, a loss or a network does not exist.
        KeyboardInterrupt: After Ctrl-C, with everything finished saved.
    """
    if seeds is not None:
        settings = with_seeds(settings, seeds)
    device = choose_device(settings.device)
    found = {}
    for task in settings.tasks:  # a wrong name is told before anything is written
        found[task.name] = Images.of(task, device, data=data, download=download)
        found[task.name].network(0)
        for arm in task.arms:
            check_arm(arm)
    out = open_folder(out, plain(settings), restart)
    clock = Clock()
    parts: dict[str, Any] = {"runs": [], "checks": None, "search": None}
    with use_threads(settings.threads), open_progress(progress) as display:
        used = environment(str(device))
        if settings.checks:
            parts["checks"] = clock(out / "checks.json", partial(measure_checks, settings.checks))
        if settings.search:
            parts["search"] = clock(out / "search.json", partial(measure_search, settings.search))
        for task in settings.tasks:
            for arm, seed in all_runs(task):
                folder = out / task.name / f"{plain_name(arm.name)}-{seed}"
                train = partial(train_arm, arm, found[task.name], seed, folder, display)
                parts["runs"].append(clock(folder / "run.json", train))
    record = Record(
        recipe="li2018",
        paper=PAPER,
        scale=settings.scale,
        settings=plain(settings),
        seeds=list(range(max((one["seed"] + 1 for one in parts["runs"]), default=0))),
        runs=parts["runs"],
        claims=judge(plain(settings), parts),
        figures=draw(plain(settings), parts),
        environment=used,
        seconds=clock.seconds,
        command=command,
        status=plain(Status.FINISHED),
        notes=notes_of(found, parts["runs"]),
    )
    record.save(out / "record.json")
    return record


def with_seeds(settings: Settings, seeds: int) -> Settings:
    """Give every arm the same number of seeds."""
    tasks = tuple(
        replace(task, seeds=seeds, arms=tuple(replace(arm, seeds=None) for arm in task.arms))
        for task in settings.tasks
    )
    return replace(settings, tasks=tasks)


def all_runs(task: Task) -> list[tuple[Arm, int]]:
    """List the trainings of a task, seed by seed."""
    return [
        (arm, seed)
        for seed in range(max([task.seeds, *(arm.seeds or 0 for arm in task.arms)]))
        for arm in task.arms
        if seed < (task.seeds if arm.seeds is None else arm.seeds)
    ]


def plain_name(name: str) -> str:
    """Make a folder's name of an arm's."""
    words = "".join(letter if letter.isalnum() or letter in "-." else " " for letter in name)
    return "-".join(words.split())


class Clock:
    """Computes what is not yet on disk, and adds up the seconds of everything that was asked for.

    Attributes:
        seconds: So far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, file: Path, compute: Callable[[], Any]) -> Any:
        """Read plain values from a file, or compute and write them.

        Args:
            file: Where they are kept.
            compute: Gives what :func:`lowland.results.plain` can treat; what it says of its own
                ``"seconds"``, which may belong to several calls, goes before the clock's.

        Returns:
            What the file holds.
        """
        if not file.exists():
            begin = perf_counter()
            values = compute()
            seconds = max(perf_counter() - begin, values.get("seconds") or 0.0)
            write_json(file, {"seconds": seconds, "values": values})
        found = read_json(file)
        self.seconds += found["seconds"]
        return found["values"]


def notes_of(found: dict[str, Images], runs: list[dict[str, Any]]) -> list[str]:
    """What a reader should know: the form of the data, and runs that did not finish."""
    notes = [images.note for images in found.values() if images.note]
    for one in runs:
        if one["status"] != plain(Status.FINISHED):
            notes.append(f"{one['task']}, {one['arm']}, seed {one['seed']}: {one['message']}")
    return list(dict.fromkeys(notes))
