"""Directions in which the loss is flat, and in which it falls away on both sides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from torch import Tensor, nn

from lowland.dynamics.counts import TOLERANCE, Count, Measure, measure_of
from lowland.dynamics.lanczos import Tridiagonal
from lowland.dynamics.operators import Operator, check_operator
from lowland.dynamics.probes import lanczos_of_probes
from lowland.dynamics.spectral_density import (
    SpectralDensity,
    check_numbers,
    density_of,
    floor_of,
    operator_of,
)
from lowland.results import plain
from lowland.training import generator

__all__ = ["FlatDirections", "flat_directions", "negative_directions"]

Interval = Callable[[Measure], tuple[float, float]]


@dataclass(frozen=True)
class FlatDirections:
    r"""How many directions are flat at a threshold.

    Attributes:
        flat: Number of eigenvalues with :math:`|\lambda| < \epsilon`.
        negative: Number of eigenvalues :math:`\lambda < -\epsilon`.
        threshold: :math:`\epsilon`.
        steps: Lanczos steps of the probe that took most.
        spectrum: All that was measured.
    """

    flat: Count
    negative: Count
    threshold: float
    steps: int
    spectrum: SpectralDensity

    @property
    def value(self) -> float:
        """Number of flat directions."""
        return self.flat.value

    @property
    def standard_error(self) -> float:
        """Its standard error over the probes."""
        return self.flat.standard_error

    @property
    def reliable(self) -> bool:
        """Whether the number can be relied on; ``flat.reason`` says why."""
        return self.flat.reliable

    def record(self) -> dict[str, Any]:
        """Give the numbers, without the spectrum, as plain values.

        Returns:
            What :func:`lowland.results.write_json` can hold.
        """
        numbers = {
            "flat": self.flat,
            "negative": self.negative,
            "threshold": self.threshold,
            "largest": self.spectrum.largest,
            "params": self.spectrum.size,
            "probes": len(self.spectrum.measures),
            "steps": self.steps,
        }
        return plain(numbers)


def flat_directions(
    model: nn.Module | Operator,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    batches: Any = None,
    *,
    eps: float | None = None,
    relative: float | None = None,
    age: float | None = None,
    steps: int = 100,
    max_steps: int = 800,
    probes: int = 10,
    seed: int = 0,
    kind: str = "hessian",
    batch_norm: str = "eval",
    max_bytes: int = 2**31,
) -> FlatDirections:
    r"""Count the directions in which the loss has next to no curvature, with a verdict.

    Exactly one threshold must be given. The three can move in different directions as training
    goes on, for the largest eigenvalue does.

    Args:
        model: A module, or an :class:`lowland.dynamics.operators.Operator`.
        loss_fn: With a module, one loss per example.
        batches: With a module, re-iterable of (inputs, target), not augmented.
        eps: Threshold :math:`\epsilon` itself, in the unit of eigenvalues (loss per squared
            parameter).
        relative: Threshold as a share of the largest eigenvalue.
        age: Age :math:`\tau = \eta n / (1 - \mu)` of the run: a direction is flat if it relaxes
            more slowly than that, :math:`\epsilon = 1 / \tau`.
        steps: Lanczos steps of each probe to begin with; doubled where they are not enough.
        max_steps: Up to here.
        probes: Random vectors.
        seed: Of the probes.
        kind: ``"hessian"`` or ``"gauss_newton"``.
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.
        max_bytes: Of Lanczos bases held at once, and of graphs kept.

    Returns:
        The number of flat and of negative directions, each with its verdict.

    Raises:
        ValueError: If not exactly one threshold is given, it is not positive, or steps or probes
            are not.

    Source:
        Baity-Jesi et al., ICML 2018, for the question; the specification's section 3.5.
    """
    given = {"eps": eps, "relative": relative, "age": age}
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        raise ValueError(
            f"exactly one of eps, relative and age must be given; got {chosen or 'none'}."
        )
    ((name, value),) = chosen.items()
    if not 0 < value < inf:
        raise ValueError(f"{name} must be positive and finite; got {value}.")

    def threshold(largest: float) -> float:
        if relative is not None:
            return relative * max(largest, 0.0)
        return 1 / value if name == "age" else value

    def interval(measure: Measure) -> tuple[float, float]:
        reach = threshold(float(measure.nodes[-1]))
        return -reach, reach

    operator = operator_of(model, loss_fn, batches, kind, batch_norm, max_bytes)
    check_numbers(operator, steps, probes)
    spectrum, taken = resolved(operator, interval, steps, max_steps, probes, seed, max_bytes)
    reach = threshold(spectrum.largest)
    if not reach > 0:
        raise ValueError(
            "a threshold relative to the largest eigenvalue must have a positive one; got "
            f"{spectrum.largest:.3g}. Give eps instead."
        )
    flat, negative = (
        with_advice(spectrum.count(low, high), spectrum, taken, max_steps)
        for low, high in ((-reach, reach), (-inf, -reach))
    )
    return FlatDirections(flat, negative, reach, taken, spectrum)


def negative_directions(
    model: nn.Module | Operator,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    batches: Any = None,
    *,
    eps: float = 0.0,
    steps: int = 100,
    max_steps: int = 800,
    probes: int = 10,
    seed: int = 0,
    kind: str = "hessian",
    batch_norm: str = "eval",
    max_bytes: int = 2**31,
) -> Count:
    r"""Count the directions in which the loss falls away: eigenvalues below :math:`-\epsilon`.

    Args:
        model: A module, or an :class:`lowland.dynamics.operators.Operator`.
        loss_fn: With a module, one loss per example.
        batches: With a module, re-iterable of (inputs, target), not augmented.
        eps: Threshold, in the unit of eigenvalues. Zero needs a spectrum without zeros.
        steps: Lanczos steps of each probe to begin with; doubled where they are not enough.
        max_steps: Up to here.
        probes: Random vectors.
        seed: Of the probes.
        kind: ``"hessian"`` or ``"gauss_newton"``.
        batch_norm: As for :func:`lowland.dynamics.hessian_product`.
        max_bytes: Of Lanczos bases held at once, and of graphs kept.

    Returns:
        The number, its errors and the verdict.

    Raises:
        ValueError: If eps is negative, or steps or probes are not positive.

    Source:
        The specification's sections 3.5 and 7.4.
    """
    if not 0 <= eps < inf:
        raise ValueError(f"eps must be at least 0 and finite; got {eps}.")
    operator = operator_of(model, loss_fn, batches, kind, batch_norm, max_bytes)
    check_numbers(operator, steps, probes)
    spectrum, taken = resolved(
        operator, lambda _: (-inf, -eps), steps, max_steps, probes, seed, max_bytes
    )
    return with_advice(spectrum.count(-inf, -eps), spectrum, taken, max_steps)


def resolved(
    operator: Operator,
    interval: Interval,
    steps: int,
    max_steps: int,
    probes: int,
    seed: int,
    max_bytes: int,
) -> tuple[SpectralDensity, int]:
    """Take Lanczos steps until an interval is resolved in every probe, or there are too many."""
    check_operator(operator, generator(seed, "check"))

    def is_enough(matrix: Tridiagonal) -> bool:
        measure = measure_of(matrix)
        low, high = interval(measure)
        if not low < high:
            return False
        least, most = measure.within(low, high, floor_of(measure, operator))
        # A third of the allowed error; the probes need the rest.
        allowed = max(TOLERANCE * (least + most) / 2, 0.5 / operator.size) / 3
        settled = most * operator.size < 0.5 or measure.has_settled(low, high)
        return (most - least) / 2 <= allowed and settled

    found = lanczos_of_probes(
        operator,
        probes,
        steps,
        seed=seed,
        max_steps=max_steps,
        until=is_enough,
        max_bytes=max_bytes,
    )
    spectrum = density_of([measure_of(matrix) for matrix in found], operator)
    return spectrum, max(matrix.steps for matrix in found)


def with_advice(count: Count, spectrum: SpectralDensity, taken: int, max_steps: int) -> Count:
    """Name the limit where it is what stands in the way, and the matrix where it costs less."""
    if count.reliable:
        return count
    reason = count.reason
    if "more steps" in reason and taken >= max_steps:
        reason = f"{reason} (max_steps was {max_steps})"
    if spectrum.size <= taken * len(spectrum.measures):
        reason = (
            f"{reason}, or all {spectrum.size} eigenvalues from exact_spectrum(...).count: that is "
            "fewer products"
        )
    return replace(count, reason=reason)
