"""What a model lacks of what policies require: each rule of the table, exemptions, and whom a policy concerns."""

from datetime import UTC, datetime
from typing import NamedTuple, get_args

import pytest

from governed_api.json_types import Json
from governed_api.model import GovernedModelSpec
from governed_api.policy import ClusterGovernancePolicySpec, GovernancePolicySpec, RuleName
from governed_operator.policy.floor import RULES, Floor, Subject, judge

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DIGEST = f"sha256:{'a' * 64}"


def served(**parts: Json) -> GovernedModelSpec:
    """A spec with parts of its own."""
    return GovernedModelSpec.model_validate(parts)


def ruled(**governance: Json) -> GovernedModelSpec:
    return served(governance=governance)


def masked(**masking: Json) -> GovernedModelSpec:
    return ruled(privacy={"masking": masking})


def run_by(**runtime: Json) -> GovernedModelSpec:
    model: Json = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "i", **runtime}}
    return served(predictor={"model": model})


def taken(uri: str, **storage: Json) -> GovernedModelSpec:
    beside: dict[str, Json] = {"storage": storage} if storage else {}
    return served(predictor={"model": {"storageUri": uri, "digest": DIGEST, **beside}})


def trained(uri: str, digest: str | None) -> GovernedModelSpec:
    data: Json = {"uri": uri, "digest": digest, "label": "y", "features": [{"name": "x"}]}
    return served(lifecycle={"training": {"data": data}})


def judged(**bias: Json) -> GovernedModelSpec:
    metric: Json = {"name": "disparateImpactRatio", "thresholdLower": 0.8}
    whole: Json = {
        "protectedAttributes": [{"name": "sex"}],
        "favorableOutcome": {"label": "yes"},
        "metrics": [metric],
        **bias,
    }
    return ruled(bias=whole)


def bounded(**bounds: Json) -> GovernedModelSpec:
    return judged(metrics=[{"name": "disparateImpactRatio", **bounds}])


ASKED: Json = {"metrics": [{"name": "disparateImpactRatio", "thresholdLower": 0.8}]}


class Case(NamedTuple):
    """A requirement, specs that meet it and specs that don't, and words of the sentence."""

    rule: RuleName
    require: dict[str, Json]
    meets: tuple[GovernedModelSpec, ...]
    lacks: tuple[GovernedModelSpec, ...]
    words: str


