"""The connection goes to the address that was judged, and still asks for the host's own certificate; proxies and
authorities are those that were named."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from governed_serving.sources import Refused, Unavailable
from governed_serving.sources.web import Web
from support.certificates import Authority

from .conftest import Fetcher
from .servers import Answer, Bed, bed

NAME = "models.example"


def asked(web: Web, server: Bed) -> bytes:
    server.at("/m.onnx", Answer(b"model"))
    with closing(web), web.get(f"https://{NAME}:{server.url.rpartition(':')[2]}/m.onnx", {}) as answer:
        return answer.read()


def web(ca: Path | None) -> Web:
    return Web(f"https://{NAME}", ca=ca, resolve=lambda *_: ["127.0.0.1"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca")


def test_a_host_with_an_authority_of_its_own(authority: Authority) -> None:
    with bed(*authority.issue("server", "server", hosts=[NAME])) as server:
        assert asked(web(authority.certificate), server) == b"model"
        assert server.asked[0].headers["host"].startswith(NAME)


def test_an_address_that_nobody_answers_is_passed_over(authority: Authority) -> None:
    """A name with IPv6 addresses, asked for in a cluster that has none."""
    with bed(*authority.issue("server", "server", hosts=[NAME])) as server:
        both = Web(f"https://{NAME}", ca=authority.certificate, resolve=lambda *_: ["::1", "127.0.0.2", "127.0.0.1"])
        assert asked(both, server) == b"model"
    none = Web(f"https://{NAME}", ca=authority.certificate, resolve=lambda *_: ["127.0.0.2", "127.0.0.3"])
    with pytest.raises(Unavailable, match=f"https://{NAME}"):
        asked(none, server)


def test_certificates_that_are_not_the_hosts(authority: Authority, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other")
    cases = (
        (authority.issue("own", "server", hosts=[NAME]), None),
        (authority.issue("another", "server", hosts=["evil.example"]), authority.certificate),
        (authority.issue("address", "server", hosts=["127.0.0.1"]), authority.certificate),
        (authority.issue("old", "server", hosts=[NAME], lifetime=timedelta(minutes=-1)), authority.certificate),
        (other.issue("foreign", "server", hosts=[NAME]), authority.certificate),
    )
    for pair, ca in cases:
        with bed(*pair) as server:
            with pytest.raises(Refused, match=r"name its authority in storage\.caSecretRef"):
                asked(web(ca), server)
            assert server.asked == []


def test_a_proxy_of_the_environment_is_asked(
    server: Bed, other: Bed, fetched: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    far = "http://models.team.svc/m.onnx"
    other.at(far, Answer(b"far"))
    assert fetched(far).size == 3
    assert fetched(server.at("/near.onnx", Answer(b"nearby"))).size == 6
    assert (len(other.asked), len(server.asked)) == (1, 1)


def test_a_redirect_to_a_private_address_is_refused_behind_a_proxy_too(
    other: Bed, fetched: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other.url)
    for location in (
        "http://169.254.169.254/meta",
        "http://10.0.0.1/x",
        "http://admin.team.svc/x",
        "http://localhost/x",
    ):
        far = "http://models.team.svc/m.onnx"
        other.asked.clear()
        other.at(far, Answer(status=302, headers={"location": location}))
        with pytest.raises(Refused):
            fetched(far)
        assert len(other.asked) == 1
