"""The auditor as a process: everything arrives in the ledger once, whatever is killed; the verdict is the one of an
undisturbed run."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from governed_api.roles import Role, bearer_token
from governed_serving.crypto import SegmentCipher, Subjects, load_kek
from governed_serving.journal import Journal
from governed_serving.records import EVENT_TYPES, EventRecord
from support.waiting import eventually
from unit.auditor.records import SPEC, people, prediction

from .site import Site

pytestmark = pytest.mark.slow

BAD_LABELS = {
    b"{": "expected",
    b'{"labels": [{"id": "a"}]}': "label",
    b'{"labels": [{"id": "a", "label": {"x": 1}}]}': "expected a value",
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.start_archive()
    yield site
    site.close()


def ledger_ids(site: Site, kind: str) -> Counter[str]:
    with site.client() as client:
        entries = [json.loads(e) for e in client.entries(0, 100_000)]
    return Counter(e["id"] for e in entries if e["type"] == kind)


def test_predictions_reach_ledger_report_and_verdict_once_through_kill_9(site: Site) -> None:
    rows = people(1200, seed=1)
    site.start_auditor()
    with site.writer() as journal:
        for number, (sex, decision) in enumerate(rows):
            journal.append_blocking(prediction(number, sex, decision))
            if number in (400, 800):
                site.stop("auditor", signal.SIGKILL)
                site.start_auditor()
    verdict = eventually(lambda: site.get("/v1/verdict"), lambda v: v["samples"] == len(rows), within=120, every=0.05)
    assert verdict["metrics"][0]["verdict"] == "Fail"
    men = [d for s, d in rows if s == "M"]
    women = [d for s, d in rows if s == "F"]
    expected = women.count("yes") / len(women) - men.count("yes") / len(men)
    assert verdict["metrics"][0]["value"] == pytest.approx(expected, abs=1e-12)
    assert site.stop("auditor") == 0, "SIGTERM drains and exits 0"
    assert ledger_ids(site, "prediction") == Counter({f"request-{n}": 1 for n in range(len(rows))})
    assert ledger_ids(site, "verdict"), "verdicts are in the ledger too"
    status = json.loads((site.root / "report.json").read_bytes())["status"]
    report, own = status["auditor"], status["revisions"]["r1"]["auditor"]["pod"]
    assert (report["verdict"], report["samples"], report["revision"]) == ("Fail", len(rows), "r1")
    assert (own["verdict"], own["samples"], own["summary"]) == ("Fail", len(rows), report["summary"])


def test_archive_away_verdict_goes_on_and_nothing_is_lost(site: Site) -> None:
    site.start_auditor()
    with site.writer() as journal:
        site.stop("archive")
        for number, (sex, decision) in enumerate(people(200, seed=2)):
            journal.append_blocking(prediction(number, sex, decision))
    eventually(lambda: site.get("/v1/verdict"), lambda v: v["samples"] == 200, within=120, every=0.05)
    metrics = httpx.get(site.url + "/metrics", trust_env=False, timeout=30).text
    backlog = next(line for line in metrics.splitlines() if line.startswith("governed_journal_backlog_bytes{"))
    assert float(backlog.split()[-1]) > 0
    assert post(site, "/v1/reviews", {"id": "request-7", "by": "me", "reason": "why?"}).status_code == 503
    site.start_archive()
    eventually(lambda: ledger_ids(site, "prediction"), lambda ids: len(ids) == 200, within=120)
    people_come_in(site)


def post(site: Site, path: str, body: dict[str, str]) -> httpx.Response:
    return httpx.post(site.url + path, json=body, trust_env=False, timeout=30)


def people_come_in(site: Site) -> None:
    """A contested decision and an acknowledged alarm: both answered, both in the ledger, the latter lifts the
    action."""
    contested = post(site, "/v1/reviews", {"id": "request-7", "by": "applicant", "reason": "I was refused"})
    assert (contested.status_code, contested.json()["prediction"]["id"]) == (202, "request-7")
    assert "no explainer" in contested.json()["counterfactual"]["error"]
    assert post(site, "/v1/reviews", {"id": "nobody", "by": "x", "reason": "y"}).status_code == 404
    assert post(site, "/v1/reviews", {"id": "request-7", "by": "", "reason": "y"}).status_code == 400
    assert site.get("/v1/verdict")["alarm"]["inForce"] == "Alert"
    spoken = subprocess.run(
        [sys.executable, "-c", "from governed_operator.cli import main; main()", "acknowledge", "loans", "--by", "board", "--reason", "known", "--url", site.url],  # noqa: E501
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (spoken.returncode, "recorded in the ledger" in spoken.stdout) == (0, True), spoken.stderr
    verdict = eventually(
        lambda: site.get("/v1/verdict"), lambda v: v["alarm"]["inForce"] == "None", within=120, every=0.05
    )
    assert (verdict["verdict"], verdict["alarm"]["acknowledgedBy"]) == ("Fail", "board")
    eventually(lambda: ledger_ids(site, "acknowledgement"), lambda ids: set(ids) == {"request-7", "alarm"}, within=120)
    assert len(site.get("/v1/reviews/request-7")["reviews"]) == 1
    decided_by_a_person(site)


def decided_by_a_person(site: Site) -> None:
    """The contest is closed by who has the operator's token, which the auditor itself hasn't."""
    words = ["request-7", "--outcome", "upheld", "--by", "board", "--reason", "as the rules say"]
    refused = spoken(site, "decide", "loans", *words, "--token-file", str(site.root / "token"))
    assert (refused.returncode, "may decide" in refused.stderr) == (1, True), refused.stderr
    own = site.root / "operator-token"
    own.write_text(bearer_token((site.root / "root").read_bytes(), "default", "loans", Role.OPERATOR))
    assert "request-7" in spoken(site, "contests", "loans").stdout
    done = spoken(site, "decide", "loans", *words, "--token-file", str(own))
    assert (done.returncode, "Upheld" in done.stdout) == (0, True), done.stderr
    eventually(lambda: ledger_ids(site, "review"), lambda ids: dict(ids) == {"request-7": 1}, within=120)
    closed = spoken(site, "contests", "loans").stdout
    assert "no contested decision is open" in closed


def spoken(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from governed_operator.cli import main; main()", *words, "--url", site.url]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_archive_takes_every_type_of_event_that_pods_write(site: Site) -> None:
    """One that it refused would hold up all that its stream has to say for ever."""
    site.start_auditor()
    body = msgspec.json.encode({"id": "request-0", "label": "yes"})
    with Journal(site.spool_of("pod"), "explainer-pod", SegmentCipher(site.keyset()), "PageCache") as journal:
        for kind in sorted(EVENT_TYPES):
            journal.append_blocking(EventRecord(kind, f"of-{kind}", "loans", "r1", time.time(), body))  # type: ignore[arg-type]
    for kind in EVENT_TYPES:
        eventually(lambda k=kind: f"of-{k}" in ledger_ids(site, k), within=120, what=f"{kind} in the ledger")  # type: ignore[misc]


def test_late_labels_join_by_request_id_and_are_in_the_ledger(site: Site) -> None:
    site.start_auditor()
    rows = people(300, seed=3)
    with site.writer() as journal:
        for number, (sex, decision) in enumerate(rows):
            journal.append_blocking(prediction(number, sex, decision))
    labels = [{"id": f"request-{n}", "label": "yes" if n % 2 else "no"} for n in range(len(rows))]
    answer = httpx.post(
        site.url + "/v1/labels", content=msgspec.json.encode({"labels": labels}), trust_env=False, timeout=60
    )
    assert answer.status_code == 202, answer.text
    verdict = eventually(lambda: site.get("/v1/verdict"), lambda v: v["labelled"] == len(rows), within=120, every=0.05)
    rate = {}
    for sex in "MF":
        good = [d for n, (s, d) in enumerate(rows) if s == sex and n % 2]
        rate[sex] = good.count("yes") / len(good)
    measured = next(m for m in verdict["metrics"] if m["name"] == "equalOpportunityDifference")
    assert measured["value"] == pytest.approx(rate["F"] - rate["M"], abs=1e-12)
    eventually(lambda: ledger_ids(site, "label"), lambda ids: len(ids) == len(rows), within=120)
    for body, expected in BAD_LABELS.items():
        answer = httpx.post(site.url + "/v1/labels", content=body, trust_env=False, timeout=30)
        assert (answer.status_code, expected in answer.json()["error"]) == (400, True), answer.text


def test_what_is_about_a_person_is_counted_shipped_and_erased(tmp_path: Path) -> None:
    spec = {**SPEC["spec"], "governance": {**SPEC["spec"]["governance"], "privacy": {"subject": "sex"}}}
    site = Site(tmp_path, {**SPEC, "spec": spec})
    try:
        site.start_archive()
        rows = people(60, seed=3)
        with site.client() as client, site.writer() as journal:
            subjects = Subjects(load_kek(site.root / "model-kek"), client.keysets())
            for number, (sex, decision) in enumerate(rows):
                journal.append_blocking(subjects.seal(prediction(number, sex, decision), subjects.digest(sex)))
        site.start_auditor()
        eventually(lambda: site.get("/v1/verdict"), lambda v: v["samples"] == 60, within=120, every=0.05)
        eventually(lambda: ledger_ids(site, "prediction"), lambda ids: len(ids) == 60, within=120)
        women = sum(sex == "F" for sex, _ in rows)
        assert f"{women} predictions" in about(site, "find", "F").stdout
        assert len(about(site, "export", "F").stdout.splitlines()) == women
        erased = about(site, "erase", "F", "--by", "officer", "--reason", "asked")
        assert (erased.returncode, f"{women} predictions can't be opened" in erased.stdout) == (0, True), erased.stderr
        assert about(site, "export", "F").stdout == ""
        assert len(about(site, "export", "M").stdout.splitlines()) == 60 - women
        assert sum(ledger_ids(site, "erasure").values()) == 1
        assert site.get("/v1/verdict")["samples"] == 60, "what was counted is a number, and stays"
    finally:
        site.close()


def about(site: Site, act: str, who: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`governed subject`, as a person speaks it."""
    keys = ["--token-file", str(site.root / "token"), "--model-key", str(site.root / "model-kek")]
    command = [sys.executable, "-c", "from governed_operator.cli import main; main()", "subject", act, "loans", who]
    return subprocess.run(
        [*command, *words, "--url", site.archive_url, *keys], capture_output=True, text=True, check=False, timeout=120
    )
