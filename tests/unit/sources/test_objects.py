"""Objects of a storage that answers as S3 does; a real one is in tests/local."""

from collections.abc import Callable
from typing import Any

import pytest

from governed_serving.sources import Refused, Unavailable
from governed_serving.sources.fetching import opened
from governed_serving.sources.source import Access

from .conftest import Fetcher
from .servers import Answer, Asked, Bed, sha256

WHEN = "Sun, 01 Nov 2026 00:00:00 GMT"
DATA = bytes(range(256)) * 900


def stored(server: Bed, cut: int | None = None, **objects: bytes) -> None:
    """As S3 answers for bucket ``models``."""

    def listed(asked: Asked) -> Answer:
        prefix = asked.path.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified>"
            f'<ETag>"e-{len(data)}"</ETag><Size>{len(data)}</Size></Contents>'
            for key, data in objects.items()
            if key.startswith(prefix)
        )
        xml = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        return Answer(xml.encode(), headers={"content-type": "application/xml"})

    server.at("/models", listed)
    for key, data in objects.items():
        server.at(f"/models/{key}", given(data, cut))


def given(data: bytes, cut: int | None) -> Callable[[Asked], Answer]:
    def route(asked: Asked) -> Answer:
        headers = {"etag": f'"e-{len(data)}"', "last-modified": WHEN}
        if asked.headers.get("if-match", headers["etag"]) != headers["etag"]:
            return Answer(status=412)
        if span := asked.headers.get("range", ""):
            first = int(span.removeprefix("bytes=").partition("-")[0])
            said = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return Answer(data[first:], 206, {**headers, "content-range": said}, cut)
        return Answer(data, 200, headers, cut)

    return route


def test_an_object_is_a_file_and_a_prefix_a_folder(server: Bed, fetched: Fetcher) -> None:
    stored(server, **{"m/a.onnx": b"one", "m/conf/b.json": b"{}", "other": b"x"})
    one = fetched("s3://models/m/a.onnx", endpoint=server.url)
    assert (one.single, one.digest) == (True, f"sha256:{sha256(b'one')}")
    assert [f.path for f in fetched("s3://models/m", endpoint=server.url).files] == ["a.onnx", "conf/b.json"]
    assert [f.path for f in fetched("s3://models/m/", files={"*.json": ""}, endpoint=server.url).files] == [
        "conf/b.json"
    ]
    assert all("authorization" not in asked.headers for asked in server.asked)


def test_an_object_that_is_cut_off_goes_on(server: Bed, fetched: Fetcher) -> None:
    stored(server, **{"m.onnx": DATA})
    server.at("/models/m.onnx", given(DATA, None), given(DATA, 100_000), given(DATA, None))
    tree = fetched("s3://models/m.onnx", endpoint=server.url)
    assert tree.digest == f"sha256:{sha256(DATA)}"


def test_an_object_that_is_replaced_midway_is_refused(server: Bed, fetched: Fetcher) -> None:
    stored(server, **{"m.onnx": DATA})
    server.at("/models/m.onnx", given(DATA, None), given(DATA[1:], None))
    with pytest.raises(Refused, match="changes while it is read"):
        fetched("s3://models/m.onnx", endpoint=server.url)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [(403, Refused, "give no right"), (404, Refused, "found none"), (501, Unavailable, "m.onnx")],
)
def test_refusals(status: int, error: type[Exception], words: str, server: Bed, fetched: Fetcher) -> None:
    server.at(
        "/models", Answer(b"<Error/>" if status != 404 else b"<ListBucketResult/>", 200 if status == 404 else status)
    )
    server.at("/models/m.onnx", Answer(status=status))
    with pytest.raises(error, match=words):
        fetched("s3://models/m.onnx", endpoint=server.url)


def test_keys_of_a_secret_sign(server: Bed, fetched: Fetcher, keys: Any) -> None:
    stored(server, **{"m.onnx": b"one"})
    fetched("s3://models/m.onnx", endpoint=server.url, keys=keys(access_key_id="AK", secret_access_key="hunter2"))
    assert all("Credential=AK/" in asked.headers["authorization"] for asked in server.asked)


def test_keys_stay_with_the_endpoint(server: Bed, other: Bed, fetched: Fetcher, keys: Any) -> None:
    """obstore follows redirects by itself."""
    server.at("/models/m.onnx", Answer(status=307, headers={"location": other.at("/x", given(DATA, None))}))
    fetched("s3://models/m.onnx", endpoint=server.url, keys=keys(access_key_id="AK", secret_access_key="hunter2"))
    assert {asked.headers.get("authorization") for asked in other.asked} == {None}


@pytest.mark.parametrize(
    ("uri", "files", "words"),
    [
        ("az://container/key", {}, "account-name"),
        ("gs://bucket/key", {"service_account.json": "no json"}, "correct storage.secretRef"),
    ],
)
def test_keys_of_the_wrong_kind(uri: str, files: dict[str, str], words: str, keys: Any) -> None:
    made = keys(**files)
    with pytest.raises(Refused, match=words):
        opened(uri, Access(made)).close()


def test_an_endpoint_in_the_open_is_refused() -> None:
    with pytest.raises(Refused, match="expected https"):
        opened("s3://bucket/key", Access(endpoint="http://storage.example"))
