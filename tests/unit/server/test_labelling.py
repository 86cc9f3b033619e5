"""Labels of generated text: what the client gets, whole and streamed, and what the record says of it."""

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest

from governed_api.governance import Labelling
from governed_serving.completions.labelling import LABELLED, AnswerLabel, asks_json, is_code
from governed_serving.journal import numbers, strings
from governed_serving.server.app.routes import application
from governed_serving.server.app.service import Gateway
from governed_serving.server.chat.request import CHAT, COMPLETIONS
from unit.server.conversations import ANSWER, Explainer, Pieces, World, chunk, read
from unit.server.planes import until

WORDS = "本内容由人工智能生成"
RULES = Labelling(producer="示例公司")
PREFIX = Labelling(explicit="Prefix", producer="p")
CODE = "```python\nprint(1)\n```"


def choice(content: Any, number: int = 0, reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"index": number, "message": {"role": "assistant", "content": content} | more, "finish_reason": reason}


def whole(*choices: dict[str, Any], rules: Labelling = RULES, **more: Any) -> World:
    body = {"id": "x", "choices": list(choices), "usage": {"total_tokens": 8}}
    return World(lambda _: httpx.Response(200, json=body), labelling=rules, **more)


def delta(reason: str | None = None, number: int = 0, **said: Any) -> bytes:
    body = {"id": "x", "choices": [{"index": number, "delta": said, "finish_reason": reason}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def streamed(*pieces: bytes, rules: Labelling | None = RULES, **more: Any) -> World:
    return World(lambda _: httpx.Response(200, stream=Pieces(list(pieces))), labelling=rules, **more)


async def events(world: World, **more: Any) -> list[dict[str, Any]]:
    lines = b"".join(await read(await world.chat("hi", stream=True, **more))).decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line and line != "data: [DONE]"]


def said(events: list[dict[str, Any]], number: int = 0) -> str:
    return "".join(
        one["delta"].get("content") or ""
        for event in events
        for one in event.get("choices", ())
        if one.get("index", 0) == number
    )


def record(world: World) -> dict[str, Any]:
    return dict(json.loads(strings(world.journal.frames[-1].outputs[LABELLED])[0]))


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


async def test_a_whole_answer_carries_words_and_metadata_and_the_record_says_so() -> None:
    world = whole(choice("Hello."))
    answer = await world.chat("hi")
    body = json.loads(answer.body)
    content = f"Hello.\n\n{WORDS}"
    assert body["choices"][0]["message"]["content"] == content
    assert body["AIGC"] == {
        "Label": "1",
        "ContentProducer": "示例公司",
        "ProduceID": answer.id,
        "ReservedCode1": digest(content),
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    assert json.loads(answer.aigc) == body["AIGC"]
    assert answer.aigc.isascii()
    assert world.records()[-1][1:] == ("complete", content, 8)
    assert record(world) == {
        "explicit": "Suffix",
        "text": digest(WORDS),
        "choices": {"0": "put"},
        "implicit": "AIGC",
        "content": digest(content),
    }
    assert world.journal.frames[-1].ids == [answer.id]
    assert LABELLED not in world.journal.frames[0].outputs


@pytest.mark.parametrize("stream", [False, True])
async def test_the_header_goes_out_with_both_kinds_of_answers(stream: bool) -> None:
    world = streamed(delta(content="a"), delta("stop")) if stream else whole(choice("a"))
    app = application(Gateway("chat", why="", chat=world.gateway))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        answer = await http.post(CHAT, json=body)
    told = json.loads(answer.headers["x-governed-aigc"])
    assert told["ProduceID"] == world.journal.frames[-1].ids[0]
    assert told["ReservedCode1"] == ("" if stream else answer.json()["AIGC"]["ReservedCode1"])
    assert WORDS in answer.text


async def test_without_labelling_there_is_no_header() -> None:
    app = application(Gateway("chat", why="", chat=World().gateway))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        answer = await http.post(CHAT, json={"messages": [{"role": "user", "content": "hi"}]})
    assert answer.status_code == 200
    assert "x-governed-aigc" not in answer.headers


async def test_prefix_of_each_of_several_choices() -> None:
    world = whole(choice("one"), choice("two", 1), rules=PREFIX)
    body = json.loads((await world.chat("hi", n=2)).body)
    told = [one["message"]["content"] for one in body["choices"]]
    assert told == [f"{WORDS}\n\none", f"{WORDS}\n\ntwo"]
    assert body["AIGC"]["ReservedCode1"] == digest("\n".join(told))


@pytest.mark.parametrize(
    ("content", "more", "outcome"),
    [
        ('{"a": 1}', {"response_format": {"type": "json_object"}}, "json"),
        ("no JSON at all", {"response_format": {"type": "json_object"}}, "put"),
        ("{ prose in a bracket", {"response_format": {"type": "json_object"}}, "put"),
        ('{"a": 1}', {}, "put"),
        (CODE, {}, "code"),
        (f"See:\n{CODE}", {}, "put"),
        ("```\nprose\n```", {}, "put"),
        ("```text\nprose\n```", {}, "put"),
        ("```python\nunclosed", {}, "put"),
        (f"Hello.\n\n{WORDS}", {}, "carried"),
        (f"Hello. \n {WORDS} \n", {}, "carried"),
        (f"It would be a lie to say: {WORDS}", {}, "put"),
        ("```essay\nprose\n```", {}, "put"),
        ("```Python\nprint(1)\n```\n~~~sql\nselect 1\n~~~", {}, "code"),
        (f"{WORDS} is what I would say", {}, "put"),
        ("", {}, "empty"),
        (None, {}, "empty"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_becomes_of_a_label(content: str | None, more: dict[str, Any], outcome: str, stream: bool) -> None:
    if stream:
        world = streamed(delta(role="assistant", content=content), delta("stop"))
        got = said(await events(world, **more))
    else:
        world = whole(choice(content))
        got = json.loads((await world.chat("hi", **more)).body)["choices"][0]["message"]["content"]
    expected = f"{content}\n\n{WORDS}" if outcome == "put" else content
    assert (got or None) == (expected or None)
    assert record(world)["choices"] == {"0": outcome}
    assert record(world)["content"] == digest(expected or "")


@pytest.mark.parametrize(
    ("pieces", "outcome", "ending"),
    [
        (['{"a"', ": 1}"], "json", ""),
        (["{ only ", "prose"], "put", f"\n\n{WORDS}"),
        ([" [1, 2", ", 3"], "put", f"\n\n{WORDS}"),
    ],
)
async def test_what_only_begins_as_json_is_labelled_behind(pieces: list[str], outcome: str, ending: str) -> None:
    """Before its end nobody can tell; then the beginning is out."""
    world = streamed(*(delta(content=piece) for piece in pieces), delta("length"), rules=PREFIX)
    got = await events(world, response_format={"type": "json_object"})
    assert said(got) == "".join(pieces) + ending
    assert record(world)["choices"] == {"0": outcome}
    assert got[-1]["AIGC"]["ReservedCode1"] == digest(said(got))


async def test_a_stream_of_parts_gets_its_prefix_once() -> None:
    part = {"type": "text", "text": WORDS[:2]}
    world = streamed(delta(content=[part]), delta(content=[part]), delta("stop"), rules=PREFIX, answers=False)
    got = await events(world)
    parts = [one for event in got for one in event["choices"][0]["delta"].get("content", ())]
    assert parts == [{"type": "text", "text": f"{WORDS}\n\n"}, part, part]


async def test_choices_without_numbers_are_told_apart() -> None:
    bare = [{"message": {"content": text}} for text in ("a", "b")]
    world = World(lambda _: httpx.Response(200, json={"choices": bare}), labelling=RULES, answers=False)
    body = json.loads((await world.chat("hi", n=2)).body)
    told = [one["message"]["content"] for one in body["choices"]]
    assert told == [f"a\n\n{WORDS}", f"b\n\n{WORDS}"]
    assert body["AIGC"]["ReservedCode1"] == digest("\n".join(told))


async def test_exemptions_that_are_not_asked_for() -> None:
    rules = Labelling(producer="p", exempt=[])
    world = whole(choice('{"a": 1}'), rules=rules)
    body = json.loads((await world.chat("hi", response_format={"type": "json_object"})).body)
    assert body["choices"][0]["message"]["content"].endswith(WORDS)


async def test_tool_calls_have_no_text_to_label() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    world = whole(choice(None, reason="tool_calls", tool_calls=[call]))
    body = json.loads((await world.chat("hi")).body)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert record(world)["choices"] == {"0": "empty"}
    assert body["AIGC"]["Label"] == "1"


async def test_content_in_parts_gets_a_part() -> None:
    world = whole(choice([{"type": "text", "text": "Hello."}]))
    body = json.loads((await world.chat("hi")).body)
    assert body["choices"][0]["message"]["content"] == [
        {"type": "text", "text": "Hello."},
        {"type": "text", "text": f"\n\n{WORDS}"},
    ]


@pytest.mark.parametrize("rules", [RULES, PREFIX])
async def test_a_stream_cut_at_every_boundary(rules: Labelling) -> None:
    text = f"{WORDS[:5]} naïve 你好 🙂"
    want = f"{text}\n\n{WORDS}" if rules is RULES else f"{WORDS}\n\n{text}"
    for cut in range(len(text) + 1):
        for last in ({}, {"content": "!"}):
            world = streamed(
                delta(role="assistant", content=""),
                b": a comment\n\n",
                delta(content=text[:cut]),
                delta(content=text[cut:]),
                delta("stop", **last),
                b"data: [DONE]\n\n",
                rules=rules,
            )
            got = await events(world)
            expected = want.replace(text, text + last.get("content", ""))
            assert said(got) == expected
            assert world.records()[-1][2] == expected
            assert got[-1]["AIGC"]["ReservedCode1"] == digest(expected)
            assert record(world)["choices"] == {"0": "put"}
            finish = [one for event in got for one in event["choices"] if one["finish_reason"]]
            assert len(finish) == 1
            if rules is RULES:
                assert finish[0]["delta"] == {}


@pytest.mark.parametrize("rest", [" is a lie.", "\u200b", "的说法不对。", "\rso"])
async def test_a_sentence_that_only_begins_with_the_labels_words_is_labelled(rest: str) -> None:
    """Whoever asks can have a model say them, to deny them."""
    text = WORDS + rest
    for cut in range(len(WORDS) - 1, len(text)):
        world = streamed(delta(content=text[:cut]), delta(content=text[cut:]), delta("stop"), rules=PREFIX)
        assert said(await events(world)) == f"{WORDS}\n\n{text}"
        assert record(world)["choices"] == {"0": "put"}
    body = json.loads((await whole(choice(text), rules=PREFIX).chat("hi")).body)
    assert body["choices"][0]["message"]["content"] == f"{WORDS}\n\n{text}"


@pytest.mark.parametrize("lead", ["", "\n"])
async def test_a_stream_that_begins_with_the_label_itself_is_not_labelled_twice(lead: str) -> None:
    text = f"{lead}{WORDS}\n\nHello"
    for cut in range(len(text) + 1):
        world = streamed(delta(content=text[:cut]), delta(content=text[cut:]), delta("stop"), rules=PREFIX)
        assert said(await events(world)) == text
        assert record(world)["choices"] == {"0": "carried"}


async def test_a_stream_that_ends_with_the_label_itself() -> None:
    text = f"Hello\n\n{WORDS}"
    for cut in range(len(text) + 1):
        world = streamed(delta(content=text[:cut]), delta(content=text[cut:]), delta("stop"))
        assert said(await events(world)) == text
        assert record(world)["choices"] == {"0": "carried"}


async def test_a_stream_of_two_choices_that_finish_one_by_one() -> None:
    world = streamed(
        delta(content="a"),
        delta(number=1, content="b"),
        delta("stop"),
        delta(number=1, content="c"),
        delta("stop", 1),
        chunk(usage={"total_tokens": 9}),
        b"data: [DONE]\n\n",
    )
    got = await events(world, n=2)
    assert (said(got), said(got, 1)) == (f"a\n\n{WORDS}", f"bc\n\n{WORDS}")
    told = [event["AIGC"] for event in got if "AIGC" in event]
    assert [one["ReservedCode1"] for one in told] == [digest(f"a\n\n{WORDS}\nbc\n\n{WORDS}")]
    assert world.records()[-1][3] == 9


async def test_a_stream_without_finish_reason_is_labelled_at_its_end() -> None:
    world = streamed(delta(content="Hello"), b"data: [DONE]\n\n")
    got = await events(world)
    assert said(got) == f"Hello\n\n{WORDS}"
    assert got[-1]["AIGC"]["ReservedCode1"] == digest(f"Hello\n\n{WORDS}")


async def test_held_beginnings_come_out_at_the_end() -> None:
    world = streamed(delta(content=WORDS[:3]), b"data: [DONE]\n\n", rules=PREFIX)
    assert said(await events(world)) == f"{WORDS}\n\n{WORDS[:3]}"


async def test_words_behind_the_end_change_the_digest_that_is_told_last() -> None:
    world = streamed(delta(content="a"), delta("stop"), delta(content="b"), b"data: [DONE]\n\n")
    got = await events(world)
    assert got[-1]["AIGC"]["ReservedCode1"] == digest(said(got)) == record(world)["content"]


async def test_reasoning_logprobs_and_usage_stay_the_runtimes() -> None:
    spelled = {"content": [{"token": "a"}]}
    last = {
        "id": "x",
        "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": spelled, "finish_reason": "stop"}],
        "usage": {"total_tokens": 7},
    }
    world = streamed(delta(reasoning_content="hm"), b"data: " + json.dumps(last).encode() + b"\n\n")
    got = await events(world, stream_options={"include_usage": True})
    assert said(got) == f"a\n\n{WORDS}"
    assert [e["choices"][0].get("logprobs") for e in got] == [None, spelled, None]
    assert [e.get("usage") for e in got] == [None, None, {"total_tokens": 7}]
    assert world.records()[-1][3] == 7


async def test_a_label_is_not_counted_as_tokens() -> None:
    pieces = [delta(content="abc"), delta("stop"), b"data: [DONE]\n\n"]
    plain, labelled = streamed(*pieces, rules=None), streamed(*pieces)
    await events(plain)
    await events(labelled)
    counted = [int(numbers(world.journal.frames[-1].outputs["tokens"])[0]) for world in (plain, labelled)]
    assert counted[0] == counted[1]


async def test_a_stream_that_fails_gets_no_label() -> None:
    world = streamed(delta(content="Hel"), b'data: {"error": {"message": "out of memory"}}\n\n', answers=False)
    got = await events(world)
    assert said(got) == "Hel"
    assert "error" in got[-1]
    assert not any("AIGC" in event for event in got)
    await until(lambda: len(world.journal.frames) == 2)
    assert record(world) == {
        "explicit": "Suffix",
        "text": digest(WORDS),
        "choices": {"0": "unfinished"},
        "implicit": "AIGC",
    }


async def test_a_client_that_leaves_is_recorded_without_label() -> None:
    gate = asyncio.Event()
    world = World(
        lambda _: httpx.Response(200, stream=Pieces([delta(content="Hel"), delta("stop")], gate)),
        labelling=RULES,
        answers=False,
    )
    stream = await world.chat("hi", stream=True)
    assert b"Hel" in await anext(stream.pieces)
    await stream.pieces.aclose()
    await until(lambda: len(world.journal.frames) == 2)
    assert world.records()[-1][1:3] == ("cut", "Hel")
    assert record(world)["choices"] == {"0": "unfinished"}


async def test_what_began_as_json_and_was_cut_is_not_recorded_as_json() -> None:
    """Whoever leaves before the end has read prose without a label."""
    pieces = [delta(content="{ prose that"), b'data: {"error": {"message": "gone"}}\n\n']
    world = streamed(*pieces, rules=PREFIX, answers=False)
    assert said(await events(world, response_format={"type": "json_object"})) == "{ prose that"
    await until(lambda: len(world.journal.frames) == 2)
    assert record(world)["choices"] == {"0": "unfinished"}


async def test_completions_and_lists_of_prompts() -> None:
    answer = {"object": "text_completion", "choices": [{"index": k, "text": t} for k, t in enumerate("ab")]}
    world = World(lambda _: httpx.Response(200, json=answer), labelling=RULES)
    body = json.dumps({"prompt": ["x", "y"], "max_tokens": 4}).encode()
    told = json.loads((await world.gateway.answer(COMPLETIONS, body)).body)  # type: ignore[union-attr]
    assert [one["text"] for one in told["choices"]] == [f"a\n\n{WORDS}", f"b\n\n{WORDS}"]


async def test_a_stream_of_completions() -> None:
    def text(words: str, reason: str | None = None) -> bytes:
        one = {"index": 0, "text": words, "finish_reason": reason}
        return b"data: " + json.dumps({"object": "text_completion", "choices": [one]}).encode() + b"\n\n"

    world = streamed(text("a"), text("b", "stop"), b"data: [DONE]\n\n", answers=False)
    body = json.dumps({"prompt": "x", "max_tokens": 4, "stream": True}).encode()
    stream = await world.gateway.answer(COMPLETIONS, body)
    lines = b"".join(await read(stream)).decode().split("\n\n")  # type: ignore[arg-type]
    got = [json.loads(line[6:]) for line in lines if line and "[DONE]" not in line]
    assert [(e["choices"][0]["text"], e["choices"][0]["finish_reason"]) for e in got] == [
        ("a", None),
        (f"b\n\n{WORDS}", None),
        ("", "stop"),
    ]
    assert "delta" not in got[-1]["choices"][0]


async def test_masked_answers_are_labelled_behind_the_mask() -> None:
    world = streamed(delta(content="a sec"), delta(content="ret"), delta("stop"), b"data: [DONE]\n\n")
    assert said(await events(world)) == f"a <MASKED>\n\n{WORDS}"
    assert world.records()[-1][2] == f"a <MASKED>\n\n{WORDS}"


@pytest.mark.parametrize("rules", [RULES, PREFIX])
async def test_patterns_and_explanations_see_the_models_words_alone(rules: Labelling) -> None:
    label = AnswerLabel(rules, "i")
    (labelled,) = label.whole({"choices": [choice(f"a {WORDS} b")]})["choices"]  # type: ignore[misc]
    assert labelled["message"]["content"].count(WORDS) == 2  # type: ignore[index, call-overload, union-attr]
    assert label.without(labelled["message"]["content"]) == f"a {WORDS} b"  # type: ignore[index, call-overload, arg-type]
    explainer = Explainer()
    world = whole(choice("a"), rules=rules, explainer=explainer.client())
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    await world.gateway.explain(json.dumps(body).encode(), later=False)
    assert WORDS not in json.dumps(explainer.asked, ensure_ascii=False)
    assert world.records()[-1][2] != "a"


async def test_a_runtimes_own_metadata_is_not_passed_as_ours() -> None:
    forged = {"AIGC": {"Label": "3", "ProduceID": "somebody's"}}
    body = ANSWER | forged
    world = World(lambda _: httpx.Response(200, json=body), labelling=RULES)
    answer = await world.chat("hi")
    assert json.loads(answer.body)["AIGC"]["ProduceID"] == answer.id
    first = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]} | forged
    world = streamed(b"data: " + json.dumps(first).encode() + b"\n\n", delta("stop"))
    got = await events(world)
    assert [event["AIGC"]["Label"] for event in got if "AIGC" in event] == ["1"]


async def test_without_labelling_bytes_are_as_ever() -> None:
    pieces = [delta(role="assistant", content="Hel"), delta(content="lo"), delta("stop"), b"data: [DONE]\n\n"]
    world = streamed(*pieces, rules=None, answers=False)
    raw = b"".join(await read(await world.chat("hi", stream=True)))
    named = [
        b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}],"model":"chat"}\n\n',  # noqa: E501
        b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}],"model":"chat"}\n\n',
        b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"model":"chat"}\n\n',
        b"data: [DONE]\n\n",
    ]
    assert raw == b"".join(named)
    assert LABELLED not in world.journal.frames[-1].outputs


