"""Where a verifier reads a log from: an archive's directory, an exported bundle, or a running archive."""

import hashlib
import tarfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, Self

import msgspec

from governed_serving.archive.client import HIDDEN, ArchiveClient
from governed_serving.archive.errors import ArchiveError, Refused
from governed_serving.archive.ledger.entrylog import Batch, EntryLog
from governed_serving.archive.ledger.note import Verifier, sign_dossier
from governed_serving.archive.ledger.tiles import TiledTree
from governed_serving.archive.ledger.witnessed import WITNESSED
from governed_serving.archive.service import ledger_cipher, ledger_signers
from governed_serving.archive.store.holdings import Holding
from governed_serving.archive.store.named import NamedFiles
from governed_serving.archive.store.references import References
from governed_serving.archive.verify.held_blobs import MISSING, HeldBlobs
from governed_serving.crypto import CryptoError, DirectoryStore, Kek, KeyDestroyed, Keyring, KeysetStore, is_purpose
from governed_serving.decoding import decode_json, decode_msgpack
from governed_serving.records import ENTRY_BYTES

__all__ = ["CONSISTENCY", "MISSING", "BundleSource", "DirectorySource", "Leaf", "LogSource", "UrlSource"]


_Stored = tuple[str, str, bytes | None]
"""Model, name and bytes; no bytes when they went meanwhile."""
_Look = Callable[[NamedFiles], Iterator[_Stored]]

_FEW_BYTES = 1 << 20
"""Of a checkpoint, a key, or what a bundle says of itself."""
_MANY_BYTES = 256 << 20
CONSISTENCY = "consistency.json"
"""Member of a bundle: size of an earlier checkpoint → hashes (hex) of the proof that the log extends it."""


class Leaf(msgspec.Struct, frozen=True):
    """An entry, where it is, and its inclusion proof when the source is only a part of the log."""

    index: int
    data: bytes
    proof: list[bytes] | None = None


