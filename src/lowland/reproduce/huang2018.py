"""Huang, Ash, Langford & Schapire 2018: residual networks grown block by block.

Grow networks with a certificate at every depth, beside training end to end, refinement and
AdaBoost.MM; count bytes and seconds of an update; grow blocks without gradient and on wrong labels;
try the variants that the field has found since; and judge the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lowland.reproduce.huang2018_baselines import grow
from lowland.reproduce.huang2018_checks import fitted_blocks, saved_by_stage, time_updates
from lowland.reproduce.huang2018_claims import judge
from lowland.reproduce.huang2018_collapse import measure_collapse
from lowland.reproduce.huang2018_figures import draw
from lowland.reproduce.huang2018_growth import images_of
from lowland.reproduce.huang2018_noise import measure_noise
from lowland.reproduce.huang2018_scales import settings
from lowland.reproduce.huang2018_settings import (
    Checks,
    Collapse,
    Growth,
    Noise,
    Settings,
    Table,
    Task,
    Variant,
)
from lowland.reproduce.huang2018_variants import try_variants
from lowland.reproduce.kept import Kept
from lowland.results import Record, Status, environment, open_folder, plain
from lowland.training import choose_device, open_progress, use_threads

__all__ = [
    "Checks", "Collapse", "Growth", "Noise", "Settings", "Table", "Task", "Variant", "run",
    "settings",
]  # fmt: skip

PAPER = {
    "title": "Learning Deep ResNet Blocks Sequentially using Boosting Theory",
    "authors": "Furong Huang, Jordan T. Ash, John Langford, Robert E. Schapire",
    "year": 2018,
    "arxiv": "1706.04964",
}
DIGITS = Task("digits", "res-mlp-64-128-10x8", 100, "official")


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

    Whatever is finished lies in ``out`` and is not done again; a growth that keeps its state goes
    on in mid-block.

    Args:
        settings: From :func:`settings`, changed at will.
        seeds: Seeds of every growth, instead of those of the settings.
        out: Folder for finished parts and the record.
        progress: As for :func:`lowland.training.open_progress`.
        data: Folder to look for data sets in, first.
        download: Whether a data set may be downloaded.
        restart: Forget what lies in ``out``.
        command: What to print for whoever wants to repeat the run.

    Returns:
        The record, also written to ``record.json``.

    Raises:
        ValueError: If a network, or a way to grow it, does not exist.
        KeyboardInterrupt: After Ctrl-C, with everything finished saved.
    """
    if seeds is not None:
        growths = tuple(replace(growth, seeds=seeds) for growth in settings.growths)
        settings = replace(settings, growths=growths)
    device = choose_device(settings.device)
    read = partial(images_of, device=device, data=data, download=download)
    found = {growth.name: read(growth.task) for growth in settings.growths}
    for growth in settings.growths:  # a wrong name is told before anything is written
        found[growth.name].network(0)
    kept = Kept(open_folder(out, plain(settings), restart))
    parts: dict[str, Any] = {"runs": [], "variants": [], "noise": []}
    parts |= {"memory": [], "timing": [], "fitted": [], "collapse": []}
    with use_threads(settings.threads), open_progress(progress) as display:
        used = environment(str(device))
        checks, digits = settings.checks, read(DIGITS)
        if checks:
            parts["memory"] = kept("memory", partial(saved_by_stage, checks))
            parts["timing"] = kept("timing", partial(time_updates, checks, digits))
            parts["fitted"] = kept("fitted", partial(fitted_blocks, checks, digits))
        for growth in settings.growths:
            parts["runs"] += grow(growth, found[growth.name], kept, display)
        if settings.noise:
            images = read(settings.noise.task)
            for seed in range(settings.noise.seeds):
                measure = partial(measure_noise, settings.noise, images, seed, display)
                parts["noise"] += kept(f"noise/{seed}", measure)
        if settings.collapse:
            measure = partial(measure_collapse, settings.collapse, digits, display)
            parts["collapse"] = kept("collapse", measure)
        if settings.table:
            images = read(settings.table.task)
            found["table"] = images
            parts["variants"] = try_variants(settings.table, images, kept, display)
    record = Record(
        recipe="huang2018",
        paper=PAPER,
        scale=settings.scale,
        settings=plain(settings),
        seeds=list(range(max((growth.seeds for growth in settings.growths), default=0))),
        runs=parts["runs"] + parts["variants"],
        claims=judge(plain(settings), parts),
        figures=draw(plain(settings), parts),
        environment=used,
        seconds=kept.seconds,
        command=command,
        status=plain(Status.FINISHED),
        notes=notes_of(found, parts["runs"] + parts["variants"]),
    )
    record.save(kept.folder / "record.json")
    return record


def notes_of(found: dict[str, Any], runs: list[dict[str, Any]]) -> list[str]:
    """What a reader should know: the form of the data, and runs that did not finish."""
    notes = [images.note for images in found.values() if images.note]
    for one in runs:
        if one["status"] != plain(Status.FINISHED):
            notes.append(f"{one['growth']}, {one['way']}, seed {one['seed']}: {one['message']}")
    return list(dict.fromkeys(notes))
