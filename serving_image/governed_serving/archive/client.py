"""The archive over HTTP, synchronous: what trainer, auditor, fetch and keyring use.

Calls that may safely be sent twice (all of them: appends are numbered, blobs and keysets addressed) are retried with
full jitter (hosting.retrying: refused connections, timeouts, 429, 502, 503 and 504), within ``patience`` seconds; then
:class:`Unreachable`.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import msgspec

from governed_api import routes
from governed_api.runtime import BEFORE_HEADER
from governed_serving.archive.errors import Refused, Unreachable, Unverified
from governed_serving.archive.ledger.tiles import tile_path
from governed_serving.crypto.errors import KeyDestroyed, KeysetChanged
from governed_serving.decoding import decode_json, decode_with
from governed_serving.environment import Token, token_reader
from governed_serving.hosting.retrying import RETRYABLE_STATUS, Backoff, GaveUp, Retrying
from governed_serving.records import RETENTION, ROTATION, AppendRequest

__all__ = ["HIDDEN", "AppendAnswer", "ArchiveClient", "ArchiveKeysetStore", "FetchedEntry"]

HIDDEN = b"null"
"""Stands for an entry of another model than the token's."""
_UNKNOWN_TOKEN = (401, 403)
_ENTRIES = msgspec.json.Decoder(dict[str, list[msgspec.Raw]], strict=False)


class AppendAnswer(msgspec.Struct, frozen=True):
    """Answer to an append: ``ranges`` (first index, count) cover the entries in order; ``size`` is the ledger's."""

    first_index: int
    size: int
    ranges: list[tuple[int, int]]


PAGE = 1000
"""Entries of a list that are asked for at once."""


class FetchedEntry(msgspec.Struct, frozen=True):
    """A ledger entry (canonical JSON bytes in ``entry``) and its index."""

    index: int
    entry: msgspec.Raw

    def fields(self) -> dict[str, Any]:
        """The entry as a mapping."""
        return dict(decode_json(self.entry))


