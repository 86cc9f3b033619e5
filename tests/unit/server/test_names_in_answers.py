"""Names in answers: whole and streamed, off the event loop, closed when the model can't say."""

import asyncio
import threading
from collections.abc import Sequence

import httpx
import pytest

from governed_api.governance import Masking as Rules
from governed_serving.privacy import Masker, masker
from governed_serving.privacy.names import NameFinder
from governed_serving.privacy.names.tagged import Run, Tag
from governed_serving.server.chat.events import DONE
from governed_serving.server.errors import MaskingFailed
from unit.server.conversations import Pieces, World, chunk, read
from unit.server.test_answers import events, recorded, told

NAMES = masker(Rules.model_validate({"names": {"budget": "60s"}}))


def answering(content: str, act: Masker = NAMES) -> World:
    body = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}
    return World(lambda _: httpx.Response(200, json=body), masker=act)


def streaming(pieces: Sequence[str], act: Masker = NAMES) -> World:
    sent = [chunk(piece) for piece in pieces]
    return World(lambda _: httpx.Response(200, stream=Pieces([*sent, DONE])), masker=act)


async def test_a_whole_answer_and_its_prompt() -> None:
    world = answering("联系人是欧阳修。")
    answer = await world.chat("我叫张三，你好")
    assert "联系人是<PERSON>。" in answer.body.decode()
    assert world.seen[0]["messages"][0]["content"] == "我叫<PERSON>，你好"
    said, masked = recorded(world)
    assert said == "联系人是<PERSON>。"
    assert masked["request"] == {"messages[0].content": {"PERSON": 1}}
    assert masked["answer"] == {"choices[0].message.content": {"PERSON": 1}}
    assert world.metrics.count["masking_failures"] == 0


async def test_a_stream_by_sentences() -> None:
    world = streaming(["联系人是欧", "阳", "修。住在杭州市西", "湖区文三路478号"])
    pieces = await read(await world.chat("你好", stream=True))
    assert told(events(pieces)) == "联系人是<PERSON>。住在<ADDRESS>"
    assert told(events(pieces)[:2]) == "", "nothing of a sentence goes out before its end"
    assert recorded(world)[0] == "联系人是<PERSON>。住在<ADDRESS>"


class Hanging:
    """A model that takes the text and says nothing."""

    rule = "ner/test@0"

    def __init__(self) -> None:
        self.over = threading.Event()

    def reads(self, piece: str) -> bool:
        return "欧" in piece

    def tag(self, pieces: Sequence[str], run: Run) -> list[list[Tag]]:
        assert run.options is not None
        self.over.wait(60)
        return [[] for _ in pieces]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_hangs_lets_nothing_out_and_blocks_nobody(stream: bool) -> None:
    model = Hanging()
    act = masker(Rules(), names=NameFinder(model, ["PERSON"], 1.0))
    world = streaming(["欧阳修。"], act) if stream else answering("欧阳修。", act)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    task = asyncio.create_task(others())
    try:
        if stream:
            text = b"".join(await read(await world.chat("你好", stream=True))).decode()
            assert "masking.names.budget" in text
            assert "欧阳" not in text
            assert "[DONE]" not in text
        else:
            with pytest.raises(MaskingFailed, match=r"masking\.names\.budget"):
                await world.chat("你好")
    finally:
        model.over.set()
        task.cancel()
    assert turns > 5, "the event loop goes on meanwhile"
    assert world.metrics.count["masking_failures"] == 1
