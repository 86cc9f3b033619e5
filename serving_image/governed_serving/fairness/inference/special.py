"""Special functions that the tests need; scipy isn't in the serving image (it is the oracle of the unit tests).

Incomplete gamma and beta: series and continued fractions by Lentz's method (Numerical Recipes, 3rd ed., 6.2 and 6.4);
relative error about 1e-13 for the arguments that counts give.
"""

from math import exp, lgamma, log, log1p

__all__ = ["beta_quantile", "chi_square_tail", "incomplete_beta"]

_TINY = 1e-300
_EPSILON = 1e-16


def chi_square_tail(x: float, degrees: int) -> float:
    """P(χ² > x): the upper regularised incomplete gamma function Q(degrees/2, x/2)."""
    if x <= 0:
        return 1.0
    a, half = degrees / 2, x / 2
    front = exp(a * log(half) - half - lgamma(a))
    return 1 - front * _gamma_series(a, half) if half < a + 1 else front * _gamma_fraction(a, half)


def _gamma_series(a: float, x: float) -> float:
    total = term = 1 / a
    n = a
    while abs(term) > abs(total) * _EPSILON:
        n += 1
        term *= x / n
        total += term
    return total


def _gamma_fraction(a: float, x: float) -> float:
    b = x + 1 - a
    c, d = 1 / _TINY, 1 / b
    h = d
    for i in range(1, 10_000):
        an = -i * (i - a)
        b += 2
        d = 1 / _away(an * d + b)
        c = _away(b + an / c)
        h *= d * c
        if abs(d * c - 1) < _EPSILON:
            break
    return h


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) = P(Beta(a, b) ≤ x)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    h = d
    for m in range(1, 100_000):
        for an in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + an * d)
            c = _away(1 + an / c)
            h *= d * c
        if abs(d * c - 1) < _EPSILON * 4:
            break
    return h


def beta_quantile(p: float, a: float, b: float) -> float:
    """x with I_x(a, b) = p, to 1e-15 of x: by Newton's method within a bracket, which is halved where a step leaves it,
    and each fourth time, so that a slow approach ends too."""
    low, high, x, steps = 0.0, 1.0, a / (a + b), 0
    normal = lgamma(a + b) - lgamma(a) - lgamma(b)
    while True:
        excess = incomplete_beta(a, b, x) - p
        low, high = (x, high) if excess < 0 else (low, x)
        density = exp(normal + (a - 1) * log(x) + (b - 1) * log1p(-x))
        nearer = x - excess / density if density > 0 else low
        steps += 1
        if not low < nearer < high or steps % 4 == 0:
            nearer = (low + high) / 2
        if nearer in (low, high) or abs(nearer - x) <= 1e-15 * x:
            return nearer
        x = nearer


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
