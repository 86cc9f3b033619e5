"""Offline validation; tests/apiserver holds the same manifests against a real API server."""

import copy
from typing import Any

import pytest

from governed_api import GovernedModel, ResolvedModel
from governed_api.governance import AT_MOST_ONE, RATIOS, SCORED, SIZES, MetricBounds, ScoreRange
from governed_api.validation import defaulted, schema_of, validate
from governed_serving.fairness.metrics.measures import SCORE_METRICS
from support.model_manifests import INVALID, Invalid, generative, valid


def metric_names() -> list[str]:
    names: list[str] = schema_of("GovernedModel")["properties"]["spec"]["properties"]["governance"]["properties"][
        "bias"
    ]["properties"]["metrics"]["items"]["properties"]["name"]["enum"]
    return names


def test_the_valid_manifest_is_accepted_and_typed() -> None:
    manifest = valid()
    assert validate(manifest) == []
    model = GovernedModel.model_validate(manifest)
    assert model.spec.predictor.max_replicas == 3


def test_there_are_sixty_and_they_differ() -> None:
    assert len(INVALID) >= 60
    assert len({i.name for i in INVALID}) == len(INVALID)


@pytest.mark.parametrize("case", INVALID, ids=lambda c: c.name)
def test_each_invalid_manifest_is_refused_by_name(case: Invalid) -> None:
    messages = validate(case.manifest())
    assert any(case.expected in m for m in messages), messages


HEX = "0" * 64
URIS = {
    "file:m.onnx": True, "pvc://claim/m.onnx": True, "https://h/m.onnx": True, "https://h:8443/a/m.onnx?v=1": True,
    "http://models.team.svc/m.onnx": True, "s3://bucket/m": True, "gs://bucket/a/m.onnx": True,
    "az://container/m": True,
    "hf://org/name@main": True, "hf://org/name@v1.0/onnx/model.onnx": True, "oci://r.example:5000/a/b:v1": True,
    f"oci://r/b@sha256:{HEX}": True, f"oci://r/a/b:v1@sha256:{HEX}": True,
    "ftp://h/m": False, "s3://bucket": False, "s3://bucket/a b": False, "https://h": False, "https://u:p@h/m": False,
    "https://h/m#f": False, "hf://org/name": False, "hf://name@main": False, "oci://r/b": False, "oci://b:v1": False,
    "oci://r/b@sha256:12": False, "m.onnx": False,
}  # fmt: skip


def fetching(uri: str, **storage: Any) -> list[str]:
    manifest = valid()
    model = {"storageUri": uri, "digest": f"sha256:{HEX}", **({"storage": storage} if storage else {})}
    manifest["spec"] = {"predictor": {"model": model}}
    return validate(manifest)


@pytest.mark.parametrize("uri", URIS)
def test_every_form_of_a_uri(uri: str) -> None:
    found = fetching(uri)
    assert (found == []) == URIS[uri], found
    if not URIS[uri]:
        assert any("expected one of file:PATH, pvc://CLAIM/PATH, https://HOST/PATH" in line for line in found)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({"endpoint": "ftp://h"}, "storage.endpoint in body should match"),
        ({"endpoint": "https://u@h"}, "storage.endpoint in body should match"),
        ({"files": [{"path": "a"}, {"path": "a"}]}, "Duplicate value"),
        ({"files": [{"path": "a", "digest": "md5:1"}]}, "should match"),
        ({"secretRef": {}}, "secretRef.name: Required value"),
        ({"token": "secret"}, "unknown field"),
    ],
)
def test_how_a_source_is_reached(storage: dict[str, Any], message: str) -> None:
    assert any(message in line for line in fetching("s3://bucket/m", **storage))


def test_only_what_is_fetched_has_storage() -> None:
    good = {"region": "eu-1", "endpoint": "http://minio.team.svc:9000", "caSecretRef": {"name": "ca"}}
    assert fetching("s3://bucket/m", **good, secretRef={"name": "s"}, files=[{"path": "*.onnx"}]) == []
    assert any("storage goes with a storageUri that is fetched" in line for line in fetching("file:m", **good))


def with_weights(uri: str, **more: Any) -> list[str]:
    """What is wrong with a runtime whose weights lie at ``uri``."""
    runtime = {"image": "llama:1", "protocol": "openai", **more.pop("runtime", {})}
    model = {"modelFormat": {"name": "runtime"}, "runtime": runtime, "storageUri": uri, "digest": f"sha256:{'0' * 64}"}
    manifest = valid()
    manifest["spec"] = {"predictor": {"model": model | more.pop("model", {})}, **more}
    return validate(manifest)


