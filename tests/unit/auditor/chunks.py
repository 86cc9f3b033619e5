"""Archives as small as a test of one step needs them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from governed_serving.crypto import SegmentCipher
from governed_serving.journal import Journal, JournalReader
from governed_serving.journal.chunk import chunk_identity
from governed_serving.records import EventRecord, Frame, timestamp


class OneChunk:
    """As much of the archive's client as a review needs."""

    def __init__(self, model: str, data: bytes) -> None:
        self.model, self._data = model, data

    def get_blob(self, _: str, *, entry: int) -> bytes:
        assert entry >= 0
        return self._data


class Ledger:
    """Knows one request: its prediction, its labels and their corrections, in the order in which they were added; each
    is a chunk of its own."""

    def __init__(self, cipher: SegmentCipher, root: Path, request: str = "request-1") -> None:
        self.cipher, self.root, self.request = cipher, root, request
        self.entries: list[dict[str, Any]] = []
        self.blobs: dict[str, bytes] = {}

    def add(self, record: Frame) -> str:
        """Identity of the chunk's stream."""
        stream = f"server-{len(self.entries)}"
        with Journal(self.root, stream, self.cipher, "PageCache") as journal:
            journal.append_blocking(record)
        chunk = JournalReader(self.root, stream, self.cipher).chunk(0)
        assert chunk is not None
        self.blobs[chunk.digest] = chunk.data
        fields = {"type": record.type if isinstance(record, EventRecord) else "prediction", "revision": "r1"}
        fields |= {"time": timestamp(record.time if isinstance(record, EventRecord) else 1.0)}
        fields |= {"summary": record.summary} if isinstance(record, EventRecord) else {}
        self.entries.append({**fields, "blob": chunk.digest, "frame": 0, "index": 0})
        return chunk_identity(chunk.data)

    def find_all(self, *, id: str, type: str) -> list[Any]:
        assert id == self.request
        found = [SimpleNamespace(index=i, fields=lambda one=one: one) for i, one in enumerate(self.entries)]
        return [one for one in found if one.fields()["type"] == type]

    def get_blob(self, address: str, *, entry: int) -> bytes:
        assert entry >= 0
        return self.blobs[address]
