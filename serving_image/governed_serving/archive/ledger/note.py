"""C2SP signed notes and tlog checkpoints with Ed25519: what others keep to notice a fork or a cut tail.

https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from governed_api.printable import printable
from governed_api.token_keys import has_small_order

__all__ = [
    "DECIMAL",
    "SIGNER",
    "Checkpoint",
    "NoteError",
    "Signer",
    "UnknownKey",
    "Verifier",
    "decode_base64",
    "key_hash",
    "open_checkpoint",
    "open_dossier",
    "parse_vkey",
    "sign_checkpoint",
    "sign_dossier",
    "signature_line",
    "split_note",
]

SIGNER = "ledger-signing:verifier"
"""Id of the ledger entry that announces a rotated signing key: {"verifier": vkey, "before": the vkey it takes over
from}."""

_ED25519 = b"\x01"
_MARK = "— "
DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
"""A size or an index as C2SP writes it: one way only, below 10^19."""


class NoteError(ValueError):
    """A note, key or checkpoint that isn't well formed, or a signature that doesn't verify."""


class UnknownKey(NoteError):
    """A note that carries no signature by the key in question."""


def key_hash(name: str, kind: bytes, public: bytes) -> bytes:
    """First four bytes of SHA-256(name ‖ newline ‖ signature type ‖ key)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def _check_name(name: str) -> str:
    if not name or "+" in name or any(c.isspace() for c in name) or printable(name) != name:
        raise NoteError(f"a key name must be without spaces and '+', and printable, found {name[:80]!r}")
    return name


def parse_vkey(vkey: str, kind: bytes, what: str) -> tuple[str, bytes]:
    """(name, 32-byte Ed25519 public key) of a verifier key of one signature type; raises :class:`NoteError`, in which
    ``what`` says which was expected."""
    parts = vkey.strip().split("+", 2)
    if len(parts) != 3:
        raise NoteError("a verifier key must be name+hash+key")
    key = decode_base64(parts[2], "verifier key")
    if len(key) != 33 or key[:1] != kind:
        raise NoteError(f"{what} must be Ed25519 (type {kind[0]}, 32 bytes)")
    name = _check_name(parts[0])
    if has_small_order(key[1:]):
        raise NoteError(f"verifier key of {name}: a point of small order, for which anybody can sign")
    derived = key_hash(name, kind, key[1:]).hex()
    if derived != parts[1]:
        raise NoteError(f"verifier key of {name}: its hash is {derived}, it says {parts[1]}")
    return name, key[1:]


def split_note(note: str) -> tuple[str, list[str]]:
    """(text with its final newline, signature lines without theirs); raises :class:`NoteError`."""
    text, separator, block = note.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteError("a signed note must be text, an empty line and signature lines")
    if printable(note, keep="\n") != note:
        raise NoteError("a signed note must be text without control characters: it was made to deceive")
    return text + "\n", block.removesuffix("\n").split("\n")


@dataclass(frozen=True)
class Verifier:
    """A verifier key (``vkey``): name+hash+base64(0x01 ‖ Ed25519 public key)."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read a vkey; raises :class:`NoteError`."""
        return cls(*parse_vkey(vkey, _ED25519, "a verifier key"))

    @property
    def key_hash(self) -> bytes:
        """First four bytes of SHA-256(name ‖ newline ‖ type ‖ key)."""
        return key_hash(self.name, _ED25519, self.public)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    def open(self, note: str) -> str:
        """The text of ``note`` (with its final newline) after checking this key's signature; raises
        :class:`NoteError`."""
        text, block = split_note(note)
        lines = [signature_line(line) for line in block]
        ours = [s[4:] for name, s in lines if name == self.name and s[:4] == self.key_hash]
        for signature in ours:
            self._checked(text, signature)
        if ours:
            return text
        raise UnknownKey(f"the note carries no signature by {self.name}+{self.key_hash.hex()}")

    def _checked(self, text: str, signature: bytes) -> None:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            raise NoteError(f"the signature by {self.name} does not verify: the note was changed") from None


