"""Verification by anyone: what was changed, cut, forked or lost is named; what is whole passes, as folder, bundle and
URL."""

import hashlib
import shutil
import tarfile
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from governed_serving.archive.__main__ import main
from governed_serving.archive.app import create_app
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import ArchiveError
from governed_serving.archive.ledger.entrylog import Batch, EntryLog
from governed_serving.archive.ledger.merkle import hash_leaf, verify_inclusion
from governed_serving.archive.ledger.note import NoteError, Signer
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.service import Archive, ledger_cipher, ledger_origin
from governed_serving.archive.store.named import Prepared
from governed_serving.archive.store.references import References
from governed_serving.archive.tokens import Tokens, model_token
from governed_serving.archive.verify.bundle import _add, export
from governed_serving.archive.verify.sources import BundleSource, DirectorySource, UrlSource
from governed_serving.archive.verify.verification import BadEntry, Verification, verify
from governed_serving.crypto import DirectoryStore, Kek, Keyring, SegmentCipher
from governed_serving.journal import Journal, JournalReader
from governed_serving.records import LedgerEntry, canonical
from support.predictions import Field, Prediction, PredictionSchema, framed

from .ledgers import leaf
from .test_app import ROOT, Loopback

KEY = bytes(range(32))
MODEL_KEY = bytes([9]) * 32


