"""What the operator compiles of ModelConsumers is heard by a pod's own service account, which hears nothing else."""

import base64
import time
from pathlib import Path

import httpx
import pytest
from operator_bed import claim, imported

from governed_api import object_names
from governed_api.callers import CALLERS_FILE, CALLERS_KEY
from governed_serving.access.document import Documents, Sources
from governed_serving.access.gate import Gate
from governed_serving.access.refusals import Unknown
from governed_serving.hosting.service_account import account_client
from support.apiserver_bed import ApiServerBed
from support.cluster_access import Cluster
from support.consumer_manifests import consumer
from support.waiting import eventually
from unit.access.people import kept, key

pytestmark = pytest.mark.usefixtures("operator")

A, B = key("a"), key("b")
MODEL = "loans"


@pytest.fixture
def pod(namespace: Cluster, api_bed: ApiServerBed, tmp_path: Path) -> tuple[Documents, str]:
    """The gate of an auditor of a model whose callers must be known, and the URL of its ConfigMap."""
    claim(namespace)
    model = imported(MODEL)
    model["spec"]["access"] = {"authentication": "Required"}
    namespace.apply(model)
    name = object_names.callers(MODEL)
    eventually(lambda: namespace.get("cm", name), within=90)
    account = object_names.account(MODEL)
    eventually(lambda: namespace.get("rolebinding", account), within=90)
    (tmp_path / "token").write_text(namespace.kubectl("create", "token", account))
    (tmp_path / "ca.crt").write_bytes((api_bed.folder / "ca.crt").read_bytes())
    secret = base64.b64decode(namespace.get("secret", name)["data"][CALLERS_KEY]).decode()
    url = f"{api_bed.url}/api/v1/namespaces/{namespace.namespace}/configmaps/{name}"
    sources = Sources(secret=secret, paths=(tmp_path / "mounted",), url=url, relay=tmp_path / CALLERS_FILE)
    return Documents(Gate(namespace.namespace, MODEL, "auditor", secret), sources, account=tmp_path), url


def caller(documents: Documents, text: str) -> str:
    try:
        return documents.gate.known(text).name
    except Unknown as error:
        return error.reason


def test_a_change_is_heard_within_a_second_or_so(
    pod: tuple[Documents, str], namespace: Cluster, tmp_path: Path
) -> None:
    documents, _ = pod
    documents.start()
    eventually(lambda: documents.gate.directory, within=60)
    took = {}
    for name, keys in (("app", [A]), ("app", [B])):
        namespace.apply(consumer(name, apiKeys=[kept(text) for text in keys]))
        began = time.monotonic()
        eventually(lambda: caller(documents, keys[0]), lambda found: found == "app", within=60, every=0.02)  # noqa: B023
        took[keys[0]] = time.monotonic() - began
    assert caller(documents, A) == "unknown", "replaced"
    assert (tmp_path / CALLERS_FILE).is_file(), "for the other containers"
    namespace.kubectl("delete", "gconsumer", "app")
    eventually(lambda: caller(documents, B), lambda found: found == "unknown", within=60)
    documents.stop()
    assert documents.gate.bad_documents == documents.gate.watch_failures == 0
    assert min(took.values()) < 5.0, took


def test_the_account_hears_of_this_config_map_alone(pod: tuple[Documents, str], tmp_path: Path) -> None:
    _, url = pod
    collection = url.rpartition("/")[0]
    with account_client(tmp_path) as client:
        assert eventually(lambda: client.get(url).status_code, lambda status: status == 200) == 200
        for refused in (
            client.get(collection),
            client.get(f"{collection}/kube-root-ca.crt"),
            client.get(url.replace("/configmaps/", "/secrets/")),
            client.get(collection, params={"fieldSelector": "metadata.name=kube-root-ca.crt"}),
        ):
            assert refused.status_code == httpx.codes.FORBIDDEN