@dataclass(frozen=True)
class Signer:
    """An Ed25519 key that signs notes under ``name``; ``seed`` is 32 secret bytes."""

    name: str
    seed: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._key().public_key().public_bytes_raw())

    def sign(self, text: str) -> str:
        """The signed note over ``text``, which must end with a newline."""
        if not text.endswith("\n"):
            raise NoteError("the text of a note must end with a newline")
        return f"{text}\n{self.line(text)}"

    def line(self, text: str) -> str:
        """This key's signature line under ``text``."""
        blob = self.verifier.key_hash + self._key().sign(text.encode())
        return f"{_MARK}{self.name} {base64.b64encode(blob).decode()}\n"

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def __repr__(self) -> str:
        return f"Signer({self.name!r})"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says: which log, how many entries, which root (32 bytes), and extension lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Body of the note."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a note's body; raises :class:`NoteError`."""
        lines = text.removesuffix("\n").split("\n")
        if len(lines) < 3 or not lines[0]:
            raise NoteError("a checkpoint must have origin, size and root, each on a line")
        if not DECIMAL.fullmatch(lines[1]):
            raise NoteError(f"a checkpoint's size must be a decimal number below 10^19, found {lines[1][:80]!r}")
        root = decode_base64(lines[2], "root hash")
        if len(root) != 32:
            raise NoteError(f"a checkpoint's root must have 32 bytes, found {len(root)}")
        return cls(lines[0], int(lines[1]), root, tuple(lines[3:]))

    @classmethod
    def unverified(cls, note: str) -> "Checkpoint":
        """What a signed note says, whoever signed it; raises :class:`NoteError`."""
        return cls.parse(note.rpartition("\n\n")[0] + "\n")


def sign_checkpoint(signer: Signer, size: int, root: bytes, *extensions: str, older: tuple[Signer, ...] = ()) -> str:
    """Signed note that this log (origin = key name) has ``size`` entries under ``root``.

    ``older`` keys sign too, after it: who kept one of their verifiers can go on checking.
    """
    text = Checkpoint(signer.name, size, root, extensions).text()
    return signer.sign(text) + "".join(one.line(text) for one in older)


def open_checkpoint(note: str, verifier: Verifier) -> Checkpoint:
    """Checkpoint within ``note`` after checking signature and origin; raises :class:`NoteError`."""
    checkpoint = Checkpoint.parse(verifier.open(note))
    if checkpoint.origin != verifier.name:
        raise NoteError(f"the checkpoint is of log {checkpoint.origin!r}, expected {verifier.name!r}")
    return checkpoint


def sign_dossier(model: str, digest: str, signer: Signer, older: Sequence[Signer] = ()) -> str:
    """Signed note that a dossier about ``model`` has the index with this SHA-256 (64 hexadecimal digits).

    Its first line is no log's origin and its third no root, so that nobody takes it for a checkpoint.
    """
    text = _dossier(signer.name, model, digest)
    return signer.sign(text) + "".join(one.line(text) for one in older)


def open_dossier(note: str, verifier: Verifier, model: str, digest: str) -> None:
    """Hold ``note`` against a dossier's model and the SHA-256 of its index; raises :class:`NoteError`."""
    if verifier.open(note) != _dossier(verifier.name, model, digest):
        raise NoteError("what was signed is another dossier's index")


def _dossier(name: str, model: str, digest: str) -> str:
    return f"{name}/dossier\n{model}\nsha256:{digest}\n"


def signature_line(line: str) -> tuple[str, bytes]:
    """(key name, key hash ‖ signature) of a line; raises :class:`NoteError`, also where another key's line is bad."""
    if not line.startswith(_MARK) or len(fields := line[len(_MARK) :].split(" ")) != 2:
        raise NoteError("a signature line must be '— name base64'")
    signature = decode_base64(fields[1], "signature")
    if len(signature) < 5:
        raise NoteError(f"a signature line must hold a key hash and a signature, found {len(signature)} bytes")
    return _check_name(fields[0]), signature


def decode_base64(text: str, what: str) -> bytes:
    """What ``text`` encodes, in the one way that encoders write it; raises :class:`NoteError`."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError(f"the {what} is not base64: {error}") from None
    if base64.b64encode(data).decode() != text:
        raise NoteError(f"the {what} is base64 that no encoder writes: it was changed")
    return data
