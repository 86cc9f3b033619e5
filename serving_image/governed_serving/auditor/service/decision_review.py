"""Why a single decision fell as it did: the row from its blob, put to the pod's explainer for an explanation and a
counterfactual.

The explainer records what it answers under the request's id, so that a review can be proved like everything else; the
counterfactual of a completion, which the runtime answers, is recorded with the review.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from governed_api import routes
from governed_api.json_types import Scalar
from governed_serving.archive.client import ArchiveClient
from governed_serving.auditor.service.conversations import MAX_CHARACTERS, again
from governed_serving.auditor.service.lane import LANE_ERRORS, Runtime
from governed_serving.completions.conversation import last_spoken
from governed_serving.completions.generated import PROMPT, answer_of, state_of, swapped
from governed_serving.crypto import SegmentCipher
from governed_serving.fairness.monitoring.counterfactuals import swap_words
from governed_serving.journal import numbers, open_chunk, strings
from governed_serving.pod_token import PodToken, headers_of
from governed_serving.records import Column, PredictionFrame

__all__ = ["SWAPPED_WORDS", "DecisionReview"]

METHODS = {"explanation": "", "counterfactual": "counterfactual"}
"""What a reviewer is shown → the explainer's method (empty: the manifest's)."""
SWAPPED_WORDS = "swappedWords"
"""Method of a completion's counterfactual: ``again`` is the answer to the same request without chance (temperature 0),
``swapped`` to the request in which the words that name a group are swapped, ``changed`` whether one favours and the
other doesn't."""
ERASED = {"error": "the person whom this decision was about is erased: nobody can open what was asked and answered"}
NO_EXPLAINER = {"error": "this model runs no explainer (spec.explainer)"}


class DecisionReview:
    """``url`` of the explainer; empty: there is none, and the answer says so. ``token``: the port's, where it asks
    for one. ``runtime``: who generated the text that was decided by."""

    def __init__(
        self,
        client: ArchiveClient,
        cipher: SegmentCipher,
        url: str,
        runtime: Runtime | None = None,
        *,
        timeout: float = 30.0,
        token: PodToken | None = None,
    ):
        self._shown = headers_of(token)
        self._client, self._cipher, self._url, self._timeout = client, cipher, url.rstrip("/"), timeout
        self._runtime = runtime

    def of(self, prediction: Mapping[str, Any]) -> dict[str, object]:
        """``explanation`` and ``counterfactual`` of a prediction's ledger entry, or what kept them away. Raises
        ArchiveError, CryptoError."""
        if not self._url and self._runtime is None:
            return dict.fromkeys(METHODS, NO_EXPLAINER)
        frames = dict(
            open_chunk(self._client.get_blob(prediction["blob"], entry=prediction["ledgerIndex"]), self._cipher)
        )
        frame = frames[prediction["frame"]]
        if not isinstance(frame, PredictionFrame):
            return dict.fromkeys(METHODS, ERASED)
        if state_of(frame):
            return {
                "explanation": self._of_completion(prediction["id"], frame),
                "counterfactual": self._of_swapped_words(frame),
            }
        inputs = _inputs(frame, prediction["index"])
        return {kind: self._ask(prediction["id"], inputs, method) for kind, method in METHODS.items()}

    def _of_completion(self, request: str, frame: PredictionFrame) -> object:
        """Which words of the prompt spoke for what was said."""
        spoken, said = last_spoken(str(strings(frame.features[PROMPT])[0])), answer_of(frame)
        if spoken is None or not said:
            missing = "answer" if not said else "plain text of a user"
            return {"error": f"the record holds no {missing} to explain"}
        texts = {"prompt": spoken.text, "completion": said, "messages": spoken.messages}
        inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in texts.items()]
        return self._ask(request, inputs, "")

    def _of_swapped_words(self, frame: PredictionFrame) -> dict[str, object]:
        """What is answered when the words that name a group are swapped in what the user said, and what without
        that."""
        if self._runtime is None:
            return {"error": "no pattern says which answers favour a person (spec.governance.bias.favorableOutcome)"}
        asked = again(frame)
        if asked is None:
            return {
                "error": f"the request can't be replayed: expected one prompt of at most {MAX_CHARACTERS} characters"
            }
        other = swapped(asked, swap_words)
        if other is None:
            return {"error": "what the user said names no group: there is nothing to swap"}
        try:
            answers = [self._runtime.text(words) for words in (asked, other)]
        except LANE_ERRORS as error:
            return {"error": f"the runtime did not answer, contest again later: {error}"}
        before, after = ({"text": text, "favorable": self._runtime.favors(text)} for text in answers)
        return {
            "method": SWAPPED_WORDS,
            "recorded": {"favorable": self._runtime.favors(answer_of(frame))},
            "again": before,
            "swapped": {**after, "request": other.body},
            "changed": before["favorable"] != after["favorable"],
        }

    def _ask(self, request: str, inputs: Sequence[Mapping[str, object]], method: str) -> object:
        if not self._url:
            return NO_EXPLAINER
        body = {"id": request, "inputs": inputs, "parameters": {"method": method} if method else {}}
        path = self._url + routes.EXPLAIN.format(model=self._client.model)
        try:
            answer = httpx.post(path, json=body, headers=self._shown, timeout=self._timeout, trust_env=False)
            explained: object = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return {"error": f"the explainer did not answer: {str(error) or type(error).__name__}"}
        return explained


def _inputs(frame: PredictionFrame, number: int) -> list[dict[str, object]]:
    """V2 tensors of request ``number`` of a frame."""
    ends = np.frombuffer(frame.rows, "<i4").cumsum().tolist()
    rows = slice(ends[number - 1] if number else 0, ends[number])
    return [_tensor(name, column, rows) for name, column in frame.features.items()]


def _tensor(name: str, column: Column, rows: slice) -> dict[str, object]:
    values = numbers(column)[rows].ravel().tolist()
    if column.dtype == "BYTES":
        data: list[Scalar] = [column.values[int(code)] for code in values]
    else:
        data = [None if value != value else value for value in values]
    shape = [rows.stop - rows.start, column.width]
    return {"name": name, "shape": shape, "datatype": column.dtype, "data": data}
