"""HTTP in front of the archive: routes translate, :class:`~governed_serving.archive.service.Archive` decides.

``/v1/ledger`` is the prefix of a C2SP tlog-tiles log. Checkpoint, key, proofs and tiles (hashes only) are for anyone,
so that a witness needs no secret; entry bundles, which hold what all models' entries say in clear, need the reader's
token, everything else a model's bearer token. What a token's role may do is :mod:`governed_serving.archive.reach`'s to
say, of each route before its handler runs; a model reads and writes its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from governed_api import routes
from governed_api.runtime import BEFORE_HEADER, LIVE_PATH, METRICS_PATH, READY_PATH
from governed_serving.archive.backup.snapshot import Snapshot
from governed_serving.archive.client import HIDDEN
from governed_serving.archive.errors import OTHER_MODEL, ArchiveError, Busy, LedgerDamaged, Refused, Unverified
from governed_serving.archive.ledger.tiles import WIDTH
from governed_serving.archive.metrics import ArchiveMetrics
from governed_serving.archive.mirror.copying import Copying
from governed_serving.archive.reach import ACTS, PUBLIC, Act, Speaker
from governed_serving.archive.service import Archive
from governed_serving.archive.store.states import States
from governed_serving.archive.tokens import Tokens
from governed_serving.decoding import decode_with
from governed_serving.hosting import exception_handlers, log
from governed_serving.hosting.bodies import BodyLimit, body_chunks, read_body
from governed_serving.records import APPEND_BYTES, AppendRequest

__all__ = ["create_app", "create_public_app"]

_MAX_ENTRIES = 1000
_UPLOADS = 16
_BINARY = "application/octet-stream"
_STALLED = 60.0
"""Seconds after which a backup whose client takes nothing ends."""
_IMMUTABLE = {"cache-control": "public, max-age=31536000, immutable"}
_append_decoder = msgspec.msgpack.Decoder(AppendRequest)
Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    archive: Archive,
    tokens: Tokens,
    metrics: ArchiveMetrics,
    background: Callable[[], Awaitable[None]] | None = None,
    leaving: Callable[[], bool] = lambda: False,
    copying: Copying | None = None,
) -> Starlette:
    """The ASGI application. ``background`` runs beside it (the report); the archive is closed when it stops;
    ``leaving``: not ready; ``copying``: what is written is acknowledged once it says that it is stored."""
    state = _State(archive, tokens, metrics, leaving, copying)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.ensure_future(background()) if background else None
        state.ready = True
        yield
        state.ready = False
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if copying:
            await run_in_threadpool(copying.finish)
        try:
            await run_in_threadpool(archive.close)
        except OSError as error:  # what is derived wasn't written: the next start makes it from the entries
            log(
                "error",
                "checkpoint or snapshot not written as the archive stopped",
                error=str(error),
            )

    routes = [
        Route(path, metrics.timed(path, state.guarded(path, methods, handler)), methods=list(methods))
        for path, methods, handler in _routes(state)
    ]
    routes += [
        Route(LIVE_PATH, state.live),
        Route(READY_PATH, state.readiness),
        Route(METRICS_PATH, state.figures),
    ]
    return _without_redirects(Starlette(routes=routes, lifespan=lifespan, exception_handlers=_handlers()))


def create_public_app(archive: Archive, metrics: ArchiveMetrics) -> Starlette:
    """For whoever watches the log from outside: reads of hashes, checkpoints and keys, and nothing else."""
    table = _public_routes(archive)
    app = Starlette(
        routes=[Route(path, metrics.timed(path, handler), methods=list(methods)) for path, methods, handler in table],
        exception_handlers=_handlers(),
    )
    return _without_redirects(app)


def _without_redirects(app: Starlette) -> Starlette:
    """They would lead to wherever the Host field says."""
    app.router.redirect_slashes = False
    return app


def _handlers() -> dict[Any, Any]:
    return {ArchiveError: _problem, HTTPException: _http_problem, OSError: _disk_problem, **exception_handlers()}


class _Whose(msgspec.Struct):
    """What of an entry says who may read it."""

    model: str


_whose_decoder = msgspec.json.Decoder(_Whose)


class _State:
    """What the handlers share."""

    def __init__(
        self,
        archive: Archive,
        tokens: Tokens,
        metrics: ArchiveMetrics,
        leaving: Callable[[], bool],
        copying: Copying | None,
    ):
        self.archive, self.copying = archive, copying
        self.tokens, self.metrics = tokens, metrics
        self.ready, self._leaving = False, leaving
        self.uploads = asyncio.Semaphore(_UPLOADS)

    def guarded(self, path: str, methods: Sequence[str], handler: Handler) -> Handler:
        """``handler``, behind the table of who may do what. Raises LookupError for a route that the table hasn't."""
        acts = {method: self._act(method, path) for method in methods if method != "HEAD"}

        async def checked(request: Request) -> Response:
            act = acts["GET" if request.method == "HEAD" else request.method]
            if act is None:
                return await handler(request)
            role = ""
            try:
                speaker = self._speaker(request)
                role = speaker.role or "older"
                _check(speaker, act, request)
                request.state.speaker = speaker
                answer = await handler(request)
                if self.copying and request.method not in ("GET", "HEAD") and path != routes.BLOB:
                    await self.copying.stored()
                return answer
            except Refused as error:
                if reason := error.details.get("reason"):
                    self.metrics.refused(role, act.name.lower(), str(reason))
                raise

        return checked

    @staticmethod
    def _act(method: str, path: str) -> Act | None:
        if (method, path) in PUBLIC:
            return None
        if (method, path) not in ACTS:
            raise LookupError(f"{method} {path}: say in archive/reach.py who may do it")
        return ACTS[method, path]

    def _speaker(self, request: Request) -> Speaker:
        """Who the bearer token speaks for. Raises Refused (401, 403)."""
        claimed = request.headers.get("x-governed-model", "")
        asked = request.path_params.get("model") or request.query_params.get("model", "")
        named = [claimed] if claimed else [asked, *self.archive.models()]
        speaker = self.tokens.speaker(request.headers.get("authorization", ""), named)
        if claimed:
            speaker.check_model(claimed)
        return speaker

    def figures(self, _: Request) -> Response:
        self.metrics.tell_older_tokens(self.tokens.older_taken, self.tokens.older_until)
        return Response(self.metrics.render(self.archive, self.copying), media_type=self.metrics.media_type)

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def readiness(self, _: Request) -> Response:
        if not self.ready or self._leaving():
            return _json({"error": "the archive is stopping"}, 503)
        if away := self.archive.blobs.away or (self.copying.problem if self.copying else ""):
            return _json({"error": away}, 503)
        return _json({"ready": True})


