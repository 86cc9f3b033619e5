"""YAML as ``kubectl`` reads it."""

from collections.abc import Iterator

import yaml

__all__ = ["MOST_NODES", "Loader", "YamlFault", "value_of"]

MOST_NODES = 200_000
"""Values that a document may have once aliases are written out; the API server takes 3 MiB."""


class YamlFault(Exception):
    """What is wrong, and at which line and column (from 1); both 0 where no place is to blame."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.line, self.column = line, column


class Loader(yaml.SafeLoader):
    """A day or time without quotes is a string, not an object."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    return loader.construct_scalar(node)


Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)


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
