"""What takes longer than a frame, in a thread of its own: drift against training, proxies, counterfactual flips,
explanation gaps.

Each finding is a subject with figures and a state; an alarm is raised and ended with hysteresis, and both go into the
ledger. A bound here is a common reading, not a rule of the manifest: these alarms tell people, they act on nothing.
What alarms of drift promise over all looks: :mod:`...fairness.monitoring.drift`.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governed_api.json_types import Scalar
from governed_serving.artefact import Manifest
from governed_serving.auditor.service.conversations import Twins
from governed_serving.auditor.service.lane import Ask
from governed_serving.auditor.service.live import Live
from governed_serving.auditor.service.tally import SharedMonitoringState
from governed_serving.blackbox.columns import is_numeric
from governed_serving.fairness.counts.columns import CodedColumn, coded
from governed_serving.fairness.counts.grouping import Grouping
from governed_serving.fairness.inference.intervals import binomial_sequence
from governed_serving.fairness.metrics.measures import SMALLEST_GROUP
from governed_serving.fairness.monitoring.counterfactuals import Columns, Decide, attribute_flips, text_flips
from governed_serving.fairness.monitoring.drift import ALARM_CHANCE, alarm_threshold
from governed_serving.fairness.monitoring.inputs import InputDrift
from governed_serving.fairness.monitoring.monitors import ColumnDrift, Gap, shares_by_arrival
from governed_serving.fairness.monitoring.proxies import joint_lift, proxies

__all__ = ["ALL_INPUTS", "LEAST_ROWS", "Checks", "MonitoringFinding", "Others"]

LEAST_ROWS = 200
"""Fresh rows that a check waits for."""
PSI_SHIFTED, PSI_STABLE = 0.25, 0.1
"""Siddiqi 2006."""
CALM_EVIDENCE = -log(ALARM_CHANCE)
"""Below it a look shows no drift, by itself."""
PROXY_STRONG, PROXY_WEAK = 0.5, 0.3
"""Of Cramér's V, and of the joint lift (Cohen 1988: .5 is large)."""
FLIPS_MANY = 0.05
"""Share of decisions that hang on the attribute."""
GAP_LARGE, GAP_SMALL = 0.5, 0.2
"""In pooled standard deviations (Cohen's d)."""
FLIP_ROWS = 200
FLIP_SECONDS = 30.0
"""So long a runtime is asked about conversations in one look: half the time of a slow one, at most."""
WORDS_OF_PROMPT = "flips/words of prompt"
ALL_INPUTS = "drift/(all inputs)"
MOST_GROUPS = 8


@dataclass(frozen=True)
class MonitoringFinding:
    """``subject`` names what was looked at, such as ``drift/income``; ``value`` is what the alarm looks at."""

    subject: str
    value: float
    breach: bool
    calm: bool
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Others:
    """What the other replicas saw: ``every`` since the revision began, ``running`` those of them that still count."""

    every: Sequence[SharedMonitoringState] = ()
    running: Sequence[SharedMonitoringState] = ()


