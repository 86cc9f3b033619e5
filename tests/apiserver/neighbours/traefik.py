"""Traefik as the Gateway API's implementation: its process on this machine, its class and one Gateway for all
namespaces."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster
from support.ports import free_port
from support.processes import Process
from support.programs import program
from support.waiting import eventually

NAMESPACE, NAME = "ingress", "shared"
GATEWAY = f"{NAMESPACE}/{NAME}"
API = "gateway.networking.k8s.io/v1"


@dataclass(frozen=True)
class Traefik:
    """A running one; `http` is a client of its entry point."""

    process: Process
    port: int
    http: httpx.Client

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)


def apply_gateway(cluster: Cluster, port: int, routes_from: str = "All") -> None:
    """Traefik finds its entry point by the listener's port."""
    listener = {"name": "web", "protocol": "HTTP", "port": port, "allowedRoutes": {"namespaces": {"from": routes_from}}}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": API,
            "kind": "GatewayClass",
            "metadata": {"name": "traefik"},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        },
        {
            "apiVersion": API,
            "kind": "Gateway",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
    ]
    cluster.within(NAMESPACE).apply(objects)


@contextmanager
def running_traefik(bed: ApiServerBed, folder: Path) -> Iterator[Traefik]:
    """Its process, programmed with the Gateway; ended with the block."""
    port = free_port()
    command = [
        str(program("traefik")),
        f"--entrypoints.web.address=127.0.0.1:{port}",
        "--providers.kubernetesgateway",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    process = Process("traefik", command, str(folder / "traefik.log"))
    process.start({**os.environ, "KUBECONFIG": str(bed.kubeconfig_for("traefik", ["system:masters"]))})
    try:
        apply_gateway(bed.cluster, port)
        eventually(lambda: conditions(bed.cluster.within(NAMESPACE), "gateway", NAME)["Programmed"] == "True",
                   within=60, what=f"Traefik takes the Gateway; its log says:\n{process.tail()}")  # fmt: skip
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield Traefik(process, port, client)
    finally:
        process.stop()


def conditions(cluster: Cluster, kind: str, name: str) -> dict[str, str]:
    """Type → status of the conditions of the present generation; those of an HTTPRoute stand under its one parent."""
    found = cluster.get(kind, name)
    status = found["status"]["parents"][0] if kind == "httproute" else found["status"]
    current = found["metadata"]["generation"]
    return {c["type"]: c["status"] for c in status["conditions"] if c["observedGeneration"] == current}
