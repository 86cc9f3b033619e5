"""A client of one served model."""

import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, overload

import httpx
from pydantic.alias_generators import to_camel

from governed.answers import Explanation, Prediction, explanation_of, predictions_of
from governed.plain import plain
from governed.rows import Frame, Rows, rows_of
from governed_api import routes
from governed_api.explaining import OPTIONS
from governed_api.json_reading import items, text_of
from governed_api.runtime import PORT_HTTP, PROMISE_HEADER
from governed_operator.local.client import EXPLANATION_PATIENCE, TIMEOUT, Metadata, ModelClient
from governed_operator.local.json_client import InvalidInput, JsonClient, TimedOut, Unavailable
from governed_operator.local.workdir import Workdir

__all__ = ["ApiKey", "Client"]

ApiKey: TypeAlias = str | Callable[[], str]
"""An API key (``gmk_…``) or an issuer's token (a JWT); or what gives one, asked before each request: for tokens that
end."""
_RETRIED = (429, 503)
"""Refused before anything was computed: another try asks for the same once more."""
_PROMISE = {PROMISE_HEADER: "1"}


class Client:
    """Of the model at ``url`` (``http://127.0.0.1:8080``, or an https address with a path where there is one); without
    one, of the run of ``model`` that ``governed run`` serves from this folder. A context manager; else `close` it.

    ``model``: its name; asked for where there is only one. ``api_key``: shown as ``Authorization: Bearer``, and never
    part of a message or a ``repr``. ``timeout``: seconds of a whole call, tries included. ``ca``: PEM file of the
    certificates to trust instead of the usual ones. A call that is refused with 429 or 503 is tried again when the
    answer's Retry-After says, as long as its timeout lasts; nothing else is. No redirect is followed.

    Every method raises ClientError: Refused (status, message, retry_after), Unavailable, TimedOut, Unreadable, or,
    before anything is sent, InvalidInput.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: ApiKey | None = None,
        timeout: float = TIMEOUT,
        ca: str | Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if url is None and model is None:
            raise InvalidInput("expected a url, or the name of a model that governed run serves from this folder")
        if timeout <= 0:
            raise InvalidInput(f"timeout: expected more than 0 seconds, found {timeout:g}")
        self._http = JsonClient(
            url if url is not None else Workdir.of(model or "").address(PORT_HTTP),
            timeout=timeout,
            auth=None if api_key is None else _Bearer(api_key),
            trusted=None if ca is None else _trusted(ca),
            retried=_RETRIED,
            transport=transport,
        )
        self._model = None if model is None else ModelClient(self._http, model)

    def __repr__(self) -> str:
        return f"governed.Client({self._http.base!r})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the model answers now; False while nobody listens there as well."""
        try:
            return self._asked().ready()
        except (Unavailable, TimedOut):
            return False

    def metadata(self) -> Metadata:
        """Inputs by name, V2 datatype and shape (-1: the rows); in ``parameters`` the classes and, where sets or
        intervals are promised, their coverage. Asked once."""
        return self._asked().metadata()

    @overload
    def predict(self, rows: Mapping[str, object], *, promise: bool = False) -> Prediction: ...

    @overload
    def predict(self, rows: Sequence[Mapping[str, object]] | Frame, *, promise: bool = False) -> list[Prediction]: ...

    def predict(self, rows: Rows, *, promise: bool = False) -> Prediction | list[Prediction]:
        """One row (a mapping) → its prediction; a list of rows or a data frame → a list, in their order, asked in one
        request. ``promise``: with a signed promise that the record will be in the ledger (where the manifest has
        ``governance.audit.promises``)."""
        client = self._asked()
        metadata = client.metadata()
        asked = rows_of(rows, [tensor["name"] for tensor in metadata["inputs"]])
        answer, headers = client.inferred(asked, _PROMISE if promise else None)
        found = predictions_of(answer, headers, metadata, len(asked))
        return found[0] if isinstance(rows, Mapping) else found

    def explain(
        self,
        row: Mapping[str, object],
        method: str | None = None,
        *,
        patience: float = EXPLANATION_PATIENCE,
        **options: object,
    ) -> Explanation:
        """Why the model answers ``row`` as it does. ``method``: shap (default), lime, anchors, counterfactual, …;
        ``options``: max_evaluations, budget_milliseconds, precision, confidence, seed, groups, interactions and others,
        as the explainer's README lists them. What takes longer than a request may is computed as a job and waited for
        ``patience`` seconds."""
        told = {name: value for name, value in {"method": method, **options}.items() if value is not None}
        known = [name for name, option in OPTIONS.items() if option.within("request")]
        if strange := [name for name in told if name not in known]:
            raise InvalidInput(f"explain has no option {strange[0]!r}: expected some of {', '.join(known)}")
        try:
            parameters = {to_camel(name): plain(value, name) for name, value in told.items()}
        except (TypeError, ValueError) as error:
            raise InvalidInput(str(error)) from None
        client = self._asked()
        (asked,) = rows_of([row], [tensor["name"] for tensor in client.metadata()["inputs"]])
        return explanation_of(client.explain_in_time(asked, parameters, patience=patience))

    def receipt(self, prediction: Prediction | str) -> str:
        """The proof that an answer is in the ledger (a C2SP tlog-proof, for ``governed verify``); waited for within the
        timeout, since records are shipped seconds after their answers."""
        return self._asked().receipt(prediction.id if isinstance(prediction, Prediction) else prediction)

    def _asked(self) -> ModelClient:
        if self._model is None:
            names = items(self._http.mapping("GET", routes.V2_MODELS).get("models"))
            if len(names) != 1:
                listed = ", ".join(map(text_of, names)) or "none"
                raise InvalidInput(f"model: expected its name, since {self._http.base} serves not one but {listed}")
            self._model = ModelClient(self._http, text_of(names[0]))
        return self._model


class _Bearer(httpx.Auth):
    """Shows the key of each moment."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "_Bearer(…)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        key = self._key() if callable(self._key) else self._key
        if not isinstance(key, str) or not key.isascii() or not key.isprintable() or not key or " " in key:
            raise InvalidInput(
                "api_key: expected an API key (gmk_…) or a token, without blanks and line ends; found none"
            )
        request.headers["authorization"] = f"Bearer {key}"
        yield request


def _trusted(ca: str | Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"ca: {ca}: expected a PEM file of certificates: {error}") from error
