"""Models from servers on loopback, under `governed run` and `governed pin`: a real object storage (versitygw) with
credentials, and what happens when one byte of what it has is another."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.model_ports import free_offset
from support.object_storage import ObjectStorage, object_storage
from unit.archive.test_imported import onnx_file

from .conftest import governed

pytestmark = pytest.mark.slow


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[ObjectStorage]:
    with object_storage(tmp_path / "storage") as running:
        yield running


def pin(storage: ObjectStorage, key: str, *words: str) -> "subprocess.CompletedProcess[str]":
    uri = f"s3://{storage.objects.name}/{key}"
    command = [sys.executable, "-m", "governed_serving.sources", "pin", uri, "--endpoint", storage.url, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_objects_of_a_real_storage_are_pinned(storage: ObjectStorage, tmp_path: Path) -> None:
    folder = storage.objects / "churn"
    (folder / "conf").mkdir(parents=True)
    digest = onnx_file(folder / "model.onnx")
    (folder / "conf" / "big.bin").write_bytes(bytes(3 << 20))
    keys = ("--keys", str(storage.keys))
    one = pin(storage, "churn/model.onnx", *keys)
    assert (one.returncode, digest in one.stdout) == (0, True), one.stderr
    whole = pin(storage, "churn", *keys)
    assert "2 files, " in whole.stdout, whole.stderr
    assert "conf/big.bin" in whole.stdout
    refused = pin(storage, "churn/model.onnx")
    assert refused.returncode == 1
    assert "give no right to it" in refused.stderr
    missing = pin(storage, "other/model.onnx", *keys)
    assert "found none" in missing.stderr
    assert list(tmp_path.glob("governed-pin-*")) == []


def test_a_model_in_a_real_storage_is_served_and_one_changed_byte_is_not(
    storage: ObjectStorage, tmp_path: Path
) -> None:
    (storage.objects / "churn").mkdir()
    stored = storage.objects / "churn" / "model.onnx"
    model = {
        "storageUri": f"s3://{storage.objects.name}/churn/model.onnx",
        "digest": onnx_file(stored),
        "storage": {"secretRef": {"name": "reader"}, "endpoint": storage.url},
    }
    manifest = {
        "apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "churn"},
        "spec": {"predictor": {"model": model}},
    }  # fmt: skip
    path = tmp_path / "churn.yaml"
    path.write_text(yaml.safe_dump(manifest))
    (tmp_path / "churn.requests.json").write_text('{"instances": [{"a": 1.0, "b": 2.0}]}')
    work = tmp_path / "work"
    reader = work / "secrets" / "reader"
    reader.mkdir(parents=True)
    for key in storage.keys.iterdir():
        (reader / key.name).write_text(key.read_text())
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    changed = governed("run", str(path), "--once", "--workdir", str(work), "--port-offset", str(free_offset()))
    assert "churn/model.onnx: expected digest sha256:" in " ".join((changed.stderr + changed.stdout).split())
    data[-1] ^= 1
    stored.write_bytes(data)
    served = governed("run", str(path), "--once", "--workdir", str(work), "--port-offset", str(free_offset()))
    assert served.returncode == 0, served.stdout + served.stderr
    assert "imported in" in served.stdout + served.stderr
