"""Witnesses: what they cosign is kept and served, what they answer amiss is told, and two histories aren't gone on
from."""

import asyncio
import io
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from governed_serving.archive.app import create_app
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.errors import ArchiveError, Busy
from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.note import NoteError, Signer, open_checkpoint
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.restore import Request, restore
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import Tokens
from governed_serving.archive.verify.inspection import Asked, inspect_folder
from governed_serving.archive.verify.witnesses import WitnessRule, witness_rule
from governed_serving.archive.witness.asking import Witnessing
from governed_serving.archive.witness.client import WitnessClient
from governed_serving.archive.witness.policy import Witness as Configured
from governed_serving.archive.witness.policy import WitnessPolicy
from governed_serving.crypto import Kek
from governed_serving.environment import InvalidSettings, PodEnvironment
from support.witness import Witness, serving

from .ledgers import batch

KEK = Kek(bytes(32))
ORIGIN = "governedmodels.io/archive/default"


@pytest.fixture
def witness() -> Iterator[Witness]:
    with serving(Witness()) as found:
        yield found


@pytest.fixture
def second() -> Iterator[Witness]:
    with serving(Witness("witness.example/w2", bytes(range(2, 34)))) as found:
        yield found


def policy(*witnesses: Witness, quorum: int = 0) -> WitnessPolicy:
    found = tuple(Configured(Cosigner.parse(one.vkey), one.url) for one in witnesses)
    return WitnessPolicy(found, quorum or len(found))


class Bed:
    """An archive and its witnesses; ``now`` is the clock of the pauses."""

    def __init__(self, root: Path, *witnesses: Witness, quorum: int = 0, seconds: float = 30.0) -> None:
        self.root, self.now = root, 0.0
        self.archive = Archive(root, KEK, "default")
        for one in witnesses:
            one.trusts(self.archive.ledger.vkey)
        rule = policy(*witnesses, quorum=quorum)
        self.asking = Witnessing(
            self.archive, rule, client=lambda w: WitnessClient(w, seconds=seconds), clock=lambda: self.now
        )

    def append(self, first: int, count: int, stream: str = "s") -> None:
        self.archive.ledger.append(batch(first, count, stream))

    def round(self, *, later: float = 1000.0) -> str:
        """Ask, ``later`` seconds after the last time; the problems."""
        self.now += later
        asyncio.run(self.asking.round())
        return self.archive.witnessed.lagging

    def get(self, path: str) -> httpx.Response:
        async def asked() -> httpx.Response:
            app = create_app(self.archive, Tokens(bytes(32), "default"), ArchiveMetrics("default"))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://archive") as client:
                return await client.get(path)

        return asyncio.run(asked())

    def close(self) -> None:
        self.archive.close()


@pytest.fixture
def bed(tmp_path: Path, witness: Witness) -> Iterator[Bed]:
    found = Bed(tmp_path / "archive", witness)
    yield found
    found.close()


def test_a_cosigned_checkpoint_is_kept_and_served(bed: Bed, witness: Witness) -> None:
    assert bed.get("/v1/ledger/witnessed").status_code == 404
    for first, count in ((0, 1), (1, 6), (7, 300), (307, 1)):
        bed.append(first, count)
        assert bed.round() == ""
        note = bed.archive.witnessed.note
        assert bed.archive.witnessed.size == first + count == witness.known[ORIGIN].size
        cosignature = Cosigner.parse(witness.vkey).cosigned(note)
        assert cosignature is not None
        assert cosignature.time == witness.clock
        assert bed.get("/v1/ledger/checkpoint").text == bed.get("/v1/ledger/witnessed").text == note
    assert witness.refused == [], "each proof began where the witness stood"
    bed.append(308, 1)
    newest = bed.get("/v1/ledger/checkpoint").text
    assert "witness.example" not in newest, "what nobody cosigned yet is served without a cosignature"
    assert newest != bed.get("/v1/ledger/witnessed").text


