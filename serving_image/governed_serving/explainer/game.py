"""The coalition games that Shapley methods play.

A game is a set function per explained row: ``v(S)``, shape (outputs,). For tables, the interventional one:
``v(S) = mean over background b of f(x on S, b off S)`` (Janzing, Minorics, Blöbaum 2020; Lundberg & Lee 2017).
"""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from governed_serving.blackbox.box import BlackBox
from governed_serving.blackbox.columns import Columns, Floats, concatenate, factorise, row_count, take
from governed_serving.blackbox.errors import NotExplainable
from governed_serving.explainer.players import Players

__all__ = ["Game", "InterventionalGame", "RowGame"]

TABLE_LIMIT = 1 << 20
"""Largest number of distinct rows for which every answer is kept in a table and no row is ever asked twice."""

LONG_RUN = 128
"""Equal neighbours from which plain block assignment is as fast as memory."""

Booleans = NDArray[np.bool_]
Codes = NDArray[np.int64]


class Game(Protocol):
    """A coalition game over ``size`` players; ``box`` counts what the model was asked."""

    box: BlackBox

    @property
    def size(self) -> int: ...

    def values(self, masks: Booleans) -> Floats:
        """``v(S)`` for masks of shape (coalitions, size) → (coalitions, outputs)."""
        ...


@dataclass(frozen=True)
class _Coded:
    """Rows and background of one feature: raw values and, for text, a dictionary with codes."""

    rows: NDArray[np.generic]
    background: NDArray[np.generic]
    dictionary: NDArray[np.generic] | None


