"""Damage that is always one. A byte of sealed, compressed or random data that is replaced by a fixed one stays what it
was once in 256 times, and the test fails once in 256 runs."""

__all__ = ["flipped"]


def flipped(data: bytes, place: int = -1) -> bytes:
    """The same with one bit of the byte at ``place`` changed. Raises IndexError where there is none."""
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)
