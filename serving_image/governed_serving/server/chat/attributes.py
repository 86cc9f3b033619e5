"""The protected attributes of whom a completion is about: from the request's metadata into its record, and not to the
runtime."""

from collections.abc import Mapping

import msgspec

from governed_api.governance import Bias
from governed_api.json_types import Json
from governed_serving.completions.generated import PARAMETERS, searcher
from governed_serving.server.chat.request import Message
from governed_serving.server.errors import InvalidRequest
from governed_serving.server.metrics import ServerMetrics

__all__ = ["Attributes", "parameters_of"]

MAX_CHARACTERS = 512
"""Of a value of metadata (OpenAI)."""


class Attributes:
    """``taken`` of each request. Raises PatternRefused for a pattern that the auditor couldn't search for."""

    def __init__(self, bias: Bias, metrics: ServerMetrics) -> None:
        if bias.favorable_outcome.pattern is not None:
            searcher(bias.favorable_outcome.pattern)
        self._protected = [attribute.name for attribute in bias.protected_attributes]
        self._strata = [name for name in bias.strata if name not in self._protected]
        self._metrics = metrics

    def taken(self, message: Message, attributes: Mapping[str, str] = {}) -> dict[str, str]:
        """Columns of the record ("": missing). Strata stay in the message, protected attributes are taken out of it.
        ``attributes`` of who calls count, whatever the message says. Raises InvalidRequest."""
        metadata = message.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise InvalidRequest(f"metadata: expected an object of strings, found {type(metadata).__name__}")
        rest = dict(metadata or {})
        values = {name: _value(name, rest.pop(name, None)) for name in self._protected}
        values |= {name: _value(name, rest.get(name)) for name in self._strata}
        values |= {name: attributes[name] for name in attributes.keys() & values.keys()}
        rest |= {name: attributes[name] for name in self._strata if name in attributes and name in rest}
        if metadata is not None:
            message["metadata"] = rest
            if not rest:
                del message["metadata"]
        self._metrics.count["attributes_missing"] += sum(not value for value in values.values())
        return values


def parameters_of(message: Message) -> dict[str, str]:
    """Column of the record: what the runtime is asked for beside the prompt, as JSON."""
    parameters = {name: value for name, value in message.items() if name not in ("messages", "prompt", "model")}
    return {PARAMETERS: msgspec.json.encode(parameters).decode()}


def _value(name: str, value: Json) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"metadata.{name}: expected a string, found {type(value).__name__}")
    if len(value) > MAX_CHARACTERS:
        raise InvalidRequest(f"metadata.{name}: expected at most {MAX_CHARACTERS} characters, found {len(value)}")
    return value
