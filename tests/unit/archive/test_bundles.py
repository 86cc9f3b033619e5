"""Bundles member by member, what verification prints line by line, and from what a person names to a source."""

import hashlib
import io
import json
import os
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_api import runtime
from governed_serving.archive.errors import ArchiveError, Unverified
from governed_serving.archive.ledger.note import Verifier, sign_checkpoint
from governed_serving.archive.verify.bundle import export
from governed_serving.archive.verify.findings import Finding, Findings
from governed_serving.archive.verify.inspection import Inspection
from governed_serving.archive.verify.opening import folder_kek, noted_checkpoint, open_source, trusted_vkey
from governed_serving.archive.verify.printing import inspection_json, print_inspection
from governed_serving.archive.verify.sources import BundleSource, DirectorySource, UrlSource
from governed_serving.archive.verify.verification import Proof, Verification, verify
from governed_serving.crypto import Kek
from governed_serving.records import ENTRY_BYTES

from .ledgers import SIGNER, leaf
from .test_verification import KEY, filled, growing, source

ABOUT = {"format": "governed-bundle-1", "origin": "governedmodels.io/archive/default", "size": 300}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 predictions, of which 0, 100 and 200 name a blob."""
    root = tmp_path_factory.mktemp("a") / "archive"
    filled(root).close()
    return root


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        assert {(m.mode, m.isreg()) for m in tar.getmembers()} == {(0o444, True)}
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def test_a_whole_bundle_holds_every_entry_and_no_proof(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    assert export(source(archive), target) == (300, 0)
    found = members(target)
    assert json.loads(found.pop("bundle.json")) == {**ABOUT, "complete": True, "entries": 300, "blobs": False}
    assert found.pop("vkey") == (archive / "ledger" / "vkey").read_bytes()
    assert found.pop("checkpoint") == (archive / "ledger" / "checkpoint").read_bytes()
    whole = [one.data for one in source(archive).leaves(300)]
    assert found.pop("entries.jsonl") == b"".join(data + b"\n" for data in whole)
    assert found == {}
    assert target.stat().st_mode & 0o777 == 0o644
    assert not target.read_bytes().startswith(b"\x1f\x8b")
    export(source(archive), tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").read_bytes().startswith(b"\x1f\x8b")
    assert members(tmp_path / "b.tar.gz") == members(target)


@pytest.mark.parametrize(
    ("chosen", "places"),
    [({"id": "req-7"}, [7]), ({"model": "credit", "id": "req-299"}, [299]), ({"model": "credit"}, [*range(300)])],
)
def test_chosen_entries_come_with_a_proof_each(
    archive: Path, tmp_path: Path, chosen: dict[str, str], places: list[int]
) -> None:
    assert export(source(archive), tmp_path / "b.tar", **chosen) == (len(places), 0)  # type: ignore[arg-type]
    found = members(tmp_path / "b.tar")
    assert json.loads(found["bundle.json"]) == {**ABOUT, "complete": False, "entries": len(places), "blobs": False}
    proofs = json.loads(found["proofs.json"])
    assert [one["index"] for one in proofs] == places
    with closing(BundleSource(tmp_path / "b.tar")) as part:
        assert [one.index for one in part.leaves(300)] == places
        assert verify(part).entries == len(places)
    assert sorted(found) == ["bundle.json", "checkpoint", "entries.jsonl", "proofs.json", "vkey"]


def test_blobs_come_along_when_asked_for_those_of_the_chosen_entries(archive: Path, tmp_path: Path) -> None:
    for chosen, count in (({}, 3), ({"id": "req-100"}, 1), ({"id": "req-101"}, 0)):
        assert export(source(archive), tmp_path / "b.tar", blobs=True, **chosen)[1] == count  # type: ignore[arg-type]
        found = {n: d for n, d in members(tmp_path / "b.tar").items() if n.startswith("blobs/")}
        assert len(found) == count
        assert all(name == f"blobs/{hashlib.sha256(data).hexdigest()}" for name, data in found.items())
        assert json.loads(members(tmp_path / "b.tar")["bundle.json"])["blobs"] is True


def test_earlier_checkpoints_come_with_a_proof_each(tmp_path: Path) -> None:
    first, second, _ = growing(tmp_path / "a", 5, 4, 3)
    of_nothing = sign_checkpoint(SIGNER, 0, hashlib.sha256(b"").digest())
    export(source(tmp_path / "a"), tmp_path / "b.tar", earlier=(second, first, first, of_nothing))
    found = json.loads(members(tmp_path / "b.tar")["consistency.json"])
    assert list(found) == ["5", "9"]
    with closing(BundleSource(tmp_path / "b.tar")) as whole:
        assert whole.consistency(5, 12) == [bytes.fromhex(h) for h in found["5"]]
        assert whole.consistency(6, 12) is None
        assert verify(whole, earlier=(first, second)).earlier == [5, 9]
    export(source(tmp_path / "a"), tmp_path / "c.tar")
    with closing(BundleSource(tmp_path / "c.tar")) as whole:
        assert whole.consistency(5, 12) is None


def test_what_can_make_no_bundle_leaves_none(archive: Path, tmp_path: Path) -> None:
    export(source(archive), tmp_path / "part.tar", id="req-1")
    with closing(BundleSource(tmp_path / "part.tar")) as part, pytest.raises(ArchiveError, match="not of a part"):
        export(part, tmp_path / "c.tar")
    with pytest.raises(ArchiveError, match="no entry of model other with id any"):
        export(source(archive), tmp_path / "c.tar", model="other")
    shorter = source(archive)
    leaves = shorter.leaves
    shorter.leaves = lambda size: list(leaves(size))[:-1]  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ArchiveError, match="don't have the signed root: run verify"):
        export(shorter, tmp_path / "c.tar")
    assert not (tmp_path / "c.tar").exists()


# -- reading bundles ---------------------------------------------------------------------------------------------------


def rewritten(path: Path, **changes: bytes | None) -> Path:
    """A bundle with members changed, added or (None) left out; a name's dot is an underscore here."""
    found: dict[str, bytes | None] = {**members(path), **{name.replace("_", "."): d for name, d in changes.items()}}
    target = path.with_name("changed.tar")
    with tarfile.open(target, "w") as tar:
        for name, data in found.items():
            if data is not None:
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o444
                tar.addfile(member, io.BytesIO(data))
    return target


