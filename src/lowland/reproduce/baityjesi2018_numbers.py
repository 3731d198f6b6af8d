"""Read phases, collapses and exponents off the recorded courses of baityjesi2018."""

from collections.abc import Mapping
from math import log
from statistics import fmean
from typing import Any

import torch

from lowland.dynamics.collapse import Curve, collapse_score, local_exponents
from lowland.dynamics.normalized import over_noise
from lowland.dynamics.phases import find_phases
from lowland.dynamics.pieces import fit_pieces
from lowland.reproduce.runs import Runs
from lowland.results import plain

__all__ = ["analyze", "at_lag", "courses_of", "mean_curves", "mean_rows", "normalized"]

LAG = 100  # at which displacements of different ages are compared
SHORT = 10


def analyze(runs: Runs, samples: int) -> dict[str, Any]:
    """Find the phases of a course, from all seeds together and from each.

    Args:
        runs: One dict per seed of one course.
        samples: Bootstrap samples.

    Returns:
        Plain values.
    """
    losses = [pair(run["losses"], "loss") for run in runs]
    noises = [pair(run["noise"], "trace") for run in runs]
    curves = mean_curves(runs)
    phases = find_phases(losses, tensors(curves), noises, samples=samples)
    alone = [alone_of(run) for run in runs]
    clones = runs[0]["clones"]
    found = {
        "course": runs[0]["course"],
        "kind": runs[0]["kind"],
        "params": runs[0]["params"],
        "seeds": len(runs),
        "phases": phases.record(),
        "alone": alone,
        "aging": aged(curves, phases.t1, phases.t2),
        "short": short(curves),
        "late": late(curves, phases.t2),
        "cloned": [cloned(clone) for clone in clones],
    }
    return plain(found)


def alone_of(run: dict[str, Any]) -> dict[str, Any]:
    """Breaks and collapses of a single seed."""
    steps, loss = pair(run["losses"], "loss")
    fit = fit_pieces(steps, loss)
    t1, t2 = fit.breaks
    curves = tensors(mean_curves([run]))
    forms = {"raw": curves, "over_noise": over_noise(curves, pair(run["noise"], "trace"))}
    chosen = {
        "before_t1": [wait for wait in curves if wait < t1],
        "after_t2": [wait for wait in curves if wait >= t2],
    }
    scores = {
        phase: {name: score([form[wait] for wait in waits]) for name, form in forms.items()}
        for phase, waits in chosen.items()
    }
    ratio = float(loss[-1] / loss[0])
    return {"seed": run["seed"], "t1": t1, "t2": t2, "loss_ratio": ratio, "scores": scores}


def score(curves: list[Curve]) -> float | None:
    """Collapse score, None where there are too few curves."""
    try:
        return collapse_score(curves)
    except ValueError:
        return None


def pair(rows: Runs, name: str) -> Curve:
    """Times and values of rows."""
    steps = torch.tensor([float(row["step"]) for row in rows], dtype=torch.float64)
    return steps, torch.tensor([row[name] for row in rows], dtype=torch.float64)


def mean_curves(runs: Runs) -> dict[int, dict[str, list[float]]]:
    """Average displacements over seeds, which all have the same clock.

    Args:
        runs: Of one course.

    Returns:
        ``lag``, ``displacement`` and ``kurtosis`` by waiting time.
    """
    found = {}
    for number, first in enumerate(runs[0]["curves"]):
        every = [run["curves"][number] for run in runs]
        mean = {
            name: [fmean(values) for values in zip(*(one[name] for one in every), strict=True)]
            for name in ("displacement", "kurtosis")
        }
        found[first["wait"]] = {"lag": first["lag"]} | mean
    return found


def mean_rows(runs: Runs, part: str, name: str) -> tuple[list[float], list[float]]:
    """Average a one-time observable over seeds.

    Args:
        runs: Of one course.
        part: ``"losses"`` or ``"noise"``.
        name: Which number.

    Returns:
        Steps and means.
    """
    steps = [row["step"] for row in runs[0][part]]
    return steps, [fmean(row[name] for row in rows)
                   for rows in zip(*(run[part] for run in runs), strict=True)]  # fmt: skip


