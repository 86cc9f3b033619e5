"""All that is held is looked at: what was put back, taken away, edited or added beside the signed entries is named,
what nothing can show is listed, and the exit status tells the three outcomes apart."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from governed_api import runtime
from governed_serving.archive.__main__ import main
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.verify.beside import ShippedTo
from governed_serving.archive.verify.findings import Findings
from governed_serving.archive.verify.inspection import Asked, Inspection, inspect_folder
from governed_serving.archive.verify.opening import beside_workdir
from governed_serving.auditor.service.shipping import Progress
from governed_serving.crypto import DirectoryStore, Keyring, load_kek
from support.work_folder import MODEL, POD, WorkFolder, made

from .ledgers import leaf


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
    "cursor with spaces": (
        _edited(f"{SPOOL}/cursors/shipped-server-{POD}", b',"frame"', b', "frame"'),
        "it was edited",
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


NOTED = {
    "cursors behind": (_rolled_back(f"{SPOOL}/cursors"), "is behind the ledger"),
    "mark of what was acknowledged rolled back": (
        _rolled_back(f"{SPOOL}/journal/server-{POD}/.acknowledged"),
        ".acknowledged: is over the frames below 260",
    ),
    "cursor of an older version": (
        _edited(f"{SPOOL}/cursors/shipped-server-{POD}", b',"dead_letters":0', b""),
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


def test_cursors_are_read_as_the_shipper_writes_them() -> None:
    assert ShippedTo.__struct_fields__ == Progress.__struct_fields__
    assert ShippedTo.__struct_defaults__ == Progress.__struct_defaults__
