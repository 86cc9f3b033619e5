"""A model from object storage: fetched by a Job that alone has credentials and a way out, verified, served; with one
byte changed, nothing serves and the model says which file differs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cluster_access import Cluster
from support.docker_client import docker_lines
from support.fixtures import dump_on_failure
from support.governed import ask, await_condition, condition, pods, start_client
from support.kind_bed import KindBed
from support.object_storage import ACCESS, SECRET, ObjectStorage, object_storage
from support.release import Release
from support.waiting import eventually
from unit.archive.test_imported import onnx_file

READER = "models-reader"


@pytest.fixture(scope="module")
def storage(kind_bed: KindBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    """On the address under which the cluster's nodes see this machine."""
    form = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}"
    (gateway,) = docker_lines("inspect", "--format", form, f"{kind_bed.kind_name}-control-plane")
    with object_storage(tmp_path_factory.mktemp("storage"), host=gateway) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(kind_bed: KindBed, release: Release, storage: ObjectStorage) -> Iterator[Cluster]:  # noqa: ARG001
    """A namespace with a name for the storage, credentials, and a client pod."""
    here = kind_bed.cluster.within(kind_bed.cluster.create_namespace("fetched"))
    address = storage.url.removeprefix("http://").partition(":")[0]
    port = {"name": "s3", "port": storage.port}
    here.apply(
        [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "storage"}, "spec": {"ports": [port]}},
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "storage-1", "labels": {"kubernetes.io/service-name": "storage"}},
                "addressType": "IPv4",
                "ports": [port],
                "endpoints": [{"addresses": [address]}],
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": READER},
                "stringData": {"access-key-id": ACCESS, "secret-access-key": SECRET},
            },
        ]
    )
    start_client(here)
    yield here
    here.kubectl("delete", "namespace", here.namespace, "--wait=false")


@pytest.fixture(autouse=True)
def _dumped(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    dump_on_failure(request, cluster)


def stored(storage: ObjectStorage, name: str) -> tuple[Path, str]:
    """A model's file in the storage, and its digest."""
    path = storage.objects / name / "model.onnx"
    path.parent.mkdir()
    return path, onnx_file(path)


def manifest(cluster: Cluster, storage: ObjectStorage, name: str, digest: str) -> dict[str, Any]:
    model = {
        "storageUri": f"s3://{storage.objects.name}/{name}/model.onnx",
        "digest": digest,
        "storage": {
            "secretRef": {"name": READER},
            "endpoint": f"http://storage.{cluster.namespace}.svc:{storage.port}",
        },
    }
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model}},
    }


def test_a_stored_model_is_fetched_once_and_served_by_who_has_no_credentials(
    cluster: Cluster, storage: ObjectStorage
) -> None:
    _, digest = stored(storage, "churn")
    cluster.apply(manifest(cluster, storage, "churn", digest))
    await_condition(cluster, "churn", within=420)
    inputs = [{"name": name, "shape": [1, 1], "datatype": "FP32", "data": [1.0]} for name in ("a", "b")]
    status, answer = ask(cluster, "http://churn:8080/v2/models/churn/infer", {"inputs": inputs})
    assert status == 200, answer
    (serving,) = pods(cluster, "churn")
    assert READER not in str(serving["spec"]), "the serving pod has the storage's credentials"


def test_with_one_byte_changed_nothing_serves_and_the_file_is_named(cluster: Cluster, storage: ObjectStorage) -> None:
    path, digest = stored(storage, "damaged")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    cluster.apply(manifest(cluster, storage, "damaged", digest))

    *_, message = eventually(
        lambda: condition(cluster, "damaged", "ModelVerified"), lambda found: found[0] == "False", within=300
    )
    assert "damaged/model.onnx" in message, message
    assert digest in message, message
    assert [p for p in pods(cluster, "damaged") if p["status"].get("phase") == "Running"] == []
