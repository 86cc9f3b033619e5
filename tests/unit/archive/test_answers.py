"""Each route's answer as it goes over the wire: status, headers, body; and each limit, at it and beyond it."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from governed_serving.archive.tokens import READER, Tokens, model_token
from governed_serving.crypto import DirectoryStore, Keyring
from governed_serving.records import AppendRequest

from .ledgers import batch, leaf
from .test_app import MODEL_KEK, ROOT, Bed, sealed


class Wire:
    """Asks as ``name``."""

    def __init__(self, bed: Bed, name: str = "credit") -> None:
        headers = {"authorization": f"Bearer {model_token(ROOT, 'default', name)}", "x-governed-model": name}
        self._client = httpx.Client(base_url="http://archive", transport=bed.transport, headers=headers)

    def __call__(self, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self._client.request(method, path, content=content, headers=named)

    def append(self, entries: list[bytes], stream: str = "s", first: int = 0) -> httpx.Response:
        return self("POST", "/v1/ledger/entries", msgspec.msgpack.encode(AppendRequest(stream, first, entries)))


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    with closing(Bed(tmp_path / "archive")) as made:
        yield made


@pytest.fixture
def wire(bed: Bed) -> Wire:
    return Wire(bed)


def told(answer: httpx.Response) -> tuple[int, Any]:
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def error(answer: httpx.Response) -> tuple[int, str]:
    status, body = told(answer)
    return status, body["error"]


# -- ledger ------------------------------------------------------------------------------------------------------------


def test_an_append_tells_where_its_entries_are(wire: Wire) -> None:
    assert told(wire.append(batch(0, 3).entries)) == (200, {"first_index": 0, "size": 3, "ranges": [[0, 3]]})
    assert told(wire.append(batch(1, 4).entries, first=1)) == (
        200, {"first_index": 1, "size": 5, "ranges": [[1, 4]]},
    )  # fmt: skip
    status, body = told(wire.append(batch(9, 1).entries, first=9))
    assert (status, body["expected"]) == (409, 5)
    assert told(wire("GET", "/v1/ledger/streams/s")) == (200, {"next_seq": 5})
    assert told(wire("GET", "/v1/ledger/streams/none")) == (200, {"next_seq": 0})


def test_entries_come_a_thousand_at_most(wire: Wire) -> None:
    entries = [leaf("same", "verdict")] * 1001
    wire.append(entries)
    page = wire("GET", "/v1/ledger/entries?start=0&end=2")
    assert (page.status_code, page.content) == (200, b'{"entries":[' + b",".join(entries[:2]) + b"]}")
    counts = {
        (0, 1001): 1000, (0, 1000): 1000, (1, 5000): 1000, (2, 5000): 999, (1000, 1001): 1, (1001, 1002): 0, (5, 5): 0,
    }  # fmt: skip
    for (start, end), count in counts.items():
        status, body = told(wire("GET", f"/v1/ledger/entries?start={start}&end={end}"))
        assert (status, len(body["entries"])) == (200, count), (start, end)
    for start, end in ((2, 1), (-1, 1)):
        assert error(wire("GET", f"/v1/ledger/entries?start={start}&end={end}"))[0] == 400
    for limit, count in (("", 100), ("&limit=1", 1), ("&limit=1000", 1000), ("&limit=1001", 1000)):
        status, body = told(wire("GET", f"/v1/ledger/find?id=same&type=verdict{limit}"))
        assert (status, len(body)) == (200, count), limit
    assert body[-1] == {"index": 1000, "entry": msgspec.json.decode(entries[0])}
    assert told(wire("GET", "/v1/ledger/find?id=same&type=label")) == (200, [])


def test_proofs_are_about_the_whole_log_unless_asked_otherwise(bed: Bed, wire: Wire) -> None:
    wire.append(batch(0, 5).entries)
    ledger = bed.archive.ledger
    for query, index, size in (("index=1", 1, 5), ("index=1&size=3", 1, 3)):
        assert told(wire("GET", f"/v1/ledger/proof/inclusion?{query}")) == (
            200, {"index": index, "size": size, "hashes": [h.hex() for h in ledger.inclusion(index, size)]},
        )  # fmt: skip
    for query, first, second in (("first=2", 2, 5), ("first=2&second=3", 2, 3)):
        assert told(wire("GET", f"/v1/ledger/proof/consistency?{query}")) == (
            200, {"first": first, "second": second, "hashes": [h.hex() for h in ledger.consistency(first, second)]},
        )  # fmt: skip
    for query in ("inclusion?index=5", "inclusion?index=-1", "inclusion", "consistency?first=0", "consistency?first=6"):
        assert error(wire("GET", f"/v1/ledger/proof/{query}"))[0] == 400, query
    for path, text in (("checkpoint", ledger.checkpoint()), ("key", f"{ledger.vkey}\n")):
        answer = wire("GET", f"/v1/ledger/{path}")
        assert (answer.text, answer.headers["content-type"]) == (text, "text/plain; charset=utf-8")


def test_tiles_may_be_kept_for_ever_and_bundles_are_the_readers(bed: Bed, wire: Wire) -> None:
    entries = batch(0, 300).entries
    wire.append(entries)
    tile = wire("GET", "/v1/ledger/tile/0/001.p/44")
    assert (tile.status_code, len(tile.content)) == (200, 44 * 32)
    assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert tile.headers["content-type"] == "application/octet-stream"
    assert error(wire("GET", "/v1/ledger/tile/0/001.p/45")) == (404, "tile 0/001.p/45 is beyond a tree of 300 entries")
    reader = Wire(bed, READER)
    for path, first, count in (("000", 0, 256), ("000.p/7", 0, 7), ("001.p/44", 256, 44), ("001.p/1", 256, 1)):
        answer = reader("GET", f"/v1/ledger/tile/entries/{path}")
        expected = b"".join(len(e).to_bytes(2, "big") + e for e in entries[first : first + count])
        assert (answer.status_code, answer.content) == (200, expected)
        assert answer.headers["content-type"] == "application/octet-stream"
    assert error(reader("GET", "/v1/ledger/tile/entries/001")) == (
        404, "entries 256 to 511 are beyond a log of 300",
    )  # fmt: skip
    status, words = error(wire("GET", "/v1/ledger/tile/entries/000"))
    assert (status, words) == (
        403, "the token is that of credit, which may not read entry bundles; it takes that of reader",
    )  # fmt: skip


def test_a_body_has_its_greatest_size(wire: Wire) -> None:
    for method, path, most in (
        ("POST", "/v1/ledger/entries", 16 << 20),
        ("PUT", "/v1/keysets/credit/data", 256 << 10),
        ("DELETE", "/v1/keysets/credit/data", 64 << 10),
        ("PUT", "/v1/refs/credit/r", 64 << 10),
        ("PUT", "/v1/states/credit/s", 32 << 20),
    ):
        assert error(wire(method, path, b"x" * most))[0] != 413 or path.startswith("/v1/refs"), path
        assert error(wire(method, path, b"x" * (most + 1))) == (413, f"the body may have at most {most} bytes"), path
    value = b'{"a":"' + b"x" * (16_384 - 8) + b'"}'
    assert told(wire("PUT", "/v1/refs/credit/r", value)) == (200, {"name": "r"})
    assert error(wire("PUT", "/v1/refs/credit/r", value.replace(b"x", b"xx", 1)))[0] == 413


# -- blobs, keysets, references, states --------------------------------------------------------------------------------


def test_a_blob_is_created_once_and_gone_for_good(bed: Bed, wire: Wire) -> None:
    digest = hashlib.sha256(sealed()).hexdigest()
    path = f"/v1/blobs/{digest}"
    assert error(wire("GET", path)) == (404, f"blob {digest} is not here")
    assert told(wire("PUT", path, sealed())) == (201, {"blob": digest})
    assert told(wire("PUT", path, sealed())) == (200, {"blob": digest})
    answer = wire("GET", path)
    assert (answer.content, answer.headers["content-type"]) == (sealed(), "application/octet-stream")
    head = wire("HEAD", path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(sealed())))
    bed.archive.blobs.expire(digest)
    status, words = error(wire("GET", path))
    assert status == 410
    assert words.endswith("was deleted under governance.privacy.retention; the ledger has the receipt")
    assert told(wire("PUT", path, sealed())) == (200, {"blob": digest})
    assert bed.archive.blobs.size(digest) is None


def test_a_keyset_is_created_replaced_and_destroyed(wire: Wire, tmp_path: Path) -> None:
    documents = []
    for place in ("a", "b"):
        Keyring(MODEL_KEK, DirectoryStore(tmp_path / place)).keyset("data")
        documents.append((tmp_path / place / "data.keyset.json").read_bytes())
    first, second = documents
    path, digest = "/v1/keysets/credit/data", hashlib.sha256(first).hexdigest()
    assert error(wire("GET", path)) == (404, "credit has no data keyset")
    assert told(wire("GET", "/v1/keysets/credit")) == (200, {"purposes": []})
    assert told(wire("PUT", path, first)) == (201, {"purpose": "data"})
    answer = wire("PUT", path, second)
    assert (answer.status_code, answer.content) == (409, first)
    answer = wire("GET", path)
    assert (answer.content, answer.headers["content-type"]) == (first, "application/json")
    status, words = error(wire("PUT", path, second, if_match=f'"{"0" * 64}"'))
    assert (status, words) == (
        412, f"the data keyset of credit has SHA-256 {digest}, expected {'0' * 64}: read it again",
    )  # fmt: skip
    assert told(wire("PUT", path, second, if_match=f'"{digest}"')) == (200, {"purpose": "data"})
    assert wire("GET", path).content == second
    assert told(wire("GET", "/v1/keysets/credit")) == (200, {"purposes": ["data"]})
    assert told(wire("DELETE", path, b'{"by":"me"}')) == (200, {"purpose": "data"})
    assert [error(wire(m, path, b))[0] for m, b in (("GET", b""), ("PUT", first), ("DELETE", b""))] == [410] * 3
    assert error(wire("PUT", path, b"{}"))[0] == 415
    found = told(wire("GET", "/v1/ledger/find?type=key"))[1]
    said = [f["entry"] for f in found]
    actions = [("created", first), ("replaced", second), ("destroyed", second)]
    assert [(e["id"], e["digest"]) for e in said] == [
        (f"data:{action}", hashlib.sha256(document).hexdigest()) for action, document in actions
    ]
    assert [e["summary"] for e in said[:2]] == [{"action": a, "purpose": "data"} for a, _ in actions[:2]]
    receipt = hashlib.sha256(b'{"by":"me"}').hexdigest()
    assert said[2]["summary"] == {"action": "destroyed", "purpose": "data", "receipt": receipt}


def test_names_are_listed_and_values_come_back(wire: Wire) -> None:
    for kind, value in (("refs", b'{"a":1}'), ("states", sealed())):
        name = kind[:-1]
        assert error(wire("GET", f"/v1/{kind}/credit/n")) == (
            404,
            f"credit has no {'reference' if name == 'ref' else name} n",
        )
        assert told(wire("GET", f"/v1/{kind}/credit")) == (200, {kind: []})
        for one in ("n", "m"):
            assert told(wire("PUT", f"/v1/{kind}/credit/{one}", value)) == (200, {"name": one})
        assert told(wire("GET", f"/v1/{kind}/credit")) == (200, {kind: ["m", "n"]})
        assert wire("GET", f"/v1/{kind}/credit/n").content == value
    assert wire("GET", "/v1/refs/credit/n").headers["content-type"] == "application/json"
    state, digest = wire("GET", "/v1/states/credit/n"), hashlib.sha256(sealed()).hexdigest()
    assert (state.headers["content-type"], state.headers["etag"]) == ("application/octet-stream", f'"{digest}"')
    assert wire("GET", "/v1/states/credit/n", if_none_match=f'"{digest}"').status_code == 304
    assert wire("GET", "/v1/states/credit/n", if_none_match=f'"{"0" * 64}"').status_code == 200
    for body, status in ((b"[]", 400), (b"{", 400), (b"1", 400)):
        assert error(wire("PUT", "/v1/refs/credit/x", body))[0] == status


# -- who speaks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic x", f"Bearer {'0' * 64}", "x"])
def test_what_is_no_token_says_nothing(bed: Bed, authorization: str) -> None:
    with httpx.Client(base_url="http://archive", transport=bed.transport) as anyone:
        answer = anyone.get("/v1/ledger/entries?start=0&end=1", headers={"authorization": authorization})
    assert answer.status_code == 401


def test_a_token_is_known_by_its_bytes_whatever_the_case_of_its_scheme() -> None:
    tokens = Tokens(bytes(16), "default")
    mine = model_token(bytes(16), "default", "credit")
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert tokens.speaker(f"{scheme} {mine}", ["other", "credit"]) == ("credit", None)
    assert tokens.speaker(f"Bearer {mine} ", ["credit"]) == ("credit", None)
    assert tokens.speaker(f"Bearer {mine}", []) == ("credit", None), "remembered"
    assert tokens.speaker(f"Bearer {model_token(bytes(16), 'default', READER)}", ["credit"]).reads_all
    with pytest.raises(ValueError, match="at least 16 bytes, found 15"):
        Tokens(bytes(15), "default")


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_tell_what_was_answered_and_what_was_done(bed: Bed, wire: Wire) -> None:
    wire.append(batch(0, 3).entries)
    wire.append(batch(9, 1).entries, first=9)
    wire("GET", "/v1/refs/credit/none")
    bed.archive.ledger.say("x")
    bed.archive.ledger.faults[0] = "y"
    bed.archive.retention.deleted = 7
    answer = wire("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    common = 'component="archive",namespace="default"'
    figures = {
        "ledger_entries": 3, "appends_waiting": 0, "commit_groups": 2, "deleted_blobs": 7, "rebuilt_files": 1,
        "ledger_faults": 1, "cosigned_entries": 0, "ledger_contradicted": 0,
    }  # fmt: skip
    for name, value in figures.items():
        assert float(lines[f"governed_archive_{name}{{{common}}}"]) == value, name
    assert 0 < float(lines[f"governed_archive_commit_seconds{{{common}}}"]) < 60
    for method, route, status in (
        ("POST", "/v1/ledger/entries", 200),
        ("POST", "/v1/ledger/entries", 409),
        ("GET", "/v1/refs/{model}/{name}", 404),
    ):
        labels = f'component="archive",method="{method}",namespace="default",route="{route}",status="{status}"'
        assert float(lines[f"governed_archive_requests_total{{{labels}}}"]) == 1
    seconds = 'component="archive",method="POST",namespace="default",route="/v1/ledger/entries"'
    assert float(lines[f"governed_archive_request_seconds_count{{{seconds}}}"]) == 2
    assert 0 < float(lines[f"governed_archive_request_seconds_sum{{{seconds}}}"]) < 60
