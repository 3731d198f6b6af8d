"""The mean-field solver: time against error, how far it gets in a minute, and the spec's scheme.

python benchmarks/mean_field.py [--threads 1] [--seconds 60] [--out mean_field.json]
"""

import argparse
from time import perf_counter
from typing import Any

import numpy as np
import torch
from timing import table

from lowland.dynamics.mean_field import solve_mean_field
from lowland.results import environment, write_json

UNTIL = 50.0
# p = 3, T = 0, t = 50: extrapolated from steps of 1/40 and 1/80 with spacing 0.025.
REFERENCE = -1.130552


def main() -> None:
    """Error against time at t = 50, then as far as the seconds allow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    solve_mean_field(3, 0.0, until=1.0)  # warm up
    rows = [
        solution("geometric", 1 / 10, 0.1),
        solution("geometric", 1 / 20, 0.1),
        solution("geometric", 1 / 20, 0.05),
        solution("geometric", 1 / 40, 0.05),
        solution("uniform", 1 / 20, 0.05),
        trapezoids(1 / 20),
    ]
    columns = ["scheme, p = 3, T = 0, t = 50", "step", "s", "error", "own estimate"]
    show(columns, rows, "scheme", "step", "seconds", "error", "estimate")
    far = [farthest(step, arguments.seconds) for step in (1 / 20, 1 / 10)]
    columns = [f"t in {arguments.seconds:g} s", "step", "s", "energy", "estimate", "nodes"]
    show(columns, far, "until", "step", "seconds", "energy", "estimate", "nodes")
    if arguments.out:
        write_json(arguments.out, {"environment": environment(), "error": rows, "far": far})


def show(columns: list[str], rows: list[dict[str, Any]], *names: str) -> None:
    """Print a table."""
    cells = [[shown(row[name]) for name in names] for row in rows]
    print(table(columns, cells), flush=True)


def shown(value: Any) -> str:
    """Write a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def solution(grid: str, step: float, spacing: float) -> dict[str, Any]:
    """Solve until t = 50, error estimate included."""
    began = perf_counter()
    found = solve_mean_field(3, 0.0, until=UNTIL, step=step, grid=grid, spacing=spacing)
    return {
        "scheme": grid if grid == "uniform" else f"{grid}, spacing {spacing:g}",
        "step": step,
        "seconds": perf_counter() - began,
        "error": abs(float(found.energy[-1]) - REFERENCE),
        "estimate": float(found.error[-1]),
    }


def trapezoids(h: float) -> dict[str, Any]:
    """The specification's scheme: Euler, two trapezoidal corrections, trapezoids in the memory."""
    began = perf_counter()
    n = round(UNTIL / h)
    c, r = np.eye(n + 1), np.eye(n + 1)
    fc, fr = np.zeros((2, n + 1))
    energy = 0.0
    for m in range(1, n + 1):
        c[m, :m], r[m, :m] = c[m - 1, :m] + h * fc[:m], r[m - 1, :m] + h * fr[:m]
        c[:m, m] = c[m, :m]  # C is kept symmetric, so that C(s, t') is there for s < t' as well
        for _ in range(2):
            gc, gr, energy = slopes(c, r, m, h)
            c[m, :m] = c[m - 1, :m] + h / 2 * (fc[:m] + gc)
            r[m, :m] = r[m - 1, :m] + h / 2 * (fr[:m] + gr)
            c[:m, m] = c[m, :m]
        fc[:m], fr[:m] = gc, gr
        fr[m] = 3 * energy  # at t = t': minus mu; C begins flat at T = 0
    seconds = perf_counter() - began
    return {
        "scheme": "uniform trapezoids (spec 3.7)",
        "step": h,
        "seconds": seconds,
        "error": abs(energy - REFERENCE),
        "estimate": "-",
    }


def slopes(c: np.ndarray, r: np.ndarray, m: int, h: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Right-hand sides at step m for p = 3, T = 0."""
    weight = np.full(m + 1, h)
    weight[[0, -1]] /= 2
    first, kernel = 1.5 * c[m, : m + 1] ** 2, 3 * c[m, : m + 1] * r[m, : m + 1]
    energy = -float((weight * first) @ r[m, : m + 1])
    mu = -3 * energy
    ends = np.arange(m)
    below = r[:m, :m] @ (weight[:m] * first[:m]) - h / 2 * first[:m] * (ends > 0)
    all_past = (weight * kernel) @ c[: m + 1, :m]
    above = (h * kernel) @ r[: m + 1, :m] - h / 2 * (kernel[:m] + kernel[m] * r[m, :m])
    return below + all_past - mu * c[m, :m], above - mu * r[m, :m], energy


def farthest(step: float, seconds: float) -> dict[str, Any]:
    """Double the last time until the seconds are used, then take what is left."""
    until, took = 100.0, 0.0
    while True:
        began = perf_counter()
        found = solve_mean_field(3, 0.0, until=until, step=step, spacing=0.1)
        took = perf_counter() - began
        if took > 0.6 * seconds:
            break
        until *= 2 if took < 0.25 * seconds else 0.9 * seconds / took
    return {
        "until": until,
        "step": step,
        "seconds": took,
        "energy": float(found.energy[-1]),
        "estimate": float(found.error[-1]),
        "nodes": len(found.rows[-1].nodes),
    }


if __name__ == "__main__":
    main()