class ArchiveClient:
    """One model's view of its namespace's archive at ``url``; ``token`` is the model's bearer token.

    A token that can be read anew is, when the archive refuses the one that was sent (401, 403): the call is sent again
    with another, once. ``awaits_token``: a token that the archive doesn't know is tried again as well, for whoever has
    few attempts: the archive may be one that is just being replaced by one that knows it.

    Thread-safe. ``clock`` and ``sleep`` are injected by tests.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        model: str = "",
        *,
        patience: float = 30.0,
        timeout: float = 30.0,
        awaits_token: bool = False,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._token = token_reader(token)
        headers = {"authorization": _bearer(self._token())}
        if model:
            headers["x-governed-model"] = model
        self.model = model
        self.patience = patience
        self._retrying = Retrying(
            Backoff(patience),
            RETRYABLE_STATUS | ({401} if awaits_token else frozenset()),
            text=lambda a: f"{a.status_code} {_error_text(a)}",
            clock=clock,
            sleep=sleep,
        )
        self._url = url
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport, trust_env=False)

    # -- blobs --------------------------------------------------------------------------------------------------------

    def put_blob(self, sealed: bytes) -> str:
        """Store ciphertext; its address (SHA-256, hex)."""
        digest = hashlib.sha256(sealed).hexdigest()
        self._ask("PUT", routes.BLOB.format(digest=digest), content=sealed)
        return digest

    def has_blob(self, digest: str, *, entry: int | None = None, ref: str = "") -> bool:
        """Whether the blob is there; ``entry``, ``ref``: see :meth:`get_blob`."""
        path, named = routes.BLOB.format(digest=digest), _named(entry, ref)
        return self._ask("HEAD", path, params=named, allowed=(404, 410)).status_code == 200

    def get_blob(self, digest: str, *, entry: int | None = None, ref: str = "") -> bytes:
        """Ciphertext of a blob, its address checked. A model's token needs what of its model names it: ``entry`` (index
        in the ledger) or ``ref`` (name of a reference). Raises :class:`Refused` (403; 404; 410: deleted under
        retention), :class:`Unverified`."""
        data = self._ask("GET", routes.BLOB.format(digest=digest), params=_named(entry, ref)).content
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            raise Unverified(f"blob {digest}: its content has SHA-256 {actual}")
        return data

    # -- ledger -------------------------------------------------------------------------------------------------------

    def append(self, stream: str, entries: list[bytes], first_seq: int | None = None) -> int:
        """Append canonical entries to ``stream`` and return the index of the first.

        Without ``first_seq`` they go to the end of the stream as it is now: for writers that keep no count of their own
        and are the stream's only ones.
        """
        start = self.next_seq(stream) if first_seq is None else first_seq
        return self.append_batch(stream, start, entries).first_index

    def append_batch(self, stream: str, first_seq: int, entries: list[bytes]) -> AppendAnswer:
        """Append entries numbered from ``first_seq``; sending them again gives the same answer. Raises :class:`Refused`
        (409 for a gap)."""
        body = msgspec.msgpack.encode(AppendRequest(stream, first_seq, entries))
        answer = self._ask("POST", routes.ENTRIES, content=body, headers={"content-type": "application/msgpack"})
        return decode_json(answer.content, type=AppendAnswer)

    def next_seq(self, stream: str) -> int:
        """Number that the stream's next entry must have; 0 for a new one."""
        return int(self._ask("GET", routes.STREAM.format(stream=stream)).json()["next_seq"])

    def checkpoint(self) -> str:
        """Signed note over the whole ledger."""
        return self._ask("GET", routes.CHECKPOINT).text

    def witnessed(self) -> str:
        """The newest checkpoint that enough witnesses cosigned; "" where there is none."""
        answer = self._ask("GET", routes.WITNESSED, allowed=(404,))
        return answer.text if answer.status_code == 200 else ""

    def vkey(self) -> str:
        """The ledger's verifier key."""
        return self._ask("GET", routes.LEDGER_KEY).text.strip()

    def entries(self, start: int, end: int) -> list[bytes]:
        """Canonical entries ``start`` … ``end`` − 1, as far as there are; ``HIDDEN`` for one of another model than the
        token's."""
        entries: list[bytes] = []
        while start + len(entries) < end:
            answer = self._ask("GET", routes.ENTRIES, params={"start": start + len(entries), "end": end})
            part = decode_with(_ENTRIES, answer.content)["entries"]
            if not part:
                break
            entries.extend(bytes(e) for e in part)
        return entries

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Inclusion proof of entry ``index`` in the first ``size``."""
        return self._proof("inclusion", index=index, size=size)

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Proof that the first ``first`` entries are a prefix of the first ``second``."""
        return self._proof("consistency", first=first, second=second)

    def tile(self, level: int, number: int, width: int = 256) -> bytes:
        """``width`` hashes (32 bytes each) of a tile of the tree."""
        return self._ask("GET", f"{routes.TILES}/{tile_path(level, number, width)}").content

    def speaker(self) -> tuple[str, str]:
        """(model, role) whose this token is; no role: one of the older form. Raises :class:`Refused` (401)."""
        answer = decode_json(self._ask("GET", routes.SPEAKER).content, type=dict[str, str])
        return answer["model"], answer["role"]

    def signed_dossier(self, model: str, digest: str) -> str:
        """The archive's signed note over a dossier's index, for the reader's token. Raises :class:`Refused`."""
        return self._ask("POST", routes.DOSSIER.format(model=model, digest=digest)).text

    def backup(self) -> Iterator[bytes]:
        """The whole archive, as ``restore`` takes it, for the reader's token; asked for once. Raises :class:`Refused`,
        :class:`Unreachable`; what ends without an error may still lack its manifest."""
        try:
            with self._http.stream("GET", routes.BACKUP, timeout=httpx.Timeout(30.0, read=600.0)) as answer:
                if not answer.is_success:
                    answer.read()
                _checked(answer, ())
                yield from answer.iter_bytes(1 << 20)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the archive at {self._url} broke off the backup: {error or type(error).__name__}"
            ) from None

    def find(self, *, id: str = "", type: str = "", model: str = "", limit: int = 100) -> list[FetchedEntry]:
        """The newest entries of a model with this id and type, ascending by index."""
        return self._page({"model": model or self.model, "id": id, "type": type, "limit": limit})[0]

    def find_all(self, *, id: str = "", type: str = "", after: int = -1) -> list[FetchedEntry]:
        """All entries of this model with this id and type behind index ``after``, ascending: page by page. Raises
        ArchiveError."""
        pages: list[list[FetchedEntry]] = []
        before: int | None = None
        while before is None or before > after + 1:
            entries, rest = self._page({"model": self.model, "id": id, "type": type, "limit": PAGE, "before": before})
            pages.append(entries)
            if not rest:
                break
            if before is not None and rest >= before:
                raise Unverified(f"the archive's list goes on before entry {rest}, which was listed already")
            before = rest
        return [entry for page in reversed(pages) for entry in page if entry.index > after]

    def _page(self, query: Mapping[str, str | int | None]) -> tuple[list[FetchedEntry], int]:
        answer = self._ask("GET", routes.FIND, params={k: v for k, v in query.items() if v})
        rest = answer.headers.get(BEFORE_HEADER, "0")
        return decode_json(answer.content, type=list[FetchedEntry]), int(rest) if rest.isdecimal() else 0

    # -- references, states and keysets
    # ---------------------------------------------------------------------------------

    def ref(self, name: str) -> dict[str, Any] | None:
        """A JSON pointer of this model, or None."""
        answer = self._ask("GET", routes.REF.format(model=self._me(), name=name), allowed=(404,))
        return None if answer.status_code == 404 else dict(answer.json())

    def put_ref(self, name: str, value: Mapping[str, object]) -> None:
        """Set a JSON pointer of this model; its history stays in the ledger."""
        self._ask(
            "PUT",
            routes.REF.format(model=self._me(), name=name),
            content=msgspec.json.encode(value, order="deterministic"),
        )

    def refs(self) -> list[str]:
        """Names of this model's JSON pointers, sorted."""
        return list(self._ask("GET", routes.REFS.format(model=self._me())).json()["refs"])

    def state(self, name: str, known: str = "") -> tuple[bytes, str] | None:
        """(sealed bytes, their SHA-256) of a state of this model; None when there is none, or none other than
        ``known``."""
        headers = {"if-none-match": f'"{known}"'} if known else None
        answer = self._ask("GET", routes.STATE.format(model=self._me(), name=name), headers=headers, allowed=(304, 404))
        return (answer.content, hashlib.sha256(answer.content).hexdigest()) if answer.status_code == 200 else None

    def put_state(self, name: str, sealed: bytes) -> None:
        """Replace a state of this model; the ledger keeps the digest of every one there was."""
        self._ask("PUT", routes.STATE.format(model=self._me(), name=name), content=sealed)

    def states(self) -> list[str]:
        """Names of this model's states, sorted."""
        return list(self._ask("GET", routes.STATES.format(model=self._me())).json()["states"])

    def say_times(self, *, payloads: int | None, keys: int | None) -> None:
        """Seconds that the archive keeps what this model's requests said, and that its own keys last; None: for ever.

        Said again, it changes nothing.
        """
        for name, wanted in ((RETENTION, {"payloads": payloads}), (ROTATION, {"keys": keys})):
            times = self.ref(name)
            if times != wanted and (times or any(wanted.values())):  # a model that never had one needs no reference
                self.put_ref(name, wanted)

    def keysets(self) -> "ArchiveKeysetStore":
        """The keyring's store, kept in the archive."""
        return ArchiveKeysetStore(self)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "ArchiveClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _me(self) -> str:
        if not self.model:
            raise ValueError("this call needs the model's name: ArchiveClient(url, token, model)")
        return self.model

    def _proof(self, kind: str, **query: int) -> list[bytes]:
        answer = self._ask("GET", routes.PROOF.format(kind=kind), params=query)
        return [bytes.fromhex(h) for h in answer.json()["hashes"]]

    def _ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        headers: dict[str, str] | None = None,
        allowed: tuple[int, ...] = (),
    ) -> httpx.Response:
        """One call with bounded retries; raises :class:`Refused` for a 4xx that isn't ``allowed``."""

        def send() -> httpx.Response:
            return self._http.request(method, path, content=content, params=params, headers=headers)

        try:
            answer = self._retrying.call(send)
            if answer.status_code in _UNKNOWN_TOKEN and self._took_another_token(answer):
                answer = self._retrying.call(send)
        except GaveUp as error:
            raise Unreachable(f"the archive at {self._url} doesn't answer {method} {path}: {error}") from None
        return _checked(answer, allowed)

    def _took_another_token(self, answer: httpx.Response) -> bool:
        """Whether the token is another by now than the one that was refused; the next call has it."""
        bearer = _bearer(self._token())
        if bearer == answer.request.headers.get("authorization"):
            return False
        self._http.headers["authorization"] = bearer
        return True


