"""Whether a content is ours: proved by a record's digest alone, never by what the content says of itself."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api.governance import Labelling
from governed_serving.archive.__main__ import main
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.service import Archive
from governed_serving.archive.verify import detection
from governed_serving.archive.verify.detection import MOST_BYTES, Detection, detect, read_content
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import canonical
from unit.dossier.ships import shipped
from unit.server.conversations import World

KEY, MODEL_KEY = bytes(32), bytes([5]) * 32
WORDS = "本内容由人工智能生成"


def answering(*contents: str) -> World:
    choices = [{"index": k, "message": {"content": text}} for k, text in enumerate(contents)]
    body = {"id": "x", "choices": choices}
    return World(lambda _: httpx.Response(200, json=body), labelling=Labelling(producer="Example"), answers=False)


class Shop:
    """A model that answered, whose records were shipped to an archive."""

    def __init__(self, root: Path) -> None:
        self.root = root / "archive"
        archive = Archive(self.root, Kek(KEY), "default")
        cipher = SegmentCipher(Keyring(Kek(MODEL_KEY), DirectoryStore(root / "keys")).keyset("journal"))
        archive.create_keyset("chat", "journal", (root / "keys" / "journal.keyset.json").read_bytes())
        self._archive, self._cipher, self._spool = archive, cipher, root / "spool"
        self._journal = Journal(self._spool, "server-0", cipher)

    async def answered(self, *contents: str) -> tuple[str, dict[str, Any]]:
        world = answering(*contents)
        answer = await world.chat("hi", n=len(contents))
        for frame in world.journal.frames:
            await self._journal.append(frame)
        return answer.id, json.loads(answer.body)

    def shipped(self) -> None:
        self._journal.close()
        entries = shipped(self._archive, "chat", JournalReader(self._spool, "server-0", self._cipher))
        self._archive.appender.submit(Batch("chat", "server-0", 0, [canonical(e) for e in entries])).result(10)
        self._archive.close()

    def detected(self, content: object, id: str = "", key: bytes | None = MODEL_KEY) -> Detection:
        data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        source = DirectorySource(self.root, Kek(KEY))
        return detect(read_content(data, id), source, model_key=Kek(key) if key else None)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def said(found: Detection, about: str) -> str:
    return dict(found.lines)[about]


async def test_an_answer_is_proved_by_its_record(shop: Shop) -> None:
    await shop.answered("Another.")
    id, body = await shop.answered("Hello.")
    shop.shipped()
    found = shop.detected(body)
    assert (found.outcome, found.produce_id) == ("ours", id)
    assert said(found, "content") == "the record has the SHA-256 of this very content"
    assert "is what its ReservedCode1 says" in said(found, "digest")
    assert said(found, "label").startswith(f"carries the words '{WORDS}'")
    assert "by its own word" in said(found, "ledger")
    assert found.entry == 4


async def test_several_choices_are_one_content(shop: Shop) -> None:
    _, body = await shop.answered("one", "two")
    shop.shipped()
    assert shop.detected(body).outcome == "ours"
    body["choices"].reverse()
    assert shop.detected(body).outcome == "ours"
    del body["choices"][0]
    assert shop.detected(body).outcome == "refuted"


async def test_metadata_on_another_content_is_refuted(shop: Shop) -> None:
    _, body = await shop.answered("Hello.")
    shop.shipped()
    body["choices"][0]["message"]["content"] = "Something else."
    found = shop.detected(body)
    assert found.outcome == "refuted"
    assert "is not what its ReservedCode1 says" in said(found, "digest")
    assert said(found, "label") == "none of the usual words"


async def test_a_forged_digest_in_the_metadata_helps_nobody(shop: Shop) -> None:
    _, body = await shop.answered("Hello.")
    shop.shipped()
    forged = read_content(b"Something else.").digests[0]
    body["choices"][0]["message"]["content"] = "Something else."
    body["AIGC"]["ReservedCode1"] = forged
    found = shop.detected(body)
    assert "is what its ReservedCode1 says" in said(found, "digest")
    assert found.outcome == "refuted"


async def test_without_the_models_key_nothing_is_claimed(shop: Shop) -> None:
    id, body = await shop.answered("Hello.")
    shop.shipped()
    found = shop.detected(body, key=None)
    assert (found.outcome, found.produce_id, found.entry) == ("unproved", id, 2)
    assert "its record is sealed" in said(found, "content")
    with pytest.raises(ArchiveError, match="expected the key of chat, found another"):
        shop.detected(body, key=bytes([6]) * 32)


async def test_a_produce_id_that_no_answer_has(shop: Shop) -> None:
    _, body = await shop.answered("Hello.")
    shop.shipped()
    body["AIGC"]["ProduceID"] = "0198c0de-0000-7000-8000-000000000000"
    found = shop.detected(body)
    assert (found.outcome, found.entry) == ("refuted", None)
    assert said(found, "record").startswith("none: no answer has this ProduceID") or "no answer" in said(
        found, "record"
    )


async def test_metadata_alone_names_a_record_and_no_content(shop: Shop) -> None:
    id, body = await shop.answered("Hello.")
    shop.shipped()
    for alone in (body["AIGC"], {"AIGC": body["AIGC"]}):
        found = shop.detected(alone)
        assert (found.outcome, found.produce_id) == ("unproved", id)
        assert "only metadata" in said(found, "content")


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", "\n{}\n\n"])
async def test_a_text_is_found_by_its_content_or_by_an_id_beside_it(shop: Shop, around: str) -> None:
    id, body = await shop.answered("Hello.")
    shop.shipped()
    text = around.replace("{}", body["choices"][0]["message"]["content"]).encode()
    for given in ("", id):
        found = shop.detected(text, given)
        assert (found.outcome, found.produce_id) == ("ours", id)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_other_systems_files_are_read(shop: Shop, encoding: str) -> None:
    """Notepad writes a mark before UTF-8, PowerShell UTF-16, both carriage returns."""
    _, body = await shop.answered("One.\nTwo.")
    shop.shipped()
    text = body["choices"][0]["message"]["content"].replace("\n", "\r\n")
    assert shop.detected(text.encode(encoding)).outcome == "ours"
    assert shop.detected(json.dumps(body).encode(encoding)).outcome == "ours"


async def test_an_answer_whose_metadata_were_dropped_is_still_read_as_one(shop: Shop) -> None:
    id, body = await shop.answered("Hello.")
    shop.shipped()
    del body["AIGC"]
    for given in ("", id):
        found = shop.detected(body, given)
        assert (found.outcome, found.produce_id) == ("ours", id)


async def test_one_of_several_choices_is_not_disowned(shop: Shop) -> None:
    id, body = await shop.answered("one", "two")
    shop.shipped()
    found = shop.detected(body["choices"][1]["message"]["content"].encode(), id)
    assert found.outcome == "unproved"
    assert "2 choices together" in said(found, "content")


def events(body: dict[str, Any], *more: str, metadata: bool = True) -> bytes:
    """As a client saved them, a few characters at a time."""
    lines = [": ping"]
    for one in body["choices"]:
        text = one["message"]["content"]
        for at in range(0, len(text), 3):
            chunk = {"choices": [{"index": one["index"], "delta": {"content": text[at : at + 3]}}]}
            lines.append(f"data: {json.dumps(chunk)}")
    lines += [f"data: {json.dumps({'choices': [], 'AIGC': body['AIGC']})}"] if metadata else []
    return "\r\n\r\n".join([*lines, *more, ""]).encode()


async def test_the_events_of_a_stream_are_its_content(shop: Shop) -> None:
    id, body = await shop.answered("one", "two")
    shop.shipped()
    for data in (events(body, "data: [DONE]"), events(body), events(body, metadata=False)):
        found = shop.detected(data)
        assert (found.outcome, found.produce_id) == ("ours", id)


async def test_a_stream_that_was_cut_is_not_disowned_and_one_that_was_changed_is(shop: Shop) -> None:
    id, body = await shop.answered("Hello.")
    shop.shipped()
    body["choices"][0]["message"]["content"] = "Hel"
    found = shop.detected(events(body, metadata=False), id)
    assert found.outcome == "unproved"
    assert "no end of the stream" in said(found, "content")
    assert shop.detected(events(body, "data: [DONE]")).outcome == "refuted"


@pytest.mark.parametrize(("most", "outcome"), [(0, "unproved"), (1, "ours")])
async def test_the_newest_pieces_alone_are_looked_through(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, most: int, outcome: str
) -> None:
    monkeypatch.setattr(detection, "MOST_CHUNKS", most)
    await shop.answered("One.")
    _, body = await shop.answered("Two.")
    shop.shipped()
    assert shop.detected(body["choices"][0]["message"]["content"].encode()).outcome == outcome


async def test_a_text_that_only_looks_like_events_is_a_text(shop: Shop) -> None:
    await shop.answered("data: is everywhere")
    shop.shipped()
    found = shop.detected(f"data: is everywhere\n\n{WORDS}".encode())
    assert found.outcome == "ours"


async def test_nothing_that_the_digest_is_not_of_is_proved(shop: Shop) -> None:
    """Tool calls beside an empty content could be anybody's."""
    id, body = await shop.answered("")
    shop.shipped()
    body["choices"][0]["message"]["tool_calls"] = [{"function": {"name": "pay", "arguments": "{}"}}]
    for given, content in ((id, body), ("", {"choices": body["choices"]})):
        found = shop.detected(content, given)
        assert found.outcome == "unproved"
        assert said(found, "beside").startswith("tool_calls: ")


