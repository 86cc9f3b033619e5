"""The typed v1alpha1 GovernedModel: the one source of CRD, validation, documentation and container configuration."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from governed_api.access import Access
from governed_api.base import Part, VerdictWord
from governed_api.conditions import Condition
from governed_api.governance import Explainer, Governance, Quota
from governed_api.lifecycle import Lifecycle
from governed_api.names import API_VERSION, KIND
from governed_api.resources import Resources, Toleration
from governed_api.rules import Rule
from governed_api.runtime import PORTS, in_words
from governed_api.storage import any_uri_pattern, form_rule, is_remote, local_rule, remote_rule
from governed_api.tensors import TensorInput, TensorOutput


class ModelFormat(Part):
    """What the artefact is."""

    name: Literal["onnx", "runtime"] = "onnx"
    """onnx: served in process; runtime: served by the foreign container in runtime."""


class Variable(Part):
    """A variable of the runtime's environment."""

    name: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
    """Its name."""
    value: str = Field(default="", max_length=4096)
    """Its value, in clear in the manifest: nothing secret."""


class Runtime(Part):
    """A foreign inference server in a container of its own, behind our gateway."""

    image: str = Field(min_length=1, max_length=512)
    """Container image."""
    command: list[str] = Field(default=[], max_length=64)
    """Entry point; empty: the image's."""
    args: list[str] = Field(default=[], max_length=64)
    """Arguments."""
    port: int = Field(default=9000, ge=1024, le=65535)
    """Port that it listens on."""
    protocol: Literal["v2", "openai"] = "v2"
    """v2: Open Inference Protocol; openai: /v1/completions and /v1/chat/completions."""
    health_path: str = Field(default="/health", pattern=r"^/.*$", max_length=256)
    """Answers 200 when the runtime can serve."""
    model: str = Field(default="", max_length=253)
    """Model name inside the runtime; empty: the resource's name."""
    env: list[Variable] = Field(default=[], max_length=64, json_schema_extra={"x-list-map-key": "name"})
    """Its environment beside the image's."""
    shared_memory: str | None = Field(default=None, pattern=r"^[1-9][0-9]*(Mi|Gi)$")
    """Of a memory volume at /dev/shm, for processes that share tensors; counts toward limits.memory."""
    resources: Resources | None = None
    """Of its container, accelerators included; absent: predictor.model.resources, which the server then shares in cpu
    and memory alone."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!(self.port in {list(PORTS)})",
            f"ports {in_words(PORTS)} belong to the governed containers",
            ".port",
        ),
    )


class SecretName(Part):
    """A Secret of the model's namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    """Its name."""


