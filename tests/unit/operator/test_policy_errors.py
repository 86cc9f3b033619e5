"""A canary's failed requests: rejected only on evidence, advanced only with some, and never waited for without end."""

import itertools
import math
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from builders import DIGEST, IMPORTED, NOW, child, observed, report, resolved, workload

from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_operator.desired.decision import Revision
from governed_operator.policy.canary import judge
from governed_operator.policy.errors import LEVEL, ODDS, Failures, evidence_above, evidence_worse, shown_worse

Counts = tuple[int, int]


def judged(canary: Counts, stable: Counts, minutes: float, budget: float = 0.01) -> str:
    """Verdict over (failed, requests) of both, at a step of 5 minutes."""
    rollout = {"strategy": "Canary", "steps": [10], "interval": "5m", "maxErrorRate": budget}
    spec = {**IMPORTED, "lifecycle": {"rollout": rollout}}
    name = Revision.of(resolved(spec), DIGEST).name
    since = (NOW - timedelta(minutes=minutes)).isoformat()
    trial = RevisionStatus(name=name, percent=10, since=since)
    told = {
        revision: {"server": {"p": {"requests": requests, "errors": failed}}}
        for revision, (failed, requests) in ((name, canary), ("old", stable))
    }
    children = [child("Deployment", f"m-{n}", workload(r, t)) for n, r, t in (("predictor", "old", "stable"),
                                                                             ("canary", name, "canary"))]  # fmt: skip
    obs = observed(spec, *children, report=report(revisions=told))
    status = GovernedModelStatus(stable=RevisionStatus(name="old", percent=100), canary=trial)
    return judge(replace(obs, status=status), trial).verdict


@pytest.mark.parametrize(
    ("canary", "stable", "minutes", "want"),
    [
        ((2, 150), (0, 900), 6, "wait"),
        ((2, 150), (0, 900), 16, "advance"),
        ((2, 150), (12, 900), 6, "advance"),
        ((1, 1), (0, 900), 6, "wait"),
        ((2, 2), (0, 900), 600, "wait"),
        ((1, 2), (0, 900), 16, "advance"),
        ((3, 3), (0, 900), 1, "reject"),
        ((0, 1), (0, 900), 6, "wait"),
        ((0, 29), (0, 900), 6, "wait"),
        ((0, 30), (0, 900), 6, "advance"),
        ((0, 1), (0, 900), 16, "advance"),
        ((0, 0), (0, 900), 600, "wait"),
        ((5, 100), (0, 900), 1, "reject"),
        ((50, 100), (0, 0), 1, "reject"),
        ((50, 100), (0, 3), 1, "reject"),
        ((50, 100), (0, 30), 1, "reject"),
        ((50, 1000), (450, 9000), 6, "advance"),
        ((100, 1000), (450, 9000), 6, "reject"),
        ((10, 10), (90, 90), 16, "advance"),
        ((1010, 100_000), (0, 0), 16, "advance"),
        ((3_000, 200_000), (2_000, 1_000_000), 6, "reject"),
        ((3, 32), (0, 0), 6, "reject"),
        ((3, 37), (0, 0), 6, "wait"),
        ((19, 50), (10, 100), 6, "reject"),
        ((14, 50), (5, 100), 6, "wait"),
        ((50, 100), (29, 29), 6, "reject"),
        ((50, 100), (30, 30), 6, "advance"),
    ],
)
def test_failures_decide_on_evidence(canary: Counts, stable: Counts, minutes: float, want: str) -> None:
    assert judged(canary, stable, minutes) == want


@pytest.mark.parametrize(
    ("budget", "canary", "want"),
    [(0.0, (6, 3000), "reject"), (0.0, (1, 3000), "wait"), (1.0, (5, 5), "wait"), (1.0, (90, 90), "advance")],
)
def test_budgets_at_their_ends(budget: float, canary: Counts, want: str) -> None:
    assert judged(canary, (0, 90_000), 6, budget) == want


@pytest.mark.parametrize(
    ("budget", "failed", "want"), [(1.0, 9, -math.inf), (0.0, 1, math.inf), (0.0, 0, 0.0)], ids=["all", "one", "none"]
)
def test_evidence_against_a_budget_of_all_or_nothing_is_certain(budget: float, failed: int, want: float) -> None:
    assert evidence_above(Failures(failed, 9), budget) == want


