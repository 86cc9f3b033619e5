"""What is contested is decided by a person, within a time, and who may is told by a token that no container has."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from governed_api.model import GovernedModelSpec
from governed_api.report import PodVerdict
from governed_api.roles import Role, bearer_token
from governed_serving.archive.client import PAGE, ArchiveClient, FetchedEntry
from governed_serving.archive.errors import Unreachable, Unverified
from governed_serving.archive.tokens import model_token
from governed_serving.archive.verify.beside import Beside
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.auditor.service.app import Dependencies, application
from governed_serving.auditor.service.contests import open_contests, read_contests
from governed_serving.auditor.service.decisions import Decisions
from governed_serving.auditor.service.metrics import AuditorMetrics
from governed_serving.auditor.service.persons import Persons
from governed_serving.auditor.service.state import AuditState, Subject
from governed_serving.auditor.service.workers.contest import ContestWorker
from governed_serving.auditor.service.workers.report import ReportWorker
from governed_serving.crypto import Keyset, SegmentCipher
from governed_serving.dossier.contests import contests, contests_section
from governed_serving.dossier.documents import read_report
from governed_serving.dossier.dossier import Dossier, LedgerView
from governed_serving.dossier.laws.facts import ItemResult
from governed_serving.dossier.laws.judging import judge_clauses
from governed_serving.journal import Journal, open_chunk
from governed_serving.records import EventRecord, LedgerEntry, timestamp
from governed_serving.report.writer import ReportWriter

from ..archive.ledgers import leaf
from ..archive.test_app import KEK, ROOT, Bed
from .test_dead_letters import everything, shipper

DAY = 86_400
WHY = {"by": "board", "outcome": "Changed", "reason": "the income was read wrong"}


class Site:
    """An auditor's routes over a real archive and journal; ``settle`` ships what was journalled."""

    def __init__(self, bed: Bed, spool: Path, keyset: Keyset, *, begin: bool = True) -> None:
        self.bed, self.client, self.keyset = bed, bed.client(), keyset
        self.journal = Journal(spool, "auditor-pod", SegmentCipher(keyset), "PageCache")
        self.shipper = shipper(spool, self.client, keyset)
        state = AuditState(Subject("credit", "r1", "pod"), self.journal)
        persons = Persons(self._as, "credit")
        self.app = application(
            Dependencies(
                state, self.journal, AuditorMetrics("default", "credit"), str, dict, lambda: None, None, self.client,
                None, persons, 30 * DAY,
                Decisions(self.client, SegmentCipher(keyset), "default", state.subject, 30 * DAY),
            )
        )  # fmt: skip
        if begin:
            self.client.append("server-pod", [leaf("request-7"), leaf("request-8")])

    def _as(self, token: str) -> ArchiveClient:
        return ArchiveClient("http://archive", token, "credit", transport=self.bed.transport, patience=0.0)

    async def ask(self, method: str, path: str, body: Any = None, token: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://auditor") as http:
            return await http.request(method, path, json=body, headers=headers)

    async def contest(self, id: str = "request-7") -> None:
        answer = await self.ask("POST", "/v1/reviews", {"id": id, "by": "applicant", "reason": "I was refused"})
        assert answer.status_code == 202, answer.text
        everything(self.shipper)

    async def decide(self, id: str = "request-7", token: str | None = None, **changed: str) -> httpx.Response:
        role = bearer_token(ROOT, "default", "credit", Role.OPERATOR) if token is None else token
        answer = await self.ask("POST", f"/v1/reviews/{id}/decision", {**WHY, **changed}, role)
        everything(self.shipper)
        return answer

    def entries(self, type: str) -> list[dict[str, Any]]:
        return [found.fields() for found in self.client.find(type=type)]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """Whose clock is that of those who write to it."""
    with closing(Bed(tmp_path / "archive", time.time)) as made:
        yield made


@pytest.fixture
def site(bed: Bed, tmp_path: Path, keyset: Keyset) -> Site:
    return Site(bed, tmp_path / "spool", keyset)


async def test_a_contest_is_opened_with_a_deadline_and_closed_by_a_decision(site: Site) -> None:
    await site.contest()
    (opened,) = site.entries("acknowledgement")
    waited = datetime.fromisoformat(opened["summary"]["deadline"]) - datetime.fromisoformat(opened["time"])
    assert waited.days == 30
    (shown,) = (await site.ask("GET", "/v1/reviews")).json()["open"]
    assert (shown["id"], shown["overdue"], shown["deadline"]) == ("request-7", False, opened["summary"]["deadline"])
    answer = await site.decide()
    assert (answer.status_code, answer.json()["outcome"], answer.json()["late"]) == (202, "Changed", False)
    (decided,) = site.entries("review")
    assert (decided["id"], decided["summary"]["contests"]) == ("request-7", [shown["ledgerIndex"]])
    assert decided["summary"] == {key: answer.json()[key] for key in decided["summary"]}
    assert (await site.ask("GET", "/v1/reviews")).json() == {"open": []}
    record = (await site.ask("GET", "/v1/reviews/request-7")).json()
    assert [len(record[kind]) for kind in ("reviews", "decisions")] == [1, 1]


async def test_a_flood_of_contests_hides_neither_the_decision_nor_its_labels(site: Site) -> None:
    label = leaf("request-7", "label")
    flood = [leaf("request-7", "acknowledgement") for _ in range(120)]
    site.client.append("auditor-flood", [label, *flood])
    record = (await site.ask("GET", "/v1/reviews/request-7")).json()
    assert (record["prediction"]["id"], len(record["labels"])) == ("request-7", 1)
    await site.contest()
    assert len(site.entries("acknowledgement")) == 100  # the newest
    assert (await site.decide()).status_code == 202


async def test_who_decided_and_why_is_in_the_sealed_record_alone(site: Site) -> None:
    await site.contest()
    await site.decide()
    (entry,) = site.entries("review")
    assert "board" not in json.dumps(entry)
    frames = dict(open_chunk(site.client.get_blob(entry["blob"]), SegmentCipher(site.keyset)))
    record = frames[entry["frame"]]
    assert isinstance(record, EventRecord)
    assert msgspec.json.decode(record.body) == WHY


@pytest.mark.parametrize("role", [role for role in Role if role not in (Role.OPERATOR, Role.READER)])
async def test_no_containers_token_decides(site: Site, role: Role) -> None:
    await site.contest()
    answer = await site.decide(token=bearer_token(ROOT, "default", "credit", role))
    assert answer.status_code == 403
    assert "only a person who answers for credit may decide" in answer.json()["error"]
    assert site.entries("review") == []


@pytest.mark.parametrize(
    ("token", "status"),
    [
        ("", 401),
        ("nonsense", 401),
        ("credit/operator/" + "0" * 64, 401),
        ("credit/operator/", 401),
        ("/".join(["x"] * 50), 401),
        ("credit/operator/" + "é", 401),
        (bearer_token(b"r" * 32, "default", "credit", Role.OPERATOR), 401),
        (bearer_token(ROOT, "default", "other", Role.OPERATOR), 403),
        (bearer_token(ROOT, "default", "credit", Role.READER), 401),
        (bearer_token(ROOT, "default", "governed-archive", Role.READER), 403),
        (bearer_token(ROOT, "default", "governed-archive", Role.OPERATOR), 401),
        (bearer_token(ROOT, "elsewhere", "credit", Role.OPERATOR), 401),
    ],
)
async def test_nobody_elses_token_decides(site: Site, token: str, status: int) -> None:
    await site.contest()
    headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://auditor") as http:
        answer = await http.post("/v1/reviews/request-7/decision", json=WHY, headers=headers)
    assert answer.status_code == status, answer.text
    everything(site.shipper)
    assert site.entries("review") == []


async def test_a_token_of_all_containers_decides_nothing(site: Site) -> None:
    await site.contest()
    assert (await site.decide(token=model_token(ROOT, "default", "credit"))).status_code in (401, 403)
    assert site.entries("review") == []


async def test_what_is_not_open_is_not_decided(site: Site) -> None:
    assert (await site.decide()).status_code == 404
    assert (await site.decide("nobody")).status_code == 404
    await site.contest()
    assert (await site.decide("request-8")).status_code == 404
    assert (await site.decide()).status_code == 202
    assert (await site.decide()).status_code == 202, "the same again"
    assert len(site.entries("review")) == 1
    await site.contest()
    await site.contest()
    assert (await site.decide(outcome="Upheld")).status_code == 202, "contested again"
    assert len(site.entries("review")[-1]["summary"]["contests"]) == 2


CONTRARY = [
    {"outcome": "Upheld"}, {"outcome": "Changed"}, {"outcome": "Withdrawn"}, {"by": "another"}, {"reason": "another"},
]  # fmt: skip


def _one_recorded(site: Site, answers: list[httpx.Response]) -> None:
    """The ledger has one; who was told that theirs is recorded sent it, all others were told of it."""
    (entry,) = site.entries("review")
    assert sorted(a.status_code for a in answers) == [202] + [409] * (len(answers) - 1)
    (taken,) = [a.json() for a in answers if a.status_code == 202]
    assert taken["outcome"] == entry["summary"]["outcome"]
    for refused in (a.json() for a in answers if a.status_code == 409):
        assert refused["decision"]["outcome"] == entry["summary"]["outcome"]
        assert refused["decision"].keys() >= {"ledgerIndex", "time", "by", "reason", "late", "contests"}
        assert "was decided by" in refused["error"]


async def test_of_contrary_decisions_at_once_one_is_recorded(site: Site) -> None:
    await site.contest()
    _one_recorded(site, await asyncio.gather(*(site.decide(**one) for one in CONTRARY)))


async def test_two_pods_decide_no_contest_twice(site: Site, tmp_path: Path) -> None:
    await site.contest()
    other = Site(site.bed, tmp_path / "other", site.keyset, begin=False)
    pods = [site, other, site, other, site]
    _one_recorded(site, await asyncio.gather(*(pod.decide(**one) for pod, one in zip(pods, CONTRARY, strict=True))))


async def test_what_was_decided_before_a_restart_stays(site: Site, tmp_path: Path) -> None:
    await site.contest()
    first = await site.decide()
    again = Site(site.bed, tmp_path / "again", site.keyset, begin=False)
    _one_recorded(site, [first, await again.decide(outcome="Upheld"), await again.decide(by="another")])
    assert (await again.decide()).json() == first.json(), "the same decision again is the same"
    assert len(site.entries("review")) == 1


async def test_the_same_decision_sent_at_once_is_one(site: Site) -> None:
    await site.contest()
    answers = await asyncio.gather(*(site.decide() for _ in range(4)))
    assert {a.status_code for a in answers} == {202}
    assert all(a.json() == answers[0].json() for a in answers)
    assert len(site.entries("review")) == 1


async def test_a_decision_is_in_the_ledger_when_it_is_answered(site: Site) -> None:
    """A kill behind the answer loses nothing: no journal is between."""
    await site.contest()
    role = bearer_token(ROOT, "default", "credit", Role.OPERATOR)
    assert (await site.ask("POST", "/v1/reviews/request-7/decision", WHY, role)).status_code == 202
    assert len(site.entries("review")) == 1


async def test_verify_misses_no_journal_of_a_decision(site: Site) -> None:
    await site.contest()
    await site.decide()
    site.client.checkpoint()
    found = inspect_folder(site.bed.root, KEK, Asked(), Beside(whole=True)).findings
    assert not [str(one) for one in (*found.wrong, *found.unchecked) if "decision-" in str(one)]


async def test_a_kill_within_a_decision_leaves_it_undecided(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.contest()

    def die(*_: object) -> None:
        raise Unreachable("killed")

    with monkeypatch.context() as killed:
        killed.setattr(ArchiveClient, "append_batch", die)
        killed.setattr("unit.auditor.test_contests.everything", lambda _: None)
        assert (await site.decide(outcome="Upheld")).status_code == 503
    assert site.entries("review") == []
    assert (await site.decide()).status_code == 202


@pytest.mark.parametrize(
    "changed",
    [{"outcome": "maybe"}, {"outcome": ""}, {"by": ""}, {"by": "x" * 257}, {"by": "a\nb"}, {"reason": "x" * 5000},
     {"more": "x"}],
)  # fmt: skip
async def test_a_decision_is_whole_or_refused(site: Site, changed: dict[str, str]) -> None:
    await site.contest()
    assert (await site.decide(**changed)).status_code == 400
    assert site.entries("review") == []


@pytest.mark.parametrize("id", ["a%00b", "x" * 200, "é"])
async def test_an_id_that_is_none_is_refused(site: Site, id: str) -> None:
    assert (await site.decide(id)).status_code in (400, 404)


def _entry(index: int, type: str, id: str, time: float, **summary: Any) -> FetchedEntry:
    entry = LedgerEntry(type, "default", "credit", id, timestamp(time), summary=summary)
    return FetchedEntry(index, msgspec.Raw(msgspec.json.encode(entry)))


def test_one_of_before_deadlines_has_one_by_the_manifest() -> None:
    old = _entry(3, "acknowledgement", "a", 0.0, kind="review", state="open", prediction=1)
    alarm = _entry(4, "acknowledgement", "alarm", 0.0, kind="alarm")
    (one,) = open_contests([old, alarm], [], 10 * DAY)
    assert one.deadline == timestamp(10.0 * DAY)
    assert (one.overdue(10 * DAY - 1), one.overdue(10 * DAY + 1)) == (False, True)


def test_a_decision_closes_what_was_opened_before_it_alone() -> None:
    opened = [_entry(n, "acknowledgement", id, n, kind="review", deadline=timestamp(100.0 - n))
              for n, id in ((1, "a"), (2, "b"), (8, "a"))]  # fmt: skip
    decided = [_entry(5, "review", "a", 5.0)]
    assert [(one.id, one.entry) for one in open_contests(opened, decided, 1)] == [("a", 8), ("b", 2)]


async def test_open_and_overdue_contests_are_counted_and_reported(site: Site, tmp_path: Path) -> None:
    now = [datetime.now(UTC).timestamp()]
    worker = ContestWorker(site.client, 30 * DAY, lambda: now[0])
    report = tmp_path / "report.json"
    state = AuditState(Subject("credit", "r1", "pod"), site.journal)
    reporting = ReportWorker(state, ReportWriter(f"file://{report}"), contests=lambda: worker.counts)

    def told() -> PodVerdict:
        reporting.run_once()
        status = json.loads(report.read_text())["status"]
        return PodVerdict.model_validate(status["revisions"]["r1"]["auditor"]["pod"])

    assert (worker.run_once(), worker.counts) == (0, (0, 0))
    await site.contest()
    assert (worker.run_once(), worker.counts) == (1, (1, 0))
    assert (told().open_contests, told().overdue_contests) == (1, 0)
    now[0] += 31 * DAY
    assert (worker.run_once(), worker.counts) == (1, (1, 1))
    assert len(read_contests(site.client, 30 * DAY)) == 1
    await site.decide()
    assert (worker.run_once(), worker.counts) == (1, (0, 0))


def _ledger(*found: FetchedEntry) -> LedgerView:
    view = LedgerView()
    for one in found:
        entry = msgspec.json.decode(one.entry, type=LedgerEntry)
        view.entries.setdefault(entry.type, []).append((one.index, entry))
        view.counts[entry.type] = view.counts.get(entry.type, 0) + 1
    return view


OPEN = _entry(1, "acknowledgement", "a", 0.0, kind="review", state="open", deadline=timestamp(5.0 * DAY))
CLOSED = _entry(2, "review", "a", 1.0, state="decided", outcome="Upheld", contests=[1], late=False)


def _told(*found: FetchedEntry) -> Dossier:
    """A dossier over contests, of a model whose decisions can be contested."""
    report = read_report({"auditor": {"verdict": "Pass"}}, [])
    made = datetime.fromtimestamp(10.0 * DAY, UTC)
    return Dossier("credit", made, report=report, ledger=_ledger(*found), manifest=GovernedModelSpec())


def _review(dossier: Dossier) -> ItemResult:
    (pipl,) = [c for c in judge_clauses(dossier) if c.id == "cn-pipl/automated-decisions"]
    (found,) = [f for f in pipl.findings if "contest" in f.what]
    return found


@pytest.mark.parametrize(
    ("found", "words", "finding"),
    [
        (
            (),
            "No decision was contested",
            ItemResult("present", "no decision was contested; one that is has to be decided within 30d"),
        ),
        (
            (OPEN, CLOSED),
            "1 contested, 0 not decided yet",
            ItemResult("present", "1 of 1 contested decisions decided by a person, none past its deadline", 2),
        ),
        (
            (OPEN,),
            "1 not decided yet, of these 1 past the deadline",
            ItemResult("contradicted", "1 contested decisions are past their deadline", 1),
        ),
    ],
)
def test_a_dossier_shows_what_became_of_contests(
    found: tuple[FetchedEntry, ...], words: str, finding: ItemResult
) -> None:
    dossier = _told(*found)
    assert words in contests_section(dossier)
    assert _review(dossier) == finding


def test_a_contest_is_no_acknowledged_alarm() -> None:
    said = [f for c in judge_clauses(_told(OPEN)) for f in c.findings if "alarm" in f.what]
    assert {f.what for f in said} == {"watch for alarms, last of an unknown day, wanted within 31 days"}


def test_entries_that_contradict_each_other_are_no_traceback() -> None:
    odd = [
        _entry(3, "review", "b", 1.0, contests="all"),
        _entry(4, "review", "b", 1.0, contests=[99]),
        _entry(5, "acknowledgement", "c", 1.0, kind="review", deadline="soon"),
    ]
    assert [one.index for one in contests(_ledger(OPEN, *odd), datetime.now(UTC))] == [1, 5]


async def test_a_flood_of_later_contests_and_decisions_hides_none(site: Site) -> None:
    """Neither those that were contested before, nor who decided."""
    await site.contest("request-7")
    await site.contest("request-8")
    worker = ContestWorker(site.client, 30 * DAY)
    assert (worker.run_once(), worker.counts) == (1, (2, 0))
    flood = [leaf(f"flood-{i}", "acknowledgement", summary={"kind": "review"}) for i in range(PAGE + 5)]
    site.client.append("server-pod", flood)
    closed = [leaf(f"flood-{i}", "review") for i in range(PAGE + 5)]
    site.client.append("server-pod", [*closed, leaf("request-8", "review")])
    whole = read_contests(site.client, 30 * DAY)
    assert [one.id for one in whole] == ["request-7"]
    assert (worker.run_once(), worker.counts) == (1, (1, 0))
    assert ContestWorker(site.client, 30 * DAY).run_once() == 1, "one that begins now finds it as well"
    assert (worker.run_once(), worker.counts) == (0, (1, 0))
    site.client.append("server-pod", [leaf("request-7", "review")])
    assert (worker.run_once(), worker.counts) == (1, (0, 0))


async def test_a_decision_that_is_read_before_its_contest_is_remembered(site: Site) -> None:
    """It came between the two questions of one look."""
    worker, find_all = ContestWorker(site.client, 30 * DAY), site.client.find_all

    def between(*, type: str, after: int = -1) -> list[FetchedEntry]:
        found = find_all(type=type, after=after)
        if type == "acknowledgement" and not found:
            site.client.append("server-pod", [leaf("late", "acknowledgement", summary={"kind": "review"})])
            site.client.append("server-pod", [leaf("late", "review")])
        return found

    site.client.find_all = between  # type: ignore[method-assign]
    assert (worker.run_once(), worker.counts) == (0, (0, 0))
    assert (worker.run_once(), worker.counts) == (0, (0, 0))


async def test_a_record_says_of_which_types_it_leaves_entries_out(site: Site) -> None:
    first = (await site.ask("GET", "/v1/reviews/request-7")).json()
    assert (first["leftOut"], len(first["explanations"])) == ([], 0)
    site.client.append("server-pod", [leaf("request-7", "explanation") for _ in range(101)])
    found = (await site.ask("GET", "/v1/reviews/request-7")).json()
    assert (found["leftOut"], len(found["explanations"])) == (["explanation"], 100)


@pytest.mark.parametrize("rest", ["3", "x", "-1", "99999999"])
def test_a_list_that_never_ends_is_left(rest: str) -> None:
    """An archive that names the same place again."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=[], headers={"X-Governed-Before": rest})

    client = ArchiveClient("http://archive", "t", "credit", transport=httpx.MockTransport(answer), patience=0.0)
    if rest.isdecimal():
        with pytest.raises(Unverified, match="listed already"):
            client.find_all(type="review")
    else:
        assert client.find_all(type="review") == []
    assert len(asked) <= 2
