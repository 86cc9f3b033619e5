"""Completions of a foreign runtime explained through log-probabilities.

The runtime here answers in the shapes of llama-cpp-python 0.3.36 as its source builds them
(``Llama._create_completion``, ``_convert_text_completion_to_chat``); its words have known weights, so the Shapley
values are known.
"""

import json
import re
from array import array

import numpy as np
import pytest

from governed_api.governance import Explainer
from governed_api.model import Runtime
from governed_serving.blackbox.errors import ModelMisbehaved, NotExplainable, UnknownMethod
from governed_serving.completions.conversation import last_spoken
from governed_serving.explainer.service.engine import Engine, Limits
from governed_serving.explainer.service.language import MAX_ROWS_PER_CALL, completions_in, language_model
from governed_serving.explainer.service.methods import LANGUAGE_METHODS
from governed_serving.explainer.service.overview import overview
from governed_serving.explainer.service.protocol import parse
from governed_serving.explainer.text.completion import CHAT, COMPLETIONS, CompletionScorer
from governed_serving.journal.columns import pack
from governed_serving.records import PredictionFrame

WEIGHTS = {"kind": 0.7, "slow": -0.4, "warm": 0.25}
SAID = " yes it is"


class WordRuntime:
    """``shift``: characters that the tokenizer puts before the text."""

    def __init__(self, shift: int = 0) -> None:
        self.shift, self.asked = shift, []

    def __call__(self, path, message):
        self.asked.append((path, message))
        return json.dumps(self.completion(message) if path == COMPLETIONS else self.chat(message)).encode()

    def score(self, before):
        """Of any token after ``before``."""
        return -3 + sum(weight for word, weight in WEIGHTS.items() if word in before)

    def completion(self, message):
        text = message["prompt"]
        edges = [(m.start(), m.end()) for m in re.finditer(r"\s?\S+|\s", text)]
        scores = [None, *(self.score(text[:start]) for start, _ in edges[1:])]
        generated = " more"
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "tiny",
            "choices": [
                {
                    "text": text + generated,
                    "index": 0,
                    "logprobs": {
                        "text_offset": [start + self.shift for start, _ in edges] + [len(text) + self.shift],
                        "token_logprobs": [*scores, -1.0],
                        "tokens": [text[start:end] for start, end in edges] + [generated],
                        "top_logprobs": [None] + [{}] * len(edges),
                    },
                    "finish_reason": "length",
                }
            ],
            "usage": {"prompt_tokens": len(edges), "completion_tokens": 1, "total_tokens": len(edges) + 1},
        }

    def chat(self, message):
        value = self.score(message["messages"][-1]["content"])
        tops = [
            {"token": " yes", "logprob": value},
            {"token": " y", "logprob": -9.0},
            {"token": " no", "logprob": -5.0},
        ]
        tops = tops if "kind" in message["messages"][-1]["content"] else tops[2:]
        first = {"token": tops[0]["token"], "bytes": None, "logprob": tops[0]["logprob"], "top_logprobs": tops}
        reply = {
            "index": 0,
            "message": {"role": "assistant", "content": tops[0]["token"]},
            "logprobs": {"content": [first]},
        }
        return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [reply | {"finish_reason": "length"}]}


def engine(post, budget=None, **options):
    model = language_model("chat", Runtime(image="llama", protocol="openai"))
    return Engine(
        model,
        CompletionScorer(post),
        Explainer(),
        limits=Limits(MAX_ROWS_PER_CALL, budget),
        methods=LANGUAGE_METHODS,
        **options,
    )


def body(prompt, completion=SAID, messages="", **parameters):
    texts = {"prompt": prompt, "completion": completion, "messages": messages}
    tensors = [{"name": n, "shape": [1], "datatype": "BYTES", "data": [t]} for n, t in texts.items()]
    return json.dumps({"id": "r1", "inputs": tensors, "parameters": parameters}).encode()


def explained(made, *texts, **parameters):
    return made.explain(parse(body(*texts, **parameters), made.model.features, "x"))


@pytest.mark.parametrize("shift", [0, 1])
def test_words_get_their_weight_in_the_completions_log_probability(shift):
    fake = WordRuntime(shift)
    answer = explained(engine(fake), "a kind and slow, warm room")
    (row,) = answer["explanations"]
    assert (row["target"], row["method"], row["exact"]) == ("log_probability", "text", True)
    found = {one["value"]: one["attribution"] for one in row["attributions"]}
    assert found == pytest.approx(
        {"a": 0, "and": 0, ",": 0, "room": 0} | {w: 3 * v for w, v in WEIGHTS.items()}, abs=1e-12
    )
    assert row["prediction"] == pytest.approx(3 * (-3 + sum(WEIGHTS.values())))
    assert row["base_value"] == pytest.approx(3 * -3)
    assert all(m["echo"] and m["max_tokens"] == 1 and m["prompt"].endswith(SAID) for _, m in fake.asked)
    assert explained(engine(fake), "a kind and slow, warm room") == answer


