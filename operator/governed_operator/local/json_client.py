"""JSON of one process, asked for over HTTP: bounded in time and size, no redirect followed, no secret in a message.

ClientError        what was asked, what was found, what to do; ``status`` of HTTP, None where none was answered
├── Refused        a status of 400 or more: ``message`` in the answer's words, ``retry_after`` in seconds
├── Unavailable    no answer: nobody listens, the connection was cut, TLS doesn't hold
├── TimedOut       no answer in time (status 504)
├── Unreadable     an answer that none of our processes gives: HTML, a redirect, too much
└── InvalidInput   what was to be asked; nothing was sent
"""

import json
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import NamedTuple

import httpx

from governed_api.callers import API_KEY_HEADER
from governed_api.json_types import Json
from governed_api.pauses import pause, retry_after
from governed_api.printable import printable
from governed_api.runtime import POD_TOKEN_HEADER
from governed_api.strict_json import strict_json

__all__ = [
    "LARGEST",
    "Answer",
    "ClientError",
    "InvalidInput",
    "JsonClient",
    "Refused",
    "TimedOut",
    "Unavailable",
    "Unreadable",
]

LARGEST = 64 << 20
"""Bytes of an answer; more is none of a model's."""
_LEAST = 0.05
"""Seconds that a try has at least: the deadline ends the call, not the socket."""
_FIRST, _LONGEST = 0.1, 5.0
"""Seconds of pauses between tries, where the answer asks for less."""
_WORDS = 2000
"""Characters of an answer that a message repeats."""
_SECRET = ("authorization", API_KEY_HEADER, POD_TOKEN_HEADER)
"""Headers of a request that no message may repeat, though an answer does."""


class ClientError(Exception):
    """The model can't be reached or refuses; the message says what it answered, ``status`` with which HTTP status."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Refused(ClientError):
    """Answered with an error. ``message``: the answer's own words; ``retry_after``: seconds after which another try may
    help, None where the answer doesn't say."""

    def __init__(self, text: str, message: str, status: int, retry_after: float | None = None):
        super().__init__(text, status)
        self.message, self.retry_after = message, retry_after


class Unavailable(ClientError):
    """No answer: nobody listens, the connection was cut, or TLS doesn't hold."""


class TimedOut(ClientError):
    """No answer in time."""


class Unreadable(ClientError):
    """An answer that none of our processes gives."""


class InvalidInput(ClientError, ValueError):
    """Nothing was sent: the message says what was expected, and where."""


class Answer(NamedTuple):
    """``headers``: by their names, in any case."""

    data: bytes
    headers: httpx.Headers
    status: int


