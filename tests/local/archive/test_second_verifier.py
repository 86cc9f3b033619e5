"""A verifier in another language, made of other people's code, agrees on what is whole and what was tampered with."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Unreachable
from governed_serving.archive.ledger.entrylog import Batch
from governed_serving.archive.service import Archive
from governed_serving.archive.tokens import READER, model_token
from governed_serving.archive.verify.bundle import export
from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import load_kek
from support.programs import program
from support.tampered_bundles import members, only_another_keys_line, rebuilt, tampered
from support.waiting import eventually
from support.witness import Witness, serving
from support.work_folder import MODEL, WorkFolder, made
from unit.archive.ledgers import leaf

from .test_processes import Process, batch
from .test_processes import process as process

pytestmark = pytest.mark.slow


def second(*words: str | Path) -> tuple[bool, str]:
    """(verified, what the other verifier says)."""
    done = subprocess.run([program("ledger-verifier"), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def older() -> list[str]:
    """A checkpoint from before the last round."""
    return []


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, older: list[str]) -> WorkFolder:
    return made(tmp_path_factory.mktemp("work"), requests=130, between=lambda w: older.append(w.checkpoint))


@pytest.fixture
def bundle(work: WorkFolder, tmp_path: Path) -> Path:
    export(DirectorySource(work.archive, load_kek(work.kek_file)), tmp_path / "whole.tar", blobs=True)
    return tmp_path / "whole.tar"


def first(path: Path, *words: str) -> bool:
    """Whether ours verifies."""
    from governed_serving.archive.__main__ import main

    return main(["verify", str(path), *words]) == 0


def test_both_verify_what_is_whole(work: WorkFolder, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(work.checkpoint)
    shutil.copy(work.archive / "ledger" / "vkey", tmp_path / "vkey")
    kept = ["-checkpoint", tmp_path / "kept", "-vkey", tmp_path / "vkey"]
    said, text = second(*kept, bundle)
    assert said, text
    assert f"default {work.entries} " in text
    part = tmp_path / "part.tar.gz"
    export(DirectorySource(work.archive, load_kek(work.kek_file)), part, id="req-7", earlier=(work.checkpoint,))
    said, text = second(*kept, part)
    assert said, text
    assert first(part, "--checkpoint", str(tmp_path / "kept"))


def test_both_refuse_an_older_bundle(work: WorkFolder, bundle: Path, tmp_path: Path) -> None:
    archive = Archive(work.archive, load_kek(work.kek_file), "default")
    archive.ledger.append(Batch(MODEL, "later", 0, [leaf("later", model=MODEL)]))
    (tmp_path / "kept").write_text(archive.ledger.checkpoint())
    archive.close()
    said, text = second("-checkpoint", tmp_path / "kept", bundle)
    assert not said
    assert "its tail was cut" in text
    assert not first(bundle, "--checkpoint", str(tmp_path / "kept"))


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_both_agree_on_tampered_bundles(
    work: WorkFolder, older: list[str], bundle: Path, tmp_path: Path, part: bool
) -> None:
    (tmp_path / "kept").write_text(older[0])
    kept = str(tmp_path / "kept")
    if part:
        source = DirectorySource(work.archive, load_kek(work.kek_file))
        export(source, bundle, model=MODEL, earlier=(older[0],))
    pristine, rng, wrong = members(bundle), random.Random(3), []
    assert second("-checkpoint", kept, bundle)[0]
    for number in range(60):
        files = dict(pristine)
        name = tampered(rng, files)
        if files == pristine:
            continue
        path = rebuilt(tmp_path / "t.tar", files)
        ours, (theirs, text) = first(path, "--checkpoint", kept), second("-checkpoint", kept, path)
        if ours != theirs or (ours and not only_another_keys_line(pristine, files)):
            wrong.append(f"{number}: {name}: ours {ours}, theirs {theirs}: {text}")
    assert not wrong, "\n".join(wrong)


def _upper(data: bytes) -> bytes:
    """The first hash of a proof, in capitals."""
    place = data.index(b'"hashes":["') + len(b'"hashes":["')
    return data[:place] + data[place : place + 64].upper() + data[place + 64 :]


@pytest.mark.parametrize(
    ("member", "otherwise"),
    [
        ("proofs.json", _upper),
        ("vkey", lambda data: data.removesuffix(b"\n") + b"\x0b"),
        ("vkey", lambda data: data.replace(b"+", b"+\n", 1)),
    ],
    ids=["hash", "key", "key in lines"],
)
def test_both_refuse_what_means_the_same_and_was_changed(
    work: WorkFolder, bundle: Path, tmp_path: Path, member: str, otherwise: Callable[[bytes], bytes]
) -> None:
    export(DirectorySource(work.archive, load_kek(work.kek_file)), bundle, model=MODEL)
    files = members(bundle)
    assert (first(bundle), second(bundle)[0]) == (True, True)
    path = rebuilt(tmp_path / "t.tar", {**files, member: otherwise(files[member])})
    assert (first(path), second(path)[0]) == (False, False)


@pytest.fixture
def served(process: Process) -> Iterator[Process]:
    process.start()
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        client.append_batch("s", 0, batch(0, 600).entries)
    yield process
    assert process.stop() == 0


def test_a_running_archive_is_a_tlog_tiles_log(served: Process, tmp_path: Path) -> None:
    token = model_token((served.root / "root").read_bytes(), "default", READER)
    prefix = f"{served.url}/v1/ledger"
    said, text = second("-token", token, prefix)
    assert said, text
    assert "default 600 " in text
    with ArchiveClient(served.url, served.token, "credit", patience=60.0) as client:
        (tmp_path / "kept").write_text(client.checkpoint())
        client.append_batch("s", 600, batch(600, 3).entries)
    assert second("-token", token, "-checkpoint", tmp_path / "kept", prefix)[0]
    said, text = second("-token", served.token, prefix)
    assert not said
    assert "403" in text, "one model's token doesn't read the others' entries"


def test_a_changed_tile_is_named_in_the_folder_and_served_right(served: Process) -> None:
    token = model_token((served.root / "root").read_bytes(), "default", READER)
    served.stop()
    tile = served.root / "archive" / "ledger" / "tile" / "0" / "001"
    tile.write_bytes(tile.read_bytes()[::-1])
    code, _, err = served.run("verify", str(served.root / "archive"))
    assert code == 1
    assert "ledger/tile/0/001" in err
    served.start()
    said, text = second("-token", token, f"{served.url}/v1/ledger")
    assert said, f"the archive makes the tile anew from the entries: {text}"


@pytest.fixture
def witness() -> Iterator[Witness]:
    with serving(Witness()) as found:
        yield found


def test_a_witness_cosigns_a_running_archive_and_both_verifiers_check_it(
    process: Process, witness: Witness, tmp_path: Path
) -> None:
    """Over its URL, its folder and an exported part; a key that didn't cosign is missed by both."""
    other = Witness("witness.example/w2", bytes(32))
    for name, keys in (("one", witness.vkey), ("two", f"{witness.vkey}\n{other.vkey}")):
        (tmp_path / name).write_text(f"{keys}\n")
    process.witnesses = f"{witness.vkey} {witness.url}"
    process.start()
    token = model_token((process.root / "root").read_bytes(), "default", READER)
    (tmp_path / "reader").write_text(token)
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        witness.trusts(client.vkey())
        client.append_batch("s", 0, batch(0, 300).entries)
        eventually(client.witnessed, lambda note: note.split("\n")[1:2] == ["300"], what="the cosigned checkpoint")
        kept = httpx.get(
            f"{process.url}/v1/ledger/receipt",
            params={"model": "credit", "id": "server-0/7"},
            headers={"authorization": f"Bearer {process.token}"},
            trust_env=False,
            timeout=60,
        ).text
        client.append_batch("s", 300, batch(300, 3).entries)
        prefix = f"{process.url}/v1/ledger"
        said, text = second("-token", token, "-witness-key", tmp_path / "one", prefix)
        assert said, text
        said, text = second("-token", token, "-witness-key", tmp_path / "two", prefix)
        assert "1 witnesses cosigned, expected 2" in text
        assert second("-token", token, "-witness-key", tmp_path / "two", "-quorum", "1", prefix)[0]
        reader = ("--token-file", str(tmp_path / "reader"))
        assert process.run("verify", process.url, *reader, "--witness-key", str(tmp_path / "one"))[0] == 0
    assert process.stop() == 0
    code, out, _ = process.run("verify", str(process.root / "archive"), "--witness-key", str(tmp_path / "one"))
    assert (code, "witness.example/w1 cosigned" in out) == (0, True), out
    code, _, err = process.run("verify", str(process.root / "archive"), "--witness-key", str(tmp_path / "two"))
    assert (code, "none by witness.example/w2" in err) == (1, True), err
    part = tmp_path / "part.tar"
    assert process.run("export", str(process.root / "archive"), str(part), "--id", "server-0/7")[0] == 0
    assert first(part, "--witness-key", str(tmp_path / "one"))
    said, text = second("-witness-key", tmp_path / "one", part)
    assert said, text
    receipt = tmp_path / "answer.tlog-proof"
    receipt.write_text(kept)
    (tmp_path / "vkey").write_text((process.root / "archive" / "ledger" / "vkey").read_text())
    vkey = tmp_path / "vkey"
    assert first(receipt, "--key-file", str(vkey), "--witness-key", str(tmp_path / "one"))
    assert second("-vkey", vkey, "-witness-key", tmp_path / "one", receipt)[0]
    assert not second("-vkey", vkey, "-witness-key", tmp_path / "two", receipt)[0]
    receipt.write_text(kept.replace("index 7\n", "index 6\n"))
    assert not first(receipt, "--key-file", str(vkey))
    assert not second("-vkey", vkey, receipt)[0]
    changed = members(part)
    changed["witnessed"] = changed["witnessed"][:-9] + b"AAAAAAA=\n"
    tampered_part = rebuilt(tmp_path / "changed.tar", changed)
    assert not first(tampered_part, "--witness-key", str(tmp_path / "one"))
    assert not second("-witness-key", tmp_path / "one", tampered_part)[0]


