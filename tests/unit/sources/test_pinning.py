"""What `governed pin` prints can be put into a manifest."""

import sys

import pytest
import yaml

from governed_api.validation import validate
from governed_serving.sources.__main__ import main

from .servers import Answer, Bed, sha256
from .test_hubs import FILES, repository


def pinned(patch: pytest.MonkeyPatch, *words: str) -> int:
    patch.setattr(sys, "argv", ["sources", "pin", *words])
    return main()


def test_a_folder_with_the_digest_of_each_file(
    server: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository(server)
    assert pinned(monkeypatch, "hf://org/name@main", "--endpoint", server.url) == 0
    lines, _, snippet = capsys.readouterr().out.partition("in a manifest:\n")
    for path, data in FILES.items():
        assert f"sha256:{sha256(data)} {len(data):>12} {path}" in lines
    model = yaml.safe_load(snippet)
    assert {f["path"] for f in model["storage"]["files"]} == FILES.keys()
    manifest = {
        "apiVersion": "governedmodels.io/v1alpha1", "kind": "GovernedModel", "metadata": {"name": "m"},
        "spec": {"predictor": {"model": model}},
    }  # fmt: skip
    assert validate(manifest) == []


def test_what_cannot_be_fetched_is_one_line(
    server: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = server.at("/m.onnx", Answer(status=404))
    assert pinned(monkeypatch, uri) == 1
    assert pinned(monkeypatch, uri, "--size", "much") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {uri}: 404")
    assert "quantity" in second
