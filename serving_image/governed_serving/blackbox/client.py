"""The black box over HTTP: V2 binary tensors to the server's internal lane, strings as codes into a dictionary."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
from numpy.typing import NDArray

from governed_api import routes
from governed_serving.blackbox.columns import Columns, Floats, factorise, row_count
from governed_serving.blackbox.errors import ModelMisbehaved, PredictorAway
from governed_serving.decoding import decode_json
from governed_serving.hosting.retrying import Backoff, GaveUp, Retrying
from governed_serving.journal.columns import DTYPES
from governed_serving.pod_token import PodToken, headers_of

__all__ = ["PredictorClient"]

_HEADER = "inference-header-content-length"


class PredictorClient:
    """``client(columns)`` → outputs, shape (rows, outputs), float64; safe to call from several threads.

    ``output`` is the model's output tensor to explain (probabilities or prediction). Retries while the server is
    unreachable or busy, ``patience`` seconds in all, then raises :class:`PredictorAway`. ``token``: the port's, where
    it asks for one.
    """

    def __init__(
        self,
        url: str,
        model: str,
        output: str,
        *,
        patience: float = 10.0,
        client: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
        token: PodToken | None = None,
    ) -> None:
        self._shown = {"x-governed-internal": "explainer", **headers_of(token)}
        self._root, self._path = url.rstrip("/"), url.rstrip("/") + routes.INFER.format(model=model)
        self._output = output
        self._patience = patience
        self._client = client or httpx.Client(
            timeout=httpx.Timeout(30.0, connect=2.0), limits=httpx.Limits(max_connections=4)
        )
        # The lane's queue turns over in milliseconds; the second that its Retry-After asks for is the least the field
        # can say.
        backoff = Backoff(patience, first=0.02, longest=1.0, heeds_retry_after=False)
        self._retrying = Retrying(
            backoff, text=lambda answer: f"it answered {answer.status_code}: {answer.text[:200]}", sleep=sleep
        )

    def __call__(self, columns: Columns) -> Floats:
        body, header = encode(columns, self._output)
        kind = {"content-type": "application/octet-stream", _HEADER: str(header)}
        response = self._post(self._path, body, kind)
        if response.status_code != 200:
            raise ModelMisbehaved(f"the model server answered {response.status_code} to a batch: {response.text[:200]}")
        return decode(response.content, response.headers.get(_HEADER), self._output, row_count(columns))

    def json(self, path: str, message: Mapping[str, object]) -> bytes:
        """What the runtime behind the server answers to an OpenAI request. Raises as a call does."""
        response = self._post(self._root + path, json.dumps(message).encode(), {"content-type": "application/json"})
        if response.status_code != 200:
            raise ModelMisbehaved(f"the runtime answered {response.status_code} to a prompt: {response.text[:200]}")
        return response.content

    def close(self) -> None:
        self._client.close()

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        headers = {**headers, **self._shown}
        try:
            return self._retrying.call(lambda: self._client.post(url, content=body, headers=headers))
        except GaveUp as error:
            raise PredictorAway(f"expected the model server at {url} within {self._patience:g} s; {error}") from None


def encode(columns: Columns, output: str) -> tuple[bytes, int]:
    """V2 request with binary tensors, and the length of its JSON part."""
    tensors, parts = [], []
    for name, values in columns.items():
        datatype, data, more = _binary(values)
        parts.append(data)
        parameters = {"binary_data_size": len(data), **more}
        tensors.append({"name": name, "shape": [len(values), 1], "datatype": datatype, "parameters": parameters})
    outputs = [{"name": output, "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": tensors, "outputs": outputs}).encode()
    return b"".join([head, *parts]), len(head)


def _binary(values: NDArray[np.generic]) -> tuple[str, bytes, dict[str, object]]:
    """(datatype, data, further parameters). Few distinct texts make up a batch: they travel once."""
    if values.dtype == object:
        distinct, codes = factorise(values)
        return "BYTES", codes.astype("<i4").tobytes(), {"dictionary": distinct.tolist()}
    if values.dtype == np.int64:
        return "INT64", values.tobytes(), {}
    return "FP32", values.astype("<f4", copy=False).tobytes(), {}


def decode(content: bytes, header: str | None, output: str, rows: int) -> Floats:
    """The named output of a V2 response, JSON or binary, shape (rows, outputs)."""
    try:
        head = decode_json(content[: int(header)] if header else content)
        start = int(header) if header else 0
        for tensor in head["outputs"]:
            size = int(tensor.get("parameters", {}).get("binary_data_size", 0))
            if tensor["name"] == output:
                return _tensor(tensor, content[start : start + size] if size else None, rows)
            start += size
    except (msgspec.DecodeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelMisbehaved(
            f"expected a V2 response from the model server: {type(error).__name__}: {error}"
        ) from error
    raise ModelMisbehaved(f"expected output {output!r} from the model server, found {_names(head['outputs'])}")


def _tensor(tensor: dict[str, Any], data: bytes | None, rows: int) -> Floats:
    dtype = DTYPES[tensor["datatype"]]
    flat: NDArray[np.generic] = np.frombuffer(data, dtype) if data is not None else np.array(tensor["data"], dtype)
    values: Floats = flat.astype(np.float64).reshape(rows, -1)
    return values


def _names(outputs: Sequence[Mapping[str, object]]) -> str:
    return ", ".join(str(tensor.get("name")) for tensor in outputs) or "none"
