"""What policy decided: the only input of the builders besides the model itself."""

from dataclasses import dataclass, field, replace
from functools import cached_property

from governed_api.conditions import Truth
from governed_api.model import RevisionStatus
from governed_api.names import short_hash
from governed_api.reasons import Cause, Reason
from governed_api.resolved import ResolvedModel


@dataclass(frozen=True)
class Revision:
    """A model with its rules and the artefact that serves under them."""

    model: ResolvedModel
    document: bytes = field(repr=False)
    """The model as its serving pods read it: canonical JSON, made once, for its hash is part of several names."""
    artefact: str
    """sha256:… of the artefact; empty with a foreign runtime."""
    percent: int = 100
    """Share of traffic."""
    since: str = ""
    """RFC 3339, when it got this share."""

    @classmethod
    def of(cls, model: ResolvedModel, artefact: str, percent: int = 100) -> "Revision":
        seen = model.for_serving
        return cls(seen, seen.document, artefact, percent)

    @cached_property
    def name(self) -> str:
        """Hash over artefact and rules."""
        return short_hash(self.document + self.artefact.encode())

    def at(self, percent: int, since: str) -> "Revision":
        return replace(self, percent=percent, since=since)


@dataclass(frozen=True)
class Violation:
    """A gate that isn't passed: which condition it falsifies, why, and what to do."""

    condition: str
    reason: Cause
    message: str
    status: Truth = "False"
    blocking: bool = False
    """Nothing new may be made until it is gone; what serves keeps serving."""
    stalled: bool = False
    """It stays until a person acts; otherwise time, or an object that is still to come, may resolve it."""


@dataclass(frozen=True)
class PolicyStanding:
    """How a model stands with the GovernancePolicies that are about it."""

    status: Truth
    reason: Reason
    message: str
    holds: bool = False
    """Nothing new may roll out."""
    again_in: float | None = None
    """Seconds until an exemption ends."""


@dataclass(frozen=True)
class Memory:
    """What the status remembers of revisions: every decision carries all of it."""

    stable: RevisionStatus | None = None
    """Had the traffic last, whether or not anything runs now."""
    canary: RevisionStatus | None = None
    """On trial, also while the trial is interrupted."""
    rejected: str | None = None
    """Failed its trial: gets no traffic until another revision is decided about."""


@dataclass(frozen=True)
class Decision:
    """What should be."""

    train: bool = False
    """The trainer Job is wanted."""
    stable: Revision | None = None
    """Has the traffic; absent until an artefact is there, and while what serves is held as it is."""
    held: bool = False
    """The stable Deployment exists and is left as it is (training, trial, or a violation that blocks)."""
    canary: Revision | None = None
    """On trial."""
    canary_serves: bool = False
    """Some pod of its track answers."""
    stable_gone: bool = False
    """There is no stable Deployment beside the canary."""
    rejected: str | None = None
    """Name of the revision that failed its trial."""
    memory: Memory = Memory()
    """Of the next status."""
    key_lost: bool = False
    """The key-encryption key is gone: no fresh one may take its name."""
    again_in: float | None = None
    """Seconds until time alone may change this decision."""
    stopped: bool = False
    """Suspended: volumes, keys and ledger stay, nothing runs."""
    violations: tuple[Violation, ...] = ()
    """Gates not passed, in order; the first one per condition is shown."""
    policy: PolicyStanding | None = None
    """None where no policy is about the model."""
    withheld: bool = False
    """Something new would be, and a policy holds it."""
