"""spec.lifecycle: data → training → compression F(θ) → optimisation G(θ) → gates → rollout."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from governed_api.base import Part
from governed_api.quantities import Duration
from governed_api.resources import Resources
from governed_api.rules import Rule
from governed_api.storage import uri_pattern


class Feature(Part):
    """A column that clients send, raw."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
    """Column name in the data and input name of the service."""
    type: Literal["numeric", "categorical", "text"] = "numeric"
    """How the trainer reads it."""


class Generator(Part):
    """A documented, seeded data generator that ships with the trainer image."""

    name: Literal["credit", "reviews"]
    """credit: loan applications with a planted disparity and personal data in two text fields; reviews: short labelled
    texts."""
    rows: int = Field(default=20000, ge=100, le=10_000_000)
    """Number of rows."""
    seed: int = Field(default=7, ge=0, le=2**31 - 1)
    """Seed of the generator."""


class Data(Part):
    """The training data: exactly one of inline, generator and uri."""

    inline: str | None = Field(default=None, max_length=65536)
    """CSV text with a header line, for small tables (at most 65,536 characters; more goes on a volume, by uri). Whoever
    may read this resource reads it; the trainer gets it from a Secret."""
    generator: Generator | None = None
    """A seeded generator."""
    uri: str | None = Field(default=None, max_length=2048, pattern=uri_pattern(r"\.(csv|csv\.gz)"))
    """file:path.csv (local runs), or pvc://claim/path.csv."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Expected SHA-256 of the CSV bytes; training refuses other data."""
    count_column: str | None = Field(default=None, min_length=1, max_length=63)
    """Column of the CSV that says how often its row occurs."""
    label: str = Field(min_length=1, max_length=63)
    """Column to predict."""
    features: list[Feature] = Field(min_length=1, max_length=512, json_schema_extra={"x-list-map-key": "name"})
    """Columns that the model reads."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of rows held out for evaluation and gates."""
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of rows for early stopping."""
    source: str = Field(default="", max_length=1024)
    """Where the data comes from, in words; kept in the data-set manifest."""
    licence: str = Field(default="", max_length=256)
    """Licence of the data; kept in the data-set manifest."""
    consent_basis: str = Field(default="", max_length=256)
    """Legal basis for personal data in it; kept in the data-set manifest."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.inline), has(self.generator), has(self.uri)].filter(x, x).size() == 1",
            "exactly one of inline, generator and uri must be set",
        ),
        Rule(
            "!has(self.countColumn) || !has(self.generator)",
            "countColumn goes with inline or uri, not with generator",
            ".countColumn",
        ),
        Rule(
            "!has(self.digest) || !has(self.generator)", "digest goes with inline or uri, not with generator", ".digest"
        ),
        Rule(
            "double(self.testFraction) + double(self.validationFraction) < 0.9",
            "testFraction + validationFraction must leave at least a tenth for training",
        ),
        Rule("self.features.all(f, f.name != self.label)", "label must not be one of features", ".label"),
    )


class Preprocess(Part):
    """Fitted on the training split and exported inside the ONNX graph, so that clients send raw features."""

    numeric: Literal["standardize", "minmax", "none"] = "standardize"
    """Scaling of numeric features."""
    max_categories: int = Field(default=64, ge=2, le=10000)
    """Most frequent categories that get a code of their own; the rest share one."""
    max_tokens: int = Field(default=64, ge=4, le=512)
    """Tokens read of a text."""
    vocabulary: int = Field(default=8192, ge=16, le=100000)
    """Most frequent tokens that get a code of their own."""


class Architecture(Part):
    """The network."""

    type: Literal["linear", "mlp", "textTransformer"] = "mlp"
    """linear: logistic or linear regression; mlp: hidden layers; textTransformer: small encoder over one text
    feature."""
    hidden: list[int] = Field(default=[64, 32], min_length=1, max_length=8)
    """Widths of the hidden layers (mlp)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability while training."""
    dimension: int = Field(default=64, ge=8, le=1024)
    """Embedding width (textTransformer)."""
    layers: int = Field(default=2, ge=1, le=12)
    """Encoder layers (textTransformer)."""
    heads: int = Field(default=4, ge=1, le=16)
    """Attention heads (textTransformer)."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.dimension % self.heads == 0", "dimension must be a multiple of heads", ".dimension"),
        Rule("self.hidden.all(h, h >= 1 && h <= 4096)", "each width must be between 1 and 4096", ".hidden"),
    )


class Loss(Part):
    """The loss."""

    name: Literal["crossEntropy", "weightedCrossEntropy", "focal", "mse"] = "crossEntropy"
    """weightedCrossEntropy weighs classes by inverse frequency; mse trains a regression."""
    gamma: float = Field(default=2.0, ge=0, le=10)
    """Focusing parameter (focal)."""


class Optimizer(Part):
    """The optimiser."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    """Update rule."""
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """L2 or decoupled weight decay."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum (sgd)."""


