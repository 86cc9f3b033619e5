"""`governed run` before a language-model runtime that isn't ours: llama.cpp behind llama-cpp-python's server, with a
tiny model.

Its vocabulary is single characters, so tokens can be counted by eye: one for the beginning, one for the space that such
tokenizers put first, one a character. ``echo`` answers the prompt as the runtime saw it.
"""

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_api.runtime import POD_TOKEN_HEADER
from governed_operator.local.workdir import Workdir
from governed_serving.crypto import DirectoryStore, Keyring, SegmentCipher, load_kek
from governed_serving.journal import JournalReader, numbers, strings
from governed_serving.records import PredictionFrame
from support.language_runtime import LanguageRuntime, language_runtime
from support.model_ports import free_offset
from support.ports import free_port
from support.progress import Say
from support.waiting import eventually

from .conftest import Served, governed, in_ledger, start

PROMPT = "the sky is blue"
PHONE = "13812345678"
MASKED = "call <PHONE_NUMBER> now"
COMPLETION = {"temperature": 0, "max_tokens": 8}
BIAS: dict[str, Any] = {
    "protectedAttributes": [{"name": "sex"}],
    "favorableOutcome": {"pattern": "[a-m]"},
    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
}
WINDOW = 20_000
"""Tokens that may be used."""


@pytest.fixture(scope="module")
def runtime(tell: Say) -> LanguageRuntime:
    return language_runtime(tell)


def manifest(runtime: LanguageRuntime) -> dict[str, Any]:
    port = free_port()
    started = {"image": "llama-cpp-python", "command": runtime.command(port), "port": port, "protocol": "openai", "healthPath": "/docs"}  # fmt: skip  # noqa: E501
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": "chat"},
        "spec": {
            "predictor": {"model": {"modelFormat": {"name": "runtime"}, "runtime": started}},
            "explainer": {"sampling": 1, "config": {"maxEvaluations": 64}},
            "governance": {"privacy": {"masking": {"action": "Replace"}}, "bias": BIAS},
            "quota": {"tokens": [{"limit": WINDOW, "window": "1h"}]},
        },
    }


