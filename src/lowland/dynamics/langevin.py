r"""Langevin dynamics of a spherical glass at finite size."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite, log10, sqrt
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lowland.dynamics.p_spin import PSpin, on_sphere
from lowland.errors import OutcomeError
from lowland.results import Status, environment, plain, read_json, write_json
from lowland.training import Progress, generator, open_progress

__all__ = ["LangevinRun", "simulate_p_spin"]

STABLE = 0.5  # largest time step, in units of the relaxation time
MEASUREMENTS = 60


@dataclass(frozen=True)
class LangevinRun:
    """Observables of a simulation; NaN in a table where the time comes before the waiting time.

    Attributes:
        status: ``FINISHED``, or ``NOT_FINITE``: then only what was measured before.
        temperature: T.
        time_step: Of the integration.
        times: When it was looked at.
        energy: Energy per spin, by time and replica.
        waiting_times: Since when correlations are measured.
        correlation: s(waiting time) . s(time) / N, by waiting time, time and replica.
        response: Mean magnetization along a random field that is on since the waiting time, per
            unit of the field; likewise. None without a field.
        seconds: Wall time.
        message: A sentence on how it ended.
    """

    status: Status
    temperature: float
    time_step: float
    times: Float[Tensor, " time"] = field(repr=False)
    energy: Float[Tensor, "time replicas"] = field(repr=False)
    waiting_times: Float[Tensor, " wait"]
    correlation: Float[Tensor, "wait time replicas"] = field(repr=False)
    response: Float[Tensor, "wait time replicas"] | None = field(repr=False)
    seconds: float = field(repr=False)
    message: str

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain(numbers | {"environment": environment()})

    def save(self, folder: str | Path) -> Path:
        """Write ``langevin.json``.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        folder = Path(folder)
        write_json(folder / "langevin.json", self.record())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "LangevinRun":
        """Read what :meth:`save` wrote.

        Args:
            folder: Where from.

        Returns:
            The same, tables in float64 on the CPU.
        """
        values = read_json(Path(folder) / "langevin.json")
        values = {name: values[name] for name in cls.__dataclass_fields__}
        waits, looks = len(values["waiting_times"]), len(values["times"])
        for name in ("times", "energy", "waiting_times", "correlation", "response"):
            if values[name] is not None:
                values[name] = torch.from_numpy(np.array(values[name], dtype=np.float64))
        if not waits:  # a list without rows has lost its other axes
            values["correlation"] = torch.zeros(0, looks, values["energy"].shape[1]).double()
        values["status"] = Status[values["status"].upper()]
        return cls(**values)

    def raise_for_status(self) -> None:
        """Raise if the run did not reach its end.

        Raises:
            OutcomeError: If a number was no longer finite.
        """
        if self.status is not Status.FINISHED:
            raise OutcomeError(self.message)


def simulate_p_spin(
    model: PSpin,
    temperature: float = 0.0,
    *,
    until: float,
    time_step: float = 0.02,
    times: Iterable[float] | None = None,
    waiting_times: Iterable[float] = (),
    response_field: float | None = None,
    recorder: Any = None,
    seed: int = 0,
    progress: bool | None | Progress = False,
) -> LangevinRun:
    r"""Move a model's spins, in place, by :math:`ds = (-\nabla H - \mu s) dt + \sqrt{2T} dW`.

    Euler-Maruyama with a rescaling to the sphere after every step; Heun's rule at zero
    temperature. The response is measured on copies that share couplings and noise and feel a field
    of random signs from the waiting time on.

    Args:
        model: Starts where its spins are; a fresh one is a quench from infinite temperature.
        temperature: T, at least 0.
        until: How long to go on, in model time; rounded to whole steps.
        time_step: Of the integration; the error is linear in it, quadratic at T = 0.
        times: When to look; None for 60 times, evenly spread in their logarithm. Zero and the
            waiting times are always among them.
        waiting_times: Since when correlations, and the response, are measured.
        response_field: Strength of the field, for instance 0.05; None to measure no response.
        recorder: Anything with ``record(step)``, such as a two-time recorder of the model; called
            with 0 before the first step and after every step.
        seed: Of noise and field.
        progress: See :func:`lowland.training.open_progress`.

    Returns:
        Energies, correlations and responses of all replicas.

    Raises:
        ValueError: If an argument is not what it must be.

    Source:
        Specification, section 3.6.

    Example:
        >>> run = simulate_p_spin(PSpin(32, 3, seed=0, replicas=2), until=1.0, waiting_times=[0.5])
        >>> tuple(run.correlation.shape[1:]) == tuple(run.energy.shape)
        True
    """
    check(model, temperature, until, time_step, response_field)
    steps = round(until / time_step)
    waits = whole_steps(waiting_times, time_step, steps, "waiting_times")
    if times is None:
        grid = torch.logspace(0, log10(max(steps, 1)), MEASUREMENTS)
        looks = grid.round().long().clamp(max=steps)
    else:
        looks = whole_steps(times, time_step, steps, "times")
    looks = torch.unique(torch.cat([torch.zeros(1, dtype=torch.long), looks, waits]))
    began = monotonic()
    measured = Measured(model, waits, looks, response_field, seed)
    state = model.spins.detach().clone().unsqueeze(0)  # the model's, then copies in a field
    noise = generator(seed, "langevin", device=model.spins.device)
    message = ""
    with open_progress(progress) as display, display.task("langevin", steps) as task:
        for step in range(steps + 1):
            if step > 0:
                kicks = None
                if temperature > 0:
                    kicks = torch.empty_like(state[0]).normal_(generator=noise)
                    kicks *= sqrt(2 * temperature * time_step)
                state = advanced(model, state, measured.fields, time_step, kicks)
                model.spins.data.copy_(state[0])
                task.advance()
            if recorder is not None:
                recorder.record(step)
            state = measured.look(step, state)
            if measured.broken is not None:
                message = f"The energy is no longer finite at t = {step * time_step:g}."
                break
    return LangevinRun(
        status=Status.NOT_FINITE if message else Status.FINISHED,
        temperature=temperature,
        time_step=time_step,
        waiting_times=waits.double() * time_step,
        seconds=monotonic() - began,
        message=message or f"Did {steps} steps.",
        **measured.tables(time_step),
    )


