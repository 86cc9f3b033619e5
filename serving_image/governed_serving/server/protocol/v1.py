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

__all__ = ["V1Codec", "V1Request"]


class V1Request(msgspec.Struct):
    """``instances`` are rows; ``parameters`` as in V2; an ``id`` is ours, V1 has none."""

    instances: list[dict[str, Any] | list[Any]]
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
        if not message.instances:
            raise InvalidRequest("instances: expected at least one row, found none")
        columns: list[list[Any]] = [[] for _ in self._signature.inputs]
        for number, row in enumerate(message.instances):
            for column, value in zip(columns, self._row(number, row), strict=True):
                column.append(value)
        checked: list[Values] = [
            values_of(spec.name, spec.textual, spec.dtype, column)
            for spec, column in zip(self._signature.inputs, columns, strict=True)
        ]
        return InferRequest(
            identity(message.id), len(message.instances), checked, parameters=message.parameters or {}, size=len(body)
        )

    def _row(self, number: int, row: dict[str, Any] | list[Any]) -> list[Any]:
        inputs = self._signature.inputs
        if any(spec.shape != (1,) for spec in inputs):
            raise InvalidRequest("instances: expected a model of single features, found tensors; use the V2 protocol")
        if isinstance(row, list):
            if len(row) != len(inputs):
                raise InvalidRequest(
                    f"instances[{number}]: expected {len(inputs)} values ({self._signature.names()}), found {len(row)}"
                )
            return row
        if strange := [n for n in row if n not in self._signature.index]:
            raise InvalidRequest(
                f"instances[{number}].{strange[0]}: expected one of {self._signature.names()}; correct the name "
                "or leave it out"
            )
        if missing := [s.name for s in inputs if s.name not in row]:
            raise InvalidRequest(f"instances[{number}]: expected feature {missing[0]!r}, found a row without it")
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
