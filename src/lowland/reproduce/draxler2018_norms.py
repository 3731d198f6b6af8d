"""What linearly interpolated batch-norm statistics add to a saddle."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lowland.connectivity import PathResult, find_path, measure_path
from lowland.reproduce.draxler2018_images import losses
from lowland.reproduce.draxler2018_settings import Network, Settings
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images
from lowland.results import plain

__all__ = ["measure_norms"]


def measure_norms(
    network: Network,
    settings: Settings,
    images: Images,
    ends: tuple[nn.Module, nn.Module],
    found: PathResult,
    out: Path,
    display: Any,
) -> dict[str, Any]:
    """Evaluate a path with statistics of both kinds, and one that was relaxed as published.

    Args:
        network: The architecture, with batch norm.
        settings: Of the recipe.
        images: The data.
        ends: The two minima.
        found: The path between them.
        out: Folder of the run.
        display: Progress display.

    Returns:
        For each relaxation, the profiles with recomputed and with interpolated statistics.
    """
    batches = images.training(0, settings.path_batch_size)
    measure = partial(
        measure_path,
        ends[0],
        losses,
        batches,
        samples=settings.schedule.samples,
        calibration=settings.schedule.calibration,
        evaluation_batches=images.reading,
        backend="loop" if settings.backend == "auto" else settings.backend,
    )
    paths = {"recalibrate": found}
    if network.as_published:
        paths["interpolate"] = find_path(
            ends[0],
            losses,
            batches,
            *ends,
            schedule=settings.schedule,
            batch_norm="interpolate",
            evaluation_batches=images.reading,
            backend=settings.backend,
            out=out / "as_published" / network.name,
            progress=display,
        )
        pass_ctrl_c_on(paths["interpolate"].status)
    relaxed = {
        name: {way: measure(one.path, batch_norm=way) for way in ("recalibrate", "interpolate")}
        for name, one in paths.items()
    }
    return plain({"model": network.name, "relaxed": relaxed})