def check(
    model: PSpin, temperature: float, until: float, time_step: float, strength: float | None
) -> None:
    """Refuse what cannot be simulated."""
    if not (isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be finite and at least 0; got {temperature}.")
    fastest = temperature + model.mixture.radius
    if not 0 < time_step <= STABLE / fastest:
        raise ValueError(
            f"time_step must lie above 0 and be at most {STABLE / fastest:.3g} here; got "
            f"{time_step}. 0.02 suits most cases."
        )
    if not (isfinite(until) and until >= time_step):
        raise ValueError(f"until must be finite and at least one time_step; got {until}.")
    if not model.energy().isfinite().all():
        raise ValueError("the model's energy must be finite before the first step; it is not.")
    if strength is not None and not (isfinite(strength) and strength > 0):
        raise ValueError(f"response_field must be finite and above 0; got {strength}.")


def whole_steps(
    times: Iterable[float], time_step: float, steps: int, name: str
) -> Int[Tensor, " time"]:
    """Round times to steps; refuse those outside of the run."""
    wanted = torch.tensor([float(t) for t in times], dtype=torch.float64)
    found = torch.unique((wanted / time_step).round().long())
    if len(found) and not (found[0] >= 0 and found[-1] <= steps):
        raise ValueError(
            f"{name} must lie between 0 and {steps * time_step:g}; got {wanted.tolist()}."
        )
    return found


def advanced(
    model: PSpin,
    state: Float[Tensor, "copies replicas spins"],
    fields: Float[Tensor, "all_copies 1 spins"] | None,
    time_step: float,
    kicks: Float[Tensor, "replicas spins"] | None,
) -> Float[Tensor, "copies replicas spins"]:
    """Do one step."""

    def drift(spins: Tensor) -> Tensor:
        force = model.force(spins.flatten(0, 1)).view_as(spins)
        if fields is not None:
            force = force + fields[: len(spins)]
        return force - spins * (spins * force).sum(-1, keepdim=True) / spins.shape[-1]

    first = drift(state)
    if kicks is not None:
        return on_sphere(state + time_step * first + kicks)
    second = drift(on_sphere(state + time_step * first))
    return on_sphere(state + time_step / 2 * (first + second))


class Measured:
    """What is seen at the chosen steps.

    Attributes:
        fields: Field of the model itself (zero) and of each copy; None without response.
        broken: Step at which an energy was not finite, else None.
    """

    def __init__(
        self,
        model: PSpin,
        waits: Int[Tensor, " wait"],
        looks: Int[Tensor, " time"],
        strength: float | None,
        seed: int,
    ) -> None:
        self.model, self.waits, self.looks = model, waits.tolist(), looks.tolist()
        self.strength, self.fields = strength, None
        self.pending = set(self.looks)
        self.snapshots: list[Tensor] = []
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self.broken: int | None = None
        if strength is not None:
            draws = torch.randn(model.size, generator=generator(seed, "field"))
            self.signs = draws.sign().to(model.spins)
            self.fields = (strength * self.signs).repeat(1 + len(self.waits), 1, 1)
            self.fields[0] = 0

    def look(
        self, step: int, state: Float[Tensor, "copies replicas spins"]
    ) -> Float[Tensor, "more_copies replicas spins"]:
        """Measure, if this is a step to do so; open a waiting time, if this is one."""
        if step not in self.pending:
            return state
        spins = state[0]
        energy = self.model.energy(spins)
        if not energy.isfinite().all():
            self.broken = step
            return state
        if step in self.waits:
            self.snapshots.append(spins.clone())
            if self.fields is not None:
                state = torch.cat([state, state[:1]])
        missing = energy.new_full((len(self.waits), len(energy)), torch.nan)
        correlation, response = missing.clone(), missing.clone()
        for index, old in enumerate(self.snapshots):
            correlation[index] = (old * spins).mean(-1)
            if self.strength is not None:
                gained = (self.signs * (state[1 + index] - spins)).mean(-1)
                response[index] = gained / self.strength
        self.rows.append((energy, correlation, response))
        return state

    def tables(self, time_step: float) -> dict[str, Any]:
        """Put the rows together."""
        seen = torch.tensor(self.looks[: len(self.rows)], dtype=torch.float64)
        energy, correlation, response = (
            torch.stack(column).cpu() for column in zip(*self.rows, strict=True)
        )
        return {
            "times": seen * time_step,
            "energy": energy,
            "correlation": correlation.transpose(0, 1),
            "response": response.transpose(0, 1) if self.strength is not None else None,
        }
