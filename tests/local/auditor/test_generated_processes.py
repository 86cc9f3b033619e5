"""A language model audited end to end: runtime, server, auditor and archive as processes; what a person sees of it."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from governed_serving.archive.verify.sources import DirectorySource
from governed_serving.crypto import SegmentCipher, load_kek
from governed_serving.dossier.dossier import Archived, gather
from governed_serving.dossier.page import render_page
from governed_serving.journal import open_chunk
from governed_serving.records import EventRecord
from support.waiting import eventually
from unit.auditor.desks import BIAS, YES, applications, by_pronoun
from unit.auditor.records import SPEC

from .site import Site

pytestmark = pytest.mark.slow

COUNT = 120
QUOTA = 50 * COUNT
"""Tokens: enough for the users' requests, which cost 40 each, and not for those and the auditor's."""


class Runtime(BaseHTTPRequestHandler):
    """Speaks OpenAI's protocol, and decides by the pronoun."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]] = []

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(message)
        text = by_pronoun(message["messages"][-1]["content"])
        if not message.get("stream"):
            self._reply({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 40}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for part in (text[:7], text[7:]):
            self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": {"content": part}}]}).encode() + b"\n\n")
        self.wfile.write(b'data: {"choices": [], "usage": {"total_tokens": 40}}\n\ndata: [DONE]\n\n')
        self.close_connection = True

    def _reply(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def runtime() -> Iterator[str]:
    Runtime.seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def spec(pattern: str = BIAS["favorableOutcome"]["pattern"]) -> dict[str, Any]:
    model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "llama", "protocol": "openai"}}
    rules = {
        "predictor": {"model": model},
        "governance": {"bias": BIAS | {"favorableOutcome": {"pattern": pattern}}},
        "quota": {"tokens": [{"limit": QUOTA, "window": "1h"}]},
    }
    return SPEC | {"spec": rules}


def test_a_biased_runtime_is_found_out(tmp_path: Path, runtime: str) -> None:
    site = Site(tmp_path, spec())
    try:
        site.start_archive()
        site.start_server(GOVERNED_UPSTREAM_URL=runtime)
        site.start_auditor(GOVERNED_PREDICTOR_URL=site.url_of("lane"))
        ids = asked(site)
        verdict = eventually(lambda: site.get("/v1/verdict"), lambda v: v["samples"] == COUNT, within=120, every=0.05)
        assert (verdict["verdict"], verdict["metrics"][0]["value"]) == ("Fail", -1.0)
        flips = eventually(lambda: site.get("/v1/findings"), lambda f: "flips" in f, within=60, every=0.1)["flips"]
        (figures,) = flips.values()
        assert figures["flipped"] == figures["rows"] > 0
        assert_nothing_leaks(site, ids)
        contested = httpx.post(
            site.url + "/v1/reviews", json={"id": ids[0], "by": "me", "reason": "why?"}, trust_env=False, timeout=30
        )
        assert contested.status_code == 202, contested.text
        assert "no explainer" in contested.json()["explanation"]["error"]
        counterfactual = contested.json()["counterfactual"]
        assert (counterfactual["method"], counterfactual["changed"]) == ("swappedWords", True)
        assert counterfactual["recorded"] == {"favorable": counterfactual["again"]["favorable"]}
        assert json.loads(recorded_review(site, ids[0])) == {
            "id": ids[0], "by": "me", "reason": "why?", "counterfactual": counterfactual,
        }  # fmt: skip
        assert site.stop("server") == 0
        assert site.stop("auditor") == 0
        assert site.stop("archive") == 0
    finally:
        site.close()
    assert_reported(site)


def recorded_review(site: Site, request: str) -> bytes:
    """The body of the review that the ledger has of a request."""

    def look() -> bytes:
        with site.client() as client:
            (entry,) = (f for f in client.find(id=request) if f.fields()["type"] == "acknowledgement")
            fields = entry.fields()
            frames = dict(open_chunk(client.get_blob(fields["blob"]), SegmentCipher(site.keyset())))
        event = frames[fields["frame"]]
        assert isinstance(event, EventRecord)
        return event.body

    return eventually(look, within=120)


