"""The explainer's rows take only what requests leave."""

import asyncio

import pytest

from governed_serving.server import spare
from governed_serving.server.spare import LATELY, LEAST, PIECE_SECONDS, SHARE, SpareTime


class Bed:
    """Spare time over a clock that only pieces and rests move; a row costs ``cost`` seconds."""

    def __init__(self, cost: float = 1e-5) -> None:
        self.now, self.cost = 100.0, cost
        self.rested: list[float] = []
        self.sizes: list[int] = []
        self.spare = SpareTime(lambda: self.now, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.rested.append(seconds)
        self.now += seconds

    async def compute(self, piece: slice) -> list[int]:
        rows = list(range(piece.start, piece.stop))
        self.sizes.append(len(rows))
        self.now += len(rows) * self.cost
        return rows

    def request(self) -> None:
        with self.spare.request():
            pass


async def test_pieces_grow_to_their_time_and_cover_every_row_once() -> None:
    bed = Bed()
    parts = await bed.spare.pieces(1000, bed.compute)
    assert [row for part in parts for row in part] == list(range(1000))
    assert bed.sizes[:5] == [16, 32, 64, 100, 100], "a hundred rows last PIECE_SECONDS"
    assert not bed.rested, "nobody asks, so there is nobody to rest for"


async def test_while_requests_come_pieces_have_their_share_of_the_time_alone() -> None:
    bed = Bed()
    began = bed.now

    async def amid_requests(piece: slice) -> list[int]:
        bed.request()
        return await bed.compute(piece)

    await bed.spare.pieces(2000, amid_requests)
    bed.request()
    await bed.spare.pieces(1, bed.compute)
    assert 2000 * bed.cost / (bed.now - began) == pytest.approx(SHARE, rel=0.01)


async def test_the_rest_ends_with_the_requests() -> None:
    bed = Bed(cost=1.0)  # a piece so long that its rest is longer than LATELY
    bed.request()
    await bed.spare.pieces(64, bed.compute)
    bed.request()
    await bed.spare.pieces(1, bed.compute)
    assert sum(bed.rested) == pytest.approx(LATELY)


async def test_no_piece_begins_while_a_request_is_computed() -> None:
    bed = Bed()
    with bed.spare.request():
        task = asyncio.create_task(bed.spare.pieces(10, bed.compute))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not bed.sizes
    await task
    assert bed.sizes == [10]


async def test_load_that_never_pauses_does_not_starve_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "PATIENCE", 0.001)
    bed = Bed()
    with bed.spare.request():
        assert await bed.spare.pieces(10, bed.compute) == [list(range(10))]


async def test_one_piece_at_a_time_whoever_asks() -> None:
    bed = Bed()
    inside, most = 0, 0

    async def compute(piece: slice) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        return piece.stop - piece.start

    found = await asyncio.gather(bed.spare.pieces(300, compute), bed.spare.pieces(300, compute))
    assert [sum(parts) for parts in found] == [300, 300]
    assert most == 1


@pytest.mark.parametrize("interruption", [0.05, 10.0])
async def test_an_interrupted_piece_makes_the_next_ones_a_little_smaller(interruption: float) -> None:
    bed = Bed()
    await bed.spare.pieces(1000, bed.compute)

    async def interrupted(piece: slice) -> list[int]:
        bed.now += interruption
        return await bed.compute(piece)

    await bed.spare.pieces(100, interrupted)
    assert 85 <= bed.spare.rows < 100


async def test_a_dear_model_has_small_pieces() -> None:
    bed = Bed(cost=1.0)
    await bed.spare.pieces(2000, bed.compute)
    assert bed.spare.rows == LEAST
    assert PIECE_SECONDS < 1.0


async def test_a_piece_that_fails_leaves_the_turn_to_others() -> None:
    bed = Bed()

    async def broken(_: slice) -> None:
        raise ValueError("the model")

    with pytest.raises(ValueError, match="the model"):
        await bed.spare.pieces(10, broken)
    assert await bed.spare.pieces(2, bed.compute) == [[0, 1]]
