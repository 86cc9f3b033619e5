"""The archive over HTTP, through its own client: who may do what, what is answered to what is wrong."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from governed_serving.archive.app import create_app, parse_tile
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError, Refused, Unreachable
from governed_serving.archive.ledger.merkle import hash_leaf, verify_consistency, verify_inclusion
from governed_serving.archive.ledger.note import Verifier, open_checkpoint
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.service import Archive
from governed_serving.archive.store.states import States
from governed_serving.archive.tokens import READER, Tokens, model_token
from governed_serving.crypto import Kek, KeyDestroyed, Keyring, KeysetChanged
from governed_serving.records import AppendRequest
from support.asgi import cut_short

from .ledgers import batch, leaf

ROOT = bytes(range(32))
KEK = Kek(bytes(32))
MODEL_KEK = Kek(bytes([7]) * 32)


class Loopback(httpx.BaseTransport):
    """Runs the ASGI application in an event loop of its own, so that the synchronous client reaches it without a
    socket."""

    def __init__(self, app) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._handle(request), self.loop).result(30)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        body = b"".join(request.stream)
        headers = [(k, v) for k, v in request.headers.raw if k.lower() != b"transfer-encoding"]
        answer = await self.inner.handle_async_request(
            httpx.Request(request.method, request.url, headers=headers, content=body)
        )
        content = b"".join([chunk async for chunk in answer.stream])
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Bed:
    def __init__(self, root: Path, clock: Callable[[], float] = lambda: 1_767_225_600.0) -> None:
        self.root = root
        self.archive = Archive(root, KEK, "default", clock=clock)
        self.transport = Loopback(create_app(self.archive, Tokens(ROOT, "default"), ArchiveMetrics("default")))

    def client(self, name: str = "credit", model: str | None = None) -> ArchiveClient:
        token = model_token(ROOT, "default", name)
        return ArchiveClient(
            "http://archive", token, name if model is None else model, transport=self.transport, patience=0.0
        )

    def close(self) -> None:
        self.transport.stop()
        self.archive.close()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with closing(Bed(tmp_path)) as bed:
        yield bed


def sealed(data: bytes = b"data") -> bytes:
    return b"GMSEAL1\n" + data


def test_entries_are_appended_proved_and_found(bed: Bed) -> None:
    client = bed.client()
    first = client.append_batch("server-0", 0, batch(0, 5).entries)
    assert (first.first_index, first.size, first.ranges) == (0, 5, [(0, 5)])
    assert client.append_batch("server-0", 0, batch(0, 5).entries).first_index == 0
    assert client.append("trainer", [leaf("a", "training")]) == 5
    assert client.append("trainer", [leaf("b", "training")]) == 6
    verifier = Verifier.parse(client.vkey())
    now = open_checkpoint(client.checkpoint(), verifier)
    assert (now.size, now.origin) == (7, "governedmodels.io/archive/default")
    entries = client.entries(0, 99)
    assert len(entries) == 7
    for index, entry in enumerate(entries):
        verify_inclusion(hash_leaf(entry), index, 7, client.inclusion(index, 7), now.root)
    verify_consistency(5, 7, client.consistency(5, 7), bed.archive.ledger.root_hash(5), now.root)
    assert [(f.index, f.fields()["id"]) for f in client.find(type="training")] == [(5, "a"), (6, "b")]
    assert [f.index for f in client.find(id="server-0/3")] == [3]


def test_many_entries_come_in_pages(bed: Bed) -> None:
    client = bed.client()
    client.append_batch("server-0", 0, batch(0, 2500).entries)
    assert client.entries(3, 2400) == batch(3, 2397).entries


def test_a_model_writes_and_reads_only_its_own(bed: Bed) -> None:
    bed.client("other").put_ref("r", {"a": 1})
    bed.client("other").put_state("s", sealed())
    with pytest.raises(Refused, match="entry 0 is of default/credit") as refused:
        bed.client("other").append_batch("s", 0, [leaf("x")])
    assert refused.value.status == 403
    for call in (
        lambda c: c._ask("GET", "/v1/refs/other/r"),
        lambda c: c._ask("PUT", "/v1/refs/other/r", content=b"{}"),
        lambda c: c._ask("GET", "/v1/states/other/s"),
        lambda c: c._ask("GET", "/v1/states/other"),
        lambda c: c._ask("PUT", "/v1/states/other/s", content=sealed()),
        lambda c: c._ask("DELETE", "/v1/keysets/other/data"),
        lambda c: c.find(model="other"),
    ):
        with pytest.raises(Refused, match="token is that of credit") as refused:
            call(bed.client())
        assert refused.value.status == 403


def test_tokens_are_checked(bed: Bed) -> None:
    with pytest.raises(Refused, match="not that of the model") as refused:
        bed.client("credit", model="other").put_blob(sealed())
    assert refused.value.status == 401
    with httpx.Client(base_url="http://archive", transport=bed.transport) as anonymous:
        assert anonymous.get("/v1/ledger/entries?start=0&end=1").status_code == 401
        assert anonymous.get("/v1/ledger/checkpoint").status_code == 200


def test_a_reader_reads_everything_and_writes_nothing(bed: Bed) -> None:
    bed.client().put_ref("r", {"a": 1})
    bed.client().put_state("s", sealed())
    bed.client().append_batch("s", 0, [leaf("x")])
    reader = bed.client(READER, model="")
    assert reader._ask("GET", "/v1/refs/credit/r").json() == {"a": 1}
    assert reader._ask("GET", "/v1/states/credit/s").content == sealed()
    assert len(reader.find(id="x", model="credit")) == 1
    assert len(reader.entries(0, 9)) == 3
    with pytest.raises(Refused, match="may not store blobs"):
        reader.put_blob(sealed())
    with pytest.raises(Refused, match="may not replace state"):
        reader._ask("PUT", "/v1/states/credit/s", content=sealed())


@pytest.mark.parametrize("say", [lambda c: c.put_ref("r", {"a": 1}), lambda c: c.put_state("s", sealed())])
def test_a_model_known_by_what_it_keeps_needs_no_name(bed: Bed, say: Callable[[ArchiveClient], None]) -> None:
    say(bed.client())
    assert bed.client("credit", model="").put_blob(sealed())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"{", "entry 7"),
        (leaf("x").replace(b":", b": "), "canonical"),
        (leaf("x", "gossip"), "type must be one of"),
        (leaf("x", summary={"t": "y" * 270_000}), "at most"),
        (leaf("x").replace(b'"model"', b'"extra":1,"model"'), "extra"),
    ],
)
def test_bad_entries_are_refused_by_number(bed: Bed, entry: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        bed.client().append_batch("s", 7, [entry])
    assert bed.archive.ledger.size == 0


def test_bad_requests_are_one_line(bed: Bed) -> None:
    client = bed.client()
    for path, message in (
        ("/v1/ledger/entries?start=5&end=2", "expected 0 ≤ start"),
        ("/v1/ledger/entries?start=a&end=2", "start as a number"),
        ("/v1/ledger/proof/inclusion?index=3&size=9", "at most 0"),
        ("/v1/ledger/proof/consistency?first=0&second=0", "1 ≤ first"),
        ("/v1/ledger/tile/0/1", "tile's path"),
        ("/v1/ledger/tile/00/001", "partial tile"),
        ("/v1/ledger/tile/0/001.p/044", "partial tile"),
        ("/v1/blobs/xyz", "64 lower-case"),
        ("/v1/refs/credit/none", "no reference none"),
        ("/v1/states/credit/none", "no state none"),
        ("/v1/states/credit/-s", "must be letters"),
    ):
        with pytest.raises(Refused, match=message):
            client._ask("GET", path)
    with pytest.raises(Refused, match="msgpack"):
        client._ask("POST", "/v1/ledger/entries", content=b"\xff")
    with pytest.raises(Refused, match="Method Not Allowed"):
        client._ask("PATCH", "/v1/ledger/entries")
    with pytest.raises(Refused, match="at most 16777216 bytes"):
        client._ask("POST", "/v1/ledger/entries", content=bytes((16 << 20) + 1))


def test_blobs_have_their_address_and_are_sealed(bed: Bed) -> None:
    client = bed.client()
    digest = client.put_blob(sealed(b"x" * 3_000_000))
    assert client.put_blob(sealed(b"x" * 3_000_000)) == digest
    assert client.has_blob(digest)
    assert not client.has_blob("0" * 64)
    assert hashlib.sha256(client.get_blob(digest)).hexdigest() == digest
    with pytest.raises(Refused, match="not here"):
        client.get_blob("0" * 64)
    with pytest.raises(Refused, match="not sealed") as refused:
        client.put_blob(b"name,age\nErika,42\n")
    assert refused.value.status == 415
    with pytest.raises(Refused, match="body's SHA-256 is"):
        client._ask("PUT", "/v1/blobs/" + "0" * 64, content=sealed())
    assert list((bed.archive.blobs.root / ".incoming").iterdir()) == []


def test_a_keyring_lives_in_the_archive(bed: Bed) -> None:
    ring = Keyring(MODEL_KEK, bed.client().keysets())
    box = ring.keyset("data").seal(b"secret", b"place")
    again = Keyring(MODEL_KEK, bed.client().keysets())
    assert again.keyset("data", create=False).open(box, b"place") == b"secret"
    ring.rotate("data")
    assert again.keyset("data").open(ring.keyset("data").seal(b"new", b""), b"") == b"new"
    assert bed.client().keysets().purposes() == ["data"]
    document = bed.client().keysets().get("data")
    ring.destroy("data")
    with pytest.raises(KeyDestroyed):
        Keyring(MODEL_KEK, bed.client().keysets()).keyset("data")
    with pytest.raises(KeyDestroyed):
        bed.client().keysets().create("data", document or b"")
    events = [f.fields() for f in bed.client().find(type="key")]
    assert [e["id"] for e in events] == ["data:created", "data:replaced", "data:destroyed"]
    assert events[0]["time"] == "2026-01-01T00:00:00.000Z"


def test_keysets_are_created_once_and_replaced_only_when_unchanged(bed: Bed) -> None:
    store = bed.client().keysets()
    Keyring(MODEL_KEK, store).keyset("data")
    first = store.get("data")
    assert first is not None
    other = Keyring(MODEL_KEK, bed.client("other").keysets())
    other.keyset("data")
    second = bed.client("other").keysets().get("data")
    assert second is not None
    assert store.create("data", second) == first
    with pytest.raises(KeysetChanged, match="read it again"):
        store.replace("data", second, second)
    with pytest.raises(Refused, match="no wrapped keyset"):
        store.create("artefact", b'{"key": "plain"}')


def test_references_keep_their_history(bed: Bed) -> None:
    client = bed.client()
    assert client.ref("training-1") is None
    for value in ({"blob": "a"}, {"blob": "b"}, {"blob": "b"}):
        client.put_ref("training-1", value)
    assert client.ref("training-1") == {"blob": "b"}
    history = [f.fields()["digest"] for f in client.find(type="ref", id="training-1")]
    assert history == [hashlib.sha256(b).hexdigest() for b in (b'{"blob":"a"}', b'{"blob":"b"}')]
    assert client._ask("GET", "/v1/refs/credit").json() == {"refs": ["training-1"]}
    with pytest.raises(Refused, match="JSON object"):
        client._ask("PUT", "/v1/refs/credit/x", content=b"[]")
    with pytest.raises(Refused, match="lower-case letters"):
        bed.archive.put_reference("../etc", "x", b"{}")
    with pytest.raises(Refused, match="must be letters"):
        bed.archive.put_reference("credit", "..%2f", b"{}")


def test_a_state_is_replaced_and_its_history_stays(bed: Bed) -> None:
    client = bed.client()
    assert client.state("counts.a") is None
    assert client.states() == []
    bodies = [sealed(b"one"), sealed(b"two")]
    first, second = (hashlib.sha256(body).hexdigest() for body in bodies)
    client.put_state("counts.a", bodies[0])
    assert client.state("counts.a") == (bodies[0], first)
    assert client.state("counts.a", known=first) is None
    for body in (bodies[1], bodies[1]):
        client.put_state("counts.a", body)
    assert client.state("counts.a", known=first) == (bodies[1], second)
    client.put_ref("counts.a", {"a": 1})
    assert client.states() == ["counts.a"]
    assert [f.fields()["digest"] for f in client.find(type="state", id="counts.a")] == [first, second]
    stored = [p.read_bytes() for p in (bed.root / "states").rglob("*") if p.is_file()]
    assert stored == [bodies[1]], "no earlier one is kept"


def test_a_known_state_is_answered_without_its_bytes(bed: Bed) -> None:
    bed.client().put_state("s", sealed())
    first = bed.client()._ask("GET", "/v1/states/credit/s")
    again = bed.client()._ask("GET", "/v1/states/credit/s", headers={"if-none-match": first.headers["etag"]}, allowed=(304,))  # fmt: skip  # noqa: E501
    assert first.headers["etag"] == f'"{hashlib.sha256(sealed()).hexdigest()}"'
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [(b"name,age\nErika,42\n", 415, "not sealed"), (sealed(b"x" * 100), 413, "at most 99")],
)
def test_a_state_is_sealed_and_bounded(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, message: str
) -> None:
    monkeypatch.setattr(States, "MAX_BYTES", 99)
    for put in (bed.client().put_state, partial(bed.archive.put_state, "credit")):
        with pytest.raises(Refused, match=message) as refused:
            put("s", body)
        assert refused.value.status == status
    assert (bed.client().states(), bed.archive.ledger.size) == ([], 0)


@pytest.mark.parametrize(("step", "said"), [("write_new", 0), ("fsync_folder", 0), ("Prepared.put_in_place", 1)])
def test_a_state_is_noted_before_it_is_there(bed: Bed, monkeypatch: pytest.MonkeyPatch, step: str, said: int) -> None:
    """On a full disk nothing is said; what was said is there once there is room."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    client = bed.client()
    with monkeypatch.context() as patched:
        patched.setattr(f"governed_serving.archive.store.named.{step}", full)
        with pytest.raises(Refused, match="No space") as refused:
            client.put_state("s", sealed())
    assert (refused.value.status, client.state("s"), bed.archive.ledger.size) == (507, None, said)
    client.put_state("s", sealed())
    assert client.state("s", known="0" * 64) == (sealed(), hashlib.sha256(sealed()).hexdigest())
    assert bed.archive.ledger.size == 1, "said once"


