"""What must hold for every rendered object, whatever the model."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import resolved

from governed_api import runtime as rt
from governed_operator.desired.decision import Revision
from governed_operator.desired.inference import inference_pod
from governed_operator.desired.manifest import Subject

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = {p.parent.name: list(yaml.safe_load_all(p.read_text())) for p in sorted(GOLDEN.glob("*/output.yaml"))}


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [o["spec"]["template"]["spec"] for o in objects if "template" in o.get("spec", {})]


@pytest.mark.parametrize("case", CASES)
def test_pods_keep_the_restricted_standard(case: str) -> None:
    found = pods(CASES[case])
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            context = container["securityContext"]
            assert context == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
        assert all(set(v) - {"name"} <= allowed for v in pod["volumes"])


@pytest.mark.parametrize("case", CASES)
def test_mounts_name_volumes_and_probes_name_ports(case: str) -> None:
    for owner in (o for o in CASES[case] if "template" in o.get("spec", {})):
        pod = owner["spec"]["template"]["spec"]
        claims = [c["metadata"]["name"] for c in owner["spec"].get("volumeClaimTemplates", [])]
        volumes = {v["name"] for v in pod["volumes"]} | set(claims)
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert {m["name"] for m in container["volumeMounts"]} <= volumes
            ports = {p["name"] for p in container.get("ports", [])}
            probes = [container[k]["httpGet"]["port"] for k in container if k.endswith("Probe")]
            assert set(probes) <= ports


@pytest.mark.parametrize("case", CASES)
def test_each_container_has_the_token_of_its_own_role_and_no_other(case: str) -> None:
    """A volume of keys is one container's; the operator's token and a foreign runtime meet in no pod."""
    for pod in pods(CASES[case]):
        keys = {v["name"]: v["projected"]["sources"] for v in pod["volumes"] if v["name"].startswith("keys-")}
        mounted = []
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            own = [m["name"] for m in container["volumeMounts"] if m["name"].startswith("keys")]
            if container["name"] in ("runtime", "archive"):
                assert own == ([] if container["name"] == "runtime" else ["keys"])
                continue
            (name,) = own
            mounted.append(name)
            (token,) = keys[name][1]["secret"]["items"]
            assert token == {"key": f"{container['name']}-token", "path": "archive-token"}
            assert keys[name][1]["secret"]["name"].endswith("-tokens")
        assert sorted(mounted) == sorted(keys)
        assert "operator-token" not in str(pod)


START_CPU = 1.3
"""Seconds of a core that our processes take to start: imports, mostly (measured: .9 to 1.3)."""


@pytest.mark.parametrize("case", CASES)
def test_a_process_that_gets_no_more_than_its_request_lives_to_see_its_first_probe(case: str) -> None:
    """On a node without spare CPU a container has its request; one that is ended for it begins at nothing again."""
    for pod in pods(CASES[case]):
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            if "livenessProbe" not in container:
                continue
            startup = container["startupProbe"]
            share = int(container["resources"]["requests"]["cpu"].removesuffix("m")) / 1000 or 1.0
            assert startup["periodSeconds"] * startup["failureThreshold"] >= 4 * START_CPU / share, container["name"]
            assert "initialDelaySeconds" not in container["livenessProbe"]


@pytest.mark.parametrize("case", CASES)
def test_plaintext_volumes_never_touch_a_disk(case: str) -> None:
    for pod in pods(CASES[case]):
        for volume in pod["volumes"]:
            if volume["name"] in ("model", "tmp"):
                assert volume["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("case", CASES)
def test_objects_are_named_once_and_labelled(case: str) -> None:
    keys = [(o["kind"], o["metadata"]["name"]) for o in CASES[case]]
    assert len(keys) == len(set(keys))
    assert all(o["metadata"]["labels"]["app.kubernetes.io/part-of"] == "governed-models" for o in CASES[case])
    assert all(len(name) <= 63 for _, name in keys)


def named(case: str, kind: str) -> list[dict[str, Any]]:
    return [o for o in CASES[case] if o["kind"] == kind]


def test_replicas_belong_to_the_autoscaler() -> None:
    (fixed,) = named("imported", "Deployment")
    (scaled,) = named("trained-full", "Deployment")
    assert fixed["spec"]["replicas"] == 3
    assert "replicas" not in scaled["spec"]


def test_keda_replaces_the_hpa_only_where_it_is_present() -> None:
    assert [len(named("foreign-runtime", k)) for k in ("HorizontalPodAutoscaler", "ScaledObject")] == [1, 0]
    assert [len(named("neighbours-present", k)) for k in ("HorizontalPodAutoscaler", "ScaledObject")] == [0, 1]
    scaled = named("neighbours-present", "ScaledObject")[0]["spec"]
    assert scaled["minReplicaCount"] == 0
    load, wake = (t["metadata"] for t in scaled["triggers"])
    assert (load["threshold"], wake["activationThreshold"]) == ("8", "0")
    assert wake["query"] == 'sum(rate(envoy_http_rq_total{route="assistants/chat"}[1m]))'


def test_a_pod_is_scraped_through_one_service() -> None:
    (monitor,) = named("neighbours-present", "ServiceMonitor")
    selector = monitor["spec"]["selector"]
    absent = {e["key"] for e in selector["matchExpressions"] if e["operator"] == "DoesNotExist"}

    def chosen(labels: dict[str, str]) -> bool:
        return selector["matchLabels"].items() <= labels.items() and not absent & labels.keys()

    services = named("neighbours-present", "Service")
    assert [s["metadata"]["name"] for s in services if chosen(s["metadata"]["labels"])] == ["chat"]


def test_grpc_has_a_port_of_the_service_where_the_protocol_has_it() -> None:
    def ports(case: str) -> tuple[list[str], list[str], str | None]:
        (service,) = [s for s in named(case, "Service") if s["spec"].get("clusterIP") != "None"][-1:]
        (deployment,) = named(case, "Deployment")
        server = next(c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == "server")
        environment = {e["name"]: e.get("value") for e in server["env"]}
        names = [p["name"] for p in service["spec"]["ports"]], [p["name"] for p in server["ports"]]
        return *names, environment.get(rt.GRPC_PORT)

    assert ports("trained-full") == (["http", "grpc"], ["http", "grpc"], "8081")
    assert ports("neighbours-present") == (["http"], ["http"], None)


@pytest.mark.parametrize("case", CASES)
def test_no_process_starts_a_thread_per_core_of_the_node(case: str) -> None:
    for pod in pods(CASES[case]):
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            if container["name"] != "runtime":
                environment = {e["name"]: e.get("value") for e in container["env"]}
                assert (environment["OPENBLAS_NUM_THREADS"], environment["OMP_NUM_THREADS"]) == ("1", "1")


def test_compute_quota_reaches_every_pod_of_the_model() -> None:
    (quota,) = named("trained-full", "ResourceQuota")
    (priority,) = named("trained-full", "PriorityClass")
    name = priority["metadata"]["name"]
    assert quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"] == [name]
    assert quota["spec"]["hard"] == {"requests.cpu": "12", "requests.memory": "16Gi", "requests.nvidia.com/gpu": "1"}
    own = [o for o in CASES["trained-full"] if o["kind"] in ("Deployment", "Job")]
    assert [o["spec"]["template"]["spec"]["priorityClassName"] for o in own] == [name, name]


def test_the_auditor_outlives_the_server_in_a_pod() -> None:
    (deployment,) = named("trained-full", "Deployment")
    init = deployment["spec"]["template"]["spec"]["initContainers"]
    assert [(c["name"], c.get("restartPolicy")) for c in init] == [("fetch", None), ("auditor", "Always")]


def test_keys_outlive_the_model_and_tokens_do_not_leave_the_namespace() -> None:
    assert [s["metadata"]["name"] for s in named("trained-minimal", "Secret")] == [
        "governed-archive-keys", "tiny-kek", "tiny-tokens", "tiny-operator", "tiny-training-41a84a5cd7e38452",
    ]  # fmt: skip
    assert [s["metadata"]["name"] for s in named("trained-full", "Secret")] == [
        "governed-archive-keys", "credit-tokens", "credit-operator",
    ]  # fmt: skip
    keys = [s for case in CASES for s in named(case, "Secret") if "generate" in str(s["metadata"]["annotations"])]
    assert keys
    assert all("data" not in s for s in keys)


def test_suspended_models_run_nothing_and_keep_what_must_stay() -> None:
    kinds = [o["kind"] for o in CASES["suspended"] if o["metadata"]["labels"].get("governedmodels.io/model")]
    assert "Deployment" not in kinds
    assert "Job" not in kinds
    assert {"GovernanceReport", "Secret", "PersistentVolumeClaim"} <= set(kinds)


def test_a_runtimes_weights_are_verified_before_it_reads_them_where_they_lie() -> None:
    (deployment,) = named("foreign-runtime", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    first, runtime = pod["initContainers"][0], pod["containers"][-1]
    claim = {"claimName": "models", "readOnly": True}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert (first["name"], first["command"][-1]) == ("fetch", "fetch")
    assert {"name": "source", "mountPath": "/mnt/source", "readOnly": True} in first["volumeMounts"]
    weights = {"name": "weights", "mountPath": "/mnt/models", "readOnly": True, "subPath": "chat/v3"}
    assert weights in runtime["volumeMounts"]
    assert [volumes[name]["persistentVolumeClaim"] for name in ("source", "weights")] == [claim, claim]
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert deployment["metadata"]["labels"]["governedmodels.io/revision"]
    digests = {v["name"]: v.get("value") for v in first["env"]}
    assert digests["GOVERNED_ARTEFACT_DIGEST"] == "sha256:" + "0123456789abcdef" * 4, "records name what answered"


def resources_of(model: dict[str, Any]) -> dict[str, Any]:
    """Container → its resources."""
    spec = {"predictor": {"model": {"modelFormat": {"name": "runtime"}, **model}}}
    made = resolved(spec)
    pod = inference_pod(Subject(made), Revision.of(made, ""), "stable")
    return {one["name"]: one["resources"] for one in pod["containers"]}


def test_an_accelerator_is_asked_for_once() -> None:
    asked = {"limits": {"nvidia.com/gpu": 1, "memory": "8Gi"}, "requests": {"nvidia.com/gpu": 1, "cpu": "2"}}
    shared = resources_of({"runtime": {"image": "x"}, "resources": asked})
    assert shared["runtime"]["limits"] == {"nvidia.com/gpu": "1", "memory": "8Gi"}
    assert shared["server"] == {"limits": {"memory": "8Gi"}, "requests": {"cpu": "2", "memory": "8Gi"}}
    own = resources_of({"runtime": {"image": "x", "resources": asked}, "resources": {"limits": {"memory": "1Gi"}}})
    assert own["runtime"] == shared["runtime"]
    assert own["server"] == {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}}
    plain = resources_of({"runtime": {"image": "x"}})
    assert plain["server"] == plain["runtime"] == {"requests": {"cpu": "100m", "memory": "256Mi"}}


def test_a_foreign_runtime_gets_no_key_and_no_spool() -> None:
    (deployment,) = named("foreign-runtime", "Deployment")
    containers = {c["name"]: c for c in deployment["spec"]["template"]["spec"]["containers"]}
    pod = deployment["spec"]["template"]["spec"]
    mounted = {c["name"]: {m["name"] for m in c["volumeMounts"]} for c in [*pod["initContainers"], *pod["containers"]]}
    assert mounted["runtime"] == {"runtime-tmp", "shared-memory", "weights"}
    assert all("runtime-tmp" not in names for role, names in mounted.items() if role != "runtime")
    assert containers["runtime"]["env"] == [{"name": "LLAMA_ARG_CTX_SIZE", "value": "4096"}]
    tokens = {
        c["name"]: m.get("readOnly", False)
        for c in [*pod["initContainers"], *pod["containers"]]
        for m in c["volumeMounts"]
        if m["name"] == "pod-tokens"
    }
    assert tokens == {"auditor": False, "server": True, "explainer": True}, (
        "the auditor makes them, the runtime has none"
    )
    (volume,) = [v for v in pod["volumes"] if v["name"] == "pod-tokens"]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert {role for role, names in mounted.items() if "account" in names} == {"fetch", "auditor", "server"}
    upstream = {e["name"]: e.get("value") for e in containers["server"]["env"]}[rt.UPSTREAM_URL]
    assert upstream == "http://127.0.0.1:9000"


def test_a_pod_of_ours_alone_has_no_tokens_for_its_ports() -> None:
    for case in ("trained-full", "imported"):
        (deployment,) = named(case, "Deployment")
        assert "pod-tokens" not in str(deployment)
        assert rt.POD_TOKENS not in str(deployment)


def test_no_pod_is_given_a_token_or_services_unasked() -> None:
    pods = [
        (case, manifest["spec"]["template"]["spec"])
        for case in ("trained-full", "imported", "foreign-runtime")
        for kind in ("Deployment", "StatefulSet", "Job")
        for manifest in named(case, kind)
    ]
    assert len(pods) >= 6
    for case, pod in pods:
        assert pod["automountServiceAccountToken"] is False, case
        assert pod["enableServiceLinks"] is False, case
        holders = [c["name"] for c in pod["containers"] if "account" in {m["name"] for m in c["volumeMounts"]}]
        assert set(holders) <= {"server", "archive", "trainer"}, "the explainer and a foreign runtime write no report"
        assert holders, case


def test_a_runtime_is_explained_beside_the_server_and_webhooks_can_be_reached() -> None:
    (deployment,) = named("foreign-runtime", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    containers = {c["name"]: c for c in pod["containers"]}
    asked = {e["name"]: e.get("value") for e in containers["explainer"]["env"]}[rt.PREDICTOR_URL]
    assert asked == "http://127.0.0.1:8082"
    bare = resolved({"predictor": {"model": {"modelFormat": {"name": "runtime"}, "runtime": {"image": "x"}}}})
    assert [c["name"] for c in inference_pod(Subject(bare), Revision.of(bare, ""), "stable")["initContainers"]] == [
        "auditor"
    ], "who brings weights in the image has nothing to fetch"
    (model,) = [p for p in named("foreign-runtime", "NetworkPolicy") if p["metadata"]["name"] == "chat"]
    assert [p["port"] for rule in model["spec"]["egress"] for p in rule["ports"]][-2:] == [443, 8443]


def test_network_policies_open_the_clients_port_alone() -> None:
    (model,) = [p for p in named("trained-full", "NetworkPolicy") if p["metadata"]["name"] == "credit"]
    assert model["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert model["spec"]["ingress"] == [{"ports": [{"port": p, "protocol": "TCP"} for p in (8080, 8081)]}]
    ports = [p["port"] for rule in model["spec"]["egress"] for p in rule["ports"]]
    assert ports == [53, 53, 8090, 443, 6443, 6380]


def test_blobs_in_object_storage_have_a_prefix_per_namespace_and_keys_in_the_archive_alone() -> None:
    (archive,) = named("neighbours-present", "StatefulSet")
    pod = archive["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {e["name"]: e.get("value") for e in container["env"]}
    namespace = archive["metadata"]["namespace"]
    assert variables[rt.OBJECTS] == (
        f"s3://ledgers/eu/{namespace}?region=eu-central-1&endpoint=https%3A%2F%2Fs3.example%3A9000"
    )
    assert (variables[rt.OBJECTS_KEYS], variables[rt.OBJECTS_CA]) == (rt.MOUNT_OBJECTS, f"{rt.MOUNT_OBJECTS_CA}/ca.crt")
    mounts = {m["name"]: (m["mountPath"], m.get("readOnly")) for m in container["volumeMounts"]}
    assert (mounts["objects"], mounts["objects-ca"]) == ((rt.MOUNT_OBJECTS, True), (rt.MOUNT_OBJECTS_CA, True))
    (policy,) = [p for p in named("neighbours-present", "NetworkPolicy") if p["metadata"]["name"] == "governed-archive"]
    assert 9000 in [p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]]
    others = [m for m in CASES["neighbours-present"] if m["kind"] in ("Deployment", "Job")]
    assert others
    assert "ledger-bucket" not in str(others), "no pod of a model has a way there"
    assert rt.OBJECTS not in str(named("trained-full", "StatefulSet")), "the volume is the default"