BOTH: Json = {"direction": "Both"}
PREFIXES: Json = {"prefixes": ["s3://approved/", "oci://registry.example/team/"], "endpoints": ["https://s3.example"]}
CASES = (
    Case(
        "authentication",
        {"authentication": "Required"},
        (served(access={"authentication": "Required"}),),
        (served(), served(access={"authentication": "Off"})),
        "spec.access.authentication is ",
    ),
    Case("masking", {"masking": {}}, (masked(),), (served(),), "spec.governance.privacy.masking is absent"),
    Case(
        "masking.direction",
        {"masking": BOTH},
        (
            masked(**BOTH),
            GovernedModelSpec.model_validate(run_by(protocol="openai").plain() | {"governance": masked().governance}),
        ),
        (masked(), masked(direction="Request"), masked(direction="Response")),
        "requires Both",
    ),
    Case(
        "masking.entities",
        {"masking": {"entities": ["EMAIL", "IBAN"]}},
        (masked(), masked(entities=["IBAN", "EMAIL", "US_SSN"])),
        (masked(entities=["EMAIL"]),),
        "add IBAN",
    ),
    Case(
        "masking.names",
        {"masking": {"names": ["PERSON", "ORGANISATION"]}},
        (masked(names={"entities": ["PERSON", "ORGANISATION"]}),),
        (masked(), masked(names={})),
        "ORGANISATION",
    ),
    Case(
        "masking.threshold",
        {"masking": {"threshold": 0.5}},
        (masked(), masked(threshold=0.4)),
        (masked(threshold=0.51), masked(threshold=1)),
        "at most 0.5",
    ),
    Case(
        "masking.allFields",
        {"masking": {"allFields": True}},
        (masked(),),
        (masked(fields=["note"]),),
        "take fields out",
    ),
    Case(
        "masking.failurePolicy",
        {"masking": {"failurePolicy": "Closed"}},
        (masked(),),
        (masked(failurePolicy="Open"),),
        "requires Closed",
    ),
    Case(
        "encryption.mode",
        {"encryption": {"mode": "storageClass"}},
        (ruled(encryption={"mode": "storageClass", "storageClassName": "luks"}),),
        (served(),),
        "spec.governance.encryption.mode is envelope",
    ),
    Case(
        "encryption.keyRef",
        {"encryption": {"keyRef": "Required"}},
        (ruled(encryption={"keyRef": {"secretName": "mine"}}),),
        (served(),),
        "keyRef.secretName",
    ),
    Case(
        "encryption.rotation",
        {"encryption": {"rotation": {"atMost": "90d"}}},
        (ruled(encryption={"rotation": "90d"}), ruled(encryption={"rotation": "2160h"})),
        (served(), ruled(encryption={"rotation": "2161h"})),
        "at most 90d",
    ),
    Case(
        "audit.failurePolicy",
        {"audit": {"failurePolicy": "Closed"}},
        (served(),),
        (ruled(audit={"failurePolicy": "Open"}),),
        "spec.governance.audit.failurePolicy is Open",
    ),
    Case(
        "audit.durability",
        {"audit": {"durability": "Fsync"}},
        (served(),),
        (ruled(audit={"durability": "PageCache"}),),
        "is PageCache",
    ),
    Case(
        "retention.atLeast",
        {"retention": {"atLeast": "180d"}},
        (served(), ruled(privacy={"retention": {"payloads": "180d"}})),
        (ruled(privacy={"retention": {"payloads": "4319h"}}),),
        "at least 180d",
    ),
    Case(
        "retention.atMost",
        {"retention": {"atMost": "180d"}},
        (ruled(privacy={"retention": {"payloads": "180d"}}),),
        (served(), ruled(privacy={"retention": {"payloads": "4321h"}})),
        "at most 180d",
    ),
    Case(
        "images.byDigest",
        {"images": {"byDigest": True}},
        (served(), run_by(image=f"r.example/i:1@{DIGEST}")),
        (run_by(image="r.example/i:1"), run_by(image=f"i@{DIGEST[:-1]}"), run_by(image=f"i@{DIGEST}\n")),
        "IMAGE@sha256:",
    ),
    Case(
        "images.registries",
        {"images": {"registries": ["r.example/team", "docker.io", "localhost:5000"]}},
        (
            served(),
            run_by(image="r.example/team/i"),
            run_by(image="library/i"),
            run_by(image="i:2"),
            run_by(image="localhost:5000/i"),
        ),
        (
            run_by(image="r.example/i"),
            run_by(image="r.example/team-b/i"),
            run_by(image="r.example/team/../other/i"),
            run_by(image="localhost/i"),
            run_by(image="docker.io.example/i"),
        ),
        "an image of r.example/team, docker.io",
    ),
    Case(
        "sources.schemes",
        {"sources": {"schemes": ["s3", "pvc"]}},
        (served(), taken("s3://a1/m.onnx"), trained("pvc://c/d.csv", None)),
        (taken("gs://a1/m"), taken("hf://o/n@r"), trained("file:d.csv", None)),
        "a URI of s3, pvc",
    ),
    Case(
        "sources.prefixes",
        {"sources": PREFIXES},
        (
            served(),
            taken("s3://approved/m.onnx"),
            taken("s3://approved/a..b/m.onnx", endpoint="https://s3.example"),
        ),
        (
            taken("s3://approved-not/m.onnx"),
            taken("s3://approved/../other/m.onnx"),
            taken("s3://approved/%2E%2e/other/m.onnx"),
            taken("s3://approved/..%2Fother/m.onnx"),
            taken("s3://approved/..\\other/m.onnx"),
            taken("oci://registry.example/teams/m:1"),
            taken("s3://approved/m.onnx", endpoint="https://s3.evil"),
            trained("pvc://c/d.csv", None),
        ),
        "spec.",
    ),
    Case(
        "sources.dataDigest",
        {"sources": {"dataDigest": "Required"}},
        (served(), trained("pvc://c/d.csv", DIGEST)),
        (trained("pvc://c/d.csv", None),),
        "governed pin",
    ),
    Case(
        "quota",
        {"quota": "Required"},
        (served(quota={"requests": [{"limit": 1}]}), served(quota={"tokens": [{"limit": 1}]})),
        (served(), served(quota={"maxConcurrent": 4})),
        "set a limit",
    ),
    Case("bias", {"bias": {}}, (judged(),), (served(),), "spec.governance.bias is absent"),
    Case(
        "bias.metrics",
        {"bias": ASKED},
        (judged(), bounded(thresholdLower=0.85, margin=0.04), bounded(thresholdLower=0.8, thresholdUpper=9)),
        (
            bounded(thresholdLower=0.79),
            bounded(thresholdLower=0.8, margin=0.01),
            bounded(thresholdUpper=1.25),
            judged(metrics=[{"name": "statisticalParityDifference", "thresholdLower": -0.1}]),
        ),
        "disparateImpactRatio",
    ),
    Case(
        "bias.protectedAttributes",
        {"bias": {"protectedAttributes": ["sex", "age"]}},
        (judged(protectedAttributes=[{"name": "age"}, {"name": "sex"}]),),
        (judged(),),
        "add age",
    ),
    Case(
        "bias.action",
        {"bias": {"action": "BlockPromotion"}},
        (judged(action="BlockPromotion"), judged(action="Rollback")),
        (judged(),),
        "at least BlockPromotion",
    ),
    Case(
        "bias.minSamples",
        {"bias": {"minSamples": 200}},
        (judged(),),
        (judged(minSamples=201),),
        "at most 200",
    ),
    Case("explainer", {"explainer": "Required"}, (served(explainer={}),), (served(),), "spec.explainer is absent"),
)


