"""HTTP client of a served model: Open Inference Protocol V2 and our explain route."""

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, NotRequired, TypedDict
from urllib.parse import quote

import httpx

from governed_api import routes
from governed_api.datatypes import DATATYPES, NUMBERS
from governed_api.json_types import Json, Scalar
from governed_api.printable import printable

TIMEOUT = 75.0
"""Seconds; a model's own timeout is 60 where its manifest names none."""
EXPLANATION_PATIENCE = 600.0
"""Seconds in which an explanation that is computed as a job must be there."""

Row = dict[str, Scalar]
"""Raw features of one instance, by name."""


class DeclaredTensor(TypedDict):
    """An input that the model's metadata names."""

    name: str
    datatype: str
    shape: list[int]


class Tensor(DeclaredTensor):
    """A V2 tensor with its values, flat."""

    data: list[Scalar]


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
    """Of an answer: the mitigation of bias that the model was trained with."""

    mitigation: str


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


class Ticket(TypedDict, total=False):
    """An explanation that is computed while nobody waits."""

    id: str
    status: str
    error: str
    result: ExplainAnswer


class ClientError(Exception):
    """The model can't be reached or refuses; the message says what it answered, ``status`` with which HTTP status."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class ModelClient:
    """Speaks to one model at ``url``; rows are mappings of raw features. ``headers``: of every request. ``timeout`` in
    seconds: longer than the model's own, whose 504 says what to do."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        timeout: float = TIMEOUT,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"), timeout=timeout, trust_env=False, headers=headers, transport=transport
        )
        self._timeout = timeout
        self._model = model
        self._metadata: Metadata | None = None

    def __enter__(self) -> "ModelClient":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def metadata(self) -> Metadata:
        """Asked once. Raises ClientError."""
        if self._metadata is None:
            self._metadata = self._json("GET", routes.MODEL.format(model=self._model))
        return self._metadata

    def infer(self, rows: Sequence[Row]) -> InferAnswer:
        """V2 answer for ``rows`` in one request. Raises ClientError."""
        answer: InferAnswer = self._json(
            "POST", routes.INFER.format(model=self._model), {"inputs": self._columns(rows)}
        )
        return answer

    def explain(self, row: Row, parameters: Mapping[str, object]) -> ExplainAnswer:
        """The explanation of ``row``; ``parameters`` as the explainer's README lists them. Raises ClientError."""
        body: dict[str, object] = {"inputs": self._columns([row])}
        if parameters:
            body["parameters"] = parameters
        answer: ExplainAnswer = self._json("POST", routes.EXPLAIN.format(model=self._model), body)
        return answer

    def explain_in_time(self, row: Row, parameters: Mapping[str, object]) -> ExplainAnswer:
        """As `explain`; on a busy machine an explanation takes longer than a request may: then it is asked for as a
        job, unless the request bounds the time itself. Raises ClientError."""
        try:
            return self.explain(row, parameters)
        except ClientError as error:
            if error.status != HTTPStatus.GATEWAY_TIMEOUT or "budgetMilliseconds" in parameters:
                raise
        return self.explain_later(row, parameters, patience=EXPLANATION_PATIENCE)

    def explain_later(
        self, row: Row, parameters: Mapping[str, object], *, patience: float, every: float = 1.0
    ) -> ExplainAnswer:
        """The explanation of a row that takes longer than a request may: asked for, and fetched once it is there,
        within ``patience`` seconds. Raises ClientError."""
        body: dict[str, object] = {"inputs": self._columns([row])}
        if parameters:
            body["parameters"] = parameters
        ticket: Ticket = self._json("POST", routes.EXPLANATIONS.format(model=self._model), body)
        path = routes.EXPLANATION.format(model=self._model, ticket=quote(ticket["id"], safe=""))
        deadline = time.monotonic() + patience
        while True:
            ticket = self._json("GET", path)
            if ticket["status"] == "done":
                return ticket["result"]
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

    def acknowledge(self, by: str, reason: str) -> None:
        """To the auditor: a person takes over the alarm of a failed verdict. Raises ClientError."""
        self._json("POST", routes.ACKNOWLEDGEMENTS, {"by": by, "reason": reason})

    def contests(self) -> list[dict[str, Json]]:
        """From the auditor: contested decisions that no person has decided, oldest deadline first. Raises
        ClientError."""
        answer: list[dict[str, Json]] = self._json("GET", routes.REVIEWS)["open"]
        return answer

    def verdict(self) -> dict[str, Json]:
        """From the auditor: the bias verdict in full. Raises ClientError."""
        answer: dict[str, Json] = self._json("GET", routes.VERDICT)
        return answer

    def decide(self, request: str, by: str, outcome: str, reason: str, token: str) -> dict[str, Json]:
        """To the auditor: a person with the operator's ``token`` decides what was contested. Raises ClientError."""
        body = {"by": by, "outcome": outcome, "reason": reason}
        path = routes.DECISION.format(request_id=quote(request, safe=""))
        answer: dict[str, Json] = self._json("POST", path, body, {"authorization": f"Bearer {token}"})
        return answer

    def contest(self, request: str, by: str, reason: str) -> dict[str, Json]:
        """To the auditor: a person contests a decision; its record, explanation and counterfactual. Raises
        ClientError."""
        answer: dict[str, Json] = self._json("POST", routes.REVIEWS, {"id": request, "by": by, "reason": reason})
        return answer

    def _columns(self, rows: Sequence[Row]) -> list[Tensor]:
        return [self._column(declared, rows) for declared in self.metadata()["inputs"]]

    @staticmethod
    def _column(declared: DeclaredTensor, rows: Sequence[Row]) -> Tensor:
        name, datatype = declared["name"], declared["datatype"]
        missing = [i for i, row in enumerate(rows) if name not in row]
        if missing:
            raise ClientError(f"row {missing[0]} has no value for {name}: the model needs it ({datatype})")
        values = [row[name] for row in rows]
        if datatype in NUMBERS:
            data: list[Scalar] = [_number(name, datatype, v) for v in values]
        else:
            data = values if datatype == "BOOL" else [str(v) for v in values]
        return {"name": name, "datatype": datatype, "shape": [len(rows), 1], "data": data}

    def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """A JSON mapping, which the caller's type describes."""
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
            document = answer.json()
        except httpx.ReadTimeout as error:
            raise ClientError(
                f"{self._http.base_url}{path}: no answer within {self._timeout:g} s; ask again when the machine is "
                "less busy, or for less",
                504,
            ) from error
        except httpx.HTTPError as error:
            raise ClientError(
                f"{self._http.base_url}: {str(error) or type(error).__name__}: is the model running there?"
            ) from error
        except ValueError as error:
            raise ClientError(f"{self._http.base_url}{path} answered {answer.status_code} and no JSON") from error
        if answer.status_code >= 400:
            words = document.get("error", document) if isinstance(document, dict) else document
            raise ClientError(printable(f"{path} answered {answer.status_code}: {words}"), answer.status_code)
        if not isinstance(document, dict):
            raise ClientError(f"{path}: expected a JSON mapping, found {type(document).__name__}")
        return document


def _number(name: str, datatype: str, value: Scalar) -> Scalar:
    """A word of the command line as the number that the model takes; anything else as it is. Raises ClientError."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if DATATYPES[datatype].json == "number" else int(value)
    except ValueError:
        raise ClientError(f"{name}: expected a number ({datatype}), found {value!r}") from None
