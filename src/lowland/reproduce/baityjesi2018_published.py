"""What the authors' published run logged: one run of the small network on CIFAR-10.

Read from the files in the authors' repository, as collected in the specification, section 5:
batches of 100, learning rate 0.01, momentum 0.5, stopped after 2006 updates.
"""

from typing import Any

from lowland.reproduce.baityjesi2018_numbers import at_lag
from lowland.reproduce.baityjesi2018_settings import Course, Task
from lowland.reproduce.runs import Runs

__all__ = ["COURSE", "LOSS", "NAME", "NOISE", "compare"]

NAME = "published"
COURSE = Course(
    NAME, "over", Task("cifar10", "conv1020-relu", 100, evaluated=10000), learning_rate=0.01,
    momentum=0.5, steps=2006, waits=28, lags=50, last_wait=1805, losses=48, noise_batches=40,
    keep_state=True,
)  # fmt: skip
PARAMS = 56_890

# Updates, training loss, training accuracy.
LOSS = (
    (0, 2.3092, 0.0881), (100, 2.1310, 0.2344), (201, 1.9499, 0.2985), (404, 1.6925, 0.3834),
    (811, 1.4784, 0.4726), (1233, 1.3893, 0.5015), (1874, 1.2814, 0.5453),
)  # fmt: skip

# Waiting time, D, displacement at lag 10 in 1e-8, M Delta / (eta^2 D t) at lags 10 and 100.
NOISE = (
    (0, 0.155, 2.85, 10.4, 184), (11, 0.152, 3.99, 15.3, 230), (33, 0.177, 3.61, 12.0, 246),
    (95, 0.863, 14.4, 9.7, 40), (212, 2.98, 11.9, 2.20, 9.2), (473, 6.09, 21.1, 1.96, 2.5),
    (808, 6.95, 17.1, 1.33, 1.45), (1381, 8.62, 22.3, 1.46, 1.22), (1805, 8.46, 20.4, 1.42, 1.34),
)  # fmt: skip


def compare(runs: Runs) -> list[dict[str, Any]]:
    """Put our runs beside the published one, line by line.

    Args:
        runs: Seeds of the course of that name.

    Returns:
        ``what``, ``at``, ``published`` and ``ours`` (one number per seed, None where there is
        none).
    """
    rows: list[dict[str, Any]] = []

    def add(what: str, at: int, published: float, ours: list[float | None]) -> None:
        rows.append({"what": what, "at": at, "published": published, "ours": ours})

    if not runs:
        return rows
    rate = COURSE.learning_rate
    for step, loss, accuracy in LOSS:
        add("training loss", step, loss, [between(run["losses"], step, "loss") for run in runs])
        errors = [between(run["losses"], step, "error") for run in runs]
        add("training accuracy", step, accuracy, [None if e is None else 1 - e for e in errors])
    for wait, trace, short, ten, hundred in NOISE:
        noise = [between(run["noise"], wait, "trace") for run in runs]
        add("D", wait, trace, noise)
        for lag, published in ((10, ten), (100, hundred)):
            found = [displacement(run, wait, lag) for run in runs]
            if lag == 10:
                add("displacement, lag 10", wait, short * 1e-8, found)
            ratios = [
                None if delta is None or not d else run["params"] * delta / (rate**2 * d * lag)
                for run, delta, d in zip(runs, found, noise, strict=True)
            ]
            add(f"M Delta / (eta² D t), lag {lag}", wait, published, ratios)
    return rows


def between(rows: Runs, step: int, name: str) -> float | None:
    """A one-time observable, along a line between two measurements."""
    before = None
    for row in rows:
        if row["step"] == step:
            return row[name]
        if row["step"] > step:
            if before is None:
                return None
            share = (step - before["step"]) / (row["step"] - before["step"])
            return before[name] + share * (row[name] - before[name])
        before = row
    return None


def displacement(run: dict[str, Any], wait: int, lag: int) -> float | None:
    """The displacement at the recorded waiting time nearest to one."""
    near = min(run["curves"], key=lambda one: abs(one["wait"] - wait))
    if abs(near["wait"] - wait) > 0.15 * max(wait, 7):
        return None
    return at_lag(near, lag)
