"""The chain: nothing is answered before it is written, nothing is written before it is masked, nobody pays for a
neighbour."""

import asyncio
import json
import math
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from governed_api.governance import Limit, Quota
from governed_serving.journal import numbers, strings
from governed_serving.journal.errors import JournalFull
from governed_serving.privacy import Finding
from governed_serving.server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    JournalUnavailable,
    MaskingFailed,
    NotFound,
    Overloaded,
    PredictionFailed,
    QuotaExceeded,
    Unavailable,
)
from governed_serving.server.messages import ExplainRequest, InferRequest
from governed_serving.server.protocol.v2 import V2Codec
from governed_serving.server.quota import LocalQuota
from unit.server.planes import MemoryJournal, plane, predictor, until, without_haste
from unit.server.tabular_model import CLASSES, NUMBERS, ROW, tabular, v2_body


def request(rows: int = 1, *, text: str | None = None, identity: str = "", **changes: Any) -> InferRequest:
    codec = V2Codec(predictor(text=text is not None).signature, "credit", "r1")
    message = v2_body(rows, text=text, identity=identity)
    for tensor in message["inputs"]:
        if tensor["name"] in changes:
            tensor["data"] = changes[tensor["name"]]
    return codec.decode(msgspec.json.encode(message))[0]


async def test_answers_what_onnxruntime_answers() -> None:
    session = onnxruntime.InferenceSession(tabular(), providers=["CPUExecutionProvider"])
    feeds = {n: np.array([[ROW[n]]], np.float32 if n in NUMBERS else object) for n in ROW}
    expected = session.run(["probabilities", "label"], feeds)
    response = await plane().infer(request())
    assert response.outputs[0].values == pytest.approx(expected[0].ravel().tolist(), abs=1e-7)
    assert response.outputs[1].values == expected[1].tolist()


async def test_requests_together_get_what_each_gets_alone() -> None:
    data = plane()
    requests = [request(1 + k % 3, income=[1000.0 * (k + 1)] * (1 + k % 3)) for k in range(20)]
    alone = [await plane().infer(r) for r in requests]
    together = await asyncio.gather(*[data.infer(r) for r in requests])
    for one, other in zip(alone, together, strict=True):
        assert other.outputs[0].values == pytest.approx(one.outputs[0].values, abs=1e-6)
        assert other.outputs[1].values == one.outputs[1].values
    buckets, total = data.metrics.batch_requests.buckets()
    assert total == 20
    assert buckets[-1][1] < 20  # they shared calls


async def test_nothing_is_answered_before_the_journal_has_it() -> None:
    journal = MemoryJournal()
    journal.gate = asyncio.Event()
    task = asyncio.create_task(plane(journal=journal).infer(request(identity="a")))
    await until(lambda: journal.frames)
    assert journal.called == ["a"]
    assert not task.done()
    journal.gate.set()
    assert (await task).ledger == "pending"


async def test_the_journal_holds_masked_text_and_the_answer() -> None:
    journal = MemoryJournal()
    response = await plane(text=True, journal=journal).infer(
        request(2, text="my secret note", identity="a"), keep_masked=True
    )
    frame = journal.frames[0]
    assert strings(frame.features["note"]).tolist() == ["my <MASKED> note"] * 2
    assert numbers(frame.features["income"]).tolist() == [8200.0, 8200.0]
    assert numbers(frame.outputs["probabilities"]).ravel().tolist() == response.outputs[0].values
    assert strings(frame.outputs["label"]).tolist() == response.outputs[1].values
    assert response.masked[-1] == ["my <MASKED> note"] * 2
    assert (frame.model, frame.revision, frame.artefact, frame.client_ids) == ("credit", "r1", "sha256:0", ["a"])


async def test_texts_of_the_answer_are_masked_for_client_and_journal_where_asked_for() -> None:
    journal = MemoryJournal()
    for answers in (False, True):
        data = plane(text=True, journal=journal, answers=answers, masker=approvals)
        response = await data.infer(request(2, text="my note"))
        assert strings(journal.frames[-1].outputs["label"]).tolist() == response.outputs[1].values
        assert (
            {"<LABEL>"} == set(response.outputs[1].values) if answers else "<LABEL>" not in response.outputs[1].values
        )


def approvals(text: str) -> list[Finding]:
    return [Finding("LABEL", 0, len(text))] if text in CLASSES else []


async def test_the_model_sees_masked_text() -> None:
    journal = MemoryJournal()
    data = plane(text=True, journal=journal)
    seen = await data.infer(request(text="secret"))
    same = await data.infer(request(text="< MASKED >"))  # what segmentation makes of <MASKED>
    assert seen.outputs[0].values == same.outputs[0].values


async def test_full_journal_closed_refuses_and_open_counts() -> None:
    journal = MemoryJournal()
    journal.error = JournalFull("no room")
    with pytest.raises(JournalUnavailable, match="no room"):
        await plane(journal=journal).infer(request())
    data = plane(journal=journal, journal_policy="Open")
    assert (await data.infer(request())).ledger == ""
    assert data.metrics.count["journal_lost_records"] == 1
    assert data.metrics.count["journal_records"] == 0


