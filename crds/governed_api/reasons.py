"""Reasons of conditions and Events: one closed, documented set. A reason is stable; its message is for people and may
change.

What Kubernetes or a neighbour says of an object (``CrashLoopBackOff``, ``Unschedulable``, a Gateway's
``NoMatchingParent``) is passed on in their words: a :data:`PassedOn`, never one of these.
"""

from enum import StrEnum
from typing import NewType

PassedOn = NewType("PassedOn", str)
"""A reason that another controller gave."""


class Reason(StrEnum):
    """Each with what it says of the model; see :attr:`description`."""

    description: str

    def __new__(cls, value: str, description: str) -> "Reason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    # In order
    AS_EXPECTED = "AsExpected", "Nothing is degraded."
    SERVING = "Serving", "It is up and answers."
    ENVELOPE = "Envelope", "Keysets are wrapped by the key-encryption key that the message names."
    ENFORCED = "Enforced", "The limits that the message lists are enforced."
    NO_QUOTA = "NoQuota", "The manifest sets no limits."
    TRAINED = "Trained", "Training answered this very training spec."
    DIGEST_MATCHED = "DigestMatched", "What serves has the artefact's digest."
    SCALED_TO_ZERO = "ScaledToZero", "No pod runs; each verifies the artefact before it serves."
    FOREIGN_RUNTIME = "ForeignRuntime", "What a foreign runtime loads is not verified."
    WITHIN_THRESHOLDS = "WithinThresholds", "Every bias metric is within its thresholds."
    SATISFIED = "Satisfied", "The model meets every policy that is about it."
    EXEMPT = "Exempt", "What the model doesn't meet it is exempt from, until the time that the message names."
    SUSPENDED = "Suspended", "Nothing runs, for spec.suspend is true; keys, volumes and ledger stay."

    KEYS_ACCEPTED = "KeysAccepted", "Who shows one of the consumer's keys or tokens is let in."
    FOUND = "Found", "Every model that the consumer names is there."

    # Under way
    ARCHIVE_NOT_READY = "ArchiveNotReady", "The namespace's archive has no ready pod."
    KEY_PENDING = "KeyPending", "The Secret with the key-encryption key is being made."
    QUOTA_PENDING = "QuotaPending", "The ResourceQuota is being made."
    TRAINING = "Training", "The trainer Job has not answered this training spec yet."
    FETCHING = "Fetching", "The importer Job has not brought the files of storageUri yet."
    NOT_SERVING = "NotServing", "No pod has verified the artefact yet."
    NOT_DEPLOYED = "NotDeployed", "There is no artefact to serve yet."
    ROLLING_OUT = "RollingOut", "The Deployment is on its way to the present revision."
    NO_PODS = "NoPods", "No serving pod runs yet."
    CONTAINER_NOT_READY = "ContainerNotReady", "That container is not ready in some serving pod."
    NO_VERDICT = (
        "NoVerdict",
        "The auditor has not reported yet, or the archive does not have what it says in the ledger.",
    )
    TOO_FEW_SAMPLES = "TooFewSamples", "Fewer samples than the bias metrics need for a verdict."
    CANARY_TRIAL = "CanaryTrial", "A revision is on trial with a share of the traffic."
    ARCHIVE_KEYS_PENDING = (
        "ArchiveKeysPending",
        "The namespace's archive keys, from which tokens derive, are not there.",
    )
    NAME_TAKEN = (
        "NameTaken",
        "An object that the model needs exists already and belongs to others; it is left as it is.",
    )
    PREVIOUS_MODEL_REMAINS = "PreviousModelRemains", "An object of an earlier model of this name is not gone yet."

    # A person must act, or something must come
    SECRET_NOT_FOUND = "SecretNotFound", "The Secret that the message names, or a key in it, is missing."
    KEY_LOST = "KeyLost", "The key-encryption key was there and is gone: restore it from a backup."
    STORAGE_CLASS_NOT_ENCRYPTED = "StorageClassNotEncrypted", "The StorageClass does not declare encryption."
    CLUSTER_RIGHTS_MISSING = (
        "ClusterRightsMissing",
        "The manifest asks for what is in no namespace, and the operator has rights in named ones alone.",
    )
    CLAIM_NOT_FOUND = (
        "PersistentVolumeClaimNotFound",
        "A PersistentVolumeClaim that data or model come from is missing.",
    )
    SOURCE_NOT_REACHABLE = "SourceNotReachable", "A file: URI works with `governed run` only."
    SCALE_TO_ZERO_UNAVAILABLE = "ScaleToZeroUnavailable", "Nothing would wake a model that is scaled to zero."
    REPORT_NOT_READABLE = "ReportNotReadable", "The GovernanceReport was written by an incompatible version."
    DIGEST_MISMATCH = "DigestMismatch", "A server refused the artefact: its digest is another one."
    IMPORT_REFUSED = (
        "ImportRefused",
        "The file at storageUri can't be served under this spec: change it, or suspend and resume to try again.",
    )
    BEYOND_THRESHOLD = "BeyondThreshold", "A bias metric is beyond its thresholds."
    SCALED_OBJECT_NOT_READY = "ScaledObjectNotReady", "KEDA does not scale the model, and gives no reason."
    SHIPPING_REFUSED = (
        "ShippingRefused",
        "The archive refuses what a pod ships; when its spool is full, audit.failurePolicy decides about requests.",
    )
    LEDGER_FAULTS = "LedgerFaults", "Something of the ledger's log can't be read, or isn't what was signed."
    JOB_FAILED = "JobFailed", "The trainer Job failed, and Kubernetes gives no reason."
    REPLICA_FAILURE = "ReplicaFailure", "Replicas can't be made, and Kubernetes gives no reason."

    # A policy is not met, or nobody can say whether it is
    VIOLATED = (
        "Violated",
        "A policy under Deny isn't met: nothing new rolls out, and what serves keeps serving.",
    )
    AUDITED = "Audited", "A policy under Audit isn't met: it is only said."
    POLICY_INVALID = (
        "PolicyInvalid",
        "A policy that may be about the model can't be read: nothing new rolls out, unless it says Audit.",
    )
    POLICIES_UNKNOWN = "PoliciesUnknown", "The operator can't list policies: nothing new rolls out."

    # A ModelConsumer whom nobody is let in by, or not everywhere
    NO_KEYS = "NoKeys", "The consumer lists no key, and names no token."
    KEYS_EXPIRED = "KeysExpired", "Every key of the consumer has expired."
    KEY_ID_TAKEN = "KeyIdTaken", "An older consumer lists a key of the same id, whose it stays."
    TOKEN_TAKEN = "TokenTaken", "An older consumer has the tokens of the same issuer, audience and subject or claim."
    ISSUER_KEYS_MISSING = "IssuerKeysMissing", "Public keys of the tokens' issuer can't be had, as the message says."
    CONSUMER_EXPIRED = "ConsumerExpired", "The consumer's spec.expires has passed."
    CONSUMER_SUSPENDED = "ConsumerSuspended", "The consumer's spec.suspend is true."
    TOO_MANY_CALLERS = "TooManyCallers", "Older consumers leave no room in the document of a model's callers."
    MODEL_NOT_FOUND = "ModelNotFound", "A model that the consumer names isn't in its namespace."
    NO_MODELS = "NoModels", "The consumer names no model, or selects none."

    LEDGER_CONTRADICTED = (
        "LedgerContradicted",
        "A witness has a checkpoint by the ledger's key that the ledger doesn't go on from: restore the newest copy.",
    )

    # A canary's trial
    CANARY_ERROR_RATE = (
        "CanaryErrorRate",
        "Rolled back: more failed requests than lifecycle.rollout.maxErrorRate allows.",
    )
    CANARY_LATENCY = "CanaryLatency", "Rolled back: slower than lifecycle.rollout.maxLatencyRatio allows."
    CANARY_BIAS = (
        "CanaryBiasBeyondThreshold",
        "Rolled back: the bias verdict failed, and governance.bias.action is Rollback.",
    )
    CANARY_REJECTED = (
        "CanaryRejected",
        "Rolled back earlier; the cause is no longer on record. Only another revision is tried.",
    )
    PROMOTION_BLOCKED = "PromotionBlocked", "The trial is held: the bias verdict failed."

    # A trial goes on, and there is nothing beside it
    STABLE_GONE = "StableGone", "A revision is on trial, and the Deployment of the stable revision is gone."

    # A reconcile failed: the API server, or a webhook behind it, refused
    SPEC_NOT_READABLE = "SpecNotReadable", "The stored spec was made under another version's CRD."
    INVALID = "Invalid", "The API server finds an object invalid (422)."
    FORBIDDEN = "Forbidden", "A quota, a policy or RBAC forbids a write (403)."
    BAD_REQUEST = "BadRequest", "A webhook denies a write, or the API server can't read it (400)."
    REQUEST_ENTITY_TOO_LARGE = "RequestEntityTooLarge", "An object is larger than the API server takes (413)."
    UNAUTHORIZED = "Unauthorized", "The API server doesn't know the operator (401)."
    NOT_FOUND = "NotFound", "A kind, namespace or object that a write needs is missing (404)."
    METHOD_NOT_ALLOWED = "MethodNotAllowed", "The API server has that kind, and no such operation (405)."
    CONFLICT = "Conflict", "Somebody else keeps changing the same object (409)."
    TOO_MANY_REQUESTS = "TooManyRequests", "The API server keeps asking for fewer requests (429)."
    INTERNAL_ERROR = "InternalError", "The API server, or a webhook that is down, failed (500)."
    SERVICE_UNAVAILABLE = "ServiceUnavailable", "The API server, or an extension of it, is unavailable (502, 503)."
    TIMEOUT = "Timeout", "The API server, or a webhook, did not answer in time (408, 504, or no answer at all)."
    UNREACHABLE = "Unreachable", "The connection to the API server keeps breaking."
    UNEXPECTED_ERROR = "UnexpectedError", "A fault of the operator itself."
    OTHER = "Other", "Refused in a way that is none of these."

    # Events alone
    RECONCILE_FAILED = "ReconcileFailed", "A reconcile failed; Degraded has its reason."


class KubernetesReason(StrEnum):
    """Kubernetes' own words that the operator itself tells apart."""

    description: str

    def __new__(cls, value: str, description: str) -> "KubernetesReason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff", "A container keeps ending."
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff", "An image can't be pulled, and the next try waits."
    ERR_IMAGE_PULL = "ErrImagePull", "An image can't be pulled."
    INVALID_IMAGE_NAME = "InvalidImageName", "An image's name is not one."
    ERR_IMAGE_NEVER_PULL = "ErrImageNeverPull", "An image is not on the node, and may not be pulled."
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError", "A Secret or ConfigMap of a container is missing."
    CREATE_CONTAINER_ERROR = "CreateContainerError", "A container can't be made."
    RUN_CONTAINER_ERROR = "RunContainerError", "A container can't be started."
    OOM_KILLED = "OOMKilled", "A container used more memory than its limit."
    UNSCHEDULABLE = "Unschedulable", "No node takes the pod."
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded", "A Deployment made no progress for too long."


Cause = Reason | KubernetesReason | PassedOn
"""What a condition may have for a reason."""


def canary_problem(problem: Cause) -> PassedOn:
    """Rolled back: pods of the canary didn't run, for that reason."""
    return PassedOn(f"Canary{problem}")
