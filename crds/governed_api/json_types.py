"""JSON as types: what a parser returns, to be narrowed before use."""

from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
"""A JSON value that holds no others: also what a row of data has for a feature."""
Json: TypeAlias = Scalar | list["Json"] | dict[str, "Json"]
"""Whatever JSON may say, as parsed. What is built to be written is a ``Mapping[str, object]``: a dict of floats is no
``dict[str, Json]``."""
