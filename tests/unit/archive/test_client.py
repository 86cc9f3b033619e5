"""The archive's client over the wire: what each call asks for, what it makes of the answer, and of an answer that is
none."""

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from governed_api.runtime import BEFORE_HEADER
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused, Unreachable, Unverified
from governed_serving.crypto import KeyDestroyed, KeysetChanged

from .ledgers import leaf

DIGEST = hashlib.sha256(b"sealed").hexdigest()
HASH = "ab" * 32


class Archive:
    """Answers with ``answers`` in turn, the last one for ever, and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def client(self, model: str = "credit", token: Any = "t", **options: Any) -> ArchiveClient:
        return ArchiveClient(
            "http://archive", token, model, transport=httpx.MockTransport(self), patience=0.0, **options
        )


def ok(content: object = None, status: int = 200, **headers: str) -> httpx.Response:
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return httpx.Response(status, content=data, headers=headers)


Call = Callable[[ArchiveClient], object]
CALLS: dict[str, tuple[Call, httpx.Response, str, str, object]] = {
    "put a blob": (lambda c: c.put_blob(b"sealed"), ok(), "PUT", f"/v1/blobs/{DIGEST}", DIGEST),
    "a blob that is there": (lambda c: c.has_blob(DIGEST, entry=0), ok(), "HEAD", f"/v1/blobs/{DIGEST}?entry=0", True),
    "a blob that isn't": (lambda c: c.has_blob(DIGEST), ok(status=404), "HEAD", f"/v1/blobs/{DIGEST}", False),
    "a blob that was deleted": (lambda c: c.has_blob(DIGEST), ok(status=410), "HEAD", f"/v1/blobs/{DIGEST}", False),
    "get a blob": (
        lambda c: c.get_blob(DIGEST, ref="a"), ok(b"sealed"), "GET", f"/v1/blobs/{DIGEST}?ref=a", b"sealed",
    ),
    "next number": (lambda c: c.next_seq("s"), ok({"next_seq": 4}), "GET", "/v1/ledger/streams/s", 4),
    "checkpoint": (lambda c: c.checkpoint(), ok(b"note\n"), "GET", "/v1/ledger/checkpoint", "note\n"),
    "witnessed": (lambda c: c.witnessed(), ok(b"note\n"), "GET", "/v1/ledger/witnessed", "note\n"),
    "not witnessed yet": (lambda c: c.witnessed(), ok(status=404), "GET", "/v1/ledger/witnessed", ""),
    "verifier key": (lambda c: c.vkey(), ok(b"key\n"), "GET", "/v1/ledger/key", "key"),
    "inclusion": (
        lambda c: c.inclusion(3, 7), ok({"hashes": [HASH]}), "GET", "/v1/ledger/proof/inclusion?index=3&size=7",
        [bytes.fromhex(HASH)],
    ),
    "consistency": (
        lambda c: c.consistency(3, 7), ok({"hashes": []}), "GET", "/v1/ledger/proof/consistency?first=3&second=7", [],
    ),
    "tile": (lambda c: c.tile(0, 1), ok(b"x" * 32), "GET", "/v1/ledger/tile/0/001", b"x" * 32),
    "a part of a tile": (lambda c: c.tile(0, 1, 3), ok(b"x"), "GET", "/v1/ledger/tile/0/001.p/3", b"x"),
    "whose token": (
        lambda c: c.speaker(), ok({"model": "credit", "role": "server"}), "GET", "/v1/speaker", ("credit", "server"),
    ),
    "a reference": (lambda c: c.ref("r"), ok({"a": 1}), "GET", "/v1/refs/credit/r", {"a": 1}),
    "no reference": (lambda c: c.ref("r"), ok(status=404), "GET", "/v1/refs/credit/r", None),
    "put a reference": (lambda c: c.put_ref("r", {"b": 1, "a": 2}), ok(), "PUT", "/v1/refs/credit/r", None),
    "references": (lambda c: c.refs(), ok({"refs": ["a"]}), "GET", "/v1/refs/credit", ["a"]),
    "a state": (lambda c: c.state("s"), ok(b"sealed"), "GET", "/v1/states/credit/s", (b"sealed", DIGEST)),
    "the state that is known": (lambda c: c.state("s", DIGEST), ok(status=304), "GET", "/v1/states/credit/s", None),
    "no state": (lambda c: c.state("s"), ok(status=404), "GET", "/v1/states/credit/s", None),
    "put a state": (lambda c: c.put_state("s", b"sealed"), ok(), "PUT", "/v1/states/credit/s", None),
    "states": (lambda c: c.states(), ok({"states": ["s"]}), "GET", "/v1/states/credit", ["s"]),
    "a keyset": (lambda c: c.keysets().get("data"), ok(b"doc"), "GET", "/v1/keysets/credit/data", b"doc"),
    "no keyset": (lambda c: c.keysets().get("data"), ok(status=404), "GET", "/v1/keysets/credit/data", None),
    "a keyset made": (
        lambda c: c.keysets().create("data", b"doc"), ok(b"", 201), "PUT", "/v1/keysets/credit/data", b"doc",
    ),
    "a keyset that another process made": (
        lambda c: c.keysets().create("data", b"doc"), ok(b"theirs", 409), "PUT", "/v1/keysets/credit/data", b"theirs",
    ),
    "a keyset replaced": (
        lambda c: c.keysets().replace("data", b"sealed", b"doc"), ok(), "PUT", "/v1/keysets/credit/data", None,
    ),
    "a keyset destroyed": (
        lambda c: c.keysets().destroy("data", b"receipt"), ok(), "DELETE", "/v1/keysets/credit/data", None,
    ),
    "a keyset destroyed before": (
        lambda c: c.keysets().destroy("data", b"receipt"), ok(status=410), "DELETE", "/v1/keysets/credit/data", None,
    ),
    "purposes": (lambda c: c.keysets().purposes(), ok({"purposes": ["data"]}), "GET", "/v1/keysets/credit", ["data"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_each_call_asks_for_what_it_says(name: str) -> None:
    call, answer, method, target, expected = CALLS[name]
    archive = Archive(answer)
    assert call(archive.client()) == expected
    (request,) = archive.asked
    assert (request.method, request.url.raw_path.decode()) == (method, target)


BODIES: dict[str, tuple[Call, bytes, dict[str, str]]] = {
    "blob": (lambda c: c.put_blob(b"sealed"), b"sealed", {}),
    "reference": (lambda c: c.put_ref("r", {"b": 1, "a": 2}), b'{"a":2,"b":1}', {}),
    "state": (lambda c: c.put_state("s", b"sealed"), b"sealed", {}),
    "known state": (lambda c: c.state("s", DIGEST), b"", {"if-none-match": f'"{DIGEST}"'}),
    "keyset": (lambda c: c.keysets().create("data", b"doc"), b"doc", {}),
    "keyset in its place": (
        lambda c: c.keysets().replace("data", b"sealed", b"doc"), b"doc", {"if-match": f'"{DIGEST}"'},
    ),
    "receipt": (lambda c: c.keysets().destroy("data", b"receipt"), b"receipt", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_is_sent_is_sent_whole(name: str) -> None:
    call, body, headers = BODIES[name]
    archive = Archive(ok(b"x"))
    call(archive.client())
    assert archive.asked[0].content == body
    assert {k: v for k, v in archive.asked[0].headers.items() if k.startswith("if-")} == headers


def test_entries_come_in_pages_until_there_are_no_more() -> None:
    pages = [ok(b'{"entries":[1,2]}'), ok(b'{"entries":[3]}'), ok(b'{"entries":[]}')]
    archive = Archive(*pages)
    assert archive.client().entries(5, 10) == [b"1", b"2", b"3"]
    assert [r.url.query.decode() for r in archive.asked] == ["start=5&end=10", "start=7&end=10", "start=8&end=10"]
    archive = Archive(ok(b'{"entries":[1,2]}'))
    assert archive.client().entries(5, 7) == [b"1", b"2"]
    assert len(archive.asked) == 1


def test_entries_without_a_number_go_to_the_end_of_their_stream() -> None:
    answer = {"first_index": 30, "size": 31, "ranges": []}
    archive = Archive(ok({"next_seq": 4}), ok(answer))
    assert archive.client().append("s", [leaf("x")]) == 30
    assert msgspec.msgpack.decode(archive.asked[1].content)["first_seq"] == 4
    archive = Archive(ok(answer))
    assert archive.client().append("s", [leaf("x")], 9) == 30
    assert msgspec.msgpack.decode(archive.asked[0].content)["first_seq"] == 9


@pytest.mark.parametrize(
    ("known", "wanted", "puts"),
    [(404, None, []), (404, 60, ["retention"]), ({"payloads": 60}, 60, []), ({"payloads": 60}, None, ["retention"])],
)
def test_times_are_said_where_they_are_new(known: Any, wanted: int | None, puts: list[str]) -> None:
    first = ok(status=404) if known == 404 else ok(known)
    archive = Archive(first, *([ok()] if puts else []), ok(status=404))
    archive.client().say_times(payloads=wanted, keys=None)
    assert [r.url.path.rpartition("/")[2] for r in archive.asked if r.method == "PUT"] == puts


def test_bytes_that_are_no_blob_of_that_address_are_refused() -> None:
    with pytest.raises(Unverified, match=f"blob {HASH}: its content has SHA-256 {DIGEST}"):
        Archive(ok(b"sealed")).client().get_blob(HASH)


@pytest.mark.parametrize(
    ("body", "told", "reason"),
    [
        (b'{"error":"no","reason":"token"}', "no", "token"),
        (b'{"error":"no"}', "no", ""),
        (b"[]", r"\[\]", ""),
        (b"a proxy's page", "a proxy's page", ""),
        (b"", "Forbidden", ""),
    ],
)
def test_a_refusal_says_why_in_whatever_form_it_comes(body: bytes, told: str, reason: str) -> None:
    with pytest.raises(Refused, match=told) as caught:
        Archive(ok(body, 403)).client().checkpoint()
    assert (caught.value.status, caught.value.details) == (403, {"reason": reason})


@pytest.mark.parametrize("act", ["get", "create"])
def test_a_destroyed_keyset_says_so(act: str) -> None:
    store = Archive(ok({"error": "destroyed on Monday"}, 410)).client().keysets()
    with pytest.raises(KeyDestroyed, match="destroyed on Monday"):
        store.get("data") if act == "get" else store.create("data", b"doc")


def test_a_lost_answer_to_a_replacement_is_success() -> None:
    Archive(ok(status=412), ok(b"doc")).client().keysets().replace("data", b"old", b"doc")
    with pytest.raises(KeysetChanged, match="changed meanwhile"):
        Archive(ok({"error": "changed meanwhile"}, 412), ok(b"theirs")).client().keysets().replace(
            "data", b"old", b"doc"
        )


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_read_anew_once(status: int) -> None:
    tokens = iter(["old", "new", "new"])
    archive = Archive(ok({"error": "no"}, status), ok(b"note"))
    assert archive.client(token=lambda: next(tokens)).checkpoint() == "note"
    assert [r.headers["authorization"] for r in archive.asked] == ["Bearer old", "Bearer new"]
    archive = Archive(ok({"error": "no"}, status))
    with pytest.raises(Refused):
        archive.client(token=lambda: " same\n").checkpoint()
    assert [r.headers["authorization"] for r in archive.asked] == ["Bearer same"]


def test_a_client_without_a_model_has_nothing_of_one() -> None:
    with pytest.raises(ValueError, match="needs the model's name"):
        Archive(ok()).client(model="").refs()


def test_a_backup_comes_in_pieces_and_one_that_breaks_off_says_so() -> None:
    archive = Archive(ok(b"x" * 3_000_000))
    pieces = list(archive.client().backup())
    assert (b"".join(pieces), archive.asked[0].url.path) == (b"x" * 3_000_000, "/v1/backup")
    assert archive.asked[0].method == "GET"
    assert max(map(len, pieces)) == 1 << 20
    with pytest.raises(Refused, match="no reader"):
        list(Archive(ok({"error": "no reader"}, 403)).client().backup())
    with pytest.raises(Refused, match="no reader"):
        list(Archive(httpx.Response(403, content=iter([b'{"error":', b'"no reader"}']))).client().backup())

    def broken(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    client = ArchiveClient("http://archive", "t", transport=httpx.MockTransport(broken))
    with pytest.raises(Unreachable, match="at http://archive broke off the backup: reset"):
        list(client.backup())


def test_an_archive_that_does_not_answer_is_named() -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = ArchiveClient("http://archive", "t", transport=httpx.MockTransport(gone), patience=0.0)
    with pytest.raises(Unreachable, match="at http://archive doesn't answer GET /v1/ledger/checkpoint: refused"):
        client.checkpoint()


def test_what_is_looked_for_is_named_and_nothing_else() -> None:
    archive = Archive(ok([]))
    client = archive.client()
    assert client.find(id="req-7") == []
    client.find(type="verdict", model="other", limit=3)
    assert {(request.method, request.url.path) for request in archive.asked} == {("GET", "/v1/ledger/find")}
    queries = [dict(request.url.params) for request in archive.asked]
    assert queries == [
        {"model": "credit", "id": "req-7", "limit": "100"}, {"model": "other", "type": "verdict", "limit": "3"}
    ]  # fmt: skip


def test_a_batch_says_what_it_is_and_learns_where_it_lies() -> None:
    archive = Archive(ok({"first_index": 30, "size": 35, "ranges": [[30, 1], [33, 2]]}))
    answer = archive.client().append_batch("s", 4, [b"{}"])
    assert (answer.first_index, answer.size, answer.ranges) == (30, 35, [(30, 1), (33, 2)])
    assert archive.asked[0].headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(archive.asked[0].content) == {"stream": "s", "first_seq": 4, "entries": [b"{}"]}
    assert (archive.asked[0].method, archive.asked[0].url.path) == ("POST", "/v1/ledger/entries")


@pytest.mark.parametrize(
    ("named", "query"),
    [({}, ""), ({"entry": 0}, "entry=0"), ({"entry": 7}, "entry=7"), ({"ref": "a", "entry": 7}, "ref=a")],
)
def test_a_blob_is_asked_for_by_what_names_it(named: dict[str, Any], query: str) -> None:
    archive = Archive(ok(b"sealed"))
    assert archive.client().get_blob(DIGEST, **named) == b"sealed"
    assert archive.asked[0].url.query.decode() == query


@pytest.mark.parametrize(("model", "header"), [("credit", "credit"), ("", None)])
def test_whose_call_it_is_goes_along(model: str, header: str | None) -> None:
    archive = Archive(ok(b"note"))
    archive.client(model).checkpoint()
    assert archive.asked[0].headers.get("x-governed-model") == header
    assert archive.asked[0].extensions["timeout"] == {"connect": 30.0, "read": 30.0, "write": 30.0, "pool": 30.0}


def test_a_backup_may_be_silent_for_ten_minutes() -> None:
    archive = Archive(ok(b"x"))
    list(archive.client().backup())
    assert archive.asked[0].extensions["timeout"] == {"connect": 30.0, "read": 600.0, "write": 30.0, "pool": 30.0}


def test_nobody_s_proxy_sees_what_goes_to_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    with ArchiveClient("http://archive", "t") as client:
        assert client._http._mounts == {}
        assert "x-governed-model" not in client._http.headers
        assert client.patience == 30.0
    assert client._http.is_closed


@pytest.mark.parametrize("awaits", [True, False])
def test_a_token_that_is_not_known_yet_is_tried_again_by_whoever_awaits_it(awaits: bool) -> None:
    waits: list[float] = []
    archive = Archive(ok({"error": "whose is it?"}, 401), ok(b"note"))
    client = ArchiveClient(
        "http://archive", "t", transport=httpx.MockTransport(archive), awaits_token=awaits, sleep=waits.append,
        clock=lambda: 0.0,
    )  # fmt: skip
    if awaits:
        assert client.checkpoint() == "note"
    else:
        with pytest.raises(Refused, match="whose is it"):
            client.checkpoint()
    assert (len(waits), len(archive.asked)) == ((1, 2) if awaits else (0, 1))


def test_an_archive_that_goes_on_failing_is_quoted() -> None:
    archive = Archive(ok({"error": "the volume is full"}, 503))
    with pytest.raises(Unreachable, match="doesn't answer GET /v1/ledger/key: 503 the volume is full"):
        archive.client().vkey()


def test_of_a_refusal_in_no_form_two_hundred_characters_are_told() -> None:
    with pytest.raises(Refused) as caught:
        Archive(ok(b"x" * 300, 403)).client().checkpoint()
    assert str(caught.value) == "x" * 200


def listed(*indices: int, rest: object = None) -> httpx.Response:
    """A page of a list; ``rest``: what the header says of entries before it."""
    headers = {} if rest is None else {BEFORE_HEADER: str(rest)}
    return ok([{"index": i, "entry": {"type": "review"}} for i in indices], **headers)


def test_a_list_comes_page_by_page_from_its_end() -> None:
    archive = Archive(listed(8, 9, rest=8), listed(5, 7, rest=5), listed(0, 2))
    entries = archive.client().find_all(type="review", id="r")
    assert [entry.index for entry in entries] == [0, 2, 5, 7, 8, 9]
    assert entries[0].fields() == {"type": "review"}
    queries = [dict(request.url.params) for request in archive.asked]
    first = {"model": "credit", "id": "r", "type": "review", "limit": "1000"}
    assert queries == [first, first | {"before": "8"}, first | {"before": "5"}]


@pytest.mark.parametrize(
    ("after", "indices", "pages"),
    [(6, [7, 8, 9], 2), (7, [8, 9], 1), (8, [9], 1), (9, [], 1), (4, [5, 7, 8, 9], 2), (3, [5, 7, 8, 9], 3)],
)
def test_a_list_ends_where_it_is_asked_to(after: int, indices: list[int], pages: int) -> None:
    archive = Archive(listed(8, 9, rest=8), listed(5, 7, rest=5), listed(0, 2))
    assert [entry.index for entry in archive.client().find_all(after=after)] == indices
    assert dict(archive.asked[0].url.params) == {"model": "credit", "limit": "1000"}, "of any id and type"
    assert len(archive.asked) == pages


@pytest.mark.parametrize("rest", [8, 9])
def test_a_list_that_goes_on_where_it_was_is_refused(rest: int) -> None:
    archive = Archive(listed(8, 9, rest=8), listed(8, 9, rest=rest))
    with pytest.raises(Unverified, match=f"goes on before entry {rest}, which was listed already"):
        archive.client().find_all(type="review")


@pytest.mark.parametrize("rest", ["0", "soon", "-3", "", None])
def test_a_list_without_a_rest_is_whole(rest: str | None) -> None:
    archive = Archive(listed(8, 9, rest=rest))
    assert [entry.index for entry in archive.client().find_all()] == [8, 9]
    assert len(archive.asked) == 1


def test_both_times_are_said_each_by_its_name() -> None:
    archive = Archive(ok({"payloads": 60}), ok(), ok(status=404), ok())
    archive.client().say_times(payloads=90, keys=30)
    said = [(r.url.path, r.content) for r in archive.asked if r.method == "PUT"]
    assert said == [("/v1/refs/credit/retention", b'{"payloads":90}'), ("/v1/refs/credit/rotation", b'{"keys":30}')]


def test_a_replacement_that_is_there_is_asked_for_once() -> None:
    archive = Archive(ok())
    archive.client().keysets().replace("data", b"old", b"doc")
    assert [r.method for r in archive.asked] == ["PUT"]