class JsonClient:
    """Speaks to the process at ``url``. ``timeout`` in seconds, of a whole call; ``headers``: of every request;
    ``auth`` adds to them; ``trusted``: certificates, else the usual ones. ``retried``: statuses after which a call is
    tried again, within its timeout, where the answer has a Retry-After."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        trusted: ssl.SSLContext | None = None,
        retried: Collection[int] = (),
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = _checked(url)
        self._http = httpx.Client(
            base_url=self.base,
            headers=headers,
            auth=auth,
            verify=trusted or True,
            transport=transport,
            trust_env=False,
            follow_redirects=False,
        )
        self._timeout, self._retried, self._sleep = timeout, retried, sleep

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base!r})"

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def mapping(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Json]:
        """The JSON mapping that is answered. Raises ClientError."""
        return self.document(path, self.ask(method, path, body, headers))

    def document(self, path: str, answer: Answer) -> dict[str, Json]:
        """The JSON mapping of an answer. Raises Unreadable."""
        try:
            document = strict_json(answer.data)
        except ValueError as error:
            raise Unreadable(f"{self.base}{path} answered {answer.status} and {_no_json(answer)}") from error
        if not isinstance(document, dict):
            raise Unreadable(f"{path}: expected a JSON mapping, found {type(document).__name__}")
        return document

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        retried: Collection[int] | None = None,
    ) -> Answer:
        """The answer, of a status below 300; ``retried``: other statuses than the client's, after which it is asked
        again. Raises ClientError."""
        content = None if body is None else _encoded(body)
        headers = {**(headers or {}), **({} if content is None else {"content-type": "application/json"})}
        until, attempt, again = time.monotonic() + self._timeout, 0, self._retried if retried is None else retried
        while True:
            try:
                return self._once(path, self._http.build_request(method, path, content=content, headers=headers), until)
            except Refused as refusal:
                if refusal.status not in again or refusal.retry_after is None:
                    raise
                seconds = pause(_FIRST, _LONGEST, attempt, refusal.retry_after)
                if time.monotonic() + seconds > until:
                    raise
            self._sleep(seconds)
            attempt += 1

    def _once(self, path: str, request: httpx.Request, until: float) -> Answer:
        seconds = max(_LEAST, until - time.monotonic())
        request.extensions["timeout"] = httpx.Timeout(seconds).as_dict()
        try:
            answer = self._http.send(request, stream=True)
            try:
                data = self._read(answer, path, until)
            finally:
                answer.close()
        except httpx.ReadTimeout as error:
            raise self._late(path) from error
        except httpx.DecodingError as error:
            raise Unreadable(f"{self.base}{path}: expected an answer that can be unpacked: {error}") from error
        except httpx.HTTPError as error:
            why = self._without_secrets(str(error), request)
            raise Unavailable(f"{self.base}: {why or type(error).__name__}: is the model running there?") from error
        if HTTPStatus.MULTIPLE_CHOICES <= answer.status_code < HTTPStatus.BAD_REQUEST:
            raise Unreadable(
                f"{self.base}{path} answered {answer.status_code}, a redirect to "
                f"{self._without_secrets(answer.headers.get('location', 'nowhere'), request)}: none is followed, since "
                "keys and rows would go along; give the address that it should be"
            )
        found = Answer(data, answer.headers, answer.status_code)
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            raise self._refusal(path, found, request)
        return found

    def _read(self, answer: httpx.Response, path: str, until: float) -> bytes:
        pieces, size = [], 0
        for piece in answer.iter_bytes():
            size += len(piece)
            if size > LARGEST:
                raise Unreadable(f"{self.base}{path}: expected an answer of at most {LARGEST:,} bytes, found more")
            if time.monotonic() > until:
                raise self._late(path)
            pieces.append(piece)
        return b"".join(pieces)

    def _late(self, path: str) -> TimedOut:
        return TimedOut(
            f"{self.base}{path}: no answer within {self._timeout:g} s; ask again when the machine is less busy, or "
            "for less",
            HTTPStatus.GATEWAY_TIMEOUT,
        )

    def _refusal(self, path: str, answer: Answer, request: httpx.Request) -> Refused:
        asked = answer.headers.get("retry-after")
        try:
            message = self._without_secrets(_words(strict_json(answer.data)), request)
            text = f"{path} answered {answer.status}: {message}"
        except ValueError:
            message = _no_json(answer)
            text = f"{self.base}{path} answered {answer.status} and {message}"
        return Refused(text, message, answer.status, None if asked is None else retry_after(asked))

    @staticmethod
    def _without_secrets(text: str, request: httpx.Request) -> str:
        """Fit for a terminal, and without what ``request`` shows who asks by, which some proxies repeat."""
        for name in _SECRET:
            secret = request.headers.get(name, "").rpartition(" ")[2]
            text = text.replace(secret, f"[{name}]") if secret else text
        return printable(text[:_WORDS])


def _words(said: Json) -> str:
    """Of an error in the form of the Open Inference Protocol, or of OpenAI's; of anything else, what it is."""
    words = said.get("error", said) if isinstance(said, dict) else said
    return str(words.get("message", words) if isinstance(words, dict) else words)


def _no_json(answer: Answer) -> str:
    kind = printable(answer.headers.get("content-type", "")[:100])
    return f"no JSON{f' ({kind})' if kind else ''}: is that the model's own address?"


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected values that JSON has a form for: {error}") from error


def _checked(url: str) -> str:
    """``url`` without a slash at its end. Raises InvalidInput, without a password that is in it."""
    form = "expected http://HOST:PORT or https://HOST, with a path before /v2 where there is one"
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise InvalidInput(f"url: {form}, found something else") from None
    if parts.userinfo:
        raise InvalidInput(f"url: {form}, found one with a user or password: leave them out")
    strange = parts.query or parts.fragment or not url.isprintable() or " " in url
    if parts.scheme not in ("http", "https") or not parts.host or strange:
        raise InvalidInput(f"url: {form}, found {printable(url[:200])!r}")
    return url.rstrip("/")