_Table = list[tuple[str, tuple[str, ...], Handler]]
"""Path, methods, handler."""


def _routes(state: _State) -> _Table:
    return [
        *_ledger_routes(state),
        *_proof_routes(state),
        *_blob_routes(state),
        *_keyset_routes(state),
        *_named_routes(state),
        *_backup_routes(state),
        (routes.DOSSIER, ("POST",), _signing(state.archive)),
    ]


def _ledger_routes(state: _State) -> _Table:
    ledger = state.archive.ledger

    async def append(request: Request) -> Response:
        try:
            asked = decode_with(_append_decoder, await _body(request, APPEND_BYTES))
        except msgspec.DecodeError as error:
            raise Refused(400, f"expected a msgpack AppendRequest: {error}") from None
        batch = await run_in_threadpool(state.archive.admit, _speaker_of(request), asked)
        done = await asyncio.wrap_future(state.archive.appender.submit(batch))
        return _json({"first_index": done.first_index, "size": done.size, "ranges": done.ranges})

    async def entries(request: Request) -> Response:
        start, end = _number(request, "start"), _number(request, "end")
        if start > end:
            raise Refused(400, f"expected 0 ≤ start ≤ end, found start={start}, end={end}")
        listed = await run_in_threadpool(ledger.entries, start, min(end, start + _MAX_ENTRIES))
        if not (speaker := _speaker_of(request)).reads_all:
            listed = [e if decode_with(_whose_decoder, e).model == speaker.model else HIDDEN for e in listed]
        return Response(b'{"entries":[' + b",".join(listed) + b"]}", media_type="application/json")

    async def stream(request: Request) -> Response:
        following = ledger.next_seq(_speaker_of(request).model, request.path_params["stream"])
        return _json({"next_seq": following or 0})

    async def find(request: Request) -> Response:
        query, model = request.query_params, _model_of(request)
        limit = max(min(_number(request, "limit", 100), _MAX_ENTRIES), 1)
        about, before = (query.get("id", ""), query.get("type", "")), _number(request, "before", ledger.size)
        listed, rest = await run_in_threadpool(ledger.page, model, *about, limit, before)
        answer = _json([{"index": f.index, "entry": msgspec.Raw(f.entry)} for f in listed])
        if rest:
            answer.headers[BEFORE_HEADER] = str(rest)
        return answer

    return [
        (routes.ENTRIES, ("POST",), append),
        (routes.ENTRIES, ("GET",), entries),
        (routes.STREAM, ("GET",), stream),
        (routes.FIND, ("GET",), find),
    ]


