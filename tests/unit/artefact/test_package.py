"""Packing is deterministic; anything changed, added or missing is noticed and named."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from governed_serving import artefact
from governed_serving.artefact import Feature, Lineage, Manifest, Output


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
