"""Models whose files are fetched over a network: one Job brings them, with credentials and a way out that no serving
pod has."""

from typing import Any

import pytest
from builders import DIGEST, JobFacts, PodProblem, child, observed, pod, report, resolved, workload

from governed_api.reasons import KubernetesReason, Reason
from governed_api.runtime import SOURCE_CA, SOURCE_KEYS
from governed_operator.desired.decision import Decision, Revision
from governed_operator.desired.manifest import Subject
from governed_operator.desired.objects import model_objects
from governed_operator.desired.trainer import job_name
from governed_operator.loop.observe import Observer
from governed_operator.policy.decide import decide
from governed_operator.policy.status import conditions
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch.cache import Cache
from governed_operator.watch.policies import Policies

URI = "s3://bucket/m.onnx"
ARTEFACT = "sha256:" + "cd" * 32


def spec(uri: str = URI, **storage: Any) -> dict[str, Any]:
    return {"predictor": {"model": {"storageUri": uri, "digest": DIGEST, **({"storage": storage} if storage else {})}}}


def imported(phase: str, message: str = "", **changes: Any) -> Any:
    trainer = {"phase": phase, "message": message, "trainingHash": resolved(spec()).training_hash(), **changes}
    return report(trainer=trainer)


def rendered(given: dict[str, Any], **decision: Any) -> list[dict[str, Any]]:
    model = resolved(given)
    return list(
        model_objects(Subject(model), Decision(**{"train": True, "stable": Revision.of(model, ARTEFACT), **decision}))
    )


def by_kind(found: list[dict[str, Any]], kind: str, name: str) -> Any:
    (one,) = (m for m in found if m["kind"] == kind and m["metadata"]["name"] == name)
    return one


def test_a_job_comes_first_and_pods_serve_what_it_made() -> None:
    first = decide(observed(spec()))
    assert (first.train, first.stable) == (True, None)
    done = decide(observed(spec(), report=imported("Succeeded", artefact={"digest": ARTEFACT})))
    assert done.stable is not None
    assert (done.stable.artefact, done.train) == (ARTEFACT, False)


def test_another_digest_or_place_is_another_import() -> None:
    one = resolved(spec()).training_hash()
    other = {**spec()["predictor"]["model"], "digest": "sha256:" + "00" * 32}
    assert resolved({"predictor": {"model": other}}).training_hash() != one
    assert resolved(spec("s3://bucket/n.onnx")).training_hash() != one
    assert resolved({"predictor": {**spec()["predictor"], "maxReplicas": 5}}).training_hash() == one


