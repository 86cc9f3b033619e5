"""A model behind a real Gateway: its route is taken, paths are rewritten, canaries get their share and nobody a
refusal."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from operator_bed import await_ready, canary, claim, condition, served, write_report
from traefik import NAMESPACE, Traefik, apply_gateway, conditions, running_traefik

from governed_api import runtime as rt
from support import pod_network
from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster
from support.governed import pods
from support.host import is_root
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture(scope="module")
def traefik(api_bed: ApiServerBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traefik]:
    if not is_root():
        pytest.skip("pods' addresses answer by a local route, which only root may add")
    with (
        pod_network.answering(str(pod_network.own_network()), rt.PORT_HTTP),
        running_traefik(api_bed, tmp_path_factory.mktemp("traefik")) as running,
    ):
        yield running


@pytest.fixture
def model(namespace: Cluster, traefik: Traefik) -> Cluster:
    """The namespace of a model that serves through the Gateway."""
    claim(namespace)
    namespace.apply(canary(60))
    await_ready(namespace, "plain")
    eventually(lambda: ask(traefik, namespace).status_code == 200, within=90, what="the Gateway reaches the model")
    return namespace


def ask(traefik: Traefik, cluster: Cluster, path: str = "/v2/models/plain/infer") -> httpx.Response:
    return traefik.get(f"/{cluster.namespace}/plain{path}")


def addresses(cluster: Cluster, track: str) -> set[str]:
    return {p["status"]["podIP"] for p in pods(cluster, "plain", track)}


def test_the_gateway_takes_the_route(model: Cluster) -> None:
    assert conditions(model, "gatewayclass", "traefik")["Accepted"] == "True"
    assert conditions(model.within(NAMESPACE), "gateway", "shared") == {"Accepted": "True", "Programmed": "True"}
    eventually(
        lambda: conditions(model, "httproute", "plain"),
        lambda found: found == {"Accepted": "True", "ResolvedRefs": "True"},
        within=60,
    )


SEEN = {
    "/v2/models/plain/infer": "/v2/models/plain/infer",
    "/v2/models/plain/infer?a=b%2Fc": "/v2/models/plain/infer?a=b%2Fc",
    "/v2/models/pl%20ain": "/v2/models/pl%20ain",
    "/": "/",
    "": "/",
}


def test_the_model_sees_its_own_paths_and_no_other_s(model: Cluster, traefik: Traefik) -> None:
    assert {path: ask(traefik, model, path).json()["path"] for path in SEEN} == SEEN
    assert ask(traefik, model, "er/v2/models/plainer/infer").status_code == 404


@dataclass
class Visitors:
    """What requests that never stop coming were answered: one after the other, each on a connection that lives on."""

    answers: list[tuple[int, str]] = field(default_factory=list)

    def refused(self) -> Counter[int]:
        return Counter(status for status, _ in self.answers if status != 200)

    @classmethod
    @contextmanager
    def coming(cls, traefik: Traefik, cluster: Cluster) -> Iterator["Visitors"]:
        here, over = cls(), threading.Event()

        def come() -> None:
            with httpx.Client(base_url=traefik.http.base_url, timeout=30, trust_env=False) as client:
                while not over.wait(0.005):
                    answer = client.get(f"/{cluster.namespace}/plain/v2/health/ready")
                    here.answers.append((answer.status_code, answer.text))

        threads = [threading.Thread(target=come) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield here
        finally:
            over.set()
            for thread in threads:
                thread.join()


def shares(traefik: Traefik, cluster: Cluster, requests: int) -> Counter[str]:
    """Answers by track."""
    track = {address: name for name in ("stable", "canary") for address in addresses(cluster, name)}
    return Counter(track[ask(traefik, cluster).json()["address"]] for _ in range(requests))


def weights(cluster: Cluster) -> dict[str, int]:
    (rule,) = cluster.get("httproute", "plain")["spec"]["rules"]
    return {b["name"]: b["weight"] for b in rule["backendRefs"]}


def start_canary(cluster: Cluster, timeout: int) -> str:
    """A revision on trial; its name."""
    before = cluster.get("gmodel", "plain")["status"]["stable"]["name"]
    cluster.apply(canary(timeout))
    found: dict[str, Any] = eventually(lambda: cluster.get("gmodel", "plain")["status"]["canary"], within=90)
    assert found["name"] != before
    return str(found["name"])


def test_a_canary_gets_exactly_its_share_is_promoted_or_rolled_back_and_no_request_is_refused(
    model: Cluster, traefik: Traefik
) -> None:
    with Visitors.coming(traefik, model) as visitors:
        good = start_canary(model, 61)
        eventually(lambda: weights(model), lambda w: w == {"plain-stable": 80, "plain-canary": 20}, within=90)
        eventually(lambda: shares(traefik, model, 10)["canary"] > 0, within=90, what="the Gateway knows of the canary")
    with Visitors.coming(traefik, model) as promotion:
        write_report(model, "plain", revisions={good: {"server": served(100, 0)}})
        eventually(lambda: weights(model), lambda w: w == {"plain-stable": 100}, within=60)
        await_ready(model, "plain")
        assert model.get("gmodel", "plain")["status"]["stable"]["name"] == good
        eventually(lambda: shares(traefik, model, 50), lambda s: s == {"stable": 50}, within=90)

        worse = start_canary(model, 62)
        eventually(lambda: shares(traefik, model, 10)["canary"] > 0, within=90)
        write_report(model, "plain", revisions={worse: {"server": served(50, 30) | served(50, 20, "other")}})
        eventually(lambda: condition(model, "plain", "Degraded")[1] == "CanaryErrorRate", within=60)
        eventually(lambda: shares(traefik, model, 50), lambda s: s == {"stable": 50}, within=90)
    assert (visitors.refused(), promotion.refused()) == (Counter(), Counter())
    assert len(promotion.answers) > 200


def test_of_500_requests_a_fifth_reaches_the_canary(model: Cluster, traefik: Traefik) -> None:
    """Traefik's weighted round robin keeps every prefix within one request of its shares."""
    start_canary(model, 61)
    eventually(lambda: shares(traefik, model, 10)["canary"] > 0, within=90)
    found = shares(traefik, model, 500)
    assert found.total() == 500
    assert abs(found["canary"] - 100) <= 1


