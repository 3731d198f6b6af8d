"""Li & Hao 2018, An Optimal Control Approach to Deep Learning: discrete-weight networks.

Check the maximum principle against autograd and closed forms, search among all candidates of small
networks, train binary and ternary networks beside what they are compared with and beside the
official logs, and judge the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from lowland.reproduce.frame import Measured, Recipe, unfinished
from lowland.reproduce.images import Images
from lowland.reproduce.kept import Kept
from lowland.reproduce.li2018_checks import measure_checks
from lowland.reproduce.li2018_claims import judge
from lowland.reproduce.li2018_figures import draw
from lowland.reproduce.li2018_search import measure_search
from lowland.reproduce.li2018_settings import Arm, Checks, Search, Settings, Task, settings
from lowland.reproduce.li2018_story import tell
from lowland.reproduce.li2018_training import check_arm, images_of, train_arm

__all__ = ["Arm", "Checks", "Search", "Settings", "Task", "run", "settings"]

PAPER = {
    "title": "An Optimal Control Approach to Deep Learning and Applications to Discrete-Weight "
    "Neural Networks",
    "authors": "Qianxiao Li, Shuji Hao",
    "year": 2018,
    "arxiv": "1803.01299",
}


def read(settings: Settings, **source: Any) -> dict[str, Images]:
    """The images of every task."""
    found = {}
    for task in settings.tasks:
        found[task.name] = images_of(task, **source)
        found[task.name].network(0)
        for arm in task.arms:
            check_arm(arm)
    return found


def measure(settings: Settings, found: dict[str, Images], kept: Kept, display: Any) -> Measured:
    """Check identities, search small networks, train large ones."""
    parts: dict[str, Any] = {"runs": [], "checks": None, "search": None}
    if settings.checks:
        parts["checks"] = kept("checks", partial(measure_checks, settings.checks))
    if settings.search:
        parts["search"] = kept("search", partial(measure_search, settings.search))
    for task in settings.tasks:
        for arm, seed in all_runs(task):
            name = f"{task.name}/{plain_name(arm.name)}-{seed}"
            train = partial(train_arm, task, arm, found[task.name], seed)
            done = kept(f"{name}/run", partial(train, kept.folder / name, display))
            parts["runs"].append(done)
    return Measured(
        parts, parts["runs"], unfinished(parts["runs"], "{task}, {arm}, seed {seed}".format_map)
    )


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


run = Recipe("li2018", PAPER, with_seeds, read, measure, judge, draw, tell).run
