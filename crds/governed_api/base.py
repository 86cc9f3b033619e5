"""The base of every typed part: camelCase outside, snake_case inside, unknown fields refused by name."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """A part of the resource; immutable once read."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    def plain(self) -> dict[str, object]:
        """JSON-ready mapping in the resource's own field names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
