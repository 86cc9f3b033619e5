"""CEL rules: written beside the fields they guard, put into the CRD, evaluated offline by ``governed validate``."""

from typing import NamedTuple


class Rule(NamedTuple):
    """One entry of ``x-kubernetes-validations``. ``transition`` rules read ``oldSelf`` and apply to updates only."""

    rule: str
    message: str
    field_path: str = ""

    @property
    def transition(self) -> bool:
        return "oldSelf" in self.rule

    def crd(self) -> dict[str, str]:
        out = {"rule": self.rule, "message": self.message}
        if self.field_path:
            out["fieldPath"] = self.field_path
        return out
