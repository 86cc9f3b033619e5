"""KEDA itself, made to carry out what the operator asks of it. Opt-in: its operator takes minutes of two processors to
compile.

tests/run apiserver -m opt_in
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from keda import Answers, answering, running_keda
from operator_bed import await_ready, claim, condition, imported, running_operator

from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster
from support.waiting import consistently, eventually

pytestmark = pytest.mark.opt_in

NAME = "plain-predictor"
WAITING = "gateway_waiting"
POLL = 30
"""Seconds between two looks of KEDA's (keda.sh/docs, pollingInterval)."""


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Answers]:
    with answering() as answers:
        yield answers


@pytest.fixture(scope="module", autouse=True)
def keda(api_bed: ApiServerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with running_keda(api_bed, tmp_path_factory.mktemp("keda")):
        yield


@pytest.fixture
def model(namespace: Cluster, api_bed: ApiServerBed, prometheus: Answers, tmp_path: Path) -> Iterator[Cluster]:
    """A namespace under an operator that knows where Prometheus is."""
    prometheus.values, prometheus.broken = {}, False
    query = WAITING + '{namespace="{namespace}",name="{name}"}'
    settings = {"GOVERNED_OPERATOR_PROMETHEUS": prometheus.url, "GOVERNED_OPERATOR_ACTIVATION_QUERY": query}
    claim(namespace)
    with running_operator(api_bed, tmp_path, settings=settings):
        yield namespace


def keda_says(cluster: Cluster, kind: str) -> tuple[str, str]:
    found = next(c for c in cluster.get("scaledobject", NAME)["status"]["conditions"] if c["type"] == kind)
    return found["status"], found.get("reason", "")


def replicas(cluster: Cluster) -> int:
    return int(cluster.get("deployment", NAME)["spec"]["replicas"])


def scaled(least: int) -> dict[str, Any]:
    return imported(minReplicas=least, maxReplicas=3, scaleMetric="concurrency", scaleTarget=8)


def test_a_model_is_scaled_by_the_autoscaler_that_keda_makes(model: Cluster, prometheus: Answers) -> None:
    model.apply(scaled(1))
    eventually(lambda: keda_says(model, "Ready") == ("True", "ScaledObjectReady"), within=60)
    autoscaler = eventually(lambda: model.get("hpa", f"keda-hpa-{NAME}"), within=90)
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (1, 3)
    (metric,) = autoscaler["spec"]["metrics"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "8"}
    await_ready(model, "plain")
    assert condition(model, "plain", "Degraded")[0] == "False"
    warned = [
        e["reason"] for e in model.list("events") if e["type"] == "Warning" and e["involvedObject"]["name"] == "plain"
    ]
    assert warned == [], "the Deployment was there before KEDA looked for it"
    consistently(lambda: model.get("hpa", f"keda-hpa-{NAME}"), during=5, every=1, what="it is left alone")
    eventually(lambda: [q for q in prometheus.asked if model.namespace in q], within=2 * POLL, what="KEDA asks")


def test_a_model_without_requests_goes_to_zero_and_a_waiting_request_wakes_it(
    model: Cluster, prometheus: Answers
) -> None:
    """Nobody but KEDA sets the replicas, and a model that sleeps says so."""
    model.apply(scaled(0))
    eventually(lambda: replicas(model) == 0, within=3 * POLL, what="asleep")
    eventually(lambda: condition(model, "plain", "ModelVerified")[1] == "ScaledToZero", within=90)
    assert condition(model, "plain", "Degraded")[0] == "False"
    consistently(lambda: replicas(model) == 0, during=10, every=2, what="the operator lets it sleep")
    prometheus.values = {WAITING: 1.0}
    eventually(lambda: replicas(model) == 1, within=2 * POLL, what="awake")
    await_ready(model, "plain")
    assert keda_says(model, "Active")[0] == "True"


def test_what_keda_cannot_carry_out_shows_in_the_model(model: Cluster, prometheus: Answers) -> None:
    """Its own words; and once it can again, they are gone."""
    prometheus.broken = True
    model.apply(scaled(1))
    eventually(lambda: keda_says(model, "Ready") == ("False", "TriggerError"), within=2 * POLL, what="KEDA gives up")
    expected = "KEDA does not scale it: Triggers defined in ScaledObject are not working correctly"
    eventually(lambda: condition(model, "plain", "Degraded") == ("True", "TriggerError", expected), within=90)
    prometheus.broken = False
    eventually(lambda: condition(model, "plain", "Degraded")[0] == "False", within=3 * POLL)
