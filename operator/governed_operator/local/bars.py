"""Signed bars of block characters, for attributions and disparities on a terminal."""

from rich.text import Text

HALF = 16


def signed_bar(value: float, scale: float) -> Text:
    """A bar left (negative, red) or right (positive, green) of a middle line; ``scale`` fills a half."""
    length = 0 if scale <= 0 else min(HALF, max(1 if value else 0, round(abs(value) / scale * HALF)))
    block = "█" * length
    if value < 0:
        return Text(block.rjust(HALF), style="red") + Text("│", style="dim") + Text(" " * HALF)
    return Text(" " * HALF) + Text("│", style="dim") + Text(block.ljust(HALF), style="green")