def floor(require: dict[str, Json], **other: Json) -> Floor:
    spec = GovernancePolicySpec.model_validate({"enforcement": "Deny", "require": require, **other})
    return Floor("floor", "team", spec, tuple(spec.exemptions), cluster=False)


def model(spec: GovernedModelSpec | None = None, **labels: str) -> Subject:
    return Subject("loans", "team", labels, spec or served())


def test_every_rule_that_may_be_exempted_from_is_in_the_table_and_tried_here() -> None:
    assert list(get_args(RuleName)) == list(RULES) == [case.rule for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_passes_who_meets_it_and_names_who_does_not(case: Case) -> None:
    for spec in case.meets:
        assert [j for j in judge(model(spec), [floor(case.require)], NOW) if j.rule == case.rule] == []
    for spec in case.lacks:
        (found,) = [j for j in judge(model(spec), [floor(case.require)], NOW) if j.rule == case.rule]
        assert found.kind == "Deny"
        assert found.text.startswith("spec.")
        assert case.words in found.text
        assert "; GovernancePolicy floor requires " in found.text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_what_is_not_required_is_not_asked(case: Case) -> None:
    for spec in (*case.meets, *case.lacks):
        assert judge(model(spec), [floor({})], NOW) == []


def exemption(**other: Json) -> dict[str, Json]:
    given: dict[str, Json] = {"model": "loans", "rule": "quota", "owner": "ana", "reason": "trial"}
    return given | {"expires": "2027-01-01T00:00:00Z"} | other


def exempted(*exemptions: dict[str, Json]) -> Floor:
    return floor({"quota": "Required"}, exemptions=list(exemptions))


def test_an_exemption_holds_for_its_model_and_rule_and_says_who_answers_for_it() -> None:
    (found,) = judge(model(), [exempted(exemption())], NOW)
    assert (found.kind, found.again) == ("Exempt", datetime(2027, 1, 1, tzinfo=UTC))
    assert "exempt until 2027-01-01T00:00:00Z, for which ana answers: trial" in found.text


@pytest.mark.parametrize("other", [{"model": "loan"}, {"rule": "explainer"}])
def test_an_exemption_of_another_model_or_rule_exempts_from_nothing(other: dict[str, Json]) -> None:
    (found,) = judge(model(), [exempted(exemption(**other))], NOW)
    assert (found.kind, "exempt" in found.text) == ("Deny", False)


@pytest.mark.parametrize("expires", ["2026-12-01T00:00:00Z", "2026-12-01T01:00:00+01:00", "2026-02-30T00:00:00Z"])
def test_an_exemption_that_has_expired_exempts_from_nothing_and_is_told(expires: str) -> None:
    (found,) = judge(model(), [exempted(exemption(expires=expires))], NOW)
    assert found.kind == "Deny"
    assert f"the exemption, for which ana answers, expired {expires}" in found.text


def test_the_longest_of_several_exemptions_counts() -> None:
    (found,) = judge(model(), [exempted(exemption(), exemption(expires="2026-01-01T00:00:00Z"))], NOW)
    assert found.kind == "Exempt"


def test_under_audit_it_is_only_said() -> None:
    (found,) = judge(model(), [floor({"quota": "Required"}, enforcement="Audit")], NOW)
    assert found.kind == "Audit"


def test_a_policy_is_about_the_models_of_its_namespace_that_have_its_labels() -> None:
    strict = floor({"quota": "Required"}, selector={"matchLabels": {"tier": "high"}})
    assert judge(model(), [strict], NOW) == []
    assert judge(model(tier="low"), [strict], NOW) == []
    assert len(judge(model(tier="high"), [strict], NOW)) == 1
    assert judge(model()._replace(namespace="others"), [floor({"quota": "Required"})], NOW) == []
    assert len(judge(model()._replace(namespace=None), [floor({"quota": "Required"})], NOW)) == 1


def test_a_clusters_policy_is_about_all_namespaces_and_its_exemption_about_one() -> None:
    spec = ClusterGovernancePolicySpec.model_validate(
        {
            "enforcement": "Deny",
            "require": {"quota": "Required"},
            "exemptions": [exemption(namespace="team")],
        }
    )
    everywhere = Floor("all", None, spec, tuple(spec.exemptions), cluster=True)
    assert [j.kind for j in judge(model(), [everywhere], NOW)] == ["Exempt"]
    (found,) = judge(model()._replace(namespace="others"), [everywhere], NOW)
    assert found.kind == "Deny"
    assert "; ClusterGovernancePolicy all requires " in found.text