def test_an_archive_of_an_older_copy_is_told_by_its_witness(process: Process, witness: Witness) -> None:
    process.witnesses = f"{witness.vkey} {witness.url}"
    process.start()
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        witness.trusts(client.vkey())
        client.append_batch("s", 0, batch(0, 5).entries)
        eventually(client.checkpoint, lambda note: note.split("\n")[1] == "5")
    assert process.stop() == 0
    shutil.copytree(process.root / "archive", process.root / "copy")
    process.start()
    with ArchiveClient(process.url, process.token, "credit", patience=60.0) as client:
        client.append_batch("s", 5, batch(5, 5).entries)
        eventually(client.witnessed, lambda note: note.split("\n")[1:2] == ["10"], what="the cosigned checkpoint")
    assert process.stop() == 0
    shutil.rmtree(process.root / "archive")
    (process.root / "copy").rename(process.root / "archive")
    (process.root / "report.json").unlink()  # it has the newer checkpoint as well, and would do
    process.start()
    with ArchiveClient(process.url, process.token, "credit", patience=0.0) as client:
        assert client.checkpoint().split("\n")[1] == "5", "it may be read"
        with pytest.raises(Unreachable, match=r"witness witness\.example/w1 has a checkpoint over 10 entries"):
            client.append_batch("s", 5, batch(5, 1).entries)

    def told() -> str:
        report = json.loads((process.root / "report.json").read_text())
        return str(report.get("status", report)["archive"].get("contradiction", ""))

    assert "another archive signs with the same key" in eventually(told)
    assert process.stop() == 0
