"""Files over HTTP from servers that are slow, broken, busy or hostile: whole and as pinned, or refused in words."""

import errno
import io
import itertools
from pathlib import Path
from typing import Any

import pytest

from governed_serving.sources import Differs, NoRoom, Refused, Unavailable, download, fetching
from governed_serving.sources import web as web_room
from governed_serving.sources.web import Web

from .conftest import Fetcher
from .servers import Answer, Asked, Bed, ranged, sha256

DATA = bytes(range(256)) * 700
DIGEST = f"sha256:{sha256(DATA)}"


def content(tree: Any) -> bytes:
    return bytes(tree.place.read_bytes())


def test_a_file_is_fetched_and_pinned(server: Bed, fetched: Fetcher) -> None:
    tree = fetched(server.at("/m.onnx", ranged(DATA)), DIGEST)
    assert (content(tree), tree.digest, tree.single, tree.place.name) == (DATA, DIGEST, True, "m.onnx")
    assert fetched.told[-1] == ("m.onnx", len(DATA), len(DATA))


def test_what_is_cut_off_goes_on_where_it_was(server: Bed, fetched: Fetcher) -> None:
    uri = server.at("/m.onnx", ranged(DATA, cut=60_000))
    assert content(fetched(uri, DIGEST)) == DATA
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=60000-", "bytes=120000-"]


def test_a_process_that_starts_again_goes_on(server: Bed, fetched: Fetcher) -> None:
    uri = server.at("/m.onnx", ranged(DATA, cut=100_000), Answer(status=503))
    with pytest.raises(Unavailable):
        fetched(uri, DIGEST)
    server.at("/m.onnx", ranged(DATA))
    assert content(fetched(uri, DIGEST)) == DATA
    assert server.asked[-1].headers["range"] == "bytes=100000-"


def test_a_server_that_ignores_ranges_sends_all_again(server: Bed, fetched: Fetcher) -> None:
    good = Answer(DATA, 200, {"etag": '"one"'})
    uri = server.at("/m.onnx", Answer(DATA, 200, {"etag": '"one"'}, cut=70_000), good)
    assert content(fetched(uri, DIGEST)) == DATA
    assert server.asked[-1].headers["range"] == "bytes=70000-"


def test_without_a_validator_nothing_is_joined(server: Bed, fetched: Fetcher) -> None:
    uri = server.at("/m.onnx", Answer(DATA, cut=70_000), Answer(DATA))
    assert content(fetched(uri, DIGEST)) == DATA
    assert "range" not in server.asked[-1].headers


def test_a_file_that_changes_midway_is_begun_anew(server: Bed, fetched: Fetcher) -> None:
    old = b"x" * len(DATA)
    uri = server.at("/m.onnx", ranged(old, '"old"', cut=50_000), ranged(DATA, '"new"'))
    assert content(fetched(uri, DIGEST)) == DATA


def test_a_server_that_joins_two_versions_is_noticed(server: Bed, fetched: Fetcher) -> None:
    def mixed(asked: Asked) -> Answer:
        first = int(asked.headers["range"].removeprefix("bytes=").rstrip("-")) if "range" in asked.headers else 0
        said = f"bytes {first}-{len(DATA) - 1}/{len(DATA)}"
        status = 206 if first else 200
        return Answer(DATA[first:], status, {"etag": '"new"', "content-range": said} if first else {"etag": '"new"'})

    uri = server.at("/m.onnx", ranged(b"x" * len(DATA), '"old"', cut=50_000), mixed)
    assert content(fetched(uri, DIGEST)) == DATA


def test_a_file_that_never_stands_still_is_given_up(server: Bed, fetched: Fetcher) -> None:
    turns = [ranged(bytes([n]) * 9000, f'"{n}"', cut=4000) for n in range(9)]
    strict = [lambda asked, n=n: Answer(status=412) if "range" in asked.headers else turns[n](asked) for n in range(9)]
    with pytest.raises(Refused, match="changes while it is read"):
        fetched(server.at("/m.onnx", *strict))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_after_the_time_asked_for(status: int, server: Bed, fetched: Fetcher) -> None:
    uri = server.at("/m.onnx", Answer(status=status, headers={"retry-after": "7"}), ranged(DATA))
    assert content(fetched(uri, DIGEST)) == DATA
    assert fetched.slept[0] >= 7


def test_tries_end(server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Unavailable, match=r"m\.onnx: 503"):
        fetched(server.at("/m.onnx", Answer(status=503)))
    assert len(server.asked) == 6
    with pytest.raises(Unavailable, match="429"):
        fetched(server.at("/b.onnx", Answer(status=429, headers={"retry-after": "86400"})))
    assert len(server.asked) == 7


def test_a_drip_of_bytes_is_no_progress(server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Unavailable, match=f"of {len(DATA)} bytes|cut off"):
        fetched(server.at("/m.onnx", ranged(DATA, cut=10)))
    assert len(server.asked) == 6


def test_a_server_that_drips_for_ever_is_given_up(server: Bed, fetched: Fetcher) -> None:
    hours = itertools.count(0, 3600)
    fetched.clock = lambda: next(hours)
    with pytest.raises(Unavailable, match="less than 1024 bytes a second"):
        fetched(server.at("/m.onnx", ranged(DATA)))
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "name them in storage.secretRef"), (403, "give no right"), (404, "nothing under this"), (410, "expected")],
)
def test_what_cannot_pass_is_final_at_once(status: int, words: str, server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Refused, match=f"{status}.*{words}"):
        fetched(server.at("/m.onnx", Answer(status=status)))
    assert (len(server.asked), fetched.slept) == (1, [])


