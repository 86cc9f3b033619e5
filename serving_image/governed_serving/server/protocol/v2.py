"""Open Inference Protocol V2 over HTTP: bodies to InferRequest, InferResponse to bodies."""

import math
from dataclasses import dataclass

import msgspec

from governed_serving.decoding import decode_with
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.messages import InferRequest, InferResponse, OutputValues
from governed_serving.server.protocol import binary
from governed_serving.server.protocol.json_errors import malformed
from governed_serving.server.protocol.matrix import is_matrix, split_matrix
from governed_serving.server.protocol.shapes import MAX_ELEMENTS, elements, identity, quoted
from governed_serving.server.protocol.tensors import checked, checked_whole, fits
from governed_serving.server.protocol.v2_messages import (
    ANY_REQUEST,
    REQUEST,
    InferenceRequest,
    LooseRequest,
    OutputTensor,
    Reply,
    ReplyParameters,
)
from governed_serving.server.signature import Signature, Values

__all__ = ["Encoded", "OutputEncoding", "V2Codec"]

_KIND = "a V2 inference request"


@dataclass(slots=True, frozen=True)
class OutputEncoding:
    """In which form the client wants outputs: those in ``names`` in binary."""

    names: frozenset[str] = frozenset()


JSON = OutputEncoding()


@dataclass(slots=True, frozen=True)
class Encoded:
    """A body; ``header`` is the length of its JSON part when tensors follow it, else 0."""

    body: bytes
    header: int = 0


class V2Codec:
    """Translates for one model. Stateless after construction."""

    def __init__(self, signature: Signature, model: str, revision: str) -> None:
        self._signature = signature
        self._expected = [(spec.name, spec.textual, spec.shape) for spec in signature.inputs]
        self._model = model
        self._revision = revision
        self._encode = msgspec.json.Encoder().encode
        self._parameters = {
            ledger: ReplyParameters(revision, ledger, mitigation=signature.mitigation)
            if revision or ledger or signature.mitigation
            else None
            for ledger in ("", "pending")
        }

    def decode(self, body: bytes, header: int | None = None) -> tuple[InferRequest, OutputEncoding]:
        """The request in ``body``; ``header`` is the value of Inference-Header-Content-Length. Raises
        InvalidRequest."""
        if header is not None:
            return self._decode_binary(body, header)
        try:
            message = decode_with(REQUEST, body)
        except msgspec.ValidationError:
            return self.decode_tensors(_loose(body), memoryview(b""))
        except msgspec.DecodeError as error:
            raise malformed(error, body, _KIND) from error
        if self._signature.whole:
            return self._decode_whole(message, body)
        columns = self._columns(message)
        if columns is None:  # another order, a matrix, or a mistake: the loose way sorts it out or names it
            return self.decode_tensors(_loose(body), memoryview(b""))
        request = InferRequest(identity(message.id), message.inputs[0].shape[0], columns, size=len(body))
        if message.outputs is None and message.parameters is None:
            return request, JSON
        return request, self._wanted(request, message)

    def _decode_whole(self, message: InferenceRequest, body: bytes) -> tuple[InferRequest, OutputEncoding]:
        """As it came where every tensor is where the signature has it, flat and of its datatype; else the loose way."""
        shapes: list[tuple[int, ...]] = []
        columns: list[Values] = []
        for spec, tensor in zip(self._signature.inputs, message.inputs, strict=False):
            shape = fits(spec, tensor.shape)
            if tensor.name != spec.name or tensor.datatype != spec.dtype or shape is None or tensor.data is None:
                break
            if len(tensor.data) != math.prod(shape):
                break
            shapes.append(shape)
            columns.append(tensor.data)
        if not len(columns) == len(self._signature.inputs) == len(message.inputs):
            return self.decode_tensors(_loose(body), memoryview(b""))
        request = InferRequest(identity(message.id), 1, columns, shapes=tuple(shapes), size=len(body))
        return request, self._wanted(request, message)

    def _columns(self, message: InferenceRequest) -> list[Values] | None:
        """Columns when every tensor is where the signature has it, flat, and of the right kind; else None."""
        tensors = message.inputs
        if len(tensors) != len(self._expected) or not tensors or not tensors[0].shape:
            return None
        rows = tensors[0].shape[0]
        if rows < 1:
            return None
        columns: list[Values] = []
        single, flat = [rows, 1], [rows]
        for (name, textual, shape), tensor in zip(self._expected, tensors, strict=True):
            data, given = tensor.data, tensor.shape
            if tensor.name != name or tensor.text is not textual or data is None:
                return None
            if shape == (1,):  # a feature
                if (given != single and given != flat) or len(data) != rows:
                    return None
            elif (
                given[0:1] != [rows]
                or len(data) != rows * (given[1] if len(given) == 2 else 1)
                or (*given[1:],) != shape
                or len(given) == 1
            ):
                return None
            columns.append(data)
        return columns

    def _decode_binary(self, body: bytes, header: int) -> tuple[InferRequest, OutputEncoding]:
        if not 0 < header <= len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length: expected 1 to {len(body)} (the body), found {header}"
            )
        return self.decode_tensors(_loose(body[:header]), memoryview(body)[header:])

    def decode_tensors(self, message: LooseRequest, tail: memoryview) -> tuple[InferRequest, OutputEncoding]:
        """The request in ``message``, whose tensors with binary_data_size lie in ``tail``, in order. Raises
        InvalidRequest."""
        for tensor in message.inputs:
            elements(tensor.name, tensor.shape, MAX_ELEMENTS, 1)
        data = _take_binary(message, tail)
        shapes: tuple[tuple[int, ...], ...] = ()
        if self._signature.whole:
            rows = 1
            shapes, columns = checked_whole(self._signature, message.inputs, data)
        elif is_matrix(self._signature, message.inputs):
            rows, columns = split_matrix(self._signature, message.inputs[0], data[0])
        else:
            rows, columns = checked(self._signature, message.inputs, data)
        request = InferRequest(
            identity(message.id), rows, columns, shapes=shapes, size=1 << 20
        )  # never on the event loop: it may be anything
        return request, self._wanted(request, message)

    def _wanted(self, request: InferRequest, message: InferenceRequest | LooseRequest) -> OutputEncoding:
        declared = {spec.name for spec in self._signature.outputs}
        names = tuple(o.name for o in message.outputs or ())
        if strange := [n for n in names if n not in declared]:
            raise InvalidRequest(f"outputs: expected some of {', '.join(sorted(declared))}, found {quoted(strange[0])}")
        request.outputs = names
        request.parameters = message.parameters or {}
        asked = {o.name: (o.parameters or {}).get("binary_data") for o in message.outputs or ()}
        every = bool(request.parameters.get("binary_data_output"))
        return OutputEncoding(
            frozenset(name for name in declared if (every if asked.get(name) is None else bool(asked[name])))
        )

    def encode(self, response: InferResponse, form: OutputEncoding = JSON) -> Encoded:
        """The reply's body."""
        if form.names:
            return self._encode_binary(response, form)
        outputs = [
            OutputTensor(o.spec.name, o.shape, o.spec.dtype, o.values) if o.finite else _in_json(o)
            for o in response.outputs
        ]
        return Encoded(self._encode(self._reply(response, outputs)))

    def _encode_binary(self, response: InferResponse, form: OutputEncoding) -> Encoded:
        outputs, tail = [], []
        for output in response.outputs:
            if output.spec.name not in form.names:
                outputs.append(_in_json(output))
                continue
            raw = binary.pack(output.spec.dtype, output.values)
            tail.append(raw)
            size = {"binary_data_size": len(raw)}
            outputs.append(OutputTensor(output.spec.name, output.shape, output.spec.dtype, None, size))
        head = self._encode(self._reply(response, outputs))
        return Encoded(b"".join([head, *tail]), len(head))

    def _reply(self, response: InferResponse, outputs: list[OutputTensor]) -> Reply:
        if not response.client_id:
            return Reply(self._model, self._revision, response.id, outputs, self._parameters[response.ledger])
        parameters = ReplyParameters(self._revision, response.ledger, response.id, self._signature.mitigation)
        return Reply(self._model, self._revision, response.client_id, outputs, parameters)