def _public_routes(archive: Archive) -> _Table:
    """For anyone: hashes, signatures and keys. No entry, no id and no model's name can be learnt from them."""
    ledger = archive.ledger

    async def checkpoint(_: Request) -> Response:
        return PlainTextResponse(archive.witnessed.cosigned(await run_in_threadpool(archive.show)))

    async def witnessed(_: Request) -> Response:
        if not archive.witnessed.note:
            raise Refused(404, "no checkpoint has been cosigned by enough witnesses; the newest one is at /checkpoint")
        return PlainTextResponse(archive.witnessed.note)

    async def key(_: Request) -> Response:
        return PlainTextResponse(ledger.vkey + "\n")

    async def inclusion(request: Request) -> Response:
        index, size = _number(request, "index"), _number(request, "size", ledger.size)
        hashes = await _proved(ledger.inclusion, index, size)
        return _json({"index": index, "size": size, "hashes": [h.hex() for h in hashes]})

    async def consistency(request: Request) -> Response:
        first, second = _number(request, "first"), _number(request, "second", ledger.size)
        hashes = await _proved(ledger.consistency, first, second)
        return _json({"first": first, "second": second, "hashes": [h.hex() for h in hashes]})

    async def tile(request: Request) -> Response:
        level, number, width = parse_tile(request.path_params["level"], request.path_params["tile"])
        try:
            data = await run_in_threadpool(ledger.tile, level, number, width)
        except KeyError as error:
            raise Refused(404, str(error.args[0])) from None
        return Response(data, headers=_IMMUTABLE, media_type=_BINARY)

    return [
        (routes.CHECKPOINT, ("GET",), checkpoint),
        (routes.WITNESSED, ("GET",), witnessed),
        (routes.LEDGER_KEY, ("GET",), key),
        (routes.PROOF_INCLUSION, ("GET",), inclusion),
        (routes.PROOF_CONSISTENCY, ("GET",), consistency),
        (f"{routes.TILES}/{{level}}/{{tile:path}}", ("GET",), tile),
    ]


def _proof_routes(state: _State) -> _Table:
    ledger = state.archive.ledger

    async def receipt(request: Request) -> Response:
        id = request.query_params.get("id", "")
        proof = await run_in_threadpool(state.archive.receipt, _model_of(request), id)
        return PlainTextResponse(proof.text())

    async def bundle(request: Request) -> Response:
        _, number, width = parse_tile("0", request.path_params["tile"])
        first = number * WIDTH
        entries = await run_in_threadpool(ledger.entries, first, first + width)
        if len(entries) < width:
            raise Refused(404, f"entries {first} to {first + width - 1} are beyond a log of {ledger.size}")
        return Response(entry_bundle(entries), media_type=_BINARY)

    return [
        (routes.LEDGER_RECEIPT, ("GET",), receipt),
        (f"{routes.ENTRY_BUNDLES}/{{tile:path}}", ("GET",), bundle),
        *_public_routes(state.archive),
    ]


def _signing(archive: Archive) -> Handler:
    async def sign(request: Request) -> Response:
        model, digest = request.path_params["model"], request.path_params["digest"]
        return PlainTextResponse(await run_in_threadpool(archive.sign_dossier, model, digest))

    return sign


def _blob_routes(state: _State) -> _Table:
    archive = state.archive

    async def put_blob(request: Request) -> Response:
        digest = request.path_params["digest"]
        if archive.blobs.expired(digest) or archive.blobs.is_here(digest):
            return _json({"blob": digest}, 200)  # a shipper that was killed sends again what may be deleted by now
        async with state.uploads:
            fresh = await _receive(request, state, digest)
        return _json({"blob": digest}, 201 if fresh else 200)

    async def get_blob(request: Request) -> Response:
        digest = request.path_params["digest"]
        if not (speaker := _speaker_of(request)).reads_all and speaker.role is not None:
            await run_in_threadpool(_check_named, archive, speaker, digest, request)
        if archive.blobs.expired(digest):
            raise Refused(
                410, f"blob {digest} was deleted under governance.privacy.retention; the ledger has the receipt"
            )
        if await run_in_threadpool(archive.blobs.size, digest) is None:
            raise Refused(404, f"blob {digest} is not here")
        path, copy = await run_in_threadpool(archive.blobs.fetched, digest)
        return (_Lent if copy else FileResponse)(path, media_type=_BINARY)

    return [
        (routes.BLOB, ("PUT",), put_blob),
        (routes.BLOB, ("GET", "HEAD"), get_blob),
    ]


