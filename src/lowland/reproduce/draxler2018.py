"""Draxler et al. 2018, Essentially No Barriers in Neural Network Energy Landscape.

Train networks from different seeds, look at the straight line between every two of them, find a
path by AutoNEB, and judge the paper's claims on what came out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from lowland.connectivity import PathResult, find_path, linear_path, measure_plane
from lowland.data import Batches, Dataset, channel_statistics, load
from lowland.models import build
from lowland.reproduce.draxler2018_claims import judge
from lowland.reproduce.draxler2018_figures import draw
from lowland.reproduce.draxler2018_settings import Settings, Training, settings
from lowland.reproduce.draxler2018_xor import measure_xor
from lowland.results import Record, Status, environment, open_folder, plain, read_json, write_json
from lowland.training import TrainResult, choose_device, open_progress, train

__all__ = ["Settings", "Training", "run", "settings"]

PAPER = {
    "title": "Essentially No Barriers in Neural Network Energy Landscape",
    "authors": "Felix Draxler, Kambis Veschgini, Manfred Salmhofer, Fred A. Hamprecht",
    "year": 2018,
    "arxiv": "1803.00885",
}

# Images per batch where nothing is learned from them.
READ_AT_ONCE = 500


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
    """Train the minima, join every two of them, and judge the claims.

    Whatever is finished lies in ``out`` and is not done again.

    Args:
        settings: From :func:`settings`, changed at will.
        seeds: Number of minima per architecture, instead of ``settings.minima``.
        out: Folder for networks, paths and the record.
        progress: As for :func:`lowland.training.open_progress`.
        data: Folder to look for data sets in, first.
        download: Whether a data set may be downloaded.
        restart: Forget what lies in ``out``.
        command: What to print for whoever wants to repeat the run.

    Returns:
        The record, also written to ``record.json``.

    Raises:
        ValueError: If a path needs at least two minima and fewer were asked for.
        KeyboardInterrupt: After Ctrl-C, with everything finished saved.
    """
    settings = settings if seeds is None else replace(settings, minima=seeds)
    if settings.minima < 2:
        raise ValueError(f"a path needs at least 2 minima (--seeds); got {settings.minima}.")
    found = load(settings.data, data=data, download=download)
    images = Images.of(settings, found)
    for name in settings.models:  # a wrong one is told before anything is written
        build(name, classes=len(found.classes), in_shape=found.in_shape)
    out = open_folder(out, plain(settings), restart)
    runs, curves, planes, bends, seconds = [], {}, [], [], 0.0
    with open_progress(progress) as display:
        for name in settings.models:
            minima = []
            for seed in range(settings.minima):
                model, trained = find_minimum(name, settings, images, seed, out, display)
                minima.append(model)
                curves[name, seed] = trained.curve
                seconds += trained.seconds
            for a, b in combinations(range(settings.minima), 2):
                pair, path = join(name, settings, images, minima, a, b, out, display)
                pair["curves"] = [curves[name, a], curves[name, b]]
                runs.append(pair)
                seconds += pair["line"]["seconds"] + pair["path"]["seconds"]
                if len(runs) == 1:
                    bends.append(coordinates_of(path))
                if len(runs) == 1 and settings.plane:
                    planes.append(plane_of(settings, images, minima[0], path, out))
        xor = None
        if settings.xor:
            xor = kept(out / "xor.json", partial(measure_xor, settings.xor, display))
    done = all(pair["status"] == plain(Status.FINISHED) for pair in runs)
    record = Record(
        recipe="draxler2018",
        paper=PAPER,
        scale=settings.scale,
        settings=plain(settings),
        seeds=list(range(settings.minima)),
        runs=plain(runs),
        claims=judge(plain(settings), plain(runs), plain(xor)),
        figures=draw(plain(settings), plain(runs), plain(xor), plain(planes), plain(bends)),
        environment=environment(str(images.device)),
        seconds=seconds,
        command=command,
        status=plain(Status.FINISHED if done else Status.NOT_FINITE),
        notes=[found.note] if found.note else [],
    )
    record.save(out / "record.json")
    return record


def losses(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each example, in nats."""
    return cross_entropy(output, target, reduction="none")