def _in_json(output: OutputValues) -> OutputTensor:
    """JSON has no NaN and no infinity: they are null, and ``non_finite`` says how many there are."""
    missing = output.non_finite
    return OutputTensor(
        output.spec.name, output.shape, output.spec.dtype, output.values, {"non_finite": missing} if missing else None
    )


def _loose(body: bytes) -> LooseRequest:
    try:
        return decode_with(ANY_REQUEST, body)
    except msgspec.DecodeError as error:
        raise malformed(error, body, _KIND) from error


def _take_binary(message: LooseRequest, tail: memoryview) -> list[Values]:
    """Data of every tensor: from the JSON, or the next ``binary_data_size`` bytes of ``tail``."""
    out: list[Values] = []
    at = 0
    for tensor in message.inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            if tensor.data is None:
                raise InvalidRequest(
                    f"input {quoted(tensor.name)}: expected data, or binary_data_size in its parameters, found neither"
                )
            out.append(tensor.data)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or at + size > len(tail):
            raise InvalidRequest(
                f"input {quoted(tensor.name)}: expected binary_data_size up to {len(tail) - at} (what the body holds), "
                f"found {quoted(size)}"
            )
        data, dictionary = tail[at : at + size], (tensor.parameters or {}).get("dictionary")
        count = elements(tensor.name, tensor.shape, size, binary.least_size(tensor.name, tensor.datatype))
        if dictionary is not None and tensor.datatype == "BYTES":
            out.append(binary.coded(tensor.name, dictionary, data, count))
        else:
            out.append(binary.unpack(tensor.name, tensor.datatype, data, count))
        at += size
    if at != len(tail):
        raise InvalidRequest(f"request body: expected {at} bytes of binary tensors, found {len(tail)}")
    return out
