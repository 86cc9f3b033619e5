"""The auditor's parts without processes: every crash point of shipping, splits and restarts of the fold, late labels,
windows."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from governed_api.governance import Bias
from governed_serving.archive.client import AppendAnswer
from governed_serving.archive.errors import Refused
from governed_serving.auditor.service.app import Dependencies, application
from governed_serving.auditor.service.entries import entries_of
from governed_serving.auditor.service.folding import Fold
from governed_serving.auditor.service.label_door import LabelDoor
from governed_serving.auditor.service.merging import merged
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.process import Service
from governed_serving.auditor.service.shipping import Shipper
from governed_serving.auditor.service.tail import Tail
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.fairness.counts.cells import Cells
from governed_serving.fairness.counts.grouping import Grouping, outcomes
from governed_serving.fairness.counts.truth import label_of
from governed_serving.fairness.counts.windows import Window
from governed_serving.fairness.metrics.verdict import judge
from governed_serving.journal import Journal, JournalDamaged, JournalReader, open_chunk
from governed_serving.records import EventRecord, ExplanationRecord, LedgerEntry, canonical, timestamp
from support.asgi import cut_short
from support.predictions import framed

from .records import SPEC, asked, people, prediction

BIAS = Bias.model_validate(SPEC["spec"]["governance"]["bias"])


def write(spool: Path, keyset: Keyset, rows: list[tuple[str, str]], first: int = 0) -> None:
    with Journal(spool, "server-pod", SegmentCipher(keyset), "PageCache", segment_bytes=1 << 14) as journal:
        for number, (sex, decision) in enumerate(rows, first):
            journal.append_blocking(prediction(number, sex, decision))


class Killed(Exception):
    """The process ended here."""


class Archive:
    """Numbered appends and addressed blobs, as the archive answers them; ``killing`` ends the caller before or after
    call n."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[bytes] = []
        self.calls = 0
        self.kill_before = self.kill_after = -1

    def _call(self, work: Any) -> Any:
        self.calls += 1
        if self.calls == self.kill_before:
            raise Killed
        answer = work()
        if self.calls == self.kill_after:
            raise Killed
        return answer

    def put_blob(self, data: bytes) -> str:
        from hashlib import sha256

        address = sha256(data).hexdigest()
        self._call(lambda: self.blobs.__setitem__(address, data))
        return address

    def next_seq(self, stream: str) -> int:
        assert stream
        return len(self.entries)

    def append_batch(self, stream: str, first: int, entries: list[bytes]) -> AppendAnswer:
        assert stream.startswith("server-pod.")

        def work() -> AppendAnswer:
            assert first <= len(self.entries), "a gap"
            known = self.entries[first : first + len(entries)]
            assert known == entries[: len(known)], "a number repeated with other content"
            self.entries += entries[len(known) :]
            return AppendAnswer(first, len(self.entries), [(first, len(entries))])

        return self._call(work)


@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.parametrize("when", ["kill_before", "kill_after"])
def test_shipping_arrives_once_whatever_call_the_process_dies_in(
    tmp_path: Path, keyset: Keyset, call: int, when: str
) -> None:
    archive, cipher = Archive(), SegmentCipher(keyset)
    setattr(archive, when, call)
    written = 0
    for part in range(3):
        write(tmp_path, keyset, people(40, part), written)
        written += 40
        for _ in range(30):
            shipper = Shipper(tmp_path, archive, cipher, "default")  # type: ignore[arg-type]
            try:
                while shipper.step():
                    continue
                break
            except Killed:
                write(tmp_path, keyset, people(10, 9), written)  # traffic goes on while the auditor is away
                written += 10
    entries = [json.loads(e) for e in archive.entries]
    assert [e["id"] for e in entries] == [f"request-{n}" for n in range(written)]
    for entry in entries:
        frames = dict(open_chunk(archive.blobs[entry["blob"]], cipher))
        assert frames[entry["frame"]].ids[entry["index"]] == entry["id"]


def test_a_stream_whose_entries_are_refused_holds_up_no_other_and_is_told(tmp_path: Path, keyset: Keyset) -> None:
    class Choosy(Archive):
        def append_batch(self, stream: str, first: int, entries: list[bytes]) -> AppendAnswer:
            if stream.startswith("explainer-pod."):
                raise Refused(400, "entry 0: type must be one of …")
            return super().append_batch(stream, first, entries)

    archive, cipher = Choosy(), SegmentCipher(keyset)
    with Journal(tmp_path, "explainer-pod", cipher) as journal:
        journal.append_blocking(EventRecord("verdict", "odd", "loans", "r1", 6.5, b"{}"))
    write(tmp_path, keyset, people(40, 0))
    shipper = Shipper(tmp_path, archive, cipher, "default")  # type: ignore[arg-type]
    with pytest.raises(Refused, match="type must be one of"):
        shipper.step()
    assert len(archive.entries) == 40, "explainer- comes before server-"


