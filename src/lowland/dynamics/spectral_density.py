"""Stochastic Lanczos quadrature: the eigenvalues of an operator, as weights on a line."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lowland.dynamics.counts import TOLERANCE, Count, Measure, judge, measure_of
from lowland.dynamics.operators import Operator, check_operator
from lowland.dynamics.probes import lanczos_of_probes
from lowland.dynamics.products import hessian_product
from lowland.results import plain
from lowland.training import generator

__all__ = ["SpectralDensity", "exact_spectrum", "operator_of", "spectral_density"]


@dataclass(frozen=True)
class SpectralDensity:
    """Where the eigenvalues of an operator lie.

    Attributes:
        measures: One per probe: nodes, weights and residual bounds.
        size: Number of eigenvalues.
        floor: By how much eigenvalues may be wrong, from rounding.
    """

    measures: tuple[Measure, ...]
    size: int
    floor: float

    @property
    def nodes(self) -> list[Float[Tensor, " _steps"]]:
        """Ritz values of each probe, ascending."""
        return [measure.nodes for measure in self.measures]

    @property
    def weights(self) -> list[Float[Tensor, " _steps"]]:
        """Weights of each probe, adding up to 1."""
        return [measure.weights for measure in self.measures]

    @property
    def largest(self) -> float:
        """Largest Ritz value: the largest eigenvalue, or less."""
        return max(float(nodes[-1]) for nodes in self.nodes)

    @property
    def smallest(self) -> float:
        """Smallest Ritz value: the smallest eigenvalue, or more."""
        return min(float(nodes[0]) for nodes in self.nodes)

    @property
    def traces(self) -> Float[Tensor, " probes"]:
        """Trace of the operator as each probe sees it: size times the sum of weight times node."""
        return self.size * torch.stack([(m.nodes * m.weights).sum() for m in self.measures])

    @property
    def trace(self) -> float:
        """Trace of the operator, averaged over the probes."""
        return float(self.traces.mean())

    @property
    def trace_error(self) -> float:
        """Standard error of the trace; NaN for one probe of many steps."""
        if self.measures[0].tridiagonal is None:
            return 0.0
        return float(self.traces.std()) / sqrt(len(self.measures))

    def density(
        self, x: Sequence[float] | Float[Tensor, " points"], sigma: float
    ) -> Float[Tensor, " points"]:
        """Smooth the nodes with a normal kernel; for pictures, not for counts.

        Args:
            x: Where.
            sigma: Standard deviation of the kernel, in the unit of eigenvalues.

        Returns:
            Share of eigenvalues per unit; its integral is 1.

        Raises:
            ValueError: If sigma is not positive.
        """
        if not sigma > 0:
            raise ValueError(f"sigma must be positive; got {sigma}.")
        points = torch.as_tensor(x, dtype=torch.float64)
        total = torch.zeros_like(points)
        for measure in self.measures:
            distance = (points.unsqueeze(1) - measure.nodes) / sigma
            total += (-distance.square() / 2).exp() @ measure.weights
        return total / (len(self.measures) * sigma * sqrt(2 * pi))

    def cdf(self, x: Sequence[float] | Float[Tensor, " points"]) -> Float[Tensor, " points"]:
        """Share of eigenvalues below some points: the middle of its bounds.

        Args:
            x: Where.

        Returns:
            Shares, 0 to 1.
        """
        points = torch.as_tensor(x, dtype=torch.float64)
        shares = [
            sum(sum(m.below(float(point), self.floor)) / 2 for m in self.measures)
            / len(self.measures)
            for point in points
        ]
        return torch.tensor(shares, dtype=torch.float64)

    def count(self, low: float, high: float, *, tolerance: float = TOLERANCE) -> Count:
        """Count the eigenvalues strictly between two numbers.

        Args:
            low: Lower end, or minus infinity.
            high: Upper end, or infinity.
            tolerance: Largest error of a reliable count, as a share of it.

        Returns:
            The number with its errors and the verdict on it; see
            :func:`lowland.dynamics.counts.judge`.
        """
        return judge(self.measures, self.size, low, high, floor=self.floor, tolerance=tolerance)

    def record(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {
            "size": self.size,
            "largest": self.largest,
            "smallest": self.smallest,
            "trace": self.trace,
            "trace_error": self.trace_error,
            "floor": self.floor,
            "nodes": self.nodes,
            "weights": self.weights,
            "residuals": [measure.residuals for measure in self.measures],
        }
        return plain(numbers)


def spectral_density(
    model: nn.Module | Operator,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    batches: Any = None,
    *,
    steps: int = 100,
    probes: int = 10,
    seed: int = 0,
    kind: str = "hessian",
    batch_norm: str = "eval",
    max_bytes: int = 2**31,
) -> SpectralDensity:
    r"""Estimate the spectrum of a model's Hessian, or of any symmetric operator.

    Costs ``steps * probes`` products; with less than that many parameters,
    :func:`exact_spectrum` is both cheaper and exact.

    Args:
        model: A module, or an :class:`lowland.dynamics.operators.Operator`.
        loss_fn: With a module, one loss per example.
        batches: With a module, re-iterable of (inputs, target), not augmented.
        steps: Lanczos steps m. Eigenvalues closer than about the range over m are not told apart.
        probes: Random vectors. The error of a share p is about
            :math:`\sqrt{2 p (1 - p) / (M n)}` for M parameters and n probes.
        seed: Of the probes.
        kind: ``"hessian"`` or ``"gauss_newton"``.
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.
        max_bytes: Of Lanczos bases held at once, and of graphs kept.

    Returns:
        Nodes and weights, and what can be read from them.

    Raises:
        ValueError: If steps or probes are not positive, or the operator is not one symmetric
            matrix.

    Source:
        Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38 (2017); Ghorbani, Krishnan & Xiao (2019).
    """
    operator = operator_of(model, loss_fn, batches, kind, batch_norm, max_bytes)
    check_numbers(operator, steps, probes)
    check_operator(operator, generator(seed, "check"))
    found = lanczos_of_probes(operator, probes, steps, seed=seed, max_bytes=max_bytes)
    return density_of([measure_of(matrix) for matrix in found], operator)


def exact_spectrum(
    model: nn.Module | Operator,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    batches: Any = None,
    *,
    kind: str = "hessian",
    batch_norm: str = "eval",
) -> SpectralDensity:
    """Compute all eigenvalues, from the whole matrix: one product per parameter.

    Args:
        model: A small module (some thousand parameters), or an operator.
        loss_fn: With a module, one loss per example.
        batches: With a module, re-iterable of (inputs, target).
        kind: ``"hessian"`` or ``"gauss_newton"``.
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.

    Returns:
        A single measure with all eigenvalues, each of the same weight; its counts are exact.
    """
    operator = operator_of(model, loss_fn, batches, kind, batch_norm, 2**31)
    values = torch.linalg.eigvalsh(operator.dense().double()).cpu()
    equal = torch.full_like(values, 1 / len(values))
    return density_of([Measure(values, equal, torch.zeros_like(values))], operator)


def density_of(measures: Sequence[Measure], operator: Operator) -> SpectralDensity:
    """Put the probes of an operator together."""
    floor = max(floor_of(measure, operator) for measure in measures)
    return SpectralDensity(tuple(measures), operator.size, floor)


def floor_of(measure: Measure, operator: Operator) -> float:
    """Say by how much eigenvalues may be wrong: some roundings of the largest."""
    return 32 * torch.finfo(operator.dtype).eps * float(measure.nodes.abs().max())


def operator_of(
    model: nn.Module | Operator,
    loss_fn: Callable[[Any, Any], Tensor] | None,
    batches: Any,
    kind: str,
    batch_norm: str,
    max_bytes: int,
) -> Operator:
    """Take an operator as it is, and make that of a model.

    Args:
        model: A module, or an operator.
        loss_fn: With a module, one loss per example.
        batches: With a module, its data.
        kind: ``"hessian"`` or ``"gauss_newton"``.
        batch_norm: ``"eval"`` or ``"train"``.
        max_bytes: Of graphs to keep.

    Returns:
        The operator.

    Raises:
        ValueError: If a module comes without loss function or data, or an operator with them.
    """
    is_model = isinstance(model, nn.Module)
    if is_model != (loss_fn is not None) or is_model != (batches is not None):
        raise ValueError(
            "a module must come with loss_fn and batches, an operator alone; got "
            f"{type(model).__name__}, {loss_fn} and {type(batches).__name__}."
        )
    if isinstance(model, Operator):
        return model
    assert loss_fn is not None
    return hessian_product(
        model, loss_fn, batches, kind=kind, batch_norm=batch_norm, max_bytes=max_bytes
    )


def check_numbers(operator: Operator, steps: int, probes: int) -> None:
    """Refuse numbers that make no estimate, and tell of steps that are too many."""
    if steps < 1 or probes < 1:
        raise ValueError(f"steps and probes must be at least 1; got {steps} and {probes}.")
    if steps > operator.size:
        warnings.warn(
            f"steps must not exceed the number of parameters, {operator.size}; got {steps}, of "
            "which as many are taken.",
            stacklevel=3,
        )
