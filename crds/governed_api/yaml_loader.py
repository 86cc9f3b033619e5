"""YAML as ``kubectl`` reads it."""

import math
import re
from collections.abc import Hashable, Iterator

import yaml
from yaml.constructor import ConstructorError

__all__ = ["MOST_NODES", "Loader", "YamlFault", "value_of"]

MOST_NODES = 200_000
"""Values that a document may have once aliases are written out; the API server takes 3 MiB."""


class YamlFault(Exception):
    """What is wrong, and at which line and column (from 1); both 0 where no place is to blame."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.line, self.column = line, column


class Loader(yaml.SafeLoader):
    """Plain scalars and keys mean what they mean to ``kubectl`` (go.yaml.in/yaml/v2, resolve.go, then JSON): ``y`` and
    ``off`` are booleans, ``1e3`` and ``3.0`` whole numbers, ``1:30`` and a day are texts, and so is each key."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Iterator[dict[str, object]]:
    """In two steps, as PyYAML asks of what may refer to itself."""
    mapping: dict[str, object] = {}
    yield mapping
    for key, value in loader.construct_mapping(node).items():
        if not isinstance(key, str | int | float):
            raise ConstructorError(None, None, f"expected a text as a key, found {key!r}", node.start_mark)
        mapping[_key(key)] = value


def _key(key: Hashable) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


_TRUE, _FALSE = ("y", "yes", "true", "on"), ("n", "no", "false", "off")


def _boolean(_: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    word = str(node.value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise ConstructorError(None, None, f"expected a boolean, found {node.value}", node.start_mark)
    return word in _TRUE


def _number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    """A float that is whole is an integer in JSON, up to 1e21; what no number holds is a text."""
    written = str(node.value)
    text = written.replace("_", "")
    if (whole := _whole(text)) is not None:
        return whole
    try:
        number = float(text)
    except ValueError:  # of another base than ten
        return written
    if not math.isfinite(number):
        return written
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def _whole(text: str) -> int | None:
    """Within 64 bits, signed or not; a 0 before digits means octal ones (strconv.ParseInt with base 0)."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    try:
        number = sign * (int(digits, 8) if octal else int(digits, 0))
    except ValueError:
        return None
    return number if -(1 << 63) <= number < 1 << 64 else None


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    if re.fullmatch(_NOT_FINITE, str(node.value)):
        raise ConstructorError(None, None, f"expected a finite number, found {node.value}", node.start_mark)
    return _number(loader, node)


_NOT_FINITE = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"

Loader.yaml_implicit_resolvers = {}  # not YAML 1.1's
for _tag, _pattern, _first in (
    ("bool", r"y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON|n|N|no|No|NO|false|False|FALSE|off|Off|OFF", "yYtToOnNfF"),
    ("null", r"|~|null|Null|NULL", ["", *"~nN"]),
    ("merge", r"<<", "<"),
    ("float", _NOT_FINITE, "-+."),
    ("int", r"[-+]?(0[xX]_*[0-9a-fA-F][0-9a-fA-F_]*|0[bB]_*[01][01_]*|0[oO]_*[0-7][0-7_]*)", "-+0"),
    ("int", r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9][0-9_]*)?", "-+.0123456789"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))

Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
Loader.add_constructor("tag:yaml.org,2002:int", _number)
Loader.add_constructor("tag:yaml.org,2002:float", _float)


def value_of(node: yaml.Node) -> object:
    """What a document holds. Raises YamlFault, before anything is made of it, for a key that is given twice in one
    mapping (``kubectl`` refuses it too) and for aliases that unfold without bound; yaml.YAMLError, ValueError (a number
    out of range), RecursionError."""
    _sizes(node, {}, ())
    loader = Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _sizes(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Values below ``node`` once its aliases are written out."""
    if id(node) in above:
        raise YamlFault("an alias refers to what it stands in", *_place(node))
    if id(node) not in sizes:
        size = 1
        for child in _children(node):
            size += _sizes(child, sizes, (*above, id(node)))
            if size > MOST_NODES:
                raise YamlFault(f"more than {MOST_NODES} values once aliases are written out", *_place(node))
        sizes[id(node)] = size
    return sizes[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    first = seen[key.value].start_mark.line + 1
                    raise YamlFault(f'key "{key.value}" is given twice, first in line {first}', *_place(key))
                seen[key.value] = key
            yield key
            yield value


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
