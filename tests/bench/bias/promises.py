"""What verdicts and alarms promise over all their looks, simulated at the bound; and what it costs in rows."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governed_api.governance import Bias
from governed_serving.fairness.counts.windows import STARTS
from governed_serving.fairness.inference.contrasts import log_evidence
from governed_serving.fairness.metrics.promise import alpha_of
from governed_serving.fairness.monitoring import drift as of_columns
from governed_serving.fairness.monitoring.inputs import CELLS, quantile_evidence

HalfSpaces = list[tuple[NDArray[Any], float]]
"""(a, b) of each hypothesis a·p ≤ b."""


class Row(NamedTuple):
    """A line of the table; ``met`` None: for comparison only."""

    what: str
    measured: str
    target: str
    met: bool | None


LOOKS = np.unique(np.geomspace(200, 100_000, 220).astype(int))
"""A look whenever the rows have grown by 3 %."""
SHARES = {
    1: (0.5, 0.1, 0.05, 0.02, 0.01),
    3: (0.1, 0.05, 0.02, 0.01),
    5: (0.1, 0.05, 0.02, 0.01),
    10: (0.05, 0.02, 0.01),
    20: (0.02, 0.01),
}
"""Groups → share of each."""
BOUNDS = {"SPD": (0.2, 0.3), "SPD, rare": (0.02, 0.12), "DIR": (0.4, 0.5)}
"""Rate of the groups, of the reference: on the bound of ±.1, of .8."""


def counted(
    runs: int, share: float, groups: int, rates: tuple[float, float], rng: np.random.Generator
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Cumulative cases and rows at each look, shape (runs, groups + 1); the reference is last."""
    shares = [share] * groups + [1 - share * groups]
    k = n = np.zeros((runs, groups + 1))
    for new in np.diff(LOOKS, prepend=0).tolist():
        more = rng.multinomial(new, shares, runs)
        n, k = n + more, k + rng.binomial(more, [rates[0]] * groups + [rates[1]])
        yield k, n


