"""The base of every typed part: camelCase outside, snake_case inside, unknown fields refused by name."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from governed_api.rules import Rule

VerdictWord = Literal["Pass", "Fail", "Unknown"]
"""What a bias metric, or all of them together, come to; Unknown below ``minSamples`` and while an interval reaches the
bounds."""


class _OfTheMoment:
    """Marks a field; see OF_THE_MOMENT."""


OF_THE_MOMENT = _OfTheMoment()
"""In ``Annotated``: the field says how things stand when a report is written. The ledger entry of a verdict, which was
recorded at another time, may say otherwise without contradicting it."""


class Part(BaseModel):
    """A part of the resource; immutable once read."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def of_the_moment(cls) -> frozenset[str]:
        """Names, outside, of the fields marked OF_THE_MOMENT."""
        fields = cls.model_fields.items()
        return frozenset(field.alias or name for name, field in fields if OF_THE_MOMENT in field.metadata)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Carry the CEL rules, so that the CRD generator needs nothing but the JSON schema."""
        schema = handler(core)
        if cls.RULES:
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [r.crd() for r in cls.RULES]
        return schema

    def plain(self) -> dict[str, object]:
        """JSON-ready mapping in the resource's own field names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class RecordedPart(Part):
    """What is read back from ledgers, artefacts and reports of any age: absent fields have defaults, unknown ones are
    kept."""

    model_config = Part.model_config | {"extra": "allow"}


def wire(part: Part) -> dict[str, object]:
    """JSON-ready mapping of the fields that were set, null ones too: what isn't defined is told, what wasn't asked
    isn't."""
    return part.model_dump(mode="json", by_alias=True, exclude_unset=True)
