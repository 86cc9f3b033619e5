"""Manifests for tests: a valid one to start from, and sixty invalid ones with the message each must get."""

# ruff: noqa: E501  (tables of manifests and what is said of them)
import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from governed_api.governance import SCORED

Manifest = dict[str, Any]


def valid(name: str = "loans") -> Manifest:
    """A small model that uses most of the spec."""
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": name},
        "spec": {
            "predictor": {
                "model": {"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}},
                "minReplicas": 1,
                "maxReplicas": 3,
                "scaleMetric": "cpu",
                "scaleTarget": 80,
                "containerConcurrency": 16,
                "timeout": 30,
                "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "lifecycle": {
                "training": {
                    "data": {
                        "inline": "sex,income,note,ok\nF,1,a,yes\nM,2,b,no\n",
                        "label": "ok",
                        "features": [
                            {"name": "sex", "type": "categorical"},
                            {"name": "income", "type": "numeric"},
                            {"name": "note", "type": "text"},
                        ],
                    },
                    "model": {"type": "mlp", "hidden": [8]},
                    "loss": {"name": "crossEntropy"},
                    "optimizer": {"name": "adam", "learningRate": 0.01},
                    "schedule": {"name": "cosine", "warmupFraction": 0.1},
                    "loop": {"epochs": 2, "batchSize": 2, "earlyStopping": {"patience": 2}},
                },
                "compression": {"method": "dynamicInt8"},
                "gates": {"maxAccuracyDrop": 0.02},
                "rollout": {"strategy": "Canary", "steps": [10, 50], "interval": "1m"},
            },
            "explainer": {"type": "shap", "sampling": 0.01, "config": {"maxEvaluations": 512}},
            "governance": {
                "bias": {
                    "protectedAttributes": [{"name": "sex", "privileged": ["M"]}],
                    "favorableOutcome": {"label": "yes"},
                    "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
                    "minSamples": 100,
                    "action": "Alert",
                },
                "privacy": {"masking": {"fields": ["note"], "entities": ["EMAIL"], "action": "Replace"}},
                "encryption": {"mode": "envelope"},
                "audit": {"durability": "Fsync", "failurePolicy": "Closed"},
            },
            "quota": {
                "requests": [{"limit": 100, "window": "1m"}],
                "maxConcurrent": 32,
                "compute": {"cpu": 4, "memory": "4Gi"},
            },
        },
    }


class Invalid(NamedTuple):
    """A change to the valid manifest, and what the refusal must contain."""

    name: str
    change: Callable[[Manifest], None]
    expected: str

    def manifest(self) -> Manifest:
        out = copy.deepcopy(valid(name="bad"))
        self.change(out)
        return out


_ABSENT = object()


def _put(path: str, value: Any = _ABSENT) -> Callable[[Manifest], None]:
    """Set ``spec.…`` to a value, or remove it; numbers in the path index lists."""

    def change(manifest: Manifest) -> None:
        *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        node: Any = manifest
        for part in parents:
            if isinstance(node, dict) and part not in node:
                node[part] = {}
            node = node[part]
        if value is _ABSENT:
            del node[last]
        else:
            node[last] = value

    return change


def _both(*changes: Callable[[Manifest], None]) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        for one in changes:
            one(manifest)

    return change


def _runtime(protocol: str, explainer: str) -> Callable[[Manifest], None]:
    """A foreign runtime in place of training, with an explainer."""

    def change(manifest: Manifest) -> None:
        model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "llama:1", "protocol": protocol}}
        manifest["spec"] = {"predictor": {"model": model}, "explainer": {"type": explainer}}

    return change


