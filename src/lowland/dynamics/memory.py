r"""The past of a two-time equation: instants, what each weighs in an integral, and forgetting.

A memory integral over past instants :math:`s` is a sum over nodes. Its integrand is a smooth
*kernel* of the present, times a *function* that belongs to a column :math:`t'` and may vary fast
near :math:`s = t'`. What is stored per column and node is weight times function: its mass. When a
node is forgotten, the kernel there is interpolated from its four neighbors, so they inherit its
mass with the interpolation's coefficients: the sharp function is never interpolated. Remembered
instants may then lie as far apart as the kernel allows, a fixed share of the distance to either
end, and their number grows with the logarithm of time.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["Memory"]

# Fourth-order weights of a uniform grid, in steps: two cells, three cells, and an inner cell from
# the four nodes around it.
TWO = np.array([1, 4, 1]) / 3
THREE = np.array([3, 9, 9, 3]) / 8
INNER = np.array([-1, 13, 13, -1]) / 24
DEPTH = 4  # rows before the present that are kept whole
FIXED_FIRST, FIXED_LAST = 4, 9  # nodes at the ends that are never forgotten: their weights change
TIME, WEIGHT, ROWS, SLOPES = 0, 1, slice(2, 2 + 2 * DEPTH), slice(2 + 2 * DEPTH, 2 + 4 * DEPTH)


class Memory:
    r"""Nodes :math:`s_0 < \dots < s_m = t` and the masses of all columns :math:`t'` on them.

    Attributes:
        step: Distance of the newest nodes, in the model's time.
        count: Number of nodes, the present included.
        lines: One value per node each: time, settled weight of the plain integral, and the rows
            :math:`C(s, \cdot)`, :math:`R(s, \cdot)` of the last four instants with their slopes.
        masses: Masses (function, node, column) of :math:`C(s, t')`, of :math:`R(s, t')` for
            :math:`s > t'`, and of :math:`R(t', s)` for :math:`s < t'`.
    """

    def __init__(self, step: float, capacity: int) -> None:
        self.step = step
        self.count = 1
        self.lines = np.zeros((2 + 4 * DEPTH, capacity))
        self.masses = np.zeros((3, capacity, capacity))
        self.steps = 0
        self.weights = np.zeros(1)  # of the plain integral up to the present
        self.last = np.zeros((DEPTH, 1))  # weights of the newest nodes, by column
        self.near = np.zeros((0, 2, 0))  # those, times the rows before the present

    @property
    def times(self) -> Float[np.ndarray, " node"]:
        """The nodes."""
        return self.lines[TIME, : self.count]

    @property
    def rows(self) -> Float[np.ndarray, "age function capacity"]:
        """Rows of C and R before the present, the newest first."""
        return self.lines[ROWS].reshape(DEPTH, 2, -1)

    @property
    def slopes(self) -> Float[np.ndarray, "age function capacity"]:
        """Time derivatives of the rows, the newest first."""
        return self.lines[SLOPES].reshape(DEPTH, 2, -1)

    def extend(self) -> None:
        """Add an instant one step later, and weigh the integrals that end there."""
        if self.count == self.lines.shape[1]:
            more = self.count
            self.lines = np.pad(self.lines, ((0, 0), (0, more)))
            self.masses = np.pad(self.masses, ((0, 0), (0, more), (0, more)))
        now, h = self.count, self.step
        self.count += 1
        self.steps += 1
        self.lines[:, now] = 0
        self.lines[TIME, now] = self.steps * h
        self.masses[:, now, : now + 1] = 0
        self.masses[:, :now, now] = 0
        self.settle(now)
        # Simpson's rule on the last two cells; columns younger than four cells take what they have.
        self.last = np.empty((DEPTH, now))
        self.last[:] = h * np.array([0, 1, 4, 1])[:, None] / 3
        if now >= 3:
            self.last[:, now - 3] = h * THREE
        self.last[:, now - 1] = h * np.array([0, 0, 0.5, 0.5])
        depth = min(now, DEPTH - 1)
        self.near = self.last[DEPTH - 1 - depth : -1, None] * self.rows[depth - 1 :: -1, :, :now]
        self.weights = self.lines[WEIGHT, : now + 1].copy()
        self.weights[now - depth :] += self.last[DEPTH - 1 - depth :, 0]

    def settle(self, now: int) -> None:
        """Give the cell that ends two before the present its weights for good."""
        if now < DEPTH:
            return
        first, h, rows = now - DEPTH, self.step, self.rows
        self.masses[:2, first : now - 1, first] += h * TWO * rows[:0:-1, :, first].T
        if first == 0:
            self.lines[WEIGHT, : now - 1] += h * TWO
            return
        self.lines[WEIGHT, first:now] += h * INNER
        for function in range(2):
            inner = (h * INNER)[:, None] * rows[::-1, function, :first]
            self.masses[function, first:now, :first] += inner

    def integrals(
        self,
        kernel: Float[np.ndarray, " node"],
        other: Float[np.ndarray, " node"],
        row: Float[np.ndarray, "2 node"],
    ) -> Float[np.ndarray, "2 column"]:
        r"""Integrate the present's kernels over the past, for every column but the newest.

        Args:
            kernel: K(s), here :math:`f''(C(t, s)) R(t, s)`.
            other: L(s), here :math:`f'(C(t, s))`.
            row: C(t, s) and R(t, s) of the present.

        Returns:
            :math:`\int_0^t K(s) C(s, t') ds + \int_0^{t'} L(s) R(t', s) ds` and
            :math:`\int_{t'}^t K(s) R(s, t') ds`.
        """
        now = self.count - 1
        older, masses = kernel[:now], self.masses[:, :now, :now]
        result = (kernel[now] * self.last[-1]) * row[:, :now]
        result[0] += older @ masses[0]
        result[0] += other[:now] @ masses[2]
        result[1] += older @ masses[1]
        for weight, terms in zip(older[now - len(self.near) :], self.near, strict=True):
            result += weight * terms
        return result

    def accept(self, row: Float[np.ndarray, "2 node"], slope: Float[np.ndarray, "2 node"]) -> None:
        """Keep the present's row as the newest, and open a column for it.

        Args:
            row: C(t, s) and R(t, s).
            slope: Their time derivatives.
        """
        size = self.count
        for ring, new in ((self.rows, row), (self.slopes, slope)):
            for age in range(DEPTH - 1, 0, -1):
                ring[age, :, :size] = ring[age - 1, :, :size]
            ring[0, :, :size] = new
        self.masses[0, :size, size - 1] = self.weights * row[0]
        self.masses[2, :size, size - 1] = self.weights * row[1]

    def forget(self, spacing: float) -> None:
        """Drop nodes that lie closer than needed, until none does.

        Args:
            spacing: Wanted distance of nodes, as a share of the distance to the nearer end.
        """
        while True:
            times = self.times
            to_end = np.minimum(times + self.step / spacing, times[-1] - times)[1:-1]
            close = np.flatnonzero(times[2:] - times[:-2] <= 2 * spacing * to_end) + 1
            close = close[(close >= FIXED_FIRST) & (close < self.count - FIXED_LAST)]
            dropped = apart(close, 3)
            if not len(dropped):
                return
            self.hand_over(dropped)

    def hand_over(self, dropped: np.ndarray) -> None:
        """Give the masses of some nodes to their neighbors, and remove nodes and columns."""
        size, times = self.count, self.times
        for shift, share in zip((-2, -1, 1, 2), shares(times, dropped), strict=True):
            heir = dropped + shift
            self.masses[:, heir, :size] += share[:, None] * self.masses[:, dropped, :size]
            self.lines[WEIGHT, heir] += share * self.lines[WEIGHT, dropped]
        kept = np.delete(np.arange(size), dropped)
        self.count = len(kept)
        for masses in self.masses:
            masses[: self.count, : self.count] = masses[np.ix_(kept, kept)]
        self.lines[:, : self.count] = self.lines[:, kept]


def shares(times: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Coefficients of cubic interpolation at nodes from the two neighbors on either side."""
    around = times[nodes + np.array([-2, -1, 1, 2])[:, None]]
    result = np.ones_like(around)
    for a in range(4):
        for b in range(4):
            if a != b:
                result[a] *= (times[nodes] - around[b]) / (around[a] - around[b])
    return result


def apart(positions: np.ndarray, distance: int) -> np.ndarray:
    """Choose from rising positions some that lie at least a distance apart."""
    chosen: list[int] = []
    for position in positions.tolist():
        if not chosen or position - chosen[-1] >= distance:
            chosen.append(position)
    return np.array(chosen, dtype=int)
