"""Landscapes of a few coordinates whose minima, saddles and best paths are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from lowland.problems.formulas import (
    camel_value,
    curvy_valley_value,
    eggcarton_value,
    leps_value,
    mueller_brown_value,
    wells_value,
)

__all__ = [
    "Potential",
    "curvy_valley",
    "double_wells",
    "eggcarton",
    "leps_harmonic",
    "mueller_brown",
    "six_hump_camel",
]


@dataclass(frozen=True)
class Potential:
    """A function of points, and what is known about it.

    Attributes:
        name: What it is called.
        value: From points ``(..., dim)`` to one value each, ``(...)``; follows dtype and device.
        minima: Minima that the other fields speak about, float64; there may be more.
        saddles: Saddles with one downhill direction, float64; there may be more.
        minimax: For each two minima, the lowest possible maximum over all continuous paths that
            join them; the value of a minimum on the diagonal.
        line_max: For each two minima, the maximum over the straight line between them.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    minima: Float[Tensor, "minima dim"]
    saddles: Float[Tensor, "saddles dim"]
    minimax: Float[Tensor, "minima minima"]
    line_max: Float[Tensor, "minima minima"]

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.minima.shape[1]

    @property
    def minima_values(self) -> Float[Tensor, " minima"]:
        """Value at each minimum."""
        return self.minimax.diagonal()

    @property
    def saddle_values(self) -> Float[Tensor, " saddles"]:
        """Value at each saddle."""
        return self.value(self.saddles)

    def barrier(self, start: int, end: int) -> float:
        """How far every path must climb above the higher one of two minima.

        Args:
            start: Index of a minimum.
            end: Index of another one.

        Returns:
            The minimax value less the larger of both minima; zero if they are the same.
        """
        higher = torch.maximum(self.minima_values[start], self.minima_values[end])
        return float(self.minimax[start, end] - higher)


def mueller_brown() -> Potential:
    """Give the Mueller-Brown surface: three minima in a bent valley, two saddles between them.

    The minima are those of the literature, deepest first; the saddles lie between minima 1 and 2
    (counted from 0), and between 0 and 2. Newton's method in 40 digits confirms what the
    specification prints, but for ``x`` of minimum 2, -0.0500108230 (printed: -0.0500108236), and
    one in the last digit of both coordinates of minimum 0 and of ``x`` of the first saddle.

    Returns:
        The potential.

    Source:
        Mueller and Brown, Theor. Chim. Acta 53, 75 (1979); no_barriers, section 7.1.
    """
    deepest, middle, shallow = -146.69951720995401, -108.16672411685236, -80.767818129659028
    inner, outer = -72.248940112325212, -40.664843508657404
    return Potential(
        "Mueller-Brown",
        mueller_brown_value,
        minima=points(
            (-0.55822363463302428, 1.4417258418046687),
            (0.62349940493087651, 0.028037758528685666),
            (-0.050010822998206058, 0.46669410487197209),
        ),
        saddles=points(
            (0.21248658200066201, 0.29298832510736777),
            (-0.8220015587327321, 0.62431280281487136),
        ),
        minimax=symmetric((deepest, outer, outer), (middle, inner), (shallow,)),
        line_max=symmetric(
            (deepest, 12.676227525699212, 3.3859186076172319),
            (middle, -72.246871926429500),
            (shallow,),
        ),
    )


def double_wells(dim: int = 2) -> Potential:
    """Give independent double wells, one per coordinate: a minimum at every corner of a cube.

    Whoever goes from one corner to another must change the sign of a coordinate, at the price of
    1 each time, and one at a time is enough: the minimax value of any two corners is exactly 1.
    A straight line changes several at once and pays 1 for each. It is a symmetry trap: on it,
    no force points sideways.

    Args:
        dim: Number of coordinates, 1 to 10 (there are ``2 ** dim`` minima).

    Returns:
        The potential, minima in the order of counting with the digits -1 and 1.

    Raises:
        ValueError: If ``dim`` is out of its range.

    Source:
        no_barriers, section 7.2.
    """
    if not 1 <= dim <= 10:
        raise ValueError(f"dim must lie between 1 and 10; got {dim}.")
    minima = points(*product((-1.0, 1.0), repeat=dim))
    sides = list(product((-1.0, 1.0), repeat=dim - 1))
    saddles = points(*(side[:k] + (0.0,) + side[k:] for k in range(dim) for side in sides))
    different = (minima[:, None] != minima[None]).sum(2).double()
    return Potential(
        f"double wells in {dim} dimensions",
        wells_value,
        minima,
        saddles,
        minimax=different.clamp_max(1),
        line_max=different,
    )


