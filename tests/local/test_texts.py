"""Texts that others' models read, as a person brings them: real sentence embeddings, and a classifier of one layer."""

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
import yaml
from numpy.typing import NDArray
from tokenizers import Tokenizer

from support.minilm import minilm
from support.text_models import folder
from support.waiting import eventually

from .conftest import Served, governed, in_ledger, start

E_MAIL = "ming.li@example.com"
SENTENCES = ["A man is eating food.", "Someone eats a meal.", "The stock market fell.", "今天天气很好"]


def brought(place: Path, made: Path, name: str, **governance: Any) -> Served:
    """What `governed init` writes for ``place``, with ``governance``, served."""
    path = made / "model.yaml"
    assert governed("init", place, "-o", path).returncode == 0
    manifest = yaml.safe_load(path.read_text())
    assert manifest["metadata"]["name"] == name
    manifest["spec"] |= governance
    path.write_text(yaml.safe_dump(manifest))
    return start(path, made / "work", made / "log", name)


def ended(served: Served) -> None:
    if served.process.poll() is None:
        assert served.stop() == 0


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    masking = {"privacy": {"masking": {"entities": ["EMAIL"], "action": "Replace"}}}
    served = brought(minilm(), tmp_path_factory.mktemp("vectors"), "all-minilm-l6-v2", governance=masking)
    yield served
    ended(served)


def reference(text: str) -> NDArray[np.float32]:
    """Mean of the last hidden state, of length 1: as sentence-transformers computes it, by ONNX Runtime alone."""
    words = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    words.no_padding()
    words.enable_truncation(256)
    encoded = words.encode(text)
    session = ort.InferenceSession(minilm() / "model.onnx", providers=["CPUExecutionProvider"])
    given = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    (hidden,) = session.run(None, {name: np.array([row], np.int64) for name, row in given.items()})
    mean = hidden[0].mean(axis=0, dtype=np.float64)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def embedded(served: Served, texts: list[str], **more: Any) -> dict[str, Any]:
    url = served.url.split("/v2/")[0] + "/v1/embeddings"
    answer = httpx.post(url, json={"model": served.name, "input": texts, **more}, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_embeddings_are_those_of_the_bare_graph_and_mean_something(vectors: Served) -> None:
    body = embedded(vectors, SENTENCES)
    assert [one["index"] for one in body["data"]] == [0, 1, 2, 3]
    rows = np.array([one["embedding"] for one in body["data"]], np.float32)
    for text, row in zip(SENTENCES, rows, strict=True):
        np.testing.assert_allclose(row, reference(text), atol=1e-6)
    alike = rows @ rows.T
    assert alike[0, 1] > 0.6 > 0.2 > alike[0, 2]
    packed = embedded(vectors, SENTENCES, encoding_format="base64")["data"]
    unpacked = np.array([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in packed])
    np.testing.assert_array_equal(unpacked, rows)


def test_a_text_is_masked_before_the_model_reads_it(vectors: Served) -> None:
    """The vector is that of the masked text, and no file of the run holds what was masked."""
    url = vectors.url.split("/v2/")[0] + "/v1/embeddings"
    answer = httpx.post(url, json={"input": f"Write to {E_MAIL} today."}, timeout=120, trust_env=False)
    body, name = answer.json(), answer.headers["x-prediction-id"]
    row = np.array(body["data"][0]["embedding"], np.float32)
    assert np.abs(row - reference(f"Write to {E_MAIL} today.")).max() > 1e-3
    np.testing.assert_allclose(row, reference("Write to <EMAIL> today."), atol=1e-6)
    eventually(lambda: name in in_ledger(vectors), within=60, what="the prediction is in the ledger")
    found = subprocess.run(["grep", "-rlF", E_MAIL, vectors.workdir], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_what_is_no_text_is_answered_in_the_protocols_form(vectors: Served) -> None:
    url = vectors.url.split("/v2/")[0] + "/v1/embeddings"
    for wrong in ([], [1, [2]], None, {"a": 1}, ["a"] * 2049, [None], True, 7):
        answer = httpx.post(url, json={"model": vectors.name, "input": wrong}, timeout=60, trust_env=False)
        assert answer.status_code == 400, (wrong, answer.text)
        assert answer.json()["error"]["message"]


REVIEW = "the film was not very good"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = tmp_path_factory.mktemp("reviews")
    bias = {
        "protectedAttributes": [{"name": "sex", "privileged": ["m"]}],
        "favorableOutcome": {"label": "good"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.2, "thresholdUpper": 0.2}],
    }
    served = brought(folder(made / "Reviews2"), made, "reviews2", explainer={"type": "shap"}, governance={"bias": bias})
    yield served
    ended(served)


def test_a_class_is_answered_explained_by_words_and_audited(reviews: Served) -> None:
    url = reviews.url.split("/v2/")[0]
    answered = governed("infer", reviews.name, f"text={REVIEW}", "sex=f", "--url", url)
    assert re.search(r"label +(bad|good|so so)", answered.stdout), answered.stdout + answered.stderr
    explained = governed("explain", reviews.name, f"text={REVIEW}", "sex=f", "--url", url)
    assert explained.returncode == 0, explained.stderr
    rows = explained.stdout.splitlines()[:6]
    assert {row.split()[0] for row in rows} == set(REVIEW.split())
    (request,) = re.findall(r"request (\S+)", answered.stdout)

    def counted() -> bool:
        verdict = httpx.get(f"{reviews.auditor}/v1/verdict", timeout=30, trust_env=False)
        return verdict.status_code == 200 and verdict.json()["samples"] >= 1

    eventually(counted, within=60, what="the auditor has counted the text")
    assert reviews.stop() == 0
    proved = governed("verify", reviews.workdir, "--id", request)
    assert proved.returncode == 0, proved.stdout
