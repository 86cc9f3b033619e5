"""Answers on their way to the client: what it gets, whole and streamed, is what the journal has, and holds no personal
data; what the runtime is asked holds none either."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from governed_api.governance import Masking as Rules
from governed_serving.journal import strings
from governed_serving.privacy import Finder, Finding
from governed_serving.server.chat.events import DONE
from governed_serving.server.chat.request import COMPLETIONS
from governed_serving.server.errors import InvalidRequest, UpstreamFailed
from unit.server.conversations import Pieces, World, chunk, read

PHONE, CARD = "13812345678", "4111 1111 1111 1111"
FIND = Finder().find
VALUES = (PHONE, CARD, "zhang@example.com")


def event(index: int = 0, /, finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": index, "finish_reason": finish} | fields
    return b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"


def streaming(pieces: Sequence[bytes], **more: Any) -> World:
    return World(lambda _: httpx.Response(200, stream=Pieces([*pieces, DONE])), masker=FIND, **more)


def events(pieces: list[bytes]) -> list[dict[str, Any]]:
    """Those of a whole stream, without its end."""
    assert pieces[-1] == DONE
    return [json.loads(piece.removeprefix(b"data: ")) for piece in pieces[:-1]]


def told(chunks: list[dict[str, Any]], field: str = "content", index: int = 0) -> str:
    """What a client puts together of a choice."""
    choices = [choice for one in chunks for choice in one["choices"] if choice["index"] == index]
    return "".join(choice.get("delta", choice).get(field) or "" for choice in choices)


def recorded(world: World) -> tuple[str, dict[str, Any]]:
    """The completion, and where something was masked."""
    outputs = world.journal.frames[-1].outputs
    masked = outputs.get("masked")
    return strings(outputs["completion"])[0], json.loads(strings(masked)[0]) if masked else {}


async def test_a_whole_answer_is_masked_for_the_client_and_recorded_as_the_client_got_it() -> None:
    said = {
        "content": f"call {PHONE} or zhang@example.com",
        "reasoning_content": f"his number is {PHONE}",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "dial", "arguments": f'{{"to": "{PHONE}"}}'}}
        ],
    }
    answer = {
        "id": "x",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        "usage": {"total_tokens": 9},
    }
    world = World(lambda _: httpx.Response(200, json=answer), masker=FIND)
    body = (await world.chat(f"my card is {CARD}")).body
    sent = json.loads(body)
    message = sent["choices"][0]["message"]
    assert message["content"] == "call <PHONE_NUMBER> or <EMAIL>"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"to": "<PHONE_NUMBER>"}
    assert (message["tool_calls"][0]["id"], sent["usage"]) == ("call_1", {"total_tokens": 9})
    assert world.seen[0]["messages"][0]["content"] == "my card is <BANK_CARD>"
    completion, masked = recorded(world)
    got = (message["content"], message["reasoning_content"], message["tool_calls"][0]["function"]["arguments"])
    assert completion == "".join(got), "what the client got, to the byte"
    assert masked == {
        "request": {"messages[0].content": {"BANK_CARD": 1}},
        "answer": {
            "choices[0].message.content": {"PHONE_NUMBER": 1, "EMAIL": 1},
            "choices[0].message.reasoning_content": {"PHONE_NUMBER": 1},
            "choices[0].message.tool_calls[0].function.arguments": {"PHONE_NUMBER": 1},
        },
    }
    for value in VALUES:
        assert value not in body.decode()
        assert value not in repr(world.journal.frames)
        assert value not in repr(world.seen)


@pytest.mark.parametrize(
    ("requests", "answers", "asked", "got"),
    [
        (True, False, "<PHONE_NUMBER>", PHONE),
        (False, True, PHONE, "<PHONE_NUMBER>"),
        (True, True, "<PHONE_NUMBER>", "<PHONE_NUMBER>"),
    ],
    ids=["Request", "Response", "Both"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_journal_has_what_either_side_saw(
    requests: bool, answers: bool, asked: str, got: str, stream: bool
) -> None:
    def runtime(_: httpx.Request) -> httpx.Response:
        if stream:
            return httpx.Response(200, stream=Pieces([chunk(PHONE[:5]), chunk(PHONE[5:]), DONE]))
        return httpx.Response(200, json={"choices": [{"index": 0, "message": {"content": PHONE}}]})

    world = World(runtime, masker=FIND, requests=requests, answers=answers)
    answer = await world.chat(PHONE, stream=stream)
    seen = told(events(await read(answer))) if stream else json.loads(answer.body)["choices"][0]["message"]["content"]
    await world.gateway.close()
    assert seen == got
    assert world.seen[0]["messages"][0]["content"] == asked
    assert [record[2] for record in world.records()] == ["", got]
    assert json.loads(world.records()[-1][0])[0]["content"] == asked


def test_generated_text_is_masked_both_ways_unless_said_otherwise() -> None:
    assert [Rules().masks_answers(generated) for generated in (True, False)] == [True, False]
    ways = {direction: Rules(direction=direction) for direction in ("Request", "Response", "Both")}
    assert {way: (rules.masks_requests(), rules.masks_answers(False)) for way, rules in ways.items()} == {
        "Request": (True, False),
        "Response": (False, True),
        "Both": (True, True),
    }
    assert not ways["Request"].masks_answers(True)


async def test_choices_and_tool_calls_are_held_back_each_by_itself() -> None:
    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments} | more}]}

    pieces = [
        event(0, delta={"role": "assistant", "content": f"call {PHONE[:4]}"}),
        event(1, delta={"role": "assistant", "content": "no 12 "}),
        event(0, delta={"content": PHONE[4:]}),
        event(1, delta={"content": PHONE[4:]}),
        event(2, delta=call(0, '{"to": "1381', name="dial")),
        event(2, delta=call(1, '{"to": "', name="dial")),
        event(2, delta=call(0, '2345678"}')),
        event(2, delta=call(1, f'{PHONE}"')),
        event(0, "stop", delta={}),
        event(1, "length", delta={}),
        event(2, "tool_calls", delta=call(1, "}")),
    ]
    world = streaming(pieces)
    got = events(await read(await world.chat(stream=True, n=3)))
    await world.gateway.close()
    assert told(got) == "call <PHONE_NUMBER>"
    assert told(got, index=1) == "no 12 2345678", "a number of eight digits behind one of two is nobody's"
    arguments = {0: "", 1: ""}
    for one in got:
        for choice in one["choices"]:
            for piece in choice["delta"].get("tool_calls", []):
                arguments[piece["index"]] += piece["function"].get("arguments", "")
    assert [json.loads(text) for text in arguments.values()] == [{"to": "<PHONE_NUMBER>"}] * 2
    assert [c["finish_reason"] for one in got for c in one["choices"] if c["finish_reason"]] == [
        "stop",
        "length",
        "tool_calls",
    ]
    assert recorded(world)[0] == "\n".join([told(got), told(got, index=1), "".join(arguments.values())])


@pytest.mark.parametrize("cut", range(1, len(PHONE)))
async def test_a_number_split_anywhere_never_leaks_and_the_text_before_it_is_not_held(cut: int) -> None:
    pieces = [chunk("Hello"), chunk(" there, "), chunk(PHONE[:cut]), chunk(PHONE[cut:]), chunk(". Bye")]
    world = streaming([*pieces, event(0, "stop", delta={}), chunk(usage={"total_tokens": 5})])
    got = events(await read(await world.chat(stream=True, stream_options={"include_usage": True})))
    await world.gateway.close()
    contents = [one["choices"][0]["delta"].get("content", "") for one in got[:-1]]
    assert contents == ["", "Hello there, ", "", "", "<PHONE_NUMBER>. ", "Bye"]
    assert got[-1] == {"id": "x", "choices": [], "usage": {"total_tokens": 5}, "model": "chat"}
    assert recorded(world)[0] == "".join(contents)


async def test_a_stream_that_is_cut_lets_nothing_undecided_go() -> None:
    broken = Pieces([chunk("so "), chunk(PHONE[:9])], error=httpx.ReadError("gone"))
    closed = Pieces([chunk("so "), chunk(PHONE[:9])])
    for body in (broken, closed):
        world = World(lambda _, body=body: httpx.Response(200, stream=body), masker=FIND)
        pieces = await read(await world.chat(stream=True))
        await world.gateway.close()
        assert b"error" in pieces[-1]
        assert PHONE[:3] not in b"".join(pieces).decode()
        assert world.records()[-1][1:3] == ("cut", "so ")


@pytest.mark.parametrize("policy", ["Closed", "Open"])
async def test_an_answer_that_cannot_be_searched_is_held_back_or_passes_as_the_policy_says(policy: Any) -> None:
    def find(text: str) -> list[Finding]:
        if "boom" in text:
            raise RuntimeError("secret must not appear")
        return FIND(text)

    pieces = [chunk("so "), chunk("boom "), chunk("secret "), event(0, "stop", delta={}), DONE]
    world = World(lambda _: httpx.Response(200, stream=Pieces(pieces)), masker=find, masking_policy=policy)
    got = await read(await world.chat(stream=True))
    await world.gateway.close()
    if policy == "Open":
        assert told(events(got)) == "so boom secret "
    else:
        assert b"masking" in got[-1]
        assert b"secret" not in b"".join(got)
        assert world.records()[-1][1:3] == ("cut", "so ")
    assert world.metrics.count["masking_failures"] >= 1


def logprobs(*tokens: str) -> dict[str, Any]:
    return {"content": [{"token": token, "logprob": -1.0, "top_logprobs": []} for token in tokens]}


async def test_log_probabilities_show_nothing_that_the_text_hides() -> None:
    tokens = ["my", " number", " is", " 138", "1234", "5678", " thanks", " a", " lot"]
    pieces = [event(0, delta={"content": token}, logprobs=logprobs(token)) for token in tokens]
    world = streaming([*pieces, event(0, "stop", delta={})])
    got = events(await read(await world.chat(stream=True, logprobs=True)))
    shown = [one["token"] for e in got for c in e["choices"] for one in (c.get("logprobs") or {}).get("content", [])]
    assert told(got) == "my number is <PHONE_NUMBER> thanks a lot"
    assert shown == ["my", " number", " is", " thanks", " a", " lot"]
    await world.gateway.close()


SHOWN = [" it", PHONE, PHONE[7:], " at", f"to {PHONE}!", "\uff11" + PHONE[1:], ""]
"""Alternatives behind the first seven digits of a phone number, the second, third, fifth and sixth of which give one
away."""
KEPT = [" it", " at", ""]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_alternatives_to_a_token_show_nothing_that_would_be_masked(stream: bool) -> None:
    tokens = ["call ", PHONE[:7], " then"]
    told_again: dict[str, Any] = logprobs(*tokens)
    told_again["content"][2]["top_logprobs"] = [{"token": token, "logprob": -1.0, "bytes": [1]} for token in SHOWN]
    if stream:
        parts = [{"content": [one]} for one in told_again["content"]]
        pieces = [event(0, delta={"content": t}, logprobs=p) for t, p in zip(tokens, parts, strict=True)]
        world = streaming([*pieces, event(0, "stop", delta={})])
        got = events(await read(await world.chat(stream=True, logprobs=True)))
        sent = [one for e in got for c in e["choices"] for one in (c.get("logprobs") or {}).get("content", [])]
    else:
        choice = {"index": 0, "message": {"content": "".join(tokens)}, "logprobs": told_again}
        world = World(lambda _: httpx.Response(200, json={"choices": [choice]}), masker=FIND)
        sent = json.loads((await world.chat()).body)["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in sent] == tokens
    assert [one["token"] for one in sent[2]["top_logprobs"]] == KEPT
    await world.gateway.close()


async def test_alternatives_of_a_completion_are_searched_too() -> None:
    tops = [None, {"a": -1.0}, dict.fromkeys(SHOWN, -1.0)]
    told_again = {"tokens": ["call ", PHONE[:7], " then"], "top_logprobs": tops}
    choice = {"index": 0, "text": f"call {PHONE[:7]} then", "logprobs": told_again}
    world = World(lambda _: httpx.Response(200, json={"choices": [choice]}), masker=FIND)
    sent = json.loads((await world.gateway.answer(COMPLETIONS, b'{"prompt": "x", "max_tokens": 4}')).body)
    assert sent["choices"][0]["logprobs"]["top_logprobs"] == [None, {"a": -1.0}, dict.fromkeys(KEPT, -1.0)]
    await world.gateway.close()


@pytest.mark.parametrize(
    "beside",
    [
        {"logprobs": logprobs("my ", "number")},  # of another text
        {"logprobs": {"tokens": [PHONE], "token_logprobs": [-1.0]}},
        {"token_ids": [1, 2, 3], "delta": {}},  # of a text that is still to come
    ],
    ids=["another", "completions", "ids"],
)
async def test_tokens_that_are_not_those_of_the_text_are_left_out(beside: dict[str, Any]) -> None:
    world = streaming([event(0, **({"delta": {"content": "my word "}} | beside)), event(0, "stop", delta={})])
    got = await read(await world.chat(stream=True))
    assert PHONE not in b"".join(got).decode()
    assert all(not one["choices"][0].get(key) for one in events(got) for key in ("logprobs", "token_ids"))
    await world.gateway.close()


@pytest.mark.parametrize(
    ("text", "tokens", "kept"),
    [("my word", ["my", " word"], True), (f"at {PHONE}", ["at ", PHONE], False), ("at", ["at ", PHONE], False)],
    ids=["clean", "masked", "lying"],
)
async def test_log_probabilities_of_a_whole_completion(text: str, tokens: list[str], kept: bool) -> None:
    choice = {
        "index": 0,
        "text": text,
        "logprobs": {"tokens": tokens},
        "token_ids": [1],
        "prompt_logprobs": [{PHONE: 1}],
    }
    answer = {"choices": [choice], "prompt_token_ids": [1]}
    world = World(lambda _: httpx.Response(200, json=answer), masker=FIND)
    body = (await world.gateway.answer(COMPLETIONS, b'{"prompt": "x", "max_tokens": 4}')).body
    sent = json.loads(body)
    assert PHONE not in body.decode()
    assert (sent["choices"][0]["logprobs"], sent["choices"][0]["token_ids"]) == (
        ({"tokens": tokens}, [1]) if kept else (None, None)
    )
    assert "prompt_token_ids" not in sent


async def test_what_a_runtime_adds_of_its_own_is_searched_too() -> None:
    answer = {"choices": [{"index": 0, "message": {"content": "ok", "audio": {"transcript": PHONE}}}], "note": PHONE}
    world = World(lambda _: httpx.Response(200, json=answer), masker=FIND)
    assert PHONE not in (await world.chat()).body.decode()
    streamed = streaming([event(0, delta={"reasoning": PHONE[:5]}), event(0, delta={"reasoning": PHONE[5:]})])
    assert told(events(await read(await streamed.chat(stream=True))), "reasoning") == "<PHONE_NUMBER>"
    await streamed.gateway.close()


async def test_without_rules_for_answers_chunks_pass_as_they_come() -> None:
    pieces = [event(0, delta={"content": PHONE[:5]}, logprobs=logprobs(PHONE[:5])), event(0, delta={"content": "x"})]
    world = streaming(pieces, answers=False)
    got = events(await read(await world.chat(stream=True)))
    assert [one["choices"] for one in got] == [json.loads(piece[6:])["choices"] for piece in pieces]
    await world.gateway.close()


async def test_a_request_is_searched_in_all_its_parts() -> None:
    content = [{"type": "text", "text": f"my number is {PHONE[:5]}"}, {"type": "text", "text": f"{PHONE[5:]}, ok"}]
    arguments = f'{{"to": {PHONE}, "note": "\\u0031{PHONE[1:]}"}}'
    asked = {
        "messages": [
            {"role": "assistant", "content": "4111 1111 ", "tool_calls": [{"function": {"arguments": arguments}}]},
            {"role": "user", "content": "1111 1111"},
            {"role": "user", "name": PHONE, "content": content},
        ],
        "user": "zhang@example.com",
        "metadata": {PHONE: "x", "number": int(PHONE), "encoded": "MTM4MTIzNDU2Nzg="},
        "max_tokens": 4,
    }  # fmt: skip
    world = World(masker=FIND)
    await world.gateway.answer("/v1/chat/completions", json.dumps(asked).encode())
    (seen,) = world.seen
    first, second, third = seen["messages"]
    assert (first["content"], second["content"]) == ("<BANK_CARD>", "")
    assert json.loads(first["tool_calls"][0]["function"]["arguments"]) == {
        "to": "<PHONE_NUMBER>",
        "note": "<PHONE_NUMBER>",
    }
    assert (third["name"], [part["text"] for part in third["content"]]) == (
        "<PHONE_NUMBER>",
        ["my number is <PHONE_NUMBER>", ", ok"],
    )
    assert seen["user"] == "<EMAIL>"
    assert seen["metadata"] == {"<PHONE_NUMBER>": "x", "number": "<PHONE_NUMBER>", "encoded": "<PHONE_NUMBER>"}
    assert seen["max_tokens"] == 4
    masked = recorded(world)[1]["request"]
    assert masked["metadata.* (key)"] == {"PHONE_NUMBER": 1}
    assert not any(value in repr(world.journal.frames) for value in (PHONE, "4111", "zhang@"))


async def test_what_a_runtime_says_of_a_failure_is_masked() -> None:
    for status in (400, 500):
        world = World(
            lambda _, status=status: httpx.Response(status, json={"error": {"message": f"no {PHONE}"}}), masker=FIND
        )
        for stream in (False, True):
            with pytest.raises((InvalidRequest, UpstreamFailed), match="no <PHONE_NUMBER>"):
                await world.chat(stream=stream)
        assert world.admission.open == 0


async def test_a_value_that_is_no_number_is_not_quoted() -> None:
    with pytest.raises(InvalidRequest, match=r"^max_tokens: expected a whole number from 1 to 1000000, found str$"):
        await World(masker=FIND).chat(max_tokens=PHONE)
