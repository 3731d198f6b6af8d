"""The Cugliandolo-Kurchan equations as power series in both times, in exact fractions."""

from collections import defaultdict
from fractions import Fraction


def product(a, b, degree):
    """Multiply two polynomials, dicts from exponents to coefficients, up to a total degree."""
    result = defaultdict(Fraction)
    for (i, j), x in a.items():
        for (k, m), y in b.items():
            if i + j + k + m <= degree:
                result[i + k, j + m] += x * y
    return dict(result)


def covariance(squares, derivative, c, degree):
    """The derivative of sum_p a_p^2 q^p / 2 at a polynomial q; squares are a_p^2 by p."""
    result = defaultdict(Fraction)
    for p, square in squares.items():
        factor, power = Fraction(square) / 2, {(0, 0): Fraction(1)}
        for k in range(derivative):
            factor *= p - k
        for _ in range(p - derivative):
            power = product(power, c, degree)
        for key, x in power.items():
            result[key] += factor * x
    return dict(result)


def series(squares, temperature, degree):
    """Picard iteration: every round makes one more degree right.

    Returns C(t, t') and R(t, t') as {(power of t, power of t'): coefficient}, and E(t) as a list.
    """
    c = r = {(0, 0): Fraction(1)}
    for _ in range(degree + 1):
        first = covariance(squares, 1, c, degree)
        kernel = product(covariance(squares, 2, c, degree), r, degree)
        energy = [-x for x in up_to_t(product(first, r, degree), degree)]
        other = up_to_t(product(kernel, c, degree), degree)
        mu = [y - x for x, y in zip(energy, other, strict=True)]
        mu[0] += Fraction(temperature)
        slope_c, slope_r = defaultdict(Fraction), defaultdict(Fraction)
        for power, x in enumerate(mu):
            for function, slope in ((c, slope_c), (r, slope_r)):
                for (i, j), y in function.items():
                    slope[i + power, j] -= x * y
        below(first, r, slope_c)
        below(kernel, c, slope_c)
        above(kernel, c, slope_c)
        above(kernel, r, slope_r)
        c, r = from_diagonal(slope_c, degree), from_diagonal(slope_r, degree)
    return c, r, energy


def up_to_t(a, degree):
    """The integral of a(t, s) over s from 0 to t."""
    result = [Fraction(0)] * (degree + 1)
    for (i, k), x in a.items():
        if i + k + 1 <= degree:
            result[i + k + 1] += x / (k + 1)
    return result


def below(a, b, total):
    """Add the integral of a(t, s) b(t', s) over s from 0 to t'."""
    for (i, k), x in a.items():
        for (j, m), y in b.items():
            total[i, j + k + m + 1] += x * y / (k + m + 1)


def above(a, b, total):
    """Add the integral of a(t, s) b(s, t') over s from t' to t."""
    for (i, k), x in a.items():
        for (m, j), y in b.items():
            n = k + m + 1
            total[i + n, j] += x * y / n
            total[i, j + n] -= x * y / n


def from_diagonal(slope, degree):
    """One plus the integral of slope(u, t') over u from t' to t, up to a total degree."""
    result = defaultdict(Fraction)
    result[0, 0] = Fraction(1)
    for (i, j), x in slope.items():
        if x and i + j + 1 <= degree:
            result[i + 1, j] += x / (i + 1)
            result[0, i + j + 1] -= x / (i + 1)
    return {key: x for key, x in result.items() if x}


def at(function, t, earlier):
    """Evaluate a polynomial in two times."""
    return float(sum(float(x) * t**i * earlier**j for (i, j), x in function.items()))
