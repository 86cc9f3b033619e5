"""KServe's V1 protocol: {"instances": [{feature: value} | [values in feature order]]} → {"predictions": [...]}."""

from collections.abc import Sequence
from typing import Any

import msgspec

from governed_api.json_types import Scalar
from governed_serving.decoding import decode_with
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.messages import InferRequest, InferResponse
from governed_serving.server.protocol.json_errors import malformed
from governed_serving.server.protocol.shapes import identity
from governed_serving.server.protocol.tensors import values_of
from governed_serving.server.signature import Signature, Values

__all__ = ["Row", "V1Codec", "V1Request"]

Row = dict[str, Any] | list[Any]
"""Values by the names of features, or in their order."""


class V1Request(msgspec.Struct):
    """``instances`` are rows; ``parameters`` as in V2; an ``id`` is ours, V1 has none."""

    instances: list[Row]
    id: str | None = None
    parameters: dict[str, Any] | None = None


class V1Codec:
    """Translates for one model."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._decoder = msgspec.json.Decoder(V1Request)

    def decode(self, body: bytes) -> InferRequest:
        """Raises InvalidRequest."""
        try:
            message = decode_with(self._decoder, body)
        except msgspec.DecodeError as error:
            raise malformed(error, body, 'a V1 request {"instances": [...]}') from error
        request = self.of_rows(message.instances, message.parameters or {}, "instances")
        request.client_id, request.size = identity(message.id), len(body)
        return request

    def of_rows(self, rows: Sequence[Row], parameters: dict[str, Any], where: str) -> InferRequest:
        """A request without id and size; ``where`` names the rows to who sent them. Raises InvalidRequest."""
        if not rows:
            raise InvalidRequest(f"{where}: expected at least one row, found none")
        if any(spec.shape != (1,) for spec in self._signature.inputs):
            raise InvalidRequest(f"{where}: expected a model of single features, found tensors; use the V2 protocol")
        columns: list[list[Any]] = [[] for _ in self._signature.inputs]
        for number, row in enumerate(rows):
            for column, value in zip(columns, self._row(f"{where}[{number}]", row), strict=True):
                column.append(value)
        checked: list[Values] = [
            values_of(spec.name, spec.textual, spec.dtype, column)
            for spec, column in zip(self._signature.inputs, columns, strict=True)
        ]
        return InferRequest("", len(rows), checked, parameters=parameters)

    def _row(self, where: str, row: Row) -> list[Any]:
        inputs = self._signature.inputs
        if isinstance(row, list):
            if len(row) != len(inputs):
                raise InvalidRequest(
                    f"{where}: expected {len(inputs)} values ({self._signature.names()}), found {len(row)}"
                )
            return row
        if strange := [n for n in row if n not in self._signature.index]:
            raise InvalidRequest(
                f"{where}.{strange[0]}: expected one of {self._signature.names()}; correct the name or leave it out"
            )
        if missing := [s.name for s in inputs if s.name not in row]:
            raise InvalidRequest(f"{where}: expected feature {missing[0]!r}, found a row without it")
        return [row[spec.name] for spec in inputs]

    def encode(self, response: InferResponse) -> bytes:
        """{"predictions": [label | prediction | {output: value}], "id"}, and where there are any "probabilities",
        "prediction_set" or "prediction_interval", and "mitigation"."""
        outputs = {o.spec.name: o for o in response.outputs}
        main = outputs.get("label") or outputs.get("prediction") or next(iter(outputs.values()))
        body: dict[str, object] = {
            "predictions": _rows(main.values, main.spec.width, main.rows),
            "id": response.client_id or response.id,
        }
        beside = ["prediction_set", "prediction_interval"] + ["probabilities"] * (main.spec.name == "label")
        for name in (name for name in beside if name in outputs and main.spec.name in ("label", "prediction")):
            body[name] = _rows(outputs[name].values, outputs[name].spec.width, outputs[name].rows)
        if self._signature.mitigation:
            body["mitigation"] = self._signature.mitigation
        return msgspec.json.encode(body)


def _rows(values: list[Scalar], width: int, rows: int) -> Sequence[Scalar | list[Scalar]]:
    if width == 1 and len(values) == rows:
        return values
    return [values[k * width : (k + 1) * width] for k in range(rows)]
