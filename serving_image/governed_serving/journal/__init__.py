"""The encrypted journal; see README.md."""

from governed_serving.journal.chunk import Chunk, open_chunk
from governed_serving.journal.columns import numbers, strings
from governed_serving.journal.cursor import Cursor, CursorFiles
from governed_serving.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalDamaged,
    JournalError,
    JournalFull,
    JournalLocked,
    RecordRefused,
)
from governed_serving.journal.format import RawFrame
from governed_serving.journal.reader import JournalReader, streams
from governed_serving.journal.writer import Ack, Durability, Journal, JournalStats

__all__ = [
    "Ack",
    "Chunk",
    "Cursor",
    "CursorFiles",
    "Durability",
    "Journal",
    "JournalBusy",
    "JournalClosed",
    "JournalDamaged",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalReader",
    "JournalStats",
    "RawFrame",
    "RecordRefused",
    "numbers",
    "open_chunk",
    "streams",
    "strings",
]
