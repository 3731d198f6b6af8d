"""What looks at a run after every update: losses, gradient noise and clones, where it is time."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lowland.dynamics.clones import measure_clones
from lowland.dynamics.noise import NotFiniteError, gradient_noise
from lowland.dynamics.recorder import TwoTimeRecorder
from lowland.dynamics.sharpness import find_sharpness
from lowland.results import plain
from lowland.training import evaluate, length_of
from lowland.training.evaluate import LossFn

__all__ = ["Watch"]

NUMBERS = ("age", "rate", "broken")
TABLES = ("losses", "noise", "sharpness", "clones")


class Watch:
    """What :func:`lowland.training.train` calls an observer.

    Args:
        model: The model that is trained.
        loss_fn: One loss per example.
        batches: Of training.
        recorder: Called after every update.
        made: Holds the optimizer once it is made.
        loss_times: When to measure the training loss.
        loss_batches: On what.
        noise_times: When to measure the gradient noise.
        noise_batches: Batches for that; 0 measures none.
        sharpness_times: When to find the largest eigenvalue of the Hessian, on ``loss_batches``.
        clone_times: When replicas are forked.
        clone_lags: Lags at which these are compared.
        replicas: Number of replicas.
        seed: Seed of what is measured.

    Attributes:
        losses: Rows, see :class:`lowland.dynamics.Dynamics`.
        noise: Likewise.
        clones: Likewise.
        sharpness: Likewise.
        broken: A sentence on the first number that was not finite, else empty.
    """

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
        sharpness_times: Iterable[int],
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
        self.sharpness_times = frozenset(sharpness_times)
        self.clone_times = frozenset(clone_times)
        self.clone_lags = [lag for lag in clone_lags if lag]
        self.replicas, self.age, self.rate, self.broken = replicas, 0.0, 0.0, ""
        self.losses: list[dict[str, Any]] = []
        self.noise: list[dict[str, Any]] = []
        self.clones: list[dict[str, Any]] = []
        self.sharpness: list[dict[str, Any]] = []

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
        if step in self.sharpness_times:
            self.sharpness += self.measure_sharpness(step)
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

    def measure_sharpness(self, step: int) -> list[dict[str, Any]]:
        """Largest curvature at this step."""
        try:
            found = find_sharpness(self.model, self.loss_fn, self.loss_batches, seed=self.seed)
        except NotFiniteError:
            self.broken = self.broken or f"second derivatives were not finite at update {step}."
            return []
        return [{"step": step, "sharpness": found.value, "residual": found.residual}]

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
        sharpness = {"sharpness_times": sorted(self.sharpness_times)}
        return (sharpness if self.sharpness_times else {}) | {
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
        rows = {name: [dict(row) for row in getattr(self, name)] for name in TABLES}
        numbers = {name: getattr(self, name) for name in NUMBERS}
        return rows | numbers | {"recorder": self.recorder.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: What :meth:`state_dict` returned.
        """
        for name in (*TABLES, *NUMBERS):
            if name in state:  # a folder of an earlier version knows no sharpness
                setattr(self, name, state[name])
        self.recorder.load_state_dict(state["recorder"])
