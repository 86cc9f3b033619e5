"""Webhooks: compared in one form, private addresses refused, tried again, and never the end of the explainer."""

import asyncio
from typing import Any

import httpx
import pytest

from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.service.jobs import POSTS, JobQueue, JobStore
from governed_serving.explainer.service.webhooks import Poster, allowed
from unit.explainer import models
from unit.explainer.beds import Bed, Xor, until

PREFIXES = ("https://example.org/hooks", "http://hooks.example:8080/")

GOOD = [
    "https://example.org/hooks/a",
    "https://EXAMPLE.org:443/hooks/a?x=1",
    "https://example.org./hooks/a/b",
    "http://hooks.example:8080/",
]
BAD = {
    "climbs out": "https://example.org/hooks/../admin",
    "climbs out, escaped": "https://example.org/hooks/%2e%2E/admin",
    "escaped slash": "https://example.org/hooks/..%2fadmin",
    "escaped twice": "https://example.org/hooks/%252e%252e/admin",
    "backslash": "https://example.org/hooks/..\\admin",
    "a dot": "https://example.org/hooks/./a",
    "beside": "https://example.org/hooksy",
    "the prefix itself": "https://example.org/hooks",
    "another port": "https://example.org:8443/hooks/a",
    "another scheme": "http://example.org/hooks/a",
    "a user": "https://example.org@evil.org/hooks/a",
    "prefix as user": "http://hooks.example:8080@evil.org/",
    "a longer name": "https://example.org.evil.org/hooks/a",
    "NUL": "https://example.org/hooks/\u0000",
    "escaped NUL": "https://example.org/hooks/%00",
    "line feed": "https://example.org/hooks/a\r\nhost: evil.org",
    "not ASCII": "https://example.org/hooks/\u4e2d",
    "64 kB": "https://example.org/hooks/" + "x" * 65536,
    "no port": "https://example.org:99999/hooks/a",
    "brackets": "https://[::1/hooks/a",
    "no URL": "\ud800",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_url_under_a_prefix_is_taken_as_it_is(url: str) -> None:
    assert allowed(url, PREFIXES) == url


@pytest.mark.parametrize("name", BAD)
def test_a_url_that_only_looks_like_one_is_refused(name: str) -> None:
    with pytest.raises(NotExplainable, match=r"parameters\.webhook: expected") as caught:
        allowed(BAD[name], PREFIXES)
    assert len(str(caught.value)) < 500


def poster(addresses: list[str], status: int = 200) -> tuple[Poster, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    async def resolve(_: str, __: int) -> list[str]:
        return addresses

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, headers={"location": "http://169.254.169.254/"})

    return Poster(resolve=resolve, transport=httpx.MockTransport(answer)), seen


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", "192.168.1.1", "169.254.169.254", "127.0.0.1", "100.64.0.1", "::1", "fe80::1%eth0", "fd00::1",
     "::ffff:10.0.0.7", "0.0.0.0", "64:ff9b::10.0.0.7", "64:ff9b::169.254.169.254", "64:ff9b:1::a00:7",
     "2002:a00:7::1", "2002:7f00:1::", "::127.0.0.1", "::a00:7", "fec0::1", "5f00::1", "3fff::1", "ff02::1"],
)  # fmt: skip
async def test_a_public_name_with_a_private_address_is_not_called(address: str) -> None:
    post, seen = poster(["93.184.215.14", address])
    assert "expected a public address behind example.org" in await post("https://example.org/hooks/a", b"{}")
    assert seen == []


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
async def test_a_public_address_is_called_however_it_is_written(address: str) -> None:
    post, seen = poster([address])
    assert await post("https://example.org/hooks/a", b"{}") == ""
    assert len(seen) == 1


