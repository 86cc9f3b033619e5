"""NetworkPolicy enforcement for the kind bed: a translator to nftables, applied on every node.

A test tool, not a product: it reads everything once a second and replaces one nf_tables table per node as a whole. It
covers networking.k8s.io/v1 (pod, namespace and IP-block peers, ports, ranges and named ports, both directions). A new
pod may talk freely for about a second; connections that stand when a policy arrives stay.
"""

import ipaddress
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from support.api_reader import ApiReader

Object = Mapping[str, Any]
TABLE = "governed_policy"
EVERY_S = 1.0
RENEW_EVERY = 30  # turns


def matches(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Label selector semantics of Kubernetes; an empty selector takes all, an absent one nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _expression(expression: Object, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    if operator == "In":
        return bool(labels.get(key) in values)
    if operator == "NotIn":
        return bool(labels.get(key) not in values)
    return bool(key in labels) == (operator == "Exists")


def ruleset(node: str, pods: Sequence[Object], namespaces: Sequence[Object], policies: Sequence[Object]) -> str:
    """The nft script of one node: a table that is replaced as a whole, with a chain per selected pod and direction.

    Forwarded packets pass the sender's egress chain and the receiver's ingress chain; packets to the node itself only
    the former. What a node sends to its own pods (probes) is never filtered, as the API demands.
    """
    labels = {ns["metadata"]["name"]: ns["metadata"].get("labels") or {} for ns in namespaces}
    live = [pod for pod in pods if _address(pod)]
    world = _World(live, labels)
    chains: list[str] = []
    jumps: dict[str, list[str]] = {"ingress": [], "egress": []}
    for pod in live:
        if pod["spec"].get("nodeName") != node:
            continue
        for direction in ("ingress", "egress"):
            rules = world.rules(pod, direction, policies)
            if rules is not None:
                name = f"{direction}_{pod['metadata']['uid'].replace('-', '')}"
                chains.append(_chain(name, [*rules, "drop"]))
                jumps[direction].append(f"{_address(pod)} : jump {name}")
    egress = _map_jump("ip saddr", jumps["egress"])
    # A verdict map's jump returns here when the chain says `return`, and the packet goes on to the other direction's
    # check.
    forward = [*_ESTABLISHED, *egress, *_map_jump("ip daddr", jumps["ingress"])]
    hooks = [
        _chain("forward", ["type filter hook forward priority filter + 10; policy accept;", *forward]),
        _chain("input", ["type filter hook input priority filter + 10; policy accept;", *_ESTABLISHED, *egress]),
    ]
    body = "".join([*chains, *hooks])
    return f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{body}}}\n"


_ESTABLISHED = ("ct state established,related accept",)


def _map_jump(key: str, entries: Sequence[str]) -> list[str]:
    return [f"{key} vmap {{ {', '.join(entries)} }}"] if entries else []


def _chain(name: str, lines: Iterable[str]) -> str:
    return f"  chain {name} {{\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _address(pod: Object) -> str | None:
    """The pod's own IPv4 address; None for pods on the host's network and for finished ones."""
    status = pod.get("status") or {}
    if pod["spec"].get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    address: str | None = status.get("podIP")
    return address if address and ":" not in address else None