def six_hump_camel() -> Potential:
    """Give the six-hump camel with its two deepest minima, joined over the origin at exactly 0.

    Four shallower minima are left out.

    Returns:
        The potential.

    Source:
        no_barriers, section 7.2.
    """
    x, y, lowest = 0.089842013100318062, -0.71265640302073963, -1.0316284534898774
    heights = symmetric((lowest, 0.0), (lowest,))
    minima, saddles = points((x, y), (-x, -y)), points((0.0, 0.0))
    return Potential("six-hump camel", camel_value, minima, saddles, heights, heights.clone())


def curvy_valley() -> Potential:
    r"""Give a valley along :math:`y = \sin x` over a hill of height exactly 1.

    With :math:`X = 5 \pi / 2` the minima are :math:`\pm (X, 1)`, value 0. Every path between them
    crosses :math:`x = 0`, where the value is :math:`1 + y^2`. The valley itself is 1.206268 times
    as long as the straight line (a relaxed path need not follow it: only its top is fixed).

    Returns:
        The potential.

    Source:
        The toy ``CurvyValley`` of the official AutoNEB code; no_barriers, section 7.2.
    """
    minima, saddles = points((-5 * pi / 2, -1.0), (5 * pi / 2, 1.0)), points((0.0, 0.0))
    line_max = symmetric((0.0, 2.9766682704728352), (0.0,))
    return Potential(
        "curvy valley",
        curvy_valley_value,
        minima,
        saddles,
        symmetric((0.0, 1.0), (0.0,)),
        line_max,
    )


def eggcarton() -> Potential:
    """Give the eggcarton with the four cells around the origin.

    Minima have the value -2 and lie at half-integers; neighbors are separated by a saddle of value
    0, exactly. The diagonal runs over the maximum at the origin, value 2: a symmetry trap.

    Returns:
        The potential.

    Source:
        The toy ``Eggcarton`` of the official AutoNEB code; no_barriers, section 7.2.
    """
    return Potential(
        "eggcarton",
        eggcarton_value,
        minima=points((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5)),
        saddles=points((-0.5, 0.0), (0.0, -0.5), (0.0, 0.5), (0.5, 0.0)),
        minimax=symmetric((-2.0, 0.0, 0.0, 0.0), (-2.0, 0.0, 0.0), (-2.0, 0.0), (-2.0,)),
        line_max=symmetric((-2.0, 0.0, 0.0, 2.0), (-2.0, 2.0, 0.0), (-2.0, 0.0), (-2.0,)),
    )


def leps_harmonic() -> Potential:
    """Give the LEPS surface of three atoms on a line, coupled to a harmonic oscillator.

    Coordinates: distance of the atoms A and B, and of the oscillator; the distance of A and C is
    fixed. At a fixed first coordinate the oscillator has one minimum, where its own term
    vanishes. So all stationary points lie on one straight line, the minimax value is the
    maximum of a function of one variable, and the straight line between the minima, of which the
    specification says nothing, already is a best path.

    Returns:
        The potential.

    Source:
        Jonsson, Mills and Jacobsen (1998), with b = 0.80; no_barriers, section 7.2.
    """
    top = -0.87522467910114287
    heights = symmetric((-4.5091759956602713, top), (-2.6202871068303845,))
    return Potential(
        "LEPS and harmonic oscillator",
        leps_value,
        minima=points(
            (0.7415206601197405, 1.3034191582218195), (3.0012758053572137, -1.3043382793822246)
        ),
        saddles=points((2.0208277343663423, -0.17290120545875903)),
        minimax=heights,
        line_max=heights.clone(),
    )


def points(*rows: Sequence[float]) -> Float[Tensor, "rows dim"]:
    """Stack points given as numbers."""
    return torch.tensor(rows, dtype=torch.float64)


def symmetric(*rows: Sequence[float]) -> Float[Tensor, "size size"]:
    """Complete a matrix from the rows of its upper triangle, each from the diagonal on."""
    full = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        full[i, i:] = full[i:, i] = points(row)[0]
    return full
