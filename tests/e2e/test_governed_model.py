"""The sample on a cluster, as its user meets it: helm install, kubectl apply; trained, gated, served, explained,
audited, proved.

One model serves all tests of this file. A test brings it into the state that it needs (`audited`, `one_pod`,
`two_pods`), and so runs in any order and by itself.
"""

import json
from pathlib import Path

import pytest

from support.cluster_access import Cluster
from support.faults import Faults
from support.fixtures import CLUSTER, dump_on_failure
from support.governed import (
    ARCHIVE_POD,
    SAMPLES,
    Traffic,
    ask,
    await_condition,
    change,
    condition,
    entries,
    export_ledger,
    from_outside,
    pods,
    predictions,
    row,
    send_sample,
    start_client,
    traffic,
    verify,
)
from support.kind_bed import KindBed
from support.release import Release
from support.side_by_side import among_workers
from support.waiting import consistently, eventually

NAME = "admissions"
URL = f"http://{NAME}:8080/v2/models/{NAME}"
BODIES = [row(department=d, sex=s) for d in "ABCDEF" for s in ("male", "female")]


@pytest.fixture(scope="module")
def cluster(sample: Cluster, run: int) -> Cluster:
    """A namespace with the sample in it, Ready, and a client pod."""
    with among_workers(run, CLUSTER, alone=False):
        start_client(sample)
        await_condition(sample, NAME, within=420)
    return sample


@pytest.fixture(autouse=True)
def _dumped(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    dump_on_failure(request, cluster)


def scale(cluster: Cluster, count: int) -> None:
    """Have exactly `count` pods, ready and with nothing else changed."""
    change(cluster, NAME, {"predictor": {"minReplicas": count, "maxReplicas": count}})
    eventually(lambda: [_ready(p) for p in pods(cluster, NAME)], lambda r: r == [True] * count, within=180, every=1)
    await_condition(cluster, NAME)


@pytest.fixture
def one_pod(cluster: Cluster) -> None:
    """The sample as it ships."""
    scale(cluster, 1)


@pytest.fixture
def two_pods(cluster: Cluster) -> None:
    """One pod may go while the other serves."""
    scale(cluster, 2)


@pytest.fixture
def audited(cluster: Cluster) -> tuple[str, str, str]:
    """BiasWithinThresholds once it is False: the sample's population was decided on, and one decision explained."""
    if condition(cluster, NAME, "BiasWithinThresholds")[0] != "False":
        send_sample(cluster, URL)
        ask(cluster, f"{URL}/explain", row(department="A", sex="male"))
    return await_condition(cluster, NAME, "BiasWithinThresholds", "False", within=90)


def test_sample_is_trained_gated_and_served(cluster: Cluster) -> None:
    await_condition(cluster, NAME, within=420)
    assert condition(cluster, NAME, "TrainingSucceeded")[0] == "True"
    assert condition(cluster, NAME, "ModelVerified")[:2] == ("True", "DigestMatched")
    trainer = cluster.get("greport", NAME)["status"]["trainer"]
    gates = {gate["name"]: gate["verdict"] for gate in trainer["gates"]}
    assert gates["accuracy"] == "pass"
    assert "disparity/sex" in gates
    status = cluster.get("gmodel", NAME)["status"]
    assert trainer["artefact"]["digest"] == status["artefact"]["digest"]
    assert status["url"] == f"http://{NAME}.{cluster.namespace}.svc:8080"


def test_prediction_and_explanation_through_the_service(cluster: Cluster) -> None:
    status, answer = ask(cluster, f"{URL}/infer", row(department="A", sex="male"))
    assert status == 200, answer
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["label"] == ["admitted"]
    status, found = ask(cluster, f"{URL}/explain", row(department="A", sex="male"))
    assert status == 200, found
    (explanation,) = found["explanations"]
    shares = {one["feature"]: abs(one["attribution"]) for one in explanation["attributions"]}
    assert shares["department"] > shares["sex"], found
    assert abs(explanation["additivity_residual"]) < 1e-9


def test_wrong_requests_are_answered_with_what_is_wrong(cluster: Cluster) -> None:
    status, answer = ask(cluster, f"{URL}/infer", row(department="A"))
    assert status == 400
    assert "sex" in answer["error"]
    status, answer = ask(cluster, URL.replace(f"models/{NAME}", "models/nobody"))
    assert status == 404
    assert "nobody" in answer["error"]


@pytest.mark.usefixtures("one_pod")
def test_verdict_shows_in_kubectl_get(cluster: Cluster, audited: tuple[str, str, str]) -> None:
    status, reason, message = audited
    assert (status, reason) == ("False", "BeyondThreshold")
    assert "sex=female against male" in message
    assert "[" in message, "the interval belongs to it"
    columns = cluster.kubectl("get", "gmodel", NAME).splitlines()
    assert columns[0].split() == ["NAME", "URL", "READY", "REASON", "BIAS", "REPLICAS", "AGE"]
    assert columns[1].split()[1:6] == [f"http://{NAME}.{cluster.namespace}.svc:8080", "True", "Serving", "Fail", "1"]


@pytest.mark.usefixtures("one_pod", "audited")
def test_volumes_hold_no_plaintext(cluster: Cluster, kind_bed: KindBed) -> None:
    """Training rows, requests and the artefact's vocabulary, on the nodes' disks, under every volume of the
    namespace."""
    found: list[str] = []
    seen = 0
    claims = [
        volume["spec"] for volume in cluster.list("pv") if volume["spec"]["claimRef"]["namespace"] == cluster.namespace
    ]
    for spec in claims:
        path = (spec.get("hostPath") or spec.get("local"))["path"]
        node = spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0]
        seen += int(kind_bed.on_node(node, "sh", "-c", f"find {path} -type f | wc -l"))
        found += kind_bed.on_node(
            node, "sh", "-c", f"grep -rlE 'department|female|admitted|rejected' {path} || true"
        ).split()
    (pod,) = pods(cluster, NAME)
    spool = f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~empty-dir/spool"
    node = pod["spec"]["nodeName"]
    seen += int(kind_bed.on_node(node, "sh", "-c", f"find {spool} -type f | wc -l"))
    found += kind_bed.on_node(
        node, "sh", "-c", f"grep -rlE 'department|female|admitted|rejected' {spool} || true"
    ).split()
    assert len(claims) >= 2, "the data claim and the archive's"
    assert seen > 5, "files must have been looked at"
    assert [f for f in found if not f.endswith(".json")] == []