class LogSource(Protocol):
    """What verification needs."""

    complete: bool
    """Whether :meth:`leaves` are all entries, so that the tree can be recomputed."""
    blobs_are: str
    """What :meth:`blob` finds out, in words."""
    sees_names: bool
    """Whether :meth:`holdings` and :meth:`prepared` can look; where not, they find nothing."""

    def vkey(self) -> str:
        """The verifier key as the source tells it."""
        ...

    def checkpoint(self) -> str:
        """The signed note."""
        ...

    def witnessed(self) -> str:
        """The newest checkpoint that witnesses cosigned, with their lines; "" where there is none."""
        ...

    def leaves(self, size: int) -> Iterator[Leaf]:
        """The entries below ``size``, in order. Raises ArchiveError naming the entry where reading fails."""
        ...

    def leaf_hash(self, index: int, size: int) -> bytes | None:
        """What the signed tree holds at ``index``, when the source keeps the tree's tiles and they have the signed
        root."""
        ...

    def consistency(self, first: int, second: int) -> list[bytes] | None:
        """The source's proof that its first ``first`` entries are a prefix of its first ``second`` (1 ≤ first ≤
        second), if it has one."""
        ...

    def signed_dossier(self, model: str, digest: str) -> str:
        """The log's signed note that a dossier's index has this SHA-256 (hex); "" where its key isn't at hand."""
        ...

    def blob(self, digest: str) -> str | None:
        """What is wrong with a blob; None when it is there and unchanged, or when the source carries no blobs."""
        ...

    def addresses(self) -> Iterator[str]:
        """Blobs that lie there, whether an entry names them or not; none where the source can't list them."""
        ...

    def holdings(self) -> Iterator[Holding]:
        """References, states and keysets that lie there; what can't be opened has a ``problem``."""
        ...

    def prepared(self) -> Iterator[Holding]:
        """References and states that lie beside their place, to be put there once their entry is written."""
        ...

    def blob_bytes(self, digest: str) -> bytes:
        """Ciphertext of a blob; raises FileNotFoundError."""
        ...

    def keysets(self, model: str) -> KeysetStore:
        """The model's wrapped keysets."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class DirectorySource:
    """An archive's volume, read without changing it; ``kek`` is the archive's own key. The archive may be running."""

    complete = True
    sees_names = True

    def __init__(self, root: Path, kek: Kek):
        self.blobs = HeldBlobs(root)
        self.blobs_are = self.blobs.are
        self._root = root
        self._kek = kek
        self._tree: TiledTree | None = None

    def vkey(self) -> str:
        return self._text("vkey")

    def checkpoint(self) -> str:
        return self._text("checkpoint")

    def witnessed(self) -> str:
        path = self._root / "ledger" / WITNESSED
        return path.read_text() if path.is_file() else ""

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Every batch with its first index, those behind the checkpoint included. Raises ArchiveError, CryptoError."""
        origin = Verifier.parse(self.vkey()).name
        log = EntryLog(self._root / "ledger" / "log", ledger_cipher(self._root, self._kek), origin)
        yield from log.batches()

    def leaves(self, size: int) -> Iterator[Leaf]:
        for first, batch in self.batches():
            for index, data in enumerate(batch.entries, first):
                if index >= size:
                    return
                yield Leaf(index, data)

    def leaf_hash(self, index: int, size: int) -> bytes | None:
        if self._tree is None:
            path = self._root / "ledger" / "edge"
            if not path.exists():
                return None
            first, edge = decode_msgpack(path.read_bytes(), type=tuple[int, list[bytes]])
            if first < size:
                return None
            self._tree = TiledTree(self._root / "ledger" / "tile", first, edge)
        try:
            return self._tree.tile(0, index >> 8, (index & 255) + 1)[-32:]
        except (OSError, KeyError):
            return None

    def tiles_root(self, size: int) -> bytes | None:
        """Root that the stored tiles have at ``size``; None when they can't be read."""
        if self.leaf_hash(size - 1, size) is None or self._tree is None:
            return None
        try:
            return self._tree.root_hash(size)
        except (OSError, ValueError, IndexError):
            return None

    def consistency(self, first: int, second: int) -> list[bytes] | None:  # noqa: ARG002 - the tree is recomputed here
        return None

    def signed_dossier(self, model: str, digest: str) -> str:
        signer, *older = ledger_signers(self._root, self._kek, Verifier.parse(self.vkey()).name.rpartition("/")[2])
        return sign_dossier(model, digest, signer, older)

    def blob(self, digest: str) -> str | None:
        return self.blobs.problem(digest)

    def addresses(self) -> Iterator[str]:
        return self.blobs.addresses()

    def holdings(self) -> Iterator[Holding]:
        yield from self._named(_in_place)
        for model in NamedFiles(self._root / "keysets").models():
            store = self.keysets(model)
            for purpose in filter(is_purpose, store.purposes()):
                with suppress(KeyDestroyed):
                    if document := store.get(purpose):
                        yield Holding("key", model, purpose, hashlib.sha256(document).hexdigest())

    def prepared(self) -> Iterator[Holding]:
        # half of one may lie there: the process was killed while it wrote
        yield from (file for file in self._named(_beside) if not file.problem)

    def _named(self, look: _Look) -> Iterator[Holding]:
        """States and references."""
        for model, name, data in look(NamedFiles(self._root / "states")):
            if data is not None:
                yield Holding("state", model, name, hashlib.sha256(data).hexdigest())
        ring = Keyring(self._kek, DirectoryStore(self._root / "keys"))
        references = References(self._root / "refs", ring.keyset("references", create=False))
        for model, name, sealed in look(references.files):
            try:
                data = references.opened(model, name, sealed)
            except CryptoError as error:
                yield Holding("ref", model, name, "", f"reference {name} of {model}: {error}")
                continue
            if data is not None:
                yield Holding("ref", model, name, hashlib.sha256(data).hexdigest())

    def blob_bytes(self, digest: str) -> bytes:
        return self.blobs.content(digest)

    def keysets(self, model: str) -> KeysetStore:
        return DirectoryStore(self._root / "keysets" / model)

    def close(self) -> None:
        """Nothing stays open."""

    def _text(self, name: str) -> str:
        path = self._root / "ledger" / name
        if not path.is_file():
            raise ArchiveError(
                f"{self._root} is no archive, or one without entries: expected {path.relative_to(self._root)}"
            )
        return path.read_text()


def _in_place(files: NamedFiles) -> Iterator[_Stored]:
    return ((model, name, files.read(model, name)) for model in files.models() for name in files.names(model))


def _beside(files: NamedFiles) -> Iterator[_Stored]:
    return ((prepared.model, prepared.name, prepared.read()) for prepared in files.prepared())


