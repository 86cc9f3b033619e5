"""The tree against the recursive definitions of RFC 6962 and the vectors that Certificate Transparency's logs are
tested with."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_serving.archive.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofError,
    hash_leaf,
    verify_consistency,
    verify_inclusion,
)
from governed_serving.archive.ledger.tiles import TiledTree, tile_path

LEAVES = [
    bytes.fromhex(x)
    for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (leaf index + 1, size) → path, from certificate-transparency-go's merkletree tests
PATHS = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (3, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = naive_split(len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1, word for word."""
    n = len(leaves)
    if n == 1:
        return []
    k = naive_split(n)
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], complete: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2, word for word."""
    n = len(leaves)
    if m == n:
        return [] if complete else [naive_root(leaves)]
    k = naive_split(n)
    if m <= k:
        return [*naive_subproof(m, leaves[:k], complete), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def grown(folder: Path, leaves: list[bytes]) -> TiledTree:
    tree = TiledTree(folder)
    tree.extend([hash_leaf(x) for x in leaves])
    return tree


def test_published_roots(tmp_path: Path) -> None:
    tree = TiledTree(tmp_path)
    assert tree.root_hash() == EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.append(hash_leaf(leaf))
        assert tree.root_hash().hex() == root
    assert [tree.root_hash(n).hex() for n in range(1, 9)] == ROOTS


def test_published_paths(tmp_path: Path) -> None:
    tree = grown(tmp_path, LEAVES)
    for (leaf, size), path in PATHS.items():
        assert [h.hex() for h in tree.inclusion(leaf - 1, size)] == path


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 1100), data=st.data())
def test_proofs_equal_the_rfcs_recursion(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    leaves = [i.to_bytes(3, "big") for i in range(size)]
    tree = grown(tmp_path_factory.mktemp("t"), leaves)
    at = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, at - 1))
    root, whole = naive_root(leaves[:at]), naive_root(leaves)
    assert tree.root_hash(at) == root
    inclusion = tree.inclusion(index, at)
    assert inclusion == naive_path(index, leaves[:at])
    verify_inclusion(hash_leaf(leaves[index]), index, at, inclusion, root)
    consistency = tree.consistency(at, size)
    assert consistency == naive_subproof(at, leaves, True)
    verify_consistency(at, size, consistency, root, whole)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(2, 600), data=st.data())
def test_a_changed_proof_is_refused(tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject) -> None:
    leaves = [i.to_bytes(3, "big") for i in range(size)]
    tree = grown(tmp_path_factory.mktemp("t"), leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion(index, size)
    leaf, root = hash_leaf(leaves[index]), tree.root_hash()
    spoilt = data.draw(st.integers(0, len(proof) - 1))
    changed = [*proof[:spoilt], bytes(32), *proof[spoilt + 1 :]]
    for bad in (changed, proof[:-1], [*proof, bytes(32)]):
        with pytest.raises(ProofError):
            verify_inclusion(leaf, index, size, bad, root)
    with pytest.raises(ProofError):
        verify_inclusion(hash_leaf(b"other"), index, size, proof, root)
    first = data.draw(st.integers(1, size - 1))
    proof = tree.consistency(first, size)
    with pytest.raises(ProofError):
        verify_consistency(first, size, proof, bytes(32), root)
    with pytest.raises(ProofError):
        verify_consistency(first, size, [*proof, bytes(32)], tree.root_hash(first), root)
    with pytest.raises(ProofError):
        verify_consistency(first, size, proof[:-1], tree.root_hash(first), root)


def test_cut_tail_and_fork_have_names(tmp_path: Path) -> None:
    tree = grown(tmp_path, LEAVES)
    with pytest.raises(ProofError, match="tail was cut"):
        verify_consistency(8, 7, [], tree.root_hash(8), tree.root_hash(7))
    with pytest.raises(ProofError, match="forked"):
        verify_consistency(8, 8, [], tree.root_hash(8), bytes(32))


def test_a_tree_goes_on_from_size_and_edge(tmp_path: Path) -> None:
    leaves = [hash_leaf(i.to_bytes(3, "big")) for i in range(70_000)]
    whole = TiledTree(tmp_path / "a")
    whole.extend(leaves)
    first = TiledTree(tmp_path / "b")
    first.extend(leaves[:66_000])
    second = TiledTree(tmp_path / "b", first.size, first.edge)
    second.extend(leaves[66_000:])
    assert second.root_hash() == whole.root_hash()
    assert second.inclusion(12, 70_000) == whole.inclusion(12, 70_000)
    assert sum(len(e) for e in whole.edge) < 3 * 256 * 32


@pytest.mark.parametrize(
    ("arguments", "path"),
    [((0, 0), "0/000"), ((0, 1234067), "0/x001/x234/067"), ((3, 7, 12), "3/007.p/12"), ((1, 256123), "1/x256/123")],
)
def test_tile_paths_are_those_of_c2sp(arguments: tuple[int, ...], path: str) -> None:
    assert tile_path(*arguments) == path


def test_partial_tiles_and_sizes_beyond(tmp_path: Path) -> None:
    tree = grown(tmp_path, LEAVES)
    assert tree.tile(0, 0, 8) == b"".join(hash_leaf(x) for x in LEAVES)
    with pytest.raises(KeyError, match="beyond"):
        tree.tile(0, 0, 9)
    with pytest.raises(ValueError, match="at most 8"):
        tree.inclusion(0, 9)


# -- small trees, wholly -----------------------------------------------------------------------------------------------

SMALL = range(1, 18)


def small(size: int) -> list[bytes]:
    return [i.to_bytes(3, "big") for i in range(size)]


def refused(verify: Callable[..., None], *arguments: object) -> bool:
    try:
        verify(*arguments)
    except ProofError:
        return True
    return False


def spoilt(proof: list[bytes]) -> list[list[bytes]]:
    """Every way in which a proof differs a little: a hash of another value, one less, one more, two that changed
    places."""
    ways = [[*proof[:i], bytes(32), *proof[i + 1 :]] for i in range(len(proof))]
    ways += [[*proof[:i], *proof[i + 1 :]] for i in range(len(proof))]
    ways += [[*proof[:i], bytes(32), *proof[i:]] for i in range(len(proof) + 1)]
    return [*ways, [*proof, proof[-1]], proof[::-1]] if len(proof) > 1 else ways


def test_a_frontier_has_the_root_of_each_size() -> None:
    tree = Frontier()
    assert tree.root() == EMPTY_ROOT
    for size in SMALL:
        tree.append(hash_leaf(small(size)[-1]))
        assert (tree.size, tree.root()) == (size, naive_root(small(size)))


@pytest.mark.parametrize("size", SMALL)
def test_every_inclusion_is_proved_and_nothing_else(tmp_path: Path, size: int) -> None:
    leaves = small(size)
    tree, root = grown(tmp_path, leaves), naive_root(leaves)
    for index in range(size):
        proof, leaf = naive_path(index, leaves), hash_leaf(leaves[index])
        assert tree.inclusion(index, size) == proof
        verify_inclusion(leaf, index, size, proof, root)
        for other in spoilt(proof):
            assert other == proof or refused(verify_inclusion, leaf, index, size, other, root)
        assert refused(verify_inclusion, leaf, index, size, proof, bytes(32))
        assert refused(verify_inclusion, bytes(32), index, size, proof, root)
        for wrong in {*range(-1, size + 2)} - {index}:
            assert refused(verify_inclusion, leaf, wrong, size, proof, root), (index, wrong)
    for outside in (-1, size, size + 1):
        with pytest.raises(ProofError, match=f"index {outside} is outside a tree of {size}"):
            verify_inclusion(hash_leaf(leaves[0]), outside, size, [], root)
        with pytest.raises(
            ValueError, match=f"index must be from 0 to {size - 1} in a tree of {size}, found {outside}"
        ):
            tree.inclusion(outside, size)


@pytest.mark.parametrize("second", SMALL)
def test_every_prefix_is_proved_and_nothing_else(tmp_path: Path, second: int) -> None:
    leaves = small(second)
    tree, root = grown(tmp_path, leaves), naive_root(leaves)
    for first in range(1, second + 1):
        proof, before = naive_subproof(first, leaves, True), naive_root(leaves[:first])
        assert tree.consistency(first, second) == proof
        verify_consistency(first, second, proof, before, root)
        for other in spoilt(proof):
            assert other == proof or refused(verify_consistency, first, second, other, before, root)
        assert refused(verify_consistency, first, second, proof, bytes(32), root)
        assert refused(verify_consistency, first, second, proof, before, bytes(32))
        assert refused(verify_consistency, first, second, [], before, root) == (first != second)
        assert refused(verify_consistency, second + 1, second, proof, before, root)
    for first in (-1, 0, second + 1):
        with pytest.raises(ValueError, match=f"1 ≤ first ≤ second, found first={first}, second={second}"):
            tree.consistency(first, second)


def test_what_is_a_prefix_of_what_when_there_was_nothing() -> None:
    one = hash_leaf(b"")
    for size, root in ((0, EMPTY_ROOT), (1, one), (7, bytes(32))):
        verify_consistency(0, size, [], EMPTY_ROOT, root)
        assert refused(verify_consistency, 0, size, [one], EMPTY_ROOT, root)
        assert refused(verify_consistency, 0, size, [], one, root)
    assert refused(verify_consistency, 1, 1, [one], one, one)
    assert refused(verify_consistency, 1, 0, [], one, EMPTY_ROOT)
