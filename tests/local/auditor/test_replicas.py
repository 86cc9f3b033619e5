"""Several auditors of one model, as processes: their verdict is that of one auditor over everything, whatever is
killed."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.waiting import eventually
from unit.auditor.records import people, prediction

from .site import Site

pytestmark = pytest.mark.slow

PODS = ("a", "b", "c")
ROWS = people(900, seed=11)
SAME = ("verdict", "summary", "samples", "labelled", "metrics", "groups", "strata", "attributes", "evidence", "window")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.start_archive()
    yield site
    site.close()


def write(site: Site, pod: str, numbers: range) -> None:
    with site.writer(pod) as journal:
        for number in numbers:
            journal.append_blocking(prediction(number, *ROWS[number]))


def label(site: Site, pod: str, numbers: range) -> None:
    labels = [{"id": f"request-{n}", "label": "yes" if n % 3 else "no"} for n in numbers]
    answer = httpx.post(site.url_of(pod) + "/v1/labels", json={"labels": labels}, trust_env=False, timeout=60)
    assert answer.status_code == 202, answer.text


def settled(site: Site, pod: str, samples: int, labelled: int) -> dict[str, Any]:
    def done(verdict: dict[str, Any]) -> bool:
        return (verdict["samples"], verdict.get("labelled")) == (samples, labelled)

    found = eventually(
        lambda: site.get("/v1/verdict", pod), done, within=150, every=0.2, what=f"{pod}: everything counted"
    )
    return {name: found[name] for name in SAME}


def test_verdict_is_the_same_after_any_split_and_restart(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A third of the rows each, a replica killed, one gone for good, labels posted wherever, some of them twice."""
    for pod in PODS:
        site.start_auditor(pod)
    for place, pod in enumerate(PODS):
        write(site, pod, range(place, 300, 3))
    site.stop("auditor-b", signal.SIGKILL)
    site.start_auditor("b")
    for place, pod in enumerate(PODS):
        write(site, pod, range(300 + place, 900, 3))
    settled(site, "a", 900, 0)
    assert site.stop("auditor-c") == 0, "c is scaled down: what it counted stays"
    label(site, "a", range(0, 120))
    settled(site, "a", 900, 120)
    label(site, "b", range(100, 200))
    found = {pod: settled(site, pod, 900, 200) for pod in "ab"}
    site.stop("auditor-a", signal.SIGKILL)
    site.start_auditor("a")
    found["a again"] = settled(site, "a", 900, 200)

    alone = Site(tmp_path_factory.mktemp("alone"))
    alone.start_archive()
    try:
        alone.start_auditor()
        write(alone, "pod", range(900))
        settled(alone, "pod", 900, 0)
        label(alone, "pod", range(200))
        expected = settled(alone, "pod", 900, 200)
    finally:
        alone.close()
    assert found == {"a": expected, "b": expected, "a again": expected}

    def reported() -> str:
        report = json.loads((site.root / "report.json").read_bytes())["status"]
        heads = report["revisions"]["r1"]["auditor"]
        for pod in "ab":
            assert (heads[pod]["verdict"], heads[pod]["samples"]) == (expected["verdict"], 900)
            assert (heads[pod]["summary"], heads[pod]["inForce"]) == (expected["summary"], "Alert")
        return str(report["auditor"]["revision"])

    assert eventually(reported, within=120, what="both replicas have reported the same") == "r1"


def test_an_alarm_is_acknowledged_once_for_all_replicas_and_revisions_do_not_mix(site: Site) -> None:
    site.start_auditor("a")
    site.start_auditor("b")
    site.start_auditor("c", revision="r2")
    write(site, "a", range(300))
    for pod in "ab":
        eventually(
            lambda p=pod: site.get("/v1/verdict", p),
            lambda v: v["verdict"] == "Fail" and v["samples"] == 300,
            within=120,
        )
    body = {"by": "board", "reason": "known"}
    assert (
        httpx.post(site.url_of("b") + "/v1/acknowledgements", json=body, trust_env=False, timeout=30).status_code == 202
    )
    for pod in "ba":
        found = eventually(
            lambda p=pod: site.get("/v1/verdict", p), lambda v: v["alarm"]["inForce"] == "None", within=120
        )
        assert (found["verdict"], found["alarm"]["acknowledgedBy"]) == ("Fail", "board")
    assert site.get("/v1/verdict", "c")["samples"] == 0

    def replicas() -> str:
        lines = httpx.get(site.url_of("a") + "/metrics", trust_env=False, timeout=30).text.splitlines()
        return next(line for line in lines if line.startswith("governed_auditor_replicas{"))

    eventually(replicas, lambda line: line.endswith(" 2.0"), within=120)