def test_credentials_and_a_way_out_are_the_importers_alone() -> None:
    storage = {"secretRef": {"name": "s"}, "caSecretRef": {"name": "ca", "key": "own.crt"}}
    given = spec(**storage, endpoint="http://minio.team.svc:9000")
    given["predictor"]["model"]["volumeSize"] = "3Gi"
    found = rendered(given)
    job = by_kind(found, "Job", job_name(Subject(resolved(given))))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {v["name"]: v.get("value") for v in container["env"]}
    assert variables[SOURCE_KEYS] == "/var/run/governed/source"
    assert variables[SOURCE_CA] == "/var/run/governed/source-ca/own.crt"
    serving = by_kind(found, "Deployment", "m-predictor")["spec"]["template"]["spec"]
    assert not any(v.get("secret", {}).get("secretName") in ("s", "ca") for v in serving["volumes"])
    assert not any(v["name"] == "source" for v in serving["volumes"])
    assert next(v for v in serving["volumes"] if v["name"] == "model")["emptyDir"]["sizeLimit"] == "3Gi"
    policy = by_kind(found, "NetworkPolicy", "m-importer")["spec"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert not policy["podSelector"]["matchLabels"].items() <= (
        by_kind(found, "Deployment", "m-predictor")["spec"]["template"]["metadata"]["labels"].items()
    )
    assert [p["port"] for p in policy["egress"][1]["ports"]] == [443, 9000]


@pytest.mark.parametrize(
    ("uri", "ports"),
    [
        ("https://h:8443/m", [443, 8443]), ("http://m.team.svc/m", [80, 443]), ("oci://r.svc:5000/a/b:v1", [443, 5000]),
        ("hf://org/name@main", [443]), ("gs://bucket/m", [443]),
    ],
)  # fmt: skip
def test_the_way_out_is_the_uris_port(uri: str, ports: list[int]) -> None:
    policy = by_kind(rendered(spec(uri)), "NetworkPolicy", "m-importer")["spec"]
    assert [p["port"] for p in policy["egress"][1]["ports"]] == ports


def test_the_importer_reads_background_rows_from_their_volume() -> None:
    background = {"uri": "pvc://rows/rows.csv", "digest": DIGEST}
    given = {**spec(), "explainer": {"background": background}}
    job = by_kind(rendered(given), "Job", job_name(Subject(resolved(given))))
    volume = next(v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "source")
    assert volume["persistentVolumeClaim"]["claimName"] == "rows"


def test_rows_of_a_laptop_are_refused_at_once() -> None:
    given = {**spec(), "explainer": {"background": {"uri": "file:rows.csv", "digest": DIGEST}}}
    (violation,) = decide(observed(given)).violations
    assert (violation.reason, violation.blocking) == (Reason.SOURCE_NOT_REACHABLE, True)
    assert violation.message.startswith("spec.explainer.background.uri: file:rows.csv works with governed run only")


def test_what_is_mounted_or_trained_gets_no_importer() -> None:
    found = rendered({"predictor": {"model": {"storageUri": "pvc://c/m.onnx", "digest": DIGEST}}})
    assert not any(m["kind"] == "Job" or m["metadata"]["name"] == "m-importer" for m in found)


def states(obs: Any) -> dict[str, tuple[str, str, str]]:
    return {c.type: (c.status, c.reason, c.message) for c in conditions(obs, decide(obs))}


def test_progress_and_failures_are_in_the_conditions() -> None:
    assert states(observed(spec()))["ModelVerified"][:2] == ("Unknown", Reason.FETCHING)
    running = states(observed(spec(), report=imported("Running", "fetching m.onnx: 3 of 9 MiB")))
    assert running["ModelVerified"] == ("Unknown", "Fetching", "fetching m.onnx: 3 of 9 MiB")
    assert running["Ready"] == ("False", "Fetching", "fetching m.onnx: 3 of 9 MiB")
    failed = JobFacts(False, PodProblem(Reason.FETCHING, "limit"), False)
    job = child("Job", job_name(Subject(resolved(spec()))), failed)
    differs = "s3://bucket/m.onnx: b has sha256:1, expected sha256:2: it is not served"
    told = states(observed(spec(), job, report=imported("Failed", differs)))
    assert told["ModelVerified"][::2] == ("False", differs)
    assert told["Ready"][::2] == ("False", differs)
    assert told["Stalled"][0] == "True"


def test_what_serves_goes_on_while_another_is_fetched() -> None:
    serving = child("Deployment", "m-predictor", workload("old"))
    decision = decide(observed(spec(), serving))
    assert (decision.train, decision.held, decision.stable) == (True, True, None)


class Secrets:
    """A cluster with some Secrets, of which metadata tell what ``told`` says."""

    def __init__(self, told: tuple[str, ...] = (), **secrets: dict[str, str]) -> None:
        self.told, self.secrets = told, secrets
        self.read: list[str] = []

    async def head(self, _: Any, __: str, name: str) -> Any:
        fields = [{"fieldsV1": {"f:data": {".": {}, **{f"f:{key}": {} for key in self.told}}}}, {"fieldsV1": {}}, {}]
        return {"metadata": {"managedFields": fields}} if name in self.secrets else None

    async def get(self, _: Any, __: str, name: str) -> Any:
        self.read.append(name)
        return {"data": self.secrets[name]} if name in self.secrets else None


async def test_a_secret_that_is_not_there_is_said() -> None:
    model = resolved(spec(secretRef={"name": "s"}, caSecretRef={"name": "ca"}))
    for secrets, words in (
        ({}, "predictor.model.storage.secretRef: there is no Secret s in namespace ns"),
        ({"s": {}}, "predictor.model.storage.caSecretRef: there is no Secret ca in namespace ns"),
        ({"s": {}, "ca": {}}, "predictor.model.storage.caSecretRef: Secret ca has no key ca.crt"),
        ({"s": {}, "ca": {"ca.crt": "x"}}, None),
    ):
        cluster: Any = Secrets(**secrets)
        observer = Observer(cluster, Cache(), OperatorSettings(), Capabilities(), policies=Policies())
        assert (await observer._outside(model)).missing_source == words


@pytest.mark.parametrize(("told", "read"), [(("kek",), []), ((), ["k"]), (("another",), ["k"])])
async def test_a_named_secret_is_opened_only_where_metadata_do_not_show_its_key(
    told: tuple[str, ...], read: list[str]
) -> None:
    model = resolved({"governance": {"encryption": {"keyRef": {"secretName": "k"}}}} | spec())
    cluster: Any = Secrets(told, k={"kek": "x"})
    observer = Observer(cluster, Cache(), OperatorSettings(), Capabilities(), policies=Policies())
    assert (await observer._outside(model)).missing_secret is None
    assert cluster.read == read
    cluster.secrets["k"], cluster.told = {}, ()
    assert (await observer._outside(model)).missing_secret == "governance.encryption.keyRef: Secret k has no key kek"


def test_a_stuck_importer_pod_is_told() -> None:
    stuck = PodProblem(KubernetesReason.IMAGE_PULL_BACK_OFF, "container importer: no such image")
    assert states(observed(spec(), child("Pod", "p", pod(stuck, "importer", ""))))["ModelVerified"][1:] == stuck
