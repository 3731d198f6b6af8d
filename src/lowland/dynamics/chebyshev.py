"""Chebyshev moments of an operator, and what a step filter of positive kernel reads from them."""

from math import acos, pi

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.lanczos import Tridiagonal
from lowland.dynamics.operators import Operator
from lowland.dynamics.probes import probe_vectors
from lowland.training import wide_type

__all__ = ["Moments", "jackson", "spectral_range", "tail"]

RANGE_STEPS = 50  # of Lanczos for the ends of the spectrum
MARGIN = 0.01  # of its width, beyond them
WIDTHS = 24  # widths of the edge that are tried for the bounds


class Moments:
    r"""Chebyshev moments :math:`v' T_k(A) v / v'v` of some probes, two from each product.

    Args:
        starts: The probes, one per row.
        span: The spectrum lies in it; it is mapped to -1 to 1.
    """

    def __init__(self, starts: Float[Tensor, "probes params"], span: tuple[float, float]):
        self.center, self.radius = (span[0] + span[1]) / 2, (span[1] - span[0]) / 2
        self.now = starts.to(wide_type(starts.device))
        self.before: Tensor | None = None
        self.squares = dots(self.now, self.now)
        self.values = [torch.ones_like(self.squares)]
        self.eps = torch.finfo(starts.dtype).eps

    def grow(self, operator: Operator, products: int) -> None:
        """Go on until there are so many products, and twice as many moments; or one escapes."""
        while len(self.values) <= 2 * products and not self.escapes:
            product = operator.rows(self.now.to(operator.dtype)).to(self.now.dtype)
            following = (product - self.center * self.now) / self.radius
            if self.before is not None:
                following = 2 * following - self.before
            odd, even = (dots(following, v) / self.squares for v in (self.now, following))
            # T_2k+1 = 2 T_k+1 T_k - T_1 and T_2k = 2 T_k T_k - 1
            self.values.append(2 * odd - self.values[1] if self.before is not None else odd)
            self.values.append(2 * even - 1)
            self.before, self.now = self.now, following

    @property
    def escapes(self) -> bool:
        """Whether an eigenvalue lies outside of the span: moments grow beyond 1."""
        rounding = 4 * self.eps * len(self.values)
        return bool((torch.stack(self.values[-2:]).abs() > 1 + rounding).any())

    def within(self, low: float, high: float) -> Float[Tensor, "probes 3"]:
        """Bound the weight of the eigenvalues in an interval, and estimate it, for each probe.

        Args:
            low: Lower end.
            high: Upper end.

        Returns:
            Least, likely and most weight, 0 to 1.
        """
        if low >= self.center + self.radius or high <= self.center - self.radius:
            return self.squares.new_zeros(len(self.squares), 3).cpu().double()
        moments = torch.stack(self.values, 1).cpu().double()
        factors = jackson(moments.shape[1] - 1)
        first, last = (self.angle(end) for end in (high, low))
        reach = torch.logspace(-0.5, 2, WIDTHS, dtype=torch.float64) * pi / len(factors)
        edges = torch.cat([reach, torch.zeros(1, dtype=torch.float64), -reach])
        # an end beyond the spectrum has no edge
        begin = (first - edges).clamp(0, pi) if first > 0 else torch.zeros_like(edges)
        end = (last + edges).clamp(0, pi) if last < pi else torch.full_like(edges, pi)
        steps = step_coefficients(begin, torch.maximum(begin, end), len(factors))
        shares = moments @ (steps * factors).T
        outside = torch.tensor([tail(factors, float(width)) for width in reach])
        wide, middle, narrow = shares.split([WIDTHS, 1, WIDTHS], dim=1)
        rounding = self.eps * len(factors) ** 0.5
        most = (wide / (1 - outside)).amin(1) + rounding
        least = ((narrow - outside) / (1 - outside)).amax(1) - rounding
        least, most = least.clamp(0, 1), most.clamp(0, 1)
        likely = torch.minimum(torch.maximum(middle[:, 0], least), most)
        return torch.stack([least, likely, most], 1)

    def angle(self, x: float) -> float:
        """Where a point of the spectrum lies on the half circle."""
        return acos(min(max((x - self.center) / self.radius, -1.0), 1.0))


def dots(x: Float[Tensor, "probes params"], y: Float[Tensor, "probes params"]) -> Tensor:
    """Dot products, row by row."""
    return torch.linalg.vecdot(x, y)


def jackson(degree: int) -> Float[Tensor, " moments"]:
    """Damping factors that make a truncated Chebyshev series the convolution with a kernel >= 0.

    Args:
        degree: Highest moment.

    Returns:
        One factor for each moment from 0 on.

    Source:
        Weisse, Wellein, Alvermann & Fehske, Rev. Mod. Phys. 78, 275 (2006), Eq. 71.
    """
    k = torch.arange(degree + 1, dtype=torch.float64)
    turn = torch.tensor(pi / (degree + 2), dtype=torch.float64)
    shrinking = (1 - k / (degree + 2)) * turn.sin() * (k * turn).cos()
    return (shrinking + turn.cos() * (k * turn).sin() / (degree + 2)) / turn.sin()


def tail(factors: Float[Tensor, " moments"], reach: float) -> float:
    """How much of a kernel lies farther out than an angle, on both sides together."""
    k = torch.arange(1, len(factors), dtype=torch.float64)
    inside = (reach + 2 * (factors[1:] * (k * reach).sin() / k).sum()) / pi
    return min(max(1 - float(inside), 0.0), 1 - 1e-9)


def step_coefficients(
    begin: Float[Tensor, " steps"], end: Float[Tensor, " steps"], count: int
) -> Float[Tensor, "steps moments"]:
    """Chebyshev series of functions that are 1 between two angles and 0 elsewhere."""
    k = torch.arange(1, count, dtype=torch.float64)
    waves = 2 * ((end[:, None] * k).sin() - (begin[:, None] * k).sin()) / (k * pi)
    return torch.cat([((end - begin) / pi).unsqueeze(1), waves], 1)


def spectral_range(operator: Operator, seed: int) -> tuple[float, float]:
    """Find the ends of a spectrum by Lanczos, without a basis, and go beyond them a little."""
    (now,) = probe_vectors(operator, [-1], seed)
    now = (now / now.norm()).to(wide_type(now.device))
    before, beta = torch.zeros_like(now), 0.0
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(min(RANGE_STEPS, operator.size)):
        rest = operator.rows(now.to(operator.dtype).unsqueeze(0))[0].to(now.dtype) - beta * before
        alphas.append(float(now @ rest))
        rest -= alphas[-1] * now
        beta = float(rest.norm())
        betas.append(beta)
        scale = max(map(abs, alphas + betas))
        if not beta > 4 * torch.finfo(operator.dtype).eps * scale:
            break
        before, now = now, rest / beta
    diagonal, off_diagonal = (torch.tensor(v, dtype=torch.float64) for v in (alphas, betas))
    values, vectors = Tridiagonal(diagonal, off_diagonal, is_exhausted=True).eigh()
    errors = betas[-1] * vectors[-1].abs()
    low, high = float(values[0] - errors[0]), float(values[-1] + errors[-1])
    least = 64 * torch.finfo(operator.dtype).eps * max(abs(low), abs(high)) or 1.0
    margin = max(MARGIN * (high - low), least)
    return low - margin, high + margin
