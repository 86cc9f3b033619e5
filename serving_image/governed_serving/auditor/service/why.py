"""Why a single decision fell as it did: the row from its blob, put to the pod's explainer for an explanation and a counterfactual.

The explainer records what it answers under the request's id, so that a review can be proved like everything else.
"""

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np

from governed_serving.archive.client import ArchiveClient
from governed_serving.conversation import last_spoken
from governed_serving.crypto import SegmentCipher
from governed_serving.generated import PROMPT, answer_of, state_of
from governed_serving.journal import numbers, open_chunk, strings
from governed_serving.records import Column, PredictionFrame

__all__ = ["Why"]

METHODS = {"explanation": "", "counterfactual": "counterfactual"}
"""What a reviewer is shown → the explainer's method (empty: the manifest's)."""


class Why:
    """``url`` of the explainer; empty: there is none, and the answer says so."""

    def __init__(self, client: ArchiveClient, cipher: SegmentCipher, url: str, *, timeout: float = 30.0):
        self._client, self._cipher, self._url, self._timeout = client, cipher, url.rstrip("/"), timeout

    def of(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        """``explanation`` and ``counterfactual`` of a prediction's ledger entry, or what kept them away. Raises ArchiveError, CryptoError."""
        if not self._url:
            return {kind: {"error": "this model runs no explainer (spec.explainer)"} for kind in METHODS}
        frames = dict(open_chunk(self._client.get_blob(prediction["blob"]), self._cipher))
        frame = frames[prediction["frame"]]
        assert isinstance(frame, PredictionFrame)
        if state_of(frame):
            return self._of_completion(prediction["id"], frame)
        inputs = _inputs(frame, prediction["index"])
        return {kind: self._ask(prediction["id"], inputs, method) for kind, method in METHODS.items()}

    def _of_completion(self, request: str, frame: PredictionFrame) -> dict[str, Any]:
        """Which words of the prompt spoke for what was said."""
        spoken, said = last_spoken(str(strings(frame.features[PROMPT])[0])), answer_of(frame)
        without = "counterfactuals of a single completion are not available; /v1/findings tells how often swapped words change outcomes"
        found: dict[str, Any] = {"counterfactual": {"error": without}}
        if spoken is None or not said:
            missing = "answer" if not said else "plain text of a user"
            return {"explanation": {"error": f"the record holds no {missing} to explain"}, **found}
        texts = {"prompt": spoken.text, "completion": said, "messages": spoken.messages}
        inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in texts.items()]
        return {"explanation": self._ask(request, inputs, ""), **found}

    def _ask(self, request: str, inputs: list[dict[str, Any]], method: str) -> Any:
        body = {"id": request, "inputs": inputs, "parameters": {"method": method} if method else {}}
        path = f"{self._url}/v2/models/{self._client.model}/explain"
        try:
            answer = httpx.post(path, json=body, timeout=self._timeout, trust_env=False)
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return {"error": f"the explainer did not answer: {str(error) or type(error).__name__}"}


def _inputs(frame: PredictionFrame, number: int) -> list[dict[str, Any]]:
    """V2 tensors of request ``number`` of a frame."""
    ends = np.frombuffer(frame.rows, "<i4").cumsum().tolist()
    rows = slice(ends[number - 1] if number else 0, ends[number])
    return [_tensor(name, column, rows) for name, column in frame.features.items()]


def _tensor(name: str, column: Column, rows: slice) -> dict[str, Any]:
    values = numbers(column)[rows].ravel().tolist()
    if column.dtype == "BYTES":
        data: list[Any] = [column.values[code] for code in values]
    else:
        data = [None if value != value else value for value in values]
    shape = [rows.stop - rows.start, column.width]
    return {"name": name, "shape": shape, "datatype": column.dtype, "data": data}
