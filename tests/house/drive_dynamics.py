"""How the house tries the room ``dynamics``; see ``drive_connectivity.py`` for the names."""

from lowland.dynamics import gradient_noise, measure_dynamics, spectral_density


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


DRIVERS = {measure_dynamics: train}
PIECES = {"gradient_noise": noise, "spectral_density": spectrum}
TRAINS = (measure_dynamics,)
BY_THE_CLOCK = ()