async def test_only_words_or_only_metadata() -> None:
    words = whole(choice("a"), rules=Labelling(implicit="Off"))
    answer = await words.chat("hi")
    assert "AIGC" not in json.loads(answer.body)
    assert answer.aigc == ""
    metadata = streamed(delta(content="a"), delta("stop"), rules=Labelling(explicit="Off", producer="p"))
    got = await events(metadata)
    assert said(got) == "a"
    assert got[-1]["AIGC"]["ReservedCode1"] == digest("a")
    assert record(metadata) == {"implicit": "AIGC", "content": digest("a")}


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ({"response_format": {"type": "json_schema"}}, True),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": None}, False),
        ({"structured_outputs": {"json": {"type": "object"}}}, True),
        ({"guided_json": {"type": "object"}}, True),
        ({}, False),
    ],
)
def test_requests_for_json(message: dict[str, Any], asked: bool) -> None:
    assert asks_json(message) is asked


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```c++\nint x;\n```\n\n~~~sh\nls\n~~~", True),
        ("````python\n```\n````", True),
        ("```python\nx\n``` trailing", False),
        ("", False),
        ("`x`", False),
        ("~~~" + "a" * 300_000 + "`", False),
        ("```" + "a" * 300_000 + "`\nx\n```", False),
        ("`" * 300_000, False),
    ],
)
def test_code(text: str, code: bool) -> None:
    assert is_code(text) is code