def test_states_survive_a_restart_and_what_a_killed_process_left_does_not(tmp_path: Path) -> None:
    with closing(Bed(tmp_path)) as bed:
        bed.client().put_state("s", sealed())
    (tmp_path / "states" / "credit" / f".s.{'0a' * 32}").write_bytes(b"half")
    with closing(Bed(tmp_path)) as bed:
        bed.client().put_state("s", sealed())
        assert bed.archive.ledger.size == 1, "the same bytes again are no change"
    assert [p.name for p in (tmp_path / "states" / "credit").iterdir()] == ["s"]


def test_tiles_are_served_in_the_c2sp_layout(bed: Bed) -> None:
    bed.client().append_batch("s", 0, batch(0, 300).entries)
    with httpx.Client(base_url="http://archive", transport=bed.transport) as anonymous:
        full = anonymous.get("/v1/ledger/tile/0/000")
        partial = anonymous.get("/v1/ledger/tile/0/001.p/44")
        assert anonymous.get("/v1/ledger/tile/0/001.p/45").status_code == 404
    leaves = b"".join(hash_leaf(e) for e in batch(0, 300).entries)
    assert full.content + partial.content == leaves
    assert parse_tile("2", "x001/x234/067.p/9") == (2, 1234067, 9)


def test_entry_bundles_hold_what_the_tiles_are_hashes_of(bed: Bed) -> None:
    bed.client().append_batch("s", 0, batch(0, 300).entries)
    with httpx.Client(base_url="http://archive", transport=bed.transport) as anonymous:
        path = "/v1/ledger/tile/entries/001.p/44"
        assert anonymous.get(path).status_code == 401
        own = {"authorization": f"Bearer {model_token(ROOT, 'default', 'credit')}", "x-governed-model": "credit"}
        assert anonymous.get(path, headers=own).status_code == 403, "what all models' entries say is not one model's"
        reader = {"authorization": f"Bearer {model_token(ROOT, 'default', READER)}"}
        assert anonymous.get("/v1/ledger/tile/entries/001.p/45", headers=reader).status_code == 404
        data = anonymous.get(path, headers=reader).content
    for entry in batch(256, 44).entries:
        length = int.from_bytes(data[:2], "big")
        assert data[2 : 2 + length] == entry
        data = data[2 + length :]
    assert data == b""


