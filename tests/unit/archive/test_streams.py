"""Where the entries of a stream are, as far as it is remembered."""

import pytest

from governed_serving.archive.ledger.streams import Streams


def test_a_stream_that_was_never_seen_has_nothing() -> None:
    known = Streams()
    known.add("m", "s", 0, 0, 1)
    assert known.next_seq("m", "t") is None
    assert known.next_seq("n", "s") is None
    assert known.run_at("m", "t", 0) is None


@pytest.mark.parametrize("loaded", [False, True])
def test_each_number_is_in_the_run_that_holds_it(loaded: bool) -> None:
    known = Streams()
    known.add("m", "s", 1, 100, 3)
    known.add("m", "s", 4, 200, 1)
    known.add("m", "s", 7, 300, 2)
    known.add("m", "t", 0, 5, 1)
    if loaded:
        known = Streams.load([(m, s, [list(run) for run in runs]) for m, s, runs in known.dump()])  # type: ignore[misc]
    runs = [(1, 100, 3), (4, 200, 1), (7, 300, 2)]
    assert known.dump() == [("m", "s", runs), ("m", "t", [(0, 5, 1)])]
    assert [known.run_at("m", "s", seq) for seq in range(10)] == [
        None, runs[0], runs[0], runs[0], runs[1], None, None, runs[2], runs[2], None,
    ]  # fmt: skip
    assert (known.next_seq("m", "s"), known.next_seq("m", "t")) == (9, 1)


def test_what_was_dumped_doesnt_change_later() -> None:
    known = Streams()
    known.add("m", "s", 0, 0, 1)
    dumped = known.dump()
    known.add("m", "s", 5, 9, 1)
    assert dumped == [("m", "s", [(0, 0, 1)])]


def test_65536_runs_are_remembered_then_the_newer_half_of_them() -> None:
    known = Streams()
    for seq in range(65_536):
        known.add("m", "s", seq, 2 * seq, 1)
    assert known.run_at("m", "s", 0) == (0, 0, 1)
    known.add("m", "s", 65_536, 2 * 65_536, 1)
    assert [known.run_at("m", "s", seq) for seq in (0, 32_767)] == [None, None]
    assert known.run_at("m", "s", 32_768) == (32_768, 65_536, 1)
    assert len(known.dump()[0][2]) == 32_769
    assert known.next_seq("m", "s") == 65_537


def test_what_adjoins_prolongs_the_last_run_and_no_other() -> None:
    known = Streams()
    for seq, index, count in ((1, 100, 3), (9, 300, 2), (11, 302, 4), (15, 306, 1)):
        known.add("m", "s", seq, index, count)
    assert known.dump() == [("m", "s", [(1, 100, 3), (9, 300, 7)])]
    known.add("m", "s", 16, 400, 2)
    known.add("m", "s", 18, 402, 1)
    assert known.dump() == [("m", "s", [(1, 100, 3), (9, 300, 7), (16, 400, 3)])]