def refused(path: Path) -> str:
    with pytest.raises((ArchiveError, FileNotFoundError)) as caught, closing(BundleSource(path)) as bundle:
        verify(bundle)
    return str(caught.value)


@pytest.mark.parametrize(("longer", "held"), [(0, True), (1, False), (1000, False)])
def test_an_entry_of_a_bundle_is_as_long_as_one_of_a_ledger_at_most(
    archive: Path, tmp_path: Path, longer: int, held: bool
) -> None:
    export(source(archive), tmp_path / "b.tar", id="req-1")
    entry = b"x" * (ENTRY_BYTES + longer)
    with closing(BundleSource(rewritten(tmp_path / "b.tar", entries_jsonl=entry + b"\n"))) as bundle:
        if held:
            assert [leaf.data for leaf in bundle.leaves(300)] == [entry]
        else:
            with pytest.raises(ArchiveError, match="found 0 or more of 300: it was changed"):
                list(bundle.leaves(300))


def test_a_bundle_that_contradicts_itself_is_named(archive: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "b.tar", tmp_path / "part.tar"
    export(source(archive), whole)
    export(source(archive), part, id="req-1")
    about = json.loads(members(part)["bundle.json"])

    def told(**fields: Any) -> bytes:
        return json.dumps({**about, **fields}).encode()

    assert "bundle.json tells of 2 entries of 300, found 1 of 300" in refused(
        rewritten(part, bundle_json=told(entries=2))
    )
    assert "bundle.json tells of 1 entries of 299, found 1 of 300" in refused(
        rewritten(part, bundle_json=told(size=299))
    )
    assert "bundle.json is of log x, the bundle's key of another" in refused(
        rewritten(part, bundle_json=told(origin="x"))
    )
    assert "format governed-bundle-1, found 'other'" in refused(rewritten(part, bundle_json=told(format="other")))
    assert "or it was changed" in refused(rewritten(part, bundle_json=told(more=1)))
    assert refused(rewritten(part, bundle_json=None)) == "the bundle has no bundle.json"
    assert refused(rewritten(part, vkey=None)) == "the bundle has no vkey"
    assert "found 1 of 300" not in refused(rewritten(part, entries_jsonl=members(part)["entries.jsonl"][:-1]))
    assert "has 1 entries and 0 proofs: one was cut" in refused(rewritten(part, proofs_json=b"[]"))
    proofs = json.loads(members(part)["proofs.json"])
    proofs[0]["index"] = 2
    assert "entry 2 (prediction, id req-1, model credit)" in refused(
        rewritten(part, proofs_json=json.dumps(proofs).encode())
    )
    with pytest.raises(ArchiveError, match="is neither an archive's folder nor an exported bundle"):
        BundleSource(archive / "ledger" / "vkey")
    with closing(BundleSource(whole)) as bundle:
        assert (bundle.blobs_are, bundle.complete) == ("not in the bundle", True)
        assert bundle.leaf_hash(1, 300) is None
        assert bundle.blob("0" * 64) is None
        assert [*bundle.addresses(), *bundle.holdings(), *bundle.prepared()] == []
        with pytest.raises(ArchiveError, match="carries no keysets of credit"):
            bundle.keysets("credit")


def test_blobs_of_a_bundle_are_looked_at(archive: Path, tmp_path: Path) -> None:
    export(source(archive), tmp_path / "b.tar", blobs=True)
    digests = sorted(n.removeprefix("blobs/") for n in members(tmp_path / "b.tar") if n.startswith("blobs/"))
    with closing(BundleSource(tmp_path / "b.tar")) as bundle:
        assert bundle.blobs_are == "there and unchanged"
        assert list(bundle.addresses()) == digests
        assert [bundle.blob(d) for d in (*digests, "0" * 64)] == [None, None, None, "is missing"]
        assert bundle.blob_bytes(digests[0]) == (archive / "blobs" / digests[0][:2] / digests[0]).read_bytes()
    changed = rewritten(tmp_path / "b.tar", **{f"blobs/{digests[1]}": b"x"})
    assert f"its blob {digests[1]} has SHA-256 {hashlib.sha256(b'x').hexdigest()}: it was changed" in refused(changed)
    missing = rewritten(tmp_path / "b.tar", **{f"blobs/{digests[1]}": None})
    assert f"its blob {digests[1]} is missing" in refused(missing)


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_what_holds_of_the_log_is_printed_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    entry = leaf("req-1")
    log = Verification(
        "log", 1234, "ab" * 32, "key", 1234, 1200, proofs=[Proof(1000, 1234, ["ab"] * 3, msgspec.Raw(entry))]
    )
    log.earlier, log.deleted, log.unnamed, log.held = [1000], 4321, 2, 3
    findings = Findings(holds=[Finding("derived", "whole")], beyond=[Finding("what", "why")])
    print_inspection(Inspection(findings, log), trusted=True)
    assert capsys.readouterr().out.splitlines() == [
        f"log         log, 1,234 entries, root {'ab' * 32}",
        "signature   holds, by the key that you gave",
        "tree        recomputed from all 1,234 entries: has the signed root",
        "blobs       1,200 named by entries: there and unchanged; 2 that no entry names: unchanged",
        "held        3 references, states and keysets: each is what its entries say",
        "deleted     4,321 payload blobs under retention, each with a receipt in this log",
        "earlier     the checkpoint over 1,000 entries is a prefix of this log",
        "inclusion   id req-1 is entry 1,000 (prediction, 2026-01-01T00:00:00.000Z): proof of 3 hashes holds",
        f"            {entry.decode()}",
        "derived     whole",
        "not checked what: why",
        "verified",
    ]
    log = Verification("log", 1, "ab" * 32, "key", 1, complete=False, blobs_are="not in the bundle")
    print_inspection(Inspection(Findings(), log), trusted=False)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "signature   holds, by its own key (give --key-file VKEY to check against one kept elsewhere)",
        "proofs      each of the 1 entries in the bundle is in the signed tree",
        "blobs       0 named by entries: not in the bundle",
        "held        not looked at (they are checked over the folder)",
        "verified",
    ]