def test_an_unchanged_checkpoint_is_asked_about_once_until_its_time_is_old(bed: Bed, witness: Witness) -> None:
    bed.append(0, 3)
    bed.round()
    bed.round(later=5.0)
    assert witness.asked == 1
    witness.clock += 3600
    bed.round(later=3600.0)
    assert witness.asked == 2
    found = Cosigner.parse(witness.vkey).cosigned(bed.archive.witnessed.note)
    assert found is not None
    assert found.time == witness.clock


def test_an_empty_ledger_asks_nobody(bed: Bed, witness: Witness) -> None:
    bed.round()
    assert witness.asked == 0


def test_a_restart_goes_on_where_the_witness_stands(bed: Bed, witness: Witness, tmp_path: Path) -> None:
    bed.append(0, 5)
    bed.round()
    bed.close()
    again = Bed(tmp_path / "archive", witness)
    assert again.archive.witnessed.size == 5, "what was cosigned is there before anyone is asked"
    again.append(5, 5)
    assert again.round() == ""
    assert [status for status, _ in witness.refused] == [409], "asked with 0 entries, it said where it stands"
    assert again.archive.witnessed.size == 10
    again.close()
    bed.archive = Archive(tmp_path / "archive", KEK, "default")


def test_a_quorum_is_enough_and_the_other_one_catches_up(tmp_path: Path, witness: Witness, second: Witness) -> None:
    bed = Bed(tmp_path / "archive", witness, second, quorum=1)
    bed.append(0, 4)
    second.fault = "error"
    assert "w2: status 500" in bed.round()
    assert bed.archive.witnessed.size == 4
    assert Cosigner.parse(second.vkey).cosigned(bed.archive.witnessed.note) is None
    second.fault = ""
    assert bed.round() == ""
    assert witness.asked == 1, "who cosigned this checkpoint isn't asked again"
    assert Cosigner.parse(second.vkey).cosigned(bed.archive.witnessed.note)
    assert Cosigner.parse(witness.vkey).cosigned(bed.archive.witnessed.note)
    bed.close()


def test_fewer_than_a_quorum_are_served_but_not_called_witnessed(
    tmp_path: Path, witness: Witness, second: Witness
) -> None:
    bed = Bed(tmp_path / "archive", witness, second)
    bed.append(0, 4)
    second.fault = "error"
    bed.round()
    assert bed.get("/v1/ledger/witnessed").status_code == 404
    assert Cosigner.parse(witness.vkey).cosigned(bed.get("/v1/ledger/checkpoint").text)
    bed.close()