@pytest.mark.usefixtures("audited")
def test_ledger_verifies_away_from_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    _, answer = ask(cluster, f"{URL}/infer", row(department="C", sex="female"))
    bundle = tmp_path / "ledger.tar"
    eventually(lambda: answer["id"] in predictions(export_ledger(cluster, bundle)), within=60, every=2)
    kinds = {entry["type"] for entry in entries(bundle)}
    assert {"prediction", "explanation", "verdict", "artefact"} <= kinds, kinds
    done = verify(bundle, "--id", answer["id"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified" in done.stdout


@pytest.mark.usefixtures("one_pod")
def test_a_person_with_a_kubeconfig_needs_no_pod_and_no_bundle(
    cluster: Cluster, audited: tuple[str, str, str], tmp_path: Path
) -> None:
    """Ports are forwarded and Secrets read with the caller's own rights."""
    asked = from_outside(cluster, "infer", NAME, "department=A", "sex=male", folder=tmp_path)
    assert (asked.returncode, "admitted" in asked.stdout) == (0, True), asked.stdout + asked.stderr
    explained = from_outside(cluster, "explain", NAME, "department=A", "sex=male", folder=tmp_path)
    assert explained.returncode == 0, explained.stderr
    verified = from_outside(cluster, "verify", NAME, folder=tmp_path)
    assert verified.returncode in (0, 3), verified.stdout + verified.stderr
    assert "wrong" not in verified.stdout
    told = from_outside(cluster, "report", NAME, folder=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    page = (tmp_path / f"{NAME}.html").read_text()
    assert "Simpson&#x27;s paradox" in page
    assert "masking of personal data (governance.privacy.masking)" in page, "the clauses read the model's own rules"
    assert "No model key was given" not in page
    assert "No archive was given" not in page
    assert f"live bias verdict is Fail: {audited[2]}"[:40] in page
    handed = from_outside(cluster, "dossier", NAME, "-o", "dossier.zip", folder=tmp_path)
    assert handed.returncode == 0, handed.stdout + handed.stderr
    held = verify(tmp_path / "dossier.zip")
    assert held.returncode == 0, held.stdout + held.stderr
    waiting = from_outside(cluster, "contests", NAME, folder=tmp_path)
    assert (waiting.returncode, waiting.stdout) == (0, f"{NAME}: no contested decision is open\n"), waiting.stderr
    ready = {c["type"]: c["status"] for c in cluster.get("gmodel", NAME)["status"]["conditions"]}["Ready"] == "True"
    listed = from_outside(cluster, "list", "--json", folder=tmp_path)
    (model,) = (one for one in json.loads(listed.stdout) if one["name"] == NAME)
    assert (model["serves"], model["verdict"]) == (ready, "Fail")
    stands = from_outside(cluster, "status", NAME, folder=tmp_path)
    assert (stands.returncode, f"Ready={ready}" in stands.stdout) == (0 if ready else 3, True), stands.stdout
    wrote = from_outside(cluster, "logs", NAME, "-c", "server", "--tail", "5", folder=tmp_path)
    assert (wrote.returncode, f"{NAME}-predictor" in wrote.stdout) == (0, True), wrote.stdout + wrote.stderr
    used = from_outside(cluster, "usage", NAME, "--json", folder=tmp_path)
    assert used.returncode in (0, 3), used.stdout + used.stderr
    assert json.loads(used.stdout), "what nobody in particular asked is counted as well"
    away = from_outside(cluster.within("default"), "verify", NAME, folder=tmp_path)
    assert away.returncode == 3, "nothing could be checked"
    assert "no Secret governed-archive-keys" in away.stderr


def test_model_scales_out_under_load_and_in_after_it(cluster: Cluster) -> None:
    change(cluster, NAME, {"predictor": {"maxReplicas": 2, "scaleTarget": 40}})
    eventually(lambda: cluster.get("hpa", f"{NAME}-predictor"), within=90)

    def replicas() -> int:
        return int(cluster.get("deployment", f"{NAME}-predictor")["spec"]["replicas"])

    with traffic(cluster, URL, BODIES, connections=6):
        eventually(replicas, lambda count: count == 2, within=240, every=2, what="scaling out")
        eventually(
            lambda: cluster.get("gmodel", NAME)["status"]["replicas"], lambda count: count == 2, within=120, every=1
        )
    eventually(replicas, lambda count: count == 1, within=300, every=2, what="scaling in")
    change(cluster, NAME, {"predictor": {"minReplicas": 2}})
    eventually(lambda: len(pods(cluster, NAME)), lambda count: count == 2, within=60, every=1)
    await_condition(cluster, NAME)


def _all_in_ledger(cluster: Cluster, seen: Traffic, bundle: Path) -> None:
    eventually(
        lambda: set(seen.answered) - predictions(export_ledger(cluster, bundle)),
        lambda missing: not missing,
        within=120,
        every=3,
        what="every answered request is in the ledger",
    )
    assert verify(bundle).returncode == 0


@pytest.mark.disturbs
@pytest.mark.usefixtures("two_pods")
def test_deleted_pods_and_restarted_operators_cost_no_request(
    cluster: Cluster, release: Release, tmp_path: Path
) -> None:
    (victim, *_) = [pod["metadata"]["name"] for pod in pods(cluster, NAME)]
    with traffic(cluster, URL, BODIES) as seen:
        release.operator.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=operator", "--wait=false")
        cluster.kubectl("delete", "pod", victim, timeout=120)
        eventually(lambda: len([p for p in pods(cluster, NAME) if _ready(p)]), lambda n: n == 2, within=120, every=1)
        cluster.kubectl("delete", "pod", ARCHIVE_POD, timeout=120)
        eventually(lambda: _ready(cluster.get("pod", ARCHIVE_POD)), within=120, every=1)
    assert (seen.failed, seen.refused) == ([], [])
    _all_in_ledger(cluster, seen, tmp_path / "ledger.tar")
    await_condition(cluster, NAME)


@pytest.mark.usefixtures("two_pods")
@pytest.mark.parametrize("container", ["server", "auditor", "explainer"])
def test_killed_containers_lose_only_what_was_in_flight(
    cluster: Cluster, kind_bed: KindBed, container: str, tmp_path: Path
) -> None:
    faults = Faults(kind_bed, cluster)
    victim = pods(cluster, NAME)[0]["metadata"]["name"]
    connections = 4
    with traffic(cluster, URL, BODIES, connections) as seen:
        faults.kill_container(victim, container)
        eventually(lambda: _restarted(cluster.get("pod", victim), container), within=90, every=1)
        eventually(lambda: _ready(cluster.get("pod", victim)), within=90, every=1)
    in_flight = connections if container == "server" else 0
    assert seen.lost + len(seen.failed) <= in_flight, (seen.lost, seen.failed)
    assert seen.refused == []
    _all_in_ledger(cluster, seen, tmp_path / "ledger.tar")


@pytest.mark.disturbs
@pytest.mark.usefixtures("two_pods")
def test_control_plane_restarts_are_not_noticed_by_clients(cluster: Cluster, kind_bed: KindBed, tmp_path: Path) -> None:
    faults = Faults(kind_bed, cluster)
    node = pods(cluster, NAME)[0]["spec"]["nodeName"]
    marker = "governed-e2e/changed-amid-restarts"
    with traffic(cluster, URL, BODIES) as seen:
        faults.kill_kubelet(node)
        faults.restart_etcd()
        change(cluster, NAME, {"quota": {"maxConcurrent": 64}})  # a reconcile in the middle of it
        faults.restart_api_server()
        eventually(
            lambda: cluster.kubectl("annotate", "gmodel", NAME, f"{marker}=yes", "--overwrite"),
            within=60,
            what="a write",
        )
    faults.await_nodes()
    assert (seen.failed, seen.refused, seen.lost) == ([], [], 0)
    _all_in_ledger(cluster, seen, tmp_path / "ledger.tar")
    generation = cluster.get("gmodel", NAME)["metadata"]["generation"]
    eventually(
        lambda: cluster.get("gmodel", NAME)["status"]["conditions"][0]["observedGeneration"],
        lambda observed: observed == generation,
        within=120,
        every=1,
    )
    await_condition(cluster, NAME)
    revision = cluster.get("gmodel", NAME)["status"]["stable"]["name"]
    eventually(
        lambda: {p["metadata"]["labels"]["governedmodels.io/revision"] for p in pods(cluster, NAME)},
        lambda found: found == {revision},
        within=180,
        every=1,
    )


@pytest.mark.disturbs
@pytest.mark.usefixtures("two_pods")
def test_chart_is_upgraded_and_uninstalled_while_the_model_serves(
    cluster: Cluster, release: Release, tmp_path: Path
) -> None:
    before = {p["metadata"]["uid"] for p in pods(cluster, NAME)}
    with traffic(cluster, URL, BODIES) as seen:
        notes = release.upgrade()
        assert "kubectl" in notes
        release.test()
        consistently(lambda: condition(cluster, NAME)[0], lambda status: status == "True", during=5)
        assert {p["metadata"]["uid"] for p in pods(cluster, NAME)} == before, (
            "an upgrade rolls no model whose spec is the same"
        )
        release.uninstall()
        assert condition(cluster, NAME)[0] == "True"
        assert {p["metadata"]["uid"] for p in pods(cluster, NAME)} == before
        release.upgrade()
    assert (seen.failed, seen.refused, seen.lost) == ([], [], 0)
    _all_in_ledger(cluster, seen, tmp_path / "ledger.tar")
    await_condition(cluster, NAME)


def test_deleted_model_leaves_a_ledger_that_verifies(cluster: Cluster, tmp_path: Path) -> None:
    _, answer = ask(cluster, f"{URL}/infer", row(department="D", sex="male"))
    cluster.kubectl("delete", "gmodel", NAME, timeout=120)
    owned = "deployments,jobs,services,hpa,pdb,roles,rolebindings,serviceaccounts,configmaps,pods"
    label = f"governedmodels.io/model={NAME}"
    eventually(
        lambda: cluster.list(owned, "-l", label), lambda left: left == [], within=180, every=2, what="children go"
    )
    bundle = export_ledger(cluster, tmp_path / "ledger.tar")
    assert answer["id"] in predictions(bundle), "the last answers were shipped before the pods ended"
    done = verify(bundle, "--id", answer["id"])
    assert done.returncode == 0, done.stdout + done.stderr
    # a model of the same name continues this ledger
    size = len(entries(bundle))
    cluster.kubectl("apply", "-f", str(SAMPLES / f"{NAME}.yaml"))
    await_condition(cluster, NAME, within=420)
    _, later = ask(cluster, f"{URL}/infer", row(department="D", sex="male"))
    again = eventually(
        lambda: export_ledger(cluster, tmp_path / "again.tar"),
        lambda ledger: later["id"] in predictions(ledger),
        within=60,
        every=2,
        what="the new model's answer in the ledger",
    )
    assert len(entries(again)) > size
    assert [json.dumps(e) for e in entries(again)[:size]] == [json.dumps(e) for e in entries(bundle)]


def _ready(pod: dict[str, object]) -> bool:
    status: dict[str, list[dict[str, str]]] = pod["status"]  # type: ignore[assignment]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])


def _restarted(pod: dict[str, object], container: str) -> bool:
    status: dict[str, list[dict[str, object]]] = pod["status"]  # type: ignore[assignment]
    known = [*status["containerStatuses"], *status.get("initContainerStatuses", [])]
    return any(s["name"] == container and int(str(s["restartCount"])) >= 1 for s in known)