def filled(root: Path, count: int = 300) -> Archive:
    """An archive with ``count`` predictions, of which every hundredth names a blob of its own."""
    archive = Archive(root, Kek(KEY), "default")
    entries = []
    for i in range(count):
        body = b"GMSEAL1\n" + bytes([i // 100]) * 50
        digest = hashlib.sha256(body).hexdigest()
        if i % 100 == 0:
            archive.blobs.put(digest, body)
        entries.append(leaf(f"req-{i}", blob=digest if i % 100 == 0 else ""))
    for start in range(0, count, 50):
        archive.appender.submit(Batch("credit", "s", start, entries[start : start + 50])).result(10)
    return archive


def source(root: Path) -> DirectorySource:
    return DirectorySource(root, Kek(KEY))


def rewritten(root: Path, index: int, data: bytes) -> None:
    """Change one entry as somebody would who has the archive's key: decrypt, edit, encrypt, keep the tree as it was."""
    cipher = ledger_cipher(root, Kek(KEY))
    log = EntryLog(root / "ledger" / "log", cipher, ledger_origin("default"))
    batches = list(log.batches())
    shutil.rmtree(root / "ledger" / "log")
    changed = []
    for first, batch in batches:
        entries = [data if first + i == index else e for i, e in enumerate(batch.entries)]
        changed.append((first, Batch(batch.model, batch.stream, batch.first_seq, entries)))
    fresh = EntryLog(root / "ledger" / "log", cipher, ledger_origin("default"))
    fresh.recover(0)
    fresh.append(changed)
    fresh.close()


def test_a_whole_archive_verifies_while_it_runs_and_after(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    archive.ledger.checkpoint()
    running = verify(source(tmp_path), id="req-123")
    assert (running.size, running.entries, running.blobs) == (300, 300, 3)
    proof = running.proofs[0]
    hashes = [bytes.fromhex(h) for h in proof.hashes]
    verify_inclusion(hash_leaf(bytes(proof.entry)), 123, 300, hashes, bytes.fromhex(running.root))
    archive.close()
    assert verify(source(tmp_path)).root == running.root


def test_a_changed_entry_is_named(tmp_path: Path) -> None:
    filled(tmp_path).close()
    rewritten(tmp_path, 260, leaf("req-260", summary={"label": "other"}))
    with pytest.raises(
        BadEntry, match=r"entry 260 \(prediction, id req-260, model credit\): its content was changed"
    ) as bad:
        verify(source(tmp_path))
    assert bad.value.index == 260
    rewritten(tmp_path, 7, leaf("req-7").replace(b":", b": "))
    with pytest.raises(BadEntry, match=r"entry 7 .*canonical"):
        verify(source(tmp_path))


def test_flipped_ciphertext_is_named(tmp_path: Path) -> None:
    filled(tmp_path).close()
    segment = next((tmp_path / "ledger" / "log").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(BadEntry, match=r"entry 150 .*don't decrypt"):
        verify(source(tmp_path))


def test_a_missing_or_changed_blob_is_named(tmp_path: Path) -> None:
    filled(tmp_path).close()
    entry = msgspec.json.decode(
        leaf("x", blob=hashlib.sha256(b"GMSEAL1\n" + bytes([2]) * 50).hexdigest()), type=LedgerEntry
    )
    path = tmp_path / "blobs" / entry.blob[:2] / entry.blob
    body = path.read_bytes()
    path.write_bytes(body + b"x")
    with pytest.raises(BadEntry, match=r"entry 200 \(prediction, id req-200.*has SHA-256"):
        verify(source(tmp_path))
    path.unlink()
    with pytest.raises(BadEntry, match=r"entry 200 .*is missing"):
        verify(source(tmp_path))
    assert verify(source(tmp_path), blobs=False).blobs == 0


def unnamed(root: Path, body: bytes = b"GMSEAL1\nupload") -> str:
    """A blob whose entry hasn't come; its address."""
    digest = hashlib.sha256(body).hexdigest()
    path = root / "blobs" / digest[:2] / digest
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    return digest


def test_a_changed_blob_that_no_entry_names_is_named(tmp_path: Path) -> None:
    filled(tmp_path).close()
    digest, other = unnamed(tmp_path), unnamed(tmp_path, b"GMSEAL1\nanother")
    found = verify(source(tmp_path))
    assert (found.blobs, found.unnamed) == (3, 2)
    assert found.of_blobs() == "3 named by entries: there and unchanged; 2 that no entry names: unchanged"
    (tmp_path / "blobs" / digest[:2] / digest).write_bytes(b"GMSEAL1\nuploaD")
    with pytest.raises(
        ArchiveError, match=f"blob {digest}, which no entry names, has SHA-256 [0-9a-f]{{64}}: it was changed"
    ):
        verify(source(tmp_path))
    assert verify(source(tmp_path), blobs=False).of_blobs() == "0 named by entries: not looked at"
    assert (tmp_path / "blobs" / other[:2] / other).exists()


def test_what_comes_in_and_what_was_deleted_are_no_blobs(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    archive.blobs.expire(unnamed(tmp_path))
    with archive.blobs.writer(hashlib.sha256(b"x").hexdigest()) as half:
        half.write(b"GMSEAL1\nhalf of it")
        archive.ledger.checkpoint()
        assert verify(source(tmp_path)).unnamed == 0
    archive.close()


def test_a_blob_that_goes_while_it_is_looked_for_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path).close()
    stays = unnamed(tmp_path)
    monkeypatch.setattr("governed_serving.archive.verify.held_blobs.addresses", lambda _: iter([stays, "0" * 64]))
    assert verify(source(tmp_path)).unnamed == 1


def test_a_cut_tail_is_named(tmp_path: Path) -> None:
    filled(tmp_path).close()
    segment = next((tmp_path / "ledger" / "log").glob("*.seg"))
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(BadEntry, match=r"entry 250 .*250 of 300 signed entries are there"):
        verify(source(tmp_path))


def test_a_checkpoint_kept_elsewhere_shows_cut_and_fork(tmp_path: Path) -> None:
    archive = filled(tmp_path / "a", 200)
    kept = archive.ledger.checkpoint()
    archive.appender.submit(Batch("credit", "t", 0, [leaf("later")])).result(10)
    archive.close()
    assert verify(source(tmp_path / "a"), earlier=(kept,)).earlier == [200]
    # The archive's owner starts over with the same keys, drops entry 0 and signs anew: consistent in itself, but not
    # with what was kept.
    shutil.copytree(tmp_path / "a" / "keys", tmp_path / "b" / "keys")
    forked = Archive(tmp_path / "b", Kek(KEY), "default")
    forked.appender.submit(Batch("credit", "s", 0, [leaf(f"req-{i}") for i in range(1, 300)])).result(10)
    forked.close()
    assert verify(source(tmp_path / "b")).size == 299
    with pytest.raises(ArchiveError, match="rewritten or forked at or before entry 199"):
        verify(source(tmp_path / "b"), earlier=(kept,))
    shutil.copytree(tmp_path / "a" / "keys", tmp_path / "c" / "keys")
    short = Archive(tmp_path / "c", Kek(KEY), "default")
    short.appender.submit(Batch("credit", "s", 0, [leaf("req-0")])).result(10)
    short.close()
    with pytest.raises(ArchiveError, match="tail was cut"):
        verify(source(tmp_path / "c"), earlier=(kept,))


def growing(root: Path, *counts: int) -> list[str]:
    """Checkpoints of an archive that grows by so many entries each time."""
    archive, notes, size = Archive(root, Kek(KEY), "default"), [], 0
    for count in counts:
        entries = [leaf(f"req-{i}") for i in range(size, size + count)]
        if entries:
            archive.appender.submit(Batch("credit", "s", size, entries)).result(10)
        size += count
        notes.append(archive.ledger.checkpoint())
    archive.close()
    return notes


@pytest.mark.parametrize("counts", [(1, 1), (5, 3, 9), (64, 1), (255, 1, 1), (300, 212)])
def test_a_part_proves_that_it_goes_on_from_earlier_checkpoints(tmp_path: Path, counts: tuple[int, ...]) -> None:
    *kept, _ = growing(tmp_path / "a", *counts)
    bundle = tmp_path / "b.tar"
    export(source(tmp_path / "a"), bundle, id="req-0", earlier=tuple(kept))
    with closing(BundleSource(bundle)) as part:
        assert not part.complete
        found = verify(part, earlier=tuple(kept), id="req-0")
    assert found.earlier == [sum(counts[: n + 1]) for n in range(len(kept))]


def test_a_part_without_the_proof_says_how_to_get_it(tmp_path: Path) -> None:
    first, second, _ = growing(tmp_path / "a", 5, 4, 3)
    export(source(tmp_path / "a"), tmp_path / "b.tar", id="req-0", earlier=(second,))
    with closing(BundleSource(tmp_path / "b.tar")) as part:
        assert verify(part, earlier=(second,)).earlier == [9]
        with pytest.raises(ArchiveError, match="an earlier checkpoint of 5: export it with that checkpoint"):
            verify(part, earlier=(first,))


def forked(root: Path, keys: Path, counts: tuple[int, int]) -> str:
    """A log under the same keys that begins with other entries; its last checkpoint."""
    shutil.copytree(keys, root / "keys")
    archive = Archive(root, Kek(KEY), "default")
    archive.appender.submit(Batch("credit", "s", 0, [leaf(f"other-{i}") for i in range(sum(counts))])).result(10)
    note = archive.ledger.checkpoint()
    archive.close()
    return note


def test_a_part_of_a_forked_log_is_no_continuation_however_it_was_exported(tmp_path: Path) -> None:
    kept, _ = growing(tmp_path / "a", 6, 5)
    forked(tmp_path / "b", tmp_path / "a" / "keys", (6, 5))
    export(source(tmp_path / "b"), tmp_path / "b.tar", id="other-0", earlier=(kept,))
    with closing(BundleSource(tmp_path / "b.tar")) as part, pytest.raises(ArchiveError, match="rewritten or forked"):
        verify(part, earlier=(kept,))
    with pytest.raises(ArchiveError, match="its tail was cut"):
        export(
            source(tmp_path / "a"),
            tmp_path / "c.tar",
            earlier=(forked(tmp_path / "c", tmp_path / "a" / "keys", (9, 9)),),
        )


@pytest.mark.parametrize("harm", ["flip", "cut", "add", "other"])
def test_a_changed_consistency_proof_is_refused(tmp_path: Path, harm: str) -> None:
    kept, other, _ = growing(tmp_path / "a", 6, 3, 5)
    export(source(tmp_path / "a"), tmp_path / "b.tar", id="req-0", earlier=(kept, other))
    with closing(BundleSource(tmp_path / "b.tar")) as part:
        proof = part.consistency(6, 14)
        assert proof is not None
        changed = {
            "flip": [bytes(b ^ 1 for b in proof[0]), *proof[1:]], "cut": proof[:-1], "add": [*proof, proof[0]],
            "other": part.consistency(9, 14),
        }[harm]  # fmt: skip
        part.consistency = lambda *_: changed  # type: ignore[method-assign]
        with pytest.raises(ArchiveError, match="from the earlier checkpoint of 6 entries to that of 14"):
            verify(part, earlier=(kept,))


def test_what_a_witness_is_told_by_a_running_archive_is_checked(tmp_path: Path) -> None:
    archive = filled(tmp_path, 100)
    kept = archive.ledger.checkpoint()
    archive.appender.submit(Batch("credit", "t", 0, [leaf("later")])).result(10)
    transport = Loopback(create_app(archive, Tokens(ROOT, "default"), ArchiveMetrics("default")))
    client = ArchiveClient("http://archive", model_token(ROOT, "default", "*"), transport=transport, patience=0.0)
    assert verify(UrlSource(client), earlier=(kept,)).earlier == [100]
    real = client.consistency
    client.consistency = lambda first, second: real(first, second)[::-1]  # type: ignore[method-assign]
    with pytest.raises(ArchiveError, match="from the earlier checkpoint of 100 entries"):
        verify(UrlSource(client), earlier=(kept,))
    transport.stop()
    archive.close()


def test_a_foreign_signature_is_refused(tmp_path: Path) -> None:
    filled(tmp_path).close()
    stranger = Signer(ledger_origin("default"), bytes(32)).verifier
    with pytest.raises(NoteError, match="no signature by"):
        verify(source(tmp_path), vkey=str(stranger))
    checkpoint = tmp_path / "ledger" / "checkpoint"
    checkpoint.write_text(checkpoint.read_text().replace("\n300\n", "\n299\n"))
    with pytest.raises(NoteError, match="does not verify"):
        verify(source(tmp_path))


def checked(path: Path, id: str = "") -> Verification:
    with closing(BundleSource(path)) as bundle:
        return verify(bundle, id=id)


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz"])
def test_bundles_verify_without_any_key(tmp_path: Path, name: str) -> None:
    filled(tmp_path / "a").close()
    assert export(source(tmp_path / "a"), tmp_path / name, blobs=True) == (300, 3)
    found = checked(tmp_path / name, "req-17")
    assert (found.size, found.blobs, found.complete, found.proofs[0].index) == (300, 3, True, 17)
    export(source(tmp_path / "a"), tmp_path / name, id="req-299")
    part = checked(tmp_path / name, "req-299")
    assert (part.complete, part.entries, part.size) == (False, 1, 300)
    with pytest.raises(ArchiveError, match="no entry of model any with id nobody"):
        export(source(tmp_path / "a"), tmp_path / name, id="nobody")


def test_a_changed_bundle_is_named(tmp_path: Path) -> None:
    filled(tmp_path / "a").close()
    for chosen, message in (
        ({}, "don't have the signed root"),
        ({"model": "credit"}, r"entry 42 \(prediction, id req-4X"),
    ):
        export(source(tmp_path / "a"), tmp_path / "b.tar", **chosen)
        data = (tmp_path / "b.tar").read_bytes()
        (tmp_path / "b.tar").write_bytes(data.replace(b'"id":"req-42"', b'"id":"req-4X"'))
        with pytest.raises(ArchiveError, match=message):
            checked(tmp_path / "b.tar")


def test_a_bundle_with_another_blob_is_looked_through(tmp_path: Path) -> None:
    filled(tmp_path / "a").close()
    for blobs, body, count in ((True, b"x", 1), (False, b"y", 0)):
        export(source(tmp_path / "a"), tmp_path / "b.tar", blobs=blobs)
        with tarfile.open(tmp_path / "b.tar", "a") as tar:
            _add(tar, f"blobs/{hashlib.sha256(b'x').hexdigest()}", body)
        assert checked(tmp_path / "b.tar").unnamed == count
    export(source(tmp_path / "a"), tmp_path / "b.tar", blobs=True)
    with tarfile.open(tmp_path / "b.tar", "a") as tar:
        _add(tar, f"blobs/{'0' * 64}", b"x")
    with pytest.raises(ArchiveError, match=f"blob {'0' * 64}, which no entry names, has SHA-256"):
        checked(tmp_path / "b.tar")


def test_a_running_archive_verifies_by_its_url(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    transport = Loopback(create_app(archive, Tokens(ROOT, "default"), ArchiveMetrics("default")))
    client = ArchiveClient("http://archive", model_token(ROOT, "default", "*"), transport=transport, patience=0.0)
    assert verify(UrlSource(client), id="req-5").blobs == 3
    real = client.entries

    def lying(start: int, end: int) -> list[bytes]:
        return [leaf("forged") if start + i == 270 else e for i, e in enumerate(real(start, end))]

    client.entries = lying  # type: ignore[method-assign]
    with pytest.raises(BadEntry, match=r"entry 270 \(prediction, id forged"):
        verify(UrlSource(client))
    transport.stop()
    archive.close()


async def journalled(root: Path, spool: Path) -> None:
    """Ship a real journal and its entries."""
    archive = Archive(root, Kek(KEY), "default")
    keyset = Keyring(Kek(MODEL_KEY), DirectoryStore(spool.with_name("keys"))).keyset("journal")
    archive.create_keyset("credit", "journal", (spool.with_name("keys") / "journal.keyset.json").read_bytes())
    cipher = SegmentCipher(keyset)
    fields = (Field("age", "FP32"), Field("note", "BYTES"))
    schema = PredictionSchema("credit", "r1", "sha256:a", fields, (Field("label", "INT64"),))
    journal = Journal(spool, "server-0", cipher)
    await journal.append(framed(Prediction(schema, "req-a", 0.0, 1, [[41.0], ["<PHONE>"]], [[1]])))
    await journal.append(framed(Prediction(schema, "req-b", 0.0, 2, [[42.0, 43.0], ["x", "y"]], [[0, 1]])))
    journal.close()
    seq, reader, following = 0, JournalReader(spool, "server-0", cipher), 0
    while chunk := reader.chunk(following):
        following = chunk.last_seq + 1
        archive.blobs.put(chunk.digest, chunk.data)
        for number, record in enumerate(chunk.records, chunk.first_seq):
            entries = [
                canonical(
                    LedgerEntry(
                        "prediction", "default", "credit", id, "2026-01-01T00:00:00.000Z", "r1", chunk.digest, number, i
                    )
                )
                for i, id in enumerate(record.ids)
            ]
            archive.appender.submit(Batch("credit", "server-0", seq, entries)).result(10)
            seq += len(entries)
    archive.close()


async def test_one_request_is_shown_with_the_models_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "a"
    await journalled(root, tmp_path / "spool")
    keys = {"archive": KEY, "model": MODEL_KEY, "wrong": bytes(32)}
    for name, key in keys.items():
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    command = ["verify", str(root), "--key-file", str(tmp_path / "archive"), "--id", "req-b"]
    assert main([*command, "--model-key", str(tmp_path / "model")]) == 0
    out = capsys.readouterr().out
    shown = msgspec.json.decode(out[out.index("{\n") :])
    assert shown["features"] == {"age": [42.0, 43.0], "note": ["x", "y"]}
    assert shown["outputs"] == {"label": [0, 1]}
    assert "id req-b is entry 2 (prediction" in out, "entry 0 is the keyset's"
    assert main([*command, "--model-key", str(tmp_path / "wrong")]) == 1
    assert "wrapped by key" in capsys.readouterr().err


def test_the_command_answers_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = filled(tmp_path / "a")
    checkpoint = archive.ledger.checkpoint()
    archive.appender.submit(Batch("credit", "t", 0, [leaf("later")])).result(10)
    archive.close()
    (tmp_path / "kek").write_bytes(KEY)
    (tmp_path / "kek").chmod(0o600)
    monkeypatch.setenv("GOVERNED_KEK_FILE", str(tmp_path / "kek"))
    vkey = tmp_path / "a" / "ledger" / "vkey"
    assert (
        main(
            [
                "verify",
                str(tmp_path / "a"),
                "--key-file",
                str(vkey),
                "--checkpoint",
                str(tmp_path / "a" / "ledger" / "checkpoint"),
            ]
        )
        == 0
    )
    assert "by the key that you gave" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "a"), "--json", "--id", "req-3"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["proofs"][0]["index"] == 3
    assert main(["export", str(tmp_path / "a"), str(tmp_path / "b.tar"), "--of", "credit"]) == 0
    assert main(["verify", str(tmp_path / "b.tar"), "--id", "req-3"]) == 0
    (tmp_path / "kept").write_text(checkpoint)
    part, since = str(tmp_path / "part.tar"), ["--checkpoint", str(tmp_path / "kept")]
    assert main(["export", str(tmp_path / "a"), part, "--id", "req-3", *since]) == 0
    assert main(["verify", part, *since]) == 0
    capsys.readouterr()
    rewritten(tmp_path / "a", 3, leaf("req-3", summary={"x": 1}))
    report = tmp_path / "report.json"
    report.write_text("{}")
    for words, message in (
        ([str(tmp_path / "a")], "entry 3 (prediction, id req-3, model credit): its content was changed"),
        ([str(tmp_path / "none")], "no such archive folder or bundle"),
        ([str(tmp_path / "kek")], "neither an archive's folder nor an exported bundle"),
        ([str(tmp_path / "b.tar"), "--id", "nobody"], "id nobody is not among"),
        ([str(tmp_path / "b.tar"), "--checkpoint", str(report)], "no status.archive.checkpoint"),
    ):
        assert main(["verify", *words]) == 1
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    monkeypatch.delenv("GOVERNED_KEK_FILE")
    assert main(["verify", str(tmp_path / "a")]) == 1
    assert (
        "GOVERNED_KEK_FILE: expected the archive's key-encryption key, or --key-file, found nothing; set it"
        in capsys.readouterr().err
    )


def test_nothing_of_the_service_is_plaintext(tmp_path: Path) -> None:
    archive = filled(tmp_path)
    archive.put_reference("credit", "training-1", b'{"blob":"pointer-in-clear"}')
    archive.close()
    data = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"req-1" not in data
    assert b"pointer-in-clear" not in data


def holding(root: Path, place: Path) -> Archive:
    """An archive with a reference, a state and a keyset; ``place``: where the keyset is made."""
    archive = filled(root, 50)
    archive.put_reference("credit", "artefact", b'{"blob":"one"}')
    for version in (b"first", b"second"):
        archive.put_state("credit", "counts-a", b"GMSEAL1\n" + version)
    Keyring(Kek(MODEL_KEY), DirectoryStore(place)).keyset("journal")
    archive.create_keyset("credit", "journal", (place / "journal.keyset.json").read_bytes())
    return archive


def test_what_lies_under_a_name_is_what_an_entry_says(tmp_path: Path) -> None:
    archive = holding(tmp_path / "a", tmp_path / "keys")
    archive.ledger.checkpoint()
    archive.put_state("credit", "counts-b", b"GMSEAL1\nbehind the checkpoint")
    found = verify(source(tmp_path / "a"))
    assert found.held == 4, "the archive runs, and has signed no checkpoint since"
    archive.close()
    assert verify(source(tmp_path / "a"), blobs=False).held == 4
    export(source(tmp_path / "a"), tmp_path / "b.tar", blobs=True)
    with closing(BundleSource(tmp_path / "b.tar")) as bundle:
        assert verify(bundle).of_holdings().startswith("not looked at"), "a bundle carries none"


@pytest.mark.parametrize("what", ["reference artefact", "state counts-a", "keyset journal"])
def test_what_was_changed_under_its_name_is_named(tmp_path: Path, what: str) -> None:
    """As somebody would who has the archive's own key."""
    root = tmp_path / "a"
    holding(root, tmp_path / "keys").close()
    match what.split()[0]:
        case "reference":
            ring = Keyring(Kek(KEY), DirectoryStore(root / "keys"))
            references = References(root / "refs", ring.keyset("references"))
            two = b'{"blob":"two"}'
            references.put_in_place(references.prepare("credit", "artefact", two, hashlib.sha256(two).hexdigest()))
        case "state":
            (root / "states" / "credit" / "counts-a").write_bytes(b"GMSEAL1\nothers")
        case _:
            Keyring(Kek(MODEL_KEY), DirectoryStore(tmp_path / "other")).keyset("journal")
            shutil.copy(tmp_path / "other" / "journal.keyset.json", root / "keysets" / "credit")
    with pytest.raises(ArchiveError, match=rf"{what} of credit has SHA-256 [0-9a-f]{{64}}, which no entry .* changed"):
        verify(source(root))


def test_what_lies_ready_excuses_only_what_it_is(tmp_path: Path) -> None:
    """Somebody puts an older state back, and a file beside it that only looks as if the newer one were on its way."""
    root = tmp_path / "a"
    holding(root, tmp_path / "keys").close()
    state = root / "states" / "credit" / "counts-a"
    second = state.read_bytes()
    state.write_bytes(b"GMSEAL1\nfirst")
    beside = state.with_name(f".counts-a.{hashlib.sha256(second).hexdigest()}")
    beside.write_bytes(b"half")
    (root / "refs" / "credit" / f".artefact.{'0' * 64}").write_bytes(b"half")
    with pytest.raises(ArchiveError, match="put back"):
        verify(source(root))
    beside.write_bytes(second)
    assert verify(source(root)).held == 3


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_put_back_or_taken_away_is_named(tmp_path: Path, gone: bool) -> None:
    root = tmp_path / "a"
    holding(root, tmp_path / "keys").close()
    state = root / "states" / "credit" / "counts-a"
    state.unlink() if gone else state.write_bytes(b"GMSEAL1\nfirst")
    second = hashlib.sha256(b"GMSEAL1\nsecond").hexdigest()
    with pytest.raises(ArchiveError, match=rf"state counts-a of credit is not what .* \(SHA-256 {second}\).*put back"):
        verify(source(root))


def test_a_value_that_comes_back_by_the_archive_is_no_older_one(tmp_path: Path) -> None:
    """first, second, first again, and no checkpoint since: the newest entry isn't signed yet."""
    archive = holding(tmp_path / "a", tmp_path / "keys")
    archive.ledger.checkpoint()
    archive.put_state("credit", "counts-a", b"GMSEAL1\nfirst")
    assert verify(source(tmp_path / "a")).held == 3
    archive.close()


class Killed(BaseException):
    """As if the process ended here."""


@pytest.mark.parametrize(
    ("what", "name", "value"), [("reference", "artefact", b'{"blob":"two"}'), ("state", "counts-a", b"GMSEAL1\nthird")]
)
@pytest.mark.parametrize("said", [False, True])
def test_a_replacement_that_a_kill_interrupts_is_finished_or_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, name: str, value: bytes, said: bool
) -> None:
    """Before its entry: undone. After it: no error, and done at the next start."""
    root = tmp_path / "a"
    archive = holding(root, tmp_path / "keys")
    put = archive.put_reference if what == "reference" else archive.put_state

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(*((Prepared, "put_in_place") if said else (archive, "_note")), killed)
        with pytest.raises(Killed):
            put("credit", name, value)
    archive.close()
    assert verify(source(root)).held == 3
    again = Archive(root, Kek(KEY), "default")
    assert again.finished == ([f"{what} {name} of credit"] if said else [])
    found = again.reference("credit", name) if what == "reference" else again.state("credit", name)[0]
    assert (found == value) == said
    again.close()
    assert verify(source(root)).held == 3
    assert not list(root.glob("*/credit/.*[0-9a-f]")), "nothing is left beside"


def test_a_replacement_whose_saying_failed_is_settled_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry came although nobody waited for it any longer."""
    root = tmp_path / "a"
    archive = holding(root, tmp_path / "keys")
    note = archive._note

    def late(*words: object) -> None:
        note(*words)  # type: ignore[arg-type]
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(archive, "_note", late)
        with pytest.raises(TimeoutError):
            archive.put_state("credit", "counts-a", b"GMSEAL1\nthird")
    assert archive.state("credit", "counts-a")[0] == b"GMSEAL1\nsecond"
    archive.put_state("credit", "counts-a", b"GMSEAL1\nthird")
    assert archive.state("credit", "counts-a")[0] == b"GMSEAL1\nthird"
    assert len(archive.ledger.find("credit", id="counts-a")) == 3, "said once"
    archive.close()
    assert verify(source(root)).held == 3