@pytest.mark.parametrize("count", [1, 100, 101])
def test_a_hundred_findings_are_printed_and_the_first_is_said(capsys: pytest.CaptureFixture[str], count: int) -> None:
    findings = Findings()
    for number in range(count):
        findings.fault("", f"wrong {number}")
        findings.skip("place", f"unchecked {number}")
    print_inspection(Inspection(findings), trusted=False)
    out, err = capsys.readouterr()
    shown = [f"unchecked   place: unchecked {n}" for n in range(min(count, 100))]
    more = ["unchecked   and 1 more: --json lists them"] if count > 100 else []
    wrong = [f"wrong       wrong {n}" for n in range(min(count, 100))]
    assert out.splitlines() == [
        *shown,
        *more,
        *wrong,
        *(line.replace("unchecked", "wrong    ") for line in more),
        "not verified",
    ]
    assert err == "verify: wrong 0\n"
    told = json.loads(inspection_json(Inspection(findings)))
    assert (told["status"], len(told["wrong"]), len(told["unchecked"])) == ("tampered", count, count)
    print_inspection(Inspection(Findings(unchecked=[Finding("a", "b")])), trusted=False)
    assert capsys.readouterr() == (
        "unchecked   a: b\nincomplete: nothing is wrong, and what is listed as unchecked could not be checked\n", "",
    )  # fmt: skip