def _keyset_routes(state: _State) -> _Table:
    archive = state.archive

    async def get_keyset(request: Request) -> Response:
        model, purpose = request.path_params["model"], request.path_params["purpose"]
        return Response(archive.keyset(model, purpose), media_type="application/json")

    async def put_keyset(request: Request) -> Response:
        model, purpose = request.path_params["model"], request.path_params["purpose"]
        document = await _body(request, 256 << 10)
        expected = _digest(request, "if-match")
        if expected:
            await run_in_threadpool(archive.replace_keyset, model, purpose, document, expected)
            return _json({"purpose": purpose})
        existing = await run_in_threadpool(archive.create_keyset, model, purpose, document)
        if existing is not None:
            return Response(existing, 409, media_type="application/json")
        return _json({"purpose": purpose}, 201)

    async def delete_keyset(request: Request) -> Response:
        model, purpose = request.path_params["model"], request.path_params["purpose"]
        receipt = await _body(request, 64 << 10)
        await run_in_threadpool(archive.destroy_keyset, model, purpose, receipt)
        return _json({"purpose": purpose})

    async def purposes(request: Request) -> Response:
        return _json({"purposes": archive.purposes(request.path_params["model"])})

    return [
        (routes.KEYSETS, ("GET",), purposes),
        (routes.KEYSET, ("GET",), get_keyset),
        (routes.KEYSET, ("PUT",), put_keyset),
        (routes.KEYSET, ("DELETE",), delete_keyset),
    ]


def _named_routes(state: _State) -> _Table:
    """References and states."""
    archive = state.archive

    async def get_ref(request: Request) -> Response:
        model = request.path_params["model"]
        return Response(archive.reference(model, request.path_params["name"]), media_type="application/json")

    async def put_ref(request: Request) -> Response:
        model, name = request.path_params["model"], request.path_params["name"]
        await run_in_threadpool(archive.put_reference, model, name, await _body(request, 64 << 10))
        return _json({"name": name})

    async def refs(request: Request) -> Response:
        return _json({"refs": archive.references(request.path_params["model"])})

    async def get_state(request: Request) -> Response:
        model, held = request.path_params["model"], _digest(request, "if-none-match")
        data, digest = await run_in_threadpool(archive.state, model, request.path_params["name"], held)
        headers = {"etag": f'"{digest}"'}
        return Response(status_code=304, headers=headers) if digest == held else Response(data, 200, headers, _BINARY)

    async def put_state(request: Request) -> Response:
        model, name = request.path_params["model"], request.path_params["name"]
        async with state.uploads:
            await run_in_threadpool(archive.put_state, model, name, await _body(request, States.MAX_BYTES))
        return _json({"name": name})

    async def states(request: Request) -> Response:
        return _json({"states": archive.states(request.path_params["model"])})

    return [
        (routes.REFS, ("GET",), refs),
        (routes.REF, ("GET",), get_ref),
        (routes.REF, ("PUT",), put_ref),
        (routes.STATES, ("GET",), states),
        (routes.STATE, ("GET",), get_state),
        (routes.STATE, ("PUT",), put_state),
    ]


class _Lent(FileResponse):
    """A copy that goes when it was sent, and however else that ends: a range that can't be, a client that goes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._discard()  # at once: a request that is cancelled waits for nothing more

    def _discard(self) -> None:
        Path(self.path).unlink(missing_ok=True)


class _Streamed(Response):
    """A backup as it is taken. A client that goes, or takes nothing for a minute, ends it: retention waits for it."""

    media_type = "application/x-tar"

    def __init__(self, snapshot: Snapshot):
        super().__init__()
        del self.headers["content-length"]
        self._snapshot = snapshot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, chunks = Request(scope, receive), self._snapshot.chunks()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while chunk := await run_in_threadpool(next, chunks, b""):
                await asyncio.wait_for(send({"type": "http.response.body", "body": chunk, "more_body": True}), _STALLED)
                if await request.is_disconnected():
                    log("warning", "a backup was broken off by its client")
                    return
        except (ArchiveError, OSError, TimeoutError) as error:  # the head is out: an end without its manifest says so
            log("error", "a backup was broken off", error=str(error) or type(error).__name__)
            return
        finally:
            self._snapshot.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _backup_routes(state: _State) -> _Table:
    async def speaker(request: Request) -> Response:
        who = _speaker_of(request)
        return _json({"model": who.model, "role": who.role or ""})

    async def backup(_: Request) -> Response:
        return _Streamed(await run_in_threadpool(Snapshot, state.archive))

    return [(routes.SPEAKER, ("GET",), speaker), (routes.BACKUP, ("GET",), backup)]


def _speaker_of(request: Request) -> Speaker:
    """Whom the guard before the handler has found."""
    speaker: Speaker = request.state.speaker
    return speaker


def _model_of(request: Request) -> str:
    """The model that the query names; otherwise the token's. Raises Refused (403)."""
    speaker = _speaker_of(request)
    model = request.query_params.get("model", "") or speaker.model
    speaker.check_model(model)
    return model


