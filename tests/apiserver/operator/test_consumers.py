"""ModelConsumers on a real API server: compiled, effective at once, told how they stand, and silent in between."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from operator_bed import claim, imported

from governed_api.callers import CALLERS_FILE, CALLERS_KEY, Callers, callers_secret, open_callers
from governed_serving.access.directory import Directory
from governed_serving.access.refusals import Unknown
from support.cluster_access import Cluster
from support.consumer_manifests import KEY, OTHER, consumer
from support.waiting import consistently, eventually

pytestmark = pytest.mark.usefixtures("operator")


def required(name: str = "loans", **labels: str) -> dict[str, Any]:
    model = imported(name)
    model["metadata"]["labels"] = labels
    model["spec"]["access"] = {"authentication": "Required"}
    return model


def secret(cluster: Cluster, name: str, key: str) -> bytes:
    import base64

    return base64.b64decode(cluster.get("secret", name)["data"][key])


def document(cluster: Cluster, model: str = "loans") -> Callers:
    """What the model's ports would read; opened with the key that they would use."""
    sealed = cluster.get("cm", f"{model}-callers")["data"][CALLERS_FILE].encode()
    return Callers.model_validate_json(open_callers(sealed, secret(cluster, f"{model}-callers", CALLERS_KEY).decode()))


def names(cluster: Cluster, model: str = "loans") -> list[str]:
    return [caller.name for caller in document(cluster, model).callers]


def told(cluster: Cluster, name: str, kind: str = "KeyReady") -> tuple[str, str]:
    found = cluster.get("gconsumer", name)
    (condition,) = [c for c in found["status"]["conditions"] if c["type"] == kind]
    assert condition["observedGeneration"] == found["metadata"]["generation"]
    return condition["status"], condition["reason"]


def tells(cluster: Cluster, name: str, expected: tuple[str, str], kind: str = "KeyReady") -> None:
    eventually(lambda: told(cluster, name, kind), lambda said: said == expected, within=60, what=f"{name}: {expected}")


@pytest.fixture
def loans(namespace: Cluster) -> Cluster:
    """A namespace with a model that asks who calls."""
    claim(namespace)
    namespace.apply(required())
    eventually(lambda: document(namespace), within=90, what="the document of callers")
    return namespace


def test_a_consumer_comes_into_force_and_goes(loans: Cluster) -> None:
    assert secret(loans, "loans-callers", CALLERS_KEY).decode() == callers_secret(
        secret(loans, "governed-archive-keys", "root"), loans.namespace, "loans"
    )
    first = document(loans)
    assert first.callers == []
    loans.apply(consumer("app"))
    tells(loans, "app", ("True", "KeysAccepted"))
    tells(loans, "app", ("True", "Found"), "ModelsFound")
    eventually(lambda: names(loans), lambda found: found == ["app"], within=60)
    loans.apply(consumer("app", suspend=True))
    eventually(lambda: document(loans).callers[0].suspended, within=60)
    tells(loans, "app", ("False", "ConsumerSuspended"))
    before = document(loans).sequence
    loans.kubectl("delete", "gconsumer", "app")
    eventually(lambda: names(loans), lambda found: found == [], within=60)
    assert first.sequence < before < document(loans).sequence


def test_a_service_account_calls_by_the_token_that_the_api_server_made_for_it(loans: Cluster) -> None:
    account = {"name": "scorer", "namespace": loans.namespace, "audience": "governed-models"}
    loans.apply(consumer("batch", apiKeys=[], serviceAccount=account))
    tells(loans, "batch", ("True", "KeysAccepted"))
    eventually(lambda: document(loans).issuers[0].jwks, within=60, what="the cluster's keys")
    loans.kubectl("create", "serviceaccount", "scorer")
    loans.kubectl("create", "serviceaccount", "other")

    def shown(name: str, audience: str = "governed-models") -> str:
        token = loans.kubectl("create", "token", name, f"--audience={audience}", "--duration=10m").strip()
        said = document(loans).model_dump_json(by_alias=True, exclude_defaults=True).encode()
        try:
            return Directory(said, loans.namespace, "loans").find(token, time.time()).name
        except Unknown as error:
            return error.reason

    assert (shown("scorer"), shown("other"), shown("scorer", "another")) == ("batch", "unknown", "audience")
    loans.apply(consumer("batch", apiKeys=[], serviceAccount=account, suspend=True))
    eventually(lambda: shown("scorer"), lambda said: said == "suspended", within=60)


def test_a_converged_namespace_is_silent(loans: Cluster) -> None:
    loans.apply([consumer("app"), consumer("reader", apiKeys=[OTHER], roles=["audit"], models={"names": ["*"]})])
    for name in ("app", "reader"):
        tells(loans, name, ("True", "KeysAccepted"))

    def versions() -> list[str]:
        found = [loans.get("gconsumer", "app"), loans.get("gconsumer", "reader"), loans.get("cm", "loans-callers")]
        return [o["metadata"]["resourceVersion"] for o in found]

    eventually(lambda: names(loans), lambda found: found == ["app", "reader"], within=60)
    still = versions()
    consistently(versions, lambda seen: seen == still, during=4, what="nothing is written")