def test_figures_that_contradict_themselves_are_borne() -> None:
    """A report is only as right as the pod that wrote it."""
    assert judged((9, 4), (0, 900), 6) == "reject"


def test_an_e_value_s_mean_under_the_null_is_at_most_one() -> None:
    """Exactly, by summing over all outcomes of 40 requests at the budget, and of 12 beside 25 at one common share."""

    def chance(n: int, k: int, p: float) -> float:
        return math.comb(n, k) * p**k * (1 - p) ** (n - k)

    for budget in (0.01, 0.1, 0.5):
        mean = sum(chance(40, k, budget) * math.exp(evidence_above(Failures(k, 40), budget)) for k in range(41))
        assert mean == pytest.approx(1.0, abs=1e-9)
        below = sum(chance(40, k, budget / 2) * math.exp(evidence_above(Failures(k, 40), budget)) for k in range(41))
        assert below < 1
    for share in (0.02, 0.3, 0.8):
        mean = sum(
            chance(12, k, share) * chance(25, m, share) * math.exp(evidence_worse(Failures(k, 12), Failures(m, 25)))
            for k in range(13) for m in range(26)
        )  # fmt: skip
        assert mean <= 1


def test_alternatives_to_a_budget_reach_to_ten_times_its_odds() -> None:
    """Of a budget next to none, odds and shares are the same: then the e-value of failures alone is a geometric sum."""
    for failed in (1, 3):
        ratio = 10 ** (failed / 16)
        mean = ratio * (10**failed - 1) / (ratio - 1) / 16
        assert evidence_above(Failures(failed, failed), 1e-13) == pytest.approx(math.log(mean), rel=1e-9)


def test_what_a_null_hypothesis_without_failures_is_worth() -> None:
    assert evidence_above(Failures(0, 1000), 0.0) == 0.0
    assert evidence_above(Failures(1, 1000), 0.0) == math.inf
    assert Failures(0, 0).share == 0.0
    assert shown_worse(Failures(2, 2), Failures(0, 900), 0.01) is False


def test_evidence_of_two_revisions_is_that_of_its_definition() -> None:
    """B(k + ½, m + ½) / π by central binomials, over the likelihood's maximum where the canary fails no more often."""

    def mixed(k: int, m: int) -> float:
        return math.comb(2 * k, k) * math.comb(2 * m, m) / (4 ** (k + m) * math.comb(k + m, k))

    grid = [n / 60 for n in range(61)]

    def likelihood(seen: Failures, share: float) -> float:
        return share**seen.failed * (1 - share) ** (seen.requests - seen.failed)

    for n, m in ((3, 4), (6, 2), (5, 5)):
        for k, s in itertools.product(range(n + 1), range(m + 1)):
            canary, stable = Failures(k, n), Failures(s, m)
            best = max(likelihood(canary, p) * likelihood(stable, q) for p in grid for q in grid if p <= q)
            want = math.log(mixed(k, n - k) * mixed(s, m - s) / best)
            assert evidence_worse(canary, stable) == pytest.approx(want, abs=1e-2), (canary, stable)


def test_a_canary_at_its_budget_is_seldom_rejected_however_often_one_looks() -> None:
    draw = random.Random(11)

    def ever(runs: int, share: float) -> int:
        rejected = 0
        for _ in range(runs):
            failed = 0
            for n in range(1, 1001):
                failed += draw.random() < share
                if shown_worse(Failures(failed, n), Failures(0, 0), 0.01):
                    rejected += 1
                    break
        return rejected

    assert ever(200, 0.01) <= 200 * LEVEL
    assert ever(20, 0.05) >= 19, "and one at five times its budget nearly always"


@pytest.mark.parametrize("budget", [math.nextafter(1, 0), 1 - 1e-12, math.nextafter(0, 1), 1e-300])
@pytest.mark.parametrize("failed", [0, 1, 999, 1000])
def test_a_budget_next_to_an_end_is_judged_like_the_end(budget: float, failed: int) -> None:
    evidence = evidence_above(Failures(failed, 1000), budget)
    if budget > 0.5:
        assert evidence <= 1e-6, "so large a budget is never shown to be exceeded"
    elif failed > 1:
        assert evidence >= math.log(1 / LEVEL)
    elif failed:
        assert evidence == pytest.approx(math.log(sum(ODDS) / len(ODDS))), "one is told from none, and decides nothing"
    else:
        assert evidence <= 1e-6
