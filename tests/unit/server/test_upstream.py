"""A foreign V2 runtime below the same governance."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from governed_serving.journal import strings
from governed_serving.server.errors import InvalidRequest, UpstreamFailed
from governed_serving.server.messages import InferRequest
from governed_serving.server.predictors.upstream import UpstreamPredictor, signature_of
from unit.server.planes import MemoryJournal, plane

METADATA = {
    "name": "m",
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "t", "datatype": "BYTES", "shape": [-1, 1]},
    ],
    "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
}


def runtime(request: httpx.Request) -> httpx.Response:
    if request.method == "GET":
        return httpx.Response(200, json=METADATA)
    inputs = {t["name"]: t for t in json.loads(request.content)["inputs"]}
    if "refuse" in inputs["t"]["data"]:
        return httpx.Response(400, json={"error": "refused"})
    if "crash" in inputs["t"]["data"]:
        return httpx.Response(500, text="oops")
    if "nonsense" in inputs["t"]["data"]:
        return httpx.Response(200, json={"outputs": []})
    sums = np.reshape(inputs["x"]["data"], inputs["x"]["shape"]).sum(axis=1) + [len(t) for t in inputs["t"]["data"]]
    return httpx.Response(
        200, json={"outputs": [{"name": "y", "shape": [len(sums)], "datatype": "FP64", "data": sums.tolist()}]}
    )


async def connected() -> UpstreamPredictor:
    return await UpstreamPredictor.connect("http://runtime", "m", patience=5, transport=httpx.MockTransport(runtime))


def request(text: str) -> InferRequest:
    return InferRequest("a", 2, [[1.0, 2.0, 3.0, 4.0], [text, ""]])


async def test_governed_like_our_own() -> None:
    journal = MemoryJournal()
    data = plane(using=await connected(), text=True, journal=journal)
    response = await data.infer(request("secret"))
    assert response.outputs[0].values == [3.0 + len("<MASKED>"), 7.0]
    assert strings(journal.frames[0].features["t"]).tolist() == ["<MASKED>", ""]
    assert journal.frames[0].features["x"].width == 2
    await data.close()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("refuse", InvalidRequest, "runtime: refused"),
        ("crash", UpstreamFailed, "found status 500: oops"),
        ("nonsense", UpstreamFailed, "expected a V2 answer with"),
    ],
)
async def test_its_failures_are_told_apart(text: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        await plane(using=await connected()).infer(request(text))


async def test_away_is_said() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UpstreamFailed, match="it may still be starting"):
        await UpstreamPredictor.connect("http://runtime", "m", patience=5, transport=httpx.MockTransport(away))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": []}, "expected inputs and outputs"),
        ({"inputs": [{"name": "x", "datatype": "FP8", "shape": [-1]}]}, "'x': expected a V2 datatype"),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}]}, "'y': expected only the first dimension"),
    ],
)
def test_metadata_that_cant_be_governed(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        signature_of(METADATA | change)
