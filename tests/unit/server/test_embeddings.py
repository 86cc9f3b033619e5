"""OpenAI's embeddings over a folder with a tokenizer: the same vectors, masked, counted and recorded as any answer."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from governed_api.governance import Limit, Masking, Quota
from governed_serving.journal import strings
from governed_serving.privacy import Finding
from governed_serving.privacy.ruled import RuledFinder
from governed_serving.server.quota import LocalQuota
from support.text_models import embedder, folder
from unit.server.planes import MemoryJournal
from unit.server.test_http import client, gateway
from unit.server.test_texts import bare, served

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedder(tmp_path_factory.mktemp("embeddings") / "m")


@pytest.fixture
async def http(vectors: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client(gateway(using=served(vectors), journal=MemoryJournal())) as made:
        yield made


async def test_vectors_are_those_of_bare_onnx_runtime(vectors: Path, http: httpx.AsyncClient) -> None:
    texts = ["good", "the film was not very good", ""]
    answer = (await http.post(PATH, json={"model": "credit", "input": texts})).json()
    assert answer["object"] == "list"
    assert answer["model"] == "credit"
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    for one, text in zip(answer["data"], texts, strict=True):
        mean = bare(vectors, text).mean(0)
        np.testing.assert_allclose(one["embedding"], mean / np.linalg.norm(mean), atol=1e-5)
    assert answer["usage"] == {"prompt_tokens": 3 + 8 + 2, "total_tokens": 13}


async def test_one_string_and_base64(http: httpx.AsyncClient) -> None:
    plain = (await http.post(PATH, json={"input": "good"})).json()["data"]
    packed = (await http.post(PATH, json={"input": "good", "encoding_format": "base64"})).json()["data"]
    assert len(plain) == len(packed) == 1
    found = np.frombuffer(base64.b64decode(packed[0]["embedding"]), "<f4")
    np.testing.assert_array_equal(found, np.array(plain[0]["embedding"], np.float32))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"input": []}, 400, "1 to 2048 strings, found 0"),
        ({"input": ["a"] * 2049}, 400, "found 2049"),
        ({"input": [1, 2]}, 400, "token ids can't be masked"),
        ({"input": [[1]]}, 400, "input[0]: expected a string, found list"),
        ({"input": None}, 400, "expected a string"),
        ({}, 400, "expected a string"),
        ({"input": {"a": 1}}, 400, "found dict"),
        ({"input": "a", "model": "other"}, 404, "expected 'credit'"),
        ({"input": "a", "model": ["x"]}, 404, "expected 'credit'"),
        ({"input": "a", "dimensions": 4}, 400, "dimensions: expected 32"),
        ({"input": "a", "encoding_format": "int8"}, 400, "expected float or base64"),
        ({"input": "a", "encoding_format": ["float"]}, 400, "expected float or base64"),
        ({"input": "a" * 5000}, 400, "at most 4096 characters"),
    ],
)
async def test_what_is_no_request_for_embeddings(
    http: httpx.AsyncClient, body: dict[str, Any], status: int, words: str
) -> None:
    answer = await http.post(PATH, json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


async def test_a_lone_surrogate_is_no_text(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, content=b'{"input": "\\ud800"}')
    assert answer.status_code == 400


async def test_a_model_of_columns_gives_none() -> None:
    async with client(gateway()) as made:
        answer = await made.post(PATH, json={"input": "a"})
    assert answer.status_code == 404
    assert "another kind" in answer.json()["error"]["message"]


async def test_a_classifier_gives_none(tmp_path: Path) -> None:
    async with client(gateway(using=served(folder(tmp_path / "m")))) as made:
        assert (await made.post(PATH, json={"input": "a"})).status_code == 404


async def test_a_quota_counts_the_tokens_that_were_read(vectors: Path) -> None:
    """Twelve words are admitted; they are 32 tokens, which leave no room for nine more."""
    made = gateway(using=served(vectors), quota=LocalQuota(Quota(tokens=[Limit(limit=40, window="1h")]), "k"))
    async with client(made) as http:
        first = await http.post(PATH, json={"input": "xyzxyzxyzxy " * 12})
        assert first.json()["usage"]["total_tokens"] == 32
        second = await http.post(PATH, json={"input": "good " * 9})
    assert second.status_code == 429, second.text
    assert made.service is not None
    assert made.service.plane.metrics.count["tokens"] == 32


async def test_the_record_has_vectors_and_counts(vectors: Path) -> None:
    journal = MemoryJournal()
    async with client(gateway(using=served(vectors), journal=journal)) as http:
        answer = await http.post(PATH, json={"input": "good"})
    (frame,) = journal.frames
    assert frame.ids == [answer.headers["x-prediction-id"]]
    assert set(frame.outputs) == {"embedding", "tokens", "truncated"}


@pytest.mark.parametrize("form", ["string", "list"])
async def test_inputs_are_masked_before_they_are_tokenised_and_recorded(vectors: Path, form: str) -> None:
    """The vector is that of the masked text, to the bit, and nothing else of it is anywhere."""
    find = RuledFinder(Masking.model_validate({"deny": ["Falcon"]})).find
    journal, texts = MemoryJournal(), ["call 13800138000 ａ@example.com falcon", "the film was good"]
    masked = ["call <PHONE_NUMBER> <EMAIL> <DENIED>", "the film was good"]
    given = texts[0] if form == "string" else texts
    async with client(gateway(using=served(vectors), journal=journal, text=True, masker=find)) as http:
        answer = (await http.post(PATH, json={"input": given})).json()["data"]
        expected = (await http.post(PATH, json={"input": masked[: len(answer)]})).json()["data"]
    assert answer == expected
    assert strings(journal.frames[0].features["text"]).tolist() == masked[: len(answer)]


async def test_an_input_that_cannot_be_masked_is_refused_and_not_quoted(vectors: Path) -> None:
    def fails(_: str) -> list[Finding]:
        raise RuntimeError("13800138000")

    journal = MemoryJournal()
    async with client(gateway(using=served(vectors), journal=journal, text=True, masker=fails)) as http:
        answer = await http.post(PATH, json={"input": "call 13800138000"})
    assert answer.status_code >= 500
    assert "13800138000" not in answer.text
    assert journal.frames == []