def generative(name: str = "chat") -> Manifest:
    """A foreign runtime whose generated text is audited."""
    model = {"modelFormat": {"name": "runtime"}, "runtime": {"image": "llama:1", "protocol": "openai"}}
    bias = {
        "protectedAttributes": [{"name": "sex", "privileged": ["male"]}],
        "strata": ["office"],
        "favorableOutcome": {"pattern": r"(?i)\bgranted\b|批准"},
        "metrics": [{"name": "statisticalParityDifference", "thresholdLower": -0.1, "thresholdUpper": 0.1}],
        "minSamples": 100,
    }
    spec = {"predictor": {"model": model}, "governance": {"bias": bias}}
    return {**valid(name), "spec": spec}


def _generative() -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        manifest["spec"] = generative()["spec"]

    return change


def _bounds(name: str, lower: float | None, upper: float | None) -> Callable[[Manifest], None]:
    """Bounds of one metric, in place of those that are there."""
    ends = {"thresholdLower": lower, "thresholdUpper": upper}
    set_ends = {end: value for end, value in ends.items() if value is not None}
    return _put("spec.governance.bias.metrics", [{"name": name} | set_ends])


def _ranged(low: float, high: float, threshold: float) -> Callable[[Manifest], None]:
    """A regression's outcome with a declared range of scores."""
    return _put("spec.governance.bias.favorableOutcome", {"threshold": threshold, "range": {"min": low, "max": high}})


_P, _T, _B = "spec.predictor", "spec.lifecycle.training", "spec.governance.bias"
_LONG = "x" * 70