async def test_an_id_newer_than_the_ledger_is_not_disowned(shop: Shop) -> None:
    """Records come seconds after their answers, and an export grows old."""
    id, body = await shop.answered("Hello.")
    shop.shipped()
    later = f"{int(id.replace('-', '')[:12], 16) + 5000:012x}"
    body["AIGC"]["ProduceID"] = f"{later[:8]}-{later[8:]}{id[13:]}"
    found = shop.detected(body)
    assert (found.outcome, found.entry) == ("unproved", None)
    assert said(found, "record").startswith("none yet")


async def test_a_text_that_was_changed_is_not_found_and_not_disowned(shop: Shop) -> None:
    _, body = await shop.answered("Hello.")
    shop.shipped()
    text = body["choices"][0]["message"]["content"].replace("Hello", "Hallo").encode()
    found = shop.detected(text)
    assert found.outcome == "unproved"
    assert "one that was changed or cut isn't found" in said(found, "record")
    alone = shop.detected(text, key=None)
    assert "searching needs the model's key" in said(alone, "record")
    assert shop.detected(b" \n").outcome == "unproved"
    assert shop.detected(text, key=bytes([6]) * 32).outcome == "unproved"


async def test_an_id_of_another_kind_of_entry_is_no_answer(shop: Shop) -> None:
    _, body = await shop.answered("Hello.")
    shop.shipped()
    body["AIGC"]["ProduceID"] = "signer"
    assert shop.detected(body).outcome == "refuted"


