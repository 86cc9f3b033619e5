"""Who shows nothing that counts, and an API server that doesn't answer: counted by address, asked less and less."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from governed_api.callers import CALLERS_FILE
from governed_api.route_roles import SERVER_ROLES
from governed_serving.access import document
from governed_serving.access.credentials import LONGEST, credential
from governed_serving.access.document import Documents, Sources
from governed_serving.access.failures import MOST
from governed_serving.access.guard import CallerGuard
from governed_serving.access.refusals import Unknown

from .people import SECRET, caller, gate_of, key, sealed
from .people import document as callers


async def status_of(guard: CallerGuard, client: tuple[str, int] | None) -> int:
    scope = {
        "type": "http", "method": "GET", "path": "/v2/models/credit", "query_string": b"",
        "headers": [(b"x-api-key", b"gmk_wrong")], "client": client,
    }  # fmt: skip
    refusal = await guard.refusal(scope)
    assert refusal is not None
    return refusal.status_code


async def test_a_flood_from_one_address_holds_nobody_else_up() -> None:
    guard = CallerGuard(gate_of(), SERVER_ROLES)
    flood = [await status_of(guard, ("10.0.0.1", port)) for port in range(MOST + 1)]
    assert flood == [401] * MOST + [429]
    assert await status_of(guard, ("10.0.0.2", 1)) == 401
    assert await status_of(guard, None) == 401, "of a transport without addresses"


class Waits:
    """An event that never comes, and ends the watch after ``most`` waits."""

    def __init__(self, most: int) -> None:
        self.seconds, self._most = list[float](), most

    def is_set(self) -> bool:
        return len(self.seconds) >= self._most

    def wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return False


def test_an_api_server_that_is_away_is_asked_less_and_less_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    told: list[str] = []
    monkeypatch.setattr(document, "log", lambda _, words, **__: told.append(words))
    monkeypatch.setattr(document.JITTER, "uniform", lambda _, most: most)
    gate = gate_of()
    sources = Sources(secret=SECRET, paths=(), url="https://kubernetes.default.svc/api/v1/x/credit-callers")
    documents = Documents(gate, sources, account=tmp_path, transport=httpx.MockTransport(away))
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("")
    waits = Waits(8)
    monkeypatch.setattr(documents, "_stop", waits)
    documents._watch_server()
    assert waits.seconds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert (gate.watch_failures, len(told)) == (8, 1)


@pytest.mark.parametrize(
    ("kind", "heard"), [("ADDED", [b"new"]), ("MODIFIED", [b"new"]), ("DELETED", []), ("BOOKMARK", []), ("ERROR", [])]
)
def test_news_of_an_api_server_are_what_came_or_changed(tmp_path: Path, kind: str, heard: list[bytes]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        if "watch" not in request.url.params:
            return httpx.Response(200, json={"items": [], "metadata": {"resourceVersion": "7"}})
        event = {"type": kind, "object": {"data": {CALLERS_FILE: "new"}}}
        return httpx.Response(200, content=json.dumps(event) + "\n\n")

    asked: list[dict[str, str]] = []
    (tmp_path / "token").write_text("t")
    sources = Sources(secret=SECRET, paths=(), url="https://kubernetes.default.svc/api/v1/x/credit-callers")
    documents = Documents(gate_of(), sources, account=tmp_path, transport=httpx.MockTransport(answer))
    assert list(documents._heard()) == heard
    chosen = {"fieldSelector": "metadata.name=credit-callers"}
    assert asked == [
        chosen,
        {**chosen, "watch": "true", "resourceVersion": "7", "timeoutSeconds": asked[1]["timeoutSeconds"]},
    ]


def documents_of(
    tmp_path: Path, answer: Callable[[httpx.Request], httpx.Response], relay: Path | None = None
) -> Documents:
    (tmp_path / "token").write_text("t")
    url = "https://kubernetes.default.svc/api/v1/x/credit-callers"
    sources = Sources(secret=SECRET, paths=(), url=url, relay=relay)
    return Documents(gate_of(), sources, account=tmp_path, transport=httpx.MockTransport(answer))


def test_a_watch_that_is_refused_is_no_silence(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        times.append(request.extensions["timeout"]["read"])
        return httpx.Response(410 if "watch" in request.url.params else 200, json={"items": [], "metadata": {}})

    times: list[float] = []
    with pytest.raises(httpx.HTTPStatusError):
        list(documents_of(tmp_path, answer)._heard())
    assert times == [5.0, document.WATCH_SECONDS + 30.0], "a watch is given longer than it is asked to last"


def test_what_is_taken_is_handed_on_to_read_alone(tmp_path: Path) -> None:
    made = documents_of(tmp_path, lambda _: httpx.Response(500), relay=tmp_path / "relay")
    assert made.gate.watch_failures == 0
    content = sealed(callers(caller("app", key("a")), sequence=7))
    assert made.take(content, "here") is True
    made._relay(content)
    assert (tmp_path / "relay").stat().st_mode & 0o777 == 0o440
    text = made.gate.text().decode()
    assert re.search(r"^governed_access_callers\{[^}]*\} 1\.0$", text, re.M)
    assert re.search(r"^governed_access_watch_failures_total\{[^}]*\} 0\.0$", text, re.M)
    made.stop()
    assert made._stop.is_set()


@pytest.mark.parametrize(("size", "reason"), [(LONGEST, None), (LONGEST + 1, "malformed")])
def test_a_credential_has_a_greatest_length(size: int, reason: str | None) -> None:
    assert LONGEST == 512
    headers = [(b"x-api-key", b"k" * size)]
    if reason is None:
        assert credential(headers) == "k" * size
    else:
        with pytest.raises(Unknown) as refused:
            credential(headers)
        assert refused.value.reason == reason
