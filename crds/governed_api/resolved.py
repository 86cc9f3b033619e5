"""What every container of a model reads: the spec with defaults filled in, and who it is."""

import hashlib
import json
from functools import cached_property
from pathlib import Path

from governed_api.base import Part
from governed_api.lifecycle import Rollout
from governed_api.model import GovernedModel, GovernedModelSpec, Model, Predictor
from governed_api.supervision import Supervision


class ResolvedModel(Part):
    """Content of the ConfigMap; its name is hashed over these bytes, so that a change rolls the pods."""

    name: str
    namespace: str
    spec: GovernedModelSpec

    @classmethod
    def of(cls, model: GovernedModel) -> "ResolvedModel":
        return cls(name=model.name, namespace=model.namespace, spec=model.spec)

    @classmethod
    def load(cls, path: str | Path) -> "ResolvedModel":
        """Read the file at ``path``. Raises OSError, pydantic.ValidationError."""
        return cls.model_validate_json(Path(path).read_bytes())

    def __copy__(self) -> "ResolvedModel":
        """Without what was derived: `model_copy` changes fields of the copy."""
        copied = super().__copy__()
        for name in ("document", "for_pods", "for_report", "for_serving", "training_identity"):
            copied.__dict__.pop(name, None)
        return copied

    def dump(self) -> bytes:
        """Canonical JSON: sorted keys, absent fields left out."""
        return json.dumps(self.plain(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @cached_property
    def document(self) -> bytes:
        """What `dump` gives, made once."""
        return self.dump()

    @cached_property
    def for_pods(self) -> "ResolvedModel":
        """The model as its pods read it: what only the operator acts on is set to its default, so that changing it
        rolls no pod."""
        predictor = self.spec.predictor
        neutral = predictor.model_copy(
            update={
                name: type(predictor).model_fields[name].default
                for name in ("min_replicas", "max_replicas", "scale_metric", "scale_target")
            }
        )
        lifecycle = self.spec.lifecycle.model_copy(update={"rollout": Rollout()})
        governance = self.spec.governance.model_copy(update={"supervision": Supervision()})
        spec = self.spec.model_copy(
            update={"predictor": neutral, "lifecycle": lifecycle, "governance": governance, "suspend": False}
        )
        return ResolvedModel(name=self.name, namespace=self.namespace, spec=spec)

    @cached_property
    def for_serving(self) -> "ResolvedModel":
        """As `for_pods`, without the rows of inline training data: they are the trainer's alone."""
        seen, training = self.for_pods, self.spec.lifecycle.training
        if training is None or training.data.inline is None:
            return seen
        data = training.data.model_copy(update={"inline": ""})
        lifecycle = seen.spec.lifecycle.model_copy(update={"training": training.model_copy(update={"data": data})})
        return ResolvedModel(
            name=self.name, namespace=self.namespace, spec=seen.spec.model_copy(update={"lifecycle": lifecycle})
        )

    @cached_property
    def for_report(self) -> "ResolvedModel":
        """What a governance report needs: the rules, and the runtime. No rows of any data, so that it may lie on a
        disk."""
        predictor = Predictor(model=Model(runtime=self.spec.predictor.model.runtime))
        spec = GovernedModelSpec(predictor=predictor, governance=self.spec.governance)
        return ResolvedModel(name=self.name, namespace=self.namespace, spec=spec)

    def training_hash(self) -> str:
        """Identity of what the trainer or importer Job would make: data → gates and what bias rules feed into them, or
        where a model comes from and what is said of it."""
        return self.training_identity

    @cached_property
    def training_identity(self) -> str:
        """What `training_hash` gives, made once."""
        plain = self.plain()["spec"]
        assert isinstance(plain, dict)
        life = {k: v for k, v in plain["lifecycle"].items() if k != "rollout"}
        training = life.get("training")
        if isinstance(training, dict):
            life["training"] = {
                k: v for k, v in training.items() if k not in ("resources", "queueName", "volumeSize", "activeDeadline")
            }
        bias = plain.get("governance", {}).get("bias") or {}
        basis: dict[str, object] = {
            "name": self.name,
            "lifecycle": life,
            "bias": {k: bias.get(k) for k in ("protectedAttributes", "strata", "favorableOutcome")},
        }
        if self.spec.predictor.model.is_fetched:
            basis |= {"model": plain["predictor"]["model"], "explainer": plain.get("explainer")}
        return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:16]