def test_a_long_prompt_is_sampled_with_intervals_and_a_budget_keeps_the_best_so_far():
    prompt = " ".join(f"w{i}" for i in range(30)) + " kind"
    row = explained(engine(WordRuntime()), prompt, max_evaluations=200)["explanations"][0]
    assert not row["exact"]
    for one in row["attributions"]:
        truth = 3 * WEIGHTS.get(one["value"], 0)
        assert one["interval"][0] - 1e-9 <= truth <= one["interval"][1] + 1e-9
    ticks = iter(np.arange(0, 1e6, 1.0))
    cut = explained(engine(WordRuntime(), budget=150_000, clock=lambda: next(ticks)), prompt, max_evaluations=2000)
    assert cut["explanations"][0]["stopped"] == "budget"
    assert cut["evaluations"] < 2000
    assert "fidelity" not in cut["explanations"][0]


def test_a_budget_holds_to_one_pass_of_the_model():
    now = 0.0

    def slow(path, message):
        nonlocal now
        now += 5.0
        return WordRuntime()(path, message)

    prompt = " ".join(f"w{i}" for i in range(300))
    row = explained(engine(slow, budget=48_000, clock=lambda: now), prompt)["explanations"][0]
    assert now <= 48 + 5
    assert (row["stopped"], row["exact"], row["coalitions"]) == ("budget", False, 0)
    assert {tuple(one["interval"]) for one in row["attributions"]} == {(None, None)}
    assert row["additivity_residual"] == pytest.approx(0, abs=1e-9)


def test_lime_of_a_prompt_finds_the_same_words():
    row = explained(engine(WordRuntime()), "a kind and slow, warm room", method="lime")["explanations"][0]
    ranked = sorted(row["attributions"], key=lambda one: -abs(one["attribution"]))
    assert [one["value"] for one in ranked[:3]] == ["kind", "slow", "warm"]


def test_a_chats_first_token_is_scored_among_the_alternatives():
    messages = [{"role": "system", "content": "slow"}, {"role": "user", "content": "a kind word"}]
    fake = WordRuntime()
    row = explained(engine(fake), "a kind word", SAID, json.dumps(messages))["explanations"][0]
    found = {one["value"]: one["attribution"] for one in row["attributions"]}
    assert found == pytest.approx({"a": 0, "kind": (-3 + 0.7) - -5, "word": 0})
    assert {path for path, _ in fake.asked} == {CHAT}
    assert all(m["messages"][0] == messages[0] and m["top_logprobs"] == 20 for _, m in fake.asked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a["choices"][0].pop("logprobs"), "expected logprobs of an echoed prompt"),
        (lambda a: a["choices"][0].update(text=" more"), "doesn't support echo"),
        (
            lambda a: a["choices"][0]["logprobs"].update(token_logprobs=[None] * 5),
            "expected a log-probability for every token",
        ),
        (
            lambda a: [values.pop() for values in a["choices"][0]["logprobs"].values()],
            "expected a log-probability for every token that",
        ),
        (lambda a: a["choices"][0]["logprobs"].update(tokens=3), "expected an OpenAI completion with logprobs"),
    ],
)
def test_a_runtime_that_cannot_is_named(change, words):
    def post(path, message):
        answer = json.loads(WordRuntime()(path, message))
        change(answer)
        return json.dumps(answer).encode()

    with pytest.raises(ModelMisbehaved, match=words):
        explained(engine(post), "kind", SAID)


def test_methods_of_tables_are_refused_by_name():
    with pytest.raises(UnknownMethod, match="expected one of lime, shap, text, found 'anchors'"):
        explained(engine(WordRuntime()), "kind", method="anchors")
    with pytest.raises(NotExplainable, match="found a runtime, which has none"):
        overview(engine(WordRuntime()))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("plain text", ("plain text", "")),
        ('["a list, not a chat"]', ('["a list, not a chat"]', "")),
        (
            '[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]',
            ("c", None),
        ),
        ('[{"role":"user","content":[{"type":"text","text":"a"}]}]', None),
        ('[{"role":"system","content":"a"}]', None),
    ],
)
def test_what_a_person_wrote(prompt, expected):
    found = last_spoken(prompt)
    assert found == (None if expected is None else (expected[0], prompt if expected[1] is None else ""))


def frame(states):
    count = len(states)
    return PredictionFrame(
        "chat",
        "r1",
        "",
        [f"q{i}" for i in range(count)],
        array("d", [1.0] * count).tobytes(),
        array("i", [1] * count).tobytes(),
        {"prompt": pack("BYTES", 1, [["a kind word"] * count], count)},
        {"completion": pack("BYTES", 1, [[SAID] * count], count), "state": pack("BYTES", 1, [states], count)},
    )


def test_only_finished_completions_are_sampled():
    picked = completions_in(frame(["started", "complete", "cut", "complete"]), 1.0)
    assert [identity for identity, _, _ in picked] == ["q1", "q3"]
    assert {name: column[0] for name, column in picked[0][1].items()} == {
        "prompt": "a kind word",
        "completion": SAID,
        "messages": "",
    }
    assert completions_in(frame(["complete"]), 0.0) == []