class Checks:
    """``decide``: columns → favourable or not, through the predictor's low-priority lane; None where there's no
    predictor to ask.

    ``ask``: the same for requests to a runtime that generates text. ``background``: training rows as raw columns.
    ``findings`` is replaced as a whole, so that other threads may read it.
    """

    def __init__(
        self,
        live: Live,
        groupings: Mapping[str, Grouping],
        manifest: Manifest | None,
        background: Mapping[str, Sequence[Scalar]],
        decide: Decide | None,
        ask: Ask | None = None,
    ):
        self._live, self._groupings, self._manifest, self._decide = live, dict(groupings), manifest, decide
        self._ask = ask
        self._inputs = InputDrift(background, self._texts, LEAST_ROWS)
        self._latest: dict[str, list[MonitoringFinding]] = {}
        self.others = Others()
        self.findings: list[MonitoringFinding] = []
        self.flip_failures = 0
        """Checks in which the predictor didn't answer, and prompts that a runtime didn't answer."""
        self.flip_prompts = 0
        """Prompts that a runtime was asked."""

    def drifts(self, closed: list[ColumnDrift]) -> None:
        """A window of drift has closed."""
        self._latest["drift"] = [
            MonitoringFinding(
                f"drift/{column.column}",
                column.psi,
                column.psi >= PSI_SHIFTED and column.shown,
                column.psi < PSI_STABLE or column.log_evidence < CALM_EVIDENCE,
                {
                    "psi": column.psi,
                    "ks": _known(column.ks),
                    "pValue": _known(column.p_value),
                    "logEvidence": column.log_evidence,
                },
            )
            for column in closed
        ]

    def gaps(self, gaps: list[Gap]) -> None:
        """Attributions per group, all that were explained so far."""
        self._latest["explanations"] = [
            MonitoringFinding(
                f"explanations/{gap.attribute}={gap.group}/{gap.feature}",
                gap.difference,
                (gap.lower > 0 or gap.upper < 0) and abs(gap.difference) >= GAP_LARGE * gap.scale,
                abs(gap.difference) < GAP_SMALL * gap.scale,
                {
                    "difference": gap.difference,
                    "lower": gap.lower,
                    "upper": gap.upper,
                    "rows": gap.rows,
                    "exact": gap.exact,
                },
            )
            for gap in gaps
        ]

    def rows(self, fresh: Columns, failed: Callable[[Exception], None], expected: tuple[type[Exception], ...]) -> None:
        """A sample of fresh rows: proxies, discrepancy, flips. An ``expected`` error of the predictor is told to
        ``failed``."""
        self._latest["proxies"] = [row for a in self._groupings for row in self._proxies(fresh, a)]
        self._latest["discrepancy"] = self._discrepancy(fresh)
        try:
            self._flip(fresh)
        except expected as error:
            self.flip_failures += 1
            failed(error)
        self._latest["flips"] = self._flips()

    def conversations(
        self, fresh: Iterable[Twins], failed: Callable[[Exception], None], expected: tuple[type[Exception], ...]
    ) -> None:
        """A sample of conversations, each asked as it was and with its words swapped. Two that fail end the look, and
        ``FLIP_SECONDS`` do."""
        assert self._ask is not None, "conversations are sampled of a runtime that can be asked"
        failures, until = 0, time.monotonic() + FLIP_SECONDS
        for twins in fresh:
            if time.monotonic() > until:
                break
            try:
                self.flip_prompts += 1
                before = self._ask(twins.asked)
                self.flip_prompts += 1
                flipped = self._ask(twins.other) != before
            except expected as error:
                failures += 1
                self.flip_failures += 1
                failed(error)
                if failures > 1:
                    break
            else:
                self._add(WORDS_OF_PROMPT, 1, int(flipped))
        self._latest["flips"] = self._flips()

    def publish(self) -> list[MonitoringFinding]:
        """The findings of the last look at each kind."""
        self.findings = [finding for kind in sorted(self._latest) for finding in self._latest[kind]]
        return self.findings

    # ---- proxies ----

    def _proxies(self, fresh: Columns, attribute: str) -> list[MonitoringFinding]:
        if attribute not in fresh:
            return []
        own = _common(self._coded(fresh, attribute))
        others = {n: _common(self._coded(fresh, n)) for n in fresh if n != attribute and n not in self._untold}
        findings = [
            MonitoringFinding(
                f"proxies/{attribute}/{proxy.feature}",
                proxy.cramers_v,
                proxy.cramers_v >= PROXY_STRONG,
                proxy.cramers_v < PROXY_WEAK,
                {"cramersV": proxy.cramers_v, "lift": proxy.lift, "pValue": proxy.p_value},
            )
            for proxy in proxies(others, own)
        ]
        if not others:
            return []
        lift = joint_lift(others, own)
        whole = {"lift": lift, "features": len(others)}
        return [
            MonitoringFinding(f"proxies/{attribute}/(all)", lift, lift >= PROXY_STRONG, lift < PROXY_WEAK, whole),
            *findings,
        ]

    @property
    def _untold(self) -> set[str]:
        """Features from whose values nothing is learnt: texts, and whom a row is about."""
        return self._texts | {f.name for f in self._manifest.features if f.about} if self._manifest else set()

    @property
    def _texts(self) -> set[str]:
        return {f.name for f in self._manifest.features if f.type == "text"} if self._manifest else set()

    def _coded(self, fresh: Columns, name: str) -> CodedColumn:
        values = fresh[name]
        if name in self._groupings and is_numeric(values):
            return self._groupings[name].encode(values, None)
        if is_numeric(values) and len(np.unique(values)) > MOST_GROUPS:
            edges = np.unique(np.nanquantile(values, (0.2, 0.4, 0.6, 0.8)))
            return np.searchsorted(edges, values, "right"), [str(i) for i in range(len(edges) + 1)]
        return coded(values.astype(str))

    # ---- discrepancy ----

    def _discrepancy(self, fresh: Columns) -> list[MonitoringFinding]:
        """All inputs together, with what the other replicas saw at their last look."""
        self._live.inputs = self._inputs.sums(fresh)
        compared = self._inputs.compared(self._live.inputs, (replica.inputs for replica in self.others.running))
        if compared is None:
            return []
        test, rows = compared
        breach, calm = test.log_evidence >= alarm_threshold(), test.log_evidence < CALM_EVIDENCE
        figures = {
            "mmd2": test.statistic,
            "pValue": test.p_value,
            "logEvidence": test.log_evidence,
            "rows": rows,
        }
        return [MonitoringFinding(ALL_INPUTS, test.statistic, breach, calm, figures)]

    # ---- flips ----

    def _flip(self, fresh: Columns) -> None:
        """Ask the live model about the same rows with another group; adds to the counts since the revision began."""
        if self._decide is None or self._manifest is None:
            return
        # in random order (FreshRows.take), so that the first are a sample of the sample
        rows = {f.name: fresh[f.name][:FLIP_ROWS] for f in self._manifest.features if f.name in fresh}
        if len(rows) < len(self._manifest.features):
            return
        for name in self._groupings:
            if name in rows and name not in self._texts:
                groups = _representatives(rows[name])
                for group, flips in attribute_flips(self._decide, rows, name, groups).items():
                    self._add(f"flips/{name}={group}", flips.rows, flips.flipped)
        for name in sorted(self._texts):
            flips = text_flips(self._decide, rows, name)
            self._add(f"flips/words of {name}", flips.rows, flips.flipped)

    def _add(self, subject: str, rows: int, flipped: int) -> None:
        if rows:
            counted = self._live.flips.get(subject, [0, 0])
            # replaced as a whole: another thread reads it to tell the other replicas
            self._live.flips_since = {subject: time.time(), **self._live.flips_since}
            self._live.flips = {**self._live.flips, subject: [counted[0] + rows, counted[1] + flipped]}

    def _flips(self) -> list[MonitoringFinding]:
        findings = []
        every: dict[str, list[int]] = {}
        since: dict[str, float] = {}
        for told in (self._live.beside(), *self.others.every):
            for subject, (rows, flipped) in told.flips.items():
                before, when = every.get(subject, [0, 0]), told.flips_since.get(subject, 0.0)
                every[subject] = [before[0] + rows, before[1] + flipped]
                since[subject] = min(when, since.get(subject, when))
        shares = shares_by_arrival(since)
        for subject, (rows, flipped) in sorted(every.items()):
            interval = binomial_sequence(flipped, rows, 1 - 0.05 * shares[subject])
            figures = {"rows": rows, "flipped": flipped, "lower": interval.lower, "upper": interval.upper}
            breach, calm = interval.lower > FLIPS_MANY, interval.upper <= FLIPS_MANY
            findings.append(MonitoringFinding(subject, flipped / rows, breach, calm, figures))
        return findings

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """For the API: figures by kind, and which alarms are raised."""
        figures: dict[str, dict[str, object]] = {"alarms": dict(self._live.alarms.raised)}
        for finding in self.findings:
            kind, subject = finding.subject.split("/", 1)
            figures.setdefault(kind, {})[subject] = asdict(finding)["figures"]
        return figures


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _common(column: CodedColumn) -> CodedColumn:
    """Values of fewer than ``SMALLEST_GROUP`` rows as one: rare values tell everything and mean nothing."""
    codes, names = column
    counts = np.bincount(codes, minlength=len(names))
    kept = np.flatnonzero(counts >= SMALLEST_GROUP)
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    return place[codes], [*(names[i] for i in kept.tolist()), "(rare)"]


def _representatives(values: NDArray[np.generic]) -> list[Hashable]:
    """Groups to move rows to: the most frequent words, or the quartiles of numbers."""
    if is_numeric(values) and len(np.unique(values)) > MOST_GROUPS:
        return [values.dtype.type(q) for q in np.unique(np.nanquantile(values, (0.25, 0.75)))]
    names, counts = np.unique(values, return_counts=True)
    return [names[i] for i in np.argsort(-counts, kind="stable")[:MOST_GROUPS]]