def asked(site: Site) -> list[str]:
    ids = []
    with httpx.Client(base_url=site.url_of("server"), trust_env=False, timeout=30) as http:
        for one in applications(COUNT):
            message = {"messages": [{"role": "user", "content": one.said}], "metadata": {"sex": one.sex}}
            answer = http.post("/v1/chat/completions", json=message | {"stream": one.stream, "max_tokens": 10})
            assert answer.status_code == 200, answer.text
            ids.append(answer.headers["x-request-id"])
    return ids


def assert_nothing_leaks(site: Site, ids: list[str]) -> None:
    """The runtime sees no attribute; what the auditor asks is no user's request, in no journal and on no quota."""
    assert not any("metadata" in message for message in Runtime.seen)
    again = [message for message in Runtime.seen if message.get("temperature") == 0]
    assert len(again) == len(Runtime.seen) - COUNT
    assert len(again) >= 16
    metrics = httpx.get(site.url_of("server") + "/metrics", trust_env=False, timeout=30).text
    counted = {line.split("{")[0]: float(line.split()[-1]) for line in metrics.splitlines() if not line.startswith("#")}
    assert counted["governed_tokens_total"] == 40 * COUNT
    assert counted["governed_journal_records_total"] == 2 * COUNT

    def predicted() -> list[str]:
        with site.client() as client:
            entries = [json.loads(e) for e in client.entries(0, 100_000)]
        return [e["id"] for e in entries if e["type"] == "prediction"]

    found = eventually(predicted, lambda them: len(them) == 2 * COUNT, within=120)
    assert set(found) == set(ids)


def assert_reported(site: Site) -> None:
    report = json.loads((site.root / "report.json").read_bytes())
    source = DirectorySource(site.root / "archive", load_kek(site.root / "kek"))
    dossier = gather(
        "loans", report=report, archive=Archived(source), kek=load_kek(site.root / "model-kek"), made=datetime.now(UTC)
    )
    assert dossier.served is not None
    assert dossier.served.cells is not None
    table = dossier.served.cells.by("sex")
    drawn = applications(COUNT)
    men = sum(one.sex == "male" for one in drawn)
    assert dossier.served.requests == COUNT, "recomputed from the ledger alone"
    assert {g: c.sum(1).tolist() for g, c in zip(table.groups, table.counts, strict=True)} == {
        "male": [0, men],
        "female": [COUNT - men, 0],
    }
    page = render_page(dossier)
    assert re.search(rf"On record.{{0,120}}\b{COUNT}\b", page, re.S), "a completion's two records are one request"
    assert "Protected attribute: sex" in page
    assert "an answer in which <code>(?i)\\bgranted\\b|批准</code> is found" in page
    assert "No protected attribute is watched" not in page
    assert YES in page, "the example is the completion, not the prompt before it"


@pytest.mark.parametrize("role", ["auditor", "server"])
def test_a_pattern_that_is_none_is_one_line_at_the_start(tmp_path: Path, runtime: str, role: str) -> None:
    site = Site(tmp_path, spec("(yes"))
    own = {
        "GOVERNED_SPEC": str(tmp_path / "spec.json"), "GOVERNED_SPOOL_DIR": str(site.spool), "GOVERNED_HTTP_PORT": str(site.port),  # noqa: E501
        "GOVERNED_KEK_FILE": str(tmp_path / "model-kek"), "GOVERNED_UPSTREAM_URL": runtime, "GOVERNED_HOST": "127.0.0.1",  # noqa: E501
    }  # fmt: skip
    command = [sys.executable, "-m", f"governed_serving.{role}"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert "favorableOutcome.pattern: expected an RE2 expression, found '(yes'" in json.dumps(last)
    assert "Traceback" not in done.stderr
