"""Data planes for tests: the real parts over the tabular model, with a journal and a masker that remember."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from governed_serving.privacy import Finding, Masker
from governed_serving.records import PredictionFrame
from governed_serving.server.accounts import Accounts
from governed_serving.server.admission import Admission
from governed_serving.server.dataplane import DataPlane
from governed_serving.server.identity import Identity
from governed_serving.server.masking import Masking
from governed_serving.server.metrics import ServerMetrics
from governed_serving.server.pipeline import PathRules, Pipeline, Stages
from governed_serving.server.predictors.onnx import OnnxPredictor
from governed_serving.server.quota import QuotaGate
from governed_serving.server.signature import Signature
from unit.server.tabular_model import manifest, tabular


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Poll ``condition`` on the loop; AssertionError after ``seconds``."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


IDENTITY = Identity("credit", "default", "r1", "sha256:0")


class MemoryJournal:
    """Keeps frames; ``error`` is raised instead; ``gate`` holds acknowledgements back."""

    def __init__(self) -> None:
        self.frames: list[PredictionFrame] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def append(self, record: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.frames.append(record)
        if self.gate is not None:
            await self.gate.wait()

    @property
    def ids(self) -> list[str]:
        """Of predictions."""
        return [i for frame in self.frames for i in frame.ids]

    @property
    def called(self) -> list[str]:
        """What clients called their requests."""
        return [i for frame in self.frames for i in frame.client_ids]


def word_finder(text: str) -> list[Finding]:
    """Finds the word secret; errs on the word boom."""
    if "boom" in text:
        raise RuntimeError("secret must not appear")
    return [Finding("MASKED", *match.span()) for match in re.finditer("secret", text)]


def masker_of(find: Callable[[str], list[Finding]] | None = None, policy: Any = "Closed") -> Masker:
    """Replaces what ``find`` finds, secret by default."""
    return Masker(find or word_finder, lambda entity, _: f"<{entity}>", policy)


def predictor(*, text: bool = False, impute: tuple[str, ...] = (), **more: Any) -> OnnxPredictor:
    model = tabular(text=text)
    return OnnxPredictor(model, Signature.of(manifest(model, text=text, impute=impute)), **more)


def without_haste(pipeline: Pipeline) -> None:
    """What is asked from now on isn't late: on a busy machine a deadline that a test has waited for passes by
    itself."""
    pipeline.rules = replace(pipeline.rules, timeout=60.0)


def plane(
    *,
    text: bool = False,
    journal: Any = None,
    journal_policy: Any = "Closed",
    masker: Any = None,
    masking_policy: Any = "Closed",
    answers: bool = False,
    quota: QuotaGate | None = None,
    max_concurrent: int | None = None,
    ready: Callable[[], str] = lambda: "",
    using: Any = None,
    promises: Any = None,
    accounts: Callable[[ServerMetrics], Accounts] = lambda _: None,  # type: ignore[assignment,return-value]
    audited: tuple[str, ...] = (),
    **more: Any,
) -> DataPlane:
    compute = using or predictor(text=text)
    metrics = ServerMetrics("default", "credit")
    masking = Masking(masker_of(masker, masking_policy), answers=answers) if text else None
    admission = Admission(ready, metrics, quota=quota, max_concurrent=max_concurrent)
    rules = PathRules(journal_policy=journal_policy, **more)
    stages = Stages(masking=masking, journal=journal, promises=promises, accounts=accounts(metrics))
    return DataPlane(Pipeline(IDENTITY, admission, rules, stages), compute, audited=audited)