FAULTS = {
    "garbage": "no cosignature of ours",
    "huge": "answered more than",
    "nothing": "signature line",
    "redirect": "status 302",
    "overflow": "409 without a tree size",
    "error": "status 500",
    "other key": "without a cosignature by its key",
    "other text": "does not verify",
    "boast": "it has cosigned 1000000 entries, the ledger 3; it shows no checkpoint of ours",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_witness_answers_amiss_is_told_and_stops_nothing(bed: Bed, witness: Witness, fault: str) -> None:
    bed.append(0, 3)
    witness.fault = fault
    assert FAULTS[fault] in bed.round()
    assert bed.archive.witnessed.note == ""
    assert bed.archive.witnessed.contradiction == ""
    text = bed.get("/metrics").text
    assert 'witness_lag_entries{component="archive",namespace="default",witness="witness.example/w1"} 3.0' in text
    bed.append(3, 1)
    asked = witness.asked
    bed.round(later=0.1)
    assert witness.asked == asked, "after a failure it is left alone for a while"
    witness.fault = ""
    assert bed.round() == ""
    assert bed.archive.witnessed.size == 4


def test_a_slow_witness_holds_nobody_up(tmp_path: Path, witness: Witness, second: Witness) -> None:
    bed = Bed(tmp_path / "archive", witness, second, quorum=1, seconds=0.3)
    bed.append(0, 2)
    second.fault = "slow"
    assert "w2: no answer within 0.3 s" in bed.round()
    second.slow.set()
    bed.close()


def test_one_that_is_away_is_told(tmp_path: Path) -> None:
    away = Witness(url="http://127.0.0.1:9")
    bed = Bed(tmp_path / "archive", away)
    bed.append(0, 2)
    assert "ConnectError" in bed.round()
    bed.close()


def test_one_that_doesnt_know_the_log_says_what_to_do(bed: Bed, witness: Witness) -> None:
    bed.append(0, 2)
    witness.logs.clear()
    assert "give it the ledger's vkey" in bed.round()


def test_a_cosignature_of_the_future_isnt_taken(bed: Bed, witness: Witness) -> None:
    bed.append(0, 2)
    witness.clock = 2**40
    assert "at a time to come" in bed.round()


def older_copy(bed: Bed, tmp_path: Path) -> Path:
    """The archive as it was, put back; meanwhile the witness has cosigned more."""
    bed.append(0, 5)
    bed.round()
    bed.close()
    shutil.copytree(bed.root, tmp_path / "copy")
    bed.archive = Archive(bed.root, KEK, "default")
    return tmp_path / "copy"


def test_an_older_copy_is_refused_by_the_witness_and_not_gone_on_with(
    bed: Bed, witness: Witness, tmp_path: Path
) -> None:
    copy = older_copy(bed, tmp_path)
    bed.archive.close()
    present = Bed(bed.root, witness)
    present.append(5, 3)
    assert present.round() == ""
    restored = Bed(copy, witness)
    asyncio.run(restored.asking.greet())
    said = restored.archive.witnessed.contradiction
    assert "checkpoint over 8 entries" in said
    assert "this ledger of 5 doesn't go on from" in said
    with pytest.raises(Busy, match=r"nothing is appended: witness witness\.example/w1 has a checkpoint over 8"):
        restored.archive.appender.submit(batch(5, 1, "s"))
    assert 'ledger_contradicted{component="archive",namespace="default"} 1.0' in restored.get("/metrics").text
    restored.close()
    present.close()
    bed.archive = Archive(bed.root, KEK, "default")


def test_a_fork_is_refused_as_it_is_shown(
    bed: Bed, witness: Witness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two archives with one key: the second one's entries, of the same number, are others."""
    copy = older_copy(bed, tmp_path)
    bed.archive.close()
    present, fork = Bed(bed.root, witness), Bed(copy, witness)
    present.append(5, 3)
    assert present.round() == ""
    fork.append(0, 4, "other")
    assert "checkpoint over 8 entries" in fork.round()
    assert [r.levelname for r in caplog.records if r.getMessage() == "a witness doesn't cosign"] == ["ERROR"]
    assert fork.archive.witnessed.size == 5
    with pytest.raises(Busy, match="another archive signs with the same key"):
        fork.archive.appender.submit(batch(4, 1, "other"))
    assert present.round() == "", "the history that the witness knows goes on"
    assert [status for status, _ in witness.refused if status == 422], "the witness saw the split view"
    fork.close()
    present.close()
    bed.archive = Archive(bed.root, KEK, "default")


def test_a_person_may_let_go_of_what_the_witness_has(bed: Bed, witness: Witness, tmp_path: Path) -> None:
    copy = older_copy(bed, tmp_path)
    bed.archive.close()
    present = Bed(bed.root, witness)
    present.append(5, 3)
    present.round()
    restored = Bed(copy, witness)
    asyncio.run(restored.asking.greet(accept_loss=True))
    assert [f.index for f in restored.archive.ledger.find("governed-archive", type="loss")] == [5]
    restored.append(5, 1)
    restored.close()
    again = Bed(copy, witness)
    asyncio.run(again.asking.greet())
    assert again.archive.witnessed.contradiction == "", "it was let go"
    again.append(6, 4)
    assert "a person let go of it" in again.round()
    again.close()
    present.close()
    bed.archive = Archive(bed.root, KEK, "default")


@pytest.mark.parametrize("change", ["flip", "cut", "other"])
def test_a_changed_file_isnt_told_any_more(bed: Bed, witness: Witness, change: str) -> None:
    bed.append(0, 5)
    bed.round()
    bed.close()
    path = bed.root / "ledger" / "witnessed"
    note = path.read_text()
    changes = {"flip": note[:-10] + ("A" if note[-10] != "A" else "B") + note[-9:], "cut": note[:40]}
    path.write_text(changes.get(change, Signer(ORIGIN, bytes(32)).sign("a\n1\nb\n")))
    again = Bed(bed.root, witness)
    if change == "flip":
        assert "witnessed isn't what was cosigned" in again.archive.ledger.said[-1]
    assert again.get("/v1/ledger/witnessed").status_code == 404
    assert again.round() == ""
    assert again.archive.witnessed.size == 5
    path.unlink()
    again.round(later=1.0)
    assert path.read_text() == again.archive.witnessed.note
    assert again.archive.ledger.said[-1] == "witnessed wasn't what was cosigned: it was written anew"
    again.close()
    bed.archive = Archive(bed.root, KEK, "default")


def test_a_rotated_key_keeps_its_witness(bed: Bed) -> None:
    bed.append(0, 5)
    bed.round()
    signers = (Signer(ORIGIN, bytes([3]) * 32), bed.archive.ledger._signer)
    bed.archive.ledger.sign_with(signers[0], signers[1:])
    bed.append(5, 1)
    assert bed.round() == "", "an older key signs below the newest: the witness knows that one"
    assert open_checkpoint(bed.archive.witnessed.note, signers[0].verifier).size == 6


# -- verify -----------------------------------------------------------------------------------------------------------


def inspected(bed: Bed, rule: WitnessRule) -> tuple[str, str]:
    """(status, all that was found, a line each)."""
    bed.archive.close()
    found = inspect_folder(bed.root, KEK, Asked(witnesses=rule)).findings
    bed.archive = Archive(bed.root, KEK, "default")
    lines = [*map(str, found.wrong), *map(str, found.unchecked), *map(str, found.holds), *map(str, found.beyond)]
    return found.status, "\n".join(lines)


def rule(*witnesses: Witness, quorum: int = 0) -> WitnessRule:
    return WitnessRule(tuple(Cosigner.parse(one.vkey) for one in witnesses), quorum or len(witnesses))


def test_verify_checks_cosignatures_by_keys_kept_elsewhere(bed: Bed, witness: Witness, second: Witness) -> None:
    bed.append(0, 5)
    assert "no witness cosigned" in inspected(bed, WitnessRule())[1]
    status, text = inspected(bed, rule(witness))
    assert (status, "found none here" in text) == ("tampered", True)
    bed.round()
    bed.append(5, 2)
    status, text = inspected(bed, WitnessRule())
    assert status == "verified"
    assert "cosignatures by witness.example/w1 are here, no key to check them" in text
    status, text = inspected(bed, rule(witness))
    assert status == "verified"
    assert "witness.example/w1 cosigned 5 entries, at 2026-01-01T00:00:00.000Z last" in text
    assert "entries 5 to 6: no quorum of witnesses has cosigned them yet" in text
    status, text = inspected(bed, rule(witness, second))
    assert status == "tampered"
    assert "1 cosigned the checkpoint over 5 entries, expected 2: none by witness.example/w2" in text
    assert inspected(bed, rule(witness, second, quorum=1))[0] == "verified"


def test_verify_names_what_was_changed_in_it(bed: Bed, witness: Witness) -> None:
    bed.append(0, 5)
    bed.round()
    path = bed.root / "ledger" / "witnessed"
    note = path.read_bytes()
    bed.archive.close()
    unsaid = []
    for place in range(0, len(note), 3):
        path.write_bytes(note[:place] + bytes([note[place] ^ 4]) + note[place + 1 :])
        found = inspect_folder(bed.root, KEK, Asked(witnesses=rule(witness))).findings
        if found.status != "tampered" or not any("witness" in str(one) for one in found.wrong):
            unsaid.append((place, found.status))
    assert not unsaid
    path.write_bytes(note)
    bed.archive = Archive(bed.root, KEK, "default")


@pytest.mark.parametrize("behind", [True, False], ids=["behind the cosignature", "before it"])
def test_verify_names_a_signature_of_anybody_else_in_it(bed: Bed, witness: Witness, behind: bool) -> None:
    bed.append(0, 5)
    bed.round()
    path = bed.root / "ledger" / "witnessed"
    text, _, lines = path.read_text().rpartition("\n\n")
    foreign = Signer("log.example", bytes(32)).line(f"{text}\n")
    path.write_text(f"{text}\n\n{lines}{foreign}" if behind else f"{text}\n\n{foreign}{lines}")
    bed.archive.close()
    found = inspect_folder(bed.root, KEK, Asked(witnesses=rule(witness))).findings
    bed.archive = Archive(bed.root, KEK, "default")
    assert found.status == "tampered"
    assert any("isn't by one of the archive's keys" in str(one) for one in found.wrong)


# -- keys and addresses -----------------------------------------------------------------------------------------------


def test_a_cosignature_is_of_one_name_key_and_text() -> None:
    one, other = Witness(), Witness("witness.example/w2", bytes(32))
    note = Signer("log.example", bytes(32)).sign("log.example\n1\nAAAA\n") + one.line("log.example\n1\nAAAA\n")
    found = Cosigner.parse(one.vkey).cosigned(note)
    assert found is not None
    assert found.time == one.clock
    assert str(Cosigner.parse(one.vkey)) == one.vkey
    assert Cosigner.parse(other.vkey).cosigned(note) is None
    with pytest.raises(NoteError, match="does not verify"):
        Cosigner.parse(one.vkey).cosigned(note.replace("AAAA", "BAAA"))
    with pytest.raises(NoteError, match="type 4"):
        Cosigner.parse(str(Signer("log.example", bytes(32)).verifier))


@pytest.mark.parametrize(("time", "holds"), [(0, False), (1, True), (2**63 - 1, True), (2**63, False)])
def test_a_cosignature_says_a_time_that_posix_seconds_have(time: int, holds: bool) -> None:
    witness, text = Witness(clock=time), "log.example\n1\nAAAA\n"
    note = Signer("log.example", bytes(32)).sign(text) + witness.line(text)
    if holds:
        found = Cosigner.parse(witness.vkey).cosigned(note)
        assert found is not None
        assert found.time == time
    else:
        with pytest.raises(NoteError, match="has no time"):
            Cosigner.parse(witness.vkey).cosigned(note)


def settings(text: str, quorum: str = "") -> WitnessPolicy:
    return WitnessPolicy.from_environment(
        PodEnvironment({"GOVERNED_WITNESSES": text, "GOVERNED_WITNESS_QUORUM": quorum})
    )


def test_key_files_of_witnesses_make_a_rule(tmp_path: Path) -> None:
    one, other = Witness(), Witness("witness.example/w2", bytes(32))
    (tmp_path / "one").write_text(f"{one.vkey}\n\n")
    (tmp_path / "both").write_text(f"{one.vkey}\n{other.vkey}\n")
    files = [tmp_path / "one"]
    assert witness_rule([]) == WitnessRule()
    assert witness_rule(files) == rule(one)
    assert [witness_rule([tmp_path / "both"], quorum).quorum for quorum in (0, 1, 2)] == [2, 1, 2]
    with pytest.raises(ArchiveError, match="the same witness key was given twice"):
        witness_rule([*files, tmp_path / "both"])
    for quorum in (-1, 2):
        with pytest.raises(ArchiveError, match=f"--quorum must be 1 to 1, the witness keys given, found {quorum}"):
            witness_rule(files, quorum)
    (tmp_path / "none").write_text("x\n")
    with pytest.raises(NoteError):
        witness_rule([tmp_path / "none"])


def test_witnesses_are_read_from_the_environment() -> None:
    one, other = Witness(), Witness("witness.example/w2", bytes(32))
    found = settings(f"{one.vkey} https://witness.example/submit/\n\n{other.vkey} http://10.0.0.7:8080\n", "1")
    assert [w.url for w in found.witnesses] == ["https://witness.example/submit", "http://10.0.0.7:8080"]
    assert (found.quorum, settings(f"{one.vkey} https://w.example").quorum, settings("").witnesses) == (1, 1, ())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "expected http"),
        ("ftp://witness.example", "expected http"),
        ("http://witness.example", "expected https"),
        ("https://user@witness.example", "without user"),
        ("https://witness.example/../x", "without '.'"),
        ("http://169.254.169.254/latest", "link-local"),
        ("https://witness.example/ x", "without spaces"),
        ("https://" + "x" * 3000, "at most 2048"),
    ],
)
def test_an_address_that_leads_elsewhere_is_refused_at_the_start(url: str, told: str) -> None:
    with pytest.raises(InvalidSettings, match=told):
        settings(f"{Witness().vkey} {url}")


