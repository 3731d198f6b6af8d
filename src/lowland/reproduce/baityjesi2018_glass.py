"""The spherical p-spin beside the networks: its exact curves, and a simulation of it."""

from typing import Any

import numpy as np

from lowland.dynamics.clock import log_times
from lowland.dynamics.landscape import negative_fraction
from lowland.dynamics.langevin import simulate_p_spin
from lowland.dynamics.mean_field import solve_mean_field
from lowland.dynamics.p_spin import PSpin
from lowland.dynamics.statics import aging_solution, statics
from lowland.reproduce.baityjesi2018_settings import Glass
from lowland.results import plain

__all__ = ["simulate_glass", "solve_glass"]

TIMES = 80  # of an energy, and lags of a displacement
SHORT = 0.1  # a lag that is short for any age
TIME_STEP = 0.02
LOOKS = (1.0, 2.0, 4.0, 8.0, 10.0, 20.0, 50.0)


def solve_glass(glass: Glass, display: Any = False) -> list[dict[str, Any]]:
    """Solve the mean-field equations, and read off what the paper shows.

    Args:
        glass: What to do.
        display: Progress display.

    Returns:
        One dict per temperature: energy by time, displacements by waiting time, plateau, share of
        negative curvatures.
    """
    found = []
    known = statics(glass.order)
    for temperature in glass.temperatures:
        solved = solve_mean_field(glass.order, temperature, until=glass.until, progress=display)
        end = aging_solution(glass.order, temperature)
        times = np.geomspace(0.05, glass.until, TIMES)
        energy = solved.E(times)
        curves = []
        for wait in glass.waits:
            last = glass.until - wait
            if last <= SHORT:
                continue
            lags = np.unique([*np.geomspace(0.02, last, TIMES), SHORT])
            curves.append(
                {"wait": wait, "lag": lags, "displacement": solved.displacement(wait, lags)}
            )
        late = times[times >= glass.until / 4]
        gap = solved.E(late) - end.energy
        found.append(
            {
                "temperature": temperature,
                "order": glass.order,
                "seconds": solved.seconds,
                "error": float(np.nanmax(solved.error)),
                "times": times,
                "energy": energy,
                "curves": curves,
                "limit": end.energy,
                "threshold": known.threshold_energy,
                "plateau": end.plateau,
                "overlap": end.overlap,
                "decay": -float(np.polyfit(np.log(late), np.log(np.maximum(gap, 1e-12)), 1)[0]),
                "negative": negative_fraction(glass.order, energy),
                "short": [float(solved.displacement(w, SHORT)) for w in glass.waits],
            }
        )
    return plain(found)


def simulate_glass(glass: Glass, display: Any = False) -> list[dict[str, Any]]:
    """Simulate finite systems, each with several replicas.

    Args:
        glass: What to do.
        display: Progress display.

    Returns:
        One dict per disorder: energies and correlations, means over its replicas.
    """
    found = []
    waits = [wait for wait in glass.waits if wait < glass.simulated_until]
    steps = round(glass.simulated_until / TIME_STEP)
    times = sorted({*(TIME_STEP * n for n in log_times(1, steps, TIMES)),
                    *(t for t in LOOKS if t <= glass.simulated_until)})  # fmt: skip
    for sample in range(glass.samples):
        model = PSpin(glass.size, glass.order, seed=sample, replicas=glass.replicas)
        run = simulate_p_spin(
            model,
            glass.simulated,
            until=glass.simulated_until,
            time_step=TIME_STEP,
            times=times,
            waiting_times=waits,
            seed=sample,
            progress=display,
        )
        run.raise_for_status()
        found.append(
            {
                "sample": sample,
                "size": glass.size,
                "temperature": glass.simulated,
                "times": run.times,
                "energy": run.energy.mean(1),
                "waits": waits,
                "correlation": run.correlation.mean(2),
            }
        )
    return plain(found)