@pytest.mark.usefixtures("bed")
def test_two_processes_share_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="in use by another"):
        Archive(tmp_path, KEK, "default")


def test_concurrent_streams_all_arrive(bed: Bed) -> None:
    def write(stream: str) -> None:
        client = bed.client()
        for i in range(0, 60, 20):
            client.append_batch(stream, i, batch(i, 20, stream).entries)

    threads = [threading.Thread(target=write, args=(f"s{n}",)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert bed.archive.ledger.size == 480
    for n in range(8):
        assert [f.index for f in bed.client().find(id=f"s{n}/59")] != []


def test_a_full_disk_is_507_and_passes(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(Refused, match="can't be written") as refused:
            bed.client().append_batch("s", 0, batch(0, 3).entries)
    assert refused.value.status == 507
    assert bed.client().append_batch("s", 0, batch(0, 3).entries).first_index == 0


def test_metrics_and_probes(bed: Bed) -> None:
    bed.client().append_batch("s", 0, batch(0, 3).entries)
    with httpx.Client(base_url="http://archive", transport=bed.transport) as anonymous:
        assert anonymous.get("/healthz/live").status_code == 200
        text = anonymous.get("/metrics").text
    assert 'governed_archive_ledger_entries{component="archive",namespace="default"} 3.0' in text
    assert 'method="POST",namespace="default",route="/v1/ledger/entries",status="200"} 1.0' in text


def test_the_client_tries_again_and_gives_up() -> None:
    calls: list[int] = []

    def answer(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(503 if len(calls) < 4 else 200, json={"next_seq": 4})

    now = [0.0]
    client = ArchiveClient(
        "http://archive",
        "t",
        "credit",
        transport=httpx.MockTransport(answer),
        clock=lambda: now[0],
        sleep=lambda s: now.__setitem__(0, now[0] + s),
    )
    assert client.next_seq("s") == 4
    assert len(calls) == 4
    never = httpx.MockTransport(lambda _: httpx.Response(503, json={"error": "full"}))
    client = ArchiveClient(
        "http://archive",
        "t",
        "credit",
        transport=never,
        clock=lambda: now[0],
        sleep=lambda s: now.__setitem__(0, now[0] + s),
    )
    with pytest.raises(Unreachable, match="503 full"):
        client.next_seq("s")


def test_a_client_says_who_asks_and_what_it_sends() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"first_index": 0, "size": 1, "ranges": [], "next_seq": 1})

    client = ArchiveClient("http://archive", "t", "credit", transport=httpx.MockTransport(answer))
    client.append_batch("s", 0, [leaf("x")])
    (request,) = asked
    assert (request.method, request.url.path) == ("POST", "/v1/ledger/entries")
    said = ("authorization", "x-governed-model", "content-type")
    assert [request.headers[name] for name in said] == ["Bearer t", "credit", "application/msgpack"]
    assert request.content == msgspec.msgpack.encode(AppendRequest("s", 0, [leaf("x")]))
    ArchiveClient("http://archive", "t", transport=httpx.MockTransport(answer)).next_seq("s")
    assert "x-governed-model" not in asked[-1].headers, "a token of a role says itself whose it is"


class _Odd(Exception):
    status = 418


@pytest.mark.parametrize(
    ("error", "status"), [(KeyError("a bug"), 500), (HTTPException(413), 413), (_Odd(), 418), (None, 204)]
)
async def test_a_request_is_counted_under_the_status_that_it_gets(error: Exception | None, status: int) -> None:
    async def handler(_: Request) -> Response:
        if error is not None:
            raise error
        return Response(status_code=204)

    metrics, request = ArchiveMetrics("default"), Request({"type": "http", "method": "GET", "headers": []})
    if error is None:
        await metrics.timed("/v1/x", handler)(request)
    else:
        with pytest.raises(type(error)):
            await metrics.timed("/v1/x", handler)(request)
    labels = {"namespace": "default", "component": "archive", "method": "GET", "route": "/v1/x"}
    value = metrics._registry.get_sample_value
    assert value("governed_archive_requests_total", {**labels, "status": str(status)}) == 1
    assert value("governed_archive_request_seconds_count", labels) == 1


def test_append_requests_are_the_contracts_msgpack(bed: Bed) -> None:
    body = msgspec.msgpack.encode(AppendRequest("s", 0, [leaf("x")]))
    token = model_token(ROOT, "default", "credit")
    headers = {"authorization": f"Bearer {token}", "x-governed-model": "credit"}
    with httpx.Client(base_url="http://archive", transport=bed.transport) as plain:
        assert plain.post("/v1/ledger/entries", content=body, headers=headers).json()["first_index"] == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/ledger/entries"),
        ("PUT", f"/v1/blobs/{hashlib.sha256(sealed()).hexdigest()}"),
        ("PUT", "/v1/states/credit/s"),
        ("PUT", "/v1/refs/credit/r"),
        ("PUT", "/v1/keysets/credit/journal"),
    ],
)
def test_a_client_that_goes_in_the_middle_of_a_body_leaves_nothing(bed: Bed, method: str, path: str) -> None:
    headers = [
        (b"authorization", f"Bearer {model_token(ROOT, 'default', 'credit')}".encode()),
        (b"x-governed-model", b"credit"),
    ]
    asked = cut_short(bed.transport.inner.app, method, path, headers, sealed())
    assert asyncio.run_coroutine_threadsafe(asked, bed.transport.loop).result(30) == [400]
    assert bed.archive.ledger.size == 0
    assert not [p for p in (bed.root / "blobs").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("level", "path"),
    [("0", "000.p/" + "1" * 5000), ("1" * 5000, "000"), ("0", "x111/" * 1600 + "111"), ("²", "000"), ("0", "٠٠٠")],
    ids=["width", "level", "groups", "superscript", "other digits"],
)
def test_tile_paths_of_any_length_are_refused_in_words(level: str, path: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_tile(level, path)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 300
