"""The client before the real server, without a socket."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pytest

import governed
from governed_api.governance import Limit, Quota
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import LocalQuota
from unit.server.planes import MemoryJournal, plane
from unit.server.tabular_model import ROW


class Bridge(httpx.BaseTransport):
    """To an ASGI application on a loop of its own."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        self._inner, self._runner = httpx.ASGITransport(app), runner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self._sent(request))

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=self._inner) as client:
            answer = await client.send(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
            )
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


class Served:
    """The tabular model; ``journal``: what it has recorded."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner, self.journal = runner, MemoryJournal()

    def client(self, max_body: int = 1 << 20, **options: Any) -> governed.Client:
        made = Gateway("credit", why="")
        data = plane(journal=self.journal, **options)
        made.service = HttpService(data, V2Codec(data.signature, "credit", "r1"))
        app = FastPathApp(made, application(made), max_body)
        return governed.Client("http://server", transport=Bridge(app, self.runner))


@pytest.fixture
def served() -> Iterator[Served]:
    with asyncio.Runner() as runner:
        yield Served(runner)


def test_it_is_ready_and_says_what_it_takes(served: Served) -> None:
    client = served.client()
    assert client.ready() is True
    metadata = client.metadata()
    assert [tensor["name"] for tensor in metadata["inputs"]] == list(ROW)
    assert metadata["parameters"]["classes"] == ["no", "yes"]


def test_a_row_and_a_data_frame_are_answered_and_recorded(served: Served) -> None:
    client = served.client()
    one = client.predict(ROW)
    several = client.predict(pd.DataFrame([ROW, {**ROW, "income": 0.0}, ROW]))
    assert isinstance(several, list)
    assert [p.outcome for p in (several[0], several[2])] == [one.outcome] * 2
    assert one.outcome == max(one.probabilities, key=lambda name: one.probabilities[name])
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert several[1].probabilities != several[0].probabilities
    assert served.journal.ids == [one.id, several[0].id]
    assert {p.id for p in several} == {several[0].id}
    assert one.revision == "r1"


def test_what_the_model_refuses_is_told_in_its_words(served: Served) -> None:
    client = served.client()
    with pytest.raises(governed.Refused, match="income") as refused:
        client.predict({**ROW, "income": None})
    assert refused.value.status == 400
    with pytest.raises(governed.Refused) as refused:
        client.explain(ROW)
    assert (refused.value.status, served.journal.ids) == (404, [])
    with pytest.raises(governed.Refused) as refused:
        client.predict(ROW, promise=True)
    assert refused.value.status in (400, 404, 503)
    with pytest.raises(governed.Refused) as refused:
        client.receipt("019a0000-0000-7000-8000-000000000000")
    assert refused.value.status == 404
    with pytest.raises(governed.Refused) as refused:
        served.client(max_body=256).predict(ROW)
    assert refused.value.status == 413


def test_a_quota_is_told_with_the_seconds_until_it_has_room(served: Served) -> None:
    quota = LocalQuota(Quota(requests=[Limit(limit=1, window="1h")]), "k")
    client = served.client(quota=quota)
    assert client.predict(ROW).id
    with pytest.raises(governed.Refused) as refused:
        client.predict(ROW)
    assert refused.value.status == 429
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 75, "beyond the timeout of the call, so it was not waited for"
