"""Count flat directions of the loss along a training, by three thresholds (claim C10)."""

from math import inf
from pathlib import Path
from typing import Any

from lowland.dynamics.products import hessian_product
from lowland.dynamics.spectral_density import SpectralDensity, exact_spectrum, spectral_density
from lowland.reproduce.baityjesi2018_courses import LOSSES, kept_weights, network
from lowland.reproduce.baityjesi2018_settings import Course, Flat
from lowland.reproduce.images import Images
from lowland.results import plain

__all__ = ["count_flat", "thresholds"]


def thresholds(flat: Flat, course: Course, step: int, largest: float) -> dict[str, float | None]:
    """The three thresholds at an instant.

    Args:
        flat: Settings.
        course: Of the run.
        step: Completed updates.
        largest: Largest eigenvalue.

    Returns:
        Thresholds by name; that of the age is None at the beginning.
    """
    age = course.learning_rate * step / (1 - course.momentum)
    return {
        "age": 1 / age if step else None,
        "fixed": flat.fixed,
        "relative": flat.relative * largest,
    }


def count_flat(
    flat: Flat, course: Course, images: Images, seed: int, folder: Path
) -> list[dict[str, Any]]:
    """Count at all kept weights.

    Args:
        flat: What to do.
        course: The course.
        images: Its data.
        seed: Which run of the course.
        folder: Where the run has kept its weights.

    Returns:
        One dict per instant: largest eigenvalue, and for each threshold the number of flat and of
        negative directions, with a verdict on it.
    """
    model = network(images, seed).double()
    loss_fn = LOSSES[course.loss]
    reading = images.reading if flat.examples is None else images.reading.subset(flat.examples)
    batches = [(inputs.double(), target) for inputs, target in reading]
    found = []
    for step, state in kept_weights(folder).items():
        model.load_state_dict(state)
        operator = hessian_product(model, loss_fn, batches)
        if flat.exact:
            spectrum = exact_spectrum(operator)
        else:
            spectrum = spectral_density(operator, steps=flat.steps, probes=flat.probes, seed=seed)
        reach = thresholds(flat, course, step, spectrum.largest)
        found.append(
            {
                "course": course.name,
                "seed": seed,
                "step": step,
                "params": operator.size,
                "largest": spectrum.largest,
                "counts": {name: counted(spectrum, eps) for name, eps in reach.items()},
            }
        )
    return plain(found)


def counted(spectrum: SpectralDensity, eps: float | None) -> dict[str, Any] | None:
    """Flat and negative directions at a threshold."""
    if eps is None or not eps > 0:
        return None
    flat = spectrum.count(-eps, eps)
    return {
        "eps": eps,
        "flat": flat.value,
        "negative": spectrum.count(-inf, -eps).value,
        "error": flat.standard_error,
        "reliable": flat.reliable,
        "reason": flat.reason,
    }
