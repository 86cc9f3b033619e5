"""The tree on disk at the ends of its tiles: what is written, handed out, remembered, and made anew."""

from itertools import product
from pathlib import Path

import pytest

from governed_serving.archive.errors import LedgerDamaged
from governed_serving.archive.ledger import tiles
from governed_serving.archive.ledger.merkle import Frontier, hash_leaf
from governed_serving.archive.ledger.tiles import TiledTree, tile_path

LEAVES = [hash_leaf(i.to_bytes(3, "big")) for i in range(66_100)]
NOTHING = Frontier().root()


def naive(leaves: list[bytes]) -> bytes:
    tree = Frontier()
    for one in leaves:
        tree.append(one)
    return tree.root()


def written(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("number", "width", "path"),
    [
        (0, 256, "3/000"),
        (7, 1, "3/007.p/1"),
        (999, 256, "3/999"),
        (1000, 256, "3/x001/000"),
        (1_234_067, 255, "3/x001/x234/067.p/255"),
        (999_999, 256, "3/x999/999"),
        (1_998_000, 256, "3/x001/x998/000"),
        (5_000_000_000, 256, "3/x005/x000/x000/000"),
    ],
)
def test_a_tile_lies_where_tlog_tiles_has_it(number: int, width: int, path: str) -> None:
    """https://c2sp.org/tlog-tiles: three digits at a time, all but the last behind an x."""
    assert tile_path(3, number, width) == path


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 513])
def test_a_tile_is_written_when_it_is_full(tmp_path: Path, size: int) -> None:
    tree = TiledTree(tmp_path)
    tree.extend(LEAVES[:size])
    full = size // 256
    assert written(tmp_path) == {f"0/{n:03d}": b"".join(LEAVES[256 * n : 256 * n + 256]) for n in range(full)}
    roots = [naive(LEAVES[256 * n : 256 * n + 256]) for n in range(full)]
    rest = [b"".join(LEAVES[256 * full : size]), b"".join(roots)]
    assert tree.edge == rest[: bool(size) + bool(full)]
    assert tree.size == size
    again = TiledTree(tmp_path, size, tree.edge)
    for one in (tree, again):
        assert one.root_hash() == naive(LEAVES[:size])
        assert [one.tile(0, full, width) for width in range(size % 256 + 1)] == [
            b"".join(LEAVES[256 * full : 256 * full + width]) for width in range(size % 256 + 1)
        ]
        for level, number, width in ((0, full, size % 256 + 1), (0, full + 1, 1), (1, 0, full + 1), (2, 0, 1)):
            with pytest.raises(KeyError, match=f"is beyond a tree of {size} entries"):
                one.tile(level, number, width)
        assert [one.tile(1, 0, width) for width in range(full + 1)] == [b"".join(roots[:w]) for w in range(full + 1)]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 65_792])
