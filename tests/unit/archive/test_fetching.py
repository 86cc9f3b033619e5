"""The init container: the artefact that was asked for comes from the archive, or nothing is served and the report says
why."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from governed_api import runtime
from governed_api.resolved import ResolvedModel
from governed_serving.archive.__main__ import main
from governed_serving.archive.client import ArchiveClient
from governed_serving.archive.errors import Refused, Unverified
from governed_serving.archive.fetching import fetch as module
from governed_serving.archive.fetching import imported as imported_module
from governed_serving.archive.fetching.fetch import download, fetch, source_path
from governed_serving.archive.fetching.imported import packed_import
from governed_serving.archive.tokens import model_token
from governed_serving.artefact import MalformedArtefact, TamperedArtefact, Untried, load, unpack, write
from governed_serving.crypto import Keyring, load_kek
from governed_serving.environment import InvalidSettings
from support.damage import flipped

from .test_app import ROOT, Bed
from .test_imported import onnx_file, resolved


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Fetching:
    """An archive with an artefact of ``credit``, and the environment of the container that fetches it."""

    def __init__(self, folder: Path, bed: Bed) -> None:
        self.folder, self.bed = folder, bed
        digest = onnx_file(folder / "m.onnx")
        self.packed = packed_import(folder / "m.onnx", digest, resolved("file:m.onnx", digest))
        self.digest = sha256(self.packed)
        self.target, self.report = folder / "model", folder / "report.json"
        spec = {"name": "credit", "namespace": "default", "spec": {"predictor": {"model": {}}}}
        (folder / "spec.json").write_bytes(ResolvedModel.model_validate(spec).dump())
        (folder / "kek").write_bytes(bytes([3]) * 32)
        (folder / "kek").chmod(0o600)
        (folder / "token").write_text(model_token(ROOT, "default", "credit"))
        self.keyring = Keyring(load_kek(folder / "kek"), bed.client().keysets())
        self.keyring.keyset("artefact")

    @property
    def name(self) -> str:
        return f"artefact-{self.digest.removeprefix('sha256:')}"

    def store(self, packed: bytes | None = None, bound_to: str | None = None) -> None:
        """As the trainer does, or with other bytes, or for another digest."""
        keyset = self.keyring.keyset("artefact")
        sealed = keyset.seal(self.packed if packed is None else packed, (bound_to or self.digest).encode())
        self.bed.client().put_ref(self.name, {"blob": self.bed.client().put_blob(sealed)})

    @property
    def variables(self) -> dict[str, str]:
        return {
            runtime.SPEC: str(self.folder / "spec.json"), runtime.MODEL_DIR: str(self.target),
            runtime.ARTEFACT_DIGEST: self.digest, runtime.ARCHIVE_URL: "http://archive",
            runtime.KEK_FILE: str(self.folder / "kek"), runtime.ARCHIVE_TOKEN_FILE: str(self.folder / "token"),
            runtime.REPORT: self.report.as_uri(), runtime.REVISION: "r1", runtime.POD_NAME: "credit-0",
        }  # fmt: skip

    def told(self) -> dict[str, Any]:
        found = json.loads(self.report.read_bytes())["status"]["revisions"]["r1"]["server"]["credit-0"]
        assert found.pop("observedAt")
        return dict(found)


@pytest.fixture
def fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetching]:
    with closing(Bed(tmp_path / "archive")) as bed:
        made = Fetching(tmp_path, bed)
        for name, value in made.variables.items():
            monkeypatch.setenv(name, value)

        def client(url: str, token: str, model: str, *, patience: float) -> ArchiveClient:
            assert (url, patience) == ("http://archive", 120.0), "a node that restarts has an archive soon"
            return ArchiveClient(url, token, model, patience=0.0, transport=bed.transport)

        monkeypatch.setattr(module, "ArchiveClient", client)
        yield made


def test_the_artefact_is_brought_once_and_verified(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching.store()
    assert fetch() == f"artefact {fetching.digest} is verified and in {fetching.target}"
    assert load(fetching.target, fetching.digest).digest == fetching.digest
    monkeypatch.delattr(module, "ArchiveClient")
    assert fetch() == f"artefact {fetching.digest} is already in {fetching.target}, verified"
    assert not fetching.report.exists()


def test_what_lies_there_and_is_another_is_replaced(fetching: Fetching) -> None:
    fetching.store()
    write(fetching.packed, fetching.target)
    (fetching.target / "model.onnx").chmod(0o644)
    (fetching.target / "model.onnx").write_bytes(b"other")
    assert fetch() == f"artefact {fetching.digest} is verified and in {fetching.target}"
    assert load(fetching.target, fetching.digest)


def test_an_artefact_that_nobody_trained_is_named(fetching: Fetching) -> None:
    with pytest.raises(
        Refused, match=f"^the archive knows no artefact {fetching.digest} of credit: has its"
    ) as refused:
        fetch()
    assert refused.value.status == 404
    assert not fetching.report.exists(), "it may come yet: nothing that was brought is wrong"


def test_other_bytes_than_were_sealed_for_it_are_not_served(fetching: Fetching) -> None:
    fetching.store(bound_to="sha256:" + "0" * 64)
    with pytest.raises(Unverified, match=f"^artefact {fetching.digest}: .*; it is not served$") as refused:
        fetch()
    assert fetching.told() == {"ready": False, "refused": False, "verified": False, "message": str(refused.value)}
    assert not fetching.target.exists()


def test_other_content_under_its_digest_is_not_served(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching.store(flipped(fetching.packed))
    with pytest.raises(TamperedArtefact) as refused:
        fetch()
    assert fetching.told() == {"ready": False, "refused": False, "verified": False, "message": str(refused.value)}
    fetching.report.unlink()
    monkeypatch.delenv(runtime.REPORT)
    with pytest.raises(TamperedArtefact):
        fetch()
    assert not fetching.report.exists()


def test_a_blob_that_was_deleted_is_named(fetching: Fetching) -> None:
    fetching.bed.client().put_ref(fetching.name, {"blob": "0" * 64})
    with pytest.raises(Refused, match="not here"), fetching.bed.client() as client:
        download(client, fetching.digest, fetching.folder / "kek")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (runtime.MODEL_DIR, "expected the folder to write the artefact to, found"),
        (runtime.ARTEFACT_DIGEST, "expected the artefact's digest, found"),
        (runtime.ARCHIVE_URL, "expected the archive's address, found"),
        (runtime.KEK_FILE, "expected the path of the model's key-encryption key, found"),
    ],
)
def test_what_is_missing_is_named(fetching: Fetching, monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    fetching.store()
    monkeypatch.delenv(name)
    with pytest.raises(InvalidSettings, match=f"{name}: {what}"):
        fetch()


def junk(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has its digest and is no model."""
    (fetching.folder / "m.onnx").write_bytes(b"junk")
    (fetching.folder / "spec.json").write_bytes(resolved("file:m.onnx", sha256(b"junk")).dump())
    monkeypatch.setenv(runtime.SOURCE_DIR, str(fetching.folder))


