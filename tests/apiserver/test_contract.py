"""The contract on a real API server: the CRDs install, and `governed validate` says what the server says."""

import re
from typing import Any

import pytest

from governed_api.validation import validate
from support.cluster_access import Cluster, KubectlError
from support.consumer_manifests import INVALID_CONSUMERS, InvalidConsumer, consumer, full
from support.model_manifests import INVALID, Invalid, generative, valid

pytestmark = pytest.mark.usefixtures("defined")


def server_messages(cluster: Cluster, case: Invalid) -> list[str]:
    """What `kubectl apply` prints of a manifest, one message an item."""
    with pytest.raises(KubectlError) as refused:
        cluster.apply(case.manifest(), "--dry-run=server")
    text = str(refused.value)
    text = text[text.index("is invalid:") + 11 :] if "is invalid:" in text else text
    return [part.strip() for part in re.split(r"\n\* ", text) if part.strip()]


def without_engine(message: str) -> str:
    """The message without what the expression engine says of an expression that doesn't compile: Go's words and Rust's
    differ."""
    return re.sub(r'Invalid value: "object": .* evaluating rule', "evaluating rule", message)


def test_a_runtime_with_audited_text_is_accepted(namespace: Cluster) -> None:
    namespace.apply(generative())
    assert validate(namespace.get("gmodel", "chat")) == []


def test_a_valid_manifest_is_accepted_with_its_defaults(namespace: Cluster) -> None:
    namespace.apply(valid())
    stored = namespace.get("gmodel", "loans")
    assert stored["spec"]["lifecycle"]["training"]["loop"]["checkpointEpochs"] == 5
    assert stored["spec"]["governance"]["audit"]["spoolSize"] == "1Gi"
    assert validate(stored) == []


@pytest.mark.parametrize("case", INVALID, ids=lambda c: c.name)
def test_the_server_refuses_and_offline_says_the_same(case: Invalid, namespace_of_module: Cluster) -> None:
    offline = validate(case.manifest())
    server = server_messages(namespace_of_module, case)
    joined = "\n".join(server)
    assert case.expected in joined
    if offline[0].startswith("unknown field"):
        for message in offline:
            assert message in joined
    else:
        assert sorted(map(without_engine, server)) == sorted(map(without_engine, offline))


@pytest.fixture(scope="module")
def namespace_of_module(api_bed: object) -> Cluster:
    cluster: Cluster = api_bed.cluster  # type: ignore[attr-defined]
    return cluster.within(cluster.create_namespace("contract"))


def test_kubectl_apply_names_an_unknown_field_on_the_client_side_path_too(namespace: Cluster) -> None:
    manifest = valid()
    manifest["spec"]["predictor"]["minreplicas"] = 2
    with pytest.raises(KubectlError, match=r'unknown field "spec\.predictor\.minreplicas"'):
        namespace.apply(manifest)


def test_key_reference_cannot_be_changed(namespace: Cluster) -> None:
    namespace.apply(valid())
    change = '{"spec": {"governance": {"encryption": {"keyRef": {"secretName": "other"}}}}}'
    with pytest.raises(KubectlError, match="keyRef is immutable"):
        namespace.kubectl("patch", "gmodel", "loans", "--type=merge", "-p", change)


def test_printer_columns_and_scale(namespace: Cluster) -> None:
    namespace.apply(valid())
    header = namespace.kubectl("get", "gmodel").splitlines()[0].split()
    assert header == ["NAME", "URL", "READY", "REASON", "BIAS", "REPLICAS", "AGE"]
    namespace.kubectl("scale", "gmodel/loans", "--replicas=2")
    assert namespace.get("gmodel", "loans")["spec"]["predictor"]["minReplicas"] == 2


@pytest.mark.parametrize("manifest", [consumer(), full(), consumer(apiKeys=[], models={"names": ["*"]})])
def test_a_valid_consumer_is_accepted(namespace: Cluster, manifest: dict[str, Any]) -> None:
    namespace.apply(manifest)
    stored = namespace.get("gconsumer", "mobile-app")
    assert validate(stored) == []
    assert stored["status"]["observedGeneration"] in (-1, 1), "-1 until an operator that runs beside it has looked"


@pytest.mark.parametrize("case", INVALID_CONSUMERS, ids=lambda c: c.name)
def test_of_a_consumer_the_server_and_offline_say_the_same(case: InvalidConsumer, namespace_of_module: Cluster) -> None:
    test_the_server_refuses_and_offline_says_the_same(case, namespace_of_module)  # type: ignore[arg-type]