def beyond(k: NDArray[Any], n: NDArray[Any], spaces: HalfSpaces, thresholds: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the evidence against any of the hypotheses reaches its threshold. ``k``, ``n``: (…, rates); an ``a``: so
    too, or (rates,).

    Only cases whose likelihood ratio against one point of the bound reaches it are solved: no evidence is larger."""
    flat_k, flat_n = (x.reshape(-1, k.shape[-1]) for x in (k, n))
    limit = np.broadcast_to(thresholds, k.shape[:-1]).ravel()
    out = np.zeros(len(flat_k), bool)
    for direction, bound in spaces:
        a = np.broadcast_to(direction, k.shape).reshape(flat_k.shape)
        rate = (flat_k + 0.5) / (flat_n + 1)
        spread = rate * (1 - rate) / (flat_n + 1)
        near = rate + spread * a * ((bound - (rate * a).sum(-1)) / (spread * a * a).sum(-1))[:, None]
        with np.errstate(all="ignore"):
            observed = flat_k / flat_n
            ratio = np.nan_to_num(_likelihood(flat_k, flat_n, observed) - _likelihood(flat_k, flat_n, near), nan=np.inf)
        asked = np.flatnonzero(((observed * a).sum(-1) > bound) & (ratio >= limit) & ~out)
        if len(asked):
            bounds = np.full(len(asked), bound)
            out[asked] |= log_evidence(flat_k[asked], flat_n[asked], a[asked], bounds) >= limit[asked]
    return out.reshape(k.shape[:-1])


SPD: HalfSpaces = [(np.array([-1.0, 1.0]), 0.1), (np.array([1.0, -1.0]), 0.1)]
DIR: HalfSpaces = [(np.array([-1.0, 0.8]), 0.0), (np.array([1.0, -1.25]), 0.0)]
AVERAGE_ODDS: HalfSpaces = [(sign * np.array([0.5, -0.5, 0.5, -0.5]), 0.1) for sign in (-1.0, 1.0)]


def _likelihood(k: NDArray[Any], n: NDArray[Any], p: NDArray[Any]) -> NDArray[Any]:
    inside = np.where((p > 0) & (p < 1), p, np.nan)
    each = k * np.log(inside) + (n - k) * np.log1p(-inside)
    exact = ((p == 0) & (k == 0)) | ((p == 1) & (k == n))
    return np.where(exact, 0.0, each).sum(-1)


def ever_fail(runs: int) -> list[Row]:
    """Truth on the bound: in what share of runs does any group ever Fail, by 100,000 rows?"""
    rows = []
    for kind, rates in BOUNDS.items():
        for groups, shares in SHARES.items():
            for share in shares:
                rng = np.random.default_rng(groups)
                level = np.array([0.05 * 6 / (np.pi * (g + 1)) ** 2 for g in range(groups)])
                failed = np.zeros(runs, bool)
                for k, n in counted(runs, share, groups, rates, rng):
                    pairs = [np.stack([x[:, :-1], np.repeat(x[:, -1:], groups, 1)], -1) for x in (k, n)]
                    failed |= (
                        beyond(*pairs, DIR if kind == "DIR" else SPD, np.log(2 / level)) & (n[:, :-1] >= 10)
                    ).any(1)
                rows.append(held(f"{kind}, {groups} groups of {share:.0%}, {len(LOOKS)} looks", failed))
    arriving = [held(f"SPD, a group of {share:.0%}, {how}", ever_in(how, share, runs)) for how, share in ARRIVALS]
    return rows + arriving + odds(runs) + [held("max − min of 5 groups, one at the other end", largest_gap(runs))]


def held(what: str, failed: NDArray[np.bool_], level: float = 0.05) -> Row:
    """Share of runs, with its simulation error; missed where the error can't explain it."""
    runs, found = len(failed), float(failed.mean())
    error = float(np.sqrt(max(found, 1 / runs) * (1 - found) / runs))
    measured = f"{found * 100:.2f} ± {error * 100:.2f} %"
    return Row(f"ever Fail, {what}, {runs:,} runs", measured, f"≤ {level:.0%}", found <= level + 2 * error)


ARRIVALS = [("bursts", 0.5), ("bursts", 0.05), ("sorted", 0.5), ("sorted", 0.05), ("drifting share", 0.5)]


def new_rows(how: str, share: float, look: int, new: int, runs: int, rng: np.random.Generator) -> NDArray[Any]:
    """Rows of a group and its reference between two looks, shape (runs, 2).

    bursts: of one alone, drawn for each run and look; sorted: the group's rows first of all; drifting: its share
    falls from ``share`` to nothing."""
    if how == "bursts":
        own = np.where(rng.random(runs) < share, new, 0)
    elif how == "sorted":
        own = np.full(runs, new if look <= share * LOOKS[-1] else 0)
    else:
        own = rng.binomial(new, share * (1 - look / LOOKS[-1]), runs)
    return np.stack([own, new - own], -1)


def ever_in(how: str, share: float, runs: int) -> NDArray[np.bool_]:
    rng, failed = np.random.default_rng(11), np.zeros(runs, bool)
    k = n = np.zeros((runs, 2))
    for new, look in zip(np.diff(LOOKS, prepend=0).tolist(), LOOKS.tolist(), strict=True):
        more = new_rows(how, share, look, new, runs, rng)
        n, k = n + more, k + rng.binomial(more, [0.2, 0.3])
        failed |= beyond(k, n, SPD, np.array(np.log(40))) & (n.min(-1) >= 10)
    return failed


def odds(runs: int) -> list[Row]:
    """Equal opportunity and average odds difference on the bound; a third of the labels favour, .4 are known."""
    rows = []
    for share in (0.5, 0.05):
        rng, failed = np.random.default_rng(12), np.zeros((2, runs), bool)
        kinds = [share / 3, (1 - share) / 3, 2 * share / 3, 2 * (1 - share) / 3]
        k = n = np.zeros((runs, 4))
        for new in np.diff(LOOKS, prepend=0).tolist():
            more = rng.multinomial(rng.binomial(new, 0.4), kinds, runs)
            n, k = n + more, k + rng.binomial(more, [0.6, 0.7, 0.1, 0.2])
            enough = n.min(-1) >= 10
            failed[0] |= beyond(k[:, :2], n[:, :2], SPD, np.array(np.log(40))) & enough
            failed[1] |= beyond(k, n, AVERAGE_ODDS, np.array(np.log(40))) & enough
        rows += [held(f"{what}, a group of {share:.0%}", one) for what, one in zip(("EOD", "AOD"), failed, strict=True)]
    return rows


def largest_gap(runs: int) -> NDArray[np.bool_]:
    """Four groups at .3, one at .4: every pair with it lies on the bound of .1. Each has its part of the level."""
    rng, failed, groups = np.random.default_rng(13), np.zeros(runs, bool), 5
    pairs = [(i, j) for j in range(groups) for i in range(j)]
    parts = np.array([6 / (np.pi * j) ** 2 / j for _, j in pairs])
    one, other = (np.array(side) for side in zip(*pairs, strict=True))
    k = n = np.zeros((runs, groups))
    for new in np.diff(LOOKS, prepend=0).tolist():
        more = rng.multinomial(new, [0.2] * groups, runs)
        n, k = n + more, k + rng.binomial(more, [0.3, 0.3, 0.4, 0.3, 0.3])
        both = [np.stack([x[:, one], x[:, other]], -1) for x in (k, n)]
        failed |= beyond(*both, SPD, np.log(40 / parts)).any(1)
    return failed


Strata = tuple[tuple[float, float], ...]
STRATA: Strata = ((0.5, 0.7), (0.3, 0.2), (0.2, 0.05))
"""Share of the rows, and of these that of the group."""
EVEN: Strata = ((0.5, 0.5), (0.3, 0.5), (0.2, 0.5))


def within_strata(runs: int) -> list[Row]:
    """Adjusted differences of TPR and of average odds, on the bound in each of three strata whose rates differ; half of
    the labels favour. And what they cost: rows to Fail at −.2, over those of a one-look test."""
    rows = []
    for what, pairs in (("EOD", 1), ("AOD", 2)):
        rng, failed = np.random.default_rng(15), np.zeros(runs, bool)
        for k, n, a in _stratified(runs, LOOKS, 0.1, pairs, rng, STRATA):
            failed |= beyond(k, n, [(-a, 0.1), (a, 0.1)], np.array(np.log(40))) & (n.min(-1) >= 1)
        rows.append(held(f"adjusted {what}, groups of 70, 20 and 5 % of 3 strata", failed))
    return rows + [_power_within(runs, strata) for strata in (EVEN, STRATA)]


def _power_within(runs: int, strata: Strata) -> Row:
    fixed, rng = one_look_within(0.2, strata), np.random.default_rng(16)
    looks = np.unique((fixed * np.geomspace(0.25, 12, 70)).astype(int))
    taken = np.full(runs, 12 * fixed)
    for look, (k, n, a) in zip(looks.tolist(), _stratified(runs, looks, 0.2, 1, rng, strata), strict=True):
        taken[beyond(k, n, [(-a, 0.1)], np.array(np.log(40))) & (taken > look) & (n.min(-1) >= 1)] = look
    groups = ", ".join(f"{own:.0%}" for _, own in strata)
    found = float(np.quantile(taken, 0.8) / fixed)
    return Row(f"rows to Fail at adjusted EOD -0.20, groups of {groups}, over {fixed:,.0f}", f"{found:.2f} ×", "", None)


def _rates_within(gap: float) -> NDArray[Any]:
    """Of group and reference, shape (strata, 2)."""
    return np.array([[rate - gap, rate] for rate in (0.45, 0.6, 0.8)])


def _stratified(
    runs: int, looks: NDArray[Any], gap: float, pairs: int, rng: np.random.Generator, strata: Strata
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Cases, rows and weights of the adjusted difference at each look, shape (runs, pairs × strata × 2)."""
    shares = [0.5 / pairs * size * part for _ in range(pairs) for size, own in strata for part in (own, 1 - own)]
    rates = np.tile(_rates_within(gap).ravel(), pairs)
    k = n = np.zeros((runs, len(shares)))
    for new in np.diff(looks, prepend=0).tolist():
        more = rng.multinomial(rng.binomial(new, 0.5), np.array(shares) / sum(shares), runs)
        n, k = n + more, k + rng.binomial(more, rates)
        n1, n0 = (n.reshape(runs, pairs, -1, 2)[..., side] for side in (0, 1))
        weight = n1 * n0 / np.maximum(n1 + n0, 1)
        weight = weight / np.maximum(weight.sum(-1, keepdims=True), 1e-9) / pairs
        yield k, n, np.stack([weight, -weight], -1).reshape(runs, -1)


def one_look_within(gap: float, strata: Strata) -> float:
    """Rows of a two-sided one-look test of the adjusted difference against −.1 with 80 % power; half have a label that
    counts."""
    size, own = np.array(strata).T
    weight = size * own * (1 - own)
    weight, rates = weight / weight.sum(), _rates_within(gap)
    variance = (weight**2 * (rates * (1 - rates) / (size[:, None] * np.stack([own, 1 - own], 1))).sum(1)).sum()
    return float(2 * variance * ((1.959964 + 0.841621) / (gap - 0.1)) ** 2)


WINDOWS, WINDOW = 200, 1000


def sliding(runs: int) -> list[Row]:
    """A window of 1,000 rows at SPD −.1, judged at each of its beginnings, over 200 windows."""
    rules = {
        "protectedAttributes": [{"name": "g"}],
        "favorableOutcome": {"label": "1"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
        "window": {"type": "sliding", "samples": WINDOW},
    }
    rows = []
    for share in (0.5, 0.05):
        rng, failed, step = np.random.default_rng(14), [], WINDOW // STARTS
        for part in np.array_split(np.arange(runs), max(runs // 500, 1)):
            n = rng.binomial(step, share, (len(part), WINDOWS * STARTS))
            n = np.stack([n, step - n], -1)
            k = rng.binomial(n, [0.4, 0.5])
            k, n = (np.lib.stride_tricks.sliding_window_view(x, STARTS, 1).sum(-1) for x in (k, n))
            limit = np.array(np.log(2 / alpha_of(Bias.model_validate(rules))))
            failed.append((beyond(k, n, SPD, limit) & (n.min(-1) >= 10)).any(1))
        rows.append(held(f"windows of {WINDOW:,}, a group of {share:.0%}, {WINDOWS} windows", np.concatenate(failed)))
    return rows


LOOKS_AT_DRIFT = 10_000


def drift(runs: int) -> list[Row]:
    """Alarms without drift in 10,000 looks that share one sample of training; ``runs`` ÷ 4 such samples."""
    cut = np.diff(np.arange(1, CELLS) * 250 // CELLS, prepend=-1, append=250).astype(float)
    words, models = np.array([0.6, 0.3, 0.07, 0.02, 0.01]), max(runs // 4, 20)
    projected, named = "a projection, 250 rows of training", "a column of words, 1,000 rows of training"
    return [
        null_alarms(projected, models, lambda rng: (cut, rng.dirichlet(cut)), quantile_evidence),
        null_alarms(named, models, lambda rng: (rng.multinomial(1000, words), words), of_columns.log_evidence),
    ]


def null_alarms(
    what: str,
    models: int,
    training: Callable[[np.random.Generator], tuple[NDArray[Any], NDArray[Any]]],
    evidence: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
) -> Row:
    rng, alarmed = np.random.default_rng(15), np.zeros(models, bool)
    for model in range(models):
        known, truth = training(rng)
        found = evidence(known, rng.multinomial(200, truth, LOOKS_AT_DRIFT))
        alarmed[model] = (found >= of_columns.alarm_threshold()).any()
    row = held(f"{what}, {LOOKS_AT_DRIFT:,} looks", alarmed)
    return row._replace(what=row.what.replace("ever Fail", "ever an alarm of drift"))


POWER = [(0.35, 0.5, 0.5), (0.3, 0.5, 0.5), (0.2, 0.5, 0.5), (0.35, 0.5, 0.05), (0.3, 0.5, 0.05), (0.2, 0.5, 0.05)]
"""Rate of the group, of the reference, share of the group; the bound is ±.1."""


def power(runs: int) -> list[Row]:
    """Rows at which 80 % of runs are decided, over those of a two-sided score test at .05 with one look and 80 %
    power."""
    rows = []
    for u, p, share in POWER:
        fixed, rng = one_look(u, p, share), np.random.default_rng(5)
        looks = np.unique((fixed * np.geomspace(0.25, 6, 80)).astype(int))
        k = n = np.zeros((runs, 2))
        taken = np.full(runs, 6 * fixed)
        for new, look in zip(np.diff(looks, prepend=0).tolist(), looks.tolist(), strict=True):
            more = rng.multinomial(new, [share, 1 - share], runs)
            n, k = n + more, k + rng.binomial(more, [u, p])
            taken[beyond(k, n, SPD, np.array(np.log(40))) & (taken > look)] = look
        found, target = float(np.quantile(taken, 0.8) / fixed), 2.0 if share == 0.5 else 2.5
        what = f"rows to Fail at SPD {u - p:+.2f}, group of {share:.0%}, over one look's {fixed:,.0f}"
        rows.append(Row(what, f"{found:.2f} ×", f"≤ {target} ×", found <= target))
    return rows


def one_look(u: float, p: float, share: float) -> float:
    """Rows of a two-sided score test against −.1 with 80 % power; the null's rates are the nearest."""
    beyond_by, a, b = p - u - 0.1, u * (1 - u) / share, p * (1 - p) / (1 - share)
    null = u + beyond_by * a / (a + b)
    variance = null * (1 - null) / share + (null + 0.1) * (0.9 - null) / (1 - share)
    return float((1.959964 * np.sqrt(variance) + 0.841621 * np.sqrt(a + b)) ** 2 / beyond_by**2)


def false_pass(runs: int) -> list[Row]:
    """True SPD .05 beyond the bound: in what share of runs is it ever shown to lie inside?"""
    rows = []
    for share in (0.5, 0.1):
        rng, passed = np.random.default_rng(6), np.zeros(runs, bool)
        for k, n in counted(runs, share, 1, (0.35, 0.5), rng):
            # Inside is shown by evidence against "the difference is −.1 or less".
            against = np.tile([1.0, -1.0], (runs, 1))
            passed |= log_evidence(k, n, against, np.full(runs, -0.1)) >= np.log(40)
        rows.append(
            Row(
                f"ever Pass at SPD −.15, a group of {share:.0%}, {runs:,} runs",
                f"{passed.mean() * 100:.2f} %",
                "≤ 5 %",
                passed.mean() <= 0.05,
            )
        )
    return rows


MARGIN = 0.03


def within_margin(runs: int) -> list[Row]:
    """A margin of .03 around the bound of .1. On the bound a Fail is false, and rows decide; .13 beyond parity, where
    the margin ends, a Pass is."""
    rows = []
    for share in (0.5, 0.1):
        for true, what in ((0.1, "Fail on the bound"), (0.1 + MARGIN, "Pass where the margin ends")):
            rng, wrong = np.random.default_rng(7), np.zeros(runs, bool)
            taken = np.full(runs, np.inf)
            for look, (k, n) in zip(LOOKS.tolist(), counted(runs, share, 1, (0.5 - true, 0.5), rng), strict=True):
                failed, passed = _against_bound(k, n)
                wrong |= failed if true == 0.1 else passed
                taken[(failed | passed) & (taken > look)] = look
            told = held(f"margin, {what}, a group of {share:.0%}", wrong)
            rows.append(told._replace(what=told.what.replace("ever Fail, margin, ", "margin: ever ")))
            found = float(np.quantile(taken, 0.8))
            decided = f"margin: rows to decide at SPD −{true:.2f} in 80 % of runs, a group of {share:.0%}"
            rows.append(Row(decided, f"{found:,.0f}", "", None))
    return rows


def _against_bound(k: NDArray[Any], n: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the interval lies outside the bounds of ±.1, and whether it lies inside them widened by the margin."""
    limit, enough = np.array(np.log(40)), n.min(-1) >= 10
    failed = beyond(k, n, SPD, limit) & enough
    outer = 0.1 + MARGIN
    inside = [beyond(k, n, [(sign * np.array([1.0, -1.0]), -outer)], limit) for sign in (1.0, -1.0)]
    return failed, inside[0] & inside[1] & enough