def test_whatever_reading_raises_is_a_finding() -> None:
    findings = Findings()
    for error in (ValueError("two\n lines"), KeyError(), ZeroDivisionError()):
        with findings.looking_at("place"):
            raise error
    assert [str(one) for one in findings.wrong] == [
        "place: two lines", "place: can't be read (KeyError)", "place: can't be read (ZeroDivisionError)",
    ]  # fmt: skip


# -- what a person names -----------------------------------------------------------------------------------------------


def kept(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(0o600)
    return path


def test_key_files_are_told_apart_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vkey = kept(tmp_path / "vkey", f"{SIGNER.verifier}\n")
    looks_like_text = b"a+" + b"b" * 30
    for key in (bytes(range(32)), looks_like_text):
        kek = kept(tmp_path / "kek", key)
        for order in ([vkey, kek], [kek, vkey]):
            assert trusted_vkey(order) == str(SIGNER.verifier)
            assert folder_kek(order).id == Kek(key).id
        assert trusted_vkey([kek]) == trusted_vkey([]) == ""
    monkeypatch.setenv(runtime.KEK_FILE, str(kek))
    assert folder_kek([vkey]).id == folder_kek([]).id == Kek(looks_like_text).id
    assert Verifier.parse(trusted_vkey([vkey])) == SIGNER.verifier


def test_folders_bundles_and_addresses_are_opened(archive: Path, tmp_path: Path) -> None:
    kek, token = kept(tmp_path / "kek", KEY), kept(tmp_path / "token", "secret")
    vkey = kept(tmp_path / "vkey", f"{SIGNER.verifier}\n")
    export(source(archive), tmp_path / "b.tar")
    opened, trusted = open_source(str(archive), [kek, vkey])
    assert (type(opened), trusted) == (DirectorySource, str(SIGNER.verifier))
    opened, trusted = open_source(str(tmp_path / "b.tar"), [])
    assert (type(opened), trusted) == (BundleSource, "")
    opened.close()
    opened, _ = open_source("http://archive", [], token, "credit")
    assert isinstance(opened, UrlSource)
    assert (opened._client.model, opened._client.patience) == ("credit", 10.0)
    with pytest.raises(ArchiveError, match="give --model other and its --token-file"):
        opened.keysets("other")
    opened.close()
    assert opened._client._http.is_closed
    with pytest.raises(ArchiveError, match="none: no such archive folder or bundle"):
        open_source(str(tmp_path / "none"), [])


def test_a_checkpoint_is_a_note_or_in_a_report(tmp_path: Path) -> None:
    note = sign_checkpoint(SIGNER, 1, bytes(32))
    report = {"archive": {"checkpoint": note}}
    for content in (note, json.dumps(report), " \n" + json.dumps({"status": report})):
        assert noted_checkpoint(kept(tmp_path / "kept", content)) == note
    for content in ("{}", '{"status": {}}', '{"status": {"archive": {}}}', '{"archive": {"checkpoint": ""}}'):
        with pytest.raises(Unverified, match=r"kept: the report holds no status\.archive\.checkpoint"):
            noted_checkpoint(kept(tmp_path / "kept", content))


def test_an_empty_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no archive, or one without entries: expected ledger/vkey"):
        DirectorySource(tmp_path, Kek(KEY)).vkey()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_a_bundle_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    """Names and records of any length are read whole by tarfile."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 64 << 20
    with (tmp_path / "b.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(65 << 20)
    with pytest.raises(ArchiveError, match="a header of 67108864 bytes: it was put together"):
        BundleSource(tmp_path / "b.tar")


@pytest.mark.parametrize("name", ["vkey", "checkpoint"])
def test_a_bundle_s_member_that_is_no_text_is_named(archive: Path, tmp_path: Path, name: str) -> None:
    export(source(archive), tmp_path / "b.tar")
    with tarfile.open(tmp_path / "forged.tar", "w") as tar:
        for member, data in (members(tmp_path / "b.tar") | {name: b"\xff\xfe"}).items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with (
        closing(BundleSource(tmp_path / "forged.tar")) as forged,
        pytest.raises(ArchiveError, match=f"{name} is no te"),
    ):
        getattr(forged, name)()
