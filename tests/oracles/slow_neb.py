"""The nudged elastic band, pivot by pivot on lists of numbers, as section 3.1 of the paper's page.

Nothing here is shared with the library: no tensors, no vector operations, no library calls.
"""

from collections.abc import Callable
from math import dist, exp, sqrt

Point = list[float]
ValueAndGrad = Callable[[Point], tuple[float, Point]]


def slow_neb(
    path: list[Point],
    weights: list[float],
    value_and_grad: ValueAndGrad,
    *,
    steps: int,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    tangent: str = "paper",
    spring_constant: float | None = None,
    project: bool = True,
) -> list[list[Point]]:
    """Relax a path and return it as it was after every step."""
    path = [list(point) for point in path]
    velocity = [[0.0] * len(point) for point in path]
    after_each_step = []
    for _ in range(steps):
        if spring_constant is None:
            path = slow_redistribute(path, weights)
        losses, grads = zip(*(value_and_grad(point) for point in path), strict=True)
        moved = [list(point) for point in path]
        for i in range(1, len(path) - 1):
            tau = slow_tangent(path[i - 1 : i + 2], losses[i - 1 : i + 2], tangent)
            grad = [g + weight_decay * p for g, p in zip(grads[i], path[i], strict=True)]
            along = sum(g * t for g, t in zip(grad, tau, strict=True)) if project else 0.0
            pull = 0.0
            if spring_constant is not None:
                ahead, behind = dist(path[i], path[i + 1]), dist(path[i - 1], path[i])
                pull = spring_constant * (ahead - behind)
            for a in range(len(tau)):
                minus_force = grad[a] - along * tau[a] - pull * tau[a]
                velocity[i][a] = momentum * velocity[i][a] + minus_force
                moved[i][a] -= learning_rate * velocity[i][a]
        path = moved
        after_each_step.append(path)
    return after_each_step


def slow_tangent(points: list[Point], losses: list[float], kind: str) -> Point:
    """Direction of the path at the middle one of three points."""
    before, here, after = points
    low, middle, high = losses
    ahead = [q - p for p, q in zip(here, after, strict=True)]
    behind = [q - p for p, q in zip(before, here, strict=True)]
    rises = high > low
    if kind == "paper":
        return unit(ahead if rises else behind)
    if low < middle < high:
        return unit(ahead)
    if low > middle > high:
        return unit(behind)
    up, down = abs(high - middle), abs(low - middle)
    larger, smaller = max(up, down), min(up, down)
    if larger == 0:
        return unit([a + b for a, b in zip(unit(ahead), unit(behind), strict=True)])
    if kind == "official":  # the published code: normalized, and the weights the wrong way round
        ahead, behind, larger, smaller = unit(ahead), unit(behind), smaller, larger
    of_ahead, of_behind = (larger, smaller) if rises else (smaller, larger)
    return unit([of_ahead * a + of_behind * b for a, b in zip(ahead, behind, strict=True)])


def slow_redistribute(path: list[Point], weights: list[float]) -> list[Point]:
    """Walk along the polyline and put down a pivot whenever its share of the way is done."""
    lengths = [dist(p, q) for p, q in zip(path[:-1], path[1:], strict=True)]
    total, new, share = sum(lengths), [path[0]], 0.0
    for weight in weights[:-1]:
        share += weight
        left, segment = total * share, 0
        while segment < len(lengths) - 1 and left >= lengths[segment]:
            left -= lengths[segment]
            segment += 1
        alpha = left / lengths[segment]
        pair = zip(path[segment], path[segment + 1], strict=True)
        new.append([p + alpha * (q - p) for p, q in pair])
    return [*new, path[-1]]


def slow_line(start: Point, end: Point, interior: int) -> list[Point]:
    """A straight line with evenly spaced pivots."""
    alphas = [i / (interior + 1) for i in range(interior + 2)]
    return [[p + a * (q - p) for p, q in zip(start, end, strict=True)] for a in alphas]


def slow_highest(path: list[Point], value_and_grad: ValueAndGrad, per_segment: int) -> float:
    """Highest value at evenly spaced points of every segment, ends included."""
    highest = value_and_grad(path[-1])[0]
    for p, q in zip(path[:-1], path[1:], strict=True):
        for k in range(per_segment):
            between = [a + k / per_segment * (b - a) for a, b in zip(p, q, strict=True)]
            highest = max(highest, value_and_grad(between)[0])
    return highest


def slow_length(path: list[Point]) -> float:
    """Length of the polyline."""
    return sum(dist(p, q) for p, q in zip(path[:-1], path[1:], strict=True))


def unit(vector: Point) -> Point:
    """Give a vector unit length."""
    norm = sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]


def mueller_brown_by_hand(point: Point) -> tuple[float, Point]:
    """Value and gradient of the Mueller-Brown surface, from the table of section 7.1."""
    heights = (-200.0, -100.0, -170.0, 15.0)
    squares_of_x, mixed = (-1.0, -1.0, -6.5, 0.7), (0.0, 0.0, 11.0, 0.6)
    squares_of_y = (-10.0, -10.0, -6.5, 0.7)
    centers = ((1.0, 0.0), (0.0, 0.5), (-0.5, 1.5), (-1.0, 1.0))
    value = slope_x = slope_y = 0.0
    for height, a, b, c, (x0, y0) in zip(
        heights, squares_of_x, mixed, squares_of_y, centers, strict=True
    ):
        x, y = point[0] - x0, point[1] - y0
        term = height * exp(a * x * x + b * x * y + c * y * y)
        value += term
        slope_x += term * (2 * a * x + b * y)
        slope_y += term * (b * x + 2 * c * y)
    return value, [slope_x, slope_y]
