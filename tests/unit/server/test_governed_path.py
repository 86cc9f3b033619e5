"""The governed path, the same for both payloads: columns (V2) and conversations (OpenAI), whole and streamed.

Each test drives both by one small interface, so that what holds for one is seen to hold for the other.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import httpx
import pytest

from governed_api.governance import Limit, Quota
from governed_serving.journal.errors import JournalFull
from governed_serving.privacy import Finding
from governed_serving.server.app.fast_path import FastPathApp
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway, HttpService
from governed_serving.server.chat.events import DONE
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.errors import (
    DeadlineExceeded,
    JournalUnavailable,
    MaskingFailed,
    QuotaExceeded,
    Unavailable,
    UpstreamFailed,
)
from governed_serving.server.messages import Stream
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import Pipeline
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import LocalQuota
from unit.server.conversations import ANSWER, Explainer, Pieces, World, chunk, read
from unit.server.planes import MemoryJournal, plane, predictor, until, without_haste, word_finder
from unit.server.tabular_model import v2_body
from unit.server.test_dataplane import request


class Trace:
    """What happened, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def before(self, first: str, second: str) -> bool:
        """The first ``first`` comes before the first ``second``."""
        return self.events.index(first) < self.events.index(second)


class TracedJournal(MemoryJournal):
    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    async def append(self, record: Any) -> Any:
        self.trace.events.append("journal")
        return await super().append(record)


def traced_masker(trace: Trace) -> Callable[[str], list[Finding]]:
    def find(text: str) -> list[Finding]:
        trace.events.append("mask")
        return word_finder(text)

    return find


class TracedQuota:
    """Lets everything in."""

    immediate = True
    limits_tokens = True

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.taken: list[int] = []
        self.settled: list[tuple[int, int]] = []

    def try_take(self, tokens: int) -> None:
        self.taken.append(tokens)
        self.trace.events.append("admit")

    async def take(self, tokens: int) -> None:
        self.try_take(tokens)

    async def settle(self, reserved: int, used: int) -> int:
        self.trace.events.append("settle")
        self.settled.append((reserved, used))
        return 0


class TracedPredictor:
    """A real model whose calls can be held back, failed, and counted; ``merges`` and ``slots`` as a runtime's or our
    own."""

    def __init__(self, trace: Trace, *, merges: bool = True, slots: int = 1) -> None:
        self.inner, self.trace, self.merges, self.slots = predictor(text=True), trace, merges, slots
        self.signature = self.inner.signature
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.running = self.most = 0

    async def predict(self, make: Callable[[], Any], finish: Callable[[Any], Any], size: int) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            columns = make()
            self.trace.events.append("compute")
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
            return await self.inner.predict(lambda: columns, finish, size)
        finally:
            self.running -= 1

    async def warm_up(self) -> None:
        await self.inner.warm_up()

    async def close(self) -> None:
        await self.inner.close()


class Columns:
    """A data plane; ``gate`` holds the model back."""

    verb, path, model = "infer", "/v2/models/credit/infer", "credit"
    body: dict[str, Any] = v2_body(text="my secret")
    records = 1
    """Frames that an answered request leaves."""

    def __init__(self, trace: Trace, *, gate: bool = False, error: Exception | None = None, **more: Any) -> None:
        self.journal, self.trace = TracedJournal(trace), trace
        self.predictor = TracedPredictor(trace, merges=False, slots=8)
        self.predictor.error = error
        self.predictor.gate = asyncio.Event() if gate else None
        self.plane: DataPlane = plane(
            text=True, journal=self.journal, using=self.predictor, masker=traced_masker(trace), **more
        )
        self.metrics: ServerMetrics = self.plane.metrics

    @property
    def open(self) -> int:
        return self.plane.admission.open

    @property
    def pipeline(self) -> Pipeline:
        return self.plane.pipeline

    async def ask(self, text: str = "my secret") -> None:
        await self.plane.infer(request(text=text))
        self.trace.events.append("reply")

    def release(self) -> None:
        assert self.predictor.gate is not None
        self.predictor.gate.set()

    @property
    def most(self) -> int:
        return self.predictor.most

    async def close(self) -> None:
        await self.plane.close()

    def gateway(self) -> Gateway:
        made = Gateway("credit", why="", metrics=self.metrics)
        made.service = HttpService(self.plane, V2Codec(self.plane.signature, "credit", "r1"))
        return made


