"""The encrypted journal; see README.md."""

from governed_serving.journal.chunk import Chunk, chunk_of, frame_of_chunk, open_chunk
from governed_serving.journal.columns import numbers, strings
from governed_serving.journal.cursor import Cursor, CursorFiles, cursor_text, written_twice
from governed_serving.journal.errors import (
    JournalBusy,
    JournalClosed,
    JournalDamaged,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalStalled,
    RecordRefused,
)
from governed_serving.journal.format import RawFrame
from governed_serving.journal.reader import JournalReader, streams
from governed_serving.journal.salvage import Gap
from governed_serving.journal.segment import quarantine
from governed_serving.journal.writer import PROBE_SECONDS, Ack, Durability, Journal, JournalStats

__all__ = [
    "PROBE_SECONDS",
    "Ack",
    "Chunk",
    "Cursor",
    "CursorFiles",
    "Durability",
    "Gap",
    "Journal",
    "JournalBusy",
    "JournalClosed",
    "JournalDamaged",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalReader",
    "JournalStalled",
    "JournalStats",
    "RawFrame",
    "RecordRefused",
    "chunk_of",
    "cursor_text",
    "frame_of_chunk",
    "numbers",
    "open_chunk",
    "quarantine",
    "streams",
    "strings",
    "written_twice",
]
