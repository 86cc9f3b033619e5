"""Receipts: C2SP tlog-proofs of answers, made by the archive and checked offline, whatever is changed in them."""

import base64
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from governed_serving.archive.__main__ import main
from governed_serving.archive.errors import Refused
from governed_serving.archive.ledger.cosignature import Cosigner
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.ledger.note import NoteError
from governed_serving.archive.ledger.proof import LogProof
from governed_serving.archive.service import Archive
from governed_serving.crypto import load_kek
from support.witness import Witness, serving

from .ledgers import batch, leaf
from .test_witness import Bed as WitnessedBed

ORIGIN = "governedmodels.io/archive/default"


class Bed:
    """An archive's folder with its key, and what a client keeps: the verifier key and a receipt."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys
        (root / "kek").write_bytes(bytes(32))
        (root / "kek").chmod(0o600)
        self.folder, self.vkey, self.file = root / "archive", root / "vkey", root / "answer.tlog-proof"
        with self.archive() as archive:
            archive.ledger.append(batch(0, 300))
            self.vkey.write_text(archive.ledger.vkey)

    def archive(self) -> closing[Archive]:
        return closing(Archive(self.folder, load_kek(self.root / "kek"), "default"))

    def keep(self, id: str = "server-0/7") -> str:
        """Get a receipt and keep it."""
        with self.archive() as archive:
            text = archive.receipt("credit", id).text()
        self.file.write_text(text)
        return text

    def verify(self, *words: str | Path) -> tuple[int, str]:
        code = main(["verify", str(self.file), *map(str, words)])
        said = self._capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def bed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bed:
    return Bed(tmp_path, capsys)


def test_a_receipt_is_a_tlog_proof_of_the_entry_itself(bed: Bed) -> None:
    text = bed.keep()
    lines = text.split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert base64.b64decode(lines[1].removeprefix("extra ")) == leaf("server-0/7")
    assert lines[2] == "index 7"
    assert (len(lines[3:].copy()[: lines[3:].index("")]), lines[3 + lines[3:].index("") + 1]) == (9, ORIGIN)
    assert LogProof.parse(text).text() == text


def test_it_is_verified_offline_by_a_key_kept_elsewhere(bed: Bed) -> None:
    bed.keep()
    shutil.rmtree(bed.folder)
    code, said = bed.verify("--key-file", bed.vkey, "--id", "server-0/7")
    assert code == 0, said
    assert "prediction server-0/7 of default/credit" in said
    assert "entry 7 of 300 of governedmodels.io/archive/default: proof of 9 hashes holds" in said
    assert "no witness cosigned" in said
    assert [line[:12].strip() for line in said.splitlines()[:3]] == ["receipt", "signature", "inclusion"]
    code, said = bed.verify()
    assert (code, "no key to check it" in said) == (3, True)
    code, said = bed.verify("--key-file", bed.vkey, "--id", "server-0/8")
    assert (code, "is for id server-0/7, expected server-0/8" in said) == (1, True)
    bed.vkey.write_text(Witness().vkey.replace("+BH", "+AX"))
    assert bed.verify("--key-file", bed.vkey)[0] == 1


def test_what_is_changed_in_it_is_never_verified(bed: Bed) -> None:
    """Each byte, each line, but that a signature may be there twice; whatever the change, no traceback."""
    text, rng, unsaid = bed.keep(), random.Random(5), []
    data = text.encode()
    changes = [data[:n] + bytes([data[n] ^ 1 << rng.randrange(8)]) + data[n + 1 :] for n in range(0, len(data), 2)]
    lines = text.splitlines(keepends=True)
    changes += ["".join(lines[:n] + lines[n + 1 :]).encode() for n in range(len(lines))]
    changes += ["".join([*lines[:n], lines[n], *lines[n:]]).encode() for n in range(len(lines) - 1)]
    changes += [data[:n] for n in range(30, len(data), 40)] + [data + b"x", data + data]
    for changed in changes:
        bed.file.write_bytes(changed)
        code, said = bed.verify("--key-file", bed.vkey)
        if code == 0 or "Traceback" in said:
            unsaid.append((changed, said))
    assert not unsaid


def test_a_rotated_key_is_found_in_the_ledger_that_it_is_held_against(bed: Bed) -> None:
    bed.keep()
    kek = ("--key-file", bed.root / "kek")
    code, said = bed.verify("--against", bed.folder, *kek)
    assert code == 0, said
    assert "the checkpoint over 300 entries is a prefix of this log" in said
    with bed.archive() as archive:
        archive.ledger.append(batch(300, 5))
    assert bed.verify("--against", bed.folder, *kek)[0] == 0
    shutil.rmtree(bed.folder)
    with bed.archive() as archive:
        archive.ledger.append(batch(0, 400))
    code, said = bed.verify("--against", bed.folder, *kek)
    assert code == 1, "another archive's ledger doesn't have it"


def test_against_is_for_receipts(bed: Bed) -> None:
    assert main(["verify", str(bed.folder), "--against", "x", "--key-file", str(bed.root / "kek")]) == 1


def test_only_an_answer_has_one(bed: Bed) -> None:
    with bed.archive() as archive:
        archive.ledger.append(Batch("credit", "t", 0, [leaf("set", type="dataset"), leaf("gone", type="deadLetter")]))
        for id in ("set", "unknown", "server-0/300"):
            with pytest.raises(Refused, match="is in the ledger: it may not be shipped yet") as caught:
                archive.receipt("credit", id)
            assert caught.value.status == 404
        with pytest.raises(Refused, match="X-Prediction-Id"):
            archive.receipt("credit", "")
        with pytest.raises(Refused):
            archive.receipt("other", "server-0/7")
    bed.keep("gone")
    code, said = bed.verify("--key-file", bed.vkey)
    assert code == 0
    assert "refused the answer's own entry" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.replace("@v1", "@v2"), "must begin with"),
        (lambda t: t.replace("index 7", "index 07"), "decimal number"),
        (lambda t: t.replace("index 7", "index -7"), "decimal number"),
        (lambda t: t.replace("index 7", "index " + "7" * 400), "decimal number"),
        (lambda t: t.replace("extra ", "extra"), "its entry"),
        (lambda t: t.replace("index 7\n", "index 7\nAAAA\n"), "hashes of 32 bytes"),
        (lambda t: t.replace("index 7\n", "index 7\n" + ("A" * 43 + "=\n") * 60), "at most 63"),
        (lambda t: t + " " * (1 << 20), "at most"),
    ],
)
def test_another_form_is_refused(bed: Bed, change, told: str) -> None:
    text = bed.keep()
    with pytest.raises(NoteError, match=told):
        LogProof.parse(change(text))


def test_it_carries_the_cosignatures_of_witnesses_once_they_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Witness()) as witness:
        bed = WitnessedBed(tmp_path / "archive", witness)
        bed.append(0, 10, "server-0")
        assert "witness.example" not in bed.archive.receipt("credit", "server-0/3").note
        bed.round()
        bed.append(10, 5, "server-0")
        proofs = {n: bed.archive.receipt("credit", f"server-0/{n}") for n in (3, 12)}
        vkey = bed.archive.ledger.vkey
        bed.close()
    cosigner = Cosigner.parse(witness.vkey)
    assert (cosigner.cosigned(proofs[3].note) is None, cosigner.cosigned(proofs[12].note) is None) == (False, True)
    for name, text in (("vkey", vkey), ("w", witness.vkey), ("3", proofs[3].text()), ("12", proofs[12].text())):
        (tmp_path / name).write_text(text)
    keys = ["--key-file", str(tmp_path / "vkey"), "--witness-key", str(tmp_path / "w")]
    assert main(["verify", str(tmp_path / "3"), *keys]) == 0
    assert "witness.example/w1 cosigned 10 entries" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "12"), *keys]) == 1
    assert "expected cosignatures by 1 of them, found none here" in capsys.readouterr().out
