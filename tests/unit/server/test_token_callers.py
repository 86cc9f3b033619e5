"""Tokens at the doors of REST, OpenAI's routes and gRPC: who is let in, and what everybody else is told."""

import json
import logging
from typing import Any

import grpc.aio
import pytest

from governed_api import routes
from governed_serving.access import failures
from governed_serving.access.gate import Gate
from governed_serving.server.app.fast_path import BodyRoom
from governed_serving.server.rpc.service import RpcServer
from unit.access.people import caller, key
from unit.access.tokens import BAD, gate_of, known_by, source, token
from unit.server.planes import MemoryJournal
from unit.server.tabular_model import v2_body
from unit.server.test_callers import INFER, behind, code_of, http, infer, served, shows
from unit.server.test_rpc import Client, typed

GOOD = token("ES256")
APP, READER = known_by("app"), known_by("reader", roles=["audit"])


@pytest.fixture(autouse=True)
def answers_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are wrong from one address."""
    monkeypatch.setattr(failures, "MOST", 1000)


@pytest.fixture
def gate() -> Gate:
    return gate_of(APP, READER)


def expected() -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, reason in BAD.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts


async def test_rest_on_the_fast_path(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(gate, journal=MemoryJournal()) as c:
        c.send(infer(GOOD))
        assert (await c.answer())[0] == 200
        for name, (text, _) in BAD.items():
            c.send(infer(text))
            status, headers, body = await c.answer()
            assert status == 401, name
            assert headers["www-authenticate"] == 'bearer realm="governed-models", error="invalid_token"'
            assert list(json.loads(body)) == ["error"]
            assert b"credit" not in body
            assert text[:40].encode() not in body
            assert text[:40] not in caplog.text
        c.send(infer(token(sub="reader")) + infer(GOOD))
        assert [(await c.answer())[0] for _ in range(2)] == [403, 200]
    assert gate.refused == {**expected(), "role": 1}


@pytest.mark.parametrize(
    ("path", "form"),
    [(INFER, "v2"), (routes.V1_PREDICT.format(model="credit"), "v1"), ("/v1/chat/completions", "openai")],
)
async def test_rest_and_openai(gate: Gate, path: str, form: str) -> None:
    async with http(behind(gate)) as client:
        for name, (text, _) in BAD.items():
            for method in ("POST", "GET"):
                answer = await client.request(method, path, headers={"authorization": f"Bearer {text}"})
                assert answer.status_code == 401, name
                assert answer.headers["www-authenticate"].endswith('error="invalid_token"')
                error = answer.json()["error"]
                assert (error["code"] == "invalid_api_key") if form == "openai" else isinstance(error, str)
                assert "credit" not in answer.text
        forbidden = await client.post(path, headers={"authorization": f"Bearer {token(sub='reader')}"})
        assert forbidden.status_code == 403
        assert 'error="insufficient_scope"' in forbidden.headers["www-authenticate"]
        good = await client.post(INFER, json=v2_body(), headers={"authorization": f"Bearer {GOOD}"})
        assert good.status_code == 200


async def test_grpc(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    gateway, room = behind(gate, journal=MemoryJournal()), BodyRoom(1 << 22)
    server = RpcServer(gateway, 1 << 20, room)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        rpc = Client(channel, gateway, MemoryJournal(), room, port)
        asked: dict[str, Any] = {"model_name": "credit", "inputs": typed()}
        for name, (text, _) in BAD.items():
            assert await code_of(rpc, "ModelInfer", shows(text), **asked) == "UNAUTHENTICATED", name
            assert text[:40] not in caplog.text
        assert await code_of(rpc, "ModelInfer", shows(token(sub="reader")), **asked) == "PERMISSION_DENIED"
        longest = token(pad="p" * 5600)
        assert 8000 < len(longest) <= 8192
        for text in (GOOD, *[longest] * 20):
            assert await code_of(rpc, "ModelInfer", shows(text), **asked) == "OK"
        both = (*shows(GOOD), ("x-api-key", key("a")))
        assert await code_of(rpc, "ModelInfer", both, **asked) == "UNAUTHENTICATED"
    await server.stop(0)


async def test_a_token_beside_a_key_and_one_in_the_query_are_refused_and_not_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    gate = gate_of(APP, caller("team", key("a")))
    async with served(gate) as c:
        shown = f"authorization: Bearer {GOOD}\r\n"
        for target, headers in (
            (f"{INFER}?access_token={GOOD}", ""),
            (f"{INFER}?x={GOOD}", shown),
            (INFER, f"{shown}x-api-key: {key('a')}\r\n"),
            (INFER, shown * 2),
        ):
            c.send(f"POST {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\n\r\n".encode())
            status, _, body = await c.answer()
            assert status == 401
            assert GOOD[:40].encode() not in body
    assert gate.refused == {"query": 2, "several": 2}
    assert GOOD[:40] not in caplog.text + "".join(capfd.readouterr())


async def test_keys_of_an_issuer_that_are_too_old_are_said_so_in_each_form(gate: Gate) -> None:
    gate.directory = gate_of(APP, until="2027-01-15T07:59:59Z").directory
    async with http(behind(gate)) as client:
        for path in (INFER, "/v1/chat/completions"):
            answer = await client.post(path, headers={"authorization": f"Bearer {GOOD}"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert gate.refused == {"keys_away": 2}


async def test_limits_and_pseudonym_are_the_consumers_whatever_it_shows() -> None:
    limits = [{"unit": "requests", "limit": 2, "windowSeconds": 3600}]
    gate, journal = gate_of(known_by("app", limits=limits), issuers=(source(),)), MemoryJournal()
    async with http(behind(gate, journal=journal)) as client:
        codes = [
            (await client.post(INFER, json=v2_body(), headers={"authorization": f"Bearer {text}"})).status_code
            for text in (token("ES256"), token("RS256"), token("ES384"))
        ]
    assert codes == [200, 200, 429]
    assert {one for frame in journal.frames for one in frame.callers} == {gate.pseudonym(gate.known(GOOD))}
