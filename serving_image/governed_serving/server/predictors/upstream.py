"""A foreign runtime that speaks V2 (Triton, MLServer, …) in the container beside us."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import msgspec
import numpy as np

from governed_api import routes
from governed_serving.decoding import decode_json
from governed_serving.server.errors import InvalidRequest, UpstreamFailed
from governed_serving.server.predictors.protocol import Columns, Outputs
from governed_serving.server.signature import NUMPY, Input, Output, Signature

__all__ = ["UpstreamPredictor", "signature_of"]

T = TypeVar("T")


class UpstreamPredictor:
    """Forwards to ``{url}/v2/models/{model}/infer``. Make it with :meth:`connect`."""

    merges = False
    slots = 64

    def __init__(self, client: httpx.AsyncClient, model: str, signature: Signature) -> None:
        self._client, self._path, self.signature = client, routes.INFER.format(model=model), signature

    @classmethod
    async def connect(
        cls, url: str, model: str, *, patience: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> "UpstreamPredictor":
        """Reads the runtime's metadata. Raises UpstreamFailed while it is away, ValueError when it can't be
        governed."""
        client = httpx.AsyncClient(
            base_url=url, timeout=httpx.Timeout(patience, connect=2.0), transport=transport, trust_env=False
        )
        try:
            answer = await client.get(routes.MODEL.format(model=model))
        except httpx.HTTPError as error:
            await client.aclose()
            raise UpstreamFailed(
                f"runtime at {url}: expected a connection, found {type(error).__name__}; it may still be starting"
            ) from error
        if answer.status_code != 200:
            await client.aclose()
            raise UpstreamFailed(f"runtime at {url}: expected metadata of {model!r}, found status {answer.status_code}")
        return cls(client, model, signature_of(answer.json()))

    async def predict(self, make: Callable[[], Columns], finish: Callable[[Outputs], T], size: int) -> T:
        body = await asyncio.to_thread(self._encode, make)
        try:
            answer = await self._client.post(self._path, content=body, headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            raise UpstreamFailed(
                f"runtime: expected an answer to {size} bytes of requests, found {type(error).__name__}; retry later"
            ) from error
        if 400 <= answer.status_code < 500:
            raise InvalidRequest(f"runtime: {_error(answer)}")
        if answer.status_code != 200:
            raise UpstreamFailed(f"runtime: expected an answer, found status {answer.status_code}: {_error(answer)}")
        return await asyncio.to_thread(lambda: finish(self._outputs(answer.content)))

    def _encode(self, make: Callable[[], Columns]) -> bytes:
        inputs = [
            {"name": s.name, "shape": [len(c), *s.shape], "datatype": s.dtype, "data": c.ravel().tolist()}
            for s, c in zip(self.signature.inputs, make(), strict=True)
        ]
        return msgspec.json.encode({"inputs": inputs})

    def _outputs(self, body: bytes) -> Outputs:
        """Raises UpstreamFailed naming what is not V2."""
        try:
            outputs = {o["name"]: o for o in decode_json(body)["outputs"]}
            return [
                np.array(outputs[s.name]["data"], NUMPY[s.dtype]).reshape(-1, *s.shape) for s in self.signature.outputs
            ]
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise UpstreamFailed(
                f"runtime: expected a V2 answer with {[s.name for s in self.signature.outputs]}, found {error!r}"
            ) from error

    async def warm_up(self) -> None:
        """Nothing: an example may not be valid input for a model that we don't know."""

    async def close(self) -> None:
        await self._client.aclose()


def signature_of(metadata: dict[str, Any]) -> Signature:
    """From $metadata_model_response. Raises ValueError naming the tensor that can't be governed."""
    if not metadata.get("inputs") or not metadata.get("outputs"):
        raise ValueError(
            "runtime: expected inputs and outputs in the model's V2 metadata, found none; configure them there"
        )
    inputs = []
    for tensor in metadata["inputs"]:
        shape = _row(tensor)
        kind = "text" if tensor["datatype"] == "BYTES" else "numeric" if shape == (1,) else "tensor"
        inputs.append(Input(tensor["name"], tensor["datatype"], shape, kind))  # type: ignore[arg-type]
    return Signature(tuple(inputs), tuple(Output(t["name"], t["datatype"], _row(t)) for t in metadata["outputs"]))


def _row(tensor: dict[str, Any]) -> tuple[int, ...]:
    shape, name = list(tensor["shape"]), tensor["name"]
    if tensor["datatype"] not in NUMPY:
        raise ValueError(f"runtime: {name!r}: expected a V2 datatype, found {tensor['datatype']!r}")
    row = tuple(shape[1:])
    if any(size < 1 for size in row) or math.prod(row) < 1:
        raise ValueError(f"runtime: {name!r}: expected only the first dimension to be free, found shape {shape}")
    return row


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])[:400]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
