"""Who may do what in an archive: one table for all routes, by the role that a token speaks for.

A role's line names, for each act, what it may be done to: types of entries, purposes of keysets, names of references
and states; a name that ends in ``*`` stands for all that begin like it. What a role has no line for, it may not do.
All of it is about the token's own model; only the reader looks at all models.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from governed_api import routes
from governed_api.roles import Role
from governed_serving.archive.errors import ACT, ENTRY_TYPE, OTHER_MODEL, Refused
from governed_serving.crypto import COINS, SUBJECT
from governed_serving.records import ENTRY_TYPES, EVENT_TYPES, RETENTION, ROTATION, artefact_reference, making_reference

__all__ = ["ACTS", "OLDER", "PUBLIC", "REACH", "Act", "Speaker"]


class Act(StrEnum):
    """What a route does; the value is what a refusal calls it."""

    SPEAK = "ask whose its token is"
    APPEND = "append entries"
    NEXT_SEQ = "ask for a stream's next number"
    READ_ENTRIES = "read entries by their index"
    FIND = "look entries up"
    RECEIPT = "ask for receipts"
    READ_BUNDLE = "read entry bundles"
    PUT_BLOB = "store blobs"
    GET_BLOB = "read blobs"
    LIST_KEYSETS = "list keysets"
    GET_KEYSET = "read keyset"
    CREATE_KEYSET = "create keyset"
    REPLACE_KEYSET = "replace keyset"
    DESTROY_KEYSET = "destroy keyset"
    LIST_REFS = "list references"
    GET_REF = "read reference"
    PUT_REF = "set reference"
    LIST_STATES = "list states"
    GET_STATE = "read state"
    PUT_STATE = "replace state"
    BACKUP = "take a backup"
    SIGN_DOSSIER = "have a dossier signed"


ACTS: Mapping[tuple[str, str], Act] = {
    ("GET", routes.SPEAKER): Act.SPEAK,
    ("POST", routes.ENTRIES): Act.APPEND,
    ("GET", routes.ENTRIES): Act.READ_ENTRIES,
    ("GET", routes.STREAM): Act.NEXT_SEQ,
    ("GET", routes.FIND): Act.FIND,
    ("GET", routes.LEDGER_RECEIPT): Act.RECEIPT,
    ("GET", f"{routes.ENTRY_BUNDLES}/{{tile:path}}"): Act.READ_BUNDLE,
    ("PUT", routes.BLOB): Act.PUT_BLOB,
    ("GET", routes.BLOB): Act.GET_BLOB,
    ("GET", routes.KEYSETS): Act.LIST_KEYSETS,
    ("GET", routes.KEYSET): Act.GET_KEYSET,
    ("PUT", routes.KEYSET): Act.CREATE_KEYSET,  # with a condition REPLACE_KEYSET
    ("DELETE", routes.KEYSET): Act.DESTROY_KEYSET,
    ("GET", routes.REFS): Act.LIST_REFS,
    ("GET", routes.REF): Act.GET_REF,
    ("PUT", routes.REF): Act.PUT_REF,
    ("GET", routes.STATES): Act.LIST_STATES,
    ("GET", routes.STATE): Act.GET_STATE,
    ("PUT", routes.STATE): Act.PUT_STATE,
    ("GET", routes.BACKUP): Act.BACKUP,
    ("POST", routes.DOSSIER): Act.SIGN_DOSSIER,
}
"""What each method of each route does (HEAD as GET). A route that is neither here nor in PUBLIC isn't served."""

PUBLIC = frozenset(
    {
        ("GET", routes.CHECKPOINT),
        ("GET", routes.WITNESSED),
        ("GET", routes.LEDGER_KEY),
        ("GET", routes.PROOF_INCLUSION),
        ("GET", routes.PROOF_CONSISTENCY),
        ("GET", f"{routes.TILES}/{{level}}/{{tile:path}}"),
    }
)
"""For anyone: hashes, signatures and keys."""

_Line = Mapping[Act, frozenset[str]]
_ANY = frozenset({"*"})
_ARTEFACTS = f"{artefact_reference('')}*"
_MADE = frozenset({_ARTEFACTS, f"{making_reference('')}*"})
_SERVED = frozenset({"journal", "masking-*", f"{SUBJECT}*"})
_READ: _Line = dict.fromkeys(
    (
        Act.SPEAK, Act.READ_ENTRIES, Act.FIND, Act.RECEIPT, Act.GET_BLOB, Act.LIST_KEYSETS, Act.GET_KEYSET,
        Act.LIST_REFS, Act.GET_REF, Act.LIST_STATES, Act.GET_STATE,
    ),
    _ANY,
)  # fmt: skip

