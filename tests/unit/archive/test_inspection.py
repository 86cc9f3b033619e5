"""All that is held is looked at: what was put back, taken away, edited or added beside the signed entries is named,
what nothing can show is listed, and the exit status tells the three outcomes apart."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_api import runtime
from governed_serving.archive.__main__ import main
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.beside import ShippedTo
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.inspection import Asked, Inspection, inspect_folder
from governed_serving.archive.verify.opening import beside_workdir
from governed_serving.archive.verify.truth import Truth
from governed_serving.auditor.service.shipping import Progress
from governed_serving.crypto import DirectoryStore, Keyring, load_kek
from governed_serving.journal import cursor_text, written_twice
from governed_serving.journal.format import FRAME, parse_segment
from support.work_folder import MODEL, POD, WorkFolder, made

from .ledgers import SIGNER, leaf
from .words import UNCHANGED, as_kept


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A work directory after three rounds, and a copy from before the last one."""
    older = tmp_path_factory.mktemp("older")
    root = tmp_path_factory.mktemp("work")
    made(root, requests=130, between=lambda w: _keep(w.root, older))
    return root, older


def _keep(root: Path, older: Path) -> None:
    shutil.copytree(root, older, dirs_exist_ok=True)


@pytest.fixture
def work(pristine: tuple[Path, Path], tmp_path: Path) -> WorkFolder:
    shutil.copytree(pristine[0], tmp_path / "work")
    return WorkFolder(tmp_path / "work")


@pytest.fixture
def older(pristine: tuple[Path, Path]) -> WorkFolder:
    return WorkFolder(pristine[1])


def inspect(work: WorkFolder, asked: Asked | None = None) -> Inspection:
    beside = beside_workdir(work.root, work.archive)
    return inspect_folder(work.archive, load_kek(work.kek_file), asked or Asked(), beside)


def said(found: Findings) -> str:
    return "\n".join(str(one) for one in (*found.wrong, *found.unchecked, *found.beyond))


def test_a_whole_run_verifies_and_says_what_it_could_not_show(work: WorkFolder) -> None:
    found = inspect(work)
    assert found.findings.status == "verified", said(found.findings)
    held = {one.place for one in found.findings.holds}
    assert {"derived", "own keys", "keysets", "journal", "reports"} <= held
    assert "whether all of this is an older copy" in said(found.findings)
    assert "nothing signs it" in said(found.findings)
    as_kept(UNCHANGED, found.findings)
    assert (work.archive / "ledger" / "tile" / "0" / "000").is_file(), "the case is made with a full tile"


def _rolled_back(*names: str) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, older: WorkFolder) -> None:
        for name in names:
            target, source = work.root / name, older.root / name
            if source.is_dir():
                shutil.rmtree(target)
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)

    return act


def _deleted(name: str) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def _edited(name: str, before: bytes, after: bytes) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.root / name
        data = path.read_bytes()
        assert before in data
        path.write_bytes(data.replace(before, after, 1))

    return act


def _report(change: Callable[[dict[str, Any]], object], name: str = MODEL) -> Callable[[WorkFolder, WorkFolder], None]:
    """As its writer writes it, with another content."""

    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.root / "reports" / f"{name}.json"
        document = json.loads(path.read_bytes())
        change(document)
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False))

    return act


def _under_way(phase: str, **fields: object) -> Callable[[WorkFolder, WorkFolder], None]:
    """Another training reports, whose entries aren't in the ledger yet."""
    return _report(lambda document: document["status"]["trainer"].update(phase=phase, **fields))


def _flipped(name: str, at: int) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.root / name
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return act


def _written(name: str, data: bytes) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        (work.root / name).parent.mkdir(parents=True, exist_ok=True)
        (work.root / name).write_bytes(data)

    return act


def _longer(name: str, data: bytes) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.root / name
        path.write_bytes(path.read_bytes() + data)

    return act


def _cursor_text(
    change: Callable[[bytes], bytes], twice: Callable[[bytes], bytes] = written_twice
) -> Callable[[WorkFolder, WorkFolder], None]:
    """As its writer writes it, with another text."""

    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.spool / "cursors" / f"shipped-server-{POD}"
        text, _ = cursor_text(path.read_bytes())
        assert change(text) != text
        path.write_bytes(twice(change(text)))

    return act


A, SPOOL = "volumes/archive-governed-archive-0", f"volumes/{POD}/spool"