class Schedule(Part):
    """How the learning rate goes."""

    name: Literal["constant", "step", "cosine", "linear"] = "constant"
    """Shape after the warm-up."""
    warmup_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of all steps that ramps up from zero."""
    step_epochs: int = Field(default=10, ge=1)
    """Epochs between drops (step)."""
    gamma: float = Field(default=0.1, gt=0, lt=1)
    """Factor of a drop (step)."""


class EarlyStopping(Part):
    """Stop when the validation loss no longer falls."""

    patience: int = Field(default=5, ge=1)
    """Epochs without improvement."""
    min_delta: float = Field(default=0.0, ge=0)
    """Least improvement that counts."""


class Loop(Part):
    """The training loop."""

    epochs: int = Field(default=20, ge=1, le=10000)
    """Most epochs."""
    batch_size: int = Field(default=256, ge=1, le=1_000_000)
    """Rows per step."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of splits, initialisation and shuffling: same manifest, same model digest."""
    checkpoint_epochs: int = Field(default=5, ge=1)
    """Epochs between checkpoints; a killed Job resumes from the last."""
    early_stopping: EarlyStopping | None = None
    """Absent: all epochs run."""


class Reductions(Part):
    """What the reductions approach is to reach (Agarwal et al. 2018)."""

    constraint: Literal["demographicParity", "equalizedOdds"] = "demographicParity"
    """demographicParity: each group is favoured about as often as all; equalizedOdds: so among those who deserve it,
    and among those who don't."""
    max_disparity: float = Field(default=0.02, gt=0, le=0.5)
    """Most that a group's rate may differ from that of all, on training and validation rows."""
    iterations: int = Field(default=8, ge=1, le=50)
    """Most networks trained beside the unmitigated one. The first within maxDisparity ships, else the nearest."""


class Thresholds(Part):
    """Thresholds by group on the score of the trained model, with a drawn decision between two of them (Hardt, Price &
    Srebro 2016)."""

    constraint: Literal["demographicParity", "equalOpportunity", "equalizedOdds"] = "demographicParity"
    """demographicParity: each group is favoured as often; equalOpportunity: so among those who deserve it;
    equalizedOdds: so among those who deserve it, and among those who don't."""
    objective: Literal["accuracy", "balancedAccuracy"] = "accuracy"
    """What is greatest within the constraint."""
    attributes: list[Annotated[str, Field(min_length=1, max_length=63)]] = Field(default=[], max_length=3)
    """Of governance.bias.protectedAttributes, those whose groups have thresholds; of several, each intersection of
    their groups. Empty: all of them."""
    subject: str | None = Field(default=None, min_length=1, max_length=63)
    """Categorical feature that says whom a decision is about, such as an account's number. The network doesn't see it,
    and a drawn decision depends on it alone, so that who asks again with another row can't draw again. Absent: the draw
    depends on all of the row."""
    share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training rows, drawn by loop.seed, that thresholds are fitted on and the network isn't."""
    min_group_rows: int = Field(default=100, ge=10, le=1_000_000)
    """Such rows that a group needs for thresholds of its own (equalOpportunity: with a favourable label; equalizedOdds:
    of each label). Smaller groups, unseen and missing values keep the model's own threshold, and every answer says
    so."""


class Mitigation(Part):
    """Bias mitigation, never applied unless asked for; its effect is measured and recorded, and every answer says that
    it was applied."""

    method: Literal["none", "reweighing", "reductions", "thresholds"] = "none"
    """reweighing: weights that make label and protected attributes independent in training (Kamiran & Calders 2012).
    reductions: weights and labels that lead to a fairness constraint (Agarwal et al. 2018). thresholds: randomised
    thresholds by group after training (Hardt, Price & Srebro 2016); treating groups by different thresholds is
    unlawful disparate treatment in some jurisdictions."""
    reductions: Reductions | None = None
    """Of method reductions; absent: its defaults."""
    thresholds: Thresholds | None = None
    """Of method thresholds; absent: its defaults."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.thresholds) || self.method == 'thresholds'",
            "thresholds needs method thresholds: set it, or leave thresholds out",
            ".thresholds",
        ),
        Rule(
            "!has(self.reductions) || self.method == 'reductions'",
            "reductions needs method reductions: set it, or leave reductions out",
            ".reductions",
        ),
    )


class Conformal(Part):
    """Split conformal prediction: a further output that holds the truth with a promised chance."""

    coverage: float = Field(default=0.9, ge=0.5, le=0.999)
    """Least chance that the set of classes (the interval of a regression) holds the truth of a new row that is drawn as
    the calibration rows were."""
    group_conditional: bool = False
    """The promise holds for each group of each of governance.bias.protectedAttributes: with a threshold for each group,
    which the row's own features tell. Whether groups may be treated by different thresholds is a question of law."""
    min_group_rows: int = Field(default=100, ge=10, le=1_000_000)
    """Calibration rows that a group needs for a threshold of its own; smaller ones, unseen and missing values share
    one, and where together they are too few for any, their set is everything."""
    share: float = Field(default=0.2, gt=0, lt=1)
    """Of the training rows, for calibration alone: nothing is fitted on them or chosen by them."""


