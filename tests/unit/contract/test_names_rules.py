"""masking.names in a manifest: what is refused, and in which words."""

from typing import Any

import pytest

from governed_api.validation import validate

OPENAI = {"runtime": {"image": "r/llm:1", "port": 9000, "protocol": "openai"}, "modelFormat": {"name": "runtime"}}
FILE = {"storageUri": "file:m.onnx", "digest": "sha256:" + "0" * 64}


def findings(masking: dict[str, Any], model: dict[str, Any]) -> list[str]:
    spec = {"predictor": {"model": model}, "governance": {"privacy": {"masking": masking}}}
    resource = {"apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "names"}}
    return validate(resource | {"spec": spec})


@pytest.mark.parametrize(
    ("masking", "model", "why"),
    [
        ({"names": {}, "threshold": 0.8}, FILE, "names are found with score 0.75"),
        ({"names": {"budget": "61s"}}, FILE, "budget"),
        ({"names": {"budget": "1m"}}, FILE, "budget"),
        ({"names": {"budget": "0s"}}, FILE, "budget"),
        ({"names": {"entities": []}}, FILE, "entities"),
        ({"names": {"entities": ["EMAIL"]}}, FILE, "entities"),
        ({"names": {"model": "other"}}, FILE, "model"),
        ({"custom": [{"name": "PLACE", "pattern": "x{2}"}]}, FILE, "choose another"),
    ],
)
def test_what_cannot_be_done_is_refused(masking: dict[str, Any], model: dict[str, Any], why: str) -> None:
    assert [line for line in findings(masking, model) if why in line], findings(masking, model)


@pytest.mark.parametrize(
    ("masking", "model"),
    [
        ({"names": {}}, FILE),
        ({"names": {}, "direction": "Both"}, FILE),
        ({"names": {"budget": "60s", "entities": ["PLACE"], "model": "lac"}, "threshold": 0.75}, FILE),
        ({"names": {}, "direction": "Request"}, OPENAI),
        ({"names": {}}, OPENAI),
        ({}, OPENAI),
    ],
)
def test_what_can_be_done_is_taken(masking: dict[str, Any], model: dict[str, Any]) -> None:
    assert findings(masking, model) == []