class ArchiveKeysetStore:
    """crypto's KeysetStore over an :class:`ArchiveClient`: documents of one model, by purpose."""

    def __init__(self, client: ArchiveClient):
        self._client = client

    def get(self, purpose: str) -> bytes | None:
        """The wrapped document, or None; raises KeyDestroyed."""
        answer = self._client._ask("GET", self._path(purpose), allowed=(404, 410))
        if answer.status_code == 410:
            raise KeyDestroyed(_error_text(answer))
        return answer.content if answer.status_code == 200 else None

    def create(self, purpose: str, document: bytes) -> bytes:
        """Create if absent; what is stored now. Raises KeyDestroyed."""
        answer = self._client._ask("PUT", self._path(purpose), content=document, allowed=(409, 410))
        if answer.status_code == 410:
            raise KeyDestroyed(_error_text(answer))
        return document if answer.status_code == 201 else answer.content

    def replace(self, purpose: str, expected: bytes, document: bytes) -> None:
        """Put ``document`` in the place of ``expected``; raises KeysetChanged."""
        match = {"if-match": f'"{hashlib.sha256(expected).hexdigest()}"'}
        answer = self._client._ask("PUT", self._path(purpose), content=document, headers=match, allowed=(412,))
        # A retry after a lost answer finds its own document there: that is success.
        if answer.status_code == 412 and self.get(purpose) != document:
            raise KeysetChanged(_error_text(answer))

    def destroy(self, purpose: str, receipt: bytes) -> None:
        """Remove for good; the receipt stays in its place and in the ledger."""
        self._client._ask("DELETE", self._path(purpose), content=receipt, allowed=(410,))

    def purposes(self) -> list[str]:
        """Purposes with a document, sorted."""
        return list(self._client._ask("GET", routes.KEYSETS.format(model=self._client._me())).json()["purposes"])

    def _path(self, purpose: str) -> str:
        return routes.KEYSET.format(model=self._client._me(), purpose=purpose)


def _named(entry: int | None, ref: str) -> dict[str, str | int]:
    return {} if entry is None and not ref else {"ref": ref} if ref else {"entry": entry or 0}


def _bearer(token: str) -> str:
    return f"Bearer {token.strip()}"


def _checked(answer: httpx.Response, allowed: tuple[int, ...]) -> httpx.Response:
    if answer.is_success or answer.status_code in allowed:
        return answer
    raise Refused(answer.status_code, _error_text(answer), reason=_reason(answer))


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("reason", ""))
    except (ValueError, AttributeError):
        return ""


def _error_text(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200] or answer.reason_phrase
