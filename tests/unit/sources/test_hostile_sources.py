"""What a hostile server or folder does to our memory, time and logs: bounded before it is read."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from governed_api.json_types import Json
from governed_serving.sources import hub as hubs
from governed_serving.sources import layers, objects, pickles, tree
from governed_serving.sources.errors import Refused
from governed_serving.sources.hub import Hub
from governed_serving.sources.layers import unpack
from governed_serving.sources.objects import Objects
from governed_serving.sources.pickles import refuse_pickle
from governed_serving.sources.source import Access
from governed_serving.sources.tree import Tree
from governed_serving.sources.web import Web

PEAK = 64 << 20


@pytest.fixture
def bounded() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < PEAK, f"{peak >> 20} MiB"


def header(kind: bytes, size: int) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "kind",
    [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE],
    ids=["long name", "long link", "pax", "global pax", "solaris pax"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.usefixtures("bounded")
def test_a_header_that_unpacks_to_gigabytes_is_not_read(tmp_path: Path, kind: bytes, packed: bool) -> None:
    data = header(kind, 8 << 30) + bytes(4 << 20)
    (tmp_path / "layer").write_bytes(gzip.compress(data, 1) if packed else data)
    with pytest.raises(Refused, match="claims 8589934592 bytes"):
        unpack(tmp_path / "layer", tmp_path / "into", "", 1 << 30, "layer")


def test_members_that_are_passed_over_are_counted_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "layer", "w") as tar:
        for number in range(300):
            tar.addfile(tarfile.TarInfo(f"usr/{number}"))
    assert unpack(tmp_path / "layer", tmp_path / "into", "models", 1 << 20, "layer") == 0
    monkeypatch.setattr(layers, "MOST_MEMBERS", 299)
    with pytest.raises(Refused, match="more than 299 members"):
        unpack(tmp_path / "layer", tmp_path / "into", "models", 1 << 20, "layer")


def test_ordinary_long_names_and_many_files_are_taken(tmp_path: Path) -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "layer", "w", format=format) as tar:
            for number in range(50):
                entry = tarfile.TarInfo(f"models/{'d' * 120}/{number}-é.json")
                entry.size = 3
                tar.addfile(entry, io.BytesIO(b"abc"))
        into = tmp_path / str(format)
        assert unpack(tmp_path / "layer", into, "models", 1 << 20, "layer") == 150
        assert len(list(into.rglob("*.json"))) == 50


@pytest.mark.parametrize("large", [False, True], ids=["zip", "zip64"])
@pytest.mark.usefixtures("bounded")
def test_a_zip_archive_s_directory_of_gigabytes_is_not_read(tmp_path: Path, large: bool) -> None:
    size = 4 << 30
    if large:
        record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1 << 26, 1 << 26, size, 4)
        end = record + b"PK\x06\x07" + struct.pack("<IQI", 0, size, 1) + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"
    else:
        end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, size - 1, 4, 0)
    with (tmp_path / "model.zip").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(end)
    with pytest.raises(Refused, match="ZIP directory"):
        refuse_pickle(tmp_path / "model.zip", "model.zip")


def test_ordinary_archives_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, member, refused in (("good.npz", "a.npy", False), ("bad.zip", "x/data.pkl", True)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.comment = b"PK\x05" * 40
            archive.writestr(member, b"\x93NUMPY'<f4'")
        if refused:
            with pytest.raises(Refused, match="pickle"):
                refuse_pickle(tmp_path / name, name)
        else:
            refuse_pickle(tmp_path / name, name)
    monkeypatch.setattr(pickles, "MOST_DIRECTORY", 40)
    with pytest.raises(Refused, match="ZIP directory"):
        refuse_pickle(tmp_path / "good.npz", "good.npz")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@s3.example.com/bucket", "https://hunter2@s3.example.com", "http://a:hunter2@store/x",
        "https://u:p@hunter2@s3.example.com/", "https://s3.example.com/ x?sig=hunter2", "https://user:hunter2@[::1]/x",
    ],
)  # fmt: skip
def test_a_password_in_an_endpoint_is_refused_and_told_to_nobody(url: str) -> None:
    with pytest.raises(Refused, match="without user and password") as caught:
        Web(url)
    assert "hunter2" not in str(caught.value)


class Endless(Web):
    """A hub whose list has always one page more."""

    def __init__(self, page: Json) -> None:
        super().__init__("https://huggingface.co")
        self.page, self.asked = page, 0

    def json(self, url: str, *_: object) -> tuple[Json, Mapping[str, str]]:  # type: ignore[override]
        self.asked += 1
        if "/revision/" in url:
            return {"sha": "abc"}, {}
        return self.page, {"link": '</api/models/o/n/tree/abc?cursor=x>; rel="next"'}


@pytest.mark.parametrize("page", [[{"type": "directory"}], {"error": "none"}, "text"], ids=["a list", "a map", "text"])
def test_a_hub_s_list_that_never_ends(page: Json) -> None:
    web = Endless(page)
    with pytest.raises(Refused, match="expected a list of files"):
        Hub("hf://o/n@main", Access(), web).files(lambda _: True)
    assert web.asked <= hubs.MOST_PAGES + 1


def test_a_folder_with_more_files_than_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_LISTED", 5)
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("x")
    with pytest.raises(Refused, match="at most 5 files"):
        Tree.of(tmp_path, wanted=lambda name: name == "0.txt")


def test_a_bucket_with_more_objects_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    for number in range(6):
        obstore.put(store, f"m/{number}.txt", b"x")
    source = Objects("s3://bucket/m", Access())
    source._store = store
    assert len(source.files(lambda name: name < "3")) == 3
    monkeypatch.setattr(objects, "MOST_LISTED", 5)
    with pytest.raises(Refused, match="at most 5 objects"):
        source.files(lambda name: name == "0.txt")
