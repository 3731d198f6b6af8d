"""Lanczos: the tridiagonal matrices of an operator in Krylov spaces of random vectors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.dynamics.operators import Operator
from lowland.training import wide_type

__all__ = ["Tridiagonal", "lanczos"]

# Numbers of a basis that are widened to float64 at once.
CHUNK = 2**22


@dataclass(frozen=True)
class Tridiagonal:
    r"""An operator restricted to the Krylov space of a start vector.

    Attributes:
        diagonal: :math:`\alpha_1 \dots \alpha_m`, float64 on the CPU.
        off_diagonal: :math:`\beta_1 \dots \beta_m`. The last one leads out of the space: zero
            (to rounding) if the operator never leaves it.
        is_exhausted: Whether the operator never leaves the space, so that its eigenvalues there
            are exact.
    """

    diagonal: Float[Tensor, " steps"]
    off_diagonal: Float[Tensor, " steps"]
    is_exhausted: bool

    @property
    def steps(self) -> int:
        """Dimension of the space."""
        return len(self.diagonal)

    def eigh(self) -> tuple[Float[Tensor, " steps"], Float[Tensor, "steps steps"]]:
        """Ritz values, ascending, and their vectors as columns."""
        inner = self.off_diagonal[:-1]
        matrix = torch.diag(self.diagonal) + torch.diag(inner, 1) + torch.diag(inner, -1)
        return torch.linalg.eigh(matrix)


def lanczos(
    operator: Operator,
    starts: Float[Tensor, "probes params"],
    steps: int,
    *,
    max_steps: int | None = None,
    until: Callable[[Tridiagonal], bool] | None = None,
    max_bytes: int = 2**31,
) -> list[Tridiagonal]:
    r"""Build an orthonormal basis of the Krylov space of each start vector, and restrict to it.

    New vectors are orthogonalized against the whole basis twice, with dot products in float64, so
    that Ritz values do not appear more than once. A probe stops where the operator does not leave
    its space: :math:`\beta < 10^{-12}` of the largest entry so far (in float32, a few roundings).

    Args:
        operator: A symmetric operator.
        starts: One row per probe, any length but zero.
        steps: Dimension of the spaces; at most the size of the operator is used.
        max_steps: As ``until`` is not met the steps are doubled up to here. None: not at all.
        until: From the matrix of a probe, whether its steps are enough.
        max_bytes: Of bases held at once. Probes go together as far as theirs fit, at least one.
            Where even that of one does not fit in float64, it is kept in the operator's type; and
            where ``max_steps`` do not fit in that either, it begins with ``steps`` and is copied
            as it grows, for a moment half as large again.

    Returns:
        One matrix per probe.

    Raises:
        ValueError: If there is no probe or step, or a start vector is zero.

    Source:
        Lanczos (1950), with full reorthogonalization; the specification's section 3.5.
    """
    most = most_steps(operator, steps, max_steps)
    if not len(starts) or steps < 1:
        raise ValueError(
            f"there must be at least one probe and one step; got {len(starts)} and {steps}."
        )
    if not (starts != 0).any(1).all():
        raise ValueError("a start vector must not be zero; got one that is.")
    group, kept, fits = together(operator, most, max_bytes)
    rows = most if fits or until is None else min(steps, most)
    finest = wide_type(starts.device)
    found: list[Tridiagonal] = []
    for some in starts.split(group):
        spaces = [Space(start.to(finest), most, operator.dtype, kept, rows) for start in some]
        for limit in limits(min(steps, most), most):
            grow(operator, spaces, limit)
            for space in spaces:
                space.is_enough = space.is_done or (
                    until is not None and until(space.tridiagonal())
                )
            if until is None or all(space.is_enough for space in spaces):
                break
        found += [space.tridiagonal() for space in spaces]
    return found


def most_steps(operator: Operator, steps: int, max_steps: int | None) -> int:
    """Dimension that no space will pass."""
    return min(max(steps, max_steps or steps), operator.size)


def together(operator: Operator, most: int, max_bytes: int) -> tuple[int, torch.dtype, bool]:
    """Say how many probes go together, in which type their bases are kept, and whether one fits."""
    finest, numbers = wide_type(operator.device), most * operator.size
    kept = finest if numbers * finest.itemsize <= max_bytes else operator.dtype
    fitting = max_bytes // max(1, numbers * kept.itemsize)
    return max(1, fitting), kept, fitting > 0


def limits(steps: int, most: int) -> Iterator[int]:
    """Steps, doubled until there are as many as may be."""
    while steps < most:
        yield steps
        steps *= 2
    yield most


def grow(operator: Operator, spaces: list["Space"], limit: int) -> None:
    """Add dimensions to the spaces that can have more, with one block of products per step."""
    while True:
        growing = [s for s in spaces if not s.is_done and not s.is_enough and s.steps < limit]
        if not growing:
            return
        newest = torch.stack([space.newest for space in growing]).to(operator.dtype)
        products = operator.rows(newest)
        for space, product in zip(growing, products, strict=True):
            space.extend(product)


class Space:
    """A Krylov space as it grows.

    Args:
        start: First vector, in the type of dot products.
        most: Dimension that it will not pass.
        dtype: Of the operator.
        kept: Of the basis.
        rows: Vectors of the basis that there is room for at first; doubled where it needs more.
    """

    def __init__(
        self,
        start: Float[Tensor, " params"],
        most: int,
        dtype: torch.dtype,
        kept: torch.dtype,
        rows: int,
    ):
        self.wide = start.dtype
        self.dtype = dtype
        self.most = most
        self.basis = start.new_empty(rows, len(start), dtype=kept)
        self.basis[0] = start / start.norm()
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.scale = 0.0
        self.is_exhausted = False
        self.is_done = False
        self.is_enough = False

    @property
    def steps(self) -> int:
        """Dimension so far."""
        return len(self.alphas)

    @property
    def newest(self) -> Float[Tensor, " params"]:
        """The vector that the operator is to be applied to."""
        return self.basis[self.steps]

    def extend(self, product: Float[Tensor, " params"]) -> None:
        """Take the product of the newest vector, and find the next one."""
        newest = self.newest.to(self.wide)
        rest = product.to(self.wide, copy=True)
        self.alphas.append(float(newest @ rest))
        used = self.basis[: self.steps]
        for _ in range(2):
            take_out(used, rest)
        beta = float(rest.norm())
        self.betas.append(beta)
        self.scale = max(self.scale, abs(self.alphas[-1]), beta)
        least = max(1e-12, 4 * torch.finfo(self.dtype).eps)
        self.is_exhausted = not beta > least * self.scale
        self.is_done = self.is_exhausted or self.steps >= self.most
        if not self.is_done:
            if self.steps == len(self.basis):
                more = self.basis.new_empty(min(self.most, 2 * self.steps), len(rest))
                more[: self.steps] = self.basis
                self.basis = more
            torch.div(rest, beta, out=rest)
            self.basis[self.steps] = rest

    def tridiagonal(self) -> Tridiagonal:
        """The operator in this space."""
        values = (torch.tensor(found, dtype=torch.float64) for found in (self.alphas, self.betas))
        return Tridiagonal(*values, is_exhausted=self.is_exhausted)


def take_out(basis: Float[Tensor, "steps params"], rest: Float[Tensor, " params"]) -> None:
    """Make a vector orthogonal to a basis, in place."""
    width = max(1, CHUNK // len(basis))
    parts = [(basis, rest)]
    if width < len(rest):
        parts = list(zip(basis.split(width, dim=1), rest.split(width), strict=True))
    shares = rest.new_zeros(len(basis))
    for some, piece in parts:
        shares += some.to(rest.dtype) @ piece
    for some, piece in parts:
        piece.addmv_(some.to(rest.dtype).T, shares, alpha=-1)
