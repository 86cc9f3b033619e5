"""What is in folders, tars and lists that others made: safe names, regular files, no code; and the digest over them."""

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from governed_serving.sources import Differs, Refused, Tree
from governed_serving.sources.layers import unpack
from governed_serving.sources.names import safe, together

from .conftest import Fetcher

BAD_NAMES = ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a\0b", "a\nb", "a\\b", "a\u202eb",
             "e\u0301", "a/" * 40 + "b", "x" * 300, "\x7f"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_their_folder_or_have_two_readings(name: str) -> None:
    with pytest.raises(Refused, match="file name"):
        safe(name)


def test_good_names_stay() -> None:
    for name in ("model.onnx", "onnx/model.onnx", ".gitattributes", "収入/模型.onnx", "a b..c"):
        assert safe(name) == name


@pytest.mark.parametrize("names", [["A/x", "a/X"], ["a", "a/b"], ["x", "x"], ["Straße", "STRASSE"], ["a/b", "A"]])
def test_names_that_would_lie_on_one_another(names: list[str]) -> None:
    with pytest.raises(Refused):
        together(names)


def folder_of(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_the_root_digest_is_what_the_module_says(tmp_path: Path) -> None:
    tree = Tree.of(folder_of(tmp_path / "m", **{"b.txt": b"two", "a/z.txt": b"one", "B.bin": b""}))
    lines = [f"{hashlib.sha256(d).hexdigest()} {len(d)} {n}\n" for n, d in
             [("B.bin", b""), ("a/z.txt", b"one"), ("b.txt", b"two")]]  # fmt: skip
    assert tree.digest == f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    assert (tree.size, len(tree.files), tree.single) == (6, 3, False)


def test_it_is_said_which_file_differs(tmp_path: Path) -> None:
    tree = Tree.of(folder_of(tmp_path / "m", **{"a": b"one", "b": b"two"}))
    tree.check(tree.digest, {f.path: f"sha256:{f.sha256}" for f in tree.files}, "file:m")
    with pytest.raises(Differs, match=r"file:m: b has sha256:\w+, expected sha256:00: it is not served"):
        tree.check(tree.digest, {"b": "sha256:00"}, "file:m")
    with pytest.raises(Differs, match=r"found sha256:\w+ over 2 files \(a sha256:.*list files with their digests"):
        tree.check("sha256:00", {}, "file:m")


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "m", **{"a": b"one"})
    (root / "in").symlink_to("a")
    assert [f.path for f in Tree.of(root).files] == ["a", "in"]
    (root / "out").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="out: expected a regular file in its folder"):
        Tree.of(root)


def npz(value: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, a=value)
    return out.getvalue()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.pkl", b"any"), ("M.JOBLIB", b"any"), ("w.pt", b"any"), ("w.pth", b"any"), ("w.ckpt", b"any"),
        *((f"protocol{n}.bin", pickle.dumps({"a": 1}, n)) for n in (2, 3, 4, 5)),
        ("pytorch_model.bin", zipped(**{"archive/data.pkl": b"x", "archive/data/0": b"y"})),
        ("objects.npz", npz(np.array([{}], dtype=object))),
    ],
)  # fmt: skip
def test_pickles_are_refused_unread(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pickle, whose reading runs code"):
        Tree.of(folder_of(tmp_path / "m", **{name: data}))


def test_what_only_looks_like_one_is_taken(tmp_path: Path) -> None:
    files = {"a.bin": b"\x80\x04 no pickle", "b.npz": npz(np.zeros(3)), "c.zip": zipped(**{"../x": b"1"}), "d": b""}
    assert len(Tree.of(folder_of(tmp_path / "m", **files)).files) == 4
    assert not (tmp_path / "x").exists()


def tar_of(path: Path, *members: tuple[str, Any], zip: bool = True) -> Path:
    """``(name, bytes)`` for a file; else a TarInfo's type with a target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content
                tar.addfile(member)
    path.write_bytes(gzip.compress(out.getvalue()) if zip else out.getvalue())
    return path


@pytest.mark.parametrize("zip", [True, False])
def test_a_layer_gives_the_files_below_its_folder(zip: bool, tmp_path: Path) -> None:
    members = [("models", (tarfile.DIRTYPE, "")), ("models/a/m.onnx", b"one"), ("./models/b", b"two"), ("etc/x", b"3"),
               ("bin", (tarfile.SYMTYPE, "/usr/bin"))]  # fmt: skip
    assert unpack(tar_of(tmp_path / "t", *members, zip=zip), tmp_path / "out", "models", 100, "layer-0") == 6
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "a/m.onnx",
        "b",
    }


def test_layers_lie_on_one_another_as_images_do(tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack(
        tar_of(tmp_path / "1", ("models/a", b"1"), ("models/d/x", b"1"), ("models/e/x", b"1")), out, "models", 99, "l"
    )
    unpack(tar_of(tmp_path / "2", ("models/.wh.a", b""), ("models/d/x", b"22"), ("models/e/.wh..wh..opq", b"")), out,
           "models", 99, "l")  # fmt: skip
    assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == {"d/x": b"22"}


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("models/../../evil", b"x"), "inside the layer"),
        (("/models/evil", b"x"), "inside the layer"),
        (("models/a/../../../evil", b"x"), "inside the layer"),
        (("models/link", (tarfile.SYMTYPE, "/etc/passwd")), "symbolic link"),
        (("models/hard", (tarfile.LNKTYPE, "etc/passwd")), "hard link"),
        (("models/pipe", (tarfile.FIFOTYPE, "")), "device or pipe"),
        (("models/dev", (tarfile.CHRTYPE, "")), "device or pipe"),
        (("models/.wh...", b""), "file name"),
        (("models/big", b"x" * 5000), "more than 1000 bytes"),
    ],
)
def test_what_a_layer_must_not_hold(member: tuple[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=words):
        unpack(tar_of(tmp_path / "t", member), tmp_path / "out" / "models", "models", 1000, "layer-0")
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"t"}


def test_a_bomb_ends_also_where_it_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="unpacks to more"):
        unpack(tar_of(tmp_path / "t", ("etc/zeros", bytes(17 << 20))), tmp_path / "out", "models", 1000, "layer-0")


@pytest.mark.parametrize(
    "data",
    [b"", b"no tar" * 99, gzip.compress(b"no tar", mtime=0), gzip.compress(b"x" * 99, mtime=0)[:20]],
    ids=["nothing", "words", "words in gzip", "cut short"],
)
def test_what_is_no_tar_is_said_to_be_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(Refused, match="expected a tar"):
        unpack(tar := tmp_path / "t", tmp_path / "out", "", 1000, tar.name)


def test_local_files_are_pinned_where_they_lie(fetched: Fetcher) -> None:
    folder_of(fetched.folder / "m", **{"a.onnx": b"one", "b.pkl": b"x"})
    single = fetched("file:m/a.onnx")
    assert (single.digest, single.place) == (
        f"sha256:{hashlib.sha256(b'one').hexdigest()}",
        fetched.folder / "m/a.onnx",
    )
    assert [f.path for f in fetched("pvc://claim/m", files={"*.onnx": ""}).files] == ["a.onnx"]
    with pytest.raises(Refused, match="pickle"):
        fetched("pvc://claim/m")
    with pytest.raises(Refused, match="leaves the volume"):
        fetched("pvc://claim/../../etc")
    with pytest.raises(Refused, match=r"expected the file 'c\.onnx' of storage\.files"):
        fetched("file:m", files={"a.onnx": "", "c.onnx": ""})
