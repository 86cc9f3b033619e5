"""Which verdict on each revision is the newest in the ledger: what the operator decides by, since the archive alone
writes its report, and every pod of a model may write the model's."""

import threading
from collections.abc import Iterable
from typing import get_args

import msgspec

from governed_api.base import VerdictWord
from governed_api.governance import BiasAction
from governed_api.report import RecordedVerdict
from governed_serving.archive.ledger.ledger import Ledger
from governed_serving.decoding import decode_with
from governed_serving.records import VERDICT, LedgerEntry, is_bias_verdict

__all__ = ["MOST", "REVISIONS", "Verdicts", "recorded_verdict"]

MOST = 2000
"""Verdicts in a report, which is one object of the API server: below a megabyte."""
REVISIONS = 4
"""Of a model: stable, canary, and those that were before."""
_LOOKED_AT = 256
"""Newest entries of a model, alarms among them: a verdict is renewed every five minutes."""
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
        self._lock = threading.Lock()

    def newest(self, size: int) -> list[RecordedVerdict]:
        """Among the first ``size`` entries: what is under a checkpoint. Highest index first, at most :data:`MOST`.
        Raises LedgerDamaged, OSError."""
        with self._lock:
            self._unread |= self._ledger.take_judged()
            for model in sorted(self._unread):
                if self._look(model, size):
                    self._unread.discard(model)
            found = [verdict for revisions in self._found.values() for verdict in revisions.values()]
        return sorted(found, key=lambda verdict: -verdict.ledger_index)[:MOST]

    def _look(self, model: str, size: int) -> bool:
        """Whether all of it is under the checkpoint."""
        newest: dict[str, RecordedVerdict] = {}
        entries = self._ledger.find(model, type=VERDICT, limit=_LOOKED_AT)
        for found in reversed(entries):
            entry = decode_with(_entry_decoder, found.entry)
            if found.index >= size or not is_bias_verdict(entry) or entry.revision in newest:
                continue
            if len(entry.revision) <= _REVISION_LENGTH and len(newest) < REVISIONS:
                newest[entry.revision] = recorded_verdict(entry, found.index)
        self._found[model] = newest
        return not entries or entries[-1].index < size


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
