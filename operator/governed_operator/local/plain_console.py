"""A console on which models, logs and clients can write nothing but text: what rich lets through of theirs is
escaped."""

import os
import sys

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from governed_api.printable import printable

__all__ = ["line_console", "plain_console"]

_UNBROKEN = 1000
"""Columns; no line is as long."""


class _Escaped:
    """Renders as ``inner`` does, each piece of text made printable; rich's own control codes pass."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(printable(segment.text, keep="\n"), segment.style)


class _Escaping(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(renderable) for renderable in renderables]


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Without rich's guesses at what is a number or a path, and without its markup: a feature named ``age [years]`` is
    printed so."""
    console = Console(highlight=False, markup=False, emoji=False, stderr=stderr, width=width)
    console.push_render_hook(_Escaping())
    return console


def line_console() -> Console:
    """For lines that a program may read: into a pipe or a file none is broken, so that an address stays one word."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNBROKEN
    return plain_console(width=width)
