r"""The dynamics of an infinitely large spherical glass, by the Cugliandolo-Kurchan equations.

For :math:`t > t'`, with :math:`C(t, t) = 1` and :math:`R(t'^+, t') = 1`:

.. math::
    \partial_t C(t, t') &= -\mu(t) C(t, t') + \int_0^{t'} f'(C(t, s)) R(t', s) ds
        + \int_0^t f''(C(t, s)) R(t, s) C(s, t') ds \\
    \partial_t R(t, t') &= -\mu(t) R(t, t') + \int_{t'}^t f''(C(t, s)) R(t, s) R(s, t') ds \\
    \mu(t) &= T - E(t) + \int_0^t f''(C) R C (t, s) ds, \qquad
    E(t) = -\int_0^t f'(C(t, s)) R(t, s) ds
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf, isfinite, nan
from time import monotonic

import numpy as np
from jaxtyping import Float

from lowland.dynamics.mean_field_result import MeanField, Row
from lowland.dynamics.memory import Memory
from lowland.dynamics.mixture import Mixture, as_mixture
from lowland.results import Status
from lowland.training import Progress, open_progress
from lowland.training.progress import Task

__all__ = ["solve_mean_field"]

GRIDS = ("geometric", "uniform")
STABLE = 0.5  # largest step times mu
ACCURATE = 0.35  # step times the fastest relaxation rate, for errors of a few 1e-4
STEPS_BETWEEN_FORGETTING = 16
MOST_BYTES = 2**33


def solve_mean_field(
    order: int | Mapping[int, float] | Mixture = 3,
    temperature: float = 0.0,
    *,
    until: float = 50.0,
    step: float | None = None,
    grid: str = "geometric",
    spacing: float = 0.05,
    progress: bool | None | Progress = False,
) -> MeanField:
    r"""Follow energy, correlation and response of a quench from infinite temperature.

    Fourth order in the step: Adams-Bashforth-Moulton in time, Gregory's weights in the memory
    integrals, and second derivatives where a column begins. The problem is solved twice, with the
    step and with twice the step and spacing; their difference over 15 estimates the error.

    Args:
        order: Spins per coupling, or amplitudes by order, such as ``{3: 1.0, 4: 0.7}``.
        temperature: T, in units of the couplings; 0 is gradient descent.
        until: Last time, in the time of :math:`ds = (-\nabla H - \mu s) dt + \sqrt{2T} dW`;
            rounded up to an even number of steps.
        step: Time step h; None for 0.35 over an estimate of the fastest relaxation rate
            (0.05 for p = 3, T = 0). The error grows as its fourth power.
        grid: ``"geometric"`` forgets past instants that lie closer than ``spacing`` times their
            distance to the nearer end: time grows linearly and memory logarithmically with
            ``until``. ``"uniform"`` forgets none: cubic and quadratic, for checks.
        spacing: Only for the geometric grid; the error grows as its fourth power.
        progress: See :func:`lowland.training.open_progress`.

    Returns:
        Energies at all steps, rows of the two-time functions, estimated errors.

    Raises:
        ValueError: If an argument is not what it must be, or the step is not stable.

    Source:
        Specification sections 2 and 3.7. The forgetting is ours.

    Example:
        >>> found = solve_mean_field(3, 0.0, until=2.0)
        >>> round(float(found.energy[-1]), 3)
        -0.926
    """
    mixture = as_mixture(order)
    if not (isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be finite and at least 0; got {temperature}.")
    if not (isfinite(until) and until > 0):
        raise ValueError(f"until, the last time, must be finite and above 0; got {until}.")
    if grid not in GRIDS:
        raise ValueError(f'grid must be "geometric" or "uniform"; got "{grid}".')
    if not 0 < spacing <= 0.2:
        raise ValueError(f"spacing must lie above 0 and be at most 0.2; got {spacing}.")
    if step is None:
        step = 1 / ceil((temperature + 2 * mixture.radius) / ACCURATE)
    if not (isfinite(step) and step > 0):
        raise ValueError(f"step must be finite and above 0; got {step}.")
    steps = 2 * ceil(until / step / 2 - 1e-9)
    check_memory(steps, grid, until)
    began = monotonic()
    wide, close = (2 * spacing, spacing) if grid == "geometric" else (None, None)
    with open_progress(progress) as display, display.task("mean field", 3 * steps // 2) as task:
        fine = follow(mixture, temperature, step, steps, close, STABLE, task)
        coarse = follow(mixture, temperature, 2 * step, steps // 2, wide, inf, task)
    return MeanField(
        amplitudes=dict(mixture.amplitudes),
        temperature=temperature,
        step=step,
        grid=grid,
        status=Status.FINISHED,
        times=step * np.arange(steps + 1),
        energy=fine.energy,
        mu=fine.mu,
        error=halving_error(fine.energy, coarse.energy),
        rows=tuple(fine.rows),
        seconds=monotonic() - began,
    )


def check_memory(steps: int, grid: str, until: float) -> None:
    """Refuse a uniform grid that does not fit."""
    needed = 4 * 8 * (steps + 1) ** 2
    if grid == "uniform" and needed > MOST_BYTES:
        raise ValueError(
            f"a uniform grid must fit into {MOST_BYTES >> 30} GiB; {steps} steps to t = {until} "
            f'need {needed >> 30} GiB. Take grid="geometric", or a larger step.'
        )


@dataclass
class Course:
    """One solution: energy and mu at every step, and some rows."""

    energy: Float[np.ndarray, " time"]
    mu: Float[np.ndarray, " time"]
    rows: list[Row]


def follow(
    mixture: Mixture,
    temperature: float,
    step: float,
    steps: int,
    spacing: float | None,
    stable: float,
    task: Task,
) -> Course:
    """Solve the equations once."""
    memory = Memory(step, steps + 1 if spacing is None else 256)
    course = Course(np.full(steps + 1, nan), np.full(steps + 1, nan), [])
    course.energy[0], course.mu[0] = 0.0, temperature
    row = np.ones((2, 1))
    memory.accept(row, np.full((2, 1), -temperature))
    course.rows.append(Row(0.0, np.zeros(1), row))
    bend = np.full(2, temperature**2 - mixture.at_one(1))
    times = step * np.arange(steps + 1)
    next_row = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for number in range(1, steps + 1):
            memory.extend()
            row = predicted(memory, bend)
            slope, _, _ = derivative(mixture, temperature, memory, row)
            row = corrected(memory, bend, slope)
            slope, mu, energy = derivative(mixture, temperature, memory, row)
            if not step * mu <= stable:
                raise ValueError(
                    f"step times mu must be at most {stable}; mu is {mu:.3g} at t = "
                    f"{times[number]:.3g} and step is {step:.3g}. Take a shorter step, or None."
                )
            if not isfinite(mu):
                break  # twice the step was too long: there is no error estimate from here on
            course.energy[number], course.mu[number] = energy, mu
            slope = np.concatenate([slope, [[-temperature], [-mu]]], axis=1)
            bend = second_derivative(mixture, temperature, memory, row, slope, mu)
            memory.accept(row, slope)
            if spacing is None:
                course.rows.append(Row(times[number], times[: number + 1], row))
            elif times[number] >= next_row or number == steps:
                course.rows.append(Row(times[number], memory.times.copy(), row))
                next_row = times[number] * (1 + spacing)
            if spacing is not None and number % STEPS_BETWEEN_FORGETTING == 0:
                memory.forget(spacing)
            task.advance()
    return course


def derivative(
    mixture: Mixture, temperature: float, memory: Memory, row: Float[np.ndarray, "2 node"]
) -> tuple[Float[np.ndarray, "2 column"], float, float]:
    """Evaluate the right-hand sides, mu and the energy."""
    correlation, response = row
    first = mixture.f(correlation, 1)
    kernel = mixture.f(correlation, 2) * response
    energy = -float((memory.weights * first) @ response)
    mu = temperature - energy + float((memory.weights * kernel) @ correlation)
    slope = memory.integrals(kernel, first, row)
    slope -= mu * row[:, :-1]
    return slope, mu, energy


def second_derivative(
    mixture: Mixture,
    temperature: float,
    memory: Memory,
    row: Float[np.ndarray, "2 node"],
    slope: Float[np.ndarray, "2 node"],
    mu: float,
) -> Float[np.ndarray, " 2"]:
    """Differentiate the equations once more, at t = t': how the newest column will bend."""
    (c, r), (c_t, r_t) = row, slope
    f1, f2 = mixture.at_one(1), mixture.at_one(2)
    second = mixture.f(c, 2)
    moved = second * c_t * r
    inner = mixture.f(c, 1) * r_t + moved
    change = (
        f1 + f2 + memory.weights @ (inner + moved + (mixture.f(c, 3) * c_t * r + second * r_t) * c)
    )
    bend_c = mu * temperature - f1 - memory.weights @ inner
    return np.array([bend_c, mu**2 - change + f2])