TAMPERED = {
    "keyset deleted": (_deleted(f"{A}/keysets/{MODEL}/artefact.keyset.json"), "artefact.keyset.json: is missing"),
    "receipt of a destroyed keyset changed": (
        _edited(f"{A}/keysets/{MODEL}/data.destroyed.json", b'"time":"20', b'"time":"19'),
        "data.destroyed.json: isn't the receipt that the log names",
    ),
    "receipt of a destroyed keyset deleted": (_deleted(f"{A}/keysets/{MODEL}/data.destroyed.json"), "is missing"),
    "own keyset deleted": (_deleted(f"{A}/keys/references.keyset.json"), "keys/references.keyset.json"),
    "checkpoint rolled back": (_rolled_back(f"{A}/ledger/checkpoint"), "an older checkpoint was put back"),
    "signature of another key in the checkpoint": (
        _edited(f"{A}/ledger/checkpoint", "— governedmodels.io/archive/default".encode(), "— somebody".encode()),
        "isn't by one of the archive's keys",
    ),
    "verifier key with a space behind it": (_edited(f"{A}/ledger/vkey", b"\n", b" \n"), "ledger/vkey"),
    "archive older than its report": (_rolled_back(A), "its tail was cut"),
    "tile changed": (_flipped(f"{A}/ledger/tile/0/000", 99), "ledger/tile/0/000: doesn't hold the hashes"),
    "tile deleted": (_deleted(f"{A}/ledger/tile"), "ledger/tile/0/000: is missing"),
    "edge changed": (_flipped(f"{A}/ledger/edge", 40), "ledger/edge"),
    "state changed": (_flipped(f"{A}/ledger/state", 60), "ledger/state"),
    "index key deleted": (_deleted(f"{A}/ledger/index-key"), "ledger/index-key"),
    "marker of a deletion without receipt": (
        _written(f"{A}/blobs/expired/ab/{'ab' * 32}", b""),
        "marks a blob as deleted, which no receipt",
    ),
    "markers deleted": (_deleted(f"{A}/blobs/expired"), "a receipt in the log lists the blob as deleted"),
    "keyset that nobody told of": (
        _written(f"{A}/keysets/{MODEL}/extra.keyset.json", b"{}"),
        "extra.keyset.json: no entry tells of this keyset",
    ),
    "journal deleted": (_deleted(f"{SPOOL}/journal/server-{POD}"), "is missing: shipped-server"),
    "journal rolled back": (_rolled_back(f"{SPOOL}/journal"), "ends before frame"),
    "journal changed": (_flipped(f"{SPOOL}/journal/server-{POD}/00000000000000000260.seg", -40), "journal/server"),
    "bytes behind an earlier segment": (
        _longer(f"{SPOOL}/journal/server-{POD}/{0:020d}.seg", b"more"),
        "behind its last whole frame, and the next segment follows",
    ),
    "ledger older than the spool": (
        _rolled_back(A, "reports"),
        "the ledger's tail was cut",
    ),
    "cursor with spaces": (_cursor_text(lambda text: text.replace(b',"frame"', b', "frame"')), "it was edited"),
    "one copy of a cursor edited": (
        _edited(f"{SPOOL}/cursors/shipped-server-{POD}", b',"frame":', b',"frame":1'),
        "was damaged in one of its two copies",
    ),
    "cached keyset changed": (_flipped(f"{SPOOL}/keyset-cache/journal.json", 120), "keyset-cache/journal.json"),
    "verdict edited": (_edited(f"reports/{MODEL}.json", b'"verdict": "Fail"', b'"verdict": "Pass"'), "auditor"),
    "metric edited": (
        _edited(f"reports/{MODEL}.json", b'"value": 0.5', b'"value": 0.9'),
        "metrics: not what the verdict",
    ),
    "gate edited": (_edited(f"reports/{MODEL}.json", b'"verdict": "pass"', b'"verdict": "fail"'), "trainer.gates"),
    "audit of data edited": (_edited(f"reports/{MODEL}.json", b"0.25", b"0.26"), "trainer.dataAudit"),
    "artefact edited": (_edited(f"reports/{MODEL}.json", b"sha256:ab", b"sha256:ac"), "trainer.artefact"),
    "size in the report edited": (_edited("reports/governed-archive.json", b'"size": ', b'"size": 1'), "it was edited"),
    "report with spaces": (_edited(f"reports/{MODEL}.json", b"{\n", b"{ \n"), "edited by hand"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_it_is_named(work: WorkFolder, older: WorkFolder, case: str) -> None:
    act, expected = TAMPERED[case]
    act(work, older)
    found = inspect(work).findings
    assert found.status == "tampered", said(found)
    assert any(expected in str(one) for one in found.wrong), said(found)
    as_kept(case, found)


INCOMPLETE = {
    "file of an unknown name": (_written(f"{A}/ledger/notes.txt", b"x"), "nothing accounts for this file"),
    "report deleted": (_deleted("reports/governed-archive.json"), "what tells an older ledger from the present one"),
    "model's report deleted": (_deleted(f"reports/{MODEL}.json"), f"reports/{MODEL}.json: isn't here"),
    "spool deleted": (_deleted(f"volumes/{POD}"), "isn't here: the ledger has 390 frames"),
    "model's key deleted": (_deleted(f"secrets/{MODEL}-kek"), "key-encryption key isn't here"),
    "mark of what was acknowledged deleted": (
        _deleted(f"{SPOOL}/journal/server-{POD}/.acknowledged"),
        "doesn't say up to which frame callers were told",
    ),
    "torn tail of the log": (
        _longer(f"{A}/ledger/log/{0:020d}.seg", b"torn"),
        "4 bytes behind its last whole frame",
    ),
    "audit of data of a training under way": (
        _under_way("Running", dataAudit={"sex": {}}),
        "trainer.dataAudit: is of a training that is Running",
    ),
    "audit of data of a training that was killed": (
        _under_way("Failed", dataAudit={"sex": {}}),
        "trainer.dataAudit: is of a training that is Failed",
    ),
    "replacement begun": (
        _written(f"{A}/states/{MODEL}/.counts.{'ab' * 32}", b"GMSEAL1\nx"),
        "replacement that was begun",
    ),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_what_could_not_be_checked_is_no_success(work: WorkFolder, older: WorkFolder, case: str) -> None:
    act, expected = INCOMPLETE[case]
    act(work, older)
    found = inspect(work).findings
    assert found.status == "incomplete", said(found)
    assert any(expected in str(one) for one in found.unchecked), said(found)
    as_kept(case, found)


NOTED = {
    "cursors behind": (_rolled_back(f"{SPOOL}/cursors"), "is behind the ledger"),
    "mark of what was acknowledged rolled back": (
        _rolled_back(f"{SPOOL}/journal/server-{POD}/.acknowledged"),
        ".acknowledged: is over the frames below 260",
    ),
    "cursor of an older version": (
        _cursor_text(lambda text: text.replace(b',"dead_letters":0', b""), twice=lambda text: text),
        "has no dead_letters: an older version wrote it",
    ),
    "older report": (_rolled_back(f"reports/{MODEL}.json"), "is a later verdict"),
    "older checkpoint in the report": (_rolled_back("reports/governed-archive.json"), "has a checkpoint over"),
    "first segment of the journal trimmed": (
        _deleted(f"{SPOOL}/journal/server-{POD}/{0:020d}.seg"),
        "begins with frame 130: those before are in the ledger",
    ),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_a_kill_also_leaves_is_said(work: WorkFolder, older: WorkFolder, case: str) -> None:
    act, expected = NOTED[case]
    act(work, older)
    found = inspect(work).findings
    assert found.status == "verified", said(found)
    assert any(expected in str(one) for one in found.beyond), said(found)
    as_kept(case, found)


def _status(**sections: object) -> Callable[[WorkFolder, WorkFolder], None]:
    return _report(lambda document: document["status"].update(sections))


def _verdict(**fields: object) -> Callable[[WorkFolder, WorkFolder], None]:
    return _report(lambda document: document["status"]["auditor"].update(fields))


def _pods_verdict(**fields: object) -> Callable[[WorkFolder, WorkFolder], None]:
    return _report(lambda document: document["status"]["revisions"]["r1"]["auditor"][POD].update(fields))


def _pods(parts: object) -> Callable[[WorkFolder, WorkFolder], None]:
    """The verdict of the one pod, under other names."""

    def change(document: dict[str, Any]) -> None:
        head = document["status"]["revisions"]["r1"]["auditor"][POD]
        document["status"]["revisions"] = json.loads(json.dumps(parts).replace('"HEAD"', json.dumps(head)))

    return _report(change)


def _cursor(**fields: object) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.spool / "cursors" / f"shipped-server-{POD}"
        text, _ = cursor_text(path.read_bytes())
        path.write_bytes(written_twice(msgspec.json.encode({**json.loads(text), **fields})))

    return act


def _all(*acts: Callable[[WorkFolder, WorkFolder], None]) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, older: WorkFolder) -> None:
        for one in acts:
            one(work, older)

    return act


def _copied(name: str, source: str) -> Callable[[WorkFolder, WorkFolder], None]:
    def act(work: WorkFolder, _: WorkFolder) -> None:
        (work.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(work.root / source, work.root / name)

    return act


def _more_served(work: WorkFolder, _: WorkFolder) -> None:
    work.serve_more(2)


def _blob_put_back(work: WorkFolder, _: WorkFolder) -> None:
    for marker in (work.archive / "blobs" / "expired").glob("*/*"):
        place = work.archive / "blobs" / marker.parent.name / marker.name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"GMSEAL1\nback")


def _marker_filled(work: WorkFolder, _: WorkFolder) -> None:
    for marker in (work.archive / "blobs" / "expired").glob("*/*"):
        marker.write_bytes(b"x")


def _frame_flipped(at: int) -> Callable[[WorkFolder, WorkFolder], None]:
    """A bit of the first frame of the journal's segment in the middle, ``at`` so many bytes from its beginning (or its
    end)."""

    def act(work: WorkFolder, _: WorkFolder) -> None:
        path = work.root / JOURNAL / f"{130:020d}.seg"
        data = bytearray(path.read_bytes())
        parsed = parse_segment(bytes(data), path.parent.name)
        assert parsed is not None
        begin = parsed[1]
        end = begin + FRAME.size + FRAME.unpack_from(data, begin)[0]
        data[(begin if at >= 0 else end) + at] ^= 1
        path.write_bytes(data)

    return act


def _edge_written_another_way(work: WorkFolder, _: WorkFolder) -> None:
    """The same number, in the longest form that MessagePack has."""
    path = work.archive / "ledger" / "edge"
    size = msgspec.msgpack.decode(path.read_bytes())[0]
    short = msgspec.msgpack.encode(size)
    data = path.read_bytes()
    assert data[1 : 1 + len(short)] == short
    path.write_bytes(data[:1] + b"\xcf" + size.to_bytes(8, "big") + data[1 + len(short) :])


def _run(number: int) -> str:
    return f"{A}/ledger/index/" + (f"{0:020d}-{281:020d}-304.run" if number == 0 else f"{282:020d}-{414:020d}-136.run")


def _signed_twice(work: WorkFolder, _: WorkFolder) -> None:
    """The anchor with a line more, as if another key had signed it too."""
    path = work.archive / "anchor"
    path.write_text(path.read_text() + path.read_text().rpartition("\n\n")[2])


def _secrets(work: WorkFolder, older: WorkFolder) -> None:
    _written("secrets/short/kek", b"x")(work, older)
    _written("secrets/other/kek", bytes(32))(work, older)
    (work.root / "secrets" / "other" / "kek").chmod(0o600)


JOURNAL = f"{SPOOL}/journal/server-{POD}"
HEAD = {"auditor": {POD: "HEAD"}}
WORDS: dict[str, Callable[[WorkFolder, WorkFolder], None]] = {
    "a later segment that is empty": _written(f"{A}/ledger/log/{500:020d}.seg", b"GMLEDG1\n"),
    "a later segment of the right place": _written(f"{A}/ledger/log/{415:020d}.seg", b"GMLEDG1\n"),
    "a lock that holds something": _written(f"{A}/keys/.lock", b"x"),
    "what was set aside": _all(
        _written(f"{A}/ledger/log/{0:020d}.torn-99", b"x"),
        _written(f"{A}/ledger/.state.abcd.partial", b"x"),
        _written(f"{A}/blobs/.incoming/abcd", b"x"),
    ),
    "anchor rolled back": _rolled_back(f"{A}/anchor"),
    "anchor deleted": _deleted(f"{A}/anchor"),
    "anchor with a line more": _signed_twice,
    "anchor without sense": _written(f"{A}/anchor", b"x"),
    "state rolled back": _rolled_back(f"{A}/ledger/state"),
    "state deleted": _deleted(f"{A}/ledger/state"),
    "edge rolled back": _rolled_back(f"{A}/ledger/edge"),
    "edge deleted": _deleted(f"{A}/ledger/edge"),
    "edge written another way": _edge_written_another_way,
    "empty folder": lambda work, _: (work.archive / "ledger" / "more").mkdir(),
    "edge that was edited": _longer(f"{A}/ledger/edge", b"x"),
    "checkpoint and anchor rolled back": _rolled_back(f"{A}/ledger/checkpoint", f"{A}/anchor", "reports"),
    "checkpoint, anchor and state rolled back": _rolled_back(
        f"{A}/ledger/checkpoint", f"{A}/anchor", f"{A}/ledger/state", "reports"
    ),
    "log rolled back": _rolled_back(f"{A}/ledger/log"),
    "index run changed": _flipped(_run(0), 9),
    "index run changed at its end": _flipped(_run(1), -1),
    "index run deleted": _deleted(_run(1)),
    "index run renamed": _all(_copied(f"{A}/ledger/index/{0:020d}-{1:020d}-2.run", _run(0)), _deleted(_run(0))),
    "keyset of the archive rolled back": _rolled_back(f"{A}/keys/ledger.keyset.json"),
    "keyset that was destroyed put back": _copied(
        f"{A}/keysets/{MODEL}/data.keyset.json", f"{A}/keysets/{MODEL}/journal.keyset.json"
    ),
    "receipt of a keyset that is there": _copied(
        f"{A}/keysets/{MODEL}/journal.destroyed.json", f"{A}/keysets/{MODEL}/data.destroyed.json"
    ),
    "keyset changed": _copied(f"{A}/keysets/{MODEL}/journal.keyset.json", f"{A}/keysets/{MODEL}/artefact.keyset.json"),
    "blob put back": _blob_put_back,
    "blob put back, its marker gone": _all(_blob_put_back, _deleted(f"{A}/blobs/expired")),
    "markers that hold something": _marker_filled,
    "retention rolled back": _rolled_back(f"{A}/retention"),
    "retention deleted": _deleted(f"{A}/retention"),
    "reference rolled back": _rolled_back(f"{A}/refs/{MODEL}/artefact-1"),
    "state of a model rolled back": _rolled_back(f"{A}/states/{MODEL}/counts"),
    # -- journals
    "more served than shipped": _more_served,
    "cursor deleted": _deleted(f"{SPOOL}/cursors/shipped-server-{POD}"),
    "cursor of another stream": _cursor(identity="x"),
    "cursor ahead in frames": _cursor(frame=391),
    "cursor ahead in entries": _cursor(number=391),
    "cursor behind in entries": _cursor(number=389),
    "cursor with a chunk under way": _cursor(last=389),
    "cursor with a dead letter": _cursor(dead_letters=1),
    "cursor with unreadable frames": _cursor(unreadable=1),
    "cursor with an entry sent": _cursor(sent=1),
    "cursor with a refusal": _cursor(refused="no"),
    "cursor with another tag": _cursor(tag="ab" * 16),
    "cursor with a field more": _cursor(more=1),
    "cursor without sense": _written(f"{SPOOL}/cursors/shipped-server-{POD}", b"x"),
    "cursors, some of no stream": _written(f"{SPOOL}/cursors/shipped-other", b"{}"),
    "cached keyset deleted": _deleted(f"{SPOOL}/keyset-cache"),
    "cached keyset of another purpose": _copied(
        f"{SPOOL}/keyset-cache/artefact.json", f"{SPOOL}/keyset-cache/journal.json"
    ),
    "files that nobody knows": _all(
        _written(f"{SPOOL}/notes", b"x"),
        _written(f"{SPOOL}/more/notes", b"x"),
        _written(f"{SPOOL}/cursors/notes", b"x"),
        _written(f"{SPOOL}/journal/notes", b"x"),
        _written(f"{JOURNAL}/notes", b"x"),
        _written(f"{JOURNAL}/more/notes.seg", b"x"),
        _written(f"{JOURNAL}/{0:020d}.seg.damaged-1", b"x"),
        _written(f"{JOURNAL}/{0:020d}.torn-1", b"x"),
    ),
    "files that processes work with": _all(
        _written(f"{SPOOL}/auditor/counts", b"x"),
        _written(f"{SPOOL}/explanations/x", b"x"),
        _written(f"{SPOOL}/cursors/explainer/x", b"x"),
    ),
    "first segments of the journal trimmed, the ledger older": _all(
        _rolled_back(A, "reports"),
        _deleted(f"{JOURNAL}/{0:020d}.seg"),
        _deleted(f"{JOURNAL}/{130:020d}.seg"),
    ),
    "a segment in the middle of the journal deleted": _deleted(f"{JOURNAL}/{130:020d}.seg"),
    "newest segment deleted": _deleted(f"{JOURNAL}/{260:020d}.seg"),
    "journal without segments": _all(*(_deleted(f"{JOURNAL}/{n:020d}.seg") for n in (0, 130, 260))),
    "journal of an empty segment": _all(
        _written(f"{JOURNAL}/{0:020d}.seg", b""), *(_deleted(f"{JOURNAL}/{n:020d}.seg") for n in (130, 260))
    ),
    "bytes behind the newest segment": _longer(f"{JOURNAL}/{260:020d}.seg", b"more"),
    "first header changed": _flipped(f"{JOURNAL}/{0:020d}.seg", 3),
    "number of the first frame changed": _frame_flipped(FRAME.size - 1),
    "length of the first frame changed": _frame_flipped(3),
    "attempt of the first frame changed": _frame_flipped(7),
    "tag of the first frame changed": _frame_flipped(-1),
    "ciphertext of the first frame changed": _frame_flipped(FRAME.size),
    "frame in the middle changed": _flipped(f"{JOURNAL}/{130:020d}.seg", 8000),
    "mark of another stream": _copied(f"{JOURNAL}/.acknowledged", f"{SPOOL}/journal/auditor-{POD}/.acknowledged"),
    "mark without sense": _written(f"{JOURNAL}/.acknowledged", b"x"),
    "mark ahead of the journal": _all(
        _deleted(f"{JOURNAL}/{260:020d}.seg"),
    ),
    # -- reports
    "verdict of no entry": _verdict(ledgerIndex=None),
    "no verdict of no entry": _verdict(ledgerIndex=None, verdict="Unknown"),
    "verdict of an entry that isn't there": _verdict(ledgerIndex=4150),
    "verdict of another entry": _verdict(ledgerIndex=5),
    "verdict with another summary": _verdict(summary="other"),
    "verdict with other samples": _verdict(samples=7),
    "verdict with other evidence": _verdict(evidence="0" * 64),
    "verdict with a field more": _verdict(alarms=[], more=1),
    "verdict with fields of the moment": _verdict(alarm="x", deadLetters=3, inForce=True, observedAt="later"),
    "verdict while a decision is contested": _verdict(openContests=1, overdueContests=0),
    "verdict beside frames that can't be read": _verdict(unreadableFrames=2),
    "verdict without one of its fields": _report(lambda document: document["status"]["auditor"].pop("metrics")),
    "pod's verdict that passes": _pods_verdict(verdict="Pass"),
    "pod's verdict with other samples": _pods_verdict(samples=7),
    "pod's verdict of no entry": _pods_verdict(ledgerIndex="282"),
    "pod of another name": _pods({"r1": {"auditor": {"other-0": "HEAD"}}}),
    "pod of another revision": _pods({"r2": HEAD}),
    "pods without sense": _pods({"r1": {"auditor": {"a": 1}}, "r2": 2, "r3": {}}),
    "pods that are no mapping": _pods({"r1": {"auditor": 3}}),
    "revisions that are no mapping": _status(revisions=[]),
    "report with a section more": _status(unknown={"a": 1}),
    "report with a section of another form": _status(observedGeneration="x", trainer=3),
    "trainer without gates": _report(lambda document: document["status"]["trainer"].pop("gates")),
    "training metrics edited while another runs": _all(
        _under_way("Running"), _report(lambda document: document["status"]["trainer"]["metrics"].update(auc=1))
    ),
    "training metrics edited": _report(lambda document: document["status"]["trainer"]["metrics"].update(auc=1)),
    "report of another model": _copied("reports/other.json", f"reports/{MODEL}.json"),
    "report that holds no status": _written(f"reports/{MODEL}.json", b'{\n "status": 3\n}'),
    "report that holds more": _report(lambda document: document.update(more={})),
    "report that is its status": _report(lambda document: document.update(document.pop("status"))),
    "report that is a list": _written(f"reports/{MODEL}.json", b"[]"),
    "root in the report edited": _report(
        lambda document: document["status"]["archive"].update(rootHash="x"), "governed-archive"
    ),
    "field of the archive that is new": _report(
        lambda document: document["status"]["archive"].update(more=1), "governed-archive"
    ),
    "archive's report without a checkpoint": _report(
        lambda document: document["status"]["archive"].pop("checkpoint"), "governed-archive"
    ),
    "checkpoint in the report without sense": _report(
        lambda document: document["status"]["archive"].update(checkpoint="x"), "governed-archive"
    ),
    "another folder beside": _written("volumes/other/file", b"x"),
    "secrets of nobody": _secrets,
}


@pytest.mark.parametrize("case", WORDS)
def test_it_is_said_word_for_word(work: WorkFolder, older: WorkFolder, case: str) -> None:
    WORDS[case](work, older)
    as_kept(case, inspect(work).findings)


WHILE_RUNNING = {
    name: (TAMPERED | INCOMPLETE | NOTED)[name][0]
    for name in (
        "checkpoint rolled back", "marker of a deletion without receipt", "keyset that nobody told of",
        "verdict edited", "torn tail of the log", "replacement begun", "older report",
    )
} | {
    name: WORDS[name]
    for name in (
        "anchor rolled back", "anchor with a line more", "state rolled back", "edge rolled back",
        "checkpoint and anchor rolled back", "blob put back, its marker gone", "state deleted", "log rolled back",
        "pod's verdict that passes",
    )
}  # fmt: skip


@pytest.mark.parametrize("case", [None, *WHILE_RUNNING])
def test_what_a_running_archive_is_about_to_do_is_no_tampering(
    work: WorkFolder, older: WorkFolder, case: str | None
) -> None:
    if case:
        WHILE_RUNNING[case](work, older)
    handle = os.open(work.archive / ".lock", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        as_kept(f"while running: {case or 'nothing changed'}", inspect(work).findings)
    finally:
        os.close(handle)


def test_what_is_shipped_while_the_ledger_is_read_is_no_tampering(
    work: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cursors and marks are only behind what is read after them."""
    ahead, read = _cursor(frame=10**6, number=10**6), Truth.take

    def take(self: Truth, first: int, batch: Batch) -> None:
        read(self, first, batch)
        ahead(work, work)

    monkeypatch.setattr(Truth, "take", take)
    assert inspect(work).findings.status == "verified"
    assert "tail was cut" in said(inspect(work).findings), "the same cursor, there from the start"


@pytest.mark.parametrize(
    ("case", "asked"),
    [
        ("blobs are not asked for", Asked(blobs=False)),
        ("an id that is there", Asked(id="req-7")),
        ("an id that isn't there", Asked(id="nobody")),
        ("a key of another log", Asked(vkey=str(SIGNER.verifier))),
        ("no key", Asked(vkey="x")),
    ],
)
def test_what_was_asked_is_answered_word_for_word(work: WorkFolder, case: str, asked: Asked) -> None:
    as_kept(case, inspect(work, asked).findings)


def test_a_key_and_a_checkpoint_that_were_kept_leave_less_open(work: WorkFolder, older: WorkFolder) -> None:
    vkey = (work.archive / "ledger" / "vkey").read_text().strip()
    as_kept("key and checkpoint kept", inspect(work, Asked(vkey, (older.checkpoint,))).findings)


def test_a_folder_alone_says_what_is_not_beside_it(work: WorkFolder) -> None:
    as_kept("folder alone", inspect_folder(work.archive, load_kek(work.kek_file), Asked()).findings)


def test_a_folder_that_is_older_as_a_whole_needs_a_checkpoint_from_elsewhere(
    work: WorkFolder, older: WorkFolder
) -> None:
    kept = work.checkpoint
    assert inspect(older).findings.status == "verified"
    found = inspect(older, Asked(earlier=(kept,))).findings
    assert found.status == "tampered"
    assert "its tail was cut" in said(found)
    found = inspect(work, Asked(earlier=(older.checkpoint,))).findings
    assert found.status == "verified"
    assert "older copy" not in said(found)


def test_entries_behind_the_checkpoint_are_no_success(work: WorkFolder) -> None:
    archive = Archive(work.archive, load_kek(work.kek_file), "default")
    note = archive.ledger.checkpoint()
    archive.ledger.append(Batch(MODEL, "t", 0, [leaf("unsigned", model=MODEL)]))
    assert inspect(work).findings.status == "verified", "the archive runs, and will sign it"
    archive.close()
    (work.archive / "ledger" / "checkpoint").write_text(note)
    assert inspect(work).findings.status == "tampered", "state and edge are over one more"


def test_a_killed_archive_leaves_unsigned_entries_and_says_so(work: WorkFolder, tmp_path: Path) -> None:
    archive = Archive(work.archive, load_kek(work.kek_file), "default")
    archive.ledger.append(Batch(MODEL, "t", 0, [leaf("unsigned", model=MODEL)]))
    shutil.copytree(work.archive, tmp_path / "killed")
    archive.close()
    found = inspect_folder(tmp_path / "killed", load_kek(work.kek_file), Asked()).findings
    assert found.status == "incomplete", said(found)
    assert "1 entries follow the checkpoint" in said(found)
    Archive(tmp_path / "killed", load_kek(work.kek_file), "default").close()
    assert inspect_folder(tmp_path / "killed", load_kek(work.kek_file), Asked()).findings.status == "verified"


@pytest.mark.parametrize("said_so", [False, True], ids=["before its entry", "after its entry"])
def test_a_kill_while_a_keyset_is_replaced_is_made_good(
    work: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said_so: bool
) -> None:
    kek, folder = load_kek(work.kek_file), work.archive / "keysets" / MODEL
    before = (folder / "journal.keyset.json").read_bytes()
    shutil.copytree(folder, tmp_path / "keysets")
    Keyring(load_kek(work.root / "secrets" / f"{MODEL}-kek" / "kek"), DirectoryStore(tmp_path / "keysets")).rotate(
        "journal"
    )
    after = (tmp_path / "keysets" / "journal.keyset.json").read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise OSError("killed")

    archive = Archive(work.archive, kek, "default")
    with monkeypatch.context() as patched:
        patched.setattr(DirectoryStore if said_so else Archive, "replace" if said_so else "_note_key", killed)
        with pytest.raises(OSError, match="killed"):
            archive.replace_keyset(MODEL, "journal", after, hashlib.sha256(before).hexdigest())
    archive.close()
    found = inspect_folder(work.archive, kek, Asked()).findings
    assert found.status == "incomplete", said(found)
    archive = Archive(work.archive, kek, "default")
    archive.close()
    assert archive.finished == ([f"keyset journal.keyset.json of {MODEL}"] if said_so else [])
    assert (folder / "journal.keyset.json").read_bytes() == (after if said_so else before)
    assert inspect_folder(work.archive, kek, Asked()).findings.status == "verified"


def test_a_loss_that_was_accepted_is_said_and_the_streams_go_on_behind_it(work: WorkFolder) -> None:
    kek = load_kek(work.kek_file)
    before = Archive(work.archive, kek, "default")
    before.appender.submit(Batch("other", "t", 0, [leaf(str(n), model="other") for n in range(3)])).result(10)
    size = before.ledger.size
    before.close()
    segment = next((work.archive / "ledger" / "log").glob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-20])
    archive = Archive(work.archive, kek, "default", accept_loss=True)
    archive.appender.submit(Batch("other", "t", 3, [leaf("3", model="other")])).result(10)
    assert archive.ledger.size < size
    archive.close()
    found = inspect_folder(work.archive, kek, Asked()).findings
    assert found.status == "verified", said(found)
    assert "says what was lost and let go" in said(found)


def test_what_is_no_file_is_not_opened(work: WorkFolder) -> None:
    (work.archive / "ledger" / "vkey").unlink()
    os.mkfifo(work.archive / "ledger" / "vkey")
    found = inspect(work).findings
    assert [one.place for one in found.wrong] == ["ledger/vkey"]


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[" * 100_000, b"\0" * 40, "١٢".encode(), b"a\n\n\xe2\x80\x94 b c\n"]
)
def test_no_bytes_end_in_a_traceback(
    work: WorkFolder, data: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(runtime.KEK_FILE, str(work.kek_file))
    names = sorted(
        p.relative_to(work.root)
        for p in work.root.rglob("*")
        if p.is_file() and p.name != ".lock" and "secrets" not in p.parts
    )
    for name in names:
        kept = (work.root / name).read_bytes()
        if kept == data:
            continue
        (work.root / name).write_bytes(data)
        code = main(["verify", str(work.archive), "--workdir", str(work.root)])
        assert code in (1, 3), (name, capsys.readouterr().out)
        (work.root / name).write_bytes(kept)
    assert main(["verify", str(work.archive), "--workdir", str(work.root), "--json"]) == 0


def test_the_command_tells_three_outcomes_apart(
    work: WorkFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["verify", str(work.archive), "--key-file", str(work.kek_file)]
    vkey = tmp_path / "vkey"
    shutil.copy(work.archive / "ledger" / "vkey", vkey)
    assert main([*words, "--key-file", str(vkey), "--workdir", str(work.root)]) == 0
    assert capsys.readouterr().out.endswith("verified\n")
    (work.archive / "ledger" / "more").write_text("x")
    assert main(words) == 3
    out = capsys.readouterr().out
    assert "unchecked   ledger/more" in out
    assert out.splitlines()[-1].startswith("incomplete")
    (work.archive / "ledger" / "tile" / "0" / "000").write_bytes(bytes(8192))
    assert main([*words, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "tampered"
    assert told["wrong"][0]["place"] == "ledger/tile/0/000"
    assert told["size"] == told["entries"]


@pytest.mark.parametrize(
    "edit",
    [{}, {"verdict": "Pass"}, {"samples": 10**6}, {"revision": "r2"}, {"model": "other"}, {"ledgerIndex": 0},
     {"ledgerIndex": 2**62}, {"ledgerIndex": "282"}, {"ledgerIndex": None}, {"summary": "fine"}, {"more": 1}],
)  # fmt: skip
def test_what_the_archive_reports_of_verdicts_is_held_against_their_entries(
    work: WorkFolder, edit: dict[str, object]
) -> None:
    archive = Archive(work.archive, load_kek(work.kek_file), "default")
    told = [verdict.plain() for verdict in archive.verdicts.newest(archive.ledger.size)]
    archive.close()
    assert [v["model"] for v in told] == [MODEL]
    edited = [told[0] | edit]
    _report(lambda d: d["status"]["archive"].update(verdicts=edited), "governed-archive")(work, work)
    found = inspect(work).findings
    named = [str(one) for one in found.wrong if "governed-archive.json archive.verdicts" in str(one)]
    assert (found.status, len(named)) == (("tampered", 1) if edit else ("verified", 0)), said(found)


@pytest.mark.parametrize("verdicts", ["x", {"a": 1}, [1], None, 7])
def test_verdicts_without_sense_are_named(work: WorkFolder, verdicts: object) -> None:
    _report(lambda d: d["status"]["archive"].update(verdicts=verdicts), "governed-archive")(work, work)
    found = inspect(work).findings
    assert found.status == "tampered", said(found)
    assert "archive.verdicts must be a list of mappings" in said(found)


def test_cursors_are_read_as_the_shipper_writes_them() -> None:
    assert ShippedTo.__struct_fields__ == Progress.__struct_fields__
    assert ShippedTo.__struct_defaults__ == Progress.__struct_defaults__
