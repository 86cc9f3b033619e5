"""What records say that callers used equals what their clients and the server's metrics counted, whatever happened in
between."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_serving.auditor.service.entries import entries_of
from governed_serving.crypto import SegmentCipher
from governed_serving.decoding import decode_json
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import LedgerEntry, Use
from governed_serving.server.chat.request import CHAT
from governed_serving.server.errors import ServerError
from unit.access.people import caller, gate_of, key
from unit.auditor.records import local_keyset
from unit.server.conversations import ANSWER, Pieces, World, chunk, read
from unit.server.planes import MemoryJournal, plane, until
from unit.server.tabular_model import v2_body
from unit.server.test_callers import INFER, accounts_of, behind, http, known
from unit.server.test_dataplane import request

A, B = key("a"), key("b")


@pytest.fixture
def cipher(tmp_path: Path) -> SegmentCipher:
    return SegmentCipher(local_keyset(tmp_path))


def used(frames: list[Any], folder: Path, cipher: SegmentCipher) -> dict[str, dict[str, int]]:
    """Caller → sums, by the ledger entries that become of ``frames``."""
    with Journal(folder, "server-pod", cipher) as journal:
        for frame in frames:
            journal.append_blocking(frame)
    sums: dict[str, dict[str, int]] = {}
    reader, first = JournalReader(folder, "server-pod", cipher), 0
    while first < len(frames) and (found := reader.chunk(first)) is not None:
        for data, _ in entries_of(found, "team-a"):
            use = Use.said_in(decode_json(data, type=LedgerEntry).summary)
            assert use is not None
            units = sums.setdefault(use.caller, {"requests": 0})
            units["requests"] += "started" not in use.units
            for name, number in use.units.items():
                units[name] = units.get(name, 0) + number
        first += len(found.records)
    return sums


async def test_rows_of_answered_requests_and_nothing_of_refused_ones(tmp_path: Path, cipher: SegmentCipher) -> None:
    gate, journal = gate_of(caller("one", A, maxConcurrent=3), caller("two", B)), MemoryJournal()
    gateway = behind(gate, journal=journal)
    counted: dict[str, list[int]] = {A: [0, 0], B: [0, 0]}
    async with http(gateway) as client:

        async def ask(text: str, rows: int, **more: Any) -> int:
            body = v2_body(rows=rows) | more
            status = (await client.post(INFER, json=body, headers={"x-api-key": text})).status_code
            if status == 200:
                counted[text][0] += 1
                counted[text][1] += rows
            return status

        answers = await asyncio.gather(*(ask(text, rows) for rows in (1, 2, 3, 7) for text in (A, B)))
        assert sorted(set(answers)) == [200, 429], "one is over their bound, and asks again"
        assert await ask(A, 2) == 200
        assert await ask(A, 1, inputs=[]) == 400
        assert await ask(key("z"), 1) == 401
    sums = used(journal.frames, tmp_path, cipher)
    names = {text: gate.pseudonym(gate.known(text)) for text in (A, B)}
    assert {text: [sums[name]["requests"], sums[name]["rows"]] for text, name in names.items()} == counted
    metrics = gateway.serving().plane.metrics
    assert sum(units["rows"] for units in sums.values()) == metrics.count["request_rows"]
    assert sum(units["requests"] for units in sums.values()) == metrics.count["journal_records"]
    assert all(units["microseconds"] > 0 for units in sums.values())


async def test_a_client_who_leaves_is_counted_as_what_was_computed_for_them(
    tmp_path: Path, cipher: SegmentCipher
) -> None:
    gate, journal = gate_of(caller("one", A)), MemoryJournal()
    journal.gate = asyncio.Event()
    gateway = behind(gate, journal=journal)
    async with http(gateway) as client:
        asking = asyncio.create_task(client.post(INFER, json=v2_body(), headers={"x-api-key": A}))
        await until(lambda: bool(journal.frames))
        asking.cancel()
        journal.gate.set()
        await until(lambda: gateway.serving().plane.admission.open == 0)
    (units,) = used(journal.frames, tmp_path, cipher).values()
    assert (units["requests"], units["rows"]) == (1, 1)
    assert gateway.serving().plane.metrics.count["request_rows"] == 1


def test_who_is_not_asked_has_no_units_in_the_record() -> None:
    async def frames() -> list[Any]:
        journal = MemoryJournal()
        await plane(journal=journal).infer(request())
        return journal.frames

    assert [(frame.callers, frame.units) for frame in asyncio.run(frames())] == [([], {})]


def message(**more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16} | more).encode()


USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 4},
}


async def test_tokens_of_whole_streamed_cut_and_failed_completions(tmp_path: Path, cipher: SegmentCipher) -> None:
    gate, team = known()
    bodies: list[Any] = [
        httpx.Response(200, json=ANSWER),
        httpx.Response(200, json=ANSWER | {"usage": USAGE}),
        httpx.Response(200, stream=Pieces([chunk("ab"), chunk(usage=USAGE), b"data: [DONE]\n\n"])),
        httpx.Response(200, stream=Pieces([chunk("abc"), chunk("def"), chunk("ghi")])),
        httpx.Response(500, json={"error": {"message": "no"}}),
    ]
    served = iter(bodies)
    world = World(lambda _: next(served), accounts=accounts_of(gate), masker=lambda _: [])
    for streamed in (False, False, True):
        answer = await world.gateway.answer(CHAT, message(stream=streamed), caller=team)
        if streamed:
            await read(answer)
    cut = await world.gateway.answer(CHAT, message(stream=True), caller=team)
    await anext(cut.pieces)
    await cut.pieces.aclose()
    with pytest.raises(ServerError):
        await world.gateway.answer(CHAT, message(), caller=team)
    await until(lambda: world.admission.open == 0)
    (units,) = used(world.journal.frames, tmp_path, cipher).values()
    assert (units["requests"], units["started"], units["cached"]) == (4, 5, 8)
    assert units["tokensIn"] + units["tokensOut"] == world.metrics.count["tokens"]
    assert units["tokensIn"] >= 15
    assert units["tokensOut"] >= 10


@pytest.mark.parametrize(
    "usage",
    [
        {"total_tokens": -8},
        {"total_tokens": True},
        {"total_tokens": 1 << 70},
        {"total_tokens": 8.5},
        {"total_tokens": 8, "prompt_tokens": -5},
        {"total_tokens": 8, "prompt_tokens": 1 << 70},
        {"total_tokens": 8, "prompt_tokens": "5"},
        {"total_tokens": 8, "prompt_tokens_details": {"cached_tokens": -3}},
        {"total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 900}},
        {"total_tokens": 8, "prompt_tokens_details": [4]},
        {"prompt_tokens": 5},
        [8],
    ],
    ids=str,
)
async def test_what_a_runtime_says_of_tokens_is_no_debt_and_no_credit(
    tmp_path: Path, cipher: SegmentCipher, usage: object
) -> None:
    gate, team = known()
    world = World(lambda _: httpx.Response(200, json=ANSWER | {"usage": usage}), accounts=accounts_of(gate))
    await world.gateway.answer(CHAT, message(), caller=team)
    (units,) = used(world.journal.frames, tmp_path, cipher).values()
    assert units["requests"] == 1
    assert 0 <= units.get("cached", 0) <= units["tokensIn"]
    assert 0 < units["tokensIn"] + units["tokensOut"] == world.metrics.count["tokens"] < 1000
