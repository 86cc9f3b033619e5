"""The way to a receipt: by our id, from the archive, told apart from what will never be there."""

import asyncio

import httpx
import pytest

from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway
from governed_serving.server.errors import NotFound, ServerError, Unavailable
from governed_serving.server.identifiers import Identifiers
from governed_serving.server.receipts import ArchiveReceipts

PROOF = b"c2sp.org/tlog-proof@v1\n"


def receipts(answer: httpx.Response | Exception, seen: list[httpx.Request]) -> ArchiveReceipts:
    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ArchiveReceipts("http://archive", "token", "credit", transport=httpx.MockTransport(handler))


def asked(answer: httpx.Response | Exception, id: str) -> tuple[bytes | ServerError, list[httpx.Request]]:
    seen: list[httpx.Request] = []
    try:
        return asyncio.run(receipts(answer, seen).receipt(id)), seen
    except ServerError as error:
        return error, seen


def test_it_is_the_archives_word_asked_with_the_models_token() -> None:
    id = Identifiers()()
    found, (request,) = asked(httpx.Response(200, content=PROOF), id)
    assert found == PROOF
    assert dict(request.url.params) == {"model": "credit", "id": id}
    assert request.headers["authorization"] == "Bearer token"


@pytest.mark.parametrize(
    "id", ["", "x", "req-7", "0" * 36, "019a0000-0000-4000-8000-000000000000", "../../entries", "é" * 36, "x" * 5000]
)
def test_an_id_that_cant_be_ours_asks_nobody(id: str) -> None:
    found, seen = asked(httpx.Response(200), id)
    assert isinstance(found, NotFound)
    assert found.retry_after is None
    assert len(str(found)) < 300
    assert seen == []


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (httpx.Response(404), NotFound, "is in the ledger"),
        (httpx.Response(500, text="x"), Unavailable, "status 500"),
        (httpx.Response(403), Unavailable, "status 403"),
        (httpx.Response(200, content=b"x" * (1 << 20)), Unavailable, "status 200"),
        (httpx.ConnectError("away"), Unavailable, "ConnectError"),
        (httpx.ReadTimeout("late"), Unavailable, "ReadTimeout"),
    ],
)
def test_what_helps_is_told(answer: httpx.Response | Exception, kind: type[ServerError], told: str) -> None:
    found, _ = asked(answer, Identifiers()())
    assert isinstance(found, kind)
    assert told in str(found)
    assert found.retry_after


def test_only_some_are_asked_for_at_a_time() -> None:
    async def flood() -> list[object]:
        release = asyncio.Event()

        async def handler(_: httpx.Request) -> httpx.Response:
            await release.wait()
            return httpx.Response(200, content=PROOF)

        found = ArchiveReceipts("http://archive", "t", "credit", transport=httpx.MockTransport(handler))
        names = Identifiers()
        tasks = [asyncio.create_task(found.receipt(names())) for _ in range(12)]
        refused, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        release.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert refused
        return [*answers, await found.receipt(names())]

    *answers, last = asyncio.run(flood())
    assert [type(a) for a in answers].count(bytes) == 8
    assert [type(a) for a in answers].count(Unavailable) == 4
    assert last == PROOF


def got(gateway: Gateway, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_the_route() -> None:
    gateway, path = Gateway("credit"), f"/v2/models/credit/predictions/{Identifiers()()}/receipt"
    answer = got(gateway, path)
    assert (answer.status_code, "no ledger" in answer.json()["error"]) == (404, True)
    gateway.receipts = receipts(httpx.Response(200, content=PROOF), [])
    answer = got(gateway, path)
    assert (answer.status_code, answer.content) == (200, PROOF)
    assert got(gateway, path.replace("credit", "other")).status_code == 404
    gateway.receipts = receipts(httpx.Response(404), [])
    answer = got(gateway, path)
    assert (answer.status_code, answer.headers["retry-after"]) == (404, "5")