class Training(Part):
    """How the model comes to be: a Job."""

    data: Data
    """What it learns from."""
    preprocess: Preprocess = Preprocess()
    """Raw columns → numbers."""
    model: Architecture = Architecture()
    """Network."""
    loss: Loss = Loss()
    """Loss."""
    optimizer: Optimizer = Optimizer()
    """Optimiser."""
    schedule: Schedule = Schedule()
    """Learning-rate schedule."""
    loop: Loop = Loop()
    """Loop."""
    mitigation: Mitigation = Mitigation()
    """Bias mitigation."""
    conformal: Conformal | None = None
    """Sets of classes with a promised coverage as output prediction_set (BOOL, a column per class as in
    probabilities); of a regression intervals, prediction_interval (FP32, lower and upper end). Absent: none."""
    resources: Resources = Resources()
    """Of the Job's container."""
    queue_name: str | None = Field(default=None, max_length=63)
    """Kueue LocalQueue; passed on as kueue.x-k8s.io/queue-name."""
    volume_size: str = Field(default="1Gi", pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")
    """Size of the encrypted data volume."""
    active_deadline: Duration = "6h"
    """The Job fails after this long."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.model.type != 'textTransformer' || self.data.features.filter(f, f.type == 'text').size() == 1",
            "textTransformer needs exactly one feature of type text",
        ),
    )


class Compression(Part):
    """F(θ): what makes the model smaller. It ships only if the gates pass."""

    method: Literal["none", "dynamicInt8", "staticInt8", "magnitudePruning"] = "none"
    """dynamicInt8: int8 with an activation scale per row; staticInt8: ONNX Runtime quantisation; magnitudePruning:
    smallest weights to zero."""
    sparsity: float = Field(default=0.5, gt=0, lt=1)
    """Share of weights pruned (magnitudePruning)."""
    calibration_rows: int = Field(default=256, ge=8, le=100000)
    """Training rows for calibration (staticInt8)."""


class Optimization(Part):
    """G(θ): graph optimisation for the target."""

    level: Literal["none", "basic", "extended", "all"] = "all"
    """ONNX Runtime graph optimisation level."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads of one inference (intra-op)."""


class Gates(Part):
    """Budgets: the compressed model ships only inside all of them, otherwise the uncompressed one does. Without a
    budget of its own, rowIndependence: no held-out row's answer may depend on the rows beside it, but for rounding."""

    min_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Least accuracy on held-out rows of whatever ships; below it training fails."""
    max_accuracy_drop: float = Field(default=0.01, ge=0, le=1)
    """Most accuracy that compression may cost."""
    max_disparity_increase: float = Field(default=0.02, ge=0, le=1)
    """Most that compression may move any group's statistical parity difference farther from 0, on either side; groups
    with fewer than 30 held-out rows or 2 % are named, not judged."""
    min_explanation_correlation: float = Field(default=0.9, ge=-1, le=1)
    """Least Spearman rank correlation between global importances before and after."""
    max_latency_ratio: float = Field(default=1.0, gt=0, le=100)
    """Most compressed/uncompressed latency, measured on the node."""


class Rollout(Part):
    """How a new revision takes over."""

    strategy: Literal["RollingUpdate", "Canary"] = "RollingUpdate"
    """RollingUpdate: ready before the old goes; Canary: by shares, gated."""
    steps: list[int] = Field(default=[10, 50], min_length=1, max_length=10)
    """Per cent of traffic at each canary step, rising, below 100."""
    interval: Duration = "5m"
    """Least time at a step."""
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    """Canary fails above this share of failed requests."""
    max_latency_ratio: float = Field(default=1.5, gt=0, le=100)
    """Canary fails when its median latency is above this multiple of the stable revision's."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.steps.all(s, s >= 1 && s <= 99)", "each step must be between 1 and 99 per cent", ".steps"),
        Rule(
            "[1, 2, 3, 4, 5, 6, 7, 8, 9].all(i, i >= size(self.steps) || self.steps[i - 1] < self.steps[i])",
            "steps must rise, each above the one before it",
            ".steps",
        ),
    )


class Lifecycle(Part):
    """Data → training → compression → optimisation → gates → rollout."""

    training: Training | None = None
    """Absent: the model comes from predictor.model.storageUri."""
    compression: Compression = Compression()
    """F(θ)."""
    optimization: Optimization = Optimization()
    """G(θ)."""
    gates: Gates = Gates()
    """What decides what ships."""
    rollout: Rollout = Rollout()
    """How it takes over."""