class InterventionalGame:
    """Rows to explain against weighted, deduplicated background rows.

    ``rows`` (R rows) and ``background`` (B rows) hold the same features; ``players`` partition them. Joint values of
    each player are coded as integers, so that pairs that agree on a player are known not to need evaluation, and
    hybrids that coincide are evaluated once when the space of codes is small. ``outputs``: what the model answered to
    ``rows`` before, if it was asked; then they are asked for once more among the background, to see whether an answer
    is the row's own.
    """

    def __init__(
        self, box: BlackBox, rows: Columns, background: Columns, players: Players, outputs: Floats | None = None
    ) -> None:
        missing = [f for members in players.members for f in members if f not in rows or f not in background]
        if missing:
            raise NotExplainable(f"feature {missing[0]!r} is not in both the rows and the background")
        self.box, self.players = box, players
        self.rows = row_count(rows)
        code_x, code_b = self._code(rows, background, players)
        code_b, first, counts = np.unique(code_b, axis=0, return_index=True, return_counts=True)
        self.code_x, self.code_b = code_x, code_b
        self.weights: Floats = counts / counts.sum()
        self.backgrounds = len(first)
        self._features = {f: _coded(rows[f], background[f][first]) for members in players.members for f in members}
        self._dedupe = self._plan_dedupe()
        self._seen: dict[str, Any] = {}
        self._scratch = threading.local()
        self._x_columns, self._b_columns = take(rows, slice(None)), take(background, first)
        self._outputs, self._again = outputs, outputs

    @staticmethod
    def _code(rows: Columns, background: Columns, players: Players) -> tuple[Codes, Codes]:
        count = row_count(rows)
        codes = np.empty((count + row_count(background), len(players)), np.int64)
        for index, members in enumerate(players.members):
            parts = [factorise(np.concatenate([rows[f], background[f]]))[1] for f in members]
            joint = parts[0] if len(parts) == 1 else np.unique(np.stack(parts, 1), axis=0, return_inverse=True)[1]
            codes[:, index] = np.asarray(joint).reshape(-1)
        return codes[:count], codes[count:]

    def _plan_dedupe(self) -> str:
        sizes = [int(max(self.code_x[:, g].max(), self.code_b[:, g].max())) + 1 for g in range(len(self.players))]
        space, radix = 1, []
        for size in sizes:
            radix.append(space)
            space *= size
        self._radix, self.space = radix, space
        if space <= TABLE_LIMIT:
            return "table"
        return "sort" if self.box.costly and space < 1 << 62 else "none"

    @functools.cached_property
    def row_outputs(self) -> Floats:
        """``f(x)``, shape (R, outputs)."""
        return self.box.at_least(self._x_columns) if self._outputs is None else self._outputs

    @functools.cached_property
    def background_outputs(self) -> Floats:
        """``f(b)``, shape (B, outputs)."""
        if self._outputs is None:
            return self.box.at_least(self._b_columns)
        both = self.box.at_least(concatenate([self._b_columns, self._x_columns]))
        self._again = both[self.backgrounds :]
        return both[: self.backgrounds]

    def batch_dependence(self, row: int) -> float:
        """Largest difference between the model's answers to a row in two batches, of those that were asked for."""
        if self._outputs is None or self._again is None:
            return 0.0
        return float(np.abs(self._again[row] - self._outputs[row]).max())

    @functools.cached_property
    def base(self) -> Floats:
        """``v(∅)``, shape (outputs,)."""
        base: Floats = self.weights @ self.background_outputs
        return base

    def map(self, part: Callable[[int], Floats], starts: list[int]) -> list[Floats]:
        """Parts in order; serial where they share the table of known answers."""
        return [part(start) for start in starts] if self._dedupe == "table" else self.box.map(part, starts)

    def block(self, x: Codes, b: Codes, select: Callable[[int], Booleans], shape: tuple[int, int]) -> Floats:
        """Outputs of hybrids, shape (*shape, outputs).

        ``x`` and ``b`` index rows and background, shape (shape[0], 1) or (1, 1); ``select(player)`` is True, broadcast
        to ``shape``, where the player's features come from the row.
        """
        if self._dedupe == "none":
            return self.box(self._hybrids(x, b, select, shape)).reshape(*shape, -1)
        code = np.zeros(shape, np.int64)
        for g, radix in enumerate(self._radix):
            code += np.where(select(g), self.code_x[x, g], self.code_b[b, g]) * radix
        flat = code.reshape(-1)
        if self._dedupe == "sort":
            _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
            return self.box(self._pick(x, b, select, shape, first))[inverse.reshape(-1)].reshape(*shape, -1)
        return self._from_table(flat, lambda first: self._pick(x, b, select, shape, first)).reshape(*shape, -1)

    def _from_table(self, codes: Codes, build: Callable[[Codes], Columns]) -> Floats:
        if not self._seen:
            self._seen["slot"] = np.full(self.space, -1, np.int64)
            self._seen["outputs"] = np.empty((0, self.background_outputs.shape[1]))
        slot = self._seen["slot"]
        unknown = np.flatnonzero(slot[codes] < 0)
        if len(unknown):
            distinct, first = np.unique(codes[unknown], return_index=True)
            answers = self.box(build(unknown[first]))
            slot[distinct] = np.arange(len(distinct)) + len(self._seen["outputs"])
            self._seen["outputs"] = np.concatenate([self._seen["outputs"], answers])
        outputs: Floats = self._seen["outputs"][slot[codes]]
        return outputs

    def _hybrids(self, x: Codes, b: Codes, select: Callable[[int], Booleans], shape: tuple[int, int]) -> Columns:
        columns = {}
        for g, members in enumerate(self.players.members):
            chosen = select(g)
            for feature in members:
                coded = self._features[feature]
                values = np.empty(shape, coded.rows.dtype)
                values[...] = coded.background[b]
                np.copyto(values, coded.rows[x], where=chosen)
                flat = values.reshape(-1)
                columns[feature] = flat if coded.dictionary is None else coded.dictionary[flat]
        return columns

    def cube(self, x: Codes, b: Codes, order: Codes) -> Floats:
        """All hybrids of pairs that differ on the same players, shape (pairs, 2^d, outputs); ``x`` and ``b`` (pairs,),
        ``order`` (d,).

        Player ``order[j]`` is bit j of the second axis. The columns lie in memory that the thread's next call writes
        over: fresh memory for each call would cost more than the model does.
        """
        bit = {int(player): index for index, player in enumerate(order)}
        columns = {}
        for g, members in enumerate(self.players.members):
            for feature in members:
                coded = self._features[feature]
                values = self._memory(feature, coded.rows.dtype, (len(x), 1 << len(order)))
                if g in bit:
                    _fill(values, coded.background[b], coded.rows[x], bit[g])
                else:
                    values[...] = coded.rows[x][:, None]
                flat = values.reshape(-1)
                columns[feature] = flat if coded.dictionary is None else coded.dictionary[flat]
        return self.box(columns).reshape(len(x), 1 << len(order), -1)

    def _memory(self, feature: str, dtype: np.dtype[np.generic], shape: tuple[int, int]) -> NDArray[np.generic]:
        """This thread's array for a feature, at least as large as any before."""
        held: dict[str, NDArray[np.generic]] = self._scratch.__dict__
        size = shape[0] * shape[1]
        if feature not in held or held[feature].size < size:
            held[feature] = np.empty(size, dtype)
        return held[feature][:size].reshape(shape)

    @property
    def direct(self) -> bool:
        """Whether hybrids go to the model as they are, without looking for equal ones."""
        return self._dedupe == "none"

    def _pick(
        self, x: Codes, b: Codes, select: Callable[[int], Booleans], shape: tuple[int, int], flat: Codes
    ) -> Columns:
        """Only the hybrids at the flat positions ``flat``."""
        i, j = np.divmod(flat, shape[1])
        at_x, at_b = x[i if len(x) > 1 else 0 * i, 0], b[i if len(b) > 1 else 0 * i, 0]
        columns = {}
        for g, members in enumerate(self.players.members):
            chosen = np.broadcast_to(select(g), shape)[i, j]
            for feature in members:
                coded = self._features[feature]
                values = np.where(chosen, coded.rows[at_x], coded.background[at_b])
                columns[feature] = values if coded.dictionary is None else coded.dictionary[values]
        return columns


