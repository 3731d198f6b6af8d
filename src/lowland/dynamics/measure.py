"""Train a model under the two-time microscope: weights, losses, gradient noise and clones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland.dynamics.clock import log_times
from lowland.dynamics.clones import measure_clones
from lowland.dynamics.noise import gradient_noise
from lowland.dynamics.phases import Phases, find_phases
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.two_time import TwoTime
from lowland.errors import OutcomeError
from lowland.results import Status, environment, plain, write_json
from lowland.training import (
    Progress,
    TrainResult,
    choose_device,
    evaluate,
    is_main_process,
    train,
)

__all__ = ["Dynamics", "measure_dynamics"]

LOSSES = 100  # of the published scripts
LossFn = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Dynamics:
    """What a training run looked like.

    Attributes:
        status: ``FINISHED``, ``INTERRUPTED`` or ``NOT_FINITE``.
        message: A sentence on how it ended.
        two_time: Displacements of the weights between pairs of instants.
        losses: Rows with ``step``, ``loss`` and ``error`` of the training data in eval mode, and
            ``learning_rate`` and ``age`` (sum of the learning rates of the updates so far).
        noise: Rows with ``step`` and the numbers of :class:`GradientNoise`.
        clones: Rows with ``waiting_time``, ``lag``, ``displacement`` between replicas, its
            standard error, and ``raw``.
        steps: Updates done.
        seconds: Wall time, over all calls that shared the folder.
        training: How training went, with the weights.
    """

    status: Status
    message: str
    two_time: TwoTime
    losses: list[dict[str, Any]]
    noise: list[dict[str, Any]]
    clones: list[dict[str, Any]]
    steps: int
    seconds: float
    training: TrainResult = field(repr=False)

    def phases(self, *, samples: int = 200, seed: int = 0) -> Phases:
        """Find the phases of the run.

        Args:
            samples: See :func:`find_phases`.
            seed: Of the bootstrap.

        Returns:
            Phases, with scores over the noise if that was measured.
        """
        return find_phases(
            curve_of(self.losses, "loss"), self.two_time,
            [curve_of(self.noise, "trace")] if len(self.noise) > 1 else [],
            samples=samples, seed=seed,
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Give everything but the weights as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {
            "status": self.status,
            "message": self.message,
            "steps": self.steps,
            "seconds": self.seconds,
            "losses": self.losses,
            "noise": self.noise,
            "clones": self.clones,
            "two_time": self.two_time.record(),
            "environment": environment(self.training.device),
        }
        return plain(numbers)

    def save(self, folder: str | Path) -> Path:
        """Write ``dynamics.json``, ``two_time.json`` and the files of the training run.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        self.training.save(folder)
        self.two_time.save(folder)
        write_json(Path(folder) / "dynamics.json", self.record())
        return Path(folder)

    def raise_for_status(self) -> None:
        """Raise if the run did not do all its steps.

        Raises:
            OutcomeError: If it was interrupted, or met a number that is not finite.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(self.message)


def curve_of(rows: list[dict[str, Any]], name: str) -> tuple[Tensor, Tensor]:
    """A column of some rows against the step."""
    known = [row for row in rows if row[name] is not None and isfinite(row[name])]
    steps = torch.tensor([row["step"] for row in known])
    return steps, torch.tensor([row[name] for row in known], dtype=torch.float64)


def measure_dynamics(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    *,
    steps: int,
    optimizer: Callable[..., Optimizer] | None = None,
    waits: Iterable[int] | None = None,
    lags: Iterable[int] | None = None,
    loss_times: Iterable[int] | None = None,
    loss_batches: Iterable[Any] | None = None,
    noise_times: Iterable[int] | None = None,
    noise_batches: int = 20,
    clone_times: Iterable[int] = (),
    clone_lags: Iterable[int] | None = None,
    replicas: int = 2,
    test_batches: Iterable[Any] | None = None,
    recorder: dict[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None | Progress = False,
    **training: Any,
) -> Dynamics:
    """Train a model in place, and record how it moves; the weights are those of training alone.

    Measuring draws nothing from the generators that training uses, and changes nothing: with and
    without it, training ends with the same bits. With ``out`` the same call after a kill goes on
    where it was last saved.

    Args:
        model: Any module.
        loss_fn: ``loss_fn(output, target)`` returns one loss per example, shape ``(batch,)``.
        batches: Re-iterable of ``(inputs, target)``.
        steps: Number of updates.
        optimizer: Makes the optimizer; plain SGD at 0.1, as the theory has it.
        waits: Waiting times, in completed updates; None plans 50 waits and 100 lags.
        lags: Lags; together with ``waits``.
        loss_times: When to measure the training loss; None takes 100 logarithmic times.
        loss_batches: On what; None takes ``batches``.
        noise_times: When to measure the gradient noise; None takes the waiting times.
        noise_batches: Batches for that; 0 measures none.
        clone_times: Waiting times at which replicas are forked.
        clone_lags: Lags at which these are compared; None takes ``lags``.
        replicas: Number of replicas.
        test_batches: Data for the test error at the end.
        recorder: Further arguments of :class:`TwoTimeRecorder`.
        device: Where to move the model to; None leaves it.
        seed: Seed of training and of what is measured.
        out: Folder for the state to resume from and the result.
        progress: See :func:`lowland.training.open_progress`.
        **training: Further arguments of :func:`lowland.training.train`.

    Returns:
        What was seen.

    Raises:
        ValueError: If an argument is not what it must be.

    Source:
        Baity-Jesi et al., ICML 2018; specification, section 3.
    """
    lags = None if lags is None else list(lags)
    if noise_batches < 0 or noise_batches == 1:
        raise ValueError(f"noise_batches must be 0 or at least 2; got {noise_batches}.")
    if steps < 1 or steps != int(steps):
        raise ValueError(f"steps must be a whole number, at least 1; got {steps}.")
    if device is not None:
        model.to(choose_device(device))
    grid: dict[str, Any] = {"total": steps, "seed": seed}
    if waits is not None:
        grid |= {"waits": waits, "lags": lags}
    seen = TwoTimeRecorder(model, **grid | (recorder or {}))
    made: list[Optimizer] = []

    def make(params: Any) -> Optimizer:
        made.append((optimizer or (lambda p: torch.optim.SGD(p, lr=0.1)))(params))
        return made[0]

    if clone_lags is None:
        clone_lags = log_times(1, max(1, steps // 2), 20) if lags is None else lags
    watch = Watch(
        model,
        loss_fn,
        batches,
        seen,
        made,
        loss_times=log_times(1, steps, LOSSES) if loss_times is None else loss_times,
        loss_batches=batches if loss_batches is None else loss_batches,
        noise_times=seen.clock.waits if noise_times is None else noise_times,
        noise_batches=noise_batches,
        clone_times=clone_times,
        clone_lags=clone_lags,
        replicas=replicas,
        seed=seed,
    )
    trained = train(
        model, loss_fn, batches, steps=steps, optimizer=make, observer=watch, seed=seed, out=out,
        progress=progress, test_batches=test_batches, **training,
    )  # fmt: skip
    two_time = seen.result()
    status, message = trained.status, trained.message
    if status is Status.FINISHED and two_time.diverged_at is not None:
        status = Status.NOT_FINITE
        message = f"a weight was not finite at update {two_time.diverged_at}."
    found = Dynamics(
        status, message, two_time, watch.losses, watch.noise, watch.clones, trained.steps,
        trained.seconds, trained,
    )  # fmt: skip
    if out is not None and status is not Status.INTERRUPTED and is_main_process():
        found.save(out)
    return found


class Watch:
    """Looks at a run after every update: what :func:`lowland.training.train` calls an observer."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        batches: Iterable[Any],
        recorder: TwoTimeRecorder,
        made: list[Optimizer],
        *,
        loss_times: Iterable[int],
        loss_batches: Iterable[Any],
        noise_times: Iterable[int],
        noise_batches: int,
        clone_times: Iterable[int],
        clone_lags: Iterable[int],
        replicas: int,
        seed: int,
    ):
        self.model, self.loss_fn, self.batches = model, loss_fn, batches
        self.recorder, self.made, self.seed = recorder, made, seed
        self.loss_times, self.loss_batches = frozenset(loss_times), loss_batches
        self.noise_times = frozenset(noise_times if noise_batches else ())
        self.noise_batches = noise_batches
        self.clone_times = frozenset(clone_times)
        self.clone_lags = [lag for lag in clone_lags if lag]
        self.replicas, self.age = replicas, 0.0
        self.losses: list[dict[str, Any]] = []
        self.noise: list[dict[str, Any]] = []
        self.clones: list[dict[str, Any]] = []

    def record(self, step: int) -> None:
        """Look at the model after an update, where one of the grids says so.

        Args:
            step: Number of completed updates.
        """
        self.recorder.record(step)
        rate = self.made[0].param_groups[0].get("lr")
        self.age += float(rate or 0.0) if step else 0.0
        if step in self.loss_times:
            found = evaluate(self.model, self.loss_fn, self.loss_batches)
            times = {"step": step, "learning_rate": rate, "age": self.age}
            self.losses.append(plain(times | {"loss": found.loss, "error": found.error}))
        if step in self.noise_times:
            self.noise.append({"step": step} | self.measure_noise(step))
        if step in self.clone_times:
            self.clones += self.measure_clones(step)

    def measure_noise(self, step: int) -> dict[str, Any]:
        """Scatter of the gradients at this step."""
        found = gradient_noise(
            self.model, self.loss_fn, self.batches, n_batches=self.noise_batches, seed=self.seed
        )
        return plain(found)

    def measure_clones(self, step: int) -> list[dict[str, Any]]:
        """Let replicas go on from here."""
        found = measure_clones(
            self.model, self.loss_fn, self.batches, optimizer=self.made[0], lags=self.clone_lags,
            replicas=self.replicas, seed=self.seed + step,
        )  # fmt: skip
        columns = (found.lag, found.displacement, found.displacement_se, found.raw)
        names = ("lag", "displacement", "displacement_se", "raw")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [plain({"waiting_time": step} | dict(zip(names, row, strict=True))) for row in rows]

    def state_dict(self) -> dict[str, Any]:
        """Give what a later run needs to go on.

        Returns:
            Tensors and plain values.
        """
        rows = {"losses": self.losses, "noise": self.noise, "clones": self.clones}
        rows = {name: [dict(row) for row in found] for name, found in rows.items()}
        return rows | {"age": self.age, "recorder": self.recorder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.losses, self.noise, self.clones = (state[n] for n in ("losses", "noise", "clones"))
        self.age = state["age"]
        self.recorder.load_state_dict(state["recorder"])