class _World:
    """Pods and namespaces that peers are looked up in."""

    def __init__(self, pods: Sequence[Object], labels: Mapping[str, Mapping[str, str]]) -> None:
        self.pods = pods
        self.labels = labels

    def rules(self, pod: Object, direction: str, policies: Sequence[Object]) -> list[str] | None:
        """Accepting rules of all policies that select the pod in this direction; None when none does."""
        selected = [policy for policy in policies if self._selects(policy, pod, direction)]
        if not selected:
            return None
        side = "saddr" if direction == "ingress" else "daddr"
        lines: list[str] = []
        for policy in selected:
            for rule in policy["spec"].get(direction) or ():
                peers = rule.get("from" if direction == "ingress" else "to")
                for port in rule.get("ports") or [None]:
                    lines += self._lines(policy, pod, direction, side, peers, port)
        return lines

    def _selects(self, policy: Object, pod: Object, direction: str) -> bool:
        spec = policy["spec"]
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        return (
            direction.capitalize() in types
            and policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and matches(spec.get("podSelector") or {}, pod["metadata"].get("labels") or {})
        )

    def _lines(
        self,
        policy: Object,
        pod: Object,
        direction: str,
        side: str,
        peers: Sequence[Object] | None,
        port: Object | None,
    ) -> list[str]:
        if not peers:
            targets = [pod] if direction == "ingress" else self.pods
            return [f"{match}return" for match in _port_matches(port, targets)]
        lines = []
        for peer in peers:
            if "ipBlock" in peer:
                lines += [f"{_block(side, peer['ipBlock'])} {match}return" for match in _port_matches(port, [pod])]
                continue
            found = [other for other in self.pods if self._is_peer(peer, other, policy["metadata"]["namespace"])]
            if direction == "ingress":
                groups = [(found, match) for match in _port_matches(port, [pod])] if found else []
            else:  # a named port means each receiver's own
                groups = [([other], match) for other in found for match in _port_matches(port, [other])]
            for members, match in groups:
                addresses = sorted({address for other in members if (address := _address(other))})
                lines.append(f"ip {side} {{ {', '.join(addresses)} }} {match}return")
        return lines

    def _is_peer(self, peer: Object, other: Object, home: str) -> bool:
        namespace = other["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            if not matches(peer["namespaceSelector"] or {}, self.labels.get(namespace, {})):
                return False
        elif namespace != home:
            return False
        return matches(peer.get("podSelector") or {}, other["metadata"].get("labels") or {})


def _block(side: str, block: Object) -> str:
    network = f"ip {side} {ipaddress.ip_network(block['cidr'], strict=False)}"
    excepted = [str(ipaddress.ip_network(one, strict=False)) for one in block.get("except") or ()]
    return f"{network} ip {side} != {{ {', '.join(excepted)} }}" if excepted else network


def _port_matches(port: Object | None, targets: Iterable[Object]) -> list[str]:
    """nft matches (each with a trailing space, or empty) for one policy port; a named port is resolved on the
    receivers."""
    if port is None:
        return [""]
    protocol = (port.get("protocol") or "TCP").lower()
    number = port.get("port")
    if number is None:
        return [f"meta l4proto {protocol} "]
    if isinstance(number, int):
        end = port.get("endPort")
        return [f"{protocol} dport {number}{f'-{end}' if end else ''} "]
    containers = [container for pod in targets for container in pod["spec"]["containers"]]
    numbers = {
        one["containerPort"]
        for container in containers
        for one in container.get("ports") or ()
        if one.get("name") == number and (one.get("protocol") or "TCP").lower() == protocol
    }
    return [f"{protocol} dport {found} " for found in sorted(numbers)]


def enforce(
    nodes: Sequence[str], read: Callable[[], tuple[list[Object], ...]], apply: Callable[[str, str], None]
) -> None:
    """For ever: read the cluster, and give every node whose rules changed its new table. An outage is waited out."""
    applied: dict[str, str] = {}
    for turn in itertools.count():
        if turn % RENEW_EVERY == 0:
            applied.clear()  # a node that was restarted has lost its table
        try:
            pods, namespaces, policies = read()
            for node in nodes:
                script = ruleset(node, pods, namespaces, policies)
                if applied.get(node) != script:
                    apply(node, script)
                    applied[node] = script
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"will try again: {error}", flush=True)
        time.sleep(EVERY_S)


def main(bed_name: str) -> None:
    """Enforce on the kind bed of that name until killed."""
    from support.kind_bed import KindBed  # the bed starts this module, so the import is late

    bed = KindBed(bed_name)
    api = ApiReader(bed.kubeconfig)
    paths = ("/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies")

    def apply(node: str, script: str) -> None:
        bed.on_node(node, "nft", "-f", "-", stdin=script)
        print(f"{node}: {script.count('chain') - 2} chains for pods", flush=True)

    enforce(bed.nodes(), lambda: tuple(api.get(path)["items"] for path in paths), apply)


if __name__ == "__main__":
    main(sys.argv[1])