def _fill(values: NDArray[np.generic], low: NDArray[np.generic], high: NDArray[np.generic], bit: int) -> None:
    """Row p of ``values`` (pairs, 2^d) becomes ``high[p]`` where ``bit`` of the position is set, else ``low[p]``.

    Short runs are written as words of a whole period, which is up to ten times faster than element by element.
    """
    pairs, run = len(values), 1 << bit
    if run >= LONG_RUN:
        blocks = values.reshape(pairs, -1, 2, run)
        blocks[:, :, 0], blocks[:, :, 1] = low[:, None, None], high[:, None, None]
        return
    period = np.empty((pairs, 2 * run), values.dtype)
    period[:, :run], period[:, run:] = low[:, None], high[:, None]
    word = f"V{2 * run * values.itemsize}"
    values.view(word)[...] = period.view(word)


def _coded(rows: NDArray[np.generic], background: NDArray[np.generic]) -> _Coded:
    if rows.dtype != object:
        return _Coded(rows, background.astype(rows.dtype, copy=False), None)
    dictionary, codes = factorise(np.concatenate([rows, background]))
    return _Coded(codes[: len(rows)], codes[len(rows) :], dictionary)


class RowGame:
    """The game of one row of an :class:`InterventionalGame`, over the players that differ from some background row.

    ``active`` holds the positions of those players: all others are null players and get exactly zero.
    """

    def __init__(self, game: InterventionalGame, row: int) -> None:
        self.game, self.row, self.box = game, row, game.box
        self.active = np.flatnonzero((game.code_b != game.code_x[row]).any(axis=0))

    @property
    def size(self) -> int:
        """Players that can matter for this row."""
        return len(self.active)

    def values(self, masks: Booleans) -> Floats:
        """``v(S)``: masks (coalitions, size) → (coalitions, outputs)."""
        count, backgrounds = len(masks), self.game.backgrounds
        place = {int(player): index for index, player in enumerate(self.active)}
        always = np.ones((1, 1), bool)
        x = np.full((1, 1), self.row)
        b = np.arange(backgrounds)[:, None]
        step = max(1, self.box.max_rows // backgrounds)

        def part(start: int) -> Floats:
            chunk = masks[start : start + step]
            chosen = [chunk[:, place[g]][None, :] if g in place else always for g in range(len(self.game.players))]
            outputs = self.game.block(x, b, chosen.__getitem__, (backgrounds, len(chunk)))
            mean: Floats = np.tensordot(self.game.weights, outputs, axes=(0, 0))
            return mean

        return np.concatenate(self.game.map(part, list(range(0, count, step))))
