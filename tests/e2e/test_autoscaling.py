"""The HPA on the kind bed follows real CPU metrics, out and in."""

from support import workloads
from support.cluster_access import Cluster
from support.waiting import eventually

BURN = (
    "while :; do if [ -e /work/busy ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else sleep 0.2; fi; done"
)
AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "burner"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "burner"},
        "minReplicas": 1,
        "maxReplicas": 2,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    },
}


def _deployment() -> dict[str, object]:
    burner = workloads.container(
        BURN,
        resources={"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
        volumeMounts=[{"name": "work", "mountPath": "/work"}],
    )
    template = {
        "metadata": {"labels": {"app": "burner"}},
        "spec": workloads.pod_spec(burner, volumes=[{"name": "work", "emptyDir": {}}]),
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "burner"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "burner"}, "spec": spec}


def test_busy_pod_is_scaled_out_and_in(kind_namespace: Cluster) -> None:
    kind_namespace.apply([_deployment(), AUTOSCALER])
    kind_namespace.rollout("deployment/burner")
    first = kind_namespace.list("pods", "-l", "app=burner")[0]["metadata"]["name"]
    kind_namespace.execute(first, "touch", "/work/busy")

    def replicas() -> int:
        return int(kind_namespace.get("deployment", "burner")["spec"]["replicas"])

    eventually(replicas, lambda count: count == 2, within=180, every=2, what="scaling out")
    assert "burner-" in kind_namespace.kubectl("top", "pods", "--no-headers")
    for pod in kind_namespace.list("pods", "-l", "app=burner"):
        kind_namespace.execute(pod["metadata"]["name"], "rm", "-f", "/work/busy")
    eventually(replicas, lambda count: count == 1, within=240, every=2, what="scaling in")