def test_who_is_behind_says_so_and_who_has_caught_up_pauses(tmp_path: Path, keyset: Keyset) -> None:
    write(tmp_path, keyset, people(200, 0))
    cipher = SegmentCipher(keyset)
    shipper = Shipper(tmp_path, Archive(), cipher, "default")  # type: ignore[arg-type]
    tail = Tail(tmp_path, keyset, cipher, Fold(BIAS, "r1"))
    assert len(list((tmp_path / "journal" / "server-pod").glob("*.seg"))) > 1
    shipper.step()
    assert shipper.behind, "the first segment is shipped, others wait"
    while shipper.step():
        continue
    assert not shipper.behind
    tail.step(most=150)
    assert tail.behind
    tail.step(most=150)
    assert not tail.behind
    assert tail.fold.rows == 200


def test_entries_are_canonical_byte_for_byte(tmp_path: Path, keyset: Keyset) -> None:
    cipher = SegmentCipher(keyset)
    odd = asked(0, "M", "yes")
    odd = msgspec.structs.replace(odd, id='say "hi" 你好\\\n')
    with Journal(tmp_path, "server-pod", cipher) as journal:
        for record in (
            framed(odd),
            ExplanationRecord("request-0", "loans", "r1", 5.0, b"{}"),
            EventRecord("label", "request-0", "loans", "r1", 6.5, b"{}", {"n": 1}),
        ):
            journal.append_blocking(record)
    chunk = JournalReader(tmp_path, "server-pod", cipher).chunk(0)
    assert chunk is not None
    found = [entry for entry, _ in entries_of(chunk, "default")]
    expected = [
        LedgerEntry(
            "prediction", "default", "loans", odd.id, timestamp(odd.time), "r1", chunk.digest, chunk.first_seq, 0
        ),
        LedgerEntry(
            "explanation", "default", "loans", "request-0", timestamp(5.0), "r1", chunk.digest, chunk.first_seq + 1
        ),
        LedgerEntry(
            "label",
            "default",
            "loans",
            "request-0",
            timestamp(6.5),
            "r1",
            chunk.digest,
            chunk.first_seq + 2,
            summary={"n": 1},
        ),
    ]
    assert found == [canonical(entry) for entry in expected]


UNITS = {"microseconds": np.array([7, 0, 9, 1 << 40], "<i8").tobytes()}


@pytest.mark.parametrize(
    ("units", "told"),
    [
        ({}, [{}] * 4),
        (UNITS, [{"units": {"microseconds": each, "rows": 1}} for each in (7, 0, 9, 1 << 40)]),
        ({"started": np.ones(4, "<i8").tobytes()}, [{"units": {"started": 1}}] * 4),
        ({"euros": bytes(32), "tokensIn": bytes(31)}, [{}] * 4),
    ],
    ids=["older", "rows", "started", "unknown"],
)
@pytest.mark.parametrize("callers", [[], ["p1", "", "p2", "p1"]])
def test_entries_name_who_asked_by_a_pseudonym_and_what_they_used_and_stay_canonical(
    tmp_path: Path,
    keyset: Keyset,
    callers: list[str],
    units: dict[str, bytes],
    told: list[dict[str, dict[str, int]]],
) -> None:
    cipher = SegmentCipher(keyset)
    single = framed(asked(0, "M", "yes"))
    times = np.full(4, 5.0, "<f8").tobytes()
    ids = [f"request-{n}" for n in range(4)]
    rows = np.ones(4, "<i4").tobytes()
    frame = msgspec.structs.replace(
        single, ids=ids, times=times, rows=rows, client_ids=[], callers=callers, units=units
    )
    with Journal(tmp_path, "server-pod", cipher) as journal:
        journal.append_blocking(frame)
    chunk = JournalReader(tmp_path, "server-pod", cipher).chunk(0)
    assert chunk is not None
    entries = [
        (request, {"caller": who, **used} if who else {})
        for request, who, used in zip(ids, callers or [""] * 4, told, strict=True)
    ]
    expected = [
        LedgerEntry(
            "prediction", "default", "loans", request, timestamp(5.0), frame.revision, chunk.digest, chunk.first_seq,
            index, summary=summary,
        )
        for index, (request, summary) in enumerate(entries)
    ]  # fmt: skip
    assert [entry for entry, _ in entries_of(chunk, "default")] == [canonical(one) for one in expected]