REACH: Mapping[Role, _Line] = {
    Role.SERVER: {
        Act.SPEAK: _ANY,
        Act.RECEIPT: _ANY,
        Act.GET_KEYSET: _SERVED,
        Act.CREATE_KEYSET: _SERVED,
    },
    Role.EXPLAINER: {
        Act.SPEAK: _ANY,
        Act.GET_KEYSET: frozenset({"journal"}),
        Act.CREATE_KEYSET: frozenset({"journal"}),
    },
    Role.AUDITOR: {  # ships what all containers of its pod journalled, and rotates the model's keys
        Act.SPEAK: _ANY,
        Act.APPEND: EVENT_TYPES | {"deadLetter", "explanation", "prediction", "unreadable"},
        Act.NEXT_SEQ: _ANY,
        Act.FIND: _ANY,
        Act.PUT_BLOB: _ANY,
        Act.GET_BLOB: _ANY,
        Act.LIST_KEYSETS: _ANY,
        Act.GET_KEYSET: _ANY,
        Act.CREATE_KEYSET: frozenset({"journal"}),
        Act.REPLACE_KEYSET: _ANY,
        Act.GET_REF: frozenset({RETENTION, ROTATION}),
        Act.PUT_REF: frozenset({RETENTION, ROTATION}),
        Act.LIST_STATES: _ANY,
        Act.GET_STATE: frozenset({"counts.*"}),
        Act.PUT_STATE: frozenset({"counts.*"}),
    },
    Role.TRAINER: {
        Act.SPEAK: _ANY,
        Act.APPEND: frozenset({"artefact", "dataset", "gates", "training"}),
        Act.NEXT_SEQ: _ANY,
        Act.PUT_BLOB: _ANY,
        Act.GET_BLOB: _ANY,
        Act.GET_KEYSET: frozenset({"artefact", "data", COINS, "masking-*"}),
        Act.CREATE_KEYSET: frozenset({"artefact", "data", COINS, "masking-*"}),
        Act.GET_REF: _MADE,
        Act.PUT_REF: _MADE,
    },
    Role.IMPORTER: {
        Act.SPEAK: _ANY,
        Act.APPEND: frozenset({"artefact"}),
        Act.NEXT_SEQ: _ANY,
        Act.PUT_BLOB: _ANY,
        Act.GET_BLOB: _ANY,
        Act.GET_KEYSET: frozenset({"artefact"}),
        Act.CREATE_KEYSET: frozenset({"artefact"}),
        Act.GET_REF: _MADE,
        Act.PUT_REF: _MADE,
    },
    Role.FETCH: {
        Act.SPEAK: _ANY,
        Act.GET_BLOB: _ANY,
        Act.GET_KEYSET: frozenset({"artefact"}),
        Act.GET_REF: frozenset({_ARTEFACTS}),
    },
    Role.OPERATOR: {**_READ, Act.REPLACE_KEYSET: _ANY, Act.DESTROY_KEYSET: _ANY},
    Role.VERIFIER: _READ,
    Role.READER: {**_READ, Act.READ_BUNDLE: _ANY, Act.BACKUP: _ANY, Act.SIGN_DOSSIER: _ANY},
}

OLDER: _Line = {
    **{act: _ANY for act in Act if act not in (Act.READ_BUNDLE, Act.BACKUP, Act.SIGN_DOSSIER)},
    Act.APPEND: ENTRY_TYPES,
}
"""Of a token without a role, which all containers of a model had: what it did to its own model's it goes on doing for
as long as it is taken (:mod:`governed_serving.archive.tokens`)."""


class Speaker(NamedTuple):
    """Whose token it is; ``role`` None: of the older form, of all the model's containers."""

    model: str
    role: Role | None

    def __str__(self) -> str:
        if self.role is Role.READER:
            return "the reader"
        return f"{self.model} ({self.role})" if self.role else self.model

    @property
    def reads_all(self) -> bool:
        """Whether it looks at all models."""
        return self.role is Role.READER

    def may(self, act: Act, name: str) -> bool:
        """Whether the table lets it do ``act`` to ``name``."""
        names = self._line.get(act, frozenset())
        return name in names or any(n.endswith("*") and name.startswith(n[:-1]) for n in names)

    def check(self, act: Act, name: str = "") -> None:
        """Raises :class:`Refused` (403) for what the table doesn't have."""
        if self.may(act, name) or (not name and act in self._line):
            return
        what = f"{act} {name[:80]}" if name and act in self._line else act
        raise Refused(403, f"the token is that of {self}, which may not {what}{self._instead(act)}", reason=ACT)

    def check_model(self, model: str) -> None:
        """Raises :class:`Refused` (403) where ``model`` is another one than the token's."""
        if not self.reads_all and model != self.model:
            needed = f"what is {model[:80]}'s needs the token of {model[:80]}"
            raise Refused(403, f"the token is that of {self}; {needed}", reason=OTHER_MODEL)

    def check_type(self, number: int, type: str) -> None:
        """Raises :class:`Refused` (403) for an entry that this role doesn't write: it says something of the entry, so
        that whoever ships it lets a dead letter take its place."""
        if not self.may(Act.APPEND, type):
            what = f"entry {number} is of type {type[:80]}, which the token of {self} may not write"
            raise Refused(403, what, reason=ENTRY_TYPE)

    @property
    def _line(self) -> _Line:
        return OLDER if self.role is None else REACH[self.role]

    @staticmethod
    def _instead(act: Act) -> str:
        """Whose token would do."""
        others = [role for role, line in REACH.items() if act in line]
        return f"; it takes that of {' or '.join(others)}" if others else ""