class UrlSource:
    """A running archive, by its API. Blobs are asked for, not fetched."""

    complete = True
    blobs_are = "there (their content is checked over the folder)"
    sees_names = False

    def __init__(self, client: ArchiveClient):
        self._client = client

    def vkey(self) -> str:
        return self._client.vkey()

    def checkpoint(self) -> str:
        return self._client.checkpoint()

    def witnessed(self) -> str:
        return self._client.witnessed()

    def leaves(self, size: int) -> Iterator[Leaf]:
        for start in range(0, size, 1000):
            for index, data in enumerate(self._client.entries(start, min(start + 1000, size)), start):
                if data == HIDDEN:
                    raise ArchiveError(f"entry {index} is another model's: the whole log needs the reader's token")
                yield Leaf(index, data)

    def leaf_hash(self, index: int, size: int) -> bytes | None:
        width = min(256, size - (index >> 8 << 8))
        return self._client.tile(0, index >> 8, width)[(index & 255) * 32 :][:32]

    def consistency(self, first: int, second: int) -> list[bytes] | None:
        return self._client.consistency(first, second)

    def signed_dossier(self, model: str, digest: str) -> str:
        try:
            return self._client.signed_dossier(model, digest)
        except Refused as error:
            if error.status == 404:  # an older archive
                return ""
            raise

    def blob(self, digest: str) -> str | None:
        return None if self._client.has_blob(digest) else MISSING

    def addresses(self) -> Iterator[str]:
        yield from ()

    def holdings(self) -> Iterator[Holding]:
        yield from ()

    def prepared(self) -> Iterator[Holding]:
        yield from ()

    def blob_bytes(self, digest: str) -> bytes:
        try:
            return self._client.get_blob(digest)
        except Refused as error:
            raise FileNotFoundError(str(error)) from None

    def keysets(self, model: str) -> KeysetStore:
        if self._client.model != model:
            raise ArchiveError(f"the keysets of {model} need its own token: give --model {model} and its --token-file")
        return self._client.keysets()

    def close(self) -> None:
        self._client.close()


class _Proved(msgspec.Struct, forbid_unknown_fields=True):
    index: int
    hashes: list[str]


class _About(msgspec.Struct, forbid_unknown_fields=True):
    """``bundle.json``."""

    format: str
    origin: str
    size: int
    complete: bool
    entries: int
    blobs: bool