async def test_the_address_that_was_judged_is_the_one_that_is_called() -> None:
    post, seen = poster(["93.184.215.14"])
    assert await post("https://example.org/hooks/a?x=1", b"{}") == ""
    (request,) = seen
    assert str(request.url) == "https://93.184.215.14/hooks/a?x=1"
    assert (request.headers["host"], request.extensions["sni_hostname"]) == ("example.org", "example.org")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "[::1]:9", "localhost", "hooks.team.svc", "hooks"])
async def test_what_a_prefix_names_on_purpose_may_be_private(host: str) -> None:
    post, seen = poster(["127.0.0.1"])
    assert await post(f"http://{host}/a", b"{}") == ""
    assert len(seen) == 1


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_redirects_and_refusals_are_no_delivery(status: int) -> None:
    post, seen = poster(["93.184.215.14"], status)
    assert f"found status {status}" in await post("https://example.org/hooks/a", b"{}")
    assert len(seen) == 1


@pytest.mark.parametrize("url", [*BAD.values()])
async def test_a_url_that_got_in_some_other_way_ends_nothing(url: str) -> None:
    post, _ = poster([])
    assert await post(url, b"{}")


async def test_deliveries_are_tried_again_and_go_on_after_a_restart(tmp_path: Any) -> None:
    first = Bed(tmp_path)
    first.refusals = ["away"] * 2
    first.jobs.submit("j", models.request(models.table(1, 9), "j"), "http://hooks.example/x")
    first.jobs.submit("k", models.request(models.table(1, 9), "k"), "http://hooks.example/y")
    runner = asyncio.create_task(first.jobs.run())
    await until(lambda: len(first.journal.records) == 2)
    await until(lambda: [first.jobs.get(name).status for name in "jk"] == ["done", "done"])
    runner.cancel()
    now = 0.0
    second = Bed(tmp_path)
    second.refusals = ["away"] * 2
    second.jobs = JobQueue(
        JobStore(tmp_path, Xor()), second._work, second._deliver, clock=lambda: now, pause=second._pause
    )
    poster = asyncio.create_task(second.jobs.run_deliveries())
    await until(lambda: len(second.delivered) == 2)
    assert not any(second.jobs.get(name).delivered for name in "jk")
    now = 5.0
    await until(lambda: all(second.jobs.get(name).delivered for name in "jk"))
    assert [url for url, _ in second.delivered].count("http://hooks.example/x") == 2
    poster.cancel()


async def test_a_webhook_that_never_answers_is_given_up(tmp_path: Any) -> None:
    bed = Bed(tmp_path)
    bed.refusals = ["away"] * (POSTS + 5)
    clock = iter(range(0, 10**9, 10_000))
    bed.jobs = JobQueue(JobStore(tmp_path, Xor()), bed._work, bed._deliver, clock=lambda: next(clock), pause=bed._pause)
    bed.jobs.submit("j", models.request(models.table(1, 9), "j"), "http://hooks.example/x")
    runners = [asyncio.create_task(run()) for run in (bed.jobs.run, bed.jobs.run_deliveries)]
    await until(lambda: bed.jobs.get("j").posts == POSTS)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(bed.delivered) == POSTS
    assert JobQueue(JobStore(tmp_path, Xor()), bed._work, bed._deliver)._undelivered == {}
    for runner in runners:
        runner.cancel()


async def test_a_bug_costs_one_job_not_the_queue(tmp_path: Any) -> None:
    bed = Bed(tmp_path)

    async def work(body: bytes, name: str) -> bytes:
        if name == "bad":
            raise KeyError(name)
        return await bed._work(body, name)

    bed.jobs = JobQueue(JobStore(tmp_path, Xor()), work, bed._deliver, log=lambda *_, **__: None)
    for name in ("bad", "good"):
        bed.jobs.submit(name, models.request(models.table(1, 9), name), "")
    runner = asyncio.create_task(bed.jobs.run())
    await until(lambda: bed.jobs.get("good").status == "done")
    assert "KeyError" in bed.jobs.get("bad").error
    assert not runner.done()
    runner.cancel()
