"""What dashboards, scaling rules and prose ask Prometheus for is what the five processes emit, labels included."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from governed_api import runtime
from governed_api.verdict import CoverageFinding, MetricFinding, SetCoverage
from governed_operator.desired import autoscaling
from governed_operator.loop.metrics import OperatorMetrics
from governed_operator.loop.workqueue import WorkQueue
from governed_serving.access.gate import Gate
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.auditor.service.checks import MonitoringFinding
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.explainer.service.metrics import ExplainerMetrics
from governed_serving.server.metrics import ServerMetrics

ROOT = Path(__file__).parents[3]
OURS = re.compile(r"\bgoverned_(?!api\b|operator\b|release\b|serving\b)[a-z_]+")
FROM_ELSEWHERE = {runtime.METRIC_RATE}  # what a metrics adapter makes of METRIC_REQUESTS


def exposition(process: str) -> bytes:
    """The text of a process whose every family has a sample."""
    return {"server": _server, "explainer": _explainer, "auditor": _auditor, "operator": _operator}[process]()


def _server() -> bytes:
    metrics = ServerMetrics("n", "m")
    metrics.requests["infer", 200] = 1
    metrics.masked = {"EMAIL": 1}
    for gauge in _gauges_set_elsewhere():
        metrics.gauges[gauge] = ("", lambda: 1.0)
    return metrics.text() + Gate("n", "m", "server", "5e" * 32).text()


def _gauges_set_elsewhere() -> Iterator[str]:
    for source in (ROOT / "serving_image/governed_serving/server").rglob("*.py"):
        yield from re.findall(r'metrics\.gauges\["(\w+)"\] =', source.read_text())


def _explainer() -> bytes:
    metrics = ExplainerMetrics("n", "m")
    metrics.answered("exact", 200, 0.1, 5)
    metrics.graded({"fidelity": 1.0})
    metrics.alarmed()
    metrics.sampled(1)
    metrics.dropped("busy", 1)
    metrics.engine_ended("cut")
    return metrics.text()


def _auditor() -> bytes:
    metrics = AuditorMetrics("n", "m")
    metrics.dropped({"late": 1})
    metrics.refused({"unusable": 1})
    metrics.workers({"fold": 1}, ["fold"])
    metrics.missing({"sex": 1})
    found: Any = SimpleNamespace(subject="drift/age", value=1.0)
    assert {"subject", "value"} <= set(MonitoringFinding.__dataclass_fields__)
    metrics.findings([found], ["drift/age"])
    measured: Any = SimpleNamespace(name="statisticalParityDifference", attribute="sex", group="f", value=0.1)
    assert {"name", "attribute", "group", "value"} <= _fields(MetricFinding)
    metrics.bias([measured])
    metrics.coverage(SetCoverage(promised=0.9, overall=CoverageFinding(group="(all)", rows=1, covered=1, coverage=1.0)))
    return metrics.text()


def _fields(struct: type) -> set[str]:
    return set(getattr(struct, "__struct_fields__", getattr(struct, "model_fields", ())))


def _operator() -> bytes:
    from prometheus_client import generate_latest

    metrics = OperatorMetrics(WorkQueue())
    metrics.reconciles.labels("success").observe(0.1)
    metrics.errors.labels("Invalid").inc()
    metrics.watch_breaks.labels("Deployment").inc()
    metrics.wrote("Deployment", "patch")
    metrics.note(("n", "m"), {"Ready": "True"})
    return generate_latest(metrics.registry)


@pytest.fixture(scope="module")
def archive_text() -> bytes:
    metrics = ArchiveMetrics("n")
    standing = SimpleNamespace(cosigner=SimpleNamespace(name="w"), size=1, answers={"cosigned": 1})
    archive: Any = SimpleNamespace(
        ledger=SimpleNamespace(size=1, rebuilt=0, faults={}),
        appender=SimpleNamespace(waiting=0, groups=1, group_seconds=0.1),
        retention=SimpleNamespace(deleted=0),
        pace=SimpleNamespace(behind=0.0),
        blobs=SimpleNamespace(away=""),
        witnessed=SimpleNamespace(size=1, contradiction="", standings=(standing,)),
    )
    metrics._requests.labels(namespace="n", component="archive", method="GET", route="/", status="200").inc()
    metrics._seconds.labels(namespace="n", component="archive", method="GET", route="/").observe(0.1)
    metrics.refused("server", "append", "act")
    metrics.tell_older_tokens(1, 2.0)
    return metrics.render(archive)


@pytest.fixture(scope="module")
def emitted(archive_text: bytes) -> dict[str, set[str]]:
    """Name of a series, as Prometheus stores it → its labels."""
    series: dict[str, set[str]] = {}
    for process in ("server", "explainer", "auditor", "operator", "archive"):
        text = archive_text if process == "archive" else exposition(process)
        for family in text_string_to_metric_families(text.decode()):
            if family.name.startswith("governed_"):
                assert family.samples, f"{process}: give {family.name} a sample here, so that its labels are known"
            for sample in family.samples:
                series.setdefault(sample.name, set()).update(sample.labels)
    return series


def asked_in(expression: str) -> dict[str, set[str]]:
    """Series of a PromQL expression → labels that it selects or groups by."""
    grouped = {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(",")}
    asked = {}
    for match in re.finditer(r"\b(governed_\w+)(?:\{([^}]*)\})?", expression):
        selected = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match[2] or ""))
        asked[match[1]] = selected | (grouped - {""})
    return asked


def unknown(asked: dict[str, set[str]], emitted: dict[str, set[str]]) -> list[str]:
    """What is asked for and never emitted."""
    missing = [name for name in asked if name not in emitted]
    return missing + [f"{n}{{{label}}}" for n, labels in asked.items() if n in emitted for label in labels - emitted[n]]


def dashboards() -> list[tuple[str, str, str]]:
    """(where, expression, legend) of every query."""
    queries = []
    for file in (ROOT / "charts/governed-models/dashboards").glob("*.json"):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            queries += [(panel["title"], t["expr"], t.get("legendFormat", "")) for t in panel["targets"]]
        for variable in board["templating"]["list"]:
            if found := re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]):
                queries.append((f"variable {variable['name']}", found[1], f"{{{{{found[2]}}}}}"))
    return queries


@pytest.mark.parametrize("query", dashboards(), ids=lambda q: q[0])
def test_a_panel_asks_for_what_is_emitted(query: tuple[str, str, str], emitted: dict[str, set[str]]) -> None:
    _, expression, legend = query
    asked = asked_in(expression)
    assert asked
    shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
    assert unknown({name: labels | shown for name, labels in asked.items()}, emitted) == []
    if " by (" in expression:  # what isn't grouped by is gone before the legend is written
        assert shown <= {label for name in asked for label in asked[name]}


def test_scaling_rules_ask_for_what_is_emitted(emitted: dict[str, set[str]]) -> None:
    for name in (runtime.METRIC_IN_FLIGHT, runtime.METRIC_REQUESTS):
        assert name in emitted
    for expression in autoscaling.QUERIES.values():
        assert unknown(asked_in(expression), emitted) == []


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((ROOT / "charts/governed-models/alerts/governed-models.yaml").read_text())
    return [alert for group in rules["groups"] for alert in group["rules"]]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_is_emitted(alert: dict[str, Any], emitted: dict[str, set[str]]) -> None:
    asked = asked_in(alert["expr"])
    assert asked
    assert unknown(asked, emitted) == []
    left = set(re.findall(r"\bby \(([^)]*)\)", alert["expr"]))  # one list of labels in all of its terms
    assert len(left) <= 1
    kept = {label.strip() for label in ",".join(left).split(",")}
    words = alert["annotations"]["summary"] + alert["annotations"]["action"]
    assert set(re.findall(r"\$labels\.(\w+)", words)) <= kept
    assert (alert["labels"]["severity"] in ("critical", "warning"), set(alert["annotations"])) == (
        True,
        {"summary", "action"},
    )


def test_alerts_have_names_of_their_own_and_the_chart_makes_them() -> None:
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names)
    template = (ROOT / "charts/governed-models/templates/prometheusrule.yaml").read_text()
    assert '.Files.Get "alerts/governed-models.yaml"' in template


def prose() -> list[Path]:
    """Texts that a person reads, and the chart's rules."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "charts/*.yaml", "charts/*.txt", "crds/samples"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [ROOT / name for name in listed]


def test_metrics_that_are_written_about_exist(emitted: dict[str, set[str]]) -> None:
    mentioned = {(path.name, name) for path in prose() for name in OURS.findall(path.read_text())}
    known = {name for series in emitted for name in (series, series.removesuffix("_bucket"))} | FROM_ELSEWHERE
    begun = {(file, name) for file, name in mentioned if name.endswith("_") and any(k.startswith(name) for k in known)}
    assert {(file, name) for file, name in mentioned - begun if name not in known} == set()


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("governed_ledger_size", ["governed_ledger_size"]),
        (
            'sum by (name, limit) (rate(governed_quota_refusals_total{name=~"m"}[5m]))',
            ["governed_quota_refusals_total{limit}"],
        ),
        ('governed_explainer_queue_depth{name="m"}', ["governed_explainer_queue_depth{name}"]),
        ("governed_requests", ["governed_requests"]),  # Prometheus stores a counter with its suffix
    ],
)
def test_a_planted_fault_is_noticed(expression: str, wrong: list[str], emitted: dict[str, set[str]]) -> None:
    assert unknown(asked_in(expression), emitted) == wrong
