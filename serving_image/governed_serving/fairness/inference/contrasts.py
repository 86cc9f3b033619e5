"""Exact evidence about linear contrasts of rates (differences, ratios, their means), as a function of counts alone.

``k`` of ``n`` rows of each of d kinds (say: of a group) had a case; the rates p ∈ [0, 1]^d are unknown. The hypothesis
is a half-space, a·p ≤ b: ``a`` (1, −1) and ``b`` h for "the difference of two rates is at most h", ``a`` (1, −r) and
``b`` 0 for "their ratio is at most r". :func:`log_evidence` is the logarithm of

    E = inf { Q_θ / L_θ : θ in the hypothesis },    L_θ = Π θᵢ^kᵢ (1 − θᵢ)^(nᵢ − kᵢ),

where the mixture of alternatives Q_θ = Σ_c w_c L_{θ + c} + w_G G was chosen before any data: c shifts the logits of θ
away from the hypothesis (up where aᵢ > 0, down where aᵢ < 0), together by one of ``EFFECTS``, of which group and
reference take their parts in one of ``RATIOS``; G = Π Beta(½, ½) marginals, the global mixture of universal inference
(Wasserman, Ramdas & Balakrishnan, PNAS 2020). Coordinates are a group, its reference, a group, its reference …;
exchanging both changes nothing, as ``RATIOS`` are symmetric. Of several pairs (strata) half of the stake is on one
ratio for all, half on a product: for each effect, in each pair a mixture over ratios of its own (``_Paired``).

**Why E is an e-process**: let θ* be the truth, anywhere in the hypothesis. Whenever a row comes, and of whatever kind
(which may depend on all that was before), each L_{θ + c} / L_θ* is multiplied by a likelihood ratio of that row, whose
mean under θ* is 1: a test martingale that starts at 1. So is the mixture Q_θ* / L_θ* (G is such a mixture as well, and
a product of mixtures is one over all choices, with the product of their weights). E
is at most that at every time, so that P(E ≥ 1/α at any time) ≤ α (Ville 1939). No order, no split, no sample size and
no normal approximation enters.

**Why it can be computed**: (1) L_{θ + c}/L_θ = exp Σ (kᵢ cᵢ − nᵢ log(1 + (e^cᵢ − 1) θᵢ)) falls in θᵢ where cᵢ ≥ 0 and
rises where cᵢ ≤ 0; G/L_θ falls as θ moves towards the observed rates. If these lie outside the hypothesis, every θ
inside it can be moved to its border along coordinates in which both fall; so the infimum lies on the hyperplane a·θ =
b. If they lie inside, the bound below is taken part by part. (2) Each exponent is convex in θ, so is the logarithm of
their weighted sum, and the infimum is a convex problem. (3) Convexity bounds it from below: f(y) ≥ f(x) + ∇f(x)·(y − x)
for all y, of which the least over the box and the hyperplane has a closed bound. That bound is what is returned:
rounding of the search can only make the evidence smaller.

**Intervals**: E for a·p ≤ b doesn't rise with b (the hypotheses are nested and Q_θ does not depend on b), so that
inversion by bisection is exact as well. Turner, Ly & Grünwald (2021, 2023) is the other road to such tests; theirs
depends on how rows are blocked.
"""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["EFFECTS", "GLOBAL_WEIGHT", "log_evidence", "log_gamma", "lower_end"]

Floats = NDArray[np.float64]

EFFECTS = (0.1, 0.2, 0.43, 0.95, 2.1)
"""Differences of logits, beyond the hypothesis, that the bets are on. At rates near one half .4 is a tenth."""
RATIOS = (1 / 400, 1 / 16, 1.0, 16.0, 400.0)
"""How an effect is shared: shift of the reference over that of the group. Where it is their n₁/n₀, the bet follows its
own nuisance; half and twice that cost next to nothing."""
_UNEVEN, _VERY_UNEVEN = (0.01, 0.042, 0.042, 0.045, 0.005), (0.005, 0.01, 0.01, 0.01, 0.005)
_WEIGHTS = np.array([_VERY_UNEVEN, _UNEVEN, (0.04, 0.22, 0.16, 0.19, 0.02), _UNEVEN, _VERY_UNEVEN])
"""By ratio and effect. A bet of weight w decides after the rows that it alone would need for evidence of log 1/w more:
why these, .github/decisions/0009-mixture-of-effects.md."""
GLOBAL_WEIGHT = 0.01
_BARRIER = 1e-4
_STEPS = 40
_CHUNK = 4096