class _Member(tarfile.TarInfo):
    """What tarfile reads whole into the memory, such as a long name, has no more bytes than a bundle could need."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.size > _FEW_BYTES:
            raise ArchiveError(f"the bundle has a header of {member.size} bytes: it was put together")
        return member


class BundleSource:
    """An exported bundle: a tar file that carries all that is needed, and may be a part of the log."""

    sees_names = False

    def __init__(self, path: Path):
        no_bundle = f"{path} is neither an archive's folder nor an exported bundle"
        try:
            self._tar = tarfile.open(path, "r:*", tarinfo=_Member)  # noqa: SIM115 - open as long as the source is
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ArchiveError(f"{no_bundle}: {error}") from None
        try:
            self._names, self._about = self._read()
        except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
            self._tar.close()
            raise ArchiveError(f"{no_bundle}, or it was changed: {error}") from None
        except (ArchiveError, OSError):
            self._tar.close()
            raise
        self.complete, self._blobs = self._about.complete, self._about.blobs
        self.blobs_are = "there and unchanged" if self._blobs else "not in the bundle"

    def _read(self) -> tuple[set[str], _About]:
        counted = Counter(self._tar.getnames())
        if twice := sorted(name for name, count in counted.items() if count > 1):
            raise ArchiveError(f"the bundle has {twice[0]} twice")
        self._names = set(counted)
        about = decode_json(self._member("bundle.json"), type=_About)
        if about.format != "governed-bundle-1":
            raise ArchiveError(f"expected a bundle of format governed-bundle-1, found {about.format!r}")
        return self._names, about

    def vkey(self) -> str:
        text = self._text("vkey")
        if text.removesuffix("\n") != str(Verifier.parse(text)):
            raise ArchiveError("vkey: expected a verifier key as it was written, found it written otherwise")
        return text

    def checkpoint(self) -> str:
        return self._text("checkpoint")

    def witnessed(self) -> str:
        return self._text(WITNESSED) if WITNESSED in self._names else ""

    def leaves(self, size: int) -> Iterator[Leaf]:
        if self._about.origin != Verifier.parse(self.vkey()).name:
            raise ArchiveError(f"bundle.json is of log {self._about.origin}, the bundle's key of another")
        if self.complete:
            for index, data in enumerate(self._entries(size)):
                if index < size:
                    yield Leaf(index, data)
            return
        proofs = decode_json(self._member("proofs.json", _MANY_BYTES), type=list[_Proved])
        if len(proofs) != self._about.entries:
            deque(self._entries(size), maxlen=0)  # raises where the entries are too few or too many themselves
            raise ArchiveError(f"the bundle has {self._about.entries} entries and {len(proofs)} proofs: one was cut")
        for proved, data in zip(proofs, self._entries(size), strict=True):
            yield Leaf(proved.index, data, _hashes(proved.hashes, "proofs.json"))

    def _entries(self, size: int) -> Iterator[bytes]:
        """One after the other: a bundle may be larger than the memory, and a packed one larger than any."""
        count, line = 0, b"\n"
        with self._opened("entries.jsonl") as file:
            while count <= self._about.entries and (line := file.readline(ENTRY_BYTES + 1)).endswith(b"\n"):
                count += 1
                if count <= self._about.entries:
                    yield line.removesuffix(b"\n")
        if line or (self._about.size, self._about.entries) != (size, count):
            raise ArchiveError(
                f"bundle.json tells of {self._about.entries} entries of {self._about.size}, "
                f"found {count}{' or more' if line else ''} of {size}: it was changed"
            )

    def leaf_hash(self, index: int, size: int) -> bytes | None:  # noqa: ARG002 - a bundle keeps no tiles
        return None

    def consistency(self, first: int, second: int) -> list[bytes] | None:  # noqa: ARG002 - its proofs lead to its own size
        if CONSISTENCY not in self._names:
            return None
        proofs = decode_json(self._member(CONSISTENCY, _MANY_BYTES), type=dict[str, list[str]])
        return _hashes(proofs[str(first)], CONSISTENCY) if str(first) in proofs else None

    def signed_dossier(self, model: str, digest: str) -> str:  # noqa: ARG002 - a bundle has no key
        return ""

    def blob(self, digest: str) -> str | None:
        if not self._blobs:
            return None
        if f"blobs/{digest}" not in self._names:
            return MISSING
        with self._opened(f"blobs/{digest}") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return None if actual == digest else f"has SHA-256 {actual}: it was changed"

    def addresses(self) -> Iterator[str]:
        names = sorted(self._names) if self._blobs else []
        return (name.removeprefix("blobs/") for name in names if name.startswith("blobs/"))

    def holdings(self) -> Iterator[Holding]:
        yield from ()

    def prepared(self) -> Iterator[Holding]:
        yield from ()

    def blob_bytes(self, digest: str) -> bytes:
        return self._member(f"blobs/{digest}", _MANY_BYTES)

    def keysets(self, model: str) -> KeysetStore:
        raise ArchiveError(
            f"a bundle carries no keysets of {model}: verify the archive's folder or URL to read content"
        )

    def close(self) -> None:
        self._tar.close()

    def _text(self, name: str) -> str:
        try:
            return self._member(name).decode()
        except UnicodeDecodeError as error:
            raise ArchiveError(f"the bundle's {name} is no text: {error}: it was changed") from None

    def _member(self, name: str, most: int = _FEW_BYTES) -> bytes:
        """All of a member: what is packed may be far larger than the bundle."""
        with self._opened(name) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ArchiveError(f"the bundle's {name} has more than {most} bytes: it was put together")
        return data

    def _opened(self, name: str) -> IO[bytes]:
        """A regular file: links may lead in circles, or to nothing."""
        info = self._tar.getmember(name) if name in self._names else None
        if info is None or info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
            raise FileNotFoundError(f"the bundle has no {name}")
        file = self._tar.extractfile(info)
        assert file is not None
        return file


def _hashes(texts: list[str], name: str) -> list[bytes]:
    """Of a proof in the member ``name``. Raises ArchiveError for one that is written as no bundle writes it."""
    found = [bytes.fromhex(text) for text in texts]
    for text, value in zip(texts, found, strict=True):
        if value.hex() != text:
            raise ArchiveError(f"{name}: expected hashes in lower case, found {text[:80]!r}: it was changed")
    return found