def test_what_cannot_be_served_is_refused_once_and_for_all(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    junk(fetching, monkeypatch)
    assert main(["fetch"]) == runtime.EXIT_REFUSED
    assert "expected a model as onnx.save writes it" in capsys.readouterr().err
    assert fetching.told()["refused"] is True
    (fetching.folder / "m.onnx").write_bytes(b"other")
    assert main(["fetch"]) == runtime.EXIT_REFUSED, "another digest: whoever sits before it puts another file there"
    assert fetching.told()["verified"] is False
    assert not fetching.told().get("refused"), "in a cluster another file may be put there"


@pytest.mark.parametrize(("uri", "code"), [("pvc://c/m.onnx", 1), ("file:m.onnx", runtime.EXIT_REFUSED)])
def test_what_may_pass_is_tried_again_where_nobody_sits_before_it(
    uri: str, code: int, fetching: Fetching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    junk(fetching, monkeypatch)
    (fetching.folder / "spec.json").write_bytes(resolved(uri, sha256(b"junk")).dump())

    def slow(*_: object) -> None:
        raise Untried("expected an answer within 180 s, found none")

    monkeypatch.setattr(imported_module, "run_trial", slow)
    assert main(["fetch"]) == code
    assert not fetching.told().get("refused")
    (fetching.folder / "m.onnx").unlink()
    assert main(["fetch"]) == code
    assert f"{uri}: expected a file or folder at {fetching.folder}/m.onnx, found none" in capsys.readouterr().err


def test_a_model_of_its_own_comes_from_its_place(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256((fetching.folder / "m.onnx").read_bytes())
    spec = resolved("file:m.onnx", digest)
    (fetching.folder / "spec.json").write_bytes(spec.dump())
    monkeypatch.setenv(runtime.SOURCE_DIR, str(fetching.folder))
    assert fetch() == f"m.onnx ({digest}) is verified and in {fetching.target}"
    monkeypatch.delenv(runtime.SOURCE_DIR)
    with pytest.raises(FileNotFoundError):
        fetch()
    monkeypatch.chdir(fetching.folder)
    assert fetch() == f"m.onnx ({digest}) is verified and in {fetching.target}", "relative to where it runs"
    (fetching.folder / "m.onnx").write_bytes(b"other")
    with pytest.raises(Unverified, match=rf"m\.onnx: expected digest {digest}, found sha256:[0-9a-f]{{64}}: it is"):
        fetch()
    assert fetching.told()["message"].startswith("m.onnx: expected digest")
    (fetching.folder / "spec.json").write_bytes(resolved("pvc://claim/../../m.onnx", digest).dump())
    with pytest.raises(Unverified, match="leaves the volume of claim claim"):
        fetch()
    assert source_path("pvc://claim/m.onnx", fetching.folder) == fetching.folder.resolve() / "m.onnx"


def weights(fetching: Fetching, monkeypatch: pytest.MonkeyPatch, uri: str, digest: str) -> None:
    """A foreign runtime's, on a volume that holds ``chat/`` with two files."""
    place = fetching.folder / "chat"
    place.mkdir()
    (place / "a.gguf").write_bytes(b"weights" * 1000)
    (place / "b.json").write_bytes(b"{}")
    model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "x"}, "storageUri": uri, "digest": digest}
    made = ResolvedModel.model_validate({"name": "credit", "namespace": "n", "spec": {"predictor": {"model": model}}})
    (fetching.folder / "spec.json").write_bytes(made.dump())
    monkeypatch.setenv(runtime.SOURCE_DIR, str(fetching.folder))


def test_a_runtimes_weights_are_verified_and_stay_where_they_are(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = hashlib.sha256(b"weights" * 1000).hexdigest(), hashlib.sha256(b"{}").hexdigest()
    digest = sha256(f"{one} 7000 a.gguf\n{other} 2 b.json\n".encode())
    weights(fetching, monkeypatch, "pvc://models/chat", digest)
    assert fetch() == f"2 files of pvc://models/chat, 0 MiB ({digest}), are verified"
    assert not fetching.target.exists()


@pytest.mark.parametrize("uri", ["pvc://models/chat", "pvc://models/chat/a.gguf"])
def test_one_changed_byte_of_a_runtimes_weights_starts_nothing(
    uri: str, fetching: Fetching, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = hashlib.sha256(b"weights" * 1000).hexdigest(), hashlib.sha256(b"{}").hexdigest()
    folder = sha256(f"{one} 7000 a.gguf\n{other} 2 b.json\n".encode())
    weights(fetching, monkeypatch, uri, f"sha256:{one}" if uri.endswith("gguf") else folder)
    assert main(["fetch"]) == 0
    content = bytearray((fetching.folder / "chat" / "a.gguf").read_bytes())
    content[3500] ^= 1
    (fetching.folder / "chat" / "a.gguf").write_bytes(content)
    assert main(["fetch"]) == runtime.EXIT_REFUSED
    told = fetching.told()
    assert (told["ready"], told["verified"]) == (False, False)
    assert f"{uri}: expected digest" in told["message"]
    assert "a.gguf" in told["message"]
    assert "the runtime doesn't start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda place: (place / "link").symlink_to("/etc/passwd"), "link: expected a regular file in its folder"),
        (lambda place: (place / "m.bin").write_bytes(b"\x80\x04cos\nsystem\n."), "pickle"),
        (lambda place: os.mkfifo(place / "pipe"), "pipe: expected a regular file"),
    ],
)
def test_what_no_digest_can_vouch_for_is_no_weights(
    spoil: Callable[[Path], object], words: str, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(fetching, monkeypatch, "pvc://models/chat", f"sha256:{'0' * 64}")
    spoil(fetching.folder / "chat")
    with pytest.raises(MalformedArtefact, match=words):
        fetch()


# -- models from elsewhere ---------------------------------------------------------------------------------------------


def graph(path: Path, *, labels: Any = TensorProto.INT64, width: int = 3, classes: str = "", kind: Any = None) -> str:
    """A classifier of one number (``kind``: of another type) and a text; its digest."""
    inputs = [
        helper.make_tensor_value_info("age", kind or TensorProto.FLOAT, ["rows", 1]),
        helper.make_tensor_value_info("town", TensorProto.STRING, ["rows", 1]),
    ]
    outputs = [
        helper.make_tensor_value_info("label", labels, ["rows"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", width]),
    ]
    label = helper.make_tensor("l", labels, [1], [b"a"] if labels == TensorProto.STRING else [1])
    row = helper.make_tensor("p", TensorProto.FLOAT, [1, width], [1 / width] * width)
    nodes = [
        helper.make_node("Shape", ["town"], ["rows"], end=1),
        helper.make_node("Constant", [], ["one"], value=label),
        helper.make_node("Expand", ["one", "rows"], ["label"]),
        helper.make_node("Constant", [], ["row"], value=row),
        helper.make_node("Constant", [], ["1"], value=helper.make_tensor("1", TensorProto.INT64, [1], [1])),
        helper.make_node("Concat", ["rows", "1"], ["times"], axis=0),
        helper.make_node("Tile", ["row", "times"], ["probabilities"]),
        helper.make_node("Identity", ["age"], ["a"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    if classes:
        helper.set_model_props(model, {"classes": classes})
    data = model.SerializeToString()
    path.write_bytes(data)
    return sha256(data)


def manifest(folder: Path, digest: str, model: ResolvedModel | None = None) -> dict[str, Any]:
    packed = packed_import(folder / "m.onnx", digest, model or resolved("file:m.onnx", digest))
    files = unpack(packed, sha256(packed))
    assert files["model.onnx"] == (folder / "m.onnx").read_bytes()
    return dict(json.loads(files["model.json"]))


def test_a_classifiers_manifest_is_that_of_its_graph(tmp_path: Path) -> None:
    import onnxruntime

    digest = graph(tmp_path / "m.onnx")
    found = manifest(tmp_path, digest)
    bare = digest.removeprefix("sha256:")
    derived = {"format", "graph"}  # of the graph: tests/unit/importer
    said = {name: value for name, value in found.items() if value not in (None, [], {}, "") and name not in derived}
    assert said == {
        "name": "m",
        "task": "classification",
        "features": [
            {"name": "age", "type": "numeric", "dtype": "FP32"},
            {"name": "town", "type": "categorical", "dtype": "BYTES"},
        ],
        "inputs": ["age", "town"],
        "outputs": [
            {"name": "label", "dtype": "INT64", "shape": [-1]},
            {"name": "probabilities", "dtype": "FP32", "shape": [-1, 3]},
        ],
        "label": "label",
        "variant": "float",
        "lineage": {
            "dataset": "", "training": "imported", "code": bare, "versions": {"onnxruntime": onnxruntime.__version__},
        },
        "files": {"model.onnx": bare},
        "classes": [0, 1, 2],
        "settings": {"imported": True},
    }  # fmt: skip


def test_a_regressions_manifest_has_no_classes(tmp_path: Path) -> None:
    found = manifest(tmp_path, onnx_file(tmp_path / "m.onnx"))
    assert (found["task"], found["label"], found.get("classes", [])) == ("regression", "prediction", [])
    assert found["outputs"] == [{"name": "prediction", "dtype": "FP32", "shape": [-1]}]


@pytest.mark.parametrize("outcome", [{"label": "good"}, {"threshold": 0.25}])
def test_the_favourable_outcome_is_the_specs(tmp_path: Path, outcome: dict[str, object]) -> None:
    path = tmp_path / "m.onnx"
    kinds = {"labels": TensorProto.STRING, "classes": '["bad","good","fair"]'}
    digest = graph(path, **kinds) if "label" in outcome else onnx_file(path)  # type: ignore[arg-type]
    spec = resolved("file:m.onnx", digest).model_dump(by_alias=True, exclude_none=True)
    spec["spec"]["governance"] = {
        "bias": {
            "favorableOutcome": outcome,
            "protectedAttributes": [{"name": "age" if "label" in outcome else "a"}],
            "metrics": [{"name": "disparateImpactRatio", "thresholdLower": 0.8}],
        }
    }
    found = manifest(tmp_path, digest, ResolvedModel.model_validate(spec))
    assert (found.get("favorable"), found.get("threshold")) == (outcome.get("label"), outcome.get("threshold"))


def test_classes_are_those_that_the_file_lists(tmp_path: Path) -> None:
    digest = graph(tmp_path / "m.onnx", labels=TensorProto.STRING, classes='["bad","good",3]')
    assert manifest(tmp_path, digest)["classes"] == ["bad", "good", 3]
    digest = graph(tmp_path / "m.onnx", width=1)
    assert manifest(tmp_path, digest)["task"] == "tensors", "a lone column is nobody's probability"
    digest = graph(tmp_path / "m.onnx", labels=TensorProto.STRING)
    assert manifest(tmp_path, digest)["task"] == "tensors", "nobody says which column is whose"
    for wrong in ('["bad"]', '{"a":1}', "bad, good", "[[1]]"):
        digest = graph(tmp_path / "m.onnx", classes=wrong)
        with pytest.raises(MalformedArtefact, match=r"classes: expected (whole numbers|a JSON list of names)"):
            manifest(tmp_path, digest)


def test_columns_are_those_of_the_graph_whatever_their_type(tmp_path: Path) -> None:
    digest = graph(tmp_path / "m.onnx", kind=TensorProto.DOUBLE)
    assert [feature["dtype"] for feature in manifest(tmp_path, digest)["features"]] == ["FP64", "BYTES"]
    digest = onnx_file(tmp_path / "m.onnx", 1)
    assert manifest(tmp_path, digest)["inputs"] == ["a", "b"]
    digest = onnx_file(tmp_path / "m.onnx", 2)
    assert manifest(tmp_path, digest)["task"] == "tensors", "two numbers that no column names"
    digest = onnx_file(tmp_path / "m.onnx", 0)
    with pytest.raises(MalformedArtefact, match="input 'a': expected dimensions of 1 or more, found"):
        manifest(tmp_path, digest)


def test_what_is_no_model_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"text")
    with pytest.raises(
        MalformedArtefact, match=r"m\.onnx: ONNX file: expected a model as onnx\.save writes it, found 4"
    ):
        manifest(tmp_path, sha256(b"text"))
    digest = onnx_file(tmp_path / "m.onnx", output="label")
    with pytest.raises(
        MalformedArtefact, match="'label': expected whole numbers or strings for role label, found FP32"
    ):
        manifest(tmp_path, digest)


def test_of_a_folder_only_the_artefacts_files_are_taken(tmp_path: Path) -> None:
    digest = onnx_file(tmp_path / "m.onnx")
    packed = packed_import(tmp_path / "m.onnx", digest, resolved("file:m.onnx", digest))
    write(packed, tmp_path / "folder")
    (tmp_path / "folder").chmod(0o755)
    (tmp_path / "folder" / "notes.txt").write_text("x")
    whole = sha256(packed)
    assert packed_import(tmp_path / "folder", whole, resolved("file:folder", whole)) == packed
    assert onnx.load_from_string(unpack(packed, whole)["model.onnx"]).graph.name == "g"