def test_the_level_above_is_written_when_it_is_full(tmp_path: Path, size: int) -> None:
    tree = TiledTree(tmp_path)
    tree.extend(LEAVES[:size])
    low, high = size >> 8, size >> 16
    assert set(written(tmp_path)) == {*(f"0/{n:03d}" for n in range(low)), *(["1/000"] if high else [])}
    assert [len(e) // 32 for e in tree.edge] == [size % 256, low % 256, 1][: 2 + high]
    if high:
        assert written(tmp_path)["1/000"] == b"".join(naive(LEAVES[256 * n : 256 * n + 256]) for n in range(256))
        assert tree.edge[2] == tree.node(16, 0) == naive(LEAVES[:65_536])
    again = TiledTree(tmp_path, size, tree.edge)
    for known in {1, 255, 256, 257, 65_535, size - 1, size}:
        assert again.root_hash(known) == naive(LEAVES[:known]), known


def test_every_complete_node_is_the_root_of_its_leaves(tmp_path: Path) -> None:
    tree = TiledTree(tmp_path)
    tree.extend(LEAVES[:1100])
    for height in range(12):
        width = 1 << height
        for index in range(1100 // width):
            assert tree.node(height, index) == naive(LEAVES[index * width : (index + 1) * width]), (height, index)
        for index in (1100 // width, 1100 // width + 1, 2000 // width + 1):
            with pytest.raises(ValueError, match=rf"node \({height}, {index}\) is not complete in a tree of 1100"):
                tree.node(height, index)


def test_proofs_reach_to_the_size_and_no_further(tmp_path: Path) -> None:
    tree = TiledTree(tmp_path)
    tree.extend(LEAVES[:5])
    assert len(tree.inclusion(4, 5)) == 1
    assert tree.consistency(5, 5) == []
    with pytest.raises(ValueError, match="size must be at most 5, the entries there are, found 6"):
        tree.inclusion(0, 6)
    with pytest.raises(ValueError, match="size must be at most 5"):
        tree.consistency(1, 6)


def test_256_tiles_are_remembered_those_that_were_used_last(tmp_path: Path) -> None:
    tree = TiledTree(tmp_path)
    tree.extend(LEAVES[: 257 * 256])
    tree = TiledTree(tmp_path, tree.size, tree.edge)
    for number in range(256):
        tree.node(0, number * 256)
    last = (tmp_path / "0" / "256").read_bytes()
    for path in (tmp_path / "0").iterdir():
        path.unlink()
    for number in (*range(256), 0):
        assert tree.node(0, number * 256) == LEAVES[number * 256]
    (tmp_path / "0" / "256").write_bytes(last)
    assert tree.node(0, 65_536) == LEAVES[65_536]
    for number in (0, *range(2, 257)):
        tree.node(0, number * 256)
    with pytest.raises(FileNotFoundError):
        tree.node(0, 256)


def test_each_full_tile_is_made_durable_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    for name in ("fsync_file", "fsync_folder"):
        monkeypatch.setattr(tiles, name, lambda path, name=name: done.append((name, path.relative_to(tmp_path).name)))
    tree = TiledTree(tmp_path)
    tree.extend(LEAVES[:513])
    assert done == []
    tree.sync()
    assert done == [("fsync_file", "000"), ("fsync_file", "001"), ("fsync_folder", "0")]
    done.clear()
    tree.sync()
    assert done == []
    tree.extend(LEAVES[513:768])
    tree.sync()
    assert done == [("fsync_file", "002"), ("fsync_folder", "0")]


# -- held against the entries ------------------------------------------------------------------------------------------


class Log:
    """The leaf hashes that the entries have, and what was told to be mended."""

    def __init__(self, root: Path, size: int) -> None:
        self.root, self.leaves, self.mended = root, LEAVES[:size], []  # type: ignore[var-annotated]
        first = TiledTree(root)
        first.extend(self.leaves)
        self.whole, self.edge = written(root), first.edge

    def tree(self) -> TiledTree:
        return TiledTree(
            self.root,
            len(self.leaves),
            self.edge,
            leaves=lambda start, end: self.leaves[start:end],
            mended=self.mended.append,
        )

    def spoil(self, name: str, how: str = "flip") -> None:
        path = self.root / name
        data = path.read_bytes()
        match how:
            case "flip":
                path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
            case "flip its end":
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            case "cut":
                path.write_bytes(data[:-1])
            case "longer":
                path.write_bytes(data + data[:32])
            case "delete":
                path.unlink()


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """More than a tile of the second level."""
    return Log(tmp_path_factory.mktemp("tree"), 66_100)


HARMS = ("flip", "flip its end", "cut", "longer", "delete")


@pytest.mark.parametrize(
    ("names", "how"),
    [*product([["0/000"], ["0/001"], ["0/255"], ["0/256"], ["1/000"]], HARMS), (["1/000", "0/007"], "flip")],
)
def test_a_spoilt_tile_is_made_anew_as_it_is_read(grown: Log, names: list[str], how: str) -> None:
    tree = grown.tree()
    for name in names:
        grown.spoil(name, how)
    for name in names:
        level, number = map(int, name.split("/"))
        assert tree.tile(level, number) == grown.whole[name]
    assert sorted(grown.mended) == sorted(names)
    grown.mended.clear()
    assert written(grown.root) == grown.whole
    tree.sync()
    assert tree.root_hash() == naive(LEAVES)
    assert grown.mended == []


def test_a_tile_is_made_of_those_below_it_without_reading_the_log(grown: Log) -> None:
    tree, kept = grown.tree(), grown.leaves
    grown.spoil("1/000")
    grown.leaves = []
    try:
        assert tree.tile(1, 0) == grown.whole["1/000"]
    finally:
        grown.leaves = kept
    assert grown.mended == ["1/000"]
    grown.mended.clear()


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("0/000", 255, "entries 0 to 255 don't make"),
        ("0/001", 256, "entries 256 to 511 don't make"),
        ("0/256", 65_536, "entries 65536 to 65791 don't make"),
        ("1/000", 65_535, "entries 0 to 65535 don't make"),
    ],
)
def test_a_changed_log_makes_no_tile(grown: Log, name: str, entry: int, words: str) -> None:
    kept = grown.leaves
    grown.leaves = [*kept[:entry], bytes(32), *kept[entry + 1 :]]
    below = f"0/{entry // 256:03d}"
    spoilt = {name, below}
    try:
        for one in spoilt:
            grown.spoil(one)
        level, number = map(int, name.split("/"))
        with pytest.raises(LedgerDamaged, match=f"^{words}") as damaged:
            grown.tree().tile(level, number)
        assert damaged.value.index == int(words.split()[1])
        assert written(grown.root)[name] != grown.whole[name], "nothing is put in its place"
    finally:
        grown.leaves = kept
        for one in spoilt:
            (grown.root / one).write_bytes(grown.whole[one])
        grown.mended.clear()


@pytest.mark.parametrize("size", [257, 512, 65_536, 65_792])
def test_every_tile_fits_below_the_edge_or_the_tile_above(tmp_path: Path, size: int) -> None:
    log = Log(tmp_path, size)
    for name in log.whole:
        log.spoil(name)
    tree = log.tree()
    for name in log.whole:
        level, number = map(int, name.split("/"))
        assert tree.tile(level, number) == log.whole[name]
    assert sorted(log.mended) == sorted(log.whole)
    assert written(tmp_path) == log.whole


def test_a_look_at_the_disk_mends_what_is_known_from_before(grown: Log) -> None:
    tree = grown.tree()
    for name in ("0/003", "1/000"):
        level, number = map(int, name.split("/"))
        assert tree.check(level, number)
        grown.spoil(name)
        assert tree.tile(level, number) == grown.whole[name], "from memory"
        assert grown.mended == []
        assert not tree.check(level, number)
        assert grown.mended == [name]
        assert written(grown.root) == grown.whole
        assert tree.check(level, number)
        grown.mended.clear()


def test_tiles_are_taken_as_they_are_where_there_are_no_entries(grown: Log) -> None:
    tree = TiledTree(grown.root, len(LEAVES), grown.edge)
    grown.spoil("0/009")
    try:
        assert tree.tile(0, 9) != grown.whole["0/009"]
    finally:
        (grown.root / "0" / "009").write_bytes(grown.whole["0/009"])
