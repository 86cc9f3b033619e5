"""Figures as they were when they were last looked at: what a ledger holds must come out the same years later.

Whoever changes a figure on purpose runs the tests with GOVERNED_TEST_FROZEN=write and reviews the diff; that a figure
is right is what the oracles of the other tests say.
"""

import json
import os
from math import isclose, isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pydantic import BaseModel

FOLDER = Path(__file__).with_name("frozen")


def same(name: str, told: object) -> None:
    """Compare with ``frozen/NAME.json``: numbers to six digits, everything else exactly."""
    file, found = FOLDER / f"{name}.json", json.loads(msgspec.json.encode(told, enc_hook=_plain))
    if os.environ.get("GOVERNED_TEST_FROZEN") == "write":
        file.write_text(json.dumps(_short(found), indent=0, ensure_ascii=False, sort_keys=True) + "\n")
    differing = list(_differences(json.loads(file.read_text()), found, name))
    assert not differing, "; ".join(differing[:5])


def numbers(values: Any) -> Any:
    """Plain data of arrays, tuples and dataclasses; what isn't finite as a word."""
    if isinstance(values, dict):
        return {str(key): numbers(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [numbers(value) for value in values]
    if isinstance(values, np.ndarray | np.generic):
        return numbers(values.tolist())
    if isinstance(values, float) and not isfinite(values):
        return str(values)
    if isinstance(values, str | int | float | bool | None):
        return values
    if isinstance(values, BaseModel):
        return numbers(values.model_dump())
    return numbers(msgspec.to_builtins(values, enc_hook=_plain))


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"expected plain data, found {type(value)}")


def _short(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _short(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_short(value) for value in found]
    return float(f"{found:.10g}") if isinstance(found, float) else found


def _differences(expected: Any, found: Any, where: str) -> Any:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from _differences(expected.get(key, "nothing"), found.get(key, "nothing"), f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{where}[{place}]")
    elif isinstance(expected, float | int) and isinstance(found, float | int):
        words = isinstance(expected, bool) or isinstance(found, bool)
        if expected is not found and (words or not isclose(expected, found, rel_tol=1e-6, abs_tol=1e-9)):
            yield f"{where}: expected {expected}, found {found}"
    elif expected != found:
        yield f"{where}: expected {expected!r}, found {found!r}"