class Conversation:
    """A gateway; ``gate`` holds the runtime back."""

    verb, path, model = "chat", "/v1/chat/completions", "chat"
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "my secret"}], "max_tokens": 4}
    records = 2

    def __init__(self, trace: Trace, *, gate: bool = False, error: Exception | None = None, **more: Any) -> None:
        self.trace, self.error = trace, error
        self.gate = asyncio.Event() if gate else None
        self.running = self.most = 0
        self.world = World(masker=traced_masker(trace), journal=TracedJournal(trace), **more)
        self.world.gateway._runtime.client._transport = httpx.MockTransport(self._runtime)
        self.journal: MemoryJournal = self.world.journal
        self.metrics = self.world.metrics

    async def _runtime(self, asked: httpx.Request) -> httpx.Response:
        self.running += 1
        self.most = max(self.most, self.running)
        self.trace.events.append("compute")
        try:
            self.world.seen.append(json.loads(asked.content))
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
            return httpx.Response(200, json=ANSWER)
        finally:
            self.running -= 1

    @property
    def open(self) -> int:
        return self.world.admission.open

    @property
    def pipeline(self) -> Pipeline:
        return self.world.pipeline

    async def ask(self, text: str = "my secret") -> None:
        await self.world.chat(text)
        self.trace.events.append("reply")

    def release(self) -> None:
        assert self.gate is not None
        self.gate.set()

    async def close(self) -> None:
        await self.world.gateway.close()

    def gateway(self) -> Gateway:
        return Gateway("chat", why="", chat=self.world.gateway, extra_metrics=[self.metrics.text])


Path = type[Columns] | type[Conversation]
STAGES = {
    Columns: ["admit", "mask", "compute", "journal", "reply"],  # what was reserved for columns is what they use
    Conversation: ["admit", "mask", "journal", "compute", "settle", "reply"],  # the prompt is journalled before
}
both = pytest.mark.parametrize("path", [Columns, Conversation])


