"""Repositories of a hub: by commit, listed in pages, the token shown to the hub alone."""

import itertools
import json
from typing import Any

import pytest

from governed_serving.sources import Differs, Refused, Unavailable, web

from .conftest import Fetcher
from .servers import Answer, Bed, as_json, ranged, sha256

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "onnx/model.onnx": b"graph" * 1000, "tokenizer.json": b"[]"}


def entry(path: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": "0" * 40, **more}


def repository(server: Bed, files: dict[str, bytes] = FILES, **more: Any) -> None:
    """As the hub answers: weights (LFS) with their SHA-256, the list in two pages."""
    server.at("/api/models/org/name/revision/main", as_json({"sha": COMMIT, "siblings": []}))
    listed = [
        entry(path, data, **({"lfs": {"oid": sha256(data), "size": len(data)}} if "onnx" in path else {}), **more)
        for path, data in files.items()
    ]
    tree = f"/api/models/org/name/tree/{COMMIT}"
    following = f'<{server.url}{tree}/next?cursor=x>; rel="next"'
    server.at(tree, as_json([{"type": "directory", "path": "onnx"}, *listed[:1]], link=following))
    server.at(f"{tree}/next", as_json(listed[1:]))
    for path, data in files.items():
        server.at(f"/org/name/resolve/{COMMIT}/{path}", ranged(data))


def test_a_repository_is_a_folder(server: Bed, fetched: Fetcher) -> None:
    repository(server)
    tree = fetched("hf://org/name@main", endpoint=server.url)
    assert {f.path: f.sha256 for f in tree.files} == {path: sha256(data) for path, data in FILES.items()}
    assert fetched("hf://org/name@main", tree.digest, endpoint=server.url).digest == tree.digest


def test_one_file_and_some_files(server: Bed, fetched: Fetcher) -> None:
    repository(server)
    one = fetched("hf://org/name@main/onnx/model.onnx", endpoint=server.url)
    assert (one.single, one.digest) == (True, f"sha256:{sha256(FILES['onnx/model.onnx'])}")
    some = fetched("hf://org/name@main", files={"*.json": ""}, endpoint=server.url)
    assert [f.path for f in some.files] == ["config.json", "tokenizer.json"]
    with pytest.raises(Refused, match=r"expected none\.onnx, found none at commit"):
        fetched("hf://org/name@main/none.onnx", endpoint=server.url)


def test_large_files_come_from_another_host_without_the_token(
    server: Bed, other: Bed, fetched: Fetcher, keys: Any
) -> None:
    repository(server)
    moved = other.at("/blob", ranged(FILES["onnx/model.onnx"]))
    resolve = f"/org/name/resolve/{COMMIT}/onnx/model.onnx"
    server.at(resolve, Answer(status=302, headers={"location": f"{moved}?signature=1"}))
    fetched("hf://org/name@main", endpoint=server.url, keys=keys(token="hf_x"))
    assert {asked.headers.get("authorization") for asked in server.asked} == {"Bearer hf_x"}
    assert [asked.headers.get("authorization") for asked in other.asked] == [None]


def test_a_file_that_is_not_as_listed_is_named(server: Bed, fetched: Fetcher) -> None:
    repository(server)
    other = b"x" * len(FILES["onnx/model.onnx"])
    server.at(f"/org/name/resolve/{COMMIT}/onnx/model.onnx", ranged(other))
    with pytest.raises(Differs, match=r"onnx/model.onnx has SHA-256 .* and the source lists it"):
        fetched("hf://org/name@main", endpoint=server.url)


def test_a_branch_that_moves_midway_changes_nothing(server: Bed, fetched: Fetcher) -> None:
    repository(server)
    moves = as_json({"sha": "f" * 40})
    server.at("/api/models/org/name/revision/main", as_json({"sha": COMMIT}), moves)
    assert len(fetched("hf://org/name@main", endpoint=server.url).files) == 3
    assert all(COMMIT in asked.path for asked in server.asked[1:])


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ([entry("../../etc/cron.d/x", b"")], "file name"),
        ([entry("/etc/x", b"")], "file name"),
        ([entry("a", b""), entry("A", b"")], "letter case"),
        ([entry("pytorch_model.pt", b"")], "pickle, whose reading runs code"),
        ([entry("a", b"", size=1 << 40)], "raise volumeSize"),
        ([entry(f"f{n}", b"") for n in range(10_001)], "at most 10000 files"),
        ([], "expected files, found none"),
        ({"error": "no list"}, "expected a list of files, found other JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_lists_that_are_not_taken(listed: Any, words: str, server: Bed, fetched: Fetcher) -> None:
    repository(server)
    server.at(f"/api/models/org/name/tree/{COMMIT}", as_json(listed))
    with pytest.raises(Refused, match=words):
        fetched("hf://org/name@main", endpoint=server.url)
    assert not any("/resolve/" in asked.path for asked in server.asked)


def test_a_list_does_not_go_on_elsewhere(server: Bed, other: Bed, fetched: Fetcher, keys: Any) -> None:
    repository(server)
    away = f'<{other.url}/tree>; rel="next"'
    server.at(f"/api/models/org/name/tree/{COMMIT}", as_json([entry("a", b"1")], link=away))
    with pytest.raises(Refused, match="next page at"):
        fetched("hf://org/name@main", endpoint=server.url, keys=keys(token="x"))
    assert other.asked == []


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"sha": "../../x"}', b'{"sha": 1}', b"[" * 100_000])
def test_answers_that_say_no_commit(body: bytes, server: Bed, fetched: Fetcher) -> None:
    server.at("/api/models/org/name/revision/main", Answer(body))
    with pytest.raises(Refused, match=r"expected JSON|expected the commit"):
        fetched("hf://org/name@main", endpoint=server.url)


def test_a_document_without_end_is_refused(server: Bed, fetched: Fetcher) -> None:
    server.at("/api/models/org/name/revision/main", Answer(json.dumps("x" * (17 << 20)).encode()))
    with pytest.raises(Refused, match="at most 16 MiB"):
        fetched("hf://org/name@main", endpoint=server.url)


def test_what_an_earlier_commit_left_is_not_taken_for_this_one(server: Bed, fetched: Fetcher) -> None:
    repository(server)
    server.at(f"/org/name/resolve/{COMMIT}/tokenizer.json", Answer(status=404))
    with pytest.raises(Refused):
        fetched("hf://org/name@main", endpoint=server.url)
    repository(server, {**FILES, "config.json": b"[]"})  # as long as before
    tree = fetched("hf://org/name@main", endpoint=server.url)
    assert {f.path: f.sha256 for f in tree.files}["config.json"] == sha256(b"[]")


def test_a_document_that_drips_is_given_up(server: Bed, fetched: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(server)
    hours = itertools.count(0, 3600)
    monkeypatch.setattr(web.time, "monotonic", lambda: next(hours))
    with pytest.raises(Unavailable, match="expected a document within 120 s"):
        fetched("hf://org/name@main", endpoint=server.url)