INVALID: list[Invalid] = [
    Invalid(
        "hierarchy names no feature", _put("spec.explainer.config.hierarchy", {"person": ["sex", "wealth"]}),
        "hierarchy must have groups of lifecycle.training.data.features",
    ),
    Invalid(
        "hierarchy group has the name of a feature", _put("spec.explainer.config.hierarchy", {"sex": ["income"]}),
        "none with the name of a feature",
    ),
    Invalid(
        "feature in two groups of the hierarchy",
        _put("spec.explainer.config.hierarchy", {"person": ["sex"], "other": ["sex", "income"]}),
        "must not have a feature or group in two groups",
    ),
    Invalid(
        "hierarchy beside groups",
        _both(
            _put("spec.explainer.config.hierarchy", {"person": ["sex"]}),
            _put("spec.explainer.config.groups", [["sex", "income"]]),
        ),
        "hierarchy and groups exclude each other",
    ),
    Invalid(
        "hierarchy beside interactions",
        _both(
            _put("spec.explainer.config.hierarchy", {"person": ["sex"]}),
            _put("spec.explainer.config.interactions", 3),
        ),
        "hierarchy and interactions exclude each other",
    ),
    Invalid(
        "hierarchy of rules",
        _both(_put("spec.explainer.config.hierarchy", {"person": ["sex"]}), _put("spec.explainer.type", "anchors")),
        "explainer.config.hierarchy needs type shap",
    ),
    Invalid(
        "immutable names no feature", _put("spec.explainer.config.immutable", ["wealth"]),
        "explainer.config.immutable must name",
    ),
    Invalid(
        "direction of words", _put("spec.explainer.config.direction", {"sex": "increase"}),
        "explainer.config.direction must name numeric",
    ),
    Invalid("no direction", _put("spec.explainer.config.direction", {"income": "up"}), "explainer.config.direction"),
    Invalid(
        "step of no feature", _put("spec.explainer.config.step", {"wealth": 1}), "explainer.config.step must name numeric"
    ),
    Invalid("step of nothing", _put("spec.explainer.config.step", {"income": 0}), "explainer.config.step"),
    Invalid("unknown field at the top", _put("spec.colour", "red"), 'unknown field "spec.colour"'),
    Invalid("unknown field below", _put(f"{_P}.replicas", 3), 'unknown field "spec.predictor.replicas"'),
    Invalid("mistyped field", _put(f"{_P}.minreplicas", 3), 'unknown field "spec.predictor.minreplicas"'),
    Invalid("unknown field in a list", _put(f"{_T}.data.features.0.kind", "x"), 'unknown field "spec.lifecycle.training.data.features[0].kind"'),
    Invalid("unknown governance field", _put("spec.governance.auditing", {}), 'unknown field "spec.governance.auditing"'),
    Invalid("no spec", lambda m: m.pop("spec"), "spec: Required value"),
    Invalid("name too long", _put("metadata.name", "n" * 41), "metadata.name must be a DNS label of at most 40 characters"),
    Invalid("name starts with a digit", _put("metadata.name", "1model"), "metadata.name must be a DNS label"),
    Invalid("text for a number", _put(f"{_P}.minReplicas", "two"), "spec.predictor.minReplicas in body must be of type integer"),
    Invalid("number for a text", _put(f"{_T}.data.label", 3), "spec.lifecycle.training.data.label in body must be of type string"),
    Invalid("text for a boolean", _put("spec.suspend", "yes"), "spec.suspend in body must be of type boolean"),
    Invalid("object for a list", _put(f"{_T}.data.features", {"name": "a"}), 'unknown field "spec.lifecycle.training.data.features.name"'),
    Invalid("list for an object", _put("spec.quota", []), "spec.quota in body must be of type object"),
    Invalid("fraction for an integer", _put(f"{_P}.timeout", 1.5), "spec.predictor.timeout in body must be of type integer"),
    Invalid("negative replicas", _put(f"{_P}.minReplicas", -1), "spec.predictor.minReplicas in body should be greater than or equal to 0"),
    Invalid("zero maxReplicas", _put(f"{_P}.maxReplicas", 0), "spec.predictor.maxReplicas in body should be greater than or equal to 1"),
    Invalid("min above max", _put(f"{_P}.minReplicas", 9), "minReplicas must not exceed maxReplicas"),
    Invalid("unknown scale metric", _put(f"{_P}.scaleMetric", "gpu"), 'spec.predictor.scaleMetric: Unsupported value: "gpu"'),
    Invalid("cpu target above 100 per cent", _put(f"{_P}.scaleTarget", 150), "scaleTarget is per cent for cpu and memory"),
    Invalid("scale to zero on cpu", _put(f"{_P}.minReplicas", 0), "minReplicas 0 needs scaleMetric concurrency or rps"),
    Invalid("timeout out of range", _put(f"{_P}.timeout", 100000), "spec.predictor.timeout in body should be less than or equal to 3600"),
    Invalid("wrong unit of memory", _put(f"{_P}.model.resources.limits.memory", "512MB"), "spec.predictor.model.resources.limits.memory in body should match"),
    Invalid("request above limit", _put(f"{_P}.model.resources.requests.memory", "2Gi"), "a request must not exceed its limit"),
    Invalid("two sources of the model", _both(_put(f"{_P}.model.storageUri", "file:m.onnx"), _put(f"{_P}.model.digest", "sha256:" + "0" * 64)), "exactly one of lifecycle.training, predictor.model.storageUri and predictor.model.runtime"),
    Invalid("no source of the model", _put(_T), "exactly one of lifecycle.training, predictor.model.storageUri and predictor.model.runtime"),
    Invalid("storageUri without digest", _both(_put(_T), _put(f"{_P}.model.storageUri", "file:m.onnx")), "storageUri needs digest"),
    Invalid("unsupported scheme", _put(f"{_P}.model.storageUri", "ftp://bucket/model"), "spec.predictor.model.storageUri in body should match"),
    Invalid("digest without storageUri", _put(f"{_P}.model.digest", "sha256:" + "0" * 64), "digest goes with storageUri"),
    Invalid("digest of another kind", _put(f"{_P}.model.digest", "md5:abc"), "spec.predictor.model.digest in body should match"),
    Invalid("runtime format without runtime", _put(f"{_P}.model.modelFormat.name", "runtime"), "modelFormat.name runtime and runtime go together"),
    Invalid("tables explained of a runtime", _runtime("openai", "anchors"), "explainer of predictor.model.runtime needs protocol openai, type shap or lime"),
    Invalid("explainer of a V2 runtime", _runtime("v2", "shap"), "explainer of predictor.model.runtime needs protocol openai"),
    Invalid("webhook without a scheme", _put("spec.explainer.webhooks", ["hooks.example"]), "spec.explainer.webhooks[0] in body should match"),
    Invalid("unknown toleration effect", _put(f"{_P}.tolerations.0.effect", "Never"), 'spec.predictor.tolerations[0].effect: Unsupported value: "Never"'),
    Invalid("two data sources", _put(f"{_T}.data.generator", {"name": "credit"}), "exactly one of inline, generator and uri must be set"),
    Invalid("no data source", _put(f"{_T}.data.inline"), "exactly one of inline, generator and uri must be set"),
    Invalid("unknown generator", _both(_put(f"{_T}.data.inline"), _put(f"{_T}.data.generator", {"name": "mnist"})), "spec.lifecycle.training.data.generator.name: Unsupported value"),
    Invalid("no label", _put(f"{_T}.data.label"), "spec.lifecycle.training.data.label: Required value"),
    Invalid("label among the features", _put(f"{_T}.data.label", "income"), "label must not be one of features"),
    Invalid("no features", _put(f"{_T}.data.features", []), "spec.lifecycle.training.data.features in body should have at least 1 items"),
    Invalid("feature twice", _put(f"{_T}.data.features.1.name", "sex"), "spec.lifecycle.training.data.features[1]: Duplicate value"),
    Invalid("unknown feature type", _put(f"{_T}.data.features.0.type", "image"), 'features[0].type: Unsupported value: "image"'),
    Invalid("feature name too long", _put(f"{_T}.data.features.0.name", _LONG), "spec.lifecycle.training.data.features[0].name: Too long"),
    Invalid("all rows held out", _both(_put(f"{_T}.data.testFraction", 0.7), _put(f"{_T}.data.validationFraction", 0.3)), "must leave at least a tenth for training"),
    Invalid("testFraction of one", _put(f"{_T}.data.testFraction", 1), "spec.lifecycle.training.data.testFraction in body should be less than 1"),
    Invalid("heads don't divide", _put(f"{_T}.model", {"type": "mlp", "dimension": 30, "heads": 4}), "dimension must be a multiple of heads"),
    Invalid("hidden layer of width zero", _put(f"{_T}.model.hidden", [8, 0]), "each width must be between 1 and 4096"),
    Invalid("transformer without text", _both(_put(f"{_T}.model.type", "textTransformer"), _put(f"{_T}.data.features.2.type", "categorical")), "textTransformer needs exactly one feature of type text"),
    Invalid("unknown optimiser", _put(f"{_T}.optimizer.name", "lion"), 'spec.lifecycle.training.optimizer.name: Unsupported value: "lion"'),
    Invalid("learning rate of zero", _put(f"{_T}.optimizer.learningRate", 0), "spec.lifecycle.training.optimizer.learningRate in body should be greater than 0"),
    Invalid("sparsity of one", _put("spec.lifecycle.compression.sparsity", 1), "spec.lifecycle.compression.sparsity in body should be less than 1"),
    Invalid("canary step of 100", _put("spec.lifecycle.rollout.steps", [10, 100]), "each step must be between 1 and 99 per cent"),
    Invalid("interval without unit", _put("spec.lifecycle.rollout.interval", "60"), "spec.lifecycle.rollout.interval in body should match"),
    Invalid("sampling above one", _put("spec.explainer.sampling", 2), "spec.explainer.sampling in body should be less than or equal to 1"),
    Invalid("unknown explainer", _put("spec.explainer.type", "magic"), 'spec.explainer.type: Unsupported value: "magic"'),
    Invalid("both outcome kinds", _put(f"{_B}.favorableOutcome.threshold", 0.5), "exactly one of label, threshold and pattern must be set"),
    Invalid("range of a classifier", _put(f"{_B}.favorableOutcome.range", {"min": 0, "max": 1}), "range is that of a regression's scores and needs threshold"),
    Invalid("range of generated text", _both(_generative(), _put(f"{_B}.favorableOutcome.range", {"min": 0, "max": 1})), "range is that of a regression's scores and needs threshold"),
    Invalid("range reversed", _ranged(5, 1, 3), "min must be less than max"),
    Invalid("range of one point", _ranged(3, 3, 3), "min must be less than max"),
    Invalid("half a range", _put(f"{_B}.favorableOutcome", {"threshold": 3, "range": {"min": 0}}), "spec.governance.bias.favorableOutcome.range.max: Required value"),
    Invalid("threshold beyond the range", _ranged(0, 10, 11), "threshold must lie above range.min and not above range.max"),
    Invalid("threshold that all reach", _ranged(0, 10, 0), "threshold must lie above range.min and not above range.max"),
    Invalid("range without score metrics", _ranged(0, 10, 5), "bounds metrics about scores, and metrics names none"),
    Invalid("no outcome kind", _put(f"{_B}.favorableOutcome", {}), "exactly one of label, threshold and pattern must be set"),
    Invalid("label and pattern", _both(_generative(), _put(f"{_B}.favorableOutcome.label", "yes")), "exactly one of label, threshold and pattern must be set"),
    Invalid("pattern for a trained model", _put(f"{_B}.favorableOutcome", {"pattern": "yes"}), "favorableOutcome.pattern is searched in generated text and needs predictor.model.runtime with protocol openai"),
    Invalid("bias of a V2 runtime", _both(_generative(), _put(f"{_P}.model.runtime.protocol", "v2")), "governance.bias is not supported yet for predictor.model.runtime with protocol v2"),
    Invalid("label of generated text", _both(_generative(), _put(f"{_B}.favorableOutcome", {"label": "yes"})), "generated text has no label and no threshold"),
    Invalid("threshold of generated text", _both(_generative(), _put(f"{_B}.favorableOutcome", {"threshold": 0.5})), "generated text has no label and no threshold"),
    Invalid("pattern that isn't closed", _both(_generative(), _put(f"{_B}.favorableOutcome.pattern", "(yes")), "pattern must be an RE2 expression"),
    Invalid("pattern that looks behind", _both(_generative(), _put(f"{_B}.favorableOutcome.pattern", "(?<!not )granted")), "pattern must be an RE2 expression"),
    Invalid("pattern too long", _both(_generative(), _put(f"{_B}.favorableOutcome.pattern", "y" * 513)), "spec.governance.bias.favorableOutcome.pattern: Too long"),
    Invalid("pattern of nothing", _both(_generative(), _put(f"{_B}.favorableOutcome.pattern", "")), "spec.governance.bias.favorableOutcome.pattern in body should be at least 1 chars long"),
    *(
        Invalid(f"{name} of generated text", _both(_generative(), _put(f"{_B}.metrics", [{"name": name, "thresholdUpper": 0.1}])), "metrics about scores, errors and calibration need scores, and generated text has none")
        for name in SCORED
    ),
    Invalid("attribute named prompt", _both(_generative(), _put(f"{_B}.protectedAttributes.0.name", "prompt")), "must not be named prompt or parameters"),
    Invalid("stratum named parameters", _both(_generative(), _put(f"{_B}.strata", ["parameters"])), "must not be named prompt or parameters"),
    Invalid("threshold for a classifier", _put(f"{_B}.favorableOutcome", {"threshold": 0.5}), "needs a regression"),
    Invalid("metric without bounds", _put(f"{_B}.metrics", [{"name": "disparateImpactRatio"}]), "thresholdLower or thresholdUpper must be set"),
    Invalid("bounds reversed", _put(f"{_B}.metrics.0.thresholdLower", 0.5), "thresholdLower must be less than thresholdUpper"),
    Invalid("bounds equal", _bounds("statisticalParityDifference", 0, 0), "thresholdLower must be less than thresholdUpper: no interval lies within a point"),
    Invalid("bounds above parity", _bounds("statisticalParityDifference", 0.05, 0.1), "thresholdLower must not lie above parity"),
    Invalid("bounds below parity", _bounds("statisticalParityDifference", -0.2, -0.1), "thresholdUpper must not lie below parity"),
    Invalid("only a bound above parity", _bounds("equalOpportunityDifference", 1e-9, None), "metrics[0].thresholdLower: Invalid value: thresholdLower must not lie above parity"),
    Invalid("a ratio's bounds around 0", _bounds("disparateImpactRatio", -0.1, 0.1), "thresholdUpper must not lie below parity, which is 1 for a ratio"),
    Invalid("a ratio's bounds above 1", _bounds("disparateImpactRatio", 1.01, 1.25), "thresholdLower must not lie above parity"),
    Invalid("no room above 0", _bounds("accuracyDifferenceMaxMin", None, 0), "a metric that is never below 0 needs a thresholdUpper above 0"),
    Invalid("a bound that is always met", _bounds("theilIndex", -0.1, None), "a metric that is never below 0 needs a thresholdUpper above 0"),
    Invalid("no room below 1", _bounds("impactRatio", 1, None), "a ratio that is never above 1 needs a thresholdLower below 1"),
    Invalid("percent for a share", _bounds("statisticalParityDifference", None, 10), "this metric lies between -1 and 1, and so must its bounds: write ten percent as 0.1"),
    Invalid("far out", _bounds("falsePositiveRateDifference", -1e308, 0.1), "this metric lies between -1 and 1"),
    Invalid("adjusting for nothing", _put(f"{_B}.metrics", [{"name": "adjustedStatisticalParityDifference", "thresholdLower": -0.1}]), "compare within strata: name them in strata"),
    Invalid("adjusting errors for nothing", _bounds("adjustedEqualOpportunityDifference", -0.1, None), "compare within strata: name them in strata"),
    Invalid("intersections of one attribute", _put(f"{_B}.intersections", True), "intersections needs at least two protectedAttributes"),
    Invalid("unknown action", _put(f"{_B}.action", "Panic"), 'spec.governance.bias.action: Unsupported value: "Panic"'),
    Invalid("action on an open journal", _both(_put(f"{_B}.action", "Rollback"), _put("spec.governance.audit.failurePolicy", "Open")), "a verdict must rest on all requests"),
    Invalid("unknown entity", _put("spec.governance.privacy.masking.entities", ["SHOE_SIZE"]), 'entities[0]: Unsupported value: "SHOE_SIZE"'),
    Invalid("storage class mode without a class", _put("spec.governance.encryption", {"mode": "storageClass"}), "mode storageClass needs storageClassName"),
    Invalid("rotation in months", _put("spec.governance.encryption.rotation", "3mo"), "spec.governance.encryption.rotation in body should match"),
    Invalid(
        "rotation without unit", _put("spec.governance.encryption.rotation", "90"), "spec.governance.encryption.rotation in body should match"
    ),
    Invalid(
        "retention", _put("spec.governance.privacy.retention", {"payloads": "30 days"}), "retention.payloads in body should match"
    ),
    Invalid("limit of zero", _put("spec.quota.requests.0.limit", 0), "spec.quota.requests[0].limit in body should be greater than or equal to 1"),
    Invalid("window in words", _put("spec.quota.requests.0.window", "minute"), "spec.quota.requests[0].window in body should match"),
    Invalid("unknown quota store", _put("spec.quota.store", "memcached://x"), "spec.quota.store in body should match"),
    Invalid("compute with a wrong unit", _put("spec.quota.compute.memory", "4 GB"), "spec.quota.compute.memory in body should match"),
]  # fmt: skip
