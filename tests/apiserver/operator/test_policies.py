"""GovernancePolicies on a real API server: what isn't met is held, what serves serves on, and each change is heard."""

from collections.abc import Iterator
from typing import Any

import pytest
from operator_bed import await_ready, claim, condition, imported

from support.cluster_access import Cluster
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")

EXEMPT = {"model": "plain", "rule": "quota", "owner": "ana", "reason": "one caller", "expires": "2199-01-01T00:00:00Z"}
NOT_READ = {"sources": {"prefixes": ["s3://models\u3000/"]}}
"""The API server's \\s has no ideographic space, and that of our types has: it takes what they don't."""


def policy(*exemptions: dict[str, str], require: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {"enforcement": "Deny", "require": require or {"quota": "Required"}, "exemptions": list(exemptions)}
    kind = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernancePolicy"}
    return {**kind, "metadata": {"name": "floor"}, "spec": spec}


def stands(cluster: Cluster, *expected: str, kind: str = "PolicySatisfied") -> str:
    """Wait until the model's condition has a status and reason; its message."""
    found = eventually(
        lambda: condition(cluster, "plain", kind), lambda c: c[:2] == expected, within=90, what=f"{kind} is {expected}"
    )
    return found[2]


def deployments(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.list("deploy", "-l", "governedmodels.io/model=plain")


@pytest.fixture
def held(namespace: Cluster) -> Cluster:
    """A model without a quota, which a policy of its namespace asks for. Its claim comes last: until then it can't be
    ahead of the policy."""
    namespace.apply(imported())
    stands(namespace, "False", "PersistentVolumeClaimNotFound", kind="Ready")
    namespace.apply(policy())
    stands(namespace, "False", "Violated")
    claim(namespace)
    stands(namespace, "False", "Violated", kind="Ready")
    return namespace


def test_a_model_is_held_until_it_is_exempt(held: Cluster) -> None:
    message = stands(held, "False", "Violated")
    for words in ("GovernancePolicy floor requires a limit", "set a limit in quota.requests", "(rule quota)"):
        assert words in message
    assert deployments(held) == []
    assert held.list("events", "--field-selector=reason=Violated")
    held.apply(policy(EXEMPT))
    await_ready(held, "plain")
    assert "for which ana answers: one caller" in stands(held, "True", "Exempt")
    held.apply(policy())
    stands(held, "False", "Violated")
    assert condition(held, "plain")[0] == "True", "what serves keeps serving"


def test_a_policy_that_cannot_be_read_holds_what_is_new_and_says_so(held: Cluster) -> None:
    held.apply(policy(EXEMPT))
    await_ready(held, "plain")
    held.apply(policy(require=NOT_READ))
    assert "GovernancePolicy floor can't be read" in stands(held, "Unknown", "PolicyInvalid")
    assert condition(held, "plain")[0] == "True", "what serves keeps serving"
    (before,) = deployments(held)
    held.apply(imported(timeout=61))
    stands(held, "False", "PolicyInvalid", kind="Ready")
    assert [d["spec"] for d in deployments(held)] == [before["spec"]]
    told = eventually(lambda: held.list("events", "--field-selector=reason=PolicyInvalid"), within=60)
    assert "GovernancePolicy" in {event["involvedObject"]["kind"] for event in told}
    held.kubectl("delete", "governancepolicy", "floor")
    eventually(lambda: deployments(held), lambda d: d[0]["spec"] != before["spec"], within=90, what="it goes on")
    await_ready(held, "plain")
    kinds = {c["type"] for c in held.get("gmodel", "plain")["status"]["conditions"]}
    assert "PolicySatisfied" not in kinds, "no policy is about it"


@pytest.fixture
def elsewhere(held: Cluster) -> Iterator[Cluster]:
    """Another namespace, beside one whose policy is in force."""
    other = held.within(held.create_namespace("elsewhere"))
    yield other
    held.kubectl("delete", "namespace", other.namespace, "--wait=false")


def test_a_policy_is_about_its_own_namespace_alone(elsewhere: Cluster) -> None:
    claim(elsewhere)
    elsewhere.apply(imported())
    await_ready(elsewhere, "plain")
    kinds = {c["type"] for c in elsewhere.get("gmodel", "plain")["status"]["conditions"]}
    assert "PolicySatisfied" not in kinds
