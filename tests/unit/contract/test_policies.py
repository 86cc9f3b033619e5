"""GovernancePolicies and ClusterGovernancePolicies offline."""

from typing import get_args

import pytest

from governed_api.json_types import Json
from governed_api.policy import ClusterGovernancePolicySpec, GovernancePolicySpec, Require, RuleName
from governed_api.validation import defaulted, schema_of, validate

EXEMPTION: dict[str, Json] = {
    "model": "loans", "rule": "quota", "owner": "ana", "reason": "trial", "expires": "2027-01-01T00:00:00Z",
}  # fmt: skip


def policy(kind: str = "GovernancePolicy", **spec: Json) -> dict[str, Json]:
    given: dict[str, Json] = {"enforcement": "Deny", "require": {"quota": "Required"}}
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "floor"},
        "spec": given | spec,
    }


def test_valid_ones_are_accepted_and_typed() -> None:
    for kind, spec, within in (
        ("GovernancePolicy", GovernancePolicySpec, {}),
        ("ClusterGovernancePolicy", ClusterGovernancePolicySpec, {"namespace": "team"}),
    ):
        manifest = policy(kind, exemptions=[EXEMPTION | within], selector={"matchLabels": {"tier": "high"}})
        assert validate(manifest) == []
        assert spec.model_validate(defaulted(manifest, schema_of(kind))["spec"]).exemptions[0].owner == "ana"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"require": {}}, "spec.require: Invalid value: require must ask for something"),
        ({"enforcement": "Warn"}, 'spec.enforcement: Unsupported value: "Warn"'),
        ({"enforcement": None}, "spec.enforcement"),
        ({"require": {"quotas": "Required"}}, 'unknown field "spec.require.quotas"'),
        ({"require": {"retention": {}}}, "atLeast or atMost must be set"),
        ({"require": {"sources": {"prefixes": ["s3://approved"]}}}, "spec.require.sources.prefixes[0]"),
        ({"require": {"images": {"registries": ["r.example/"]}}}, "spec.require.images.registries[0]"),
        ({"require": {"bias": {"metrics": [{"name": "impactRatio"}] * 2}}}, "metrics must differ in name"),
        ({"selector": {"matchLabels": {}}}, "leave selector out for all models"),
        ({"exemptions": [{**EXEMPTION, "rule": "everything"}]}, "spec.exemptions[0].rule: Unsupported value"),
        (
            {"exemptions": [{**EXEMPTION, "expires": "2027-02-30T00:00:00Z"}]},
            "expires must be a time that the calendar has",
        ),
        ({"exemptions": [{**EXEMPTION, "namespace": "team"}]}, 'unknown field "spec.exemptions[0].namespace"'),
        ({"exemptions": [{k: v for k, v in EXEMPTION.items() if k != "expires"}]}, "expires: Required value"),
    ],
)
def test_each_invalid_one_is_refused_by_name(spec: dict[str, Json], words: str) -> None:
    messages = validate(policy(**spec))
    assert any(words in message for message in messages), messages


def test_an_exemption_of_a_clusters_policy_needs_a_namespace() -> None:
    (message, *_) = validate(policy("ClusterGovernancePolicy", exemptions=[EXEMPTION]))
    assert message == "spec.exemptions[0].namespace: Required value"


def test_each_rule_is_named_for_a_field_of_require() -> None:
    fields = schema_of("GovernancePolicy")["properties"]["spec"]["properties"]["require"]["properties"]
    for rule in get_args(RuleName):
        part, _, field = rule.partition(".")
        assert part in fields
        assert not field or field in fields[part]["properties"]
    assert {rule.partition(".")[0] for rule in get_args(RuleName)} == set(fields)
    asked = Require.RULES[0].rule
    assert all(f"has(self.{name})" in asked for name in fields)
