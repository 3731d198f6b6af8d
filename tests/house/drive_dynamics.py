"""How the house tries the room ``dynamics``; see ``drive_connectivity.py`` for the names."""

from rooms import Together

from lowland.dynamics import (
    exact_spectrum,
    filtered_count,
    gradient_noise,
    measure_dynamics,
    negative_directions,
    spectral_density,
    structural_zeros,
)


def train(model, loss_fn, batches, *, test_batches=None, **options):
    settings = {"steps": 6, "waits": [0, 2], "lags": [1, 2], "noise_batches": 2}
    return measure_dynamics(
        model, loss_fn, batches, test_batches=test_batches, **settings | options
    )


def noise(model, loss_fn, batches, **options):
    return gradient_noise(model, loss_fn, batches, n_batches=2)


def spectrum(model, loss_fn, batches, **options):
    found = spectral_density(model, loss_fn, batches, steps=3, probes=2)
    return {"trace": float(found.trace)}


def count(model, loss_fn, batches, **options):
    settings = {"degree": 4, "max_degree": 4, "probes": 2}
    return {"value": filtered_count(model, loss_fn, batches, low=0.1, high=1.0, **settings).value}


def whole(model, loss_fn, batches, **options):
    return exact_spectrum(model, loss_fn, batches)


def saddle(model, loss_fn, batches, **options):
    settings = {"eps": 0.1, "steps": 3, "max_steps": 3, "probes": 2}
    return {"value": negative_directions(model, loss_fn, batches, **settings).value}


def zeros(model, loss_fn, batches, **options):
    return structural_zeros(model, loss_fn, batches)


DRIVERS = {measure_dynamics: train}
PIECES = {
    "gradient_noise": noise,
    "spectral_density": spectrum,
    "exact_spectrum": whole,
    "filtered_count": count,
    "negative_directions": saddle,
    "structural_zeros": zeros,
}
TRAINS = (measure_dynamics,)
BY_THE_CLOCK = ()
MEASURES = ()
SAVES_BY_THE_CLOCK = (measure_dynamics,)
TOGETHER = {"gradient_noise": Together(noise, "the same batches")}
