"""Huang, Ash, Langford & Schapire 2018: residual networks grown block by block.

Grow networks with a certificate at every depth, beside training end to end, refinement and
AdaBoost.MM; count bytes and seconds of an update; grow blocks without gradient and on wrong labels;
try the variants that the field has found since; and judge the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from lowland.reproduce.frame import Measured, Recipe, unfinished
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
from lowland.reproduce.huang2018_story import tell
from lowland.reproduce.huang2018_variants import try_variants
from lowland.reproduce.images import Images
from lowland.reproduce.kept import Kept

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


def with_seeds(settings: Settings, seeds: int) -> Settings:
    """Give every growth the same number of seeds."""
    growths = tuple(replace(growth, seeds=seeds) for growth in settings.growths)
    return replace(settings, growths=growths)


def read(settings: Settings, **source: Any) -> dict[str, Images]:
    """The images of every growth, and of the other experiments by their names."""
    found = {growth.name: images_of(growth.task, **source) for growth in settings.growths}
    for images in found.values():
        images.network(0)
    if settings.checks or settings.collapse:
        found["checks"] = images_of(DIGITS, **source)
    for name, wanted in (("noise", settings.noise), ("table", settings.table)):
        if wanted:
            found[name] = images_of(wanted.task, **source)
    return found


def measure(settings: Settings, found: dict[str, Images], kept: Kept, display: Any) -> Measured:
    """Count and time, grow, then what the theory says of labels, depth and variants."""
    parts: dict[str, Any] = {"runs": [], "variants": [], "noise": []}
    parts |= {"memory": [], "timing": [], "fitted": [], "collapse": []}
    checks, noise = settings.checks, settings.noise
    if checks:
        parts["memory"] = kept("memory", partial(saved_by_stage, checks))
        parts["timing"] = kept("timing", partial(time_updates, checks, found["checks"]))
        parts["fitted"] = kept("fitted", partial(fitted_blocks, checks, found["checks"]))
    for growth in settings.growths:
        parts["runs"] += grow(growth, found[growth.name], kept, display)
    if noise:
        for seed in range(noise.seeds):
            mislabel = partial(measure_noise, noise, found["noise"], seed, display)
            parts["noise"] += kept(f"noise/{seed}", mislabel)
    if settings.collapse:
        collapse = partial(measure_collapse, settings.collapse, found["checks"], display)
        parts["collapse"] = kept("collapse", collapse)
    if settings.table:
        parts["variants"] = try_variants(settings.table, found["table"], kept, display)
    runs = parts["runs"] + parts["variants"]
    return Measured(parts, runs, unfinished(runs, "{growth}, {way}, seed {seed}".format_map))


run = Recipe("huang2018", PAPER, with_seeds, read, measure, judge, draw, tell).run
