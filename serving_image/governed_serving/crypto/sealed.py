"""How ciphertext of ours is known: by its first bytes, so that plaintext can't be archived by mistake."""

from governed_serving.crypto.keyset import SEALED_BYTES

__all__ = ["JOURNAL_CHUNK", "is_sealed"]

JOURNAL_CHUNK = b"GMCHNK1\n"
_MAGICS = (SEALED_BYTES, JOURNAL_CHUNK)


def is_sealed(head: bytes) -> bool:
    """Whether bytes that begin with ``head`` (8 or more) are one of our ciphertext formats."""
    return head[:8] in _MAGICS
