"""Protected attributes of a completion: from metadata into the record, never to the runtime."""

import json
from typing import Any

import httpx
import pytest

from governed_api.governance import Bias
from governed_serving.completions.generated import PatternRefused, answer_of, searcher
from governed_serving.journal import strings
from governed_serving.server.chat.attributes import Attributes
from governed_serving.server.chat.request import CHAT, COMPLETIONS
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.metrics import ServerMetrics
from unit.server.conversations import Explainer, Pieces, World, chunk, read

BIAS = Bias.model_validate(
    {
        "protectedAttributes": [{"name": "sex"}, {"name": "origin"}],
        "strata": ["office"],
        "favorableOutcome": {"pattern": "granted"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1}],
    }
)


def world(answer: Any = None, **more: Any) -> World:
    made = World(answer, **more)
    made.gateway._attributes = Attributes(BIAS, made.metrics)
    return made


def features(made: World) -> list[dict[str, str]]:
    return [{name: str(strings(column)[0]) for name, column in f.features.items()} for f in made.journal.frames]


async def test_taken_out_of_the_request_and_into_the_record() -> None:
    made = world()
    metadata = {"sex": "female", "origin": "my secret village", "office": "north", "ticket": "7"}
    await made.chat("my secret", metadata=metadata, temperature=0.3, tools=[{"type": "function"}])
    assert made.seen[0]["metadata"] == {"office": "north", "ticket": "7"}, "what doesn't protect passes unchanged"
    assert "female" not in json.dumps(made.seen)
    for found in features(made):
        assert list(found) == ["prompt", "sex", "origin", "office", "parameters"]
        assert (found["sex"], found["origin"], found["office"]) == ("female", "my <MASKED> village", "north")
        assert json.loads(found["parameters"]) == {
            "max_tokens": 16,
            "temperature": 0.3,
            "tools": [{"type": "function"}],
            "metadata": {"office": "north", "ticket": "7"},
        }
    assert made.metrics.count["attributes_missing"] == 0


async def test_the_record_holds_what_the_runtime_was_asked_for() -> None:
    """Without max_tokens a token quota sets it, and it is kept."""
    made = world(tokens=5000)
    message = {"messages": [{"role": "user", "content": "hi"}], "metadata": {"sex": "female"}}
    await made.gateway.answer(CHAT, json.dumps(message).encode())
    assert json.loads(features(made)[-1]["parameters"]) == {"max_tokens": 1024}


async def test_metadata_of_protected_attributes_alone_leaves_nothing() -> None:
    made = world()
    await made.chat(metadata={"sex": "male"})
    assert "metadata" not in made.seen[0]
    assert made.metrics.count["attributes_missing"] == 2


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"sex": None, "a": "b"}}])
async def test_what_is_missing_is_recorded_as_such_and_counted(metadata: dict[str, Any]) -> None:
    made = world()
    await made.chat(**metadata)
    assert {(f["sex"], f["origin"], f["office"]) for f in features(made)} == {("", "", "")}
    assert made.metrics.count["attributes_missing"] == 3
    assert b'governed_attributes_missing_total{component="server"' in made.metrics.text()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (["sex"], "metadata: expected an object of strings, found list"),
        ({"sex": 1}, r"metadata\.sex: expected a string, found int"),
        ({"office": "n" * 513}, r"metadata\.office: expected at most 512 characters, found 513"),
    ],
)
async def test_metadata_of_another_kind_is_refused(metadata: Any, words: str) -> None:
    made = world(tokens=1000)
    with pytest.raises(InvalidRequest, match=words):
        await made.chat(metadata=metadata)
    assert (made.seen, made.journal.frames, made.admission.open, made.left()) == ([], [], 0, 1000)


async def test_streams_and_explained_completions_too() -> None:
    body = Pieces([chunk("gran"), chunk("ted"), b"data: [DONE]\n\n"])
    streamed = world(lambda _: httpx.Response(200, stream=body))
    await read(await streamed.chat(stream=True, metadata={"sex": "female"}))
    await streamed.gateway.close()
    explained = world(explainer=Explainer().client())
    message = {"messages": [{"role": "user", "content": "hi"}], "metadata": {"sex": "female"}}
    await explained.gateway.explain(json.dumps(message).encode(), later=False)
    for made in (streamed, explained):
        assert "female" not in json.dumps(made.seen)
        assert [f["sex"] for f in features(made)] == ["female", "female"]
    assert answer_of(streamed.journal.frames[-1]) == "granted"


async def test_the_first_answer_is_told_from_other_choices_and_from_reasoning() -> None:
    choices = [
        {"index": 0, "message": {"reasoning_content": "granted or not?", "content": "a secret refusal"}},
        {"index": 1, "message": {"content": "granted"}},
    ]
    made = world(lambda _: httpx.Response(200, json={"choices": choices}))
    await made.chat()
    assert answer_of(made.journal.frames[-1]) == "a <MASKED> refusal"
    assert strings(made.journal.frames[-1].outputs["completion"])[0].endswith("granted")
    plain = world(lambda _: httpx.Response(200, json={"choices": [{"text": "granted"}]}))
    await plain.gateway.answer(COMPLETIONS, json.dumps({"prompt": "x", "max_tokens": 4}).encode())
    assert "answer" not in plain.journal.frames[-1].outputs, "one text is not written twice"
    assert answer_of(plain.journal.frames[-1]) == "granted"


async def test_without_bias_rules_metadata_passes_as_it_is() -> None:
    made = World()
    await made.chat(metadata={"sex": "female"})
    assert made.seen[0]["metadata"] == {"sex": "female"}
    assert list(features(made)[0]) == ["prompt"]


@pytest.mark.parametrize("pattern", ["(a", "(?=a)", r"(a)\1", "a{2000}"])
def test_a_pattern_that_is_none_is_refused_when_the_server_starts(pattern: str) -> None:
    outcome = BIAS.favorable_outcome.model_copy(update={"pattern": pattern})
    with pytest.raises(PatternRefused, match=r"favorableOutcome\.pattern: expected an RE2 expression, found"):
        Attributes(BIAS.model_copy(update={"favorable_outcome": outcome}), ServerMetrics("default", "chat"))


def test_a_pattern_is_searched_in_any_language() -> None:
    search = searcher(r"(?i)\bgranted\b|批准")
    found = [search(text) for text in ("It is GRANTED.", "申请已批准", "ungranted", "", "批 准")]
    assert found == [True, True, False, False, False]