def test_settings_that_cant_be_meant_are_refused() -> None:
    one = f"{Witness().vkey} https://w.example"
    with pytest.raises(InvalidSettings, match="key of another witness"):
        settings(f"{one}\n{one}2")
    with pytest.raises(InvalidSettings, match="at most 1, the witnesses there are, found 2"):
        settings(one, "2")
    with pytest.raises(InvalidSettings, match="VKEY URL"):
        settings("https://w.example")


def test_a_name_that_leads_to_a_private_address_isnt_called(tmp_path: Path, witness: Witness) -> None:
    async def private(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    bed = Bed(tmp_path / "archive", witness)
    named = WitnessPolicy((Configured(Cosigner.parse(witness.vkey), "https://witness.example"),), 1)
    asking = Witnessing(bed.archive, named, client=lambda w: WitnessClient(w, resolve=private), clock=lambda: 1.0)
    bed.append(0, 1)
    asyncio.run(asking.round())
    assert "expected a public address behind witness.example" in bed.archive.witnessed.lagging
    assert witness.asked == 0
    bed.close()


# -- backups ----------------------------------------------------------------------------------------------------------


def _taken(bed: Bed) -> bytes:
    with closing(Snapshot(bed.archive)) as snapshot:
        return b"".join(snapshot.chunks())


def _rule(tmp_path: Path, *witnesses: Witness) -> WitnessRule:
    files = []
    for number, one in enumerate(witnesses):
        files.append(tmp_path / f"witness-{number}")
        files[-1].write_text(one.vkey)
    return witness_rule(files)


def _back(data: bytes, folder: Path, rule: WitnessRule | None = None) -> None:
    restore(io.BytesIO(data), Request(folder, Kek(bytes(32)), witnesses=rule or WitnessRule()))


def test_cosignatures_come_back_with_a_backup_and_the_quorum_goes_on(
    bed: Bed, witness: Witness, tmp_path: Path
) -> None:
    bed.append(0, 300)
    bed.round()
    bed.append(300, 7)
    data, note = _taken(bed), bed.archive.witnessed.note
    _back(data, tmp_path / "there", _rule(tmp_path, witness))
    with closing(Bed(tmp_path / "there", witness)) as again:
        assert again.archive.witnessed.note == note
        assert again.archive.witnessed.size == 300
        assert again.get("/v1/ledger/witnessed").text == note
        assert again.round() == ""
        assert again.archive.witnessed.size == again.archive.ledger.size
    assert [status for status, _ in witness.refused] == [409], "asked with 0 entries, it said where it stands"


def test_a_backup_without_the_cosignatures_that_are_asked_for_is_refused(
    bed: Bed, witness: Witness, tmp_path: Path
) -> None:
    bed.append(0, 3)
    never = _taken(bed)
    with pytest.raises(ArchiveError, match="expected cosignatures by 1"):
        _back(never, tmp_path / "a", _rule(tmp_path, witness))
    bed.round()
    with pytest.raises(ArchiveError, match="1 cosigned the checkpoint over 3 entries, expected 2"):
        _back(_taken(bed), tmp_path / "b", _rule(tmp_path, witness, Witness("other.example", bytes(range(3, 35)))))
    _back(never, tmp_path / "c")


def test_a_changed_cosignature_does_not_come_back(bed: Bed, witness: Witness, tmp_path: Path) -> None:
    bed.append(0, 3)
    bed.round()
    note = bed.archive.witnessed.note
    lines = note.split("\n")
    forged = "\n".join([*lines[:-2], lines[-2][:-12] + "AAAAAAAAAAA=", ""])
    assert len(forged) == len(note)
    bed.archive.witnessed.note = forged
    data = _taken(bed)
    with pytest.raises(ArchiveError, match="witnessed"):
        _back(data, tmp_path / "there", _rule(tmp_path, witness))
    assert [p.name for p in (tmp_path / "there").iterdir() if p.name != ".lock"] == []