def test_other_bytes_are_refused_and_not_left_there(server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Differs, match=r"expected digest sha256:000.*found sha256:.*it is not served"):
        fetched(server.at("/m.onnx", ranged(DATA)), "sha256:" + "0" * 64)


def test_a_body_beyond_its_bound_ends(server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Refused, match=r"at most 1000 are taken in all; raise volumeSize"):
        fetched(server.at("/m.onnx", ranged(DATA)), most=1000)
    assert sum(path.stat().st_size for path in fetched.folder.rglob("*") if path.is_file()) < 1000


def test_a_content_encoding_is_refused(server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Refused, match="found content-encoding"):
        fetched(server.at("/m.onnx", Answer(DATA, headers={"content-encoding": "gzip"})))


def test_another_range_than_asked_for_is_refused(server: Bed, fetched: Fetcher) -> None:
    wrong = Answer(DATA, 206, {"etag": '"one"', "content-range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"})
    with pytest.raises(Refused, match="expected bytes from 60000 on"):
        fetched(server.at("/m.onnx", ranged(DATA, cut=60_000), wrong))


def test_a_redirect_loop_ends(server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Refused, match="more than 5 redirects"):
        fetched(server.at("/m.onnx", Answer(status=302, headers={"location": "/m.onnx"})))
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://x",
        "http://user:pass@127.0.0.1/x",
        "",
        "http://example.com/x",
    ],
)
def test_a_redirect_that_leads_nowhere_good(location: str, server: Bed, fetched: Fetcher) -> None:
    with pytest.raises(Refused):
        fetched(server.at("/m.onnx", Answer(status=302, headers={"location": location})))
    assert len(server.asked) == 1


def test_a_redirect_into_a_private_network_is_refused(server: Bed, fetched: Fetcher) -> None:
    for location in (
        "http://localhost/x",
        "http://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://[::1]/",
    ):
        with pytest.raises(Refused, match=r"expected a public address|it isn't the host that was named"):
            fetched(server.at("/m.onnx", Answer(status=307, headers={"location": location})))


def test_a_public_name_with_a_private_address_is_refused_behind_a_redirect() -> None:
    web = Web("https://models.example", resolve=lambda host, _: ["10.1.2.3" if host == "evil.example" else "9.9.9.9"])
    origin = web_room.Origin.of("https://evil.example/x")
    with pytest.raises(Refused, match=r"found 10\.1\.2\.3; it isn't the host"):
        web._judged("https://evil.example/x", origin)
    named = Web("https://evil.example", resolve=lambda *_: ["169.254.169.254"])
    with pytest.raises(Refused, match=r"found 169\.254\.169\.254"):
        named._judged("https://evil.example/x", origin)
    assert Web("https://evil.example", resolve=lambda *_: ["10.1.2.3"])._judged("https://evil.example/x", origin)


def test_credentials_stay_with_the_host_they_are_for(server: Bed, other: Bed, fetched: Fetcher, keys: Any) -> None:
    uri = server.at(
        "/m.onnx", Answer(status=302, headers={"location": f"{other.at('/elsewhere', ranged(DATA))}?sig=1"})
    )
    tree = fetched(uri, DIGEST, keys=keys(token="secret"))
    assert content(tree) == DATA
    assert server.asked[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in other.asked[0].headers


def test_credentials_and_signatures_are_in_no_message(server: Bed, fetched: Fetcher, keys: Any) -> None:
    uri = server.at("/m.onnx", Answer(status=403))
    with pytest.raises(Refused) as caught:
        fetched(uri, keys=keys(username="u", password="hunter2"))
    assert "hunter2" not in str(caught.value)
    assert server.asked[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(code: int, server: Bed, fetched: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(code, "full")

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", *a, **k: Full() if mode == "ab" else real(path, mode, *a, **k)
    )
    with pytest.raises(NoRoom, match=r"no room for m\.onnx.*raise volumeSize"):
        fetched(server.at("/m.onnx", ranged(DATA)))


def test_a_list_that_does_not_fit_is_refused_before_it_is_fetched(
    fetched: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: Usage)
    listed = [fetching.Listed("a", 5), fetching.Listed("b", 6)]
    with pytest.raises(NoRoom, match="has 11 bytes, and 10 are free"):
        fetching._refuse_size(listed, "s3://bucket/key", fetched.folder, download.Bounds())
    with pytest.raises(Refused, match="has 11 bytes in 2 files, at most 7"):
        fetching._refuse_size(listed, "s3://bucket/key", fetched.folder, download.Bounds(7))


@pytest.mark.parametrize(
    "uri",
    ["ftp://h/x", "https://h", "https://user@h/x", "s3://bucket", "hf://name@main", "hf://org/name", "oci://r/n",
     "oci://r/n@sha256:12", "https://h/x#f", "s3://b/k?x=1", "pvc:/x", "HTTPS://h/x", ""],
)  # fmt: skip
def test_a_uri_of_no_known_form_is_refused_with_the_form(uri: str, fetched: Fetcher) -> None:
    with pytest.raises(Refused, match="expected"):
        fetched(uri)


def test_http_is_for_this_machine_and_the_cluster(fetched: Fetcher) -> None:
    with pytest.raises(Refused, match="expected https"):
        fetched("http://example.com/m.onnx")