def test_restarts_anywhere_give_the_state_of_an_undisturbed_run(tmp_path: Path, keyset: Keyset) -> None:
    cipher = SegmentCipher(keyset)
    write(tmp_path, keyset, people(300, 4))
    whole = Fold(BIAS, "r1")
    for _, record in JournalReader(tmp_path, "server-pod", cipher).read():
        whole.record(record)
    tail = Tail(tmp_path, keyset, cipher, Fold(BIAS, "r1"))
    step = 0
    while tail.step(most=7):
        step += 1
        if step % 2:  # every other step is lost with the process: it must be folded again
            tail.save()
        if step % 3 == 0:
            tail = Tail(tmp_path, keyset, cipher, Fold(BIAS, "r1"))
    assert content(tail.fold) == content(whole)
    assert whole.rows == 300


def content(fold: Fold) -> dict[str, Any]:
    """All that a fold knows, however its memory of requests is cut into blocks."""
    dumped = fold.dump()
    ids = [one for block in dumped["labels"].pop("blocks") for one in block["ids"]]
    return {**dumped, "requests": [(one, fold.labels.rows_of(one)) for one in ids]}


def test_frames_read_together_are_folded_as_one_and_count_the_same(tmp_path: Path, keyset: Keyset) -> None:
    write(tmp_path, keyset, people(60, 4))
    records = [record for _, record in JournalReader(tmp_path, "server-pod", SegmentCipher(keyset)).read()]
    label = EventRecord("label", "request-1", "loans", "r1", 0.0, msgspec.json.encode({"label": "yes"}))
    other = msgspec.structs.replace(records[0], revision="r2")
    mixed = [*records[:20], label, *records[20:], other]
    one_by_one, together = Fold(BIAS, "r1"), Fold(BIAS, "r1")
    for record in mixed:
        one_by_one.record(record)
    found = list(merged(mixed))
    for record in found:
        together.record(record)
    assert len(records) > 10, "a frame per group commit"
    assert [type(record).__name__ for record in found] == [
        "PredictionFrame",
        "EventRecord",
        "PredictionFrame",
        "PredictionFrame",
    ]
    assert content(together) == content(one_by_one)


def test_what_was_read_before_the_journal_broke_counts_once(tmp_path: Path, keyset: Keyset) -> None:
    write(tmp_path, keyset, people(30, 4))
    (segment,) = (tmp_path / "journal" / "server-pod").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[-5] ^= 1
    segment.write_bytes(data)
    tail = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
    for _ in range(3):
        with pytest.raises(JournalDamaged):
            tail.step()
    assert 0 < tail.fold.rows < 30


def test_another_revision_begins_anew_and_passes_old_records_over(tmp_path: Path, keyset: Keyset) -> None:
    cipher = SegmentCipher(keyset)
    write(tmp_path, keyset, people(20, 4))
    first = Tail(tmp_path, keyset, cipher, Fold(BIAS, "r1"))
    first.step()
    first.save()
    second = Tail(tmp_path, keyset, cipher, Fold(BIAS, "r2"))
    assert "revision" in second.restarted
    write(tmp_path, keyset, people(20, 5), 20)
    second.step()
    assert (first.fold.rows, second.fold.rows) == (20, 0)


def test_state_and_spool_hold_no_plaintext(tmp_path: Path, keyset: Keyset) -> None:
    write(tmp_path, keyset, people(20, 4))
    tail = Tail(tmp_path, keyset, SegmentCipher(keyset), Fold(BIAS, "r1"))
    tail.step()
    tail.save()
    assert all(b"request-1" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 12))
def test_labels_join_whether_they_come_before_or_after(order: list[int], early: int) -> None:

    fold, rows = Fold(BIAS, "r1"), people(12, 6)

    def label(number: int) -> None:
        body = msgspec.json.encode({"id": f"request-{number}", "label": ["yes"] if number % 2 else "no"})
        fold.record(EventRecord("label", f"request-{number}", "loans", "r1", 0.0, body))

    for number in order[:early]:
        label(number)
    fold.record(framed(*(asked(n, *rows[n]) for n in range(12))))
    for number in order[early:]:
        label(number)
    expected = Cells(("sex",))
    for number, (sex, decision) in enumerate(rows):
        expected.put((sex,), np.eye(6, dtype=np.int64)[3 * (decision == "yes") + number % 2].reshape(2, 3))
    assert fold.cells().dump() == expected.dump()
    label(0)
    assert fold.labels.dropped["repeated"] == 1


def test_label_memory_is_bounded_and_counts_what_it_loses() -> None:

    fold = Fold(BIAS, "r1", label_capacity=10)
    for start in range(0, 100, 5):
        fold.record(framed(*(asked(n, "M", "yes") for n in range(start, start + 5))))
    assert fold.labels.remembered <= 20
    assert fold.labels.forgotten == 100 - fold.labels.remembered
    for number in range(30):
        fold.labels.label(f"nobody-{number}", [1])
    assert (fold.labels.waiting, fold.labels.dropped["evicted"]) == (10, 20)


