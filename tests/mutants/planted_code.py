"""A fault planted into functions that are already imported, so that a process needs no new interpreter to run it."""

import gc
from collections.abc import Iterator
from types import CodeType, FunctionType

__all__ = ["CannotPlant", "changed_functions", "plant"]


class CannotPlant(Exception):
    """The fault changes what a module does while it is imported, or which variables a function closes over."""


def changed_functions(sound: bytes, faulty: bytes, path: str) -> list[tuple[CodeType, CodeType]]:
    """(as it was, as it is) of every function whose code differs, outer ones first. Raises CannotPlant."""
    before, after = (compile(text, path, "exec", dont_inherit=True) for text in (sound, faulty))
    return list(_differing(before, after))


def plant(sound: bytes, faulty: bytes, path: str) -> int:
    """Change the functions of this process that came from ``path``; returns how many. Raises CannotPlant."""
    wanted = {_key(before): after for before, after in changed_functions(sound, faulty, path)}
    functions = [
        f
        for f in gc.get_objects()
        if isinstance(f, FunctionType) and f.__code__.co_filename == path and _key(f.__code__) in wanted
    ]
    for function in functions:
        function.__code__ = wanted[_key(function.__code__)]
    return len(functions)


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _differing(before: CodeType, after: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    if _own(before) != _own(after):
        if not before.co_flags & 0x2:  # CO_NEWLOCALS: without it, the body of a module or a class
            raise CannotPlant(f"expected a change in a function, found one in {before.co_qualname}")
        if before.co_freevars != after.co_freevars:
            raise CannotPlant(f"expected {before.co_qualname} to close over {before.co_freevars}")
    inner = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (before, after)]
    if _own(before) != _own(after) or _nested(before) != _nested(after):
        if before.co_flags & 0x2:
            yield before, after
        if [c.co_qualname for c in inner[0]] == [c.co_qualname for c in inner[1]]:
            for one, other in zip(*inner, strict=True):
                yield from _differing(one, other)


def _own(code: CodeType) -> tuple[object, ...]:
    """What the code does apart from the functions within it; line numbers don't count."""
    plain = tuple(f"code {c.co_qualname}" if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    variables = (code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_code, plain, code.co_names, variables, code.co_exceptiontable


def _nested(code: CodeType) -> list[object]:
    return [(_own(c), _nested(c)) for c in code.co_consts if isinstance(c, CodeType)]
