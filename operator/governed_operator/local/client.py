"""HTTP client of a served model: Open Inference Protocol V2 and our explain route."""

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import NotRequired, TypedDict, TypeGuard, cast
from urllib.parse import quote

import httpx

from governed_api import routes
from governed_api.json_reading import mapping, mappings
from governed_api.json_types import Json
from governed_api.printable import printable
from governed_operator.local.columns import DeclaredTensor, Row, Tensor, column
from governed_operator.local.json_client import ClientError, JsonClient, Refused, Unreadable

TIMEOUT = 75.0
"""Seconds; a model's own timeout is 60 where its manifest names none."""
EXPLANATION_PATIENCE = 600.0
"""Seconds in which an explanation that is computed as a job must be there."""


_SHIPPED_LATER = (HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Answers to whoever asks for a receipt too early."""


class ModelParameters(TypedDict, total=False):
    """Beside V2: the classes, as probabilities order them, and the chance with which sets or intervals hold the
    truth."""

    classes: list[str | int]
    coverage: float


class Metadata(TypedDict):
    """What a client needs of a model's V2 metadata."""

    inputs: list[DeclaredTensor]
    parameters: NotRequired[ModelParameters]


class AnswerParameters(TypedDict, total=False):
    """Of an answer: the mitigation of bias that the model was trained with; its revision; our id, where the answer's
    is the client's."""

    mitigation: str
    revision: str
    prediction_id: str


class InferAnswer(TypedDict):
    """A V2 answer."""

    id: str
    outputs: list[Tensor]
    parameters: NotRequired[AnswerParameters]


class Explained(TypedDict, total=False):
    """One attribution; of a feature, or of a group of features."""

    feature: str
    group: str
    value: Json
    attribution: Json
    interval: list[float | None]
    main_effect: Json


class Interaction(TypedDict, total=False):
    """What each of two players has of their interaction."""

    between: list[str]
    interaction: Json


class GroupShare(TypedDict, total=False):
    """What the members of a group of a hierarchy have together."""

    group: str
    within: str
    attribution: Json


class Condition(TypedDict, total=False):
    """What a rule asks of a feature: a category, None where it is missing; else an interval, None where it has no
    end."""

    equals: Json
    above: float | None
    up_to: float | None


class RulePart(TypedDict, total=False):
    """Conditions on the features of one player; of another's engine a rule in its words."""

    player: str
    conditions: dict[str, Condition]
    rule: str


Change = TypedDict("Change", {"feature": str, "from": Json, "to": Json})


class Counterfactual(TypedDict):
    """Changes that give the wanted outcome."""

    changes: list[Change]
    distance: float
    prediction: float


class Explanation(TypedDict, total=False):
    """One explained row, as far as a person is shown it."""

    attributions: list[Explained]
    groups: list[GroupShare]
    interactions: list[Interaction]
    interactions_left_out: int
    anchor: list[RulePart]
    precision: float | None
    interval: list[float]
    coverage: float
    certified: bool
    threshold: float
    counterfactuals: list[Counterfactual]
    already: bool
    method: str
    target: Json
    base_value: Json
    prediction: Json
    additivity_residual: Json
    exact: bool
    evaluations: int
    seed: int


class ExplainAnswer(TypedDict, total=False):
    """Answer of the explain route."""

    explanations: list[Explanation]


class Ticket(TypedDict):
    """An explanation that is computed while nobody waits."""

    id: str
    status: str
    error: NotRequired[str]
    result: NotRequired[Json]


class ModelClient:
    """Speaks to one model ``at`` an address, or by a client of it; rows are mappings of raw features. ``headers``: of
    every request. ``timeout`` in seconds: longer than the model's own, whose 504 says what to do."""

    def __init__(
        self,
        at: str | JsonClient,
        model: str,
        *,
        timeout: float = TIMEOUT,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = (
            at if isinstance(at, JsonClient) else JsonClient(at, timeout=timeout, headers=headers, transport=transport)
        )
        self._model = quote(model, safe="")
        self._metadata: Metadata | None = None

    def __enter__(self) -> "ModelClient":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def metadata(self) -> Metadata:
        """Asked once. Raises ClientError."""
        if self._metadata is None:
            path = self._path(routes.MODEL)
            document = self._http.mapping("GET", path)
            if not _is_metadata(document):
                raise Unreadable(f"{path}: expected a model's metadata with its inputs, found {_names(document)}")
            self._metadata = document
        return self._metadata

    def infer(self, rows: Sequence[Row]) -> InferAnswer:
        """V2 answer for ``rows`` in one request. Raises ClientError."""
        return self.inferred(rows)[0]

    def inferred(
        self, rows: Sequence[Row], headers: Mapping[str, str] | None = None
    ) -> tuple[InferAnswer, Mapping[str, str]]:
        """As `infer`, with ``headers`` of this request; and those of the answer. Raises ClientError."""
        path = self._path(routes.INFER)
        answer = self._http.ask("POST", path, {"inputs": self._columns(rows)}, headers)
        document = self._http.document(path, answer)
        if not _is_answer(document):
            raise Unreadable(f"{path}: expected an answer with an id and outputs, found {_names(document)}")
        return document, answer.headers

    def explain(self, row: Row, parameters: Mapping[str, object]) -> ExplainAnswer:
        """The explanation of ``row``; ``parameters`` as the explainer's README lists them. Raises ClientError."""
        path = self._path(routes.EXPLAIN)
        return _explained(path, self._http.mapping("POST", path, self._question(row, parameters)))

    def explain_in_time(
        self, row: Row, parameters: Mapping[str, object], *, patience: float = EXPLANATION_PATIENCE
    ) -> ExplainAnswer:
        """As `explain`; on a busy machine an explanation takes longer than a request may: then it is asked for as a
        job of ``patience`` seconds, unless the request bounds the time itself. Raises ClientError."""
        try:
            return self.explain(row, parameters)
        except ClientError as error:
            if error.status != HTTPStatus.GATEWAY_TIMEOUT or "budgetMilliseconds" in parameters:
                raise
        return self.explain_later(row, parameters, patience=patience)

    def explain_later(
        self, row: Row, parameters: Mapping[str, object], *, patience: float, every: float = 1.0
    ) -> ExplainAnswer:
        """The explanation of a row that takes longer than a request may: asked for, and fetched once it is there,
        within ``patience`` seconds. Raises ClientError."""
        jobs = self._path(routes.EXPLANATIONS)
        ticket = _ticket(jobs, self._http.mapping("POST", jobs, self._question(row, parameters)))
        path = self._path(routes.EXPLANATION, ticket=quote(ticket["id"], safe=""))
        deadline = time.monotonic() + patience
        while True:
            ticket = _ticket(path, self._http.mapping("GET", path))
            if ticket["status"] == "done":
                return _explained(path, mapping(ticket.get("result")))
            if ticket["status"] == "failed":
                raise ClientError(
                    f"the explanation {ticket['id']} failed: {ticket.get('error', 'it does not say why')}"
                )
            if time.monotonic() > deadline:
                raise ClientError(
                    f"the explanation {ticket['id']} is still {ticket['status']} after {patience:.0f} s; "
                    f"ask for {path} later"
                )
            time.sleep(every)

    def receipt(self, id: str) -> str:
        """The proof that the answer with our ``id`` is in the ledger (a C2SP tlog-proof); waited for while it isn't.
        Raises ClientError."""
        path = self._path(routes.RECEIPT, id=quote(id, safe=""))
        answer = self._http.ask("GET", path, retried=_SHIPPED_LATER)
        try:
            return answer.data.decode()
        except UnicodeDecodeError as error:
            raise Unreadable(f"{path}: expected a receipt, found bytes that are no text") from error

    def ready(self) -> bool:
        """Whether it answers predictions. Raises ClientError, where nobody listens as well."""
        try:
            self._http.ask("GET", self._path(routes.MODEL_READY), retried=())
        except Refused as refusal:
            if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
                return False
            raise
        return True

    def acknowledge(self, by: str, reason: str) -> None:
        """To the auditor: a person takes over the alarm of a failed verdict. Raises ClientError."""
        self._http.mapping("POST", routes.ACKNOWLEDGEMENTS, {"by": by, "reason": reason})

    def contests(self) -> list[dict[str, Json]]:
        """From the auditor: contested decisions that no person has decided, oldest deadline first. Raises
        ClientError."""
        return mappings(self._http.mapping("GET", routes.REVIEWS).get("open"))

    def verdict(self) -> dict[str, Json]:
        """From the auditor: the bias verdict in full. Raises ClientError."""
        return self._http.mapping("GET", routes.VERDICT)

    def decide(self, request: str, by: str, outcome: str, reason: str, token: str) -> dict[str, Json]:
        """To the auditor: a person with the operator's ``token`` decides what was contested. Raises ClientError."""
        body = {"by": by, "outcome": outcome, "reason": reason}
        path = routes.DECISION.format(request_id=quote(request, safe=""))
        return self._http.mapping("POST", path, body, {"authorization": f"Bearer {token}"})

    def contest(self, request: str, by: str, reason: str) -> dict[str, Json]:
        """To the auditor: a person contests a decision; its record, explanation and counterfactual. Raises
        ClientError."""
        return self._http.mapping("POST", routes.REVIEWS, {"id": request, "by": by, "reason": reason})

    def _path(self, route: str, **parts: str) -> str:
        return route.format(model=self._model, **parts)

    def _question(self, row: Row, parameters: Mapping[str, object]) -> dict[str, object]:
        asked: dict[str, object] = {"inputs": self._columns([row])}
        return {**asked, "parameters": parameters} if parameters else asked

    def _columns(self, rows: Sequence[Row]) -> list[Tensor]:
        return [column(declared, rows) for declared in self.metadata()["inputs"]]


def _is_metadata(document: Mapping[str, Json]) -> TypeGuard[Metadata]:
    inputs = document.get("inputs")
    return (
        isinstance(inputs, list)
        and all(_is_tensor(tensor) for tensor in inputs)
        and _is_described(document.get("parameters", {}))
    )


def _is_described(parameters: Json) -> bool:
    if not isinstance(parameters, dict):
        return False
    classes, coverage = parameters.get("classes", []), parameters.get("coverage", 0)
    named = isinstance(classes, list) and all(isinstance(name, str | int) for name in classes)
    return named and isinstance(coverage, int | float)


def _is_answer(document: Mapping[str, Json]) -> TypeGuard[InferAnswer]:
    outputs = document.get("outputs")
    return (
        isinstance(document.get("id"), str)
        and isinstance(outputs, list)
        and all(_is_tensor(tensor) and isinstance(mapping(tensor).get("data"), list) for tensor in outputs)
        and isinstance(document.get("parameters", {}), dict)
    )


def _is_tensor(value: Json) -> bool:
    match value:
        case {"name": str(), "datatype": str(), "shape": list(shape)}:
            return bool(shape) and all(isinstance(size, int) for size in shape)
    return False


def _ticket(path: str, document: dict[str, Json]) -> Ticket:
    """Raises Unreadable."""
    match document:
        case {"id": str(), "status": str()}:
            return cast(Ticket, document)
    raise Unreadable(f"{path}: expected a job with id and status, found {_names(document)}")


def _explained(path: str, document: dict[str, Json]) -> ExplainAnswer:
    """Raises Unreadable."""
    found = document.get("explanations")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Unreadable(f"{path}: expected explanations, found {_names(document)}")
    return cast(ExplainAnswer, document)


def _names(document: Mapping[str, Json]) -> str:
    return printable(", ".join(document)[:200]) or "nothing"
