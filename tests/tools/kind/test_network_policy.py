"""NetworkPolicies on the kind bed hold: what they forbid does not pass, what they allow does."""

from typing import Any

import pytest

from support import workloads
from support.cluster_access import Cluster
from support.waiting import consistently, eventually

DENY_ALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


def policy(name: str, selector: str, **spec: Any) -> dict[str, Any]:
    types = [kind.capitalize() for kind in ("ingress", "egress") if kind in spec]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": selector}}, "policyTypes": types, **spec},
    }


def answers(cluster: Cluster, client: str, url: str) -> bool:
    return (workloads.fetch(cluster, client, url) or "").startswith("web-")


@pytest.fixture
def neighbours(kind_namespace: Cluster) -> Cluster:
    """A web server with its Service, and two clients, `friend` and `stranger`, on both workers."""
    kind_namespace.apply([*workloads.web(replicas=2), workloads.pod("friend"), workloads.pod("stranger")])
    kind_namespace.rollout("deployment/web")
    kind_namespace.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s", timeout=130)
    for client in ("friend", "stranger"):
        eventually(lambda client=client: answers(kind_namespace, client, "http://web/"), within=90)
    return kind_namespace


def test_policy_blocks_the_stranger_and_allows_the_friend(neighbours: Cluster) -> None:
    friends = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "http"}]}
    neighbours.apply(policy("friends-only", "web", ingress=[friends]))
    eventually(lambda: not answers(neighbours, "stranger", "http://web/"), within=90, what="the stranger's silence")
    consistently(lambda: answers(neighbours, "stranger", "http://web/"), lambda passed: not passed, during=4)
    consistently(lambda: answers(neighbours, "friend", "http://web/"), during=4)
    neighbours.kubectl("delete", "networkpolicy", "friends-only")
    eventually(lambda: answers(neighbours, "stranger", "http://web/"), within=90, what="the stranger's return")


def test_default_deny_stops_dns_and_egress_rules_open_exactly_what_they_name(neighbours: Cluster) -> None:
    neighbours.apply(DENY_ALL)
    eventually(lambda: not answers(neighbours, "friend", "http://web/"), within=90, what="silence under default deny")
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    dns = {"to": [system], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    neighbours.apply(
        [
            policy("friend-out", "friend", egress=[dns, {"to": [web], "ports": [{"port": 8080}]}]),
            policy("web-in", "web", ingress=[{"from": [{"podSelector": {}}]}]),
        ]
    )
    eventually(lambda: answers(neighbours, "friend", "http://web/"), within=90, what="the friend's way out")
    consistently(lambda: answers(neighbours, "stranger", "http://web/"), lambda passed: not passed, during=4)


def test_probes_of_the_kubelet_pass_a_default_deny(neighbours: Cluster) -> None:
    neighbours.apply(DENY_ALL)
    eventually(lambda: not answers(neighbours, "friend", "http://web/"), within=90)
    consistently(
        lambda: neighbours.get("deployment", "web")["status"].get("readyReplicas"), lambda ready: ready == 2, during=6
    )
