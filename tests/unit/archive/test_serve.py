"""The archive's process: what it reads before it starts, what it tells the report, and what goes on beside its
routes."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from governed_api import runtime
from governed_api.lifetimes import Lifetimes
from governed_api.routes import CHECKPOINT, FIND, READY_PATH
from governed_serving.archive import serve
from governed_serving.archive.errors import ArchiveError, Busy, LedgerDamaged
from governed_serving.archive.ledger.note import Checkpoint
from governed_serving.archive.mirror.manifest import RECOVERED
from governed_serving.archive.service import Archive
from governed_serving.archive.store.objects import Place
from governed_serving.archive.tokens import OLDER_SECONDS
from governed_serving.archive.witness.asking import Witnessing
from governed_serving.archive.witness.policy import WitnessPolicy
from governed_serving.crypto import Kek
from governed_serving.hosting import supervision
from governed_serving.report import ReportWriter
from support.ports import free_port
from support.waiting import eventually

from .ledgers import batch

KEK = Kek(bytes(32))


class Enough(BaseException):
    """Ends a loop that would go on for ever, whatever it catches."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with closing(Archive(tmp_path / "archive", KEK, "default")) as found:
        yield found


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Any]]]:
    """(level, message, fields) of what the module logs."""
    lines: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(serve, "log", lambda level, message, **fields: lines.append((level, message, fields)))
    return lines


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Run a loop for as many pauses as there are steps, one called in each; the seconds of the pauses."""

    def run(loop: Any, *steps: Callable[[], object]) -> list[float]:
        slept: list[float] = []
        waiting = list(steps)

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if not waiting:
                raise Enough
            waiting.pop(0)()

        with monkeypatch.context() as patched:
            patched.setattr(serve.asyncio, "sleep", sleep)
            with pytest.raises(Enough):
                asyncio.run(loop)
        return slept

    return run


def nothing() -> None:
    """A pause in which nothing happens."""


def report(folder: Path, **archive: object) -> str:
    (folder / "report.json").write_text(json.dumps({"status": {"archive": archive}}))
    return f"file://{folder}/report.json"


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())["status"]["archive"]
    return found


# -- before it starts -------------------------------------------------------------------------------------------------


def variables(folder: Path, **further: str) -> dict[str, str]:
    (folder / "kek").write_bytes(bytes(32))
    (folder / "kek").chmod(0o600)
    (folder / "root").write_bytes(b"r" * 32)
    return {
        runtime.ARCHIVE_DIR: str(folder / "archive"),
        runtime.KEK_FILE: str(folder / "kek"),
        runtime.ARCHIVE_ROOT_FILE: str(folder / "root"),
    } | further


def test_settings_have_defaults_and_are_read(tmp_path: Path) -> None:
    found = serve.ArchiveSettings.from_environment(variables(tmp_path))
    assert (found.namespace, found.port, found.public_port, found.report) == ("default", 8090, 0, "")
    assert (found.folder, found.root, found.bucket) == (tmp_path / "archive", b"r" * 32, None)
    given = {runtime.NAMESPACE: "banks", runtime.HTTP_PORT: "8123", runtime.LEDGER_PORT: "8091", runtime.REPORT: "x"}
    found = serve.ArchiveSettings.from_environment(variables(tmp_path, **given))
    assert (found.namespace, found.port, found.public_port, found.report) == ("banks", 8123, 8091, "x")


def asked(folder: Path, url: str) -> dict[str, str]:
    """What the report at ``url`` tells an archive before it opens its ledger."""
    return serve._told(serve.ArchiveSettings.from_environment(variables(folder, **{runtime.REPORT: url})))


@pytest.mark.parametrize("section", [{}, {"checkpoint": ""}, {"checkpoint": 7}, {"size": 3}])
def test_a_report_without_a_checkpoint_tells_nothing(tmp_path: Path, section: dict[str, object]) -> None:
    assert asked(tmp_path, report(tmp_path, **section)) == {}


def test_a_checkpoint_of_the_report_is_told_and_its_absence_stops_nothing(tmp_path: Path, logged: list[Any]) -> None:
    assert asked(tmp_path, "") == {}
    assert asked(tmp_path, report(tmp_path, checkpoint="a note")) == {"GovernanceReport": "a note"}
    assert logged == []
    (tmp_path / "report.json").write_text("{")
    assert asked(tmp_path, f"file://{tmp_path}/report.json") == {}
    ((level, message, fields),) = logged
    assert (level, "isn't held against it" in message, fields["error"][:16]) == ("warning", True, "report not read:")


def test_a_ledger_that_was_just_recovered_needs_the_report_to_be_held_against(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / RECOVERED).touch()
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(
        ArchiveError, match=r"came from object storage, and the checkpoint .* couldn't be read: .*; start"
    ):
        asked(tmp_path, f"file://{tmp_path}/report.json")
    assert asked(tmp_path, report(tmp_path, checkpoint="a note")) == {"GovernanceReport": "a note"}


@pytest.mark.parametrize(
    ("accept_loss", "reported"), [(True, True), (False, False)], ids=["by the command", "without a report"]
)
def test_a_loss_is_refused_in_its_own_words_where_no_annotation_could_accept_it(
    accept_loss: bool, reported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []

    def damaged(*_: object, accept_loss: bool, **__: object) -> Archive:
        opened.append(accept_loss)
        raise LedgerDamaged("entries 3 to 5 are missing", index=3)

    monkeypatch.setattr(serve, "Archive", damaged)
    given = {runtime.REPORT: report(tmp_path)} if reported else {}
    settings = serve.ArchiveSettings.from_environment(variables(tmp_path, **given))
    with pytest.raises(LedgerDamaged, match=r"^entries 3 to 5 are missing$"):
        serve._opened(settings, {}, accept_loss=accept_loss)
    assert opened == [accept_loss]


def test_a_ledger_is_copied_where_its_place_says_so(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve._copying(archive, accept_loss=False) is None
    made: list[bool] = []
    monkeypatch.setattr(serve, "Mirror", lambda *_, accept_loss: made.append(accept_loss))
    for query, copied in {"volume": False, "behind": True, "stored": True}.items():
        place = Place.parse(f"s3://ledgers?ledger={query}")
        monkeypatch.setattr(archive.blobs, "bucket", SimpleNamespace(place=place))
        assert (serve._copying(archive, accept_loss=copied) is not None) is copied
    assert made == [True, True]


def test_whether_a_loss_is_accepted_is_a_no_where_it_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, logged: list[Any]
) -> None:
    def away(*_: object) -> str:
        raise OSError("no way")

    monkeypatch.setattr(ReportWriter, "annotation", away)
    assert serve._accepted("file:///report.json") == ""
    assert [(level, fields) for level, _, fields in logged] == [("warning", {"error": "no way"})]


def test_older_tokens_are_taken_for_a_week_and_the_log_says_until_when(
    tmp_path: Path, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = serve.ArchiveSettings.from_environment(variables(tmp_path))
    settings.folder.mkdir()
    monkeypatch.setattr(serve.time, "time", lambda: 1_767_225_600.0)
    assert serve._tokens(settings).older_until == 1_767_225_600 + OLDER_SECONDS
    monkeypatch.setattr(serve.time, "time", lambda: 1_767_225_600 + OLDER_SECONDS)
    assert serve._tokens(settings).older_until == 1_767_225_600 + OLDER_SECONDS
    first, then = (message for _, message, _ in logged)
    assert first == "tokens of the older form, without a role, are taken until 2026-01-08T00:00:00.000Z"
    assert then == "tokens of the older form, without a role, are not taken any more since 2026-01-08T00:00:00.000Z"
    assert logged[0][2] == {"until": "2026-01-08T00:00:00.000Z"}


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ('{"keys": null, "payloads": 60}', Lifetimes(60, None)),
        ("", None), ("{", None), ("[]", None), ('{"payloads": 60}', None), ('{"keys": 0, "payloads": 60}', None),
        ('{"keys": true, "payloads": 60}', None), ('{"keys": 1e3, "payloads": 60}', None),
    ],
)  # fmt: skip
def test_lifetimes_are_those_of_the_models_report_or_not_known(
    monkeypatch: pytest.MonkeyPatch, logged: list[Any], annotation: str, said: Lifetimes | None
) -> None:
    asked: list[tuple[str, str]] = []

    def read(_: ReportWriter, name: str, report: str = "") -> str:
        asked.append((name, report))
        return annotation

    monkeypatch.setattr(ReportWriter, "annotation", read)
    found = serve._lifetimes("https://kubernetes.default.svc/apis/x/namespaces/ns/governancereports/governed-archive")
    if said is None:
        with pytest.raises(OSError, match=r"."):
            found("credit")
        assert logged[0][:2] == ("warning", "how long a model's payloads are kept couldn't be read: what is set stays")
    else:
        assert found("credit") == said
    assert asked == [("governedmodels.io/lifetimes", "credit")]


@pytest.mark.parametrize("report", ["", "file:///tmp/report.json"])
def test_without_an_api_server_the_pods_say_how_long(report: str) -> None:
    assert serve._lifetimes(report)("credit") is None


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_reports_section_is_the_checkpoint_and_what_is_wrong(archive: Archive) -> None:
    archive.ledger.append(batch(0, 3))
    values = serve._values(archive, None)
    note = archive.ledger.checkpoint()
    root = base64.b64encode(Checkpoint.unverified(note).root).decode()
    nothing_wrong = dict.fromkeys(("message", "cosigned", "lagging", "contradiction", "unstored"))
    assert values == {
        "size": 3,
        "checkpoint": note,
        "rootHash": root,
        **nothing_wrong,
        "verdicts": [],
        "verdictsLeftOut": None,
    }
    archive.ledger.faults.update({0: "one fault", 256: "another"})
    assert serve._values(archive, None)["message"] == "one fault; another"
    archive.ledger.faults[512] = "f" * 2000
    archive.witnessed.contradiction = "c" * 2000
    values = serve._values(archive, None)
    assert [len(str(values[name])) for name in ("message", "contradiction")] == [1000, 1000], "a report stays small"


def test_of_a_ledger_that_nobody_may_see_yet_the_report_says_why(archive: Archive) -> None:
    def away() -> str:
        raise Busy("no checkpoint is shown before it is stored")

    archive.show = away
    assert serve._values(archive, None) == {"unstored": None}
    copying: Any = SimpleNamespace(problem="p" * 2000)
    assert serve._values(archive, copying) == {"unstored": "p" * 1000}


def test_the_report_is_told_once_and_again_when_something_changes(
    archive: Archive, tmp_path: Path, pauses: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, bool]] = []
    update = ReportWriter.update

    def counted(writer: ReportWriter, part: Any, values: Any, *, at_once: bool = False) -> bool:
        written.append((values["size"], at_once))
        return update(writer, part, values, at_once=at_once)

    monkeypatch.setattr(ReportWriter, "update", counted)
    url = report(tmp_path)
    slept = pauses(
        serve._report(archive, url, None),
        nothing,
        lambda: archive.ledger.append(batch(0, 2)),
        lambda: archive.ledger.faults.update({0: "a fault"}),
        nothing,
    )
    assert written == [(0, False), (2, False), (2, True)], "a fault goes at once"
    assert (told(tmp_path)["size"], told(tmp_path)["message"]) == (2, "a fault")
    assert slept == [15.0] * 5
    asyncio.run(serve._report(archive, "", None))  # no report: the loop isn't there


def test_what_could_not_be_written_is_written_later(
    archive: Archive, tmp_path: Path, pauses: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [False, True, True]
    monkeypatch.setattr(ReportWriter, "update", lambda *_, **__: answers.pop(0))
    pauses(serve._report(archive, report(tmp_path), None), nothing, nothing, nothing)
    assert answers == [True], "tried until it was written, and then left alone"


def test_a_larger_checkpoint_of_the_report_is_evidence_and_stays(
    archive: Archive, tmp_path: Path, pauses: Callable[..., list[float]], logged: list[Any]
) -> None:
    archive.ledger.append(batch(0, 2))
    url = report(tmp_path, size=3, checkpoint="what was signed")
    pauses(serve._report(archive, url, None), nothing)
    assert told(tmp_path) == {"size": 3, "checkpoint": "what was signed"}
    assert (
        logged
        == [("error", "the report has a checkpoint over more entries than the ledger", {"report": 3, "ledger": 2})] * 2
    )
    archive.ledger.append(batch(2, 1))
    pauses(serve._report(archive, url, None))
    assert told(tmp_path)["checkpoint"] == archive.ledger.checkpoint(), "as many entries: the same log goes on"


@pytest.mark.parametrize(("section", "may"), [({}, True), ({"size": "3"}, True), ({"size": 0}, True)])
def test_a_report_that_has_less_may_be_written(
    archive: Archive, tmp_path: Path, section: dict[str, object], may: bool
) -> None:
    assert serve._may_report(ReportWriter(report(tmp_path, **section)), archive) is may


def test_a_report_that_cannot_be_read_waits(
    archive: Archive, tmp_path: Path, pauses: Callable[..., list[float]], logged: list[Any]
) -> None:
    (tmp_path / "report.json").write_text("{")
    pauses(serve._report(archive, f"file://{tmp_path}/report.json", None), lambda: report(tmp_path))
    assert told(tmp_path)["size"] == 0
    assert [level for level, _, _ in logged] == ["warning"]


# -- what goes on beside the routes -----------------------------------------------------------------------------------


def test_inspection_tells_each_fault_once_and_what_was_made_anew(
    archive: Archive, pauses: Callable[..., list[float]], logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[int] = []
    monkeypatch.setattr(archive.ledger, "inspect", lambda place: places.append(place) or place + 2048)
    archive.ledger.said.clear()
    slept = pauses(
        serve._inspection(archive),
        lambda: archive.ledger.faults.update({0: "entry 3 is not what was signed"}),
        lambda: archive.ledger.said.extend(["tile 1", "tile 2"]),
        archive.ledger.faults.clear,
        lambda: archive.ledger.faults.update({0: "entry 3 is not what was signed"}),
    )
    fault = ("error", "the ledger's log is damaged", {"what": "entry 3 is not what was signed"})
    anew = [("error", "a derived file of the ledger was damaged", {"what": f"tile {n}"}) for n in (1, 2)]
    assert logged == [fault, *anew, fault], "once, until it has been mended and is back"
    assert places == [0, 2048, 4096, 6144]
    assert slept == [1.0] * 5


def test_an_inspection_that_fails_goes_on_where_it_was(
    archive: Archive, pauses: Callable[..., list[float]], logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[int] = []

    def inspect(place: int) -> int:
        places.append(place)
        if len(places) == 2:
            raise OSError("no disk")
        return place + 256

    monkeypatch.setattr(archive.ledger, "inspect", inspect)
    archive.ledger.said.clear()
    pauses(serve._inspection(archive), nothing, nothing, nothing)
    assert places == [0, 256, 256]
    assert logged == [("error", "the ledger couldn't be looked at, retrying", {"error": "no disk"})]


class Bucket:
    """Object storage with ``problems``, one an answer."""

    place = Place.parse("s3://ledgers/team?endpoint=http://127.0.0.1:9")

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)

    def problem(self) -> str:
        return self.problems.pop(0) if self.problems else ""


def test_storage_that_comes_and_goes_is_told_and_filled(
    archive: Archive, pauses: Callable[..., list[float]], logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[int | Exception] = [2, 0, ArchiveError("one is damaged"), 0]

    def move_out() -> int:
        done = moves.pop(0)
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(archive.blobs, "bucket", Bucket("it is down", "it is down", ""))
    monkeypatch.setattr(archive.blobs, "move_out", move_out)
    away: list[str] = []

    def look() -> None:
        away.append(archive.blobs.away)

    slept = pauses(serve._storage(archive), look, look, look, look)
    assert away == ["it is down", "it is down", "", ""]
    assert logged == [
        ("error", "object storage", {"problem": "it is down"}),
        ("info", "object storage", {"problem": "it answers again"}),
        ("info", "blobs of the volume moved to object storage", {"blobs": 2}),
        ("error", "blobs couldn't be moved to object storage, retrying", {"error": "one is damaged"}),
    ]
    assert (moves, slept) == ([], [10.0] * 5), "where something was moved there may be more: no pause"


def test_without_object_storage_nobody_asks_for_it(archive: Archive) -> None:
    asyncio.run(serve._storage(archive))


def test_upkeep_says_what_it_did_and_is_tried_again(
    archive: Archive, pauses: Callable[..., list[float]], logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int | Exception] = [0, 3, TimeoutError("locked"), 0]
    rotated: list[list[str]] = [[], ["ledger"], []]

    def sweep() -> int:
        done = swept.pop(0)
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(archive, "sweep", sweep)
    monkeypatch.setattr(archive, "rotate", lambda: rotated.pop(0))
    monkeypatch.setattr(archive, "pause", lambda: 7.5)
    slept = pauses(serve._upkeep(archive), nothing, nothing, nothing)
    assert logged == [
        ("info", "payloads deleted under retention", {"blobs": 3}),
        ("info", "keys rotated", {"purposes": ["ledger"]}),
        ("error", "retention or rotation failed, retrying", {"error": "locked"}),
    ]
    assert (swept, rotated, slept) == ([], [], [7.5] * 4)


def test_an_error_that_a_task_does_not_know_ends_neither_it_nor_another(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    done: dict[str, int] = {}

    def fails_at_first(name: str) -> Callable[..., int]:
        def act(*_: object) -> int:
            done[name] = done.get(name, 0) + 1
            if done[name] < 3:
                raise ZeroDivisionError(name)
            return 0

        return act

    monkeypatch.setattr(archive, "sweep", fails_at_first("sweep"))
    monkeypatch.setattr(archive.ledger, "inspect", fails_at_first("inspect"))
    monkeypatch.setattr(serve, "_INSPECTION_SECONDS", 0.001)

    async def run() -> None:
        beside = asyncio.create_task(serve._beside(archive, "", Witnessing(archive, WitnessPolicy((), 0)), None))
        async with asyncio.timeout(60):
            while min(done.get("sweep", 0), done.get("inspect", 0)) < 3:
                assert not beside.done()
                await asyncio.sleep(0.01)
        beside.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beside

    asyncio.run(run())


def test_each_task_that_fails_is_named(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[str] = []
    monkeypatch.setattr(supervision, "log", lambda *_, **fields: tasks.append(fields["task"]))

    async def fails(*_: object) -> None:
        raise ZeroDivisionError("odd")

    for name in ("_report", "_upkeep", "_inspection", "_storage"):
        monkeypatch.setattr(serve, name, fails)
    failing: Any = SimpleNamespace(run=fails)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(serve._beside(archive, "", failing, failing), 0.2)

    asyncio.run(run())
    expected = ["copying", "inspection", "object storage", "report", "retention and rotation", "witnesses"]
    assert sorted(tasks) == expected


# -- the whole --------------------------------------------------------------------------------------------------------


async def answer(url: str, served: "asyncio.Task[None]") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        while not served.done():
            try:
                return await client.get(url)
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
    await served
    raise AssertionError("it ended before it was asked")


def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[Any]) -> None:
    """On both ports; the report is told, and a second start is held against what it was told."""
    port, public = free_port(), free_port()
    further = {runtime.HTTP_PORT: str(port), runtime.LEDGER_PORT: str(public), runtime.REPORT: report(tmp_path)}
    for name, value in variables(tmp_path, **further).items():
        monkeypatch.setenv(name, value)
    settings = serve.ArchiveSettings.from_environment
    monkeypatch.setattr(serve.ArchiveSettings, "from_environment", lambda: settings(os.environ))

    async def life() -> list[int]:
        served = asyncio.create_task(serve.serve("127.0.0.1"))
        answers = [await answer(f"http://127.0.0.1:{port}{READY_PATH}", served)]
        for path in (CHECKPOINT, FIND):
            answers.append(await answer(f"http://127.0.0.1:{public}{path}", served))
        await asyncio.to_thread(eventually, lambda: "size" in told(tmp_path))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(served, 60)
        return [found.status_code for found in answers]

    assert asyncio.run(life()) == [200, 200, 404]
    messages = [message for _, message, _ in logged if not message.startswith("tokens of")]
    assert messages == ["archiving", "stopped"]
    assert next(fields for _, message, fields in logged if message == "archiving") == {
        "namespace": "default",
        "entries": 0,
        "port": port,
    }
    assert told(tmp_path)["size"] == 0
