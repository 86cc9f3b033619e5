"""ModelConsumers offline; tests/apiserver holds the same manifests against a real API server."""

import pytest

from governed_api.consumer import ModelConsumerSpec
from governed_api.validation import defaulted, schema_of, validate
from support.consumer_manifests import INVALID_CONSUMERS, InvalidConsumer, consumer, full


@pytest.mark.parametrize(
    "manifest", [consumer(), full(), consumer(apiKeys=[], models={"names": ["*"]}), consumer("a.b")]
)
def test_a_valid_one_is_accepted_and_typed(manifest: dict[str, object]) -> None:
    assert validate(manifest) == []
    stored = defaulted(manifest, schema_of("ModelConsumer"))["spec"]
    assert ModelConsumerSpec.model_validate(stored).plain() | {"suspend": False} == stored


def test_without_a_word_a_consumer_calls_nothing_and_only_calls() -> None:
    manifest = consumer()
    manifest["spec"] = {}
    assert validate(manifest) == []
    spec = ModelConsumerSpec.model_validate(defaulted(manifest, schema_of("ModelConsumer"))["spec"])
    assert (spec.models.names, spec.models.selector, spec.api_keys) == ([], None, [])
    assert spec.roles == ["call"]


@pytest.mark.parametrize("case", INVALID_CONSUMERS, ids=lambda c: c.name)
def test_each_invalid_one_is_refused_by_name(case: InvalidConsumer) -> None:
    messages = validate(case.manifest())
    assert any(case.expected in m for m in messages), messages


def test_another_kind_is_told_what_was_expected() -> None:
    (message,) = validate(consumer() | {"kind": "Consumer"})
    assert message.endswith(
        "expected governedmodels.io/v1alpha1 GovernedModel, ModelConsumer, GovernancePolicy or "
        "ClusterGovernancePolicy, found governedmodels.io/v1alpha1 Consumer"
    )
