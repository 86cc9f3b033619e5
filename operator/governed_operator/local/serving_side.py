"""Names programs of the serving side without importing it: imports go one way."""

import importlib.util


def module(name: str, *words: str) -> list[str] | None:
    """Arguments for the interpreter that run a module of the serving side; None when it isn't installed."""
    package = name.split(".", 1)[0]
    if importlib.util.find_spec(package) is None:
        return None
    return ["-m", name, *words]
