"""What a process reads from its pod's environment (names: governed_api.runtime): typed, and told in one sentence where
it's wrong.

A variable that is set to nothing counts as not set.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pydantic

from governed_api import runtime
from governed_api.resolved import ResolvedModel
from governed_serving.pod_token import NO_POD_TOKENS, PodToken, PodTokens

__all__ = ["InvalidSettings", "PodEnvironment", "Token", "missing", "read_model", "token_reader"]

Token = str | Callable[[], str]
"""A bearer token, or what reads it anew: a Secret that is replaced changes the file while the process runs."""


def token_reader(token: Token) -> Callable[[], str]:
    """What gives the token as it is now."""
    return token if callable(token) else lambda: token


class InvalidSettings(Exception):
    """A variable is missing or has a value of the wrong kind; the message names it, and what to do."""


def missing(name: str, what: str) -> InvalidSettings:
    """The error for a variable ``name`` that isn't set, though a process needs ``what``."""
    return InvalidSettings(f"{name}: expected {what}, found nothing; set it")


class PodEnvironment:
    """Typed look-ups in ``variables``. Every method raises InvalidSettings, and nothing else."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = variables

    def text(self, name: str, default: str = "") -> str:
        """The value, or ``default`` where it isn't set."""
        return self._variables.get(name) or default

    def required(self, name: str, what: str) -> str:
        """The value; ``what`` says what is expected, as in "the address of the archive"."""
        if value := self.text(name):
            return value
        raise missing(name, what)

    def path(self, name: str) -> Path | None:
        """A path, or None where it isn't set."""
        value = self.text(name)
        return Path(value) if value else None

    def required_path(self, name: str, what: str) -> Path:
        """A path; nobody has looked yet whether there is something."""
        return Path(self.required(name, what))

    def number(self, name: str, default: int) -> int:
        """A whole number ≥ 0."""
        value = self.text(name)
        if not value:
            return default
        if not (value.isascii() and value.isdecimal()):
            raise InvalidSettings(f"{name}: expected a whole number, found {value!r}; correct or unset it")
        return int(value)

    def port(self, name: str, default: int) -> int:
        """A TCP port, 0 … 65535; 0 is none, or any that is free."""
        number = self.number(name, default)
        if number > 65535:
            raise InvalidSettings(f"{name}: expected a port up to 65535, found {number}; correct or unset it")
        return number

    def url(self, name: str, default: str = "") -> str:
        """An HTTP address without the slash at its end, or ``default``."""
        value = self.text(name, default).rstrip("/")
        if value and not _is_http(value):
            raise InvalidSettings(
                f"{name}: expected an address such as http://host:{runtime.PORT_HTTP}, found {value!r}; correct it"
            )
        return value

    def required_url(self, name: str, what: str) -> str:
        """An HTTP address without the slash at its end."""
        self.required(name, what)
        return self.url(name)

    def content(self, name: str, what: str) -> bytes:
        """What is in the file that the variable names."""
        return _content(name, self.required_path(name, f"the path of {what}"), what)

    def token(self, name: str = runtime.ARCHIVE_TOKEN_FILE) -> str:
        """The bearer token in the file that the variable names."""
        value = self.content(name, "the archive's token").strip()
        if not value or not value.isascii():
            raise InvalidSettings(
                f"{name}: expected a token in the file, found {len(value)} bytes that are none; write it anew"
            )
        return value.decode()

    def pod_tokens(self) -> PodTokens:
        """What the pod's inner ports ask for. Read once: they are as old as the pod."""
        folder = self.path(runtime.POD_TOKENS)
        if folder is None:
            return NO_POD_TOKENS
        return PodTokens(*(_pod_token(folder / name) for name in PodTokens._fields))

    def archive(self) -> tuple[str, Token]:
        """(address, token) of the archive; ("", "") where the process has none. The token is read once here, to say at
        the start what is wrong with it, and anew whenever it is called; while the file can't be read, it is as before.
        """
        url = self.url(runtime.ARCHIVE_URL)
        if not url:
            return "", ""
        last = self.token()

        def token() -> str:
            nonlocal last
            try:
                last = self.token()
            except InvalidSettings:
                return last  # it is being replaced
            return last

        return url, token

    def model(self) -> ResolvedModel:
        """The resolved spec that GOVERNED_SPEC names."""
        return read_model(self.required_path(runtime.SPEC, "the path of the resolved spec"))


def read_model(path: Path) -> ResolvedModel:
    """The resolved spec at ``path``, which GOVERNED_SPEC names. Raises InvalidSettings."""
    content = _content(runtime.SPEC, path, "the resolved spec")
    try:
        return ResolvedModel.model_validate_json(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(f"{runtime.SPEC}: {where + ': ' if where else ''}{first['msg']}") from error


def _content(name: str, path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"{name}: {path}: expected {what}, found {error.strerror}; correct the path") from error


def _pod_token(path: Path) -> PodToken:
    name, what = runtime.POD_TOKENS, "the token of a port of this pod"
    try:
        return PodToken(_content(name, path, what).strip())
    except ValueError as error:
        raise InvalidSettings(
            f"{name}: {path}: {error}; the auditor makes it when a pod starts: delete the pod"
        ) from None


def _is_http(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
