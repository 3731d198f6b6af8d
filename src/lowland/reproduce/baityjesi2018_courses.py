"""Train the networks of baityjesi2018 and record what the paper looks at."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lowland.dynamics.clock import log_times, plan
from lowland.dynamics.measure import measure_dynamics
from lowland.dynamics.two_time import TwoTime
from lowland.models import one_hot_losses
from lowland.reproduce.baityjesi2018_settings import Course
from lowland.reproduce.frame import pass_ctrl_c_on
from lowland.reproduce.images import Images
from lowland.reproduce.images import losses as cross_entropies
from lowland.results import plain, read_tensors, write_tensors

__all__ = ["LOSSES", "kept_weights", "network", "record_course"]

LOSSES = {"ce": cross_entropies, "mse": one_hot_losses}
MOST_NOISE_TIMES = 24  # waiting times at which the gradient noise is measured


def network(images: Images, seed: int) -> nn.Module:
    """Build a task's network with torch's own initialization, as the paper's code has it.

    Args:
        images: Of the task.
        seed: Of the weights.

    Returns:
        The network, on its device.
    """
    model = images.network(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in model.cpu().modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return model.to(images.device)


def record_course(
    course: Course, images: Images, seed: int, folder: Path, display: Any = False
) -> dict[str, Any]:
    """Train one seed; weights at ``course.kept`` remain in the folder.

    Args:
        course: What to do.
        images: Its data.
        seed: Of weights and order.
        folder: For kept weights, and the state of a training that is to go on.
        display: Progress display.

    Returns:
        Plain values: losses, noise, displacements by waiting time, clones.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    clock = plan(
        course.steps,
        waits=course.waits,
        lags=course.lags,
        first_wait=1,
        last_wait=course.last_wait,
    )
    few = clock.waits[:: -(-len(clock.waits) // MOST_NOISE_TIMES)]
    batches, model = images.training(seed), network(images, seed)
    found = measure_dynamics(
        model,
        LOSSES[course.loss],
        batches,
        steps=course.steps,
        optimizer=lambda params: SGD(params, course.learning_rate, course.momentum),
        loss_times=log_times(1, course.steps, course.losses),
        loss_batches=images.reading,
        noise_times={*few, clock.waits[-1], course.steps},
        noise_batches=min(course.noise_batches, len(batches) - 1),
        clone_times=course.cloned if seed == course.first_seed else (),
        clone_lags=log_times(1, course.cloned_last, course.cloned_lags),
        replicas=max(2, course.replicas),
        recorder={"clock": clock, "total": None},
        seed=seed,
        out=folder / "state" if course.keep_state else None,
        schedule=lambda _: Keeper(model, course.kept, folder),
        evaluate_every=10**9,
        progress=display,
    )
    pass_ctrl_c_on(found.status)
    names = ("step", "trace", "trace_se", "mean_square", "mean_square_se")
    values = {
        "course": course.name,
        "kind": course.kind,
        "seed": seed,
        "params": found.two_time.params,
        "status": found.status,
        "message": found.message,
        "seconds": found.seconds,
        "losses": [{name: row[name] for name in ("step", "loss", "error")} for row in found.losses],
        "noise": [{name: row[name] for name in names} for row in found.noise],
        "curves": curves_of(found.two_time),
        "clones": clones_of(found.clones),
    }
    return plain(values)


class Keeper:
    """A constant schedule of the learning rate that writes weights to disk on the way.

    Args:
        model: What is trained.
        kept: Updates after which its weights are kept.
        folder: Where to.
    """

    def __init__(self, model: nn.Module, kept: tuple[int, ...], folder: Path):
        self.model, self.kept, self.folder, self.done = model, kept, folder, 0
        self.write()

    def step(self) -> None:
        """Count an update."""
        self.done += 1
        self.write()

    def write(self) -> None:
        """Write the weights, if it is time to."""
        if self.done in self.kept:
            state = {name: value.cpu() for name, value in self.model.state_dict().items()}
            write_tensors(self.folder / f"weights-{self.done}.safetensors", state)

    def state_dict(self) -> dict[str, int]:
        """Give the number of updates.

        Returns:
            It, by name.
        """
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there.

        Args:
            state: From :meth:`state_dict`.
        """
        self.done = state["done"]


def curves_of(two_time: TwoTime) -> list[dict[str, Any]]:
    """Displacement and kurtosis by lag, for every waiting time."""
    found = []
    for wait in two_time.waits:
        chosen = (two_time.waiting_time == wait) & (two_time.lag > 0)
        found.append(
            {
                "wait": wait,
                "lag": two_time.lag[chosen],
                "displacement": two_time.displacement[chosen],
                "kurtosis": two_time.kurtosis[chosen],
            }
        )
    return found


def clones_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Displacements between clones, and since the fork, by waiting time."""
    found: dict[int, dict[str, Any]] = {}
    names = ("lag", "displacement", "displacement_se", "raw")
    for row in rows:
        empty: dict[str, Any] = {"wait": row["waiting_time"]} | {name: [] for name in names}
        one = found.setdefault(row["waiting_time"], empty)
        for name in names:
            one[name].append(row[name])
    return list(found.values())


def kept_weights(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Read the weights that a course has kept.

    Args:
        folder: Of the course and seed.

    Returns:
        State dict by number of updates.
    """
    found = {}
    for file in folder.glob("weights-*.safetensors"):
        found[int(file.stem.removeprefix("weights-"))] = read_tensors(file)[0]
    return dict(sorted(found.items()))
