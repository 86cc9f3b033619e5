"""A new revision on trial: a fair one is promoted step by step, a biased one goes back and the model says why."""

from typing import Any

import pytest

from support.cluster_access import Cluster
from support.fixtures import CLUSTER, dump_on_failure
from support.governed import ask, await_condition, change, condition, pods, row, start_client, traffic
from support.side_by_side import among_workers
from support.waiting import eventually

from .grants import BIASED, FAIR, GRADES, NAME, SEXES, training

URL = f"http://{NAME}:8080/v2/models/{NAME}"
BODIES = [row(grade=g, sex=s) for g in GRADES for s in SEXES]


@pytest.fixture(scope="module")
def cluster(granting: Cluster, run: int) -> Cluster:
    """A namespace with the model in it, Ready, and a client pod."""
    with among_workers(run, CLUSTER, alone=False):
        start_client(granting)
        await_condition(granting, NAME, within=420)
    return granting


@pytest.fixture(autouse=True)
def _dumped(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    dump_on_failure(request, cluster)


def _status(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("gmodel", NAME)["status"]
    return found


def _decision(cluster: Cluster, grade: str, sex: str) -> str:
    status, answer = ask(cluster, f"{URL}/infer", row(grade=grade, sex=sex))
    assert status == 200, answer
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    return str(outputs["label"][0])


def test_fair_revision_is_promoted(cluster: Cluster) -> None:
    first = _status(cluster)["stable"]["name"]
    with traffic(cluster, URL, BODIES, connections=2) as seen:
        change(cluster, NAME, {"lifecycle": {"training": training(FAIR, 2)}})
        trial = eventually(lambda: _status(cluster).get("canary"), within=300, every=1, what="the trial")
        assert trial["percent"] == 50
        eventually(lambda: len(pods(cluster, NAME, "canary")), lambda n: n == 1, within=60, what="a canary pod")
        promoted = eventually(
            lambda: _status(cluster)["stable"]["name"],
            lambda name: name == trial["name"],
            within=300,
            every=1,
            what="the promotion",
        )
        eventually(lambda: pods(cluster, NAME, "canary"), lambda left: left == [], within=180, every=1)
    assert promoted != first
    assert (seen.failed, seen.refused) == ([], [])
    await_condition(cluster, NAME)
    assert _decision(cluster, "B", "female") == "yes"


def test_biased_revision_goes_back_and_says_why(cluster: Cluster) -> None:
    good = _status(cluster)["stable"]["name"]
    with traffic(cluster, URL, BODIES, connections=2) as seen:
        change(cluster, NAME, {"lifecycle": {"training": training(BIASED, 3)}})
        eventually(lambda: _status(cluster).get("canary"), within=300, every=1, what="the trial")
        status, reason, message = await_condition(cluster, NAME, "Degraded", "True", within=300)
        eventually(lambda: pods(cluster, NAME, "canary"), lambda left: left == [], within=180, every=1)
    assert (status, reason) == ("True", "CanaryBiasBeyondThreshold")
    assert "sex=female against male" in message
    assert "rolled back at 50 %" in message
    assert (seen.failed, seen.refused) == ([], [])
    found = _status(cluster)
    assert found["stable"]["name"] == good
    assert found["rejected"] not in (None, good)
    assert condition(cluster, NAME)[0] == "True", "what served goes on serving"
    assert _decision(cluster, "B", "female") == "yes"
    told = lambda: {e["reason"] for e in cluster.list("events") if e["involvedObject"]["name"] == NAME}  # noqa: E731
    eventually(told, lambda reasons: "CanaryBiasBeyondThreshold" in reasons, within=90)
