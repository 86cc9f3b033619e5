"""The generated CRDs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from governed_api import schema

CRDS = Path(__file__).parents[3] / "crds"


def nodes(node: Any, path: str = "") -> Any:
    if isinstance(node, dict):
        yield path, node
        for key in ("properties",):
            for name, sub in node.get(key, {}).items():
                yield from nodes(sub, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                yield from nodes(node[key], f"{path}[]")


def test_files_are_up_to_date() -> None:
    assert schema.check(CRDS) == []


def test_check_names_a_stale_file(tmp_path: Path) -> None:
    schema.write(tmp_path)
    stale = tmp_path / "governedmodels.yaml"
    stale.write_text(stale.read_text() + "# edited\n")
    assert schema.check(tmp_path) == ["governedmodels.yaml"]


@pytest.mark.parametrize("document", schema.crd_documents(), ids=lambda d: d["spec"]["names"]["kind"])
def test_size_allows_client_side_apply(document: dict[str, Any]) -> None:
    assert len(schema.to_yaml(document)) < 256 * 1024


@pytest.mark.parametrize("document", schema.crd_documents(), ids=lambda d: d["spec"]["names"]["kind"])
def test_every_field_has_a_type_and_every_spec_field_a_description(document: dict[str, Any]) -> None:
    root = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in nodes(root):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        leaf = path.endswith(("[]", ".conditions"))
        if path.startswith(".spec.") and not leaf and "[]" not in path:
            assert node.get("description"), f"{path} lacks a description"


def test_yaml_round_trip() -> None:
    for document in schema.crd_documents():
        assert yaml.safe_load(schema.to_yaml(document)) == document
