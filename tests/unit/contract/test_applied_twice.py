"""What Git tools apply again stays: an empty object must hold no list that is a map or a set with a default.

The API server's server-side apply takes ``masking: {}`` away with the empty default list inside it, when the same
manifest is applied a second time (seen on Kubernetes 1.37).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CRDS = Path(__file__).parents[3] / "crds"
HARMLESS = {"spec.predictor.model.storage": "without an entry it says nothing"}


def lost(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, list[str]]]:
    """(path, lists) of objects below ``schema`` that may be written as {} and have no default that brings them back."""
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        fields = inner.get("properties", {})
        lists = [n for n, f in fields.items() if f.get("x-kubernetes-list-type") in ("map", "set") and "default" in f]
        if lists and "required" not in inner and "default" not in inner:
            yield here, lists
        yield from lost(inner, here)
    if "items" in schema:
        yield from lost(schema["items"], f"{path}[]")


def schema_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CRDS / name).read_text())["spec"]["versions"][0]["schema"]
    return {"properties": {"spec": found["openAPIV3Schema"]["properties"]["spec"]}}


@pytest.mark.parametrize(
    "name",
    ["governedmodels.yaml", "modelconsumers.yaml", "governancepolicies.yaml", "clustergovernancepolicies.yaml"],
)
def test_nothing_empty_is_taken_away_when_it_is_applied_again(name: str) -> None:
    found = {path: lists for path, lists in lost(schema_of(name)) if path not in HARMLESS and path != "spec"}
    assert found == {}, "make these lists atomic, and let a rule tell their names apart"


def test_what_was_taken_away_is_seen() -> None:
    listed = {"type": "array", "x-kubernetes-list-type": "map", "default": []}
    planted = {"properties": {"masking": {"type": "object", "properties": {"custom": listed}}}}
    assert list(lost({"properties": {"spec": planted}})) == [("spec.masking", ["custom"])]
    assert next(lost(schema_of("governedmodels.yaml")))[0] in HARMLESS