async def test_a_ledger_that_does_not_verify_shows_nothing(shop: Shop) -> None:
    _, body = await shop.answered("Hello.")
    shop.shipped()
    note = shop.root / "ledger" / "checkpoint"
    origin, size, root, *rest = note.read_text().split("\n")
    note.write_text("\n".join([origin, size, root[::-1], *rest]))
    with pytest.raises(NoteError):
        shop.detected(body)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\xff\xfea", "expected text"), (b"Caf\xe9", "UTF-8"), (b"x" * (MOST_BYTES + 1), "expected at most 8 MiB")],
)
def test_what_is_no_text_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        read_content(data)


def test_two_ids_are_one_too_many() -> None:
    with pytest.raises(ArchiveError, match="leave one out"):
        read_content(b'{"AIGC": {"ProduceID": "a"}}', "b")


@pytest.mark.parametrize(
    "odd",
    [
        b"[1]",
        b'{"AIGC": 5}',
        b'{"AIGC": {"ProduceID": ""}}',
        b'{"AIGC": {"ProduceID": {"a": 1}}, "choices": [5, null]}',
        b'{"AIGC": {"ProduceID": "a", "ReservedCode1": 7, "ContentProducer": []}, "choices": "x"}',
        b'{"AIGC": {"ProduceID": "a"}, "choices": [{"message": null}, {"delta": {"content": 4}}]}',
        b"[" * 100_000,
        b'{"AIGC":' * 500,
    ],
)
async def test_odd_claims_end_in_words(shop: Shop, odd: bytes) -> None:
    await shop.answered("Hello.")
    shop.shipped()
    assert shop.detected(odd).outcome in ("unproved", "refuted")


async def test_the_command(shop: Shop, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    id, body = await shop.answered("Hello.")
    shop.shipped()
    for name, key in (("kek", KEY), ("model", MODEL_KEY)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "answer.json").write_text(json.dumps(body))
    given = ["detect", "--key-file", str(tmp_path / "kek"), str(shop.root), str(tmp_path / "answer.json")]
    assert main([*given, "--model-key", str(tmp_path / "model")]) == 0
    assert capsys.readouterr().out.endswith("proved: ours\n")
    assert main(given) == 3
    assert capsys.readouterr().out.endswith("not proved\n")
    (tmp_path / "utf-7").write_bytes(b"\xe9")
    other = [*given[:-1], "--model-key", str(tmp_path / "kek"), given[-1]]
    for odd in (
        [*given[:-1], str(tmp_path / "none")], [*given[:-1], str(tmp_path)], [*given[:-1], str(tmp_path / "utf-7")],
        ["detect", str(tmp_path / "none"), given[-1]], ["detect", "http://127.0.0.1:1", given[-1]],
        [*given, "--id", "another"], [*given, "--model-key", str(tmp_path / "none")], other,
    ):  # fmt: skip
        assert main(odd) == 2, odd  # what can't be compared isn't refuted
        assert capsys.readouterr().err.startswith("detect: ")
    body["choices"][0]["message"]["content"] += "!"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body).encode())))
    assert main([*given[:-1], "-", "--json", "--model-key", str(tmp_path / "model")]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["produce_id"]) == ("refuted", id)
