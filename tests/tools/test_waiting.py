"""What the other tests wait with: each must be able to fail."""

import urllib.request
from collections.abc import Callable
from itertools import chain, repeat

import httpx
import pytest

from support.ports import free_port
from support.waiting import comes_to_rest, consistently, eventually


def counting(upto: int) -> Callable[[], int]:
    """0, 1, … ``upto``, and that for ever."""
    seen = iter(range(upto))
    return lambda: next(seen, upto)


def test_eventually_tells_what_it_saw_last() -> None:
    assert eventually(counting(3), lambda n: n == 3, within=5, every=0.001) == 3
    with pytest.raises(AssertionError, match="three did not come true within 0 s; last seen: 2"):
        eventually(counting(2), lambda n: n == 3, within=0.05, every=0.001, what="three")


def refused() -> object:
    return httpx.get(f"http://127.0.0.1:{free_port()}", trust_env=False)


@pytest.mark.parametrize("read", [refused, lambda: urllib.request.urlopen("http://127.0.0.1:1"), lambda: {}["a"]])
def test_a_read_that_fails_is_no_sight(read: Callable[[], object]) -> None:
    looks = iter([read, read, lambda: 7])
    assert eventually(lambda: next(looks)(), lambda n: n == 7, within=30, every=0.001) == 7
    looks = chain([read, read], repeat(lambda: 7))
    assert consistently(lambda: next(looks)(), lambda n: n == 7, during=2, every=0.1) == 7
    with pytest.raises(AssertionError, match=r"did not come true within 0 s; last error: \w+: "):
        eventually(read, within=0.05, every=0.001)


def test_consistently_ends_at_the_first_sight_that_differs() -> None:
    assert consistently(counting(0), lambda n: n == 0, during=0.05, every=0.001) == 0
    with pytest.raises(AssertionError, match="zero ceased to hold; seen: 1"):
        consistently(counting(1), lambda n: n == 0, during=5, every=0.001, what="zero")


def test_what_comes_to_rest_is_the_last_sight_and_what_never_does_is_an_error() -> None:
    assert comes_to_rest(counting(2), during=0.5, within=10) == 2
    with pytest.raises(AssertionError, match="the count comes to rest did not come true"):
        comes_to_rest(counting(1_000_000), during=0.3, within=0.1, what="the count")