def _check(speaker: Speaker, act: Act, request: Request) -> None:
    """Raises Refused (403)."""
    params = request.path_params
    if "model" in params:
        speaker.check_model(params["model"])
    if act is Act.CREATE_KEYSET and _digest(request, "if-match"):
        act = Act.REPLACE_KEYSET
    speaker.check(act, params.get("purpose") or params.get("name") or "")


def _check_named(archive: Archive, speaker: Speaker, digest: str, request: Request) -> None:
    """A blob is its model's by an entry or a reference that names it. Raises Refused (403)."""
    index, reference = _number(request, "entry", -1), request.query_params.get("ref", "")
    if reference:
        speaker.check(Act.GET_REF, reference)
    if not archive.names_blob(speaker.model, digest, index, reference):
        what = f"an entry (entry=INDEX) or reference (ref=NAME) of {speaker.model} that names blob {digest[:80]}"
        raise Refused(403, f"expected {what}, found none: it may be another model's", reason=OTHER_MODEL)


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries as C2SP tlog-tiles puts them together: each behind its length, 16 bits big-endian. Raises Refused (422)
    for one that is longer, of a log that took such."""
    if longest := max(map(len, entries), default=0) >> 16:
        raise Refused(422, f"an entry of more than {longest << 16} bytes has no place in an entry bundle")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_tile(level: str, path: str) -> tuple[int, int, int]:
    """(level, number, width) of a tile's path in the C2SP layout; raises Refused (400)."""
    name, _, partial = path.partition(".p/")
    groups = name.split("/")
    digits = [g.removeprefix("x") for g in groups]
    shape = [g.startswith("x") for g in groups] == [True] * (len(groups) - 1) + [False]
    short = len(level) <= 2 and len(groups) <= 7 and len(partial) <= 3 and (level + path).isascii()
    if not (short and shape and level.isdecimal() and all(len(d) == 3 and d.isdecimal() for d in digits)):
        raise Refused(400, f"a tile's path is LEVEL/x001/x234/067[.p/WIDTH], found {level[:8]}/{path[:80]}")
    width = int(partial) if partial.isdecimal() else WIDTH
    exact = level == str(int(level)) and partial in ("", str(width)) and partial != str(WIDTH)
    if not 1 <= width <= WIDTH or (partial and not partial.isdecimal()) or not exact:
        raise Refused(400, f"a partial tile has 1 to {WIDTH - 1} hashes, found {partial}")
    return int(level), int("".join(digits)), width


async def _receive(request: Request, state: _State, digest: str) -> bool:
    """Stream the body into the blob store; True when it is new."""
    writer = await run_in_threadpool(state.archive.blobs.writer, digest)
    with writer:
        async for chunk in body_chunks(request.receive, _cut):
            await run_in_threadpool(writer.write, chunk)
        return await run_in_threadpool(writer.commit)


async def _body(request: Request, limit: int) -> bytes:
    def too_long(_: int) -> Refused:
        return Refused(413, f"the body may have at most {limit} bytes")

    return await read_body(request.receive, BodyLimit(limit, too_long), _cut)


def _cut(message: str) -> Refused:
    return Refused(400, message)


def _digest(request: Request, header: str) -> str:
    """The one entity tag that a condition names; "" when there is none."""
    return request.headers.get(header, "").strip('"')


async def _proved(proof: Callable[[int, int], list[bytes]], first: int, second: int) -> list[bytes]:
    try:
        return await run_in_threadpool(proof, first, second)
    except ValueError as error:
        raise Refused(400, str(error)) from None


def _number(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refused(400, f"the query must give {name} as a number, found {text!r}")
    return int(text)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _problem(_: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return _json({"error": str(error), **error.details}, error.status)
    if isinstance(error, Busy):
        answer = _json({"error": str(error)}, error.status)
        answer.headers["retry-after"] = "1"
        return answer
    return _json({"error": str(error)}, 500 if isinstance(error, LedgerDamaged | Unverified) else 400)


async def _disk_problem(_: Request, error: Exception) -> Response:
    return _json({"error": f"the archive's volume: {error}"}, 507)


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)
