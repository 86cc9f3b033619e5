"""Calls sent again: what is final, what isn't, how long the pauses are, and when it ends."""

from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from governed_api.jitter import JITTER
from governed_api.pauses import retry_after
from governed_serving.hosting.retrying import Backoff, GaveUp, Retrying

Answer = int | tuple[int, str] | Exception


class Service:
    """Answers as listed, the last one for ever; its clock moves by the pauses alone."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.calls = answers, 0
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> httpx.Response:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        status, wait = answer if isinstance(answer, tuple) else (answer, "")
        return httpx.Response(status, headers={"retry-after": wait} if wait else {}, text="because")

    def retrying(self, backoff: Backoff, **options: object) -> Retrying:
        return Retrying(backoff, clock=lambda: self.now, sleep=self._sleep, **options)  # type: ignore[arg-type]

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pause is as long as its bound."""
    monkeypatch.setattr(JITTER, "uniform", lambda _, most: most)


@pytest.mark.parametrize("status", [200, 201, 304, 400, 401, 404, 409, 412, 500, 501, 507])
def test_a_final_answer_ends_it(status: int) -> None:
    service = Service(status, 200)
    assert service.retrying(Backoff(10.0)).call(service).status_code == status
    assert service.calls == 1


@pytest.mark.parametrize(
    "answer",
    [429, 502, 503, 504, httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("reset")],
)
def test_what_may_change_is_tried_again(answer: Answer) -> None:
    service = Service(answer, answer, 200)
    assert service.retrying(Backoff(10.0)).call(service).status_code == 200
    assert service.calls == 3


def test_another_error_is_no_reason_to_try_again() -> None:
    service = Service(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        service.retrying(Backoff(10.0)).call(service)
    assert service.calls == 1


def test_the_caller_says_what_may_change() -> None:
    service = Service(409, 200)
    assert service.retrying(Backoff(10.0), retryable={409}).call(service).status_code == 200


@pytest.mark.usefixtures("longest")
def test_pauses_double_up_to_the_longest_and_end_with_patience() -> None:
    service = Service(503)
    with pytest.raises(GaveUp, match=r"^503 because$"):
        service.retrying(Backoff(10.0, first=0.5, longest=3.0)).call(service)
    assert service.pauses == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert service.now <= 10.0


def test_pauses_are_drawn_from_nothing_to_the_bound() -> None:
    service = Service(503)
    with pytest.raises(GaveUp):
        service.retrying(Backoff(1000.0, first=1.0, longest=1.0)).call(service)
    assert min(service.pauses) < 0.1
    assert max(service.pauses) > 0.9
    assert sum(service.pauses) / len(service.pauses) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_are_bounded(attempts: int) -> None:
    service = Service(httpx.ConnectError("refused"))
    with pytest.raises(GaveUp, match=r"^refused$"):
        service.retrying(Backoff(1000.0, attempts=attempts)).call(service)
    assert service.calls == attempts


def test_retry_after_is_the_least_that_is_waited() -> None:
    service = Service((503, "2"), (429, "3"), 503, 200)
    service.retrying(Backoff(10.0)).call(service)
    assert [pause >= least for pause, least in zip(service.pauses, [2.0, 3.0, 0.0], strict=True)] == [True] * 3
    assert service.pauses[2] < 1.0, "an answer that asks for nothing isn't held to what an earlier one asked for"


def test_an_error_forgets_what_was_asked_for() -> None:
    service = Service((503, "5"), httpx.ConnectError("refused"), 200)
    service.retrying(Backoff(10.0)).call(service)
    assert service.pauses[1] < 1.0


def test_a_wait_beyond_patience_gives_up_at_once() -> None:
    service = Service((503, "60"), 200)
    with pytest.raises(GaveUp):
        service.retrying(Backoff(10.0)).call(service)
    assert (service.calls, service.pauses) == (1, [])


def test_retry_after_may_be_left_unheeded() -> None:
    service = Service((503, "60"), 200)
    service.retrying(Backoff(10.0, heeds_retry_after=False)).call(service)
    assert service.now < 1.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0.0), ("0", 0.0), ("120", 120.0), ("-1", 0.0), ("1.5", 0.0), ("soon", 0.0), ("²", 0.0), ("9" * 400, 0.0),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0), ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0), ("Thu, 01 Jan 2026 00:00:05 -0000", 5.0),  # noqa: E501
        ("Thu, 01 Jan 99999 00:00:05 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float) -> None:
    now: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # noqa: E731
    assert retry_after(value, now) == seconds
