"""Policies as the API server tells of them: what is known, what is not, whom a change wakes, and who is told."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from governed_api.json_types import Json
from governed_operator.kube.cluster import ApiError, Cluster
from governed_operator.kube.kinds import CLUSTER_POLICY, POLICY
from governed_operator.loop.observe import Observer
from governed_operator.loop.operator_process import OperatorProcess
from governed_operator.loop.policies import PolicyTeller, in_force, models_of
from governed_operator.loop.recorder import EventRecorder
from governed_operator.settings import Capabilities, OperatorSettings
from governed_operator.watch import reflector as reflector_module
from governed_operator.watch.cache import Cache, ModelKey, head_of
from governed_operator.watch.policies import Policies
from governed_operator.watch.reflector import Reflector

OURS, ALL = "GovernancePolicy", "ClusterGovernancePolicy"
REFUSED = ApiError(403, "Forbidden", "may not list")


def policy(
    name: str = "floor", namespace: str = "n", version: int = 1, uid: str = "u",
    labels: dict[str, Json] | None = None, **spec: Json,
) -> bytes:  # fmt: skip
    metadata: dict[str, Json] = {"name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    metadata |= {"namespace": namespace} if namespace else {}
    given: dict[str, Json] = {"enforcement": "Deny", "require": {"quota": "Required"}}
    return json.dumps({"metadata": metadata, "spec": given | spec}).encode()


def listed(*namespaces: str) -> Policies:
    """All are listed, and there are none."""
    policies = Policies(namespaces)
    for place in namespaces or (None,):
        policies.keep_only(OURS, set(), place)
    policies.keep_only(ALL, set())
    return policies


def names(policies: Policies, namespace: str) -> list[str]:
    return [floor.title for floor in in_force(policies, namespace).floors]


def test_those_of_the_cluster_and_of_the_namespace_are_in_force() -> None:
    policies = listed()
    assert policies.put(OURS, policy()) == ("n", "floor")
    assert policies.put(OURS, policy(namespace="other")) == ("other", "floor")
    assert policies.put(ALL, policy(namespace="")) == ("", "floor")
    assert names(policies, "n") == ["ClusterGovernancePolicy floor", "GovernancePolicy floor"]
    assert names(policies, "elsewhere") == ["ClusterGovernancePolicy floor"]
    assert policies.drop(ALL, head_of(policy(namespace=""))) == ("", "floor")
    assert policies.drop(OURS, head_of(policy(uid="an earlier one"))) is None
    assert names(policies, "n") == ["GovernancePolicy floor"]


def test_what_is_known_wakes_nobody() -> None:
    policies = listed()
    policies.put(OURS, policy(version=5))
    assert policies.put(OURS, policy(version=4, enforcement="Audit")) is None, "an older state"
    assert policies.put(OURS, policy(version=6, labels={"a": "b"})) is None, "nothing of it is about models"
    assert policies.put(OURS, policy(version=7, enforcement="Audit")) == ("n", "floor")
    assert in_force(policies, "n").floors[0].spec.enforcement == "Audit"


def test_a_complete_list_forgets_what_it_does_not_have() -> None:
    policies = listed()
    for name in ("kept", "gone"):
        policies.put(OURS, policy(name))
        policies.put(ALL, policy(name, namespace=""))
    labelled = head_of(policy("kept", namespace="", labels={"governedmodels.io/namespace": "elsewhere"}))
    assert policies.keep_only(ALL, {(labelled.model, "kept")}) == [("", "gone")], "whatever labels it has"
    assert policies.keep_only(OURS, {(("n", ""), "kept")}) == [("n", "gone")]
    assert names(policies, "n") == ["ClusterGovernancePolicy kept", "GovernancePolicy kept"]


def test_nothing_is_known_before_all_are_listed() -> None:
    policies = Policies()
    assert "governancepolicies are unknown: they have not been listed yet" in policies.unread("n")
    assert policies.keep_only(OURS, set()) == [("", "")], "all models wake"
    assert policies.touched(("", "")) == [{}]
    assert policies.unread("n").startswith("clustergovernancepolicies are unknown")
    assert policies.keep_only(ALL, set()) == [("", "")]
    assert policies.unread("n") == ""
    assert policies.keep_only(ALL, set()) == [], "a second list is no news"


def test_of_named_namespaces_each_is_known_by_itself() -> None:
    policies = listed("a", "b")
    assert policies.refused(OURS, "a", REFUSED) == ("a", "")
    assert policies.unread("a").startswith("governancepolicies are unknown: may not list (403); grant the operator")
    assert policies.unread("b") == ""
    assert policies.refused(ALL, None, ApiError(404, "NotFound", "no such kind")) == ("", "")
    assert policies.unread("b") == (
        "clustergovernancepolicies are unknown: no such kind (404); install its CRD, as the chart does"
    )
    assert policies.keep_only(OURS, set(), "a") == [("a", "")]


@pytest.mark.parametrize(
    ("spec", "labels", "refuses"),
    [
        ({"require": {"surprise": True}, "selector": {"matchLabels": {"a": "b"}}}, {"a": "b"}, True),
        ({"require": {"surprise": True}, "selector": {"matchExpressions": []}}, {}, True),
        ({"enforcement": "Audit", "require": None}, {}, False),
        ({"enforcement": "Warn"}, {}, True),
    ],
)
def test_one_that_cannot_be_read_is_about_whom_its_selector_says(
    spec: dict[str, Json], labels: dict[str, str], refuses: bool
) -> None:
    policies = listed()
    policies.put(OURS, policy(**spec))
    (found,) = in_force(policies, "n").unreadable
    assert (found.labels, found.refuses, found.title) == (labels, refuses, "GovernancePolicy floor")
    assert found.fault.startswith("spec.")
    assert policies.unreadable() == [("n", "floor")]
    policies.put(OURS, policy(version=2))
    assert in_force(policies, "n").unreadable == ()


def test_a_spec_that_is_no_object_is_unreadable_too() -> None:
    body = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"}, "spec": [1]}
    policies = listed()
    policies.put(OURS, json.dumps(body).encode())
    assert [found.refuses for found in in_force(policies, "n").unreadable] == [True]


def model(name: str, namespace: str = "n", **labels: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1", "labels": labels}
    return {"metadata": {**metadata, "generation": 1}, "spec": {}}


@pytest.fixture
def process() -> OperatorProcess:
    """It works, and knows three models."""
    process = OperatorProcess(cast(Cluster, SimpleNamespace()), OperatorSettings(), Capabilities())
    for observed in (model("high", risk="high"), model("low", risk="low"), model("far", "other")):
        process.cache.put_model(observed)
    process._working = True
    return process


def heard(process: OperatorProcess, kind: str, observed: bytes) -> list[str]:
    """Names of models that it wakes."""
    key = process.policies.put(kind, observed)
    assert key is not None
    process._policy_changed(key)
    return woken(process)


def woken(process: OperatorProcess) -> list[str]:
    found = []
    while (key := process.queue._next()) is not None:
        found.append(key[1])
    return sorted(found)


async def test_a_change_wakes_whom_a_policy_was_or_is_about(process: OperatorProcess) -> None:
    high: Json = {"matchLabels": {"risk": "high"}}
    assert heard(process, OURS, policy()) == ["high", "low"]
    assert heard(process, OURS, policy("narrow", selector=high)) == ["high"]
    assert heard(process, OURS, policy("narrow", version=2, selector={"matchLabels": {"risk": "low"}})) == [
        "high",
        "low",
    ]
    assert heard(process, ALL, policy(namespace="")) == ["far", "high", "low"]
    gone = process.policies.drop(OURS, head_of(policy()))
    assert gone
    process._policy_changed(gone)
    assert woken(process) == ["high", "low"]
    process._policies_refused(ALL, None, REFUSED)
    assert woken(process) == ["far", "high", "low"]


async def test_one_that_waits_for_an_exemptions_end_is_woken_and_one_in_hand_is_looked_at_again(
    process: OperatorProcess,
) -> None:
    high, low, far = ("n", "high"), ("n", "low"), ("other", "far")
    process.queue.add(high, 86_400.0)
    process.queue.wake(low)
    assert await process.queue.take() == low
    process.queue.wake_low_priority([high, low, far])
    assert [process.queue._next(), process.queue._next()] == [high, far]
    process.queue.done(low)
    assert await process.queue.take() == low
    process.queue.failed(low)
    process.queue.wake_low_priority([low])
    assert process.queue._next() is None, "its back-off goes on"


def test_labels_of_any_of_the_selectors_count() -> None:
    cache = Cache()
    for observed in (model("a", x="1"), model("b", x="2"), model("c")):
        cache.put_model(observed)
    assert {key[1] for key in models_of(cache, "n", [{"x": "1"}, {"x": "2"}])} == {"a", "b"}
    assert {key[1] for key in models_of(cache, "", [{}])} == {"a", "b", "c"}
    assert list(models_of(cache, "n", [])) == []


class Refusing:
    """Lists are refused until they have been asked for twice."""

    def __init__(self, *refusals: ApiError) -> None:
        self.refusals = list(refusals)

    async def pages(self, *_: Any, **__: Any) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        yield [policy(namespace="")], "10"

    async def watch(self, *_: Any, **__: Any) -> Any:
        if self.refusals == []:
            raise KeyboardInterrupt  # ends a loop that has no end
        yield b""


@pytest.mark.parametrize("status", [403, 404])
async def test_what_may_not_be_listed_holds_models_not_the_operator(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    woken: list[ModelKey | None] = []
    policies = listed()
    server: Any = Refusing(ApiError(status, "x", "no"), ApiError(status, "x", "no"))

    async def pause(seconds: float) -> None:
        assert reflector.synced.is_set(), "the others' work begins without it"
        assert policies.unread("n")
        paused.append(seconds)

    monkeypatch.setattr(reflector_module.asyncio, "sleep", pause)
    reflector = Reflector(
        CLUSTER_POLICY, server, policies, woken.append, lambda: None, selector="",
        refused=lambda error: woken.append(policies.refused(ALL, None, error)),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        await reflector.run()
    assert paused == [reflector_module.NOT_ALLOWED_PAUSE] * 2
    assert policies.unread("n") == ""
    assert woken == [("", ""), None, ("", "floor"), ("", "")], "what was known wakes nobody"


async def test_a_right_that_is_lost_is_listed_anew_once_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that goes on would leave unsaid that everything is known again."""
    asked: list[str] = []

    class Losing:
        async def pages(self, *_: Any, **__: Any) -> Any:
            asked.append("list")
            yield [], "10"

        async def watch(self, *_: Any, **__: Any) -> Any:
            asked.append("watch")
            if len(asked) > 2:
                raise KeyboardInterrupt
            raise REFUSED
            yield b""

    async def pause(_: float) -> None:
        assert policies.unread("n")

    monkeypatch.setattr(reflector_module.asyncio, "sleep", pause)
    policies = listed()
    server: Any = Losing()
    reflector = Reflector(
        POLICY, server, policies, lambda _: None, lambda: None, selector="",
        refused=lambda error: policies.refused(OURS, None, error) and None,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        await reflector.run()
    assert asked == ["list", "watch", "list", "watch"]
    assert policies.unread("n") == ""


class Posts:
    """Keeps the events that are made."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    async def create(self, _: Any, event: dict[str, Any]) -> bytes:
        self.made.append(event)
        return b"{}"


async def test_who_wrote_a_policy_that_cannot_be_read_hears_of_it() -> None:
    policies, posts = listed(), Posts()
    policies.put(OURS, policy("right"))
    policies.put(OURS, policy("wrong", require=None))
    policies.put(ALL, policy("wrong", namespace="", enforcement="Audit", require=None))
    teller = PolicyTeller(policies, EventRecorder(cast(Cluster, posts)))
    for key in (("n", "right"), ("n", "gone"), ("n", "wrong"), ("", "wrong")):
        await teller.tell(key)
    own, cluster = posts.made
    assert (own["type"], own["reason"], own["metadata"]["namespace"]) == ("Warning", "PolicyInvalid", "n")
    assert own["regarding"] == {
        "apiVersion": "governedmodels.io/v1alpha1", "kind": OURS, "name": "wrong", "uid": "u", "namespace": "n",
    }  # fmt: skip
    assert own["note"].startswith("spec.require: ")
    assert "roll nothing new out" in own["note"]
    assert (cluster["metadata"]["namespace"], "namespace" in cluster["regarding"]) == ("default", False)
    assert "says nothing of models" in cluster["note"]


async def test_what_is_observed_of_a_model_has_its_labels_and_the_policies_in_force() -> None:
    policies, cache = listed(), Cache()
    policies.put(OURS, policy())
    policies.put(OURS, policy("wrong", require=None))
    cache.put_model(model("m", risk="high"))
    settings, capabilities = OperatorSettings(), Capabilities()
    observer = Observer(cast(Cluster, SimpleNamespace()), cache, settings, capabilities, policies=policies)
    key = ("n", "m")
    seen = await observer.observe(key, cache.models[key])
    assert (seen.labels, [f.name for f in seen.policies.floors]) == ({"risk": "high"}, ["floor"])
    assert [found.title for found in seen.policies.unreadable] == ["GovernancePolicy wrong"]
    assert seen.policies.unread == ""
    policies.refused(ALL, None, REFUSED)
    assert (await observer.observe(key, cache.models[key])).policies.unread == policies.unread("n") != ""
