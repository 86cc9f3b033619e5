"""Which verdict on each revision is the newest in the ledger: what the operator decides by, since the archive alone
writes its report, and every pod of a model may write the model's."""

import threading
from collections.abc import Iterable
from typing import get_args

import msgspec

from governed_api.base import VerdictWord
from governed_api.governance import BiasAction
from governed_api.report import RecordedVerdict
from governed_serving.archive.ledger.ledger import FoundEntry, Ledger
from governed_serving.decoding import decode_with
from governed_serving.records import VERDICT, LedgerEntry, is_bias_verdict

__all__ = ["MOST", "REVISIONS", "Verdicts", "recorded_verdict"]

MOST = 2000
"""Verdicts in a report, which is one object of the API server: below a megabyte."""
REVISIONS = 4
"""Of a model: stable, canary, and those that were before."""
_LOOKED_AT = 1024
"""Newest entries of a model, alarms among them, that are looked at after a start; later ones all are."""
_PAGE = 256
_REVISION_LENGTH = 63
_SUMMARY_LENGTH = 200
_ACTIONS = frozenset({*get_args(BiasAction), "None"})
_entry_decoder = msgspec.json.Decoder(LedgerEntry)


class Verdicts:
    """Of ``ledger``; ``models``: those that may have been judged before it was opened. Thread-safe."""

    def __init__(self, ledger: Ledger, models: Iterable[str]):
        self._ledger = ledger
        self._unread = set(models)
        self._found: dict[str, dict[str, RecordedVerdict]] = {}
        self._read: dict[str, int] = {}
        """By model, up to which index all is in ``_found``."""
        self.left_out = 0
        """Verdicts for which the last list had no room."""
        self._lock = threading.Lock()

    def newest(self, size: int) -> list[RecordedVerdict]:
        """Among the first ``size`` entries: what is under a checkpoint. Highest index first, at most :data:`MOST`.
        Raises LedgerDamaged, OSError."""
        with self._lock:
            self._unread |= self._ledger.take_judged()
            for model in sorted(self._unread):
                if self._look(model, size):
                    self._unread.discard(model)
            ranked = [
                (rank, -verdict.ledger_index, verdict)
                for revisions in self._found.values()
                for rank, verdict in enumerate(revisions.values())
            ]
            self.left_out = max(len(ranked) - MOST, 0)
        told = sorted(ranked, key=lambda one: one[:2])[:MOST]  # each model's newest before anyone's older ones
        return [verdict for *_, verdict in sorted(told, key=lambda one: one[1])]

    def _look(self, model: str, size: int) -> bool:
        """Whether all of it is under the checkpoint. Those of a model stand newest first."""
        entries, after = self._since(model), self._read.get(model, -1)
        newest: dict[str, RecordedVerdict] = {}
        for fetched in reversed(entries):
            entry = decode_with(_entry_decoder, fetched.entry)
            if fetched.index >= size or not is_bias_verdict(entry) or entry.revision in newest:
                continue
            if len(entry.revision) <= _REVISION_LENGTH:
                newest[entry.revision] = recorded_verdict(entry, fetched.index)
        older = {name: told for name, told in self._found.get(model, {}).items() if name not in newest}
        self._found[model] = dict([*newest.items(), *older.items()][:REVISIONS])
        self._read[model] = max((fetched.index for fetched in entries if fetched.index < size), default=after)
        return not entries or entries[-1].index < size

    def _since(self, model: str) -> list[FoundEntry]:
        """Entries behind what was read, ascending; after a start the newest ones."""
        after, pages, before = self._read.get(model), list[list[FoundEntry]](), None
        while sum(map(len, pages)) < _LOOKED_AT or after is not None:
            page_entries, rest = self._ledger.page(model, type=VERDICT, limit=_PAGE, before=before)
            pages.append(page_entries)
            if rest <= (after if after is not None else -1) + 1:
                break
            before = rest
        return [entry for page in reversed(pages) for entry in page if entry.index > (-1 if after is None else after)]


def recorded_verdict(entry: LedgerEntry, index: int) -> RecordedVerdict:
    """What an entry says that any token of the model may have written: a word that isn't one is Unknown, and an alarm
    that isn't told is in force where the verdict is Fail."""
    names = ("verdict", "samples", "inForce", "summary")
    said, samples, in_force, summary = (entry.summary.get(name) for name in names)
    words = summary[:_SUMMARY_LENGTH] if isinstance(summary, str) else ""
    return RecordedVerdict(
        model=entry.model,
        revision=entry.revision,
        ledger_index=index,
        verdict=said if said in get_args(VerdictWord) else "Unknown",
        samples=samples if isinstance(samples, int) and 0 <= samples < 2**53 else 0,
        in_force=in_force if isinstance(in_force, str) and in_force in _ACTIONS else "",
        summary="".join(c if c.isprintable() else " " for c in words),
    )