def tensors(curves: Mapping[int, dict[str, list[float]]]) -> dict[int, Curve]:
    """Curves as the room takes them."""
    return {
        wait: (torch.tensor(one["lag"], dtype=torch.float64),
               torch.tensor(one["displacement"], dtype=torch.float64))
        for wait, one in curves.items()
    }  # fmt: skip


def normalized(runs: Runs) -> dict[int, dict[str, list[float]]]:
    """Divide mean displacements by the mean noise at their waiting time.

    Args:
        runs: Of one course.

    Returns:
        ``lag`` and ``displacement`` by waiting time.
    """
    steps, noise = mean_rows(runs, "noise", "trace")
    both = torch.tensor(steps, dtype=torch.float64), torch.tensor(noise, dtype=torch.float64)
    found = over_noise(tensors(mean_curves(runs)), both)
    return {
        wait: {"lag": lag.tolist(), "displacement": value.tolist()}
        for wait, (lag, value) in found.items()
    }


def at_lag(curve: Mapping[str, Any], lag: float) -> float | None:
    """Interpolate a displacement in double logarithms.

    Args:
        curve: ``lag`` and ``displacement``.
        lag: Which lag.

    Returns:
        The displacement; None outside of the curve.
    """
    before = None
    for t, value in zip(curve["lag"], curve["displacement"], strict=True):
        if t == lag:
            return value
        if t > lag:
            if before is None or not (value > 0 and before[1] > 0):
                return None
            share = log(lag / before[0]) / log(t / before[0])
            return before[1] * (value / before[1]) ** share
        before = (t, value)
    return None


def aged(curves: Mapping[int, dict[str, list[float]]], t1: float, t2: float) -> dict[str, Any]:
    """By how much a displacement at a fixed lag falls from t1 to t2, and beyond."""
    found = {wait: at_lag(curve, LAG) for wait, curve in curves.items()}
    known = {wait: value for wait, value in found.items() if value}
    inside = [wait for wait in known if t1 <= wait <= t2]
    after = [wait for wait in known if wait >= t1]
    return {
        "lag": LAG,
        "waits": list(known),
        "displacement": list(known.values()),
        "fall": known[inside[0]] / known[inside[-1]] if len(inside) > 1 else None,
        "fall_to_end": known[after[0]] / known[after[-1]] if len(after) > 1 else None,
    }


def short(curves: Mapping[int, dict[str, list[float]]]) -> dict[str, Any]:
    """By how much a displacement at a short lag changes with the waiting time."""
    found = {wait: at_lag(curve, SHORT) for wait, curve in curves.items()}
    known = {wait: value for wait, value in found.items() if value}
    values = list(known.values())
    return {"lag": SHORT, "waits": list(known), "displacement": values,
            "spread": max(values) / min(values) if values else None}  # fmt: skip


def late(curves: Mapping[int, dict[str, list[float]]], t2: float) -> list[dict[str, Any]]:
    """Local exponents of the raw displacements after t2."""
    return [
        {"wait": wait, "exponents": local_exponents(*tensors({wait: curve})[wait])}
        for wait, curve in curves.items()
        if wait >= t2
    ]


def cloned(clone: dict[str, Any]) -> dict[str, Any]:
    """Exponents of clones and of the raw motion that they share, in the last decade."""
    lag = torch.tensor(clone["lag"], dtype=torch.float64)
    last = lag >= lag[-1] / 10
    found: dict[str, Any] = {"wait": clone["wait"], "from": float(lag[last][0])}
    found["to"] = float(lag[-1])
    for name, key in (("clone", "displacement"), ("raw", "raw")):
        values = torch.tensor(clone[key], dtype=torch.float64)[last]
        x, y = lag[last].log(), values.log()
        x = x - x.mean()
        found[name] = float((x * (y - y.mean())).sum() / x.square().sum())
        found[f"{name}_last"] = clone[key][-1]
    return found


def courses_of(phases: Runs, kind: str) -> list[dict[str, Any]]:
    """The courses of a kind.

    Args:
        phases: From :func:`analyze`.
        kind: ``"over"``, ``"under"`` or ``"toy"``.

    Returns:
        Some of them.
    """
    return [one for one in phases if one["kind"] == kind]
