"""The importer Job from end to end but for its neighbours: a server on loopback, an archive in memory, a report in a
file."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governed_api.resolved import ResolvedModel
from governed_serving.artefact import digest, load, write
from governed_serving.importer import job
from governed_serving.sources.download import Bounds
from unit.archive.test_imported import onnx_file
from unit.sources.servers import Answer, Bed, bed, ranged
from unit.sources.test_hubs import FILES, repository


class MemoryArchive:
    """Archive, keyring and cipher in one; what it has outlives a Job."""

    def __init__(self) -> None:
        self.refs: dict[str, Any] = {}
        self.blobs: dict[str, bytes] = {}
        self.entries: list[bytes] = []

    def __call__(self, *_: Any, **__: Any) -> "MemoryArchive":
        return self

    def __enter__(self) -> "MemoryArchive":
        return self

    def __exit__(self, *_: object) -> None: ...

    def keysets(self) -> "MemoryArchive":
        return self

    def keyset(self, purpose: str) -> "MemoryArchive":
        assert purpose == "artefact"
        return self

    def seal(self, data: bytes, about: bytes) -> bytes:
        assert about.decode() == digest(data)
        return data

    def ref(self, name: str) -> Any:
        return self.refs.get(name)

    def put_ref(self, name: str, value: Any) -> None:
        self.refs[name] = value

    def has_blob(self, address: str, *, ref: str) -> bool:
        return ref in self.refs and address in self.blobs

    def put_blob(self, sealed: bytes) -> str:
        address = hashlib.sha256(sealed).hexdigest()
        self.blobs[address] = sealed
        return address

    def append(self, _: str, entries: list[bytes]) -> int:
        self.entries += entries
        return len(self.entries)


class Site:
    def __init__(self, folder: Path, server: Bed, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.server, self.archive = folder, server, MemoryArchive()
        self._patch = patch
        for name in ("ArchiveClient", "Keyring"):
            patch.setattr(job, name, self.archive)
        patch.setattr(job, "load_kek", lambda _: None)
        patch.setattr(Bounds, "sleep", lambda *_: None)

    def run(self, uri: str, pinned: str, size: str = "1Gi", **storage: Any) -> int:
        model = {"storageUri": uri, "digest": pinned, "volumeSize": size, **({"storage": storage} if storage else {})}
        spec = {"predictor": {"model": model}}
        resolved = ResolvedModel.model_validate({"name": "m", "namespace": "default", "spec": spec})
        (self.folder / "spec.json").write_bytes(resolved.dump())
        for name, value in {
            "SPEC": self.folder / "spec.json", "REPORT": (self.folder / "report.json").as_uri(),
            "FETCH_DIR": self.folder / "fetched", "KEK_FILE": "k", "ARCHIVE_URL": "http://a",
            "ARCHIVE_TOKEN_FILE": self.folder / "spec.json",
        }.items():  # fmt: skip
            self._patch.setenv(f"GOVERNED_{name}", str(value))
        return job.run()

    @property
    def told(self) -> Any:
        document = json.loads((self.folder / "report.json").read_bytes())
        return document.get("status", document)["trainer"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with bed() as server:
        yield Site(tmp_path, server, monkeypatch)


def test_a_file_becomes_the_artefact_that_pods_take(site: Site, tmp_path: Path) -> None:
    pinned = onnx_file(tmp_path / "m.onnx")
    uri = site.server.at("/m.onnx", ranged((tmp_path / "m.onnx").read_bytes(), cut=50))
    assert site.run(uri, pinned) == 0
    assert (site.told["phase"], site.told["progress"]) == ("Succeeded", 1.0)
    found = site.told["artefact"]["digest"]
    write(site.archive.blobs[site.told["artefact"]["blob"]], tmp_path / "model", found)
    assert load(tmp_path / "model", found).manifest.task == "regression"
    entry = json.loads(site.archive.entries[0])
    assert entry["summary"] == {
        "imported": uri,
        "pinned": pinned,
        "files": [["m.onnx", (tmp_path / "m.onnx").stat().st_size, pinned.removeprefix("sha256:")]],
    }
    asked = len(site.server.asked)
    assert (site.run(uri, pinned), len(site.server.asked)) == (0, asked)  # once


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (Answer(b"other"), 65, "expected digest sha256:.*it is not served"),
        (Answer(status=403), 65, "give no right"),
        (Answer(status=404), 65, "nothing under this address"),
        (Answer(status=503), 1, "503"),
        (Answer(b"x" * ((1 << 20) + 1)), 65, "at most 1048576 are taken"),
    ],
)
def test_refusals_are_told_and_are_final_where_they_are(answer: Answer, code: int, words: str, site: Site) -> None:
    uri = site.server.at("/m.onnx", answer)
    assert site.run(uri, "sha256:" + "0" * 64, size="1Mi") == code
    assert site.told["phase"] == "Failed"
    assert re.search(words, site.told["message"])
    assert (site.archive.entries, site.archive.refs) == ([], {})


def test_what_is_no_model_is_refused(site: Site) -> None:
    data = b"text"
    uri = site.server.at("/m.onnx", Answer(data))
    assert site.run(uri, f"sha256:{hashlib.sha256(data).hexdigest()}") == 65
    assert site.told["phase"] == "Failed"


def test_a_folder_names_the_file_that_differs(site: Site, tmp_path: Path) -> None:
    pinned = onnx_file(tmp_path / "m.onnx")
    repository(site.server, {**FILES, "onnx/model.onnx": (tmp_path / "m.onnx").read_bytes()})
    config = {"path": "config.json", "digest": "sha256:" + "1" * 64}
    files = [config, {"path": "onnx/model.onnx", "digest": pinned}]
    assert site.run("hf://org/name@main", pinned, endpoint=site.server.url, files=files) == 65
    assert f"config.json has sha256:{hashlib.sha256(b'{}').hexdigest()}, expected sha256:111" in site.told["message"]
    one = "hf://org/name@main/onnx/model.onnx"
    assert site.run(one, pinned, endpoint=site.server.url) == 0