def test_a_key_of_two_stays_with_the_older_one(loans: Cluster) -> None:
    loans.apply(consumer("old"))
    tells(loans, "old", ("True", "KeysAccepted"))
    time.sleep(1.1)  # creation is told in seconds
    loans.apply(consumer("a-young"))
    tells(loans, "a-young", ("False", "KeyIdTaken"))
    assert told(loans, "old") == ("True", "KeysAccepted")
    assert names(loans) == ["old"]
    loans.kubectl("delete", "gconsumer", "old")
    tells(loans, "a-young", ("True", "KeysAccepted"))
    eventually(lambda: names(loans), lambda found: found == ["a-young"], within=60)


def test_models_that_come_and_go_and_change_labels(loans: Cluster) -> None:
    by_label = consumer("by-label", apiKeys=[OTHER], models={"selector": {"matchLabels": {"team": "risk"}}})
    loans.apply([consumer("app", models={"names": ["loans", "late"]}), by_label])
    tells(loans, "app", ("False", "ModelNotFound"), "ModelsFound")
    tells(loans, "by-label", ("False", "NoModels"), "ModelsFound")
    assert names(loans) == ["app"]
    loans.apply(required("late", team="risk"))
    for name in ("app", "by-label"):
        tells(loans, name, ("True", "Found"), "ModelsFound")
    eventually(lambda: names(loans, "late"), lambda found: sorted(found) == ["app", "by-label"], within=60)
    loans.kubectl("label", "gmodel", "late", "team-")
    eventually(lambda: names(loans, "late"), lambda found: found == ["app"], within=60)
    tells(loans, "by-label", ("False", "NoModels"), "ModelsFound")
    before = document(loans, "late").sequence
    loans.kubectl("delete", "gmodel", "late")
    tells(loans, "app", ("False", "ModelNotFound"), "ModelsFound")
    eventually(lambda: loans.list("cm", "-l", "governedmodels.io/model=late"), lambda left: not left, within=90)
    loans.apply(required("late"))
    eventually(lambda: document(loans, "late").sequence, lambda found: found > before, within=90)
    assert names(loans, "late") == ["app"]


def test_an_edit_by_hand_and_a_deletion_are_taken_back(loans: Cluster) -> None:
    loans.apply(consumer("app"))
    eventually(lambda: names(loans), lambda found: found == ["app"], within=60)
    right = loans.get("cm", "loans-callers")["data"]
    loans.kubectl("patch", "cm", "loans-callers", "--type=merge", "-p", json.dumps({"data": {CALLERS_FILE: "mine"}}))
    eventually(lambda: loans.get("cm", "loans-callers")["data"], lambda data: data == right, within=60)
    loans.kubectl("delete", "cm", "loans-callers")
    eventually(lambda: loans.get("cm", "loans-callers")["data"], lambda data: data == right, within=60)
    patch = json.dumps({"status": {"keys": 9, "conditions": []}})
    loans.kubectl("patch", "gconsumer", "app", "--subresource=status", "--type=merge", "-p", patch)
    tells(loans, "app", ("True", "KeysAccepted"))


def test_an_expiry_is_told_when_it_comes(loans: Cluster) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=8)).isoformat().replace("+00:00", "Z")
    loans.apply(consumer("app", apiKeys=[KEY | {"expires": soon}]))
    tells(loans, "app", ("True", "KeysAccepted"))
    tells(loans, "app", ("False", "KeysExpired"))
    assert datetime.now(UTC).isoformat() > soon
    assert loans.get("gconsumer", "app")["status"]["keys"] == 0


def test_off_makes_no_document_and_takes_the_one_that_was(loans: Cluster) -> None:
    loans.apply(consumer("app", models={"names": ["*"]}))
    off = required()
    off["spec"]["access"]["authentication"] = "Off"
    loans.apply([off, imported("open")])
    eventually(lambda: loans.list("cm", "-l", "governedmodels.io/model=open"), within=60, what="the open model's own")
    eventually(lambda: [c["metadata"]["name"] for c in loans.list("cm")], lambda n: "loans-callers" not in n, within=90)
    assert "open-callers" not in [c["metadata"]["name"] for c in loans.list("cm")]
    tells(loans, "app", ("True", "Found"), "ModelsFound")


def test_a_model_that_cannot_go_on_still_lets_go_of_a_key(loans: Cluster) -> None:
    """What else is wrong with a model must not keep a key valid, however long its reconcile has failed."""
    loans.apply(consumer("app"))
    eventually(lambda: names(loans), lambda found: found == ["app"], within=60)
    loans.kubectl("create", "quota", "none", "--hard=count/deployments.apps=0")
    loans.kubectl("delete", "deploy", "loans-predictor", "--ignore-not-found")
    loans.kubectl("patch", "gmodel", "loans", "--type=merge", "-p", '{"spec": {"predictor": {"timeout": 61}}}')
    eventually(lambda: _degraded(loans), lambda said: said[1] == "Forbidden", within=60)
    loans.kubectl("delete", "gconsumer", "app")
    eventually(lambda: names(loans), lambda found: found == [], within=10)


def _degraded(cluster: Cluster) -> tuple[str, str]:
    conditions = cluster.get("gmodel", "loans")["status"]["conditions"]
    (found,) = [c for c in conditions if c["type"] == "Degraded"]
    return found["status"], found["reason"]
