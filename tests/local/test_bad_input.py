"""Bad input gets one line that names the field, what was found and what was expected; nothing is left half-started."""

import copy
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.model_ports import free_offset

from .conftest import SAMPLES, governed

Manifest = dict[str, Any]


def admissions() -> Manifest:
    manifest: Manifest = yaml.safe_load((SAMPLES / "admissions.yaml").read_text())
    return manifest


def data(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["lifecycle"]["training"]["data"]
    return found


def run(manifest: Manifest, folder: Path) -> tuple[int, str]:
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(manifest))
    shutil.copy(SAMPLES / "admissions.requests.json", folder)
    done = governed("run", path, "--once", "--workdir", folder / "work", "--port-offset", str(free_offset()))
    return done.returncode, done.stdout + done.stderr


def missing_file(manifest: Manifest) -> None:
    data(manifest).pop("inline")
    data(manifest)["uri"] = "file:nowhere.csv"


CASES: dict[str, tuple[Callable[[Manifest], Any], list[str]]] = {
    "unknown field": (lambda m: m["spec"].update(colour=1), ['unknown field "spec.colour"']),
    "missing data file": (missing_file, ["spec.lifecycle.training.data.uri", "nowhere.csv"]),
    "empty data": (
        lambda m: data(m).update(inline="department,sex,decision,applicants\n"),
        ["spec.lifecycle.training.data"],
    ),
    "single class": (
        lambda m: data(m).update(
            inline="department,sex,decision,applicants\nA,male,admitted,50\nA,female,admitted,60\n"
        ),
        ["decision", "admitted"],
    ),
    "protected attribute that isn't a column": (
        lambda m: m["spec"]["governance"]["bias"]["protectedAttributes"].append({"name": "religion"}),
        ["religion", "protectedAttributes"],
    ),
    "label that isn't a column": (
        lambda m: data(m).update(label="outcome"),
        ["spec.lifecycle.training.data.label", "outcome"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_manifest_that_cannot_run(name: str, tmp_path: Path) -> None:
    change, words = CASES[name]
    manifest = copy.deepcopy(admissions())
    change(manifest)
    code, said = run(manifest, tmp_path)
    assert code != 0
    for word in words:
        assert word in said, said
    assert "Traceback" not in said
    assert not (tmp_path / "work" / "run.json").exists()


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    offset = free_offset()
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(admissions()))
    shutil.copy(SAMPLES / "admissions.requests.json", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 8080 + offset))
        taken.listen()
        done = governed("run", path, "--once", "--workdir", tmp_path / "work", "--port-offset", str(offset))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert str(8080 + offset) in said
    assert not (tmp_path / "work" / "reports" / "admissions.json").exists() or "trainer" not in json.loads(
        (tmp_path / "work" / "reports" / "admissions.json").read_text()
    ).get("status", {})


def test_a_lost_key_is_named(tmp_path: Path) -> None:
    code, said = run(admissions(), tmp_path)
    assert code == 0, said
    for key in (tmp_path / "work" / "secrets").glob("admissions-kek/*"):
        key.unlink()
    code, said = run(admissions(), tmp_path)
    assert code != 0
    assert "kek" in said
    assert "Traceback" not in said
