"""Small restricted workloads of busybox that the smoke tests put on the bed."""

import re
from typing import Any

from support.cluster_access import Cluster, KubectlError
from support.node_image import TOOLS

Object = dict[str, Any]

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
IDLE = "trap exit TERM; while :; do sleep 3600 & wait; done"
SERVE = "hostname > /www/index.html; exec httpd -f -v -p 8080 -h /www"


def container(script: str, name: str = "main", **rest: Any) -> Object:
    return {
        "name": name,
        "image": TOOLS,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
        "securityContext": CONTAINER_SECURITY,
        **rest,
    }


def pod_spec(*containers: Object, **rest: Any) -> Object:
    return {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": POD_SECURITY,
        "containers": list(containers),
        **rest,
    }


def pod(name: str, script: str = IDLE, labels: dict[str, str] | None = None, **rest: Any) -> Object:
    metadata = {"name": name, "labels": {"app": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(container(script), **rest)}


def web(replicas: int = 1, name: str = "web") -> list[Object]:
    """A Deployment of web servers that say their own name, one on a node, and its Service on port 80."""
    serving = container(
        SERVE,
        ports=[{"name": "http", "containerPort": 8080}],
        readinessProbe={"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        volumeMounts=[{"name": "www", "mountPath": "/www"}],
        resources={"requests": {"cpu": "20m"}},
    )
    # Required, so that a server waits for a node that has yet to come back instead of joining its peer.
    apart = {"labelSelector": {"matchLabels": {"app": name}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": pod_spec(serving, volumes=[{"name": "www", "emptyDir": {}}], affinity=affinity),
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
        },
    ]


def fetch(cluster: Cluster, client: str, url: str) -> str | None:
    """GET a URL from within a pod; None when nobody answers within 3 s or the name or connection is refused."""
    try:
        return cluster.execute(client, "timeout", "3", "wget", "-q", "-O", "-", url).strip()
    except KubectlError as error:
        if re.search(r"exit code (1|124|143)$|bad address|refused", str(error)):
            return None
        raise