def test_a_runtimes_weights_lie_on_a_volume() -> None:
    env = [{"name": "A.b-C", "value": ""}, {"name": "_", "value": "x" * 4096}]
    assert with_weights("pvc://models/chat/v3", runtime={"env": env, "sharedMemory": "16Gi"}) == []
    assert with_weights("file:m.gguf", explainer={"type": "shap"}) == []
    assert with_weights("file:m.onnx", explainer={"type": "shap"}) == [], "its own words are its background"


@pytest.mark.parametrize(
    ("uri", "more", "message"),
    [
        ("s3://bucket/m", {}, "put them on a PersistentVolumeClaim of the namespace and name pvc://CLAIM/PATH"),
        ("hf://o/n@main", {}, "a runtime reads its weights from a volume"),
        ("pvc://c/m", {"model": {"digest": "md5:1"}}, "should match"),
        ("pvc://c/m", {"model": {"inputs": [{"name": "a"}]}}, "runtimes describe themselves"),
        ("pvc://c/m", {"model": {"volumeSize": "2Gi"}}, "a runtime brings its own volume"),
        ("pvc://c/m", {"runtime": {"env": [{"name": "a"}, {"name": "a"}]}}, "Duplicate value"),
        ("pvc://c/m", {"runtime": {"env": [{"name": "a=b"}]}}, "should match"),
        ("pvc://c/m", {"runtime": {"env": [{"name": "a", "valueFrom": {}}]}}, "unknown field"),
        ("pvc://c/m", {"runtime": {"sharedMemory": "1GB"}}, "should match"),
        ("pvc://c/m", {"runtime": {"sharedMemory": "0Gi"}}, "should match"),
        (
            "pvc://c/m",
            {"runtime": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
            "a request must not exceed its limit",
        ),
        (
            "pvc://c/m",
            {"explainer": {"background": {"uri": "pvc://c/rows.csv", "digest": f"sha256:{'0' * 64}"}}},
            "explainer.background goes with predictor.model.storageUri",
        ),
    ],
)
def test_what_does_not_go_with_a_runtimes_weights(uri: str, more: dict[str, Any], message: str) -> None:
    found = with_weights(uri, **more)
    assert any(message in line for line in found), found


@pytest.mark.parametrize("kind", ["shap", "lime"])
def test_a_runtime_that_speaks_openai_can_be_explained(kind: str) -> None:
    model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "llama:1", "protocol": "openai"}}
    manifest = valid()
    manifest["spec"] = {"predictor": {"model": model}, "explainer": {"type": kind, "sampling": 0.1}}
    assert validate(manifest) == []


@pytest.mark.parametrize("pattern", ["granted", r"(?i)^\s*(yes|ok)\b", "批准|同意", r"\bApproved?\b", "y" * 512])
def test_generated_text_can_be_audited(pattern: str) -> None:
    manifest = generative()
    manifest["spec"]["governance"]["bias"]["favorableOutcome"]["pattern"] = pattern
    assert validate(manifest) == []
    outcome = GovernedModel.model_validate(manifest).spec.governance.bias
    assert outcome is not None
    assert outcome.favorable_outcome.pattern == pattern


def test_a_pattern_that_does_not_compile_is_refused_with_the_place() -> None:
    manifest = generative()
    manifest["spec"]["governance"]["bias"]["favorableOutcome"]["pattern"] = "(yes"
    (message,) = validate(manifest)
    assert message.startswith("spec.governance.bias.favorableOutcome: Invalid value:")
    assert "unclosed group" in message


def test_scored_metrics_are_those_of_the_auditor() -> None:
    assert set(SCORED) == set(SCORE_METRICS)


def bounded(name: str, **bounds: object) -> dict[str, Any]:
    manifest = valid()
    bias = manifest["spec"]["governance"]["bias"]
    bias |= {"metrics": [{"name": name} | bounds], "strata": ["region"]}
    return manifest