class CaKey(SecretName):
    """Certificates in a Secret of the model's namespace."""

    key: str = Field(default="ca.crt", min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
    """Key within it: PEM."""


class WantedFile(Part):
    """A file of what storageUri names."""

    path: str = Field(min_length=1, max_length=1024)
    """Its name, or a pattern with * and ?."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Of this very file, so that one that differs is named."""


class Storage(Part):
    """How files behind a storageUri of a network are fetched."""

    secret_ref: SecretName | None = None
    """Credentials, mounted into the importer Job alone. Keys by scheme: s3 access-key-id, secret-access-key; gs
    service-account.json; az account-name, account-key; hf token; https token, or username and password; oci username
    and password."""
    endpoint: str | None = Field(default=None, max_length=512, pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")
    """Of one's own object storage, hub or registry; http for names of the cluster alone."""
    region: str | None = Field(default=None, max_length=64, pattern=r"^[-a-z0-9]+$")
    """Of object storage."""
    ca_secret_ref: CaKey | None = None
    """Certificates to trust beside the usual ones."""
    files: list[WantedFile] = Field(default=[], max_length=256, json_schema_extra={"x-list-map-key": "path"})
    """Which files are taken; all of them by default."""


class Model(Part):
    """Which model."""

    model_format: ModelFormat = ModelFormat()
    """Format."""
    storage_uri: str | None = Field(default=None, max_length=2048, pattern=any_uri_pattern())
    """file:PATH (local runs), pvc://CLAIM/PATH, https://HOST/PATH, s3://, gs:// or az://BUCKET/KEY,
    hf://ORG/NAME@REVISION[/FILE] or oci://REGISTRY/REPOSITORY:TAG of an ONNX file or an artefact folder; absent:
    lifecycle.training makes the model. With a runtime: file: or pvc:// of its weights, which it finds at /mnt/models
    (that file, or that folder), read-only, once each pod has checked their digest."""
    storage: Storage | None = None
    """How a storageUri of a network is reached."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What `governed pin` prints for storageUri: SHA-256 of a file, or the digest over a folder's files; the model
    doesn't serve when it differs."""
    volume_size: str | None = Field(default=None, pattern=r"^[1-9][0-9]*(Mi|Gi)$")
    """Of the memory volume that holds the model's files in each pod and while they are fetched, where they are more
    than 1Gi; `governed init` takes it from the file."""
    inputs: list[TensorInput] | None = Field(default=None, max_length=256, json_schema_extra={"x-list-map-key": "name"})
    """Inputs of the ONNX file at storageUri, where more is to be said than the graph says; `governed inspect` suggests
    them."""
    outputs: list[TensorOutput] | None = Field(
        default=None, max_length=256, json_schema_extra={"x-list-map-key": "name"}
    )
    """Likewise its outputs."""
    runtime: Runtime | None = None
    """A foreign runtime."""
    resources: Resources = Resources()
    """Of the server's container."""

    @property
    def room(self) -> str:
        """``volume_size``, or what it is without."""
        return self.volume_size or "1Gi"

    @property
    def is_fetched(self) -> bool:
        """An importer Job fetches it over the network and puts its artefact into the archive."""
        return is_remote(self.storage_uri)

    @property
    def is_mounted(self) -> bool:
        """Each pod reads it from a volume or, in a local run, a folder."""
        return bool(self.storage_uri) and not self.is_fetched

    RULES: ClassVar[tuple[Rule, ...]] = (
        form_rule("storageUri"),
        remote_rule("storage", "storageUri", "storage goes with a storageUri that is fetched over the network"),
        Rule(
            "!has(self.storageUri) || has(self.digest)",
            "storageUri needs digest: what serves must be verifiable",
            ".digest",
        ),
        Rule("!has(self.digest) || has(self.storageUri)", "digest goes with storageUri", ".digest"),
        Rule(
            "(!has(self.inputs) && !has(self.outputs)) || (has(self.storageUri) && !has(self.runtime))",
            "inputs and outputs describe the ONNX file at storageUri: trained models and runtimes describe themselves",
            ".inputs",
        ),
        local_rule(
            "storageUri",
            "runtime",
            "a runtime reads its weights from a volume: put them on a PersistentVolumeClaim of the namespace and name "
            "pvc://CLAIM/PATH",
        ),
        Rule(
            "!has(self.volumeSize) || !has(self.runtime)",
            "volumeSize is of a model that is served in process: a runtime brings its own volume",
            ".volumeSize",
        ),
        Rule(
            "(self.modelFormat.name == 'runtime') == has(self.runtime)",
            "modelFormat.name runtime and runtime go together",
            ".runtime",
        ),
    )


class Predictor(Part):
    """The service."""

    model: Model = Model()
    """Which model."""
    min_replicas: int = Field(default=1, ge=0, le=1000)
    """Fewest replicas; 0 needs KEDA and an installation that can wake a model (chart value activationQuery)."""
    max_replicas: int = Field(default=1, ge=1, le=1000)
    """Most replicas."""
    scale_metric: Literal["cpu", "memory", "concurrency", "rps"] = "cpu"
    """What autoscaling looks at; concurrency and rps need KEDA, or a metrics adapter that serves
    governed_requests_in_flight and governed_requests_per_second."""
    scale_target: int = Field(default=80, ge=1, le=1_000_000)
    """Per cent of the request (cpu, memory), or the value per replica (concurrency, rps)."""
    container_concurrency: int = Field(default=0, ge=0, le=10000)
    """Requests computed at a time in one replica; the rest wait; 0: no bound of its own."""
    timeout: int = Field(default=60, ge=1, le=3600)
    """Seconds until a request is given up (504)."""
    node_selector: dict[str, str] = Field(default={}, max_length=32)
    """Passed on to pods."""
    tolerations: list[Toleration] = Field(default=[], max_length=32)
    """Passed on to pods."""
    priority_class_name: str | None = Field(default=None, max_length=253)
    """Passed on to pods."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.minReplicas <= self.maxReplicas", "minReplicas must not exceed maxReplicas", ".minReplicas"),
        Rule(
            "!(self.scaleMetric in ['cpu', 'memory']) || self.scaleTarget <= 100",
            "scaleTarget is per cent for cpu and memory: at most 100",
            ".scaleTarget",
        ),
        Rule(
            "self.minReplicas > 0 || self.scaleMetric in ['concurrency', 'rps']",
            "minReplicas 0 needs scaleMetric concurrency or rps",
            ".minReplicas",
        ),
    )


class GovernedModelSpec(Part):
    """What a model is, and which rules it serves under."""

    predictor: Predictor = Predictor()
    """The service."""
    lifecycle: Lifecycle = Lifecycle()
    """How the model comes to be and how it is replaced."""
    explainer: Explainer | None = None
    """Absent: /explain answers 404."""
    governance: Governance = Governance()
    """Rules."""
    quota: Quota = Quota()
    """What it may consume."""
    access: Access | None = None
    """Who may call it; absent: as authentication "Off"."""
    suspend: bool = False
    """True: nothing runs; volumes, keys and ledger stay."""

    @property
    def authenticates(self) -> bool:
        """Every caller must say who they are."""
        return self.access is not None and self.access.required

    @property
    def generates(self) -> bool:
        """It answers with text that it writes."""
        runtime = self.predictor.model.runtime
        return runtime is not None and runtime.protocol == "openai"

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.lifecycle) && has(self.lifecycle.training)) != "
            "(has(self.predictor) && has(self.predictor.model) && "
            "(has(self.predictor.model.storageUri) || has(self.predictor.model.runtime)))",
            "exactly one of lifecycle.training, predictor.model.storageUri and predictor.model.runtime must say where the model comes from; "  # noqa: E501
            "storageUri beside runtime names the runtime's weights",
        ),
        Rule(
            "has(oldSelf.governance.encryption.keyRef) == has(self.governance.encryption.keyRef) && "
            "(!has(self.governance.encryption.keyRef) || oldSelf.governance.encryption.keyRef == self.governance.encryption.keyRef)",  # noqa: E501
            "governance.encryption.keyRef is immutable: rotate keysets instead, or make a new model",
        ),
        Rule(
            "!has(self.governance.privacy.subject) || (!has(self.explainer) && "
            "!(has(self.predictor.model.runtime) && self.predictor.model.runtime.protocol == 'openai'))",
            "governance.privacy.subject is not supported yet with explainer (explanations hold the row) or a "
            "predictor.model.runtime with protocol openai (a conversation names no person)",
        ),
        Rule(
            "!has(self.governance.privacy.subject) || !has(self.lifecycle.training) || "
            "self.lifecycle.training.data.features.exists(f, f.name == self.governance.privacy.subject)",
            "governance.privacy.subject must be a feature of lifecycle.training.data.features",
        ),
        Rule(
            "!has(self.lifecycle.training) || self.lifecycle.training.mitigation.method == 'none' || "
            "(has(self.governance.bias) && has(self.governance.bias.favorableOutcome.label))",
            "lifecycle.training.mitigation.method reweighing, reductions and thresholds need governance.bias with "
            "favorableOutcome.label: they say between whom decisions are to be alike, and which decision; declare "
            "them, or set method none",
        ),
        Rule(
            "!has(self.lifecycle.training) || self.lifecycle.training.mitigation.method != 'thresholds' || "
            "self.lifecycle.training.loss.name != 'mse'",
            "lifecycle.training.mitigation.method thresholds decides between two classes: a regression "
            "(loss.name mse) has none; give it a label with two classes, or set method none",
        ),
        Rule(
            "!has(self.lifecycle.training) || self.lifecycle.training.mitigation.method != 'thresholds' || "
            "!has(self.lifecycle.training.conformal)",
            "lifecycle.training.mitigation.method thresholds doesn't go with conformal: a drawn label needn't be "
            "in the set of likely ones; leave one of them out",
        ),
        Rule(
            "!has(self.lifecycle.training) || self.lifecycle.training.mitigation.method != 'thresholds' || "
            "!has(self.governance.bias) || self.governance.bias.protectedAttributes.all(a, "
            "(has(self.lifecycle.training.mitigation.thresholds) && has(self.lifecycle.training.mitigation.thresholds.attributes) && self.lifecycle.training.mitigation.thresholds.attributes.size() > 0 && !(a.name in self.lifecycle.training.mitigation.thresholds.attributes)) || "  # noqa: E501
            "self.lifecycle.training.data.features.exists(f, f.name == a.name && f.type != 'text'))",
            "lifecycle.training.mitigation.method thresholds needs each of governance.bias.protectedAttributes (or of thresholds.attributes) as a numeric or categorical feature of "  # noqa: E501
            "lifecycle.training.data.features: a row's group is told by its own features; add the features, or name "
            "others in thresholds.attributes",
        ),
        Rule(
            "!has(self.lifecycle.training) || !has(self.lifecycle.training.mitigation.thresholds) || !has(self.lifecycle.training.mitigation.thresholds.attributes) || "  # noqa: E501
            "self.lifecycle.training.mitigation.thresholds.attributes.all(n, has(self.governance.bias) && "
            "self.governance.bias.protectedAttributes.exists(a, a.name == n))",
            "lifecycle.training.mitigation.thresholds.attributes must name governance.bias.protectedAttributes",
        ),
        Rule(
            "!has(self.lifecycle.training) || !has(self.lifecycle.training.mitigation.thresholds) || !has(self.lifecycle.training.mitigation.thresholds.subject) || "  # noqa: E501
            "(self.lifecycle.training.data.features.exists(f, f.name == self.lifecycle.training.mitigation.thresholds.subject && f.type == 'categorical') && "  # noqa: E501
            "self.lifecycle.training.data.features.size() > 1 && "
            "!(has(self.governance.bias) && (self.governance.bias.protectedAttributes.exists(a, a.name == self.lifecycle.training.mitigation.thresholds.subject) || "  # noqa: E501
            "(has(self.governance.bias.strata) && self.lifecycle.training.mitigation.thresholds.subject in self.governance.bias.strata))))",  # noqa: E501
            "lifecycle.training.mitigation.thresholds.subject must be a categorical feature of lifecycle.training.data.features, neither a protected attribute nor a stratum, and not the only one: "  # noqa: E501
            "it says whom a decision is about, and the network doesn't see it",
        ),
        Rule(
            "!has(self.lifecycle.training) || !has(self.lifecycle.training.mitigation.thresholds) || !has(self.lifecycle.training.mitigation.thresholds.subject) || "  # noqa: E501
            "!has(self.governance.privacy.masking) || !has(self.governance.privacy.masking.fields) || "
            "!(self.lifecycle.training.mitigation.thresholds.subject in self.governance.privacy.masking.fields)",
            "lifecycle.training.mitigation.thresholds.subject must not be masked (governance.privacy.masking.fields): "
            "people whose values are masked alike would share their draws",
        ),
        Rule(
            "!has(self.lifecycle.training) || !has(self.lifecycle.training.conformal) || "
            "!has(self.lifecycle.training.conformal.groupConditional) || !self.lifecycle.training.conformal.groupConditional || "  # noqa: E501
            "(has(self.governance.bias) && self.governance.bias.protectedAttributes.all(a, "
            "self.lifecycle.training.data.features.exists(f, f.name == a.name && f.type != 'text')))",
            "lifecycle.training.conformal.groupConditional needs governance.bias, and each of its protectedAttributes as a numeric or categorical feature of lifecycle.training.data.features: "  # noqa: E501
            "a row's thresholds are told by its own features; add the features or leave groupConditional out",
        ),
        Rule(
            "!has(self.governance.bias) || !has(self.governance.bias.favorableOutcome.threshold) || !has(self.lifecycle.training) || "  # noqa: E501
            "self.lifecycle.training.loss.name == 'mse'",
            "governance.bias.favorableOutcome.threshold needs a regression (lifecycle.training.loss.name mse): a classifier needs label",  # noqa: E501
        ),
        Rule(
            "!has(self.explainer) || !has(self.predictor.model.runtime) || "
            "(self.predictor.model.runtime.protocol == 'openai' && self.explainer.type in ['shap', 'lime'] && self.explainer.config.groups.size() == 0)",  # noqa: E501
            "explainer of predictor.model.runtime needs protocol openai, type shap or lime, and no config.groups: the words of a prompt are explained",  # noqa: E501
        ),
        Rule(
            "!has(self.explainer) || !has(self.explainer.config.hierarchy) || self.explainer.config.hierarchy.size() == 0 || "  # noqa: E501
            "(self.explainer.type == 'shap' && !has(self.explainer.engine) && !has(self.predictor.model.runtime))",
            "explainer.config.hierarchy needs type shap, without engine and predictor.model.runtime: only our own "
            "Shapley values of a table have it",
        ),
        Rule(
            "!has(self.explainer) || !has(self.lifecycle.training) || !has(self.explainer.config.hierarchy) || "
            "self.explainer.config.hierarchy.all(g, "
            "!self.lifecycle.training.data.features.exists(f, f.name == g) && "
            "self.explainer.config.hierarchy[g].all(m, m in self.explainer.config.hierarchy || "
            "self.lifecycle.training.data.features.exists(f, f.name == m)))",
            "explainer.config.hierarchy must have groups of lifecycle.training.data.features or of its own groups, "
            "none with the name of a feature",
        ),
        Rule(
            "!has(self.explainer) || !has(self.lifecycle.training) || !has(self.explainer.config.immutable) || "
            "self.explainer.config.immutable.all(n, "
            "self.lifecycle.training.data.features.exists(f, f.name == n))",
            "explainer.config.immutable must name lifecycle.training.data.features",
        ),
        Rule(
            "!has(self.explainer) || !has(self.lifecycle.training) || !has(self.explainer.config.direction) || "
            "self.explainer.config.direction.all(n, self.lifecycle.training.data.features.exists(f, f.name == n && "
            "(!has(f.type) || f.type == 'numeric')))",
            "explainer.config.direction must name numeric lifecycle.training.data.features",
        ),
        Rule(
            "!has(self.explainer) || !has(self.lifecycle.training) || !has(self.explainer.config.step) || "
            "self.explainer.config.step.all(n, self.lifecycle.training.data.features.exists(f, f.name == n && "
            "(!has(f.type) || f.type == 'numeric')))",
            "explainer.config.step must name numeric lifecycle.training.data.features",
        ),
        Rule(
            "!has(self.explainer) || !has(self.explainer.background) || "
            "(has(self.predictor.model.storageUri) && !has(self.predictor.model.runtime))",
            "explainer.background goes with predictor.model.storageUri: a trained model's artefact has its own rows",
        ),
        Rule(
            "!has(self.explainer) || has(self.explainer.background) || !has(self.predictor.model.storageUri) || "
            "has(self.predictor.model.runtime) || "
            "!(self.predictor.model.storageUri.matches('(?i)[.]onnx$') || has(self.predictor.model.inputs) || "
            "has(self.predictor.model.outputs))",
            "explainer of an ONNX file needs explainer.background, rows that explanations compare with: name a CSV "
            "file of training rows (uri, digest) or give some (inline); an artefact folder has its own",
        ),
        Rule(
            "!has(self.explainer) || !has(self.predictor.model.inputs) || "
            "self.predictor.model.inputs.all(i, !has(i.role) || i.role == 'tabular')",
            "explainer needs a table: inputs of predictor.model.inputs with role tokens, image, audio or state are not "
            "explained yet; leave explainer out, or serve features",
        ),
        Rule(
            "!has(self.explainer) || !has(self.explainer.engine) || !has(self.predictor.model.runtime)",
            "explainer.engine needs a model with background rows, not predictor.model.runtime",
        ),
        Rule(
            "!has(self.explainer) || !has(self.explainer.engine) || self.explainer.engine != 'captum' || "
            "has(self.lifecycle.training)",
            "explainer.engine captum takes gradients of a network trained here (lifecycle.training); imports "
            "(trees) have none: leave engine out (type shap), or take engine alibi",
        ),
        Rule(
            "!has(self.explainer) || !has(self.explainer.engine) || self.explainer.engine != 'captum' || "
            "!has(self.lifecycle.compression) || !has(self.lifecycle.compression.method) || "
            "!(self.lifecycle.compression.method in ['dynamicInt8', 'staticInt8'])",
            "explainer.engine captum needs floating-point weights: lifecycle.compression.method dynamicInt8 and "
            "staticInt8 round, which has no gradient; take magnitudePruning or none, or leave engine out",
        ),
        Rule(
            "!has(self.explainer) || !has(self.explainer.engine) || self.explainer.engine != 'captum' || "
            "!has(self.lifecycle.training) || self.lifecycle.training.mitigation.method != 'thresholds'",
            "explainer.engine captum doesn't go with lifecycle.training.mitigation.method thresholds: what is answered "
            "is the chance of a draw, which steps at each threshold and has no gradient; leave engine out, or take "
            "another method of mitigation",
        ),
        Rule(
            "!has(self.governance.bias) || !has(self.predictor.model.runtime) || self.predictor.model.runtime.protocol == 'openai'",  # noqa: E501
            "governance.bias is not supported yet for predictor.model.runtime with protocol v2",
        ),
        Rule(
            "!has(self.governance.bias) || !has(self.predictor.model.runtime) || self.predictor.model.runtime.protocol != 'openai' || "  # noqa: E501
            "has(self.governance.bias.favorableOutcome.pattern)",
            "governance.bias.favorableOutcome of a predictor.model.runtime with protocol openai needs pattern: "
            "generated text has no label and no threshold",
        ),
        Rule(
            "!has(self.governance.bias) || !has(self.governance.bias.favorableOutcome.pattern) || "
            "(has(self.predictor.model.runtime) && self.predictor.model.runtime.protocol == 'openai')",
            "governance.bias.favorableOutcome.pattern is searched in generated text and needs predictor.model.runtime with protocol openai: "  # noqa: E501
            "name a label or a threshold instead",
        ),
        Rule(
            "!has(self.governance.labelling) || "
            "(has(self.predictor.model.runtime) && self.predictor.model.runtime.protocol == 'openai')",
            "governance.labelling is of generated text and needs predictor.model.runtime with protocol openai: this "
            "model answers with classes, numbers or tensors; leave labelling out",
        ),
        Rule(
            "self.governance.audit.failurePolicy == 'Closed' || !has(self.governance.bias) || self.governance.bias.action == 'Alert'",  # noqa: E501
            "governance.bias.action BlockPromotion and Rollback need governance.audit.failurePolicy Closed: a verdict must rest on all requests",  # noqa: E501
        ),
    )


class ArtefactStatus(Part):
    """What serves."""

    digest: str
    """sha256:… of the artefact."""
    blob: str = ""
    """Address in the archive."""
    variant: str = ""
    """float, int8 or pruned."""


class BiasStatus(Part):
    """The last verdict in brief."""

    verdict: VerdictWord
    """Pass, Fail or Unknown (below minSamples)."""
    summary: str = ""
    """Worst metric with its interval."""
    samples: int = 0
    """Predictions folded."""
    ledger_index: int | None = None
    """Entry that proves it."""


class LedgerStatus(Part):
    """The last checkpoint seen."""

    size: int
    """Entries."""
    root_hash: str
    """Base64 SHA-256."""
    checkpoint: str
    """C2SP signed note."""


class RevisionStatus(Part):
    """A revision and its share of traffic."""

    name: str
    """Hash over artefact and rules."""
    artefact: str = ""
    """Artefact digest."""
    percent: int = Field(ge=0, le=100)
    """Share of traffic."""
    since: str = ""
    """RFC 3339."""


class GovernedModelStatus(Part):
    """What is."""

    model_config = Part.model_config | {"extra": "ignore"}

    observed_generation: int | None = None
    """Generation that this status speaks of."""
    conditions: list[Condition] = Field(default=[], json_schema_extra={"x-list-map-key": "type"})
    """metav1.Conditions."""
    url: str | None = None
    """Address inside the cluster."""
    replicas: int | None = None
    """Serving pods."""
    selector: str | None = None
    """Label selector of serving pods, for the scale subresource."""
    bias: BiasStatus | None = None
    """Last verdict."""
    artefact: ArtefactStatus | None = None
    """What serves."""
    ledger: LedgerStatus | None = None
    """Last checkpoint."""
    stable: RevisionStatus | None = None
    """Revision with the traffic."""
    canary: RevisionStatus | None = None
    """Revision on trial."""
    rejected: str | None = None
    """Revision that failed its trial, and is not tried again."""


class GovernedModel(Part):
    """The resource."""

    api_version: Literal["governedmodels.io/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["GovernedModel"] = KIND  # type: ignore[assignment]
    metadata: dict[str, Any]
    spec: GovernedModelSpec
    status: GovernedModelStatus | None = None

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", "default"))

    @property
    def labels(self) -> dict[str, str]:
        return {str(name): str(value) for name, value in (self.metadata.get("labels") or {}).items()}
