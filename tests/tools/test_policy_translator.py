"""The NetworkPolicy translator against the API's own semantics, without a cluster."""

from typing import Any

import pytest

from support.network_policy import matches, ruleset

Object = dict[str, Any]


def pod(name: str, address: str, node: str = "n1", namespace: str = "a", **labels: str) -> Object:
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, **labels}, "uid": f"{name}-uid"},
        "spec": {"nodeName": node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": "Running", "podIP": address},
    }


def policy(selector: Object, namespace: str = "a", **spec: Any) -> Object:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": selector, **spec}}


PODS = [
    pod("web", "10.0.0.1"),
    pod("friend", "10.0.0.2"),
    pod("other", "10.0.1.3", node="n2", namespace="b"),
]
NAMESPACES = [{"metadata": {"name": name, "labels": {"name": name}}} for name in ("a", "b")]


def chain(text: str, name: str) -> list[str]:
    """The lines of one chain of a ruleset."""
    lines = text.split(f"chain {name} {{\n")[1].split("  }")[0].splitlines()
    return [line.strip() for line in lines]


def test_nothing_is_filtered_without_a_policy() -> None:
    assert "drop" not in ruleset("n1", PODS, NAMESPACES, [])


def test_empty_selector_with_no_rules_drops_everything_of_that_namespace_alone() -> None:
    deny = policy({}, policyTypes=["Ingress", "Egress"])
    text = ruleset("n1", PODS, NAMESPACES, [deny])
    assert chain(text, "ingress_webuid") == ["drop"]
    assert chain(text, "egress_frienduid") == ["drop"]
    assert "drop" not in ruleset("n2", PODS, NAMESPACES, [deny]), "namespace b has no policy"


def test_pod_peer_is_looked_up_in_the_policys_own_namespace() -> None:
    rule = {"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}
    text = ruleset("n1", PODS, NAMESPACES, [policy({"matchLabels": {"app": "web"}}, ingress=[rule])])
    assert chain(text, "ingress_webuid") == ["ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport 8080 return", "drop"]
    assert "egress" not in text


def test_namespace_peer_reaches_other_namespaces() -> None:
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"name": "b"}}}]}
    text = ruleset("n1", PODS, NAMESPACES, [policy({"matchLabels": {"app": "web"}}, ingress=[rule])])
    assert chain(text, "ingress_webuid") == ["ip saddr { 10.0.1.3 } return", "drop"]


def test_ip_block_with_exceptions_and_port_range() -> None:
    block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}
    rule = {"to": [block], "ports": [{"port": 30000, "endPort": 30100, "protocol": "UDP"}]}
    text = ruleset("n1", PODS, NAMESPACES, [policy({}, policyTypes=["Egress"], egress=[rule])])
    expected = "ip daddr 192.0.2.0/24 ip daddr != { 192.0.2.128/25 } udp dport 30000-30100 return"
    assert chain(text, "egress_webuid") == [expected, "drop"]


def test_peer_that_matches_no_pod_allows_nothing() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}
    text = ruleset("n1", PODS, NAMESPACES, [policy({"matchLabels": {"app": "web"}}, ingress=[rule])])
    assert chain(text, "ingress_webuid") == ["drop"]


def test_pods_on_the_hosts_network_are_left_alone() -> None:
    host = pod("host", "172.18.0.2")
    host["spec"]["hostNetwork"] = True
    assert "drop" not in ruleset("n1", [host], NAMESPACES, [policy({})])


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ({}, True),
        (None, False),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "other"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "x"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selectors(selector: Object | None, taken: bool) -> None:
    assert matches(selector, {"app": "web"}) is taken