@pytest.mark.parametrize("name", metric_names())
def test_bounds_around_parity_are_taken_of_every_metric(name: str) -> None:
    parity = 1.0 if name in RATIOS else 0.0
    lower = {} if name in SIZES else {"thresholdLower": parity - 0.2}
    upper = {} if name in AT_MOST_ONE else {"thresholdUpper": parity + 0.2}
    for bounds in (lower, upper, lower | upper):
        assert not bounds or validate(bounded(name, **bounds)) == []
    beside = {"thresholdLower": parity + 0.01, "thresholdUpper": parity + 0.2}
    assert any("thresholdLower must not lie above parity" in m for m in validate(bounded(name, **beside)))
    beside = {"thresholdLower": parity - 0.2, "thresholdUpper": parity - 0.01}
    assert any("thresholdUpper must not lie below parity" in m for m in validate(bounded(name, **beside)))


def test_a_regression_may_declare_the_range_of_its_scores() -> None:
    manifest = bounded("scoreMeanDifference", thresholdUpper=5)
    manifest["spec"]["lifecycle"]["training"]["loss"] = {"name": "mse"}
    outcome = {"threshold": 50, "range": {"min": -20.5, "max": 100}}
    manifest["spec"]["governance"]["bias"]["favorableOutcome"] = outcome
    assert validate(manifest) == []
    bias = GovernedModel.model_validate(manifest).spec.governance.bias
    assert bias is not None
    assert bias.favorable_outcome.range == ScoreRange(min=-20.5, max=100)


@pytest.mark.parametrize("parity", [0, 0.0, -0.0])
def test_parity_may_be_a_bound_of_one_side(parity: float) -> None:
    """Nobody may be treated worse than the reference; better is allowed."""
    assert validate(bounded("statisticalParityDifference", thresholdLower=parity)) == []
    assert validate(bounded("statisticalParityDifference", thresholdLower=parity, thresholdUpper=0.1)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("end", ["thresholdLower", "thresholdUpper"])
def test_a_bound_is_a_finite_number(end: str, value: float) -> None:
    messages = validate(bounded("scoreMeanDifference", **{end: value}))
    assert f"metrics[0].{end} in body must be a finite number" in messages[0]
    with pytest.raises(ValueError, match="finite number"):
        MetricBounds.model_validate({"name": "scoreMeanDifference", end: value})


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(document: object) -> None:
    assert "expected a mapping" in validate(document)[0]


def test_another_kind_is_refused() -> None:
    assert (
        "expected governedmodels.io/v1alpha1 GovernedModel, ModelConsumer, GovernancePolicy or "
        "ClusterGovernancePolicy, found v1 Pod" in validate({"apiVersion": "v1", "kind": "Pod"})[0]
    )


def test_key_reference_is_immutable() -> None:
    old = defaulted(valid(), schema_of("GovernedModel"))
    new = copy.deepcopy(old)
    assert validate(new, old) == []
    new["spec"]["governance"]["encryption"]["keyRef"] = {"secretName": "other"}
    assert any("keyRef is immutable" in m for m in validate(new, old))


def test_defaults_of_crd_and_types_agree() -> None:
    """What the API server fills in is what pydantic fills in: one source."""
    manifest: dict[str, Any] = valid()
    by_crd = defaulted(manifest, schema_of("GovernedModel"))["spec"]
    by_types = GovernedModel.model_validate(manifest).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert _with_empty(by_crd, by_types) == by_types


def _with_empty(crd: Any, types: Any) -> Any:
    """Types spell out empty lists and maps, which a CRD default leaves to them as well."""
    if isinstance(crd, dict):
        return {k: _with_empty(v, types.get(k)) for k, v in crd.items()}
    return crd


def test_training_hash_ignores_what_does_not_change_the_model() -> None:
    base = valid()
    other = copy.deepcopy(base)
    other["spec"]["predictor"]["maxReplicas"] = 9
    other["spec"]["lifecycle"]["training"]["resources"] = {"limits": {"cpu": 2}}
    different = copy.deepcopy(base)
    different["spec"]["lifecycle"]["training"]["loop"]["seed"] = 5
    hashes = [ResolvedModel.of(GovernedModel.model_validate(m)).training_hash() for m in (base, other, different)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("name", ["governed-archive", "governed-archive-keys", "loans-canary", "loans-stable"])
def test_names_that_belong_to_others_are_refused(name: str) -> None:
    manifest = valid()
    manifest["metadata"]["name"] = name
    assert any("metadata.name must neither begin with governed-archive" in m for m in validate(manifest))


@pytest.mark.parametrize("name", ["archive", "governed", "canary", "stable-loans", "loans-canary-2"])
def test_names_that_only_resemble_them_are_taken(name: str) -> None:
    manifest = valid()
    manifest["metadata"]["name"] = name
    assert validate(manifest) == []
