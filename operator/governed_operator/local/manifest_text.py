"""YAML as a person wrote it: what each document holds, and on which line each field stands."""

import re
from dataclasses import dataclass

import yaml

from governed_api.yaml_loader import Loader, YamlFault, value_of

__all__ = ["Document", "parsed"]

_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")


@dataclass(frozen=True)
class Document:
    """``value`` as ``kubectl`` reads it."""

    value: object
    node: yaml.Node

    @property
    def kind(self) -> str:
        """What it says that it is; "" where it says nothing."""
        kind = self.value.get("kind") if isinstance(self.value, dict) else None
        return kind if isinstance(kind, str) else ""

    def line(self, path: str) -> int:
        """Line (from 1) of the field at ``path`` (``spec.rules[0].name``), or of the nearest one that it lies in."""
        node, line = self.node, self.node.start_mark.line + 1
        for step in _STEP.findall(path):
            child = _child(node, step)
            if child is None:
                break
            node, line = child
        return line


def parsed(text: str) -> list[Document]:
    """Documents of a file, empty ones left out. Raises YamlFault for what isn't YAML, for a key that is given twice in
    one mapping (``kubectl`` refuses it too) and for aliases that unfold without bound."""
    documents = []
    try:
        for node in yaml.compose_all(text, Loader=Loader):
            value = value_of(node)
            if value is not None:
                documents.append(Document(value, node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise YamlFault(error.problem or "not YAML", *((mark.line + 1, mark.column + 1) if mark else ())) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number out of range
        raise YamlFault(" ".join(str(error).split()) or "not YAML") from error
    except RecursionError as error:
        raise YamlFault("nested too deeply") from error
    return documents


def _child(node: yaml.Node, step: str) -> tuple[yaml.Node, int] | None:
    """The value of one step of a path, and the line of its key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and step.startswith("["):
        place = int(step[1:-1])
        if place < len(node.value):
            item = node.value[place]
            return item, item.start_mark.line + 1
    return None
