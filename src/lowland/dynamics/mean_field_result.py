"""What the mean-field equations leave: energies, and two-time functions at any pair of times."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from lowland.results import Status, environment, plain, read_json, write_json

__all__ = ["MeanField", "Row"]

ENERGIES_IN_RECORD = 200
FUNCTIONS = {"correlation": 0, "response": 1}


@dataclass(frozen=True)
class Row:
    """The two-time functions of one time t with all times before it.

    Attributes:
        time: t.
        nodes: Times t' from 0 to t.
        values: C(t, t') and R(t, t').
    """

    time: float
    nodes: Float[np.ndarray, " node"]
    values: Float[np.ndarray, "2 node"]

    @cached_property
    def spline(self) -> CubicSpline:
        """Both functions between the nodes."""
        return CubicSpline(self.nodes, self.values, axis=1)

    def at(self, function: int, earlier: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
        """Evaluate one function at times t' <= t."""
        if len(self.nodes) == 1:
            return np.ones_like(earlier)
        return self.spline(earlier)[function]


@dataclass(frozen=True)
class MeanField:
    """Dynamics of an infinitely large spherical glass after a quench from infinite temperature.

    Attributes:
        amplitudes: Amplitude of each order p.
        temperature: T.
        step: Time step.
        grid: ``"geometric"`` or ``"uniform"``.
        status: How the solver ended.
        times: All steps.
        energy: Energy per spin at all steps.
        mu: The multiplier that keeps the spins on the sphere; T - p E for a pure p.
        error: Estimated error of the energy; NaN where twice the step is not stable.
        rows: Two-time functions at some times, 0 and the last among them.
        seconds: What the solver took.
    """

    amplitudes: dict[int, float]
    temperature: float
    step: float
    grid: str
    status: Status
    times: Float[np.ndarray, " time"] = field(repr=False)
    energy: Float[np.ndarray, " time"] = field(repr=False)
    mu: Float[np.ndarray, " time"] = field(repr=False)
    error: Float[np.ndarray, " time"] = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)
    seconds: float = field(repr=False)

    def E(self, t: Any) -> Float[np.ndarray, "*shape"]:
        """Interpolate the energy per spin.

        Args:
            t: Times.

        Returns:
            One energy per time.
        """
        return self.energy_spline(self.checked(t))

    def C(self, t: Any, earlier: Any) -> Float[np.ndarray, "*shape"]:
        """Interpolate the correlation with an earlier time, per spin.

        Args:
            t: The later times.
            earlier: The earlier times t'; broadcast with ``t``.

        Returns:
            One value per pair; 1 where the times are equal.
        """
        return self.interpolated("correlation", t, earlier)

    def R(self, t: Any, earlier: Any) -> Float[np.ndarray, "*shape"]:
        """Interpolate the response to a field at an earlier time.

        Args:
            t: The later times.
            earlier: The earlier times t'; broadcast with ``t``.

        Returns:
            One value per pair; 1 where the times are equal.
        """
        return self.interpolated("response", t, earlier)

    def displacement(self, waiting_time: Any, lag: Any) -> Float[np.ndarray, "*shape"]:
        """Mean square displacement per spin, 2 (1 - C).

        Args:
            waiting_time: When the lag begins.
            lag: Time after it.

        Returns:
            One value per pair.
        """
        waiting_time = np.asarray(waiting_time)
        return 2 * (1 - self.C(waiting_time + lag, waiting_time))

    def integrated_response(self, t: float, since: float) -> float:
        """Magnetization per unit of a field that is switched on at a time and stays.

        Args:
            t: When it is looked at.
            since: When the field is switched on.

        Returns:
            The integral of R(t, s) over s from ``since`` to ``t``.
        """
        points, weights = np.polynomial.legendre.leggauss(8)
        nodes = self.rows[self.row_before(t)].nodes
        edges = np.unique(np.clip([*nodes * t / max(nodes[-1], self.step), since, t], since, t))
        middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
        s = middle[:, None] + half[:, None] * points
        return float((half[:, None] * weights * self.R(t, s)).sum())

    def triangles(self, times: Any) -> tuple[Float[np.ndarray, "t t"], Float[np.ndarray, "t t"]]:
        """Tabulate correlation and response.

        Args:
            times: Increasing times.

        Returns:
            C and R as lower triangles, zero above the diagonal.
        """
        times = np.asarray(times, dtype=float)
        lower = np.tril_indices(len(times))
        tables = np.zeros((2, len(times), len(times)))
        tables[0][lower] = self.C(times[lower[0]], times[lower[1]])
        tables[1][lower] = self.R(times[lower[0]], times[lower[1]])
        return tables[0], tables[1]

    @property
    def identity_error(self) -> float | None:
        """Largest difference of mu and T - p E, which a pure model has to rounding; else None."""
        (order, amplitude), *others = self.amplitudes.items()
        if others or amplitude != 1:
            return None
        return float(np.abs(self.mu - self.temperature + order * self.energy).max())

    def record(self) -> dict[str, Any]:
        """Give the energies at about 200 times, and how they were found, as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        last = len(self.times) - 1
        shown = np.geomspace(1, last, ENERGIES_IN_RECORD).round().astype(int)
        shown = np.unique(np.concatenate([[0], shown]))
        numbers = {
            "status": self.status,
            "amplitudes": self.amplitudes,
            "temperature": self.temperature,
            "step": self.step,
            "grid": self.grid,
            "times": self.times[shown],
            "energy": self.energy[shown],
            "mu": self.mu[shown],
            "error": self.error[shown],
            "identity_error": self.identity_error,
            "seconds": self.seconds,
            "environment": environment(),
        }
        return plain(numbers)

    def save(self, folder: str | Path) -> Path:
        """Write ``mean_field.json`` and ``mean_field.safetensors``: everything, rows end to end.

        Args:
            folder: Where to.

        Returns:
            The folder.
        """
        import torch

        from lowland.results import write_tensors

        folder = Path(folder)
        arrays = {name: getattr(self, name) for name in ("times", "energy", "mu", "error")}
        arrays["row_times"] = np.array([row.time for row in self.rows])
        arrays["row_lengths"] = np.array([len(row.nodes) for row in self.rows])
        arrays["row_nodes"] = np.concatenate([row.nodes for row in self.rows])
        arrays["row_values"] = np.concatenate([row.values for row in self.rows], axis=1)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_tensors(folder / "mean_field.safetensors", tensors)
        write_json(folder / "mean_field.json", self.record())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "MeanField":
        """Read what :meth:`save` wrote.

        Args:
            folder: Where from.

        Returns:
            The same solution.
        """
        from lowland.results import read_tensors

        values = read_json(Path(folder) / "mean_field.json")
        tensors, _ = read_tensors(Path(folder) / "mean_field.safetensors")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        ends = arrays["row_lengths"].cumsum()[:-1]
        nodes = np.split(arrays["row_nodes"], ends)
        functions = np.split(arrays["row_values"], ends, axis=1)
        rows = zip(arrays["row_times"].tolist(), nodes, functions, strict=True)
        return cls(
            amplitudes={int(order): value for order, value in values["amplitudes"].items()},
            status=Status[values["status"].upper()],
            rows=tuple(Row(*row) for row in rows),
            **{name: values[name] for name in ("temperature", "step", "grid", "seconds")},
            **{name: arrays[name] for name in ("times", "energy", "mu", "error")},
        )

    @cached_property
    def energy_spline(self) -> CubicSpline:
        """The energy between the steps."""
        return CubicSpline(self.times, self.energy)

    @cached_property
    def row_times(self) -> Float[np.ndarray, " row"]:
        """Times of the rows."""
        return np.array([row.time for row in self.rows])

    def row_before(self, t: float) -> int:
        """Find the last row at or before a time."""
        return max(0, int(np.searchsorted(self.row_times, t, side="right")) - 1)

    def checked(self, t: Any) -> Float[np.ndarray, "*shape"]:
        """Refuse times outside of the solution."""
        t, last = np.asarray(t, dtype=float), self.times[-1]
        if not ((t >= 0) & (t <= last * (1 + 1e-12))).all():
            raise ValueError(f"times must lie between 0 and {last:g}; got {t}.")
        return t

    def interpolated(self, name: str, t: Any, earlier: Any) -> Float[np.ndarray, "*shape"]:
        """Interpolate a function at fixed t'/t between four rows, cubic in t."""
        t, earlier = np.broadcast_arrays(self.checked(t), self.checked(earlier))
        if (earlier > t * (1 + 1e-12)).any():
            raise ValueError(f"a pair must be (later, earlier); got t = {t} and t' = {earlier}.")
        values = np.empty(t.shape)
        for time in np.unique(t):
            here = t == time
            share = np.minimum(earlier[here] / time, 1.0) if time > 0 else np.zeros(here.sum())
            first = min(max(self.row_before(time) - 1, 0), max(len(self.rows) - 4, 0))
            rows = self.rows[first : first + 4]
            total = np.zeros(share.shape)
            for row, weight in zip(rows, lagrange([row.time for row in rows], time), strict=True):
                if weight != 0:
                    total += weight * row.at(FUNCTIONS[name], share * row.time)
            values[here] = total
        return values


def lagrange(nodes: list[float], x: float) -> list[float]:
    """Weights of the polynomial through all nodes, at one point."""
    return [
        float(np.prod([(x - other) / (node - other) for other in nodes if other != node]))
        for node in nodes
    ]
