"""Graphs whose shapes requests choose: in, out, and into the journal, and nothing of it merged."""

import asyncio
import json
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from governed_serving.formats import Declared
from governed_serving.importer import tried
from governed_serving.journal.columns import TENSOR_BYTES, numbers, strings
from governed_serving.records import Frame, PredictionFrame, decode_frame, encode_frame
from governed_serving.server.admission import Admission
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.errors import InvalidRequest, ServerError
from governed_serving.server.identity import Identity
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline, Stages
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.signature import Signature
from unit.importer.graphs import identity, recurrent


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    async def append(self, record: Frame) -> None:
        self.frames.append(decode_frame(encode_frame(record)))


class Service:
    """A graph behind codec and data plane, journalled."""

    def __init__(self, data: bytes) -> None:
        signature = Signature.of_graph(tried(data, Declared()).graph)
        self.journal, metrics = Kept(), ServerMetrics("default", "m")
        stages = Stages(journal=self.journal)
        path = Pipeline(Identity("m", "default", "r"), Admission(lambda: "", metrics), PathRules(), stages)
        self.plane = DataPlane(path, OnnxPredictor(data, signature))
        self.codec = V2Codec(signature, "m", "r")

    async def ask(self, *tensors: dict[str, Any], **body: Any) -> dict[str, Any]:
        request, form = self.codec.decode(json.dumps({"inputs": tensors, **body}).encode())
        encoded = self.codec.encode(await self.plane.infer(request), form)
        assert encoded.header == 0
        answer: dict[str, Any] = json.loads(encoded.body)
        return {output["name"]: output for output in answer["outputs"]}

    def frame(self) -> PredictionFrame:
        frame = self.journal.frames[-1]
        assert isinstance(frame, PredictionFrame)
        return frame


def floats(shape: list[int], name: str = "x", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": shape, "data": [0.5] * int(np.prod(shape)), **more}


async def test_shapes_come_back_as_they_went_in() -> None:
    service = Service(identity([None, 3, None]))
    for shape in ([1, 3, 2], [4, 3, 1], [2, 3, 7]):
        answer = await service.ask(floats(shape))
        assert answer["y"]["shape"] == shape
        column = service.frame().features["x"]
        assert (column.shape, column.width) == (shape, int(np.prod(shape)))
        assert numbers(column).tolist() == [[0.5] * column.width]


async def test_a_state_goes_round() -> None:
    service = Service(recurrent())
    state = floats([2, 1, 8], "state")
    rate = {"name": "sr", "datatype": "INT64", "shape": [], "data": [16000]}
    for _ in range(3):
        answer = await service.ask(floats([1, 5], "input"), state, rate)
        assert answer["stateN"]["shape"] == [2, 1, 8]
        state = {**answer["stateN"], "name": "state"}
    again = await service.ask(floats([1, 5], "input"), state, {**rate, "shape": [1]})
    assert again["output"]["data"] == answer["output"]["data"]


async def test_nested_data_in_another_order_is_the_same_request() -> None:
    service = Service(recurrent())
    rate = {"name": "sr", "datatype": "INT64", "shape": [1], "data": [16000]}
    plain = await service.ask(floats([1, 4], "input"), floats([2, 1, 8], "state"), rate)
    nested = floats([1, 4], "input", data=[[0.5] * 4])
    assert await service.ask(rate, floats([2, 1, 8], "state"), nested) == plain


async def test_requests_that_come_together_are_calls_of_their_own() -> None:
    service = Service(identity([None, None, 2]))
    answers = await asyncio.gather(*(service.ask(floats([1, size, 2])) for size in range(1, 7)))
    assert [answer["y"]["shape"] for answer in answers] == [[1, size, 2] for size in range(1, 7)]
    assert [frame.ids for frame in service.journal.frames if isinstance(frame, PredictionFrame)] == [
        frame.ids[:1] for frame in service.journal.frames if isinstance(frame, PredictionFrame)
    ]
    assert len(service.journal.frames) == 6


async def test_a_large_tensor_is_kept_as_its_digest() -> None:
    service = Service(identity([None, None]))
    size = TENSOR_BYTES // 4
    await service.ask(floats([1, size]))
    assert service.frame().features["x"].sha256 == ""
    await service.ask(floats([1, size + 1]))
    column = service.frame().outputs["y"]
    assert (column.data, column.shape) == (b"", [1, size + 1])
    assert column.sha256 == sha256(np.full(size + 1, 0.5, "<f4").tobytes()).hexdigest()


async def test_texts_of_any_shape() -> None:
    service = Service(identity([None, None], TensorProto.STRING))
    text = {"name": "x", "datatype": "BYTES", "shape": [2, 2], "data": ["a", "", "ü", "a"]}
    assert (await service.ask(text))["y"]["data"] == ["a", "", "ü", "a"]
    assert strings(service.frame().features["x"]).tolist() == [["a", "", "ü", "a"]]
    long = "x" * TENSOR_BYTES
    await service.ask({**text, "shape": [1, 1], "data": [long]})
    expected = sha256(len(long).to_bytes(4, "little") + long.encode()).hexdigest()
    assert service.frame().features["x"].sha256 == expected


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (floats([1, 4, 2]), r"input 'x': expected shape \[any, 3, any\], found \[1, 4, 2\]"),
        (floats([1, 3]), r"expected shape \[any, 3, any\], found \[1, 3\]"),
        (floats([0, 3, 2]), r"expected shape \[any, 3, any\] without a dimension of 0, found \[0, 3, 2\]"),
        (floats([1, 3, 2], data=[0.5]), r"expected 6 values for shape \[1, 3, 2\], found 1"),
        (floats([1, 3, 1], data=[0.5, None, 0.5]), "expected finite numbers in row 0, found NaN or infinity"),
        (floats([1, 3, 1], data=[0.5, 1e39, 0.5]), "expected finite numbers in row 0, found NaN or infinity"),
        (floats([1, 3, 1], data=["a", "b", "c"]), "expected FP32 numbers, found a string at index 0"),
        (floats([1, 3, 1], datatype="BYTES"), r"expected datatype FP32 \(numbers\), found BYTES"),
        (floats([1, 3, 1], "z"), "input 'z': expected one of x"),
        ({**floats([1, 3, 1]), "shape": [2**20, 3, 2**20]}, "binary_data_size|values|dimensions"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(tensor: dict[str, Any], message: str) -> None:
    service = Service(identity([None, 3, None]))
    with pytest.raises(InvalidRequest, match=message):
        await service.ask(tensor)


async def test_a_graph_that_fails_answers_one_sentence() -> None:
    service = Service(recurrent())
    rate = {"name": "sr", "datatype": "INT64", "shape": [], "data": [1]}
    with pytest.raises(ServerError) as raised:
        await service.ask(floats([3, 4], "input"), floats([2, 2, 8], "state"), rate)
    assert "\n" not in str(raised.value)
    assert service.journal.frames == []


def test_metadata_shows_the_graphs_own_shapes() -> None:
    signature = Signature.of_graph(tried(recurrent(), Declared()).graph)
    assert [signature.shape_of(spec) for spec in signature.inputs] == [[-1, -1], [2, -1, 8], []]
