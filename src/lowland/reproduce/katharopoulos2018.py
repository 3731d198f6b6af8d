"""Katharopoulos & Fleuret 2018, Not All Samples Are Created Equal: importance sampling.

Look at the scores along a training, race several ways to choose examples under equal steps, equal
modelled cost and equal wall clock, measure the noise floor where it can be predicted, and judge
the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lowland.reproduce.katharopoulos2018_claims import judge
from lowland.reproduce.katharopoulos2018_figures import draw
from lowland.reproduce.katharopoulos2018_noise import Noise, measure_noise
from lowland.reproduce.katharopoulos2018_races import run_race
from lowland.reproduce.katharopoulos2018_settings import (
    FineTuning,
    Race,
    Settings,
    Task,
    Variance,
    settings,
)
from lowland.reproduce.katharopoulos2018_switch import measure_switch
from lowland.reproduce.katharopoulos2018_tasks import Images, check_arms, race_images
from lowland.reproduce.katharopoulos2018_variance import measure_variance
from lowland.reproduce.kept import Kept
from lowland.results import Record, Status, environment, open_folder, plain
from lowland.training import choose_device, open_progress, use_threads

__all__ = ["FineTuning", "Noise", "Race", "Settings", "Task", "Variance", "run", "settings"]

PAPER = {
    "title": "Not All Samples Are Created Equal: Deep Learning with Importance Sampling",
    "authors": "Angelos Katharopoulos, François Fleuret",
    "year": 2018,
    "arxiv": "1803.00942",
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

    Whatever is finished lies in ``out`` and is not done again.

    Args:
        settings: From :func:`settings`, changed at will.
        seeds: Seeds of every race, instead of those of the settings.
        out: Folder for finished parts and the record.
        progress: As for :func:`lowland.training.open_progress`.
        data: Folder to look for data sets in, first.
        download: Whether a data set may be downloaded.
        restart: Forget what lies in ``out``.
        command: What to print for whoever wants to repeat the run.

    Returns:
        The record, also written to ``record.json``.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with everything finished saved.
    """
    if seeds is not None:
        races = tuple(replace(race, seeds=seeds) for race in settings.races)
        settings = replace(settings, races=races)
    device = choose_device(settings.device)
    source = {"device": device, "data": data, "download": download}
    tracks = {race.name: race_images(race, **source) for race in settings.races}
    for race in settings.races:  # a wrong name is told before anything is written
        tracks[race.name].network(0)
        check_arms(race)
    kept = Kept(open_folder(out, plain(settings), restart))
    parts: dict[str, Any] = {"races": [], "variance": [], "noise": None}
    with use_threads(settings.threads), open_progress(progress) as display:
        used = environment(str(device))
        for race in settings.races:
            parts["races"] += run_race(race, tracks[race.name], kept, display, **source)
        parts["switch"] = kept("switch", measure_switch)
        if settings.variance:
            images = Images.of(settings.variance.task, **source)
            for seed in range(settings.variance.seeds):
                measure = partial(measure_variance, settings.variance, images, seed, display)
                parts["variance"] += kept(f"variance/{seed}", measure)
        if settings.noise:
            parts["noise"] = kept("noise", partial(measure_noise, settings.noise, display))
    record = Record(
        recipe="katharopoulos2018",
        paper=PAPER,
        scale=settings.scale,
        settings=plain(settings),
        seeds=list(range(max((race.seeds for race in settings.races), default=0))),
        runs=parts["races"],
        claims=judge(plain(settings), parts),
        figures=draw(plain(settings), parts),
        environment=used,
        seconds=kept.seconds,
        command=command,
        status=plain(Status.FINISHED),
        notes=notes_of(tracks, parts["races"]),
    )
    record.save(kept.folder / "record.json")
    return record


def notes_of(tracks: dict[str, Images], runs: list[dict[str, Any]]) -> list[str]:
    """What a reader should know: the form of the data, and arms that did not finish."""
    notes = [images.note for images in tracks.values() if images.note]
    for run in runs:
        if run["status"] != plain(Status.FINISHED):
            notes.append(
                f"{run['race']}: {run['arm']} at rate {run['rate']:g}, seed {run['seed']}: "
                f"{Status[run['status'].upper()].value}."
            )
    return list(dict.fromkeys(notes))