@pytest.fixture(scope="module")
def chat(runtime: LanguageRuntime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Archive, server, explainer, auditor and the runtime, each a process."""
    folder = tmp_path_factory.mktemp("chat")
    path = folder / "chat.yaml"
    path.write_text(json.dumps(manifest(runtime)))  # JSON is YAML
    served = start(path, folder / "work", folder / "log", "chat")
    try:
        yield served
    finally:
        if served.process.poll() is None:
            assert served.stop() == 0


def test_its_weights_are_verified_before_it_starts(runtime: LanguageRuntime, tmp_path: Path) -> None:
    """As in a cluster: named by URI and digest, found at /mnt/models; one changed bit, and nothing serves."""
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(runtime.model.read_bytes())
    wanted = manifest(runtime)
    model = wanted["spec"]["predictor"]["model"]
    command = model["runtime"]["command"]
    command[command.index("--model") + 1] = "/mnt/models"
    model |= {"storageUri": "file:tiny.gguf", "digest": f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"}
    del wanted["spec"]["explainer"]
    path = tmp_path / "chat.yaml"
    path.write_text(json.dumps(wanted))
    served = start(path, tmp_path / "work", tmp_path / "log", "chat")
    with httpx.Client(base_url=f"http://127.0.0.1:{8080 + served.offset}", trust_env=False, timeout=60) as one:
        assert answered(one.post("/v1/completions", json={"prompt": PROMPT, **COMPLETION}))["usage"]
    assert served.stop() == 0
    changed = bytearray(weights.read_bytes())
    changed[len(changed) // 2] ^= 1
    weights.write_bytes(changed)
    refused = governed("run", path, "--workdir", tmp_path / "work", "--port-offset", str(free_offset()))
    assert refused.returncode == 1
    assert "tiny.gguf: expected digest" in refused.stderr


@pytest.fixture
def client(chat: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{8080 + chat.offset}", trust_env=False, timeout=60) as one:
        yield one


def chat_of(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **COMPLETION}


def answered(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def tokens(client: httpx.Client) -> float:
    """Tokens that requests used, as the server counts them."""
    found = re.search(r"^governed_tokens_total\{[^}]*\} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def test_completions_and_chats_go_out_under_the_models_own_name(client: httpx.Client) -> None:
    whole = answered(client.post("/v1/completions", json={"prompt": PROMPT, **COMPLETION}))
    spoken = answered(
        client.post("/v1/chat/completions", json=chat_of("hello") | {"max_tokens": None, "max_completion_tokens": 3})
    )
    assert (whole["model"], spoken["model"]) == ("chat", "chat")
    assert whole["usage"] == {
        "prompt_tokens": len(PROMPT) + 2,
        "completion_tokens": 8,
        "total_tokens": len(PROMPT) + 10,
    }
    assert len(whole["choices"][0]["text"]) == 8
    assert spoken["usage"]["completion_tokens"] == 3, "the limit's newer name binds this runtime as well"
    assert len(spoken["choices"][0]["message"]["content"]) == 3


def test_a_stream_says_what_a_whole_answer_says(client: httpx.Client) -> None:
    whole = answered(client.post("/v1/chat/completions", json=chat_of("tell me")))
    pieces: list[str] = []
    with client.stream("POST", "/v1/chat/completions", json=chat_of("tell me") | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        *events, last = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    for event in map(json.loads, events):
        assert event["model"] == "chat"
        pieces.append(event["choices"][0]["delta"].get("content") or "")
    assert last == "[DONE]"
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert len(pieces) > 2, "events come as the runtime sends them, what is held back in a later one"


def test_the_runtime_sees_no_personal_data(client: httpx.Client) -> None:
    asked = f"call {PHONE} now"
    echoed = answered(client.post("/v1/completions", json={"prompt": asked, "echo": True, **COMPLETION}))
    assert echoed["choices"][0]["text"].startswith(MASKED)
    assert echoed["usage"]["prompt_tokens"] == len(MASKED) + 2
    plain, masked = (
        answered(client.post("/v1/chat/completions", json=chat_of(text)))["usage"]["prompt_tokens"]
        for text in ("call  now", asked)
    )
    assert masked - plain == len("<PHONE_NUMBER>")


def test_tokens_count_as_the_runtime_counts_them(client: httpx.Client) -> None:
    before = tokens(client)
    used = answered(client.post("/v1/chat/completions", json=chat_of("count me")))["usage"]["total_tokens"]
    assert tokens(client) - before == used
    before = tokens(client)
    for asked, status in ((WINDOW - 10, 429), (WINDOW, 413)):  # more than is left, more than there ever is
        refused = client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": asked})
        assert refused.status_code == status, refused.text
    assert tokens(client) == before
    client.post("/v1/chat/completions", json=chat_of("count me") | {"stream": True}).raise_for_status()
    said = COMPLETION["max_tokens"]
    # this runtime says nothing of usage in a stream: what it said counts by the chunk, what it was asked by its length
    assert said < tokens(client) - before < used + said


def asked_of_the_explainer(
    chat: Served, identity: str, prompt: str, completion: str, messages: str = ""
) -> httpx.Response:
    """The explainer's own route: the id is the caller's, so that an explanation can be asked for again."""
    texts = {"prompt": prompt, "completion": completion, "messages": messages}
    inputs = [{"name": n, "shape": [1], "datatype": "BYTES", "data": [t]} for n, t in texts.items()]
    return httpx.post(
        f"{chat.explainer}/v2/models/chat/explain",
        json={"id": identity, "inputs": inputs},
        headers=token_of(chat, "explainer"),
        timeout=120,
        trust_env=False,
    )


def token_of(chat: Served, port: str) -> dict[str, str]:
    """What a port of the pod asks for."""
    return {POD_TOKEN_HEADER: Workdir(chat.workdir).pod_token("chat").with_name(port).read_text()}


INNER = {"server": (8082, "/v1/completions"), "explainer": (8083, "/v2/models/chat/explain"), "auditor": (8084, "/v1/labels")}  # fmt: skip  # noqa: E501


def test_the_runtime_has_no_way_to_the_other_containers_ports(chat: Served) -> None:
    """What a process beside ours on the same loopback can do, with all that the runtime was given."""
    given = Path(f"/proc/{chat.pids()['chat-predictor-0/runtime']}/environ").read_bytes()
    assert b"GOVERNED_POD" not in given
    assert str(Workdir(chat.workdir).memory).encode() not in given
    with httpx.Client(trust_env=False, timeout=30) as http:
        for name, (port, path) in INNER.items():
            base = f"http://127.0.0.1:{port + chat.offset}"
            others = [token_of(chat, other) for other in INNER if other != name]
            for headers in ({}, *others):
                assert http.post(base + path, json={}, headers=headers).status_code == 401
            assert http.post(base + path, json={}, headers=token_of(chat, name)).status_code != 401
            assert http.get(f"{base}/healthz/ready").status_code == 200
        inside = http.get(f"{chat.auditor}/metrics").text
        whole = http.get(f"{chat.auditor}/metrics", headers=token_of(chat, "auditor")).text
    assert "governed_auditor_bias_verdict" in whole
    assert "governed_auditor_bias_verdict" not in inside
    assert re.search(r"^governed_auditor_unauthorized_total\{[^}]*\} [1-9]", inside, re.MULTILINE)


def adds_up(row: dict[str, Any]) -> bool:
    """Attributions and base value make the prediction."""
    total = row["base_value"] + sum(one["attribution"] for one in row["attributions"])
    return bool(abs(total - row["prediction"]) < 1e-9)


@pytest.mark.parametrize(
    "prompt", [PROMPT, "今天天气 is fine", f"call {PHONE} now, said the big bad old red fox to me again"]
)
def test_the_words_of_a_prompt_get_their_share_of_what_was_said(client: httpx.Client, prompt: str) -> None:
    asked = {"prompt": prompt, **COMPLETION, "explain": {"max_evaluations": 80}}
    found = answered(client.post("/v2/models/chat/explain", json=asked))
    (row,) = found["explanations"]
    assert row["target"] == "log_probability"
    assert adds_up(row)
    assert row["prediction"] < 0
    assert row["prediction"] > row["base_value"], "greedy text is likelier after its prompt than after nothing"
    assert any(abs(one["attribution"]) > 0.01 for one in row["attributions"])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found["digests"]["model"])
    assert found["digests"]["code"]
    assert row["seed"] >= 0
    words = " ".join(one["value"] for one in row["attributions"])
    assert PHONE not in words
    if PHONE in prompt:
        assert "<PHONE_NUMBER>" in words


def test_the_score_is_the_runtimes_own(chat: Served, client: httpx.Client) -> None:
    """What is attributed is the sum of the log-probabilities that the runtime gave while it generated."""
    said = answered(client.post("/v1/completions", json={"prompt": PROMPT, "logprobs": 1, **COMPLETION}))["choices"][0]
    row = answered(asked_of_the_explainer(chat, "score", PROMPT, said["text"]))["explanations"][0]
    assert row["prediction"] == pytest.approx(sum(said["logprobs"]["token_logprobs"]), abs=1e-4)
    messages = chat_of("be kind")["messages"]
    spoken = answered(
        client.post("/v1/chat/completions", json=chat_of("be kind") | {"logprobs": True, "top_logprobs": 5})
    )["choices"][0]
    text = spoken["message"]["content"]
    row = answered(asked_of_the_explainer(chat, "spoken", "be kind", text, json.dumps(messages)))["explanations"][0]
    assert row["prediction"] == pytest.approx(spoken["logprobs"]["content"][0]["logprob"], abs=1e-4)
    assert adds_up(row)


def test_the_same_request_gives_the_same_bytes_again(chat: Served, client: httpx.Client) -> None:
    said = answered(client.post("/v1/completions", json={"prompt": PROMPT, **COMPLETION}))["choices"][0]["text"]
    first = asked_of_the_explainer(chat, "again", PROMPT, said)
    answered(first)
    answered(client.post("/v1/completions", json={"prompt": "something else in between", **COMPLETION}))
    assert asked_of_the_explainer(chat, "again", PROMPT, said).content == first.content


@pytest.mark.parametrize("completion", ["好的, ok", " ", "\n\n", "ok\u200b", "<|done|>"])
def test_any_text_can_have_been_said(chat: Served, completion: str) -> None:
    """Characters of several tokens, spaces, what looks like a mark of the template."""
    row = answered(asked_of_the_explainer(chat, f"said {completion!r}", PROMPT, completion))["explanations"][0]
    assert adds_up(row)
    assert row["prediction"] < -1, "a random model never says this"


def test_live_completions_are_explained_into_the_ledger(chat: Served, client: httpx.Client) -> None:
    identity = client.post("/v1/completions", json={"prompt": PROMPT, **COMPLETION}).headers["x-request-id"]
    eventually(lambda: identity in in_ledger(chat, "explanation"), within=90, what="its explanation is in the ledger")


def test_a_contested_completion_is_explained_and_asked_again(chat: Served, client: httpx.Client) -> None:
    said, swapped = "may he go", "may she go"
    response = client.post("/v1/completions", json={"prompt": said, **COMPLETION})
    other = client.post("/v1/completions", json={"prompt": swapped, **COMPLETION})
    identity = response.headers["x-request-id"]
    eventually(lambda: identity in in_ledger(chat), within=60, what="the completion is in the ledger")
    done = governed(
        "contest", "chat", identity, "--by", "me", "--reason", "why?", "--url", chat.auditor, "--workdir", chat.workdir
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["prediction"]["id"] == identity
    assert adds_up(found["explanation"]["explanations"][0])
    counterfactual = found["counterfactual"]
    assert counterfactual["swapped"]["request"]["prompt"] == swapped
    for part, answer in (("again", response), ("swapped", other)):
        text = answered(answer)["choices"][0]["text"]
        assert counterfactual[part]["text"] == text, "without chance it says the same again"
        assert counterfactual[part]["favorable"] == bool(re.search(BIAS["favorableOutcome"]["pattern"], text))


def test_a_runtime_that_was_killed_comes_back(chat: Served, client: httpx.Client) -> None:
    before = chat.pids()["chat-predictor-0/runtime"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: chat.pids().get("chat-predictor-0/runtime", before) != before, within=60)
    eventually(
        lambda: client.post("/v1/completions", json={"prompt": PROMPT, **COMPLETION}).status_code == 200, within=60
    )


def records(workdir: Path) -> list[tuple[str, str, str, str, int]]:
    """(request id, prompt, completion, state, tokens) of the server's journal, as it lies on disk."""
    keysets = DirectoryStore(workdir / "volumes/archive-governed-archive-0/keysets/chat")
    keyset = Keyring(load_kek(workdir / "secrets/chat-kek/kek"), keysets).keyset("journal", create=False)
    spool = workdir / "volumes/chat-predictor-0/spool"
    frames = [f for _, f in JournalReader(spool, "server-chat-predictor-0", SegmentCipher(keyset)).read()]
    texts = lambda column: str(strings(column)[0])  # noqa: E731
    return [
        (
            f.ids[0],
            texts(f.features["prompt"]),
            texts(out["completion"]),
            texts(out["state"]),
            int(numbers(out["tokens"])[0]),
        )
        for f in frames
        if isinstance(f, PredictionFrame) and (out := f.outputs)
    ]


def test_what_was_asked_and_said_is_in_the_journal_and_the_ledger_verifies(chat: Served, client: httpx.Client) -> None:
    response = client.post("/v1/completions", json={"prompt": f"call {PHONE} now", **COMPLETION})
    identity, found = response.headers["x-request-id"], answered(response)
    eventually(lambda: identity in in_ledger(chat), within=60, what="the completion is in the ledger")
    assert chat.stop() == 0
    verified = governed("verify", chat.workdir)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert [r for r in records(chat.workdir) if r[0] == identity] == [
        (identity, MASKED, "", "started", 0),
        (identity, MASKED, found["choices"][0]["text"], "complete", found["usage"]["total_tokens"]),
    ]