@dataclass(frozen=True)
class Images:
    """A data set on its device, in all the ways the recipe reads it.

    Attributes:
        found: The data set.
        device: Where it lies.
        ordered: Training batches in the order of the data set.
        reading: Training images that reported losses are measured on.
        tests: Test images.
        augment: What is done to training images.
    """

    found: Dataset
    device: torch.device
    ordered: Batches
    reading: Batches
    tests: Batches
    augment: str | None

    @classmethod
    def of(cls, settings: Settings, found: Dataset) -> "Images":
        """Put a data set on its device, normalized by channel unless it is the digits."""
        device = choose_device(settings.device)
        mean, std = channel_statistics(found.images)
        if settings.data == "digits":  # gray levels between 0 and 1, as everywhere else
            mean, std = None, None
        ordered, tests = (
            Batches(*pair, READ_AT_ONCE, mean=mean, std=std, shuffle=False, device=device)
            for pair in (
                (found.images, found.labels),
                (found.test_images, found.test_labels),
            )
        )
        some = settings.reported_examples
        reading = ordered.subset(some) if some else ordered
        return cls(found, device, ordered, reading, tests, settings.training.augment)

    def training(self, batch_size: int, seed: int) -> Batches:
        """Training batches in an order of their own."""
        ordered = self.ordered
        return Batches(
            ordered.images,
            ordered.labels,
            batch_size,
            mean=ordered.mean,
            std=ordered.std,
            augment=self.augment,
            seed=seed,
        )


def find_minimum(
    name: str, settings: Settings, images: Images, seed: int, out: Path, display: Any
) -> tuple[nn.Module, TrainResult]:
    """Train one network; give it and how it was trained."""
    training = settings.training
    batches, found = images.training(training.batch_size, seed), images.found
    model = build(
        name, classes=len(found.classes), in_shape=found.in_shape, seed=seed, init=training.init
    ).to(images.device)
    steps = training.epochs * len(batches)
    milestones = [round(fraction * steps) for fraction in training.decay_at]
    result = train(
        model,
        losses,
        batches,
        epochs=training.epochs,
        optimizer=lambda params: SGD(params, training.learning_rate, training.momentum),
        schedule=lambda optimizer: MultiStepLR(optimizer, milestones),
        seed=seed,
        out=out / "minima" / f"{name}-{seed}",
        evaluation_batches=images.reading,
        test_batches=images.tests,
        evaluate_every=max(1, training.epochs // 20),
        progress=display,
    )
    stop_if_interrupted(result.status)
    result.raise_for_status()
    return model, result


def join(
    name: str,
    settings: Settings,
    images: Images,
    minima: list[nn.Module],
    a: int,
    b: int,
    out: Path,
    display: Any,
) -> tuple[dict[str, Any], PathResult]:
    """Find the line and the path between two minima; give the numbers and the path."""
    batches = images.training(settings.path_batch_size, seed=a * settings.minima + b)
    folder = out / "pairs" / f"{name}-{a}-{b}"
    line = linear_path(
        minima[a],
        losses,
        batches,
        minima[a],
        minima[b],
        samples=settings.line_samples,
        test_batches=images.tests,
        evaluation_batches=images.reading,
        calibration=settings.schedule.calibration,
        backend=settings.backend,
        out=folder / "line",
        progress=display,
    )
    path = find_path(
        minima[a],
        losses,
        batches,
        minima[a],
        minima[b],
        schedule=settings.schedule,
        test_batches=images.tests,
        evaluation_batches=images.reading,
        backend=settings.backend,
        out=folder,
        progress=display,
    )
    stop_if_interrupted(path.status)
    pair = {
        "model": name,
        "seeds": [a, b],
        "status": path.status,
        "message": path.message,
        "params": path.path.layout.size,
        "line": line.record(),
        "path": path.record(),
    }
    return plain(pair), path


def stop_if_interrupted(status: Status) -> None:
    """Pass a Ctrl-C that a driver has survived on to whoever runs the recipe."""
    if status is Status.INTERRUPTED:
        raise KeyboardInterrupt


def plane_of(
    settings: Settings, images: Images, model: nn.Module, path: PathResult, out: Path
) -> dict[str, Any]:
    """The loss in the plane through the ends and the mean of a path."""
    return kept(
        out / "plane.json",
        lambda: measure_plane(
            model,
            losses,
            images.training(settings.path_batch_size, seed=0),
            path.path,
            resolution=settings.plane,
            examples=settings.schedule.examples,
            calibration=settings.schedule.calibration,
            backend=settings.backend,
        ),
    )


def coordinates_of(path: PathResult, number: int = 8) -> dict[str, Any]:
    """How the coordinates that bend most run along a path, relative to the straight line."""
    pivots = path.path.pivots.double().cpu()
    steps = (pivots[1:] - pivots[:-1]).norm(dim=1).cumsum(0)
    t = torch.cat([steps.new_zeros(1), steps / steps[-1]])
    bend = pivots - torch.lerp(pivots[0], pivots[-1], t.unsqueeze(1))
    most = bend.abs().amax(0).topk(min(number, bend.shape[1])).indices
    return plain({"t": t, "bend": bend[:, most].T})


def kept(file: Path, compute: Callable[[], Any]) -> Any:
    """Read plain values from a file, or compute and write them."""
    if not file.exists():
        write_json(file, compute())
    return read_json(file)