def _mixture() -> tuple[Floats, Floats, Floats, float]:
    """Shifts up and shifts down of every local part, their log weights, and that of the global part."""
    local = np.log((1 - GLOBAL_WEIGHT) * _WEIGHTS / _WEIGHTS.sum())
    ratios = np.array(RATIOS)
    first, second = (np.outer(part, EFFECTS).ravel() for part in (1 / (1 + ratios), ratios / (1 + ratios)))
    return first, second, local.ravel(), log(GLOBAL_WEIGHT)


_FIRST, _SECOND, _LOCAL, _GLOBAL = _mixture()
_RATIO_GIVEN_EFFECT = np.log(_WEIGHTS / _WEIGHTS.sum(0))
_OF_EFFECT = np.log((1 - GLOBAL_WEIGHT) * _WEIGHTS.sum(0) / _WEIGHTS.sum())


class _Problem:
    """f = log(Q/L), its gradient and its curvature at points (m, d); ``sign``: the direction of each coordinate's
    alternatives, ±1."""

    def __init__(self, k: Floats, n: Floats, sign: Floats, marginal: Floats):
        self.k, self.n, self.marginal = k, n, marginal
        first = np.arange(sign.shape[1]) % 2 == 0
        shift = sign[:, None, :] * np.where(first, _FIRST[:, None], _SECOND[:, None])
        self.moved = np.expm1(shift)
        self.constant = (shift * k[:, None, :]).sum(-1) + _LOCAL

    def take(self, rows: NDArray[np.integer | np.bool_]) -> Self:
        part = object.__new__(type(self))
        for name, value in vars(self).items():
            setattr(part, name, value[rows])
        return part

    def _terms(self, p: Floats) -> tuple[Floats, Floats]:
        """Weighted logarithms of all parts, shape (m, parts), and 1 + (e^c − 1) p of the local ones, shape (m, parts −
        1, d)."""
        inside = 1 + self.moved * p[:, None, :]
        local = self.constant - (self.n[:, None, :] * np.log(inside)).sum(-1)
        likelihood = (self.k * np.log(p) + (self.n - self.k) * np.log1p(-p)).sum(1)
        return np.concatenate([local, (_GLOBAL + self.marginal - likelihood)[:, None]], 1), inside

    def value(self, p: Floats) -> Floats:
        return _log_sum(self._terms(p)[0])

    def derivatives(self, p: Floats) -> tuple[Floats, Floats, "_Curvature"]:
        logs, inside = self._terms(p)
        f = _log_sum(logs)
        share = np.exp(logs - f[:, None])
        slopes = self.moved / inside
        local = -self.n[:, None, :] * slopes
        last = (self.n - self.k) / (1 - p) - self.k / p
        whole = np.concatenate([local, last[:, None, :]], 1)
        bends = np.concatenate([-local * slopes, (self.k / p**2 + (self.n - self.k) / (1 - p) ** 2)[:, None, :]], 1)
        g = (share[:, :, None] * whole).sum(1)
        parts = np.sqrt(share)[:, :, None] * (whole - g[:, None, :])
        return f, g, _Curvature((share[:, :, None] * bends).sum(1), np.zeros((len(p), p.shape[1] // 2)), parts)


class _Paired(_Problem):
    """The same for several pairs of a group and its reference, such as strata: half of the stake is on one ratio for
    all pairs, half on a ratio for each pair, drawn apart (their product)."""

    def __init__(self, k: Floats, n: Floats, sign: Floats, marginal: Floats):
        super().__init__(k, n, sign, marginal)
        shift = sign[:, None, :] * np.where(np.arange(k.shape[1]) % 2 == 0, _FIRST[:, None], _SECOND[:, None])
        self.gain = shift * k[:, None, :]

    def _of_pairs(self, p: Floats) -> tuple[Floats, Floats, Floats]:
        """1 + (e^c − 1) p, shape (m, bets, d); log ratios of each pair, (m, ratios, effects, pairs); their logarithmic
        mean over ratios, (m, 1, effects, pairs)."""
        inside = 1 + self.moved * p[:, None, :]
        each = self.gain - self.n[:, None, :] * np.log(inside)
        pairs = np.add.reduceat(each, np.arange(0, p.shape[1], 2), -1)
        ratios = pairs.reshape(len(p), len(RATIOS), len(EFFECTS), -1)
        drawn = ratios + _RATIO_GIVEN_EFFECT[..., None]
        top = drawn.max(1, keepdims=True)
        return inside, drawn, top + np.log(np.exp(drawn - top).sum(1, keepdims=True))

    def _logs(self, p: Floats, inside: Floats, mean: Floats) -> Floats:
        """Weighted logarithms, shape (m, bets + effects + 1)."""
        alike = self.constant - (self.n[:, None, :] * np.log(inside)).sum(-1) - log(2)
        apart = mean[:, 0].sum(-1) + _OF_EFFECT - log(2)
        likelihood = (self.k * np.log(p) + (self.n - self.k) * np.log1p(-p)).sum(1)
        return np.concatenate([alike, apart, (_GLOBAL + self.marginal - likelihood)[:, None]], 1)

    def value(self, p: Floats) -> Floats:
        inside, _, mean = self._of_pairs(p)
        return _log_sum(self._logs(p, inside, mean))

    def derivatives(self, p: Floats) -> tuple[Floats, Floats, "_Curvature"]:
        inside, drawn, mean = self._of_pairs(p)
        logs = self._logs(p, inside, mean)
        f = _log_sum(logs)
        share = np.exp(logs - f[:, None])
        bets = len(_LOCAL)
        slopes = self.moved / inside
        local = -self.n[:, None, :] * slopes
        chosen = np.exp(drawn - mean)[..., np.arange(p.shape[1]) // 2] * share[:, None, bets:-1, None]
        chosen = chosen.reshape(local.shape)  # the share of each bet within the product, at each coordinate
        apart = (chosen * local).reshape(len(p), len(RATIOS), len(EFFECTS), -1).sum(1)
        apart = apart / np.maximum(share[:, bets:-1, None], 1e-300)
        last = (self.n - self.k) / (1 - p) - self.k / p
        whole = np.concatenate([local, apart, last[:, None, :]], 1)
        g = (share[:, :, None] * whole).sum(1)
        of_effect = share[:, bets:-1, None]
        bends = (-local * slopes * (share[:, :bets, None] + chosen)).sum(1)
        spread = (chosen * local * local).sum(1) - (of_effect * apart * apart).sum(1)
        curved = self.k / p**2 + (self.n - self.k) / (1 - p) ** 2
        paired = p.shape[1] // 2 * 2
        one, other = slice(0, paired, 2), slice(1, paired, 2)
        both = (chosen[..., one] * local[..., one] * local[..., other]).sum(1)
        both -= (of_effect * apart[..., one] * apart[..., other]).sum(1)
        parts = np.sqrt(share)[:, :, None] * (whole - g[:, None, :])
        return f, g, _Curvature(bends + spread + share[:, -1:] * curved, both, parts)


def _log_sum(logs: Floats) -> Floats:
    top = logs.max(1)
    total: Floats = top + np.log(np.exp(logs - top[:, None]).sum(1))
    return total


def log_evidence(k: Any, n: Any, a: Any, b: Any) -> Floats:
    """Log e-value against a·p ≤ b, shape (m,); −inf where the observed rates don't contradict it.

    ``k`` cases of ``n`` rows, shape (m, d), whole or (for planning) not; ``a``: (m, d), nowhere 0; ``b``: (m,). The
    last of an odd number of coordinates is bet on as a group alone.
    """
    k, n, a = (np.asarray(x, np.float64) for x in (k, n, a))
    b = np.asarray(b, np.float64)
    out = np.full(len(k), -np.inf)
    unknown = np.where(a > 0, 0.0, 1.0)
    observed = np.where(n > 0, k / np.maximum(n, 1), unknown)
    least = np.minimum(a, 0).sum(1)
    out[b < least] = np.inf
    asked = np.flatnonzero((b >= least) & ((a * observed).sum(1) > b))
    chunk = max(_CHUNK * 2 // k.shape[1], 1)
    for start in range(0, len(asked), chunk):
        rows = asked[start : start + chunk]
        reach = np.abs(a[rows]).sum(1)
        border = np.maximum(b[rows], least[rows] + 1e-9 * reach)
        out[rows] = _infimum(k[rows], n[rows], a[rows], border)
    return out


def _infimum(k: Floats, n: Floats, a: Floats, b: Floats) -> Floats:
    """Newton's method with a faint barrier at 0 and 1; the best lower bound that any of its points gives."""
    problem = (_Problem if k.shape[1] <= 2 else _Paired)(k, n, np.sign(a), _marginals(k, n))
    p = _start(k, n, a, b)
    bound = np.full(len(k), -np.inf)
    rows = np.arange(len(k))
    for _ in range(_STEPS):
        f, g, curvature = problem.derivatives(p)
        g_whole = g + _BARRIER * (1 / (1 - p) - 1 / p)
        walls = _BARRIER * (1 / (1 - p) ** 2 + 1 / p**2) + 1e-9
        step, multiplier = _newton(curvature._replace(diagonal=curvature.diagonal + walls), g_whole, a)
        rest = g - multiplier[:, None] * a
        gap = np.maximum(rest * p, -rest * (1 - p)).sum(1)
        bound[rows] = np.maximum(bound[rows], f - gap)
        going = gap > 1e-3 + 2 * _BARRIER * p.shape[1]
        if not going.any():
            break
        rows, a = rows[going], a[going]
        problem, p, step = problem.take(going), p[going], step[going]
        slope = (g_whole[going] * step).sum(1)
        p = _search(problem, p, step, f[going], slope)
    return bound


class _Curvature(NamedTuple):
    """A Hessian, Σ over parts of outer products plus a matrix that joins a group with its own reference alone: solved
    after as many steps as there are coordinates, not their cube (Woodbury's identity), where these are many."""

    diagonal: Floats
    """(m, d)."""
    beside: Floats
    """Between a group and its reference, (m, pairs)."""
    parts: Floats
    """Rows of the outer products, (m, parts, d)."""

    def solve(self, right: Floats) -> Floats:
        """``right``: (m, sides, d)."""
        sides = right.shape[1]
        if self.parts.shape[2] <= self.parts.shape[1]:
            dense: Floats = np.linalg.solve(self._whole(), right.swapaxes(1, 2)).swapaxes(1, 2).astype(np.float64)
            return dense
        apart = self._within_pairs(np.concatenate([right, self.parts], 1))
        # sums over coordinates without BLAS, whose threads cost a machine that is shared more than they save here
        middle = np.einsum("mid,mjd->mij", self.parts, apart)
        inner = middle[:, :, sides:] + np.eye(self.parts.shape[1])
        weights = np.linalg.solve(inner, middle[:, :, :sides])
        solved: Floats = apart[:, :sides] - np.einsum("mij,mid->mjd", weights, apart[:, sides:])
        return solved

    def _whole(self) -> Floats:
        hessian: Floats = np.matmul(self.parts.swapaxes(1, 2), self.parts)
        places = np.arange(hessian.shape[1])
        hessian[:, places, places] += self.diagonal
        paired = len(places) // 2 * 2
        one, other = places[:paired:2], places[1:paired:2]
        hessian[:, one, other] += self.beside
        hessian[:, other, one] += self.beside
        return hessian

    def _within_pairs(self, rows: Floats) -> Floats:
        """Solutions without the outer products; a last coordinate that has no partner stands alone."""
        paired = self.diagonal.shape[1] // 2 * 2
        one, other = slice(0, paired, 2), slice(1, paired, 2)
        a, b, between = self.diagonal[:, None, one], self.diagonal[:, None, other], self.beside[:, None]
        solved = rows / self.diagonal[:, None]
        whole = a * b - between * between
        solved[..., one] = (b * rows[..., one] - between * rows[..., other]) / whole
        solved[..., other] = (a * rows[..., other] - between * rows[..., one]) / whole
        return solved


def _newton(curvature: _Curvature, gradient: Floats, a: Floats) -> tuple[Floats, Floats]:
    """Step within a·step = 0, and the multiplier of the constraint."""
    down, along = curvature.solve(np.stack([gradient, a], 1)).swapaxes(0, 1)
    multiplier = (a * down).sum(1) / (a * along).sum(1)
    return multiplier[:, None] * along - down, multiplier


def _barrier(p: Floats) -> Floats:
    height: Floats = -_BARRIER * (np.log(p) + np.log1p(-p)).sum(1)
    return height


def _search(problem: _Problem, p: Floats, step: Floats, f: Floats, slope: Floats) -> Floats:
    """The longest of step, step/2, step/4 … that stays inside and gains what convexity promises."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, (1 - p) / step, np.where(step < 0, -p / step, np.inf)).min(-1)
    length = np.minimum(1.0, 0.95 * room)
    before = f + _barrier(p)
    short = np.arange(len(p))
    for _ in range(30):
        new = p[short] + length[short, None] * step[short]
        value = problem.take(short).value(new) + _barrier(new)
        failed = value > before[short] + 0.1 * length[short] * slope[short] + 1e-12 * np.abs(before[short])
        short = short[failed]
        if not len(short):
            break
        length[short] /= 3
    length[short] = 0.0
    moved: Floats = p + length[:, None] * step
    return moved


def _start(k: Floats, n: Floats, a: Floats, b: Floats) -> Floats:
    """About the likeliest rates with a·p = b, strictly inside the box."""
    rate = (k + 0.5) / (n + 1)
    variance = rate * (1 - rate) / (n + 1)
    near = rate + variance * a * ((b - (a * rate).sum(1)) / (a * a * variance).sum(1))[:, None]
    low, high = np.minimum(a, 0).sum(1), np.maximum(a, 0).sum(1)
    along = ((b - low) / (high - low))[:, None]
    centre = np.where(a > 0, along, 1 - along)
    away = near - centre
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(away > 0, (1 - centre) / away, np.where(away < 0, -centre / away, np.inf)).min(-1)
    start: Floats = centre + np.minimum(1.0, 0.9 * room)[:, None] * away
    return start


def _marginals(k: Floats, n: Floats) -> Floats:
    """Log of the Beta(½, ½) marginals of all coordinates together, shape (m,)."""
    half = log_gamma(k + 0.5) + log_gamma(n - k + 0.5) - log_gamma(n + 1)
    total: Floats = half.sum(1) - k.shape[1] * log(np.pi)
    return total


def log_gamma(x: Floats) -> Floats:
    """log Γ for x ≥ ½: Stirling's series after eight steps of the recurrence; absolute error below 1e-12 relative to
    its size."""
    shifted = x + 8.0
    product = np.ones_like(x)
    for i in range(8):
        product = product * (x + i)
    square = 1 / (shifted * shifted)
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / shifted
    value: Floats = (shifted - 0.5) * np.log(shifted) - shifted + 0.5 * log(2 * np.pi) + series - np.log(product)
    return value


def lower_end(
    evidence: Callable[[Floats, NDArray[np.int64]], Floats], least: Any, most: Any, scale: Any, threshold: Any
) -> Floats:
    """The greatest t found up to which the evidence reaches ``threshold``: the lower end of a confidence sequence,
    shape (m,).

    ``evidence(t, rows)``: logarithms of e-values against "contrast ≤ t" of the problems ``rows``. ``most``: the
    contrast as observed; ``scale``: about its standard error; ``least`` is returned where no t is excluded.
    ``threshold``: logarithms. What is returned is itself excluded, by evidence at most ``_CLOSE`` above the threshold.
    """
    least, most, scale, threshold = (np.asarray(x, np.float64) for x in (least, most, scale, threshold))
    search = _Bracket(least, most, np.sqrt(threshold + _CLOSE / 2 + _BELOW))
    t = np.maximum(most - scale * np.sqrt(2 * threshold + 6), least + 1e-3 * (most - least))
    rows = np.flatnonzero(most > least)
    for _ in range(_STEPS):
        if not len(rows):
            break
        reached = evidence(t[rows], rows)
        out = reached >= threshold[rows]
        t[rows] = search.next(rows, t[rows], reached, out)
        going = search.wide(rows) & (t[rows] > least[rows]) & ~(out & (reached < threshold[rows] + _CLOSE))
        rows = rows[going]
    return search.excluded


_CLOSE = 4e-3
"""An end whose evidence is so near its threshold is looked for no further."""
_BELOW = 6.0
"""Added to evidence before its root is taken, which is about linear in the distance."""


class _Bracket:
    """Ends searched at once, shape (m,) each: ``excluded`` by the evidence so far, ``kept``, and the look before."""

    def __init__(self, least: Floats, most: Floats, aim: Floats) -> None:
        self.least, self.most, self.aim = least, most, aim
        self.excluded, self.kept = least.copy(), most.copy()
        self.before, self.height_before = most.copy(), -aim

    def next(self, rows: NDArray[np.int64], now: Floats, evidence: Floats, out: NDArray[np.bool_]) -> Floats:
        """Where to look next: by the secant where it falls within the bracket, else in its middle; further out while
        nothing is excluded."""
        excluded, kept = np.where(out, now, self.excluded[rows]), np.where(out, self.kept[rows], now)
        height = np.sqrt(np.maximum(evidence + _BELOW, 0)) - self.aim[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = now - height * (now - self.before[rows]) / (height - self.height_before[rows])
        inside = (secant > excluded) & (secant < kept)
        between = np.where(inside, secant, (excluded + kept) / 2)
        least, most = self.least[rows], self.most[rows]
        far = most - 2 * (most - kept)
        far = np.where(inside & (secant > far) & (secant < kept), secant, far)
        nearly = least + 1e-3 * (most - least)
        outward = np.where(kept > nearly, np.maximum(far, nearly), least)
        self.excluded[rows], self.kept[rows] = excluded, kept
        self.before[rows], self.height_before[rows] = now, height
        following: Floats = np.where(excluded > least, between, outward)
        return following

    def wide(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a bracket is still wider than a millionth of its distance."""
        excluded, kept = self.excluded[rows], self.kept[rows]
        wide: NDArray[np.bool_] = kept - excluded > 1e-6 * (self.most[rows] - excluded)
        return wide
