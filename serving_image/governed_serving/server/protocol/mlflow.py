"""MLflow's scoring protocol: POST /invocations with a data frame, or with TF Serving's instances or inputs, as JSON.

https://mlflow.org/docs/latest/deployment/deploy-model-locally.html; the answer is {"predictions": [...]}, as V1's.
"""

from collections import Counter
from collections.abc import Iterable

from governed_api.json_types import Json
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.messages import InferRequest
from governed_serving.server.protocol.json_errors import decode_object
from governed_serving.server.protocol.v1 import Row, V1Codec

__all__ = ["MlflowCodec"]

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""One of which a request has."""


class MlflowCodec:
    """Translates for one model; ``rows`` makes a request of rows, and the answer."""

    def __init__(self, rows: V1Codec) -> None:
        self._rows = rows
        self.encode = rows.encode

    def decode(self, body: bytes) -> InferRequest:
        """``params`` are parameters as in V2. Raises InvalidRequest."""
        message = decode_object(body, "an MLflow request")
        given = [form for form in FORMS if form in message]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise InvalidRequest(f"expected one of {', '.join(FORMS)} in an MLflow request, found {found}")
        parameters = message.get("params") or {}
        if not isinstance(parameters, dict):
            raise InvalidRequest("params: expected an object, found something else")
        (form,) = given
        rows = _split(message[form]) if form == "dataframe_split" else _listed(message[form], form)
        request = self._rows.of_rows(rows, parameters, "dataframe_split.data" if form == "dataframe_split" else form)
        request.size = len(body)
        return request


def _split(frame: Json) -> list[Row]:
    """pandas' orient="split"; columns without names are taken in the order of the features."""
    data = frame.get("data") if isinstance(frame, dict) else None
    if not isinstance(frame, dict) or not isinstance(data, list):
        raise InvalidRequest('dataframe_split: expected {"columns": [...], "data": [[...]]}, found something else')
    columns = frame.get("columns")
    if columns is not None and not isinstance(columns, list):
        raise InvalidRequest("dataframe_split.columns: expected a list of names, found something else")
    names = [name for name in columns or () if isinstance(name, str)]
    if names and len(names) != len(columns or ()):
        raise InvalidRequest("dataframe_split.columns: expected names, found something else among them")
    if (most := Counter(names).most_common(1)) and most[0][1] > 1:
        twice = most[0][0]
        raise InvalidRequest(f"dataframe_split.columns: expected each name once, found {twice[:200]!r} twice")
    rows: list[Row] = []
    for number, row in enumerate(data):
        if not isinstance(row, list) or (columns is not None and len(row) != len(columns)):
            raise InvalidRequest(
                f"dataframe_split.data[{number}]: expected a list with a value for each of the columns, found "
                "something else"
            )
        rows.append(dict(zip(names, row, strict=True)) if names else row)
    return rows


def _listed(given: Json, form: str) -> list[Row]:
    """Rows, each by names or in order; of ``inputs`` also columns by name. A value alone is a row of one."""
    if isinstance(given, dict) and form == "inputs":
        return _columns(given)
    if not isinstance(given, list):
        raise InvalidRequest(f"{form}: expected a list of rows, found something else")
    return [row if isinstance(row, dict | list) else [row] for row in given]


def _columns(given: dict[str, Json]) -> list[Row]:
    columns: dict[str, Iterable[Json]] = {}
    rows: int | None = None
    for name, values in given.items():
        listed = values if isinstance(values, list) else [values]
        if rows not in (None, len(listed)):
            raise InvalidRequest(f"inputs.{name}: expected {rows} values as in the others, found {len(listed)}")
        rows, columns[name] = (
            len(listed),
            [one[0] if isinstance(one, list) and len(one) == 1 else one for one in listed],
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
