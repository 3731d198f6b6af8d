"""Draxler et al. 2018, Essentially No Barriers in Neural Network Energy Landscape.

Train networks from different seeds, look at the straight line between every two of them, find
paths by AutoNEB until all are joined, and judge the paper's claims on what came out.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lowland.connectivity import PathResult, compare_paths, measure_plane
from lowland.reproduce.draxler2018_claims import judge
from lowland.reproduce.draxler2018_curvature import measure_curvature
from lowland.reproduce.draxler2018_figures import draw
from lowland.reproduce.draxler2018_images import images_of, losses
from lowland.reproduce.draxler2018_landscape import (
    describe_landscape,
    describe_pairs,
    explore,
    find_minima,
)
from lowland.reproduce.draxler2018_norms import measure_norms
from lowland.reproduce.draxler2018_settings import Network, Settings, Training, settings
from lowland.reproduce.draxler2018_story import tell
from lowland.reproduce.draxler2018_xor import measure_xor
from lowland.reproduce.frame import Measured, Recipe
from lowland.reproduce.images import Images
from lowland.reproduce.kept import Kept
from lowland.results import Status, plain
from lowland.training import norm_layers

__all__ = ["Network", "Settings", "Training", "run", "settings"]

PAPER = {
    "title": "Essentially No Barriers in Neural Network Energy Landscape",
    "authors": "Felix Draxler, Kambis Veschgini, Manfred Salmhofer, Fred A. Hamprecht",
    "year": 2018,
    "arxiv": "1803.00885",
}


def with_minima(settings: Settings, seeds: int) -> Settings:
    """Give every architecture the same number of minima, and pairs enough to join them all."""
    networks = tuple(
        replace(
            network,
            minima=seeds,
            pairs=None if network.pairs is None else max(network.pairs, seeds - 1),
        )
        for network in settings.networks
    )
    return replace(settings, networks=networks)


def read(settings: Settings, **source: Any) -> dict[str, Images]:
    """The images, which every architecture must be able to take."""
    for network in settings.networks:
        if network.minima < 2:
            raise ValueError(f"a path needs at least 2 minima (--seeds); got {network.minima}.")
    images = images_of(settings, **source)
    for network in settings.networks:
        images.network(0, network.name)
    return {settings.data: images}


def measure(settings: Settings, found: dict[str, Images], kept: Kept, display: Any) -> Measured:
    """Train the minima of every architecture, and join them."""
    parts: dict[str, list[Any]] = {"runs": [], "landscapes": [], "norms": [], "curvature": []}
    parts |= {"comparisons": [], "planes": [], "bends": [], "xor": []}
    for network in settings.networks:
        joined = join(network, settings, found[settings.data], kept, display)
        for name, values in joined.items():
            parts[name] += values
    if settings.xor:
        parts["xor"] = kept("xor", partial(measure_xor, settings.xor, display))
    done = all(pair["status"] == plain(Status.FINISHED) for pair in parts["runs"])
    status = Status.FINISHED if done else Status.NOT_FINITE
    return Measured(plain(parts), plain(parts["runs"]), status=status)


def join(
    network: Network, settings: Settings, images: Images, kept: Kept, display: Any
) -> dict[str, list[Any]]:
    """Do everything for one architecture; pictures are of the first judged one's first pair."""
    name, out = network.name, kept.folder
    settings = network.within(settings)
    minima = find_minima(network, settings, images, out, display)
    kept.seconds += sum(trained.seconds for _, trained in minima.values())
    landscape = explore(network, settings, images, minima, out, display)
    runs = describe_pairs(network, settings, images, minima, landscape, out, display)
    kept.seconds += sum(pair["line"]["seconds"] + pair["path"]["seconds"] for pair in runs)
    models = [model for model, _ in minima.values()]
    a, b = landscape.edges[0].a, landscape.edges[0].b
    ends, path = (models[a], models[b]), landscape.path(a, b)
    parts: dict[str, list[Any]] = {
        "runs": runs,
        "landscapes": [describe_landscape(network, landscape)],
    }
    if norm_layers(models[0]):
        norms = partial(measure_norms, network, settings, images, ends, path, out, display)
        parts["norms"] = [kept(f"norms/{name}", norms)]
    if network.curvature:
        whole = [torch.cat(part) for part in zip(*images.reading, strict=True)]
        bent = partial(measure_curvature, models[0], losses, *whole, path)
        parts["curvature"] = [{"model": name, "ends": kept(f"curvature/{name}", bent)}]
    if network.compared:
        compare = partial(compared, settings, images, ends, out / "comparisons" / name, display)
        parts["comparisons"] = [{"model": name, "rows": kept(f"comparisons/{name}", compare)}]
    if network is next(one for one in settings.networks if one.judged):
        parts["bends"] = [coordinates_of(path)]
        if settings.plane:
            parts["planes"] = [kept("plane", partial(plane_of, settings, images, ends[0], path))]
    return parts


def compared(
    settings: Settings, images: Images, ends: tuple[Any, Any], out: Path, display: Any
) -> list[dict[str, Any]]:
    """Straight line, curves, AutoNEB and the line after alignment, for one pair."""
    found = compare_paths(
        ends[0],
        losses,
        images.training(0, settings.path_batch_size),
        *ends,
        schedule=settings.schedule,
        steps=settings.curve_steps,
        test_batches=images.testing,
        evaluation_batches=images.reading,
        backend=settings.backend,
        out=out,
        progress=display,
    )
    return plain(found.rows)


def plane_of(settings: Settings, images: Images, model: Any, path: PathResult) -> Any:
    """The loss in the plane through the ends and the mean of a path."""
    return measure_plane(
        model,
        losses,
        images.training(0, settings.path_batch_size),
        path.path,
        resolution=settings.plane,
        examples=settings.schedule.examples,
        calibration=settings.schedule.calibration,
        backend=settings.backend,
    )


def coordinates_of(path: PathResult, number: int = 8) -> dict[str, Any]:
    """How the coordinates that bend most run along a path, relative to the straight line."""
    pivots = path.path.pivots.double().cpu()
    steps = (pivots[1:] - pivots[:-1]).norm(dim=1).cumsum(0)
    t = torch.cat([steps.new_zeros(1), steps / steps[-1]])
    bend = pivots - torch.lerp(pivots[0], pivots[-1], t.unsqueeze(1))
    most = bend.abs().amax(0).topk(min(number, bend.shape[1])).indices
    return plain({"t": t, "bend": bend[:, most].T})


run = Recipe("draxler2018", PAPER, with_minima, read, measure, judge, draw, tell).run