async def test_masking_fails_closed_for_the_one_that_errs() -> None:
    journal = MemoryJournal()
    data = plane(text=True, journal=journal)
    answers = await asyncio.gather(
        data.infer(request(text="fine")),
        data.infer(request(text="boom secret")),
        data.infer(request(text="fine")),
        return_exceptions=True,
    )
    assert isinstance(answers[1], MaskingFailed)
    assert "secret" not in str(answers[1])
    assert not isinstance(answers[0], Exception)
    assert not isinstance(answers[2], Exception)
    assert len(journal.ids) == 2
    assert data.metrics.count["masking_failures"] >= 1


async def test_masking_open_passes_and_counts() -> None:
    data = plane(text=True, masking_policy="Open")
    await data.infer(request(text="boom"))
    assert data.metrics.count["masking_failures"] == 1


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("income", [None], "'income': expected a number in row 0, found a missing value"),
        ("income", [1e39], "'income': expected a finite FP32 number in row 0"),
        ("income", [10**400], "'income'"),
        ("housing", [""], "'housing': expected a category in row 0"),
    ],
)
async def test_values_that_the_model_cant_take_are_named(column: str, values: list[Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await plane().infer(request(**{column: values}))
    assert words in str(caught.value)


async def test_gaps_pass_where_the_model_fills_them() -> None:
    data = plane(using=predictor(impute=("income",)))
    response = await data.infer(request(income=[None]))
    assert len(response.outputs[1].values) == 1


async def test_a_bad_request_harms_no_neighbour() -> None:
    data = plane()
    answers = await asyncio.gather(*[data.infer(request(income=[v])) for v in (1.0, 1e39, 2.0)], return_exceptions=True)
    assert [isinstance(a, InvalidRequest) for a in answers] == [False, True, False]


async def test_quota_of_requests() -> None:
    data = plane(quota=LocalQuota(Quota(requests=[Limit(limit=2, window="1h")]), "k"))
    await data.infer(request())
    await data.infer(request())
    with pytest.raises(QuotaExceeded, match="at most 2 requests in 1h") as caught:
        await data.infer(request())
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 3600
    assert data.metrics.refusals["requests"] == 1


async def test_quota_of_tokens_counts_words_and_cjk_characters() -> None:
    data = plane(text=True, quota=LocalQuota(Quota(tokens=[Limit(limit=7, window="1h")]), "k"))
    await data.infer(request(text="three plain words"))
    await data.infer(request(text="两字 ok"))
    with pytest.raises(QuotaExceeded, match="at most 7 tokens"):
        await data.infer(request(text="two more"))


async def test_max_concurrent() -> None:
    journal = MemoryJournal()
    journal.gate = asyncio.Event()
    data = plane(journal=journal, max_concurrent=1)
    first = asyncio.create_task(data.infer(request()))
    await asyncio.sleep(0)
    with pytest.raises(QuotaExceeded, match="at most 1 requests in flight"):
        await data.infer(request())
    journal.gate.set()
    await first
    await data.infer(request())


class Held:
    """A predictor behind a gate. ``spoil``: the last numbers that it answers, whatever it computed."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.gate, self.waiting, self.spoil = inner, asyncio.Event(), False, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def predict(self, columns: Any, finish: Any, size: int) -> Any:
        self.waiting = True
        await self.gate.wait()
        return await self._inner.predict(columns, lambda outputs: finish(self._spoiled(outputs)), size)

    def _spoiled(self, outputs: Any) -> Any:
        if self.spoil:
            outputs[0] = outputs[0].copy()
            outputs[0].reshape(-1)[-len(self.spoil) :] = self.spoil
        return outputs


async def test_not_ready_is_503() -> None:
    with pytest.raises(Unavailable, match="the model is not ready: loading; retry"):
        await plane(ready=lambda: "loading").infer(request())


async def test_timeout_is_504_and_frees_its_place() -> None:
    compute = Held(predictor())
    data = plane(journal=MemoryJournal(), timeout=1.5, max_concurrent=1, using=compute)
    with pytest.raises(DeadlineExceeded, match=r"within 1\.5 s"):
        await data.infer(request())
    compute.gate.set()
    without_haste(data.pipeline)
    await data.infer(request())


async def test_whose_turn_would_come_too_late_is_refused_at_once_and_takes_nothing() -> None:
    """Behind a longer queue everybody is computed, or given up with 504, when the client has left."""
    now = 0.0

    class Slow(Held):
        async def predict(self, columns: Any, finish: Any, size: int) -> Any:
            nonlocal now
            now += 2.0
            return await super().predict(columns, finish, size)

    compute = Slow(predictor())
    compute.gate.set()
    data = plane(journal=MemoryJournal(), timeout=10, concurrency=1, using=compute)
    data.pipeline.clock = lambda: now
    await asyncio.gather(*(data.infer(request()) for _ in range(4)))
    taken = [asyncio.create_task(data.infer(request())) for _ in range(3)]
    refused = asyncio.create_task(data.infer(request()))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"turn within 5 s \(half .*\), found what waits to take about 6 s") as said:
        await refused
    assert (said.value.status, said.value.retry_after) == (503, 1)
    assert data.admission.open == 3
    assert len(await asyncio.gather(*taken)) == 3
    await data.infer(request())
    assert data.admission.open == 0


async def test_what_was_answered_504_is_no_decision() -> None:
    """Its rows are left out of the record of those it was computed with."""
    journal, compute = MemoryJournal(), Held(predictor())
    data = plane(journal=journal, timeout=0.4, using=compute)
    data.pipeline.clock = lambda: now
    now = 0.0
    late = [asyncio.create_task(data.infer(request(2, identity=name))) for name in ("late", "late too")]
    await asyncio.sleep(0)
    now = 0.3
    kept = asyncio.create_task(data.infer(request(3, identity="kept")))
    await until(lambda: compute.waiting)
    now = 0.5
    for task in late:
        with pytest.raises(DeadlineExceeded):
            await task
    compute.gate.set()
    answer = await kept
    assert journal.called == ["kept"]
    (frame,) = journal.frames
    assert np.frombuffer(frame.rows, "<i4").tolist() == [3]
    assert len(strings(frame.outputs["label"])) == 3
    assert {o.spec.name: o.rows for o in answer.outputs} == {"probabilities": 3, "label": 3}
    again = await data.infer(request(3))
    assert [o.values for o in answer.outputs] == [o.values for o in again.outputs]


async def test_nothing_is_recorded_of_a_batch_that_is_all_late() -> None:
    journal, compute = MemoryJournal(), Held(predictor())
    data = plane(journal=journal, timeout=0.05, using=compute)
    with pytest.raises(DeadlineExceeded):
        await data.infer(request())
    compute.gate.set()
    await data.close()
    assert journal.frames == []


async def test_what_is_being_recorded_is_answered_however_long_that_takes() -> None:
    journal = MemoryJournal()
    journal.gate = asyncio.Event()
    data = plane(journal=journal)
    task = asyncio.create_task(data.infer(request()))
    await until(lambda: journal.frames)
    data.pipeline.clock = lambda: 1e9
    data.pipeline._sweep()
    assert not task.done(), "a 504 now would leave a decision in the ledger of which nobody was told"
    journal.gate.set()
    assert (await task).ledger == "pending"


async def test_numbers_that_json_has_none_for_are_null_and_counted() -> None:
    compute = Held(predictor())
    compute.gate.set()
    compute.spoil = [math.nan, math.inf]
    data = plane(using=compute)
    good, bad = await asyncio.gather(data.infer(request(2)), data.infer(request(2)))
    codec = V2Codec(data.signature, "credit", "r1")
    answers = [json.loads(codec.encode(one).body)["outputs"][0] for one in (good, bad)]
    assert "parameters" not in answers[0], "said of the request that has them, not of its batch"
    assert answers[1]["parameters"] == {"non_finite": 2}
    assert answers[1]["data"][2:] == [None, None]


async def test_a_model_that_errs_is_500() -> None:
    compute = predictor()
    broken = plane(using=compute)
    compute._outputs = ["no such output"]
    with pytest.raises(PredictionFailed, match="model: expected an answer from ONNX Runtime"):
        await broken.infer(request())


async def test_explain_without_explainer_is_404() -> None:
    with pytest.raises(NotFound, match=r"expected spec\.explainer"):
        await plane().explain(ExplainRequest(request(), {}))


async def test_drain_waits_for_what_is_open() -> None:
    journal = MemoryJournal()
    journal.gate = asyncio.Event()
    data = plane(journal=journal)
    task = asyncio.create_task(data.infer(request()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(data.close())
    await until(lambda: journal.frames)
    assert not closing.done()
    journal.gate.set()
    await closing
    assert (await task).ledger == "pending"


async def test_generated_ids_are_uuid7_and_sorted() -> None:
    data = plane()
    ids = [(await data.infer(request())).id for _ in range(3)]
    assert all(i[14] == "7" and i[19] in "89ab" and len(i) == 36 for i in ids)
    assert len(set(ids)) == 3


async def test_masking_open_still_masks_the_neighbours() -> None:
    journal = MemoryJournal()
    data = plane(text=True, journal=journal, masking_policy="Open")
    await asyncio.gather(
        data.infer(request(text="a secret", identity="a")), data.infer(request(text="boom", identity="b"))
    )
    texts = {
        i: t for f in journal.frames for i, t in zip(f.client_ids, strings(f.features["note"]).tolist(), strict=True)
    }
    assert texts == {"a": "a <MASKED>", "b": "boom"}


async def test_what_arrives_while_a_record_is_written_shares_the_next_one() -> None:
    journal = MemoryJournal()
    data = plane(journal=journal)
    await data.warm_up()
    journal.gate = asyncio.Event()
    first = asyncio.create_task(data.infer(request()))
    await until(lambda: len(journal.frames) == 1)
    rest = [asyncio.create_task(data.infer(request())) for _ in range(5)]
    await asyncio.sleep(0)
    journal.gate.set()
    await asyncio.gather(first, *rest)
    assert [len(frame.ids) for frame in journal.frames] == [1, 5]
