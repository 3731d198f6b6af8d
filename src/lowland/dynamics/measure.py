"""Train a model under the two-time microscope: weights, losses, gradient noise and clones."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lowland.dynamics.clock import log_times
from lowland.dynamics.clones import measure_clones
from lowland.dynamics.measure_result import Dynamics
from lowland.dynamics.noise import NotFiniteError, gradient_noise
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.results import Status, plain
from lowland.training import (
    Progress,
    choose_device,
    evaluate,
    is_main_process,
    length_of,
    train,
)
from lowland.training.evaluate import LossFn

__all__ = ["measure_dynamics"]

LOSSES = 100  # of the published scripts
NUMBERS = ("age", "rate", "broken")


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
    where it was last saved. Where the noise or a clone is not finite, training goes on, and the
    status says so at the end.

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
    if status is Status.FINISHED and watch.broken:
        status, message = Status.NOT_FINITE, watch.broken
    found = Dynamics(
        status, message, two_time, watch.losses, watch.noise, watch.clones,
        type(made[0]).__name__, type(made[0]) is torch.optim.SGD, trained.steps,
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
        self.replicas, self.age, self.rate, self.broken = replicas, 0.0, 0.0, ""
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
        self.age += self.rate if step else 0.0  # a schedule has stepped since the update
        self.rate = float(rate or 0.0)
        if step in self.loss_times:
            found = evaluate(self.model, self.loss_fn, self.loss_batches)
            times = {"step": step, "learning_rate": rate, "age": self.age}
            self.losses.append(plain(times | {"loss": found.loss, "error": found.error}))
        if step in self.noise_times:
            self.noise += self.measure_noise(step)
        if step in self.clone_times:
            self.clones += self.measure_clones(step)

    def measure_noise(self, step: int) -> list[dict[str, Any]]:
        """Scatter of the gradients at this step, over batches that no other step measures."""
        try:
            found = gradient_noise(
                self.model, self.loss_fn, self.batches, n_batches=self.noise_batches,
                seed=self.seed + step, epoch=step,
            )  # fmt: skip
        except NotFiniteError:
            self.broken = self.broken or f"the gradient noise was not finite at update {step}."
            return []
        return [{"step": step} | plain(found)]

    def measure_clones(self, step: int) -> list[dict[str, Any]]:
        """Let replicas go on from here."""
        found = measure_clones(
            self.model, self.loss_fn, self.batches, optimizer=self.made[0], lags=self.clone_lags,
            replicas=self.replicas, seed=self.seed + step,
        )  # fmt: skip
        if found.diverged_at is not None:
            lag = found.diverged_at
            self.broken = self.broken or f"a clone of update {step} was not finite at lag {lag}."
        columns = (found.lag, found.displacement, found.displacement_se, found.raw)
        names = ("lag", "displacement", "displacement_se", "raw")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [plain({"waiting_time": step} | dict(zip(names, row, strict=True))) for row in rows]

    def settings(self) -> dict[str, Any]:
        """Describe what is measured, so that two runs can be told apart.

        Returns:
            Plain values.
        """
        return {
            "loss_times": sorted(self.loss_times),
            "loss_batches": length_of(self.loss_batches),
            "noise_times": sorted(self.noise_times),
            "noise_batches": self.noise_batches,
            "clone_times": sorted(self.clone_times),
            "clone_lags": self.clone_lags,
            "replicas": self.replicas,
            "recorder": self.recorder.settings(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Give what a later run needs to go on.

        Returns:
            Tensors and plain values.
        """
        rows = {"losses": self.losses, "noise": self.noise, "clones": self.clones}
        rows = {name: [dict(row) for row in found] for name, found in rows.items()}
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return rows | numbers | {"recorder": self.recorder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        self.losses, self.noise, self.clones = (state[n] for n in ("losses", "noise", "clones"))
        for name in NUMBERS:
            setattr(self, name, state[name])
        self.recorder.load_state_dict(state["recorder"])
