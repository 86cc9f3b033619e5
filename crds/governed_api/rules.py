"""CEL rules: written beside the fields they guard, put into the CRD, evaluated offline by ``governed validate``."""

from typing import NamedTuple


class Rule(NamedTuple):
    """One entry of ``x-kubernetes-validations``. A rule that reads ``oldSelf`` applies to updates only."""

    rule: str
    message: str
    field_path: str = ""

    def crd(self) -> dict[str, str]:
        out = {"rule": self.rule, "message": self.message}
        if self.field_path:
            out["fieldPath"] = self.field_path
        return out