async def turns(count: int = 50) -> None:
    """Let everything that can run on the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcomes(calls: Sequence[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    return await asyncio.gather(*calls, return_exceptions=True)


@both
async def test_admitted_and_masked_before_the_model_journalled_before_the_reply(path: Path) -> None:
    trace = Trace()
    quota = TracedQuota(trace)
    await path(trace, quota=quota).ask()
    for first, second in (("admit", "compute"), ("mask", "compute"), ("mask", "journal"), ("admit", "journal")):
        assert trace.before(first, second), trace.events
    assert trace.events[-1] == "reply"
    last = len(trace.events) - 1 - trace.events[::-1].index("journal")
    assert trace.events.index("compute") < last, "the answer is journalled before it is given"


@both
async def test_the_stages_of_an_answered_request(path: Path) -> None:
    trace = Trace()
    await path(trace, quota=TracedQuota(trace)).ask("x")
    assert list(dict.fromkeys(trace.events)) == STAGES[path]


@both
async def test_nothing_is_masked_for_one_who_is_refused(path: Path) -> None:
    trace = Trace()
    with pytest.raises(Unavailable):
        await path(trace, ready=lambda: "loading").ask()
    assert trace.events == [], "masking costs a processor, and those who are refused get none"


@both
@pytest.mark.parametrize("policy", ["Closed", "Open"])
async def test_texts_that_could_not_be_masked_are_counted(path: Path, policy: Any) -> None:
    world = path(Trace(), masking_policy=policy)
    await outcomes([world.ask("boom"), world.ask("fine")])
    assert world.metrics.count["masking_failures"] >= 1
    assert b"governed_masking_failures_total{" in world.metrics.text()


@both
async def test_a_full_journal_refuses_when_closed_and_leaves_nothing_behind(path: Path) -> None:
    world = path(Trace())
    world.journal.error = JournalFull("no room")
    with pytest.raises(JournalUnavailable, match=r"no room.*failurePolicy Closed") as caught:
        await world.ask()
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    assert (world.open, world.journal.frames) == (0, [])
    assert (world.metrics.count["journal_records"], world.metrics.count["journal_lost_records"]) == (0, 0)
    world.journal.error = None
    await world.ask()
    assert world.metrics.count["journal_records"] == path.records


@both
async def test_a_full_journal_is_counted_when_open(path: Path) -> None:
    world = path(Trace(), journal_policy="Open")
    world.journal.error = JournalFull("no room")
    await world.ask()
    assert world.metrics.count["journal_lost_records"] == path.records
    assert world.metrics.count["journal_records"] == 0
    assert world.open == 0


@both
async def test_masking_that_errs_refuses_when_closed(path: Path) -> None:
    trace = Trace()
    world = path(trace)
    with pytest.raises(MaskingFailed) as caught:
        await world.ask("boom secret")
    assert "secret" not in str(caught.value)
    assert "compute" not in trace.events
    assert (world.journal.frames, world.open) == ([], 0)


@both
async def test_masking_that_errs_passes_when_open(path: Path) -> None:
    world = path(Trace(), masking_policy="Open")
    await world.ask("boom")
    assert len(world.journal.frames) == path.records


@both
async def test_one_who_is_refused_leaves_no_trace(path: Path) -> None:
    trace = Trace()
    loading = path(trace, ready=lambda: "loading")
    with pytest.raises(Unavailable, match="not ready: loading"):
        await loading.ask()
    used_up = path(trace, quota=LocalQuota(Quota(requests=[Limit(limit=1, window="1h")]), "k"))
    await used_up.ask()
    trace.events.clear()
    with pytest.raises(QuotaExceeded, match="at most 1 requests in 1h"):
        await used_up.ask()
    assert not {"compute", "journal", "reply"} & set(trace.events)
    assert used_up.metrics.refusals["requests"] == 1
    assert (loading.open, used_up.open) == (0, 0)


@both
async def test_at_most_max_concurrent_are_in_flight(path: Path) -> None:
    world = path(Trace(), gate=True, max_concurrent=2)
    tasks = [asyncio.create_task(world.ask()) for _ in range(2)]
    await until(lambda: world.most == 2)
    with pytest.raises(QuotaExceeded, match="at most 2 requests in flight"):
        await world.ask()
    assert world.metrics.refusals["concurrency"] == 1
    world.release()
    await asyncio.gather(*tasks)
    await world.ask()
    assert world.open == 0


@both
async def test_container_concurrency_bounds_what_the_runtime_computes_at_a_time(path: Path) -> None:
    world = path(Trace(), gate=True, concurrency=2)
    tasks = [asyncio.create_task(world.ask()) for _ in range(5)]
    await until(lambda: world.open == 5)  # the others are admitted and wait
    await until(lambda: world.most == 2)
    await turns()
    assert world.most == 2
    world.release()
    await asyncio.gather(*tasks)
    assert (world.most, world.open) == (2, 0)


@both
@pytest.mark.parametrize("fault", ["runtime", "journal"])
async def test_a_failure_frees_the_slot_for_the_next(path: Path, fault: str) -> None:
    world = path(Trace(), concurrency=1, error=None if fault == "journal" else UpstreamFailed("runtime: gone"))
    if fault == "journal":
        world.journal.error = JournalFull("no room")
    elif isinstance(world, Conversation):
        world.error = httpx.ReadError("gone")
    for _ in range(3):
        with pytest.raises((UpstreamFailed, JournalUnavailable)):
            await asyncio.wait_for(world.ask(), 60)
    assert world.open == 0


@both
async def test_waiting_for_a_slot_ends_at_the_deadline_and_frees_its_place(path: Path) -> None:
    world = path(Trace(), gate=True, concurrency=1, timeout=1.5)
    first = asyncio.create_task(world.ask())
    await until(lambda: world.most == 1)
    with pytest.raises(DeadlineExceeded, match=r"within 1\.5 s \(spec\.predictor\.timeout\)"):
        await world.ask()
    world.release()
    await outcomes([asyncio.wait_for(first, 60)])
    assert world.open == 0
    without_haste(world.pipeline)
    await world.ask()


@both
async def test_a_client_that_leaves_frees_its_place_and_is_settled(path: Path) -> None:
    world = path(Trace(), gate=True, concurrency=1)
    leaving = asyncio.create_task(world.ask())
    await until(lambda: world.most == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    world.release()
    await asyncio.wait_for(world.ask(), 60)
    await world.close()
    assert world.open == 0
    assert world.metrics.count["tokens"] >= 0


@both
async def test_closing_waits_for_what_is_in_flight(path: Path) -> None:
    world = path(Trace(), gate=True)
    asking = asyncio.create_task(world.ask())
    await until(lambda: world.most == 1)
    closing = asyncio.create_task(world.close())
    await turns()
    assert not closing.done()
    world.release()
    await asyncio.wait_for(closing, 60)
    await asking
    assert len(world.journal.frames) == path.records


@both
async def test_a_burst_loses_and_doubles_nothing(path: Path) -> None:
    world = path(Trace(), quota=LocalQuota(Quota(tokens=[Limit(limit=10**6, window="1h")]), "k"))
    ended = await outcomes([world.ask("boom" if k % 5 == 0 else f"text {k}") for k in range(40)])
    assert sum(isinstance(e, MaskingFailed) for e in ended) == 8
    assert sum(e is None for e in ended) == 32
    ids = [i for frame in world.journal.frames for i in frame.ids]
    assert len(ids) == 32 * path.records
    assert len(set(ids)) == 32
    assert world.metrics.count["journal_records"] == 32 * path.records
    assert world.open == 0


@both
async def test_each_request_is_counted_once_by_its_verb_and_status(path: Path) -> None:
    world = path(Trace(), quota=LocalQuota(Quota(requests=[Limit(limit=3, window="1h")]), "k"))
    gateway = world.gateway()
    app: Any = FastPathApp(gateway, application(gateway), 1 << 20)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        assert (await http.post(path.path, json=path.body)).status_code == 200
        assert (await http.post(path.path, content=b"{")).status_code == 400
        world.journal.error = JournalFull("no room")
        assert (await http.post(path.path, json=path.body)).status_code == 503
        world.journal.error = None
        assert (await http.post(path.path, json=path.body)).status_code == 200
        assert (await http.post(path.path, json=path.body)).status_code == 429
        assert (await http.post(f"/v2/models/{path.model}/explain", json=path.body)).status_code == 404
    assert dict(world.metrics.requests) == {
        (path.verb, 200): 2,
        (path.verb, 400): 1,
        (path.verb, 503): 1,
        (path.verb, 429): 1,
        ("explain", 404): 1,
    }


async def test_durations_and_rows_of_columns_are_observed_once() -> None:
    world = Columns(Trace())
    await outcomes([world.ask(), world.ask("boom"), world.ask()])
    assert sum(world.metrics.seconds.counts) == 3
    assert world.metrics.count["request_rows"] == 2


async def test_durations_of_conversations_are_observed_once_from_admission_to_the_last_piece() -> None:
    world = Conversation(Trace())
    now = 10.0
    world.world.pipeline.clock = lambda: now
    await world.ask()
    world.error = httpx.ReadError("gone")
    with pytest.raises(UpstreamFailed):
        await world.ask()
    assert sum(world.metrics.seconds.counts) == 2
    body = Pieces([chunk("a"), chunk("b")])
    body_of_a_stream = b'{"messages": [{"role": "user", "content": "hi"}], "stream": true}'
    slow = World(lambda _: httpx.Response(200, stream=body))
    slow.pipeline.clock = lambda: now
    answer = await slow.gateway.answer("/v1/chat/completions", body_of_a_stream)
    assert isinstance(answer, Stream)
    assert sum(slow.metrics.seconds.counts) == 0
    now = 13.0
    await read(answer)
    await slow.gateway.close()
    assert (sum(slow.metrics.seconds.counts), slow.metrics.seconds.buckets()[1]) == (1, 3.0)


async def test_columns_past_their_deadline_are_answered_once_and_their_late_answer_is_dropped() -> None:
    world = Columns(Trace(), gate=True, timeout=0.05)
    answers: list[Any] = []
    world.plane.submit(request(text="x"), answers.append)
    await until(lambda: answers)
    world.release()
    await world.close()
    assert [type(answer) for answer in answers] == [DeadlineExceeded]
    assert sum(world.metrics.seconds.counts) == 1
    assert world.metrics.count["request_rows"] == 0


async def test_tokens_of_a_conversation_are_settled_once_however_it_ends() -> None:
    trace = Trace()
    quota = TracedQuota(trace)
    world = Conversation(trace, quota=quota)
    await world.ask()
    world.error = httpx.ReadError("gone")
    with pytest.raises(UpstreamFailed):
        await world.ask()
    world.error, world.journal.error = None, JournalFull("no room")
    with pytest.raises(JournalUnavailable):
        await world.ask()
    assert [used for _, used in quota.settled] == [8, 0, 0]
    assert world.metrics.count["tokens"] == 8


async def test_a_completion_is_journalled_before_it_is_settled_and_settled_before_it_is_given() -> None:
    trace = Trace()
    await Conversation(trace, quota=TracedQuota(trace)).ask("x")
    assert [e for e in trace.events if e != "mask"] == ["admit", "journal", "compute", "journal", "settle", "reply"]


@pytest.mark.parametrize("policy", ["Closed", "Open"])
async def test_a_quota_store_that_goes_away_costs_no_record_and_no_slot(policy: Any) -> None:
    class Away(TracedQuota):
        async def settle(self, reserved: int, used: int) -> int:
            raise Unavailable(f"quota.store: expected an answer to {reserved} → {used}, found none")

    world = Conversation(Trace(), quota=Away(Trace()), concurrency=1, journal_policy=policy)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"quota\.store"):
            await asyncio.wait_for(world.ask(), 60)
    assert [state for _, state, _, _ in world.world.records()] == ["started", "complete"] * 2
    assert world.open == 0


async def test_tokens_are_settled_though_the_completion_could_not_be_recorded() -> None:
    trace = Trace()
    quota = TracedQuota(trace)
    world = Conversation(trace, quota=quota, gate=True)
    asking = asyncio.create_task(world.ask())
    await until(lambda: world.most == 1)
    world.journal.error = JournalFull("no room")
    world.release()
    with pytest.raises(JournalUnavailable):
        await asking
    assert [used for _, used in quota.settled] == [8]
    assert (world.metrics.count["tokens"], world.open) == (8, 0)


async def test_a_stream_is_settled_once_and_counts_as_cut_only_when_it_was() -> None:
    gate = asyncio.Event()
    bodies = [Pieces([chunk("a"), chunk("b "), DONE]), Pieces([chunk("a"), chunk("b ")], gate)]
    quota = TracedQuota(Trace())
    world = World(lambda _: httpx.Response(200, stream=bodies.pop(0)), quota=quota, concurrency=1)
    await read(await world.chat(stream=True))
    left = await world.chat(stream=True)
    await anext(left.pieces)
    await left.pieces.aclose()
    await world.gateway.close()
    assert len(quota.settled) == 2
    assert world.metrics.count["streams_cut"] == 1
    assert [state for _, state, _, _ in world.records()] == ["started", "complete", "started", "cut"]
    assert world.admission.open == 0


async def test_a_stream_nobody_reads_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governed_serving.server.chat.gateway.UNREAD_SECONDS", 0.01)
    body = Pieces([chunk("a")])
    world = World(lambda _: httpx.Response(200, stream=body), concurrency=1)
    await world.chat(stream=True)
    await until(lambda: len(world.journal.frames) == 2)
    assert world.records()[-1][1] == "cut"
    assert (world.admission.open, body.closed) == (0, True)
    await world.gateway.close()


async def test_a_stream_whose_end_cannot_be_recorded_passes_when_open() -> None:
    world = World(lambda _: httpx.Response(200, stream=Pieces([chunk("a"), DONE])), journal_policy="Open")
    stream = await world.chat(stream=True)
    world.journal.error = JournalFull("full")
    assert (await read(stream))[-1] == b"data: [DONE]\n\n"
    assert world.metrics.count["journal_lost_records"] == 1
    await world.gateway.close()


async def test_explained_completions_are_counted_as_explanations_alone() -> None:
    world = World(explainer=Explainer().client())
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}).encode()
    await world.gateway.explain(body, later=True)
    await world.gateway.explain(body, later=False)
    assert dict(world.metrics.requests) == {("explain", 202): 1, ("explain", 200): 1}
