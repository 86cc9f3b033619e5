"""The one way a command ends badly: lines on stderr, an exit code."""

import sys
from typing import NoReturn

import typer


def fail(message: str, code: int = 1) -> NoReturn:
    """Print ``message`` to stderr and exit."""
    print(f"governed: {message}" if "\n" not in message else message, file=sys.stderr)
    raise typer.Exit(code)
