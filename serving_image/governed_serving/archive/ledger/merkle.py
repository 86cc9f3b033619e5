"""The RFC 6962 Merkle tree: hashes, proofs and their verification. Pure; where node hashes live is the caller's
business.

A *node* is named (height, index): the root of the complete subtree over leaves [index·2^height, (index+1)·2^height).
Everything a proof needs is made of complete nodes, so a proof reads O(log n) of them.
"""

import hashlib
from collections.abc import Callable, Sequence

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "NodeReader",
    "ProofError",
    "consistency_proof",
    "hash_children",
    "hash_leaf",
    "inclusion_proof",
    "tree_root",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of a tree without leaves (RFC 6962 §2.1)."""

NodeReader = Callable[[int, int], bytes]
"""(height, index) → 32-byte hash of a complete node."""


class Frontier:
    """Root of a growing tree in O(log n) memory: the roots of its complete subtrees, left to right."""

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        rest, node = self.size, leaf
        while rest & 1:
            node = hash_children(self._roots.pop(), node)
            rest >>= 1
        self._roots.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Root over all leaves so far."""
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = hash_children(left, root)
        return root


class ProofError(ValueError):
    """A proof doesn't lead to the root that it should."""


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry), 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right), 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(width: int) -> int:
    """Largest power of two smaller than ``width`` (≥ 2)."""
    return 1 << ((width - 1).bit_length() - 1)


def _range_root(node: NodeReader, start: int, end: int) -> bytes:
    """MTH(D[start:end]) where start is a multiple of the largest power of two within the range."""
    width = end - start
    if width & (width - 1) == 0:
        height = width.bit_length() - 1
        return node(height, start >> height)
    middle = start + _split(width)
    return hash_children(_range_root(node, start, middle), _range_root(node, middle, end))


def tree_root(node: NodeReader, size: int) -> bytes:
    """Root of the tree over the first ``size`` leaves."""
    return _range_root(node, 0, size) if size else EMPTY_ROOT


def inclusion_proof(node: NodeReader, index: int, size: int) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 §2.1.1, leaf's sibling first.

    Raises ValueError unless 0 ≤ index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"index must be from 0 to {size - 1} in a tree of {size}, found {index}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(node, middle, end))
            end = middle
        else:
            path.append(_range_root(node, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(node: NodeReader, first: int, second: int) -> list[bytes]:
    """PROOF(first, D[second]) of RFC 6962 §2.1.2. Raises ValueError unless 1 ≤ first ≤ second."""
    if not 1 <= first <= second:
        raise ValueError(f"sizes must satisfy 1 ≤ first ≤ second, found first={first}, second={second}")
    proof: list[bytes] = []
    start, end, complete = 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            proof.append(_range_root(node, middle, end))
            end = middle
        else:
            proof.append(_range_root(node, start, middle))
            start, complete = middle, False
    if not complete:
        proof.append(_range_root(node, start, end))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf`` (a leaf hash) is at ``index`` of the tree of ``size`` with ``root`` (RFC 9162 §2.1.3.2).

    Raises :class:`ProofError`.
    """
    if not 0 <= index < size:
        raise ProofError(f"index {index} is outside a tree of {size}")
    node, last, root_hash = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node & 1 or node == last:
            root_hash = hash_children(step, root_hash)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root_hash = hash_children(root_hash, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the inclusion proof is too short")
    if root_hash != root:
        raise ProofError(
            f"the inclusion proof of entry {index} leads to root {root_hash.hex()}, the checkpoint says {root.hex()}"
        )


def verify_consistency(first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> None:
    """Check that the tree of ``first`` leaves is a prefix of the tree of ``second`` (RFC 9162 §2.1.4.2).

    Raises :class:`ProofError`: the log was cut, forked or rewritten.
    """
    if first > second:
        raise ProofError(f"the earlier tree has {first} entries, the later one only {second}: its tail was cut")
    if first == 0:
        if proof or first_root != EMPTY_ROOT:
            raise ProofError("an empty tree has the empty proof and the hash of nothing as root")
        return
    if first == second:
        if proof or first_root != second_root:
            raise ProofError(f"two trees of {first} entries have different roots: the log forked")
        return
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise ProofError("the consistency proof is empty")
    _walk_consistency(first - 1, second - 1, path, first_root, second_root)


def _walk_consistency(node: int, last: int, path: list[bytes], first_root: bytes, second_root: bytes) -> None:
    while node & 1:
        node, last = node >> 1, last >> 1
    older = newer = path[0]
    for step in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node & 1 or node == last:
            older, newer = hash_children(step, older), hash_children(step, newer)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            newer = hash_children(newer, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError("the consistency proof is too short")
    if older != first_root or newer != second_root:
        raise ProofError("the earlier checkpoint is no prefix of the later one: the log forked or was rewritten")
