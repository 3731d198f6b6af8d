"""Katharopoulos & Fleuret 2018, Not All Samples Are Created Equal: importance sampling.

Look at the scores along a training, race several ways to choose examples under equal steps, equal
modelled cost and equal wall clock, measure the noise floor where it can be predicted, and judge
the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from lowland.reproduce.frame import Measured, Recipe, unfinished
from lowland.reproduce.images import Images
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
from lowland.reproduce.katharopoulos2018_story import tell
from lowland.reproduce.katharopoulos2018_switch import measure_switch
from lowland.reproduce.katharopoulos2018_tasks import (
    backbone_images,
    check_arms,
    race_images,
)
from lowland.reproduce.katharopoulos2018_variance import measure_variance
from lowland.reproduce.kept import Kept

__all__ = ["FineTuning", "Noise", "Race", "Settings", "Task", "Variance", "run", "settings"]

PAPER = {
    "title": "Not All Samples Are Created Equal: Deep Learning with Importance Sampling",
    "authors": "Angelos Katharopoulos, François Fleuret",
    "year": 2018,
    "arxiv": "1803.00942",
}


def with_seeds(settings: Settings, seeds: int) -> Settings:
    """Give every race the same number of seeds."""
    return replace(settings, races=tuple(replace(race, seeds=seeds) for race in settings.races))


def read(settings: Settings, **source: Any) -> dict[str, Images]:
    """The images of every race, of its backbone, and of the look at the variance."""
    found = {}
    for race in settings.races:
        found[race.name] = race_images(race, **source)
        found[race.name].network(0)
        check_arms(race)
        seen = backbone_images(race, **source)
        found |= {} if seen is None else {f"{race.name}, backbone": seen}
    if settings.variance:
        found["variance"] = Images.of(settings.variance.task, **source)
    return found


def measure(settings: Settings, found: dict[str, Images], kept: Kept, display: Any) -> Measured:
    """Race, look at the switch, at the variance, and at the noise floor."""
    parts: dict[str, Any] = {"races": [], "variance": [], "noise": None}
    for race in settings.races:
        images, seen = found[race.name], found.get(f"{race.name}, backbone")
        parts["races"] += run_race(race, images, seen, kept, display)
    parts["switch"] = kept("switch", measure_switch)
    if settings.variance:
        for seed in range(settings.variance.seeds):
            look = partial(measure_variance, settings.variance, found["variance"], seed, display)
            parts["variance"] += kept(f"variance/{seed}", look)
    if settings.noise:
        parts["noise"] = kept("noise", partial(measure_noise, settings.noise, display))
    words = "{race}: {arm} at rate {rate:g}, seed {seed}".format_map
    return Measured(parts, parts["races"], unfinished(parts["races"], words))


run = Recipe("katharopoulos2018", PAPER, with_seeds, read, measure, judge, draw, tell).run