def test_the_labels_memory_is_told_to_prometheus() -> None:
    fold, metrics = Fold(BIAS, "r1", label_capacity=10), AuditorMetrics("loans", "m")
    none: Any = SimpleNamespace(verdict=judge(BIAS, fold.cells()), metrics=metrics, door=LabelDoor(fold))
    process: Any = SimpleNamespace(state=none, metrics=metrics, replicas=None, checks=None, live=None)

    def told() -> dict[str, float]:
        metrics.set(Service._counts(process, SimpleNamespace(fold=fold, records=0)))  # type: ignore[arg-type]
        families = text_string_to_metric_families(metrics.text().decode())
        found = {sample.name: sample.value for family in families for sample in family.samples}
        names = ("label_memory_requests", "labels_waiting", "labels_joined_total")
        return {name: found[f"governed_auditor_{name}"] for name in names}

    fold.labels.label("not asked yet", [1])
    for start in range(0, 100, 5):
        fold.record(framed(*(asked(n, "M", "yes") for n in range(start, start + 5))))
    held = 100 - fold.labels.forgotten
    assert told() == {"label_memory_requests": held, "labels_waiting": 1, "labels_joined_total": 0}
    fold.record(
        EventRecord(
            "label", "request-99", "loans", "r1", 0.0, msgspec.json.encode({"id": "request-99", "label": "yes"})
        )
    )
    assert told() == {"label_memory_requests": held, "labels_waiting": 1, "labels_joined_total": 1}


def test_predictions_without_the_attribute_say_so() -> None:

    bias = Bias.model_validate({**SPEC["spec"]["governance"]["bias"], "protectedAttributes": [{"name": "religion"}]})
    fold = Fold(bias, "r1")
    fold.record(framed(asked(1, "M", "yes")))
    assert fold.absent == {"religion"}
    assert fold.cells().values("religion") == ["(missing)"]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_sliding_windows_add_up_over_replicas(seed: int, replicas: int) -> None:
    rng = np.random.default_rng(seed)
    minutes = np.sort(rng.integers(0, 50, 400))
    outcome, owner = rng.integers(0, 2, 400), rng.integers(0, replicas, 400)

    def window(rows: np.ndarray) -> Window:
        made = Window(("g",), samples=100)
        for row in np.flatnonzero(rows):
            made.add({"g": (np.zeros(1, np.int64), ["a"])}, outcome[[row]], made.bucket_of(minutes[[row]] * 60.0))
        return made

    merged = Window(("g",), samples=100)
    for replica in range(replicas):
        merged.merge(Window.load(window(owner == replica).dump()))
    whole = window(np.ones(400, bool))
    assert merged.total().dump() == whole.total().dump()
    assert 100 <= whole.total().rows <= 400


def test_numeric_attributes_get_bands_from_the_training_range() -> None:
    codes, names = Grouping.of("age", 18, 68).encode(np.array([17.0, 28.0, 67.0, np.nan], np.float32), None)
    assert [names[c] for c in codes] == ["< 28", "[28, 38)", "≥ 58", "(missing)"]
    codes, names = Grouping.of("flag", 0, 1).encode(np.array([0.0, 1.0], np.float32), None)
    assert [names[c] for c in codes] == ["0", "1"]


def test_the_verdict_says_the_bands() -> None:
    rules = {**SPEC["spec"]["governance"]["bias"], "protectedAttributes": [{"name": "age", "bands": [40, 25]}]}
    fold = Fold(Bias.model_validate(rules), "r1")
    assert fold.bands == {"age": [25.0, 40.0]}
    assert Fold(BIAS, "r1").bands == {}
    assert fold.rules != Fold(Bias.model_validate({**rules, "protectedAttributes": [{"name": "age"}]}), "r1").rules


def test_outcomes_of_words_numbers_and_scores() -> None:
    assert outcomes(np.array([0, 1, 0]), ["no", "yes"], "yes", None).tolist() == [False, True, False]
    assert outcomes(np.array([1, 0]), None, "1", None).tolist() == [True, False]
    assert outcomes(np.array([0.2, 0.5]), None, None, 0.5).tolist() == [False, True]
    assert label_of(BIAS.favorable_outcome, ["yes", "no", 1]) == [1, 0, 0]


@pytest.mark.parametrize("path", ["/v1/labels", "/v1/acknowledgements", "/v1/reviews"])
async def test_a_client_that_goes_in_the_middle_of_a_body_is_refused_not_a_traceback(path: str) -> None:
    state: Any = SimpleNamespace(tail=object(), subject=None)
    journal: Any = SimpleNamespace(append=None)
    app = application(Dependencies(state, journal, AuditorMetrics("default", "loans"), str, dict, lambda: None))
    assert await cut_short(app, "POST", path, (), b'{"labels": [') == [400]