def predicted(memory: Memory, bend: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "2 node"]:
    """Extrapolate a row: Adams-Bashforth, of the order that a column's age allows."""
    now, h = memory.count - 1, memory.step
    row = np.ones((2, now + 1))
    new, old, f = row[:, :now], memory.rows[0, :, :now], memory.slopes[..., :now]
    new[:] = old + h / 24 * (55 * f[0] - 59 * f[1] + 37 * f[2] - 9 * f[3])
    for age, weights in ((3, (23 / 12, -16 / 12, 5 / 12)), (2, (1.5, -0.5))):
        if now >= age:
            j = now - age
            new[:, j] = old[:, j] + h * sum(w * f[k, :, j] for k, w in enumerate(weights))
    new[:, -1] = old[:, -1] + h * f[0, :, -1] + h**2 / 2 * bend
    return row


def corrected(
    memory: Memory, bend: Float[np.ndarray, " 2"], slope: Float[np.ndarray, "2 column"]
) -> Float[np.ndarray, "2 node"]:
    """Improve a row by its slope: Adams-Moulton; the first step of a column knows its bend."""
    now, h = memory.count - 1, memory.step
    row = np.ones((2, now + 1))
    new, old, f = row[:, :now], memory.rows[0, :, :now], memory.slopes[..., :now]
    new[:] = old + h / 24 * (9 * slope + 19 * f[0] - 5 * f[1] + f[2])
    if now >= 2:
        j = now - 2
        new[:, j] = old[:, j] + h / 12 * (5 * slope[:, j] + 8 * f[0, :, j] - f[1, :, j])
    new[:, -1] = old[:, -1] + h / 3 * (slope[:, -1] + 2 * f[0, :, -1]) + h**2 / 6 * bend
    return row


def halving_error(
    fine: Float[np.ndarray, " time"], coarse: Float[np.ndarray, " coarse_time"]
) -> Float[np.ndarray, " time"]:
    """Estimate the error of the finer of two solutions of fourth order, at all its steps."""
    at_coarse = np.abs(fine[::2] - coarse) / 15
    times = np.arange(len(fine))
    return np.interp(times, times[::2], at_coarse)
