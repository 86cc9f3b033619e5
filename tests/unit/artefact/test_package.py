"""Packing is deterministic; anything changed, added or missing is noticed and named."""

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from governed_serving import artefact
from governed_serving.artefact import Feature, Lineage, Manifest, Output, package


def files(**extra: bytes) -> dict[str, bytes]:
    content = {"model.onnx": b"graph", "background.json": b'{"columns":{"x":[1.0,null]}}', **extra}
    manifest = Manifest(
        name="m",
        task="regression",
        features=[Feature("x", "numeric", "FP32", min=0.0, max=1.0)],
        inputs=["x"],
        outputs=[Output("prediction", "FP32", [-1])],
        label="y",
        variant="float",
        lineage=Lineage("sha256:0", "t", "0.1.0", {"torch": "2"}),
        files={name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    )
    return {**content, "model.json": artefact.encode_manifest(manifest)}


def test_equal_content_gives_equal_bytes_whatever_the_order() -> None:
    content = files()
    assert artefact.pack(content) == artefact.pack(dict(reversed(content.items())))


def test_round_trip_through_a_directory(tmp_path: Path) -> None:
    packed = artefact.pack(files())
    artefact.write(packed, tmp_path, artefact.digest(packed))
    loaded = artefact.load(tmp_path, artefact.digest(packed).removeprefix("sha256:"))
    assert loaded.digest == artefact.digest(packed)
    assert loaded.model == b"graph"
    assert loaded.background() == {"x": [1.0, None]}
    assert loaded.document("gates.json") is None
    assert loaded.manifest.features[0].max == 1.0


@pytest.mark.parametrize("name", ["model.onnx", "background.json"])
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    artefact.write(artefact.pack(files()), tmp_path)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(artefact.TamperedArtefact, match=name):
        artefact.load(tmp_path)


def test_a_changed_manifest_is_noticed_by_the_digest(tmp_path: Path) -> None:
    packed = artefact.pack(files())
    artefact.write(packed, tmp_path)
    path = tmp_path / "model.json"
    path.write_bytes(path.read_bytes().replace(b'"label":"y"', b'"label":"z"'))
    artefact.load(tmp_path)
    with pytest.raises(artefact.TamperedArtefact, match="expected digest"):
        artefact.load(tmp_path, artefact.digest(packed))


def test_a_file_changed_after_loading_is_noticed(tmp_path: Path) -> None:
    artefact.write(artefact.pack(files()), tmp_path)
    loaded = artefact.load(tmp_path)
    (tmp_path / "background.json").write_bytes(b"{}")
    with pytest.raises(artefact.TamperedArtefact, match=r"background\.json"):
        loaded.background()


def test_an_unlisted_file_is_refused() -> None:
    with pytest.raises(artefact.TamperedArtefact, match=r"gates\.json: not listed"):
        artefact.unpack(artefact.pack({**files(), "gates.json": b"{}"}))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    artefact.write(artefact.pack(files()), tmp_path)
    (tmp_path / "background.json").unlink()
    with pytest.raises(artefact.TamperedArtefact, match=r"background\.json: listed .* missing"):
        artefact.load(tmp_path)


def test_a_path_out_of_the_directory_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in {**files(), "../evil": b"x"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(artefact.MalformedArtefact, match="evil"):
        artefact.unpack(out.getvalue())


@pytest.mark.parametrize("data", [b"", b"not a tar"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(artefact.MalformedArtefact):
        artefact.unpack(data)


def test_an_empty_directory_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(artefact.MalformedArtefact, match=r"model\.json"):
        artefact.load(tmp_path)


def test_another_format_is_refused() -> None:
    content = files()
    content["model.json"] = content["model.json"].replace(b"artefact/v1", b"artefact/v9")
    with pytest.raises(artefact.MalformedArtefact, match="v9"):
        artefact.unpack(artefact.pack(content))


def everything() -> dict[str, bytes]:
    return files(**dict.fromkeys(("training.json", "evaluation.json", "gates.json", "reference.json"), b"{}"))


def test_equal_content_gives_the_same_digest_in_every_version() -> None:
    """The ledger names artefacts by it: another order, mode or time would make all of them others."""
    packed = artefact.pack(everything())
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        entries = [(e.name, e.mode, e.mtime, e.uid, e.gid, e.uname, e.gname) for e in archive]
    names = [
        "background.json",
        "evaluation.json",
        "gates.json",
        "model.json",
        "model.onnx",
        "reference.json",
        "training.json",
    ]
    assert entries == [(name, 0o444, 0, 0, 0, "", "") for name in names]
    assert artefact.digest(packed) == "sha256:e587a8ae970cd9ed5829936f1dfa6af5d70abca4954950c5cf7e6f9976a139d9"
    assert artefact.unpack(packed) == everything()


def test_every_document_is_read_back(tmp_path: Path) -> None:
    content = files(**{"reference.json": b'{"rows":3,"columns":{}}'})  # type: ignore[arg-type]
    artefact.write(artefact.pack(content), tmp_path)
    loaded = artefact.load(tmp_path)
    assert loaded.reference() == {"rows": 3, "columns": {}}
    assert loaded.document("background.json") == {"columns": {"x": [1.0, None]}}


def test_an_artefact_may_have_no_documents(tmp_path: Path) -> None:
    manifest = artefact.decode_manifest(files()["model.json"])
    bare = msgspec.structs.replace(manifest, files={"model.onnx": manifest.files["model.onnx"]})
    content = {"model.onnx": b"graph", "model.json": artefact.encode_manifest(bare)}
    artefact.write(artefact.pack(content), tmp_path)
    loaded = artefact.load(tmp_path)
    assert (loaded.reference(), loaded.background()) == ({}, {})
    assert (loaded.manifest, loaded.directory) == (
        msgspec.structs.replace(bare, format=loaded.manifest.format),
        tmp_path,
    )
    assert loaded.manifest.format == "governedmodels.io/artefact/v1"


def test_a_manifest_says_little_where_little_is_to_be_said() -> None:
    assert Feature("x", "numeric", "FP32") == Feature(
        "x", "numeric", "FP32", [], None, None, None, missing="refuse", segmentation="", max_tokens=None
    )
    read = artefact.decode_manifest(files()["model.json"])
    assert (read.classes, read.favorable, read.threshold, read.settings, read.bands) == ([], None, None, {}, {})
    assert b"segmentation" not in files()["model.json"]


@pytest.mark.parametrize("prefix", ["sha256:", ""])
def test_an_artefact_of_another_digest_is_not_unpacked(tmp_path: Path, prefix: str) -> None:
    packed = artefact.pack(files())
    other = prefix + "0" * 64
    words = f"artefact: expected digest {other}, found {artefact.digest(packed)}: it must not be served"
    with pytest.raises(artefact.TamperedArtefact, match=words):
        artefact.write(packed, tmp_path / "there", other)
    assert not (tmp_path / "there").exists()
    assert artefact.unpack(packed, prefix + artefact.digest(packed).removeprefix("sha256:")) == files()


def test_what_is_missing_and_what_is_too_much_is_named(tmp_path: Path) -> None:
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w"):
        pass
    with pytest.raises(artefact.MalformedArtefact, match=r"expected a file model\.json, found only nothing$"):
        artefact.unpack(empty.getvalue())
    with pytest.raises(
        artefact.MalformedArtefact, match=r"expected a file model\.onnx, found only background\.json, model\.json"
    ):
        artefact.pack({name: data for name, data in files().items() if name != "model.onnx"})
    with pytest.raises(artefact.MalformedArtefact, match=r"artefact: expected only .*training\.json, found 'a\.py'"):
        artefact.pack({**files(), "b.py": b"", "a.py": b""})
    with pytest.raises(artefact.MalformedArtefact, match=r"expected an artefact with model\.json, found none"):
        artefact.load(tmp_path / "nowhere")


def test_a_directory_is_loaded_by_its_digest_with_or_without_its_algorithm(tmp_path: Path) -> None:
    packed = artefact.pack(files())
    artefact.write(packed, tmp_path)
    found = artefact.digest(packed)
    assert artefact.load(tmp_path, found).digest == artefact.load(tmp_path, found[7:]).digest == found
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(artefact.MalformedArtefact, match=r"expected a file model\.onnx, found only background\.json"):
        artefact.load(tmp_path)


def test_a_folder_in_the_tar_is_no_file() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("model.json")
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    with pytest.raises(artefact.MalformedArtefact, match=r"expected plain files, found 'model\.json' which is none"):
        artefact.unpack(out.getvalue())


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{", r"^model\.json: "),
        (b"[]", r"^model\.json: "),
        (None, "expected format governedmodels.io/artefact/v1, found none"),
    ],
)
def test_a_manifest_that_can_not_be_read_is_told(document: bytes | None, words: str) -> None:
    made = files()["model.json"].replace(b',"format":"governedmodels.io/artefact/v1"', b"")
    assert made != files()["model.json"]
    with pytest.raises(artefact.MalformedArtefact, match=words):
        artefact.unpack(artefact.pack({**files(), "model.json": made if document is None else document}))


def test_the_manifest_is_written_last_and_everybody_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that is killed meanwhile leaves no directory that looks whole."""
    written: list[str] = []
    before = os.umask(0o022)
    try:
        artefact.write(artefact.pack(everything()), tmp_path / "open")
    finally:
        os.umask(before)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o755
    real = package.replace_file

    def noted(path: Path, data: bytes, **options: Any) -> None:
        written.append(path.name)
        real(path, data, **options)

    monkeypatch.setattr(package, "replace_file", noted)
    artefact.write(artefact.pack(everything()), tmp_path / "a" / "b")
    assert written == [*sorted({*everything()} - {"model.json"}), "model.json"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b").iterdir()} == {0o644}
    artefact.write(artefact.pack(everything()), tmp_path / "a" / "b")


def test_other_files_beside_an_artefact_are_not_its_own(tmp_path: Path) -> None:
    artefact.write(artefact.pack(files()), tmp_path)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert artefact.load(tmp_path).model == b"graph"
