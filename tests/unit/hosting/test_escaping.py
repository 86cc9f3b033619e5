"""What a model raises that is no Exception: its request is answered, its neighbours and the next ones as ever."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from governed_serving.server.dataplane import DataPlane
from governed_serving.server.errors import PredictionFailed, ServerError, Unavailable
from governed_serving.server.messages import InferResponse
from governed_serving.server.predictors.onnx import segmented
from unit.server.planes import MemoryJournal, plane, predictor
from unit.server.test_dataplane import request

_GIVES_UP = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {
        "type": "Split",
        "pattern": {"Regex": "^(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    },
    "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
}


def panic() -> None:
    """Of a library in Rust, as it comes: a regular expression that gives up."""
    Tokenizer.from_str(json.dumps(_GIVES_UP)).encode_batch(["a" * 40 + "!"])


def raising(error: BaseException) -> Callable[[], None]:
    def raise_() -> None:
        raise error

    return raise_


ESCAPES: dict[str, Callable[[], None]] = {
    "panic": panic,
    "SystemExit": raising(SystemExit(0)),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "CancelledError": raising(asyncio.CancelledError()),
    "StopIteration": raising(StopIteration(1)),
    "StopAsyncIteration": raising(StopAsyncIteration()),
    "BaseExceptionGroup": raising(BaseExceptionGroup("several", [SystemExit(1)])),
    "own": raising(type("Own", (BaseException,), {})("mine")),
    "MemoryError": raising(MemoryError()),
}


def escaping(escape: Callable[[], None]) -> Callable[[NDArray[np.generic], str], NDArray[np.generic]]:
    """Prepares texts as ever, and does ``escape`` for one that says boo."""

    def prepared(column: NDArray[np.generic], segmentation: str) -> NDArray[np.generic]:
        if any("boo" in text for text in column.ravel().tolist()):
            escape()
        return segmented(column, segmentation)

    return prepared


async def answered(data: DataPlane, **asked: Any) -> InferResponse | ServerError:
    try:
        return await asyncio.wait_for(data.infer(request(**asked)), 60)
    except ServerError as error:
        return error


@pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "in the thread"])
async def test_whatever_a_predictor_raises_costs_its_request_alone(inline: bool) -> None:
    escape: list[Callable[[], None]] = []
    compute = predictor(text=True, segmented=escaping(lambda: escape[0]()))
    data = plane(text=True, using=compute, journal=MemoryJournal())
    compute._cost.expected = lambda _: 0.0 if inline else 1.0  # type: ignore[method-assign]
    for kind, raised in ESCAPES.items():
        escape[:] = [raised]
        all_ = await asyncio.gather(*(answered(data, text=text) for text in ("good", "boo", "fine")))
        assert [type(answer) for answer in all_] == [InferResponse, PredictionFailed, InferResponse], kind
        assert isinstance(await answered(data, text="boo"), PredictionFailed), kind
        assert isinstance(await answered(data, text="good"), InferResponse), kind
        assert (data._lane.idle, len(data.pipeline._open)) == (True, 0), kind
    await asyncio.wait_for(data.close(), 60)


async def test_what_escapes_behind_the_prediction_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data = plane(journal=MemoryJournal())
    for kind, escape in ESCAPES.items():
        with monkeypatch.context() as patched:
            patched.setattr(data, "_reply", lambda *_, escape=escape: escape())
            assert isinstance(await answered(data), Unavailable), kind
        assert isinstance(await answered(data), InferResponse), kind
    await asyncio.wait_for(data.close(), 60)


async def test_what_escapes_from_admission_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The item isn't open yet: no deadline would ever answer it."""
    data = plane(journal=MemoryJournal())
    data.pipeline.immediate = False
    for kind, escape in ESCAPES.items():

        async def admit(_: Any, escape: Callable[[], None] = escape) -> None:
            escape()

        with monkeypatch.context() as patched:
            patched.setattr(data.pipeline, "admit_shared", admit)
            assert isinstance(await answered(data), Unavailable), kind
        assert isinstance(await answered(data), InferResponse), kind
    await asyncio.wait_for(data.close(), 60)
