"""The newest good document goes on, whatever comes after it and wherever it comes from."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api import runtime
from governed_api.callers import CALLERS_FILE, caller_pseudonym
from governed_api.model import GovernedModelSpec
from governed_api.resolved import ResolvedModel
from governed_serving.access import document as module
from governed_serving.access.directory import Known
from governed_serving.access.document import Documents, Sources, opened
from governed_serving.access.gate import Gate
from governed_serving.access.refusals import Unknown
from governed_serving.durable import replace_file
from governed_serving.environment import InvalidSettings, PodEnvironment
from governed_serving.pod_token import PodToken
from support.waiting import eventually
from unit.access.people import SECRET, caller, document, key, sealed

A, B = key("a"), key("b")


def gate() -> Gate:
    return Gate("team-a", "credit", "server", SECRET)


def files(tmp_path: Path, made: Gate | None = None) -> tuple[Documents, Path]:
    path = tmp_path / CALLERS_FILE
    return Documents(made or gate(), Sources(secret=SECRET, paths=(path,)), poll=0.01), path


def names(documents: Documents, *shown: str) -> list[str]:
    def name(text: str) -> str:
        try:
            found: Known = documents.gate.known(text)
        except Unknown as error:
            return error.reason
        return found.name

    return [name(text) for text in shown]


def test_without_a_document_nobody_is_known(tmp_path: Path) -> None:
    documents, _ = files(tmp_path)
    documents.look()
    assert names(documents, A) == ["unknown"]
    assert documents.gate.bad_documents == 0


BAD: dict[str, bytes] = {
    "edited": sealed(document(caller("evil", B), sequence=9)).replace(b"evil", b"good"),
    "under another key": sealed(document(caller("evil", B), sequence=9), "00" * 32),
    "another model's": sealed(document(caller("evil", B), sequence=9, model="other")),
    "truncated": sealed(document(caller("evil", B), sequence=9))[:-20],
    "empty": b"",
    "not sealed": document(caller("evil", B), sequence=9),
    "a tag alone": sealed(document(caller("evil", B), sequence=9))[:64],
    "of bytes": bytes(range(256)),
    "sealed rubbish": sealed(b"\xff{"),
    "older": sealed(document(caller("evil", B), sequence=1)),
    "of the same sequence": sealed(document(caller("evil", B), sequence=2)),
}


@pytest.mark.parametrize("kind", BAD)
def test_the_last_good_document_goes_on(tmp_path: Path, kind: str) -> None:
    documents, path = files(tmp_path)
    path.write_bytes(sealed(document(caller("team", A), sequence=2)))
    documents.look()
    assert names(documents, A, B) == ["team", "unknown"]
    replace_file(path, BAD[kind], mode=0o600)
    for _ in range(3):
        documents.look()
    assert names(documents, A, B) == ["team", "unknown"]
    assert documents.gate.bad_documents == 1, "told once"
    path.unlink()
    documents.look()
    assert names(documents, A) == ["team"]
    replace_file(path, sealed(document(caller("next", A), sequence=3)), mode=0o600)
    documents.look()
    assert names(documents, A) == ["next"]


def test_a_change_is_noticed_and_a_revoked_key_opens_nothing(tmp_path: Path) -> None:
    documents, path = files(tmp_path)
    path.write_bytes(sealed(document(caller("team", A))))
    documents.start()
    assert names(documents, A) == ["team"]
    replace_file(path, sealed(document(caller("team", B), sequence=2)), mode=0o600)
    eventually(lambda: names(documents, A, B) == ["unknown", "team"])
    documents.stop()


class ApiServer:
    """Lists one ConfigMap and tells of its changes; each stream ends when it is told to."""

    def __init__(self) -> None:
        self.sequence, self.away, self.asked = 1, False, list[httpx.Request]()
        self.changed = threading.Event()
        self.events: list[dict[str, Any]] = []

    def config_map(self, sequence: int) -> dict[str, Any]:
        return {"data": {CALLERS_FILE: sealed(document(caller(f"c{sequence}", A), sequence=sequence)).decode()}}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.away:
            raise httpx.ConnectError("away")
        if "watch" in request.url.params:
            return httpx.Response(200, stream=Events(self._told))
        return httpx.Response(
            200, json={"metadata": {"resourceVersion": "7"}, "items": [self.config_map(self.sequence)]}
        )

    def _told(self) -> Iterator[bytes]:
        self.changed.wait(60)
        self.changed.clear()
        for event in self.events:
            yield json.dumps(event).encode() + b"\n"


class Events(httpx.SyncByteStream):
    def __init__(self, told: Callable[[], Iterator[bytes]]) -> None:
        self._told = told

    def __iter__(self) -> Iterator[bytes]:
        return self._told()


def test_the_api_server_tells_at_once_and_the_file_beside_the_tokens_tells_the_others(tmp_path: Path) -> None:
    server, relay = ApiServer(), tmp_path / "relay.json"
    (tmp_path / "token").write_text("t0ken")
    url = "https://kubernetes.default.svc/api/v1/namespaces/team-a/configmaps/credit-callers"
    sources = Sources(secret=SECRET, paths=(tmp_path / "mounted.json",), url=url, relay=relay)
    heard = Documents(gate(), sources, account=tmp_path, transport=httpx.MockTransport(server), poll=0.01)
    others = Documents(gate(), Sources(secret=SECRET, paths=(tmp_path / "mounted.json", relay)), poll=0.01)
    heard.start()
    others.start()
    eventually(lambda: names(heard, A) == ["c1"])
    assert server.asked[0].headers["authorization"] == "Bearer t0ken"
    assert server.asked[0].url.params["fieldSelector"] == "metadata.name=credit-callers"
    server.events = [{"type": "MODIFIED", "object": server.config_map(2)}, {"type": "DELETED", "object": {}}]
    server.sequence = 2
    server.changed.set()
    eventually(lambda: names(heard, A) == names(others, A) == ["c2"])
    # what kubelet mounts comes late, and is older then
    replace_file(tmp_path / "mounted.json", sealed(document(caller("c1", A), sequence=1)), mode=0o600)
    server.away, server.sequence = True, 3
    server.events = [{"type": "ERROR", "object": {"code": 410}}]
    server.changed.set()
    eventually(lambda: heard.gate.watch_failures > 1)
    assert names(heard, A) == names(others, A) == ["c2"]
    server.away = False
    eventually(lambda: names(heard, A) == names(others, A) == ["c3"])
    heard.stop()
    others.stop()
    server.changed.set()
    assert heard.gate.bad_documents == others.gate.bad_documents == 0


@pytest.mark.parametrize("content", [b"", b"zz" * 32, b"5e" * 31, b"5e" * 33, "ключ".encode()])
def test_a_key_that_is_none_is_told_at_the_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    env = PodEnvironment({runtime.CALLERS: "/c", runtime.CALLERS_KEY_FILE: str(tmp_path / "key")})
    with pytest.raises(InvalidSettings, match=runtime.CALLERS_KEY_FILE):
        Sources.of(env)


def test_where_documents_come_from(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET + "\n")
    common = {runtime.CALLERS_KEY_FILE: str(tmp_path / "key"), runtime.POD_TOKENS: "/t"}
    assert Sources.of(PodEnvironment(common)) is None
    relay = Path("/t") / CALLERS_FILE
    reads = Sources.of(PodEnvironment({**common, runtime.CALLERS: "/c"}))
    assert reads == Sources(secret=SECRET, paths=(Path("/c"), relay))
    hears = Sources.of(PodEnvironment({**common, runtime.CALLERS: "/c", runtime.CALLERS_URL: "https://k/m"}))
    assert hears == Sources(secret=SECRET, paths=(Path("/c"),), url="https://k/m", relay=relay)


def test_a_document_that_comes_back_after_a_good_one_is_told_again(tmp_path: Path) -> None:
    documents, path = files(tmp_path)
    for sequence, bad in ((1, 1), (2, 2)):
        path.write_bytes(BAD["edited"])
        documents.look()
        documents.look()
        assert documents.gate.bad_documents == bad
        replace_file(path, sealed(document(caller("team", A), sequence=sequence)), mode=0o600)
        documents.look()
        assert names(documents, A) == ["team"]


def test_of_two_sources_each_is_told_of(tmp_path: Path) -> None:
    paths = (tmp_path / "one", tmp_path / "other")
    documents = Documents(gate(), Sources(secret=SECRET, paths=paths))
    for path in paths:
        path.write_bytes(BAD["edited"])
    documents.look()
    assert documents.gate.bad_documents == 2


@pytest.mark.parametrize(("room", "known"), [(0, "team"), (-1, "unknown")])
def test_a_document_has_a_greatest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, known: str) -> None:
    assert module.LARGEST == 64 * 1024 * 1024
    documents, path = files(tmp_path)
    path.write_bytes(sealed(document(caller("team", A))))
    monkeypatch.setattr(module, "LARGEST", path.stat().st_size + room)
    for _ in range(2):
        documents.look()
    assert (names(documents, A), documents.gate.bad_documents) == ([known], -room), "told once"


def test_a_source_that_can_not_be_read_is_told_and_no_end(tmp_path: Path) -> None:
    documents, path = files(tmp_path)
    path.mkdir()
    documents.look()
    assert documents.gate.bad_documents == 1
    path.rmdir()
    path.write_bytes(sealed(document(caller("team", A))))
    documents.look()
    assert names(documents, A) == ["team"]


def resolved(authentication: str | None) -> ResolvedModel:
    model = {"storageUri": "file:m.onnx", "digest": "sha256:" + "0" * 64}
    access = {} if authentication is None else {"access": {"authentication": authentication}}
    spec = GovernedModelSpec.model_validate({"predictor": {"model": model}, **access})
    return ResolvedModel(name="credit", namespace="team-a", spec=spec)


def test_a_process_knows_callers_from_its_start_where_the_spec_asks_who_calls(tmp_path: Path) -> None:
    (tmp_path / CALLERS_FILE).write_bytes(sealed(document(caller("team", A))))
    sources, token = Sources(secret=SECRET, paths=(tmp_path / CALLERS_FILE,)), PodToken(PodToken.draw())
    documents = opened(resolved("Required"), "explainer", sources, token)
    assert documents is not None
    assert names(documents, A, B) == ["team", "unknown"]
    assert 'component="explainer",name="credit",namespace="team-a"' in documents.gate.text().decode()
    assert documents.gate.pseudonym(documents.gate.known(A)) == caller_pseudonym(SECRET, "team")
    documents.stop()
    for asks_nobody in (None, "Off"):
        assert opened(resolved(asks_nobody), "explainer", sources, token) is None


def test_no_process_starts_whose_ports_would_be_open() -> None:
    sources, token = Sources(secret=SECRET, paths=()), PodToken(PodToken.draw())
    with pytest.raises(InvalidSettings, match=f"^{runtime.POD_TOKENS}: expected the folder of the pod's tokens"):
        opened(resolved("Required"), "server", sources, None)
    with pytest.raises(InvalidSettings, match=f"^{runtime.CALLERS}: expected the path of the document of callers"):
        opened(resolved("Required"), "server", None, token)
    assert opened(resolved("Off"), "server", None, None) is None
