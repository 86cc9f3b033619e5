"""The one way a command ends badly: lines on stderr, an exit code."""

import sys
from typing import NoReturn

import typer

from governed_api.printable import printable


def fail(message: str, code: int = 1) -> NoReturn:
    """Print ``message`` to stderr and exit."""
    told = f"governed: {message}" if "\n" not in message else message
    print(printable(told, keep="\n"), file=sys.stderr)
    raise typer.Exit(code)