def test_a_canary_that_does_not_serve_yet_gets_no_request(
    model: Cluster, traefik: Traefik, api_bed: ApiServerBed
) -> None:
    """A backend without endpoints costs its share in refusals (Gateway API, BackendRef.weight)."""
    with api_bed.paused("kwok"):
        start_canary(model, 61)
        eventually(lambda: pods(model, "plain", "canary"), within=90, what="the canary's pod, which doesn't start")
        with Visitors.coming(traefik, model) as visitors:
            eventually(lambda: len(visitors.answers) > 200, within=90)
        assert visitors.refused() == Counter()
        assert weights(model) == {"plain-stable": 100}
    eventually(lambda: shares(traefik, model, 10)["canary"] > 0, within=90, what="its share, once it serves")


def test_a_gateway_that_refuses_is_named(model: Cluster, traefik: Traefik) -> None:
    apply_gateway(model, traefik.port, routes_from="Same")
    try:
        found = eventually(lambda: condition(model, "plain", "Degraded"), lambda c: c[0] == "True", within=90)
        assert found[1] == "NotAllowedByListeners"
        assert "Gateway ingress/shared refuses the HTTPRoute" in found[2]
        assert condition(model, "plain")[0] == "True", "inside the cluster it is served"
    finally:
        apply_gateway(model, traefik.port)
    eventually(lambda: condition(model, "plain", "Degraded"), lambda c: c[0] == "False", within=90)


def test_a_deleted_model_is_gone_from_the_gateway(model: Cluster, traefik: Traefik) -> None:
    model.kubectl("delete", "gmodel", "plain")
    eventually(lambda: ask(traefik, model).status_code, lambda s: s == 404, within=60)
    assert not model.list("httproute")
