"""Names that both sides and users rely on: API group, kinds, object names, labels."""

import hashlib

GROUP = "governedmodels.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

KIND = "GovernedModel"
PLURAL = "governedmodels"
REPORT_KIND = "GovernanceReport"
REPORT_PLURAL = "governancereports"
CONSUMER_KIND = "ModelConsumer"
CONSUMER_PLURAL = "modelconsumers"
POLICY_KIND = "GovernancePolicy"
POLICY_PLURAL = "governancepolicies"
CLUSTER_POLICY_KIND = "ClusterGovernancePolicy"
CLUSTER_POLICY_PLURAL = "clustergovernancepolicies"

FIELD_MANAGER = "governed-operator"
PART_OF = "governed-models"

LABEL_MODEL = f"{GROUP}/model"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_TRACK = f"{GROUP}/track"
ANNOTATION_ACCEPT_LOSS = f"{GROUP}/accept-loss"
"""On the archive's GovernanceReport: the loss, by the code that the archive gave it, that a person accepts."""
ANNOTATION_LIFETIMES = f"{GROUP}/lifetimes"
"""Of a model's GovernanceReport: :class:`governed_api.lifetimes.Lifetimes`."""
ANNOTATION_SAMPLES = f"{GROUP}/sample-requests"

ARCHIVE = "governed-archive"
"""Name of the per-namespace archive: StatefulSet, Service, ServiceAccount and PVC template."""

MAX_MODEL_NAME = 40
"""Longest model name (characters): derived names must stay valid DNS labels of 63."""


def component(model: str, part: str) -> str:
    """Name of an owned object, such as ``credit-predictor``."""
    return f"{model}-{part}"


def short_hash(data: bytes) -> str:
    """Ten hexadecimal characters, enough to tell one model's revisions apart in an object name."""
    return hashlib.sha256(data).hexdigest()[:10]


MAX_REQUEST_ID = 128
"""Characters of an id that a client gives a request: from the door to the ledger nothing refuses one that is as
long."""


def request_id_fault(text: str) -> str:
    """What is wrong with a client's id of a request; "" when nothing is. None at all ("") is right."""
    if len(text) > MAX_REQUEST_ID:
        return f"expected at most {MAX_REQUEST_ID} characters, found {len(text)}"
    return "" if text.isprintable() else "expected printable characters, found others"
