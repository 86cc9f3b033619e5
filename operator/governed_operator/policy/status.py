"""(Observed, Decision) → status: conditions, revisions, figures. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from governed_api import conditions as c
from governed_api import object_names
from governed_api.conditions import Condition, Truth, set_condition
from governed_api.model import ArtefactStatus, BiasStatus, GovernedModelStatus, LedgerStatus
from governed_api.reasons import Cause, Reason
from governed_api.report import PodVerdict
from governed_operator.desired.decision import Decision
from governed_operator.desired.inference import selector
from governed_operator.desired.service import service_url
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import (
    contests,
    dead_letters,
    refused_shipping,
    servers,
    unreadable_frames,
    verdict,
)

State = tuple[Truth, Cause, str]
SEE_POLICY = "condition PolicySatisfied says what holds it"
RANK = {kind: number for number, kind in enumerate(c.TYPES)}


def status_of(obs: Observed, decision: Decision) -> GovernedModelStatus:
    """The whole status."""
    workload = obs.workload()
    serving = workload is not None and not decision.stopped
    report = obs.report
    artefact = obs.status.artefact
    if decision.stable and decision.stable.artefact:
        trained = (report.trainer.artefact or {}) if report and report.trainer else {}
        same = trained.get("digest") == decision.stable.artefact
        blob, variant = (str(trained.get(k) or "") for k in ("blob", "variant"))
        artefact = ArtefactStatus(
            digest=decision.stable.artefact, blob=blob if same else "", variant=variant if same else ""
        )
    return GovernedModelStatus(
        observed_generation=obs.generation,
        conditions=conditions(obs, decision),
        url=service_url(obs.subject) if serving else None,
        replicas=workload.replicas if workload else 0,
        selector=",".join(f"{k}={v}" for k, v in selector(obs.subject).items()),
        bias=_bias(obs),
        artefact=artefact,
        ledger=_ledger(obs),
        stable=decision.memory.stable,
        canary=decision.memory.canary,
        rejected=decision.memory.rejected,
    )


def _stable_verdict(obs: Observed) -> PodVerdict | None:
    """Over all pods of the revision that has the traffic."""
    workload = obs.workload()
    stable = verdict(obs, workload.revision if workload else None)
    claimed = obs.report.auditor if obs.report and stable is None else None
    if claimed is None:
        return stable
    return PodVerdict(verdict=claimed.verdict, summary=claimed.summary, samples=claimed.samples)


def _bias(obs: Observed) -> BiasStatus | None:
    auditor = _stable_verdict(obs)
    if auditor is None or obs.model.spec.governance.bias is None:
        return None
    return BiasStatus(
        verdict=auditor.verdict, summary=auditor.summary, samples=auditor.samples, ledger_index=auditor.ledger_index
    )


def _ledger(obs: Observed) -> LedgerStatus | None:
    seen = obs.archive_report
    if seen is None or not seen.checkpoint:
        return obs.status.ledger
    return LedgerStatus(size=seen.size, root_hash=seen.root_hash, checkpoint=seen.checkpoint)


def conditions(obs: Observed, decision: Decision) -> list[Condition]:
    """Conditions in their documented order; a gate's violation outranks what would be derived."""
    states = _states(obs, decision)
    for violation in reversed(decision.violations):
        if violation.condition != c.READY:
            states[violation.condition] = (violation.status, violation.reason, violation.message)
    states[c.READY] = _ready(states, obs, decision)
    states |= _standing(states, decision)
    out: list[Condition] = list(obs.status.conditions)
    for kind in c.TYPES:
        state = states.get(kind)
        out = [x for x in out if x.type != kind] if state is None else _set(out, kind, state, obs)
    return _ordered(out)


def _ordered(conditions: list[Condition]) -> list[Condition]:
    """In their documented order, others' last."""
    return sorted(conditions, key=lambda x: RANK.get(x.type, len(RANK)))


def _set(conditions: list[Condition], kind: str, state: State, obs: Observed) -> list[Condition]:
    status, reason, message = state
    return set_condition(conditions, kind, (status, reason, message[:1000]), generation=obs.generation, now=obs.now)


def _states(obs: Observed, decision: Decision) -> dict[str, State | None]:
    spec = obs.model.spec
    return {
        c.ARCHIVE_READY: _archive(obs),
        c.ENCRYPTION_READY: _encryption(obs),
        c.QUOTA_ENFORCED: _quota(obs),
        c.POLICY_SATISFIED: _policy(decision),
        c.TRAINING_SUCCEEDED: _training(obs, decision) if spec.lifecycle.training else None,
        c.MODEL_VERIFIED: _verified(obs, decision),
        c.PREDICTOR_READY: _predictor(obs, decision),
        c.EXPLAINER_READY: _container(obs, "explainer") if spec.explainer else None,
        c.AUDITOR_READY: _auditor(obs),
        c.BIAS_WITHIN_THRESHOLDS: _bias_state(obs) if spec.governance.bias else None,
        c.DEGRADED: _degraded(obs),
    }


def _policy(decision: Decision) -> State | None:
    """None where no policy is about the model."""
    found = decision.policy
    return (found.status, found.reason, found.message) if found else None


def _degraded(obs: Observed) -> State:
    """What serves all the same, and what a person must look at before it ends that."""
    if obs.archive_report is not None and (why := obs.archive_report.message):
        return "True", Reason.LEDGER_FAULTS, f"the namespace's archive: {why}"
    if refused := refused_shipping(obs):
        pod, why = refused
        ends = "its spool fills until that is mended"
        return "True", Reason.SHIPPING_REFUSED, f"the archive refuses what pod {pod} ships ({why}); {ends}"
    return "False", Reason.AS_EXPECTED, ""


def _archive(obs: Observed) -> State:
    archive = obs.archive
    if archive and archive.available >= 1:
        return (
            "True",
            Reason.SERVING,
            "; ".join(filter(None, (_refused(obs), _unreadable(obs), _lagging(obs), _unstored(obs)))),
        )
    why = _unstored(obs)
    return "False", Reason.ARCHIVE_NOT_READY, f"the namespace's archive has no ready pod{f'; {why}' if why else ''}"


def _unstored(obs: Observed) -> str | None:
    unstored = obs.archive_report.unstored if obs.archive_report else ""
    return f"the ledger isn't all in object storage: {unstored}" if unstored else None


def _lagging(obs: Observed) -> str | None:
    lagging = obs.archive_report.lagging if obs.archive_report else ""
    return f"witnesses that don't cosign the ledger: {lagging}" if lagging else None


def _auditor(obs: Observed) -> State:
    state = _container(obs, "auditor")
    open_ = contests(obs)
    if state[0] != "True" or open_ is None or not open_[1]:
        return state
    waiting, overdue = open_
    decisions = "1 contested decision is" if waiting == 1 else f"{waiting} contested decisions are"
    return "True", state[1], f"{decisions} open, {overdue} past the deadline: governed contests {obs.subject.name}"


def _refused(obs: Observed) -> str | None:
    count = dead_letters(obs)
    if not count:
        return None
    entries = "1 ledger entry was" if count == 1 else f"{count} ledger entries were"
    return f"{entries} refused for ever; the reason is in the ledger's entries of type deadLetter"


def _unreadable(obs: Observed) -> str | None:
    count = unreadable_frames(obs)
    if not count:
        return None
    frames = "1 frame of a journal was" if count == 1 else f"{count} frames of journals were"
    return f"{frames} damaged before being shipped; the ledger's entries of type unreadable say which: check the disk"


def _encryption(obs: Observed) -> State:
    ref = obs.model.spec.governance.encryption.key_ref
    name, _ = object_names.key_encryption_key(obs.subject.name, obs.model.spec)
    if ref or ("Secret", name) in obs.children:
        return "True", Reason.ENVELOPE, f"keysets are wrapped by the key in Secret {name}"
    return "Unknown", Reason.KEY_PENDING, f"Secret {name} is being made"


def _quota(obs: Observed) -> State:
    quota = obs.model.spec.quota
    if quota.compute and ("ResourceQuota", object_names.compute_quota(obs.subject.name)) not in obs.children:
        return "False", Reason.QUOTA_PENDING, "the ResourceQuota is being made"
    parts = [n for n in ("requests", "tokens", "max_concurrent", "compute") if getattr(quota, n)]
    named = ", ".join(n.replace("max_concurrent", "maxConcurrent") for n in parts)
    return "True", Reason.ENFORCED if parts else Reason.NO_QUOTA, f"limits: {named}" if parts else ""


def _training(obs: Observed, decision: Decision) -> State:
    trainer = obs.report.trainer if obs.report else None
    answers = trainer is not None and trainer.training_hash == obs.model.training_hash()
    if trainer and answers and trainer.phase == "Succeeded":
        return "True", Reason.TRAINED, trainer.message
    if decision.stopped:
        return "Unknown", Reason.SUSPENDED, "spec.suspend is true"
    if decision.policy and decision.withheld and not decision.train:
        return "Unknown", decision.policy.reason, f"no trainer Job is made: {SEE_POLICY}"
    message = trainer.message if trainer and answers else ""
    return "Unknown", Reason.TRAINING, message or "the trainer Job has not reported yet"


def _verified(obs: Observed, decision: Decision) -> State:
    if obs.model.spec.predictor.model.runtime:
        return "Unknown", Reason.FOREIGN_RUNTIME, "what a foreign runtime loads is not verified"
    workload = obs.workload()
    if decision.train and obs.model.spec.predictor.model.is_fetched and (told := _fetching(obs)) and workload is None:
        return "Unknown", Reason.FETCHING, told
    if any(s.verified for s in servers(obs, workload.revision if workload else None)):
        return "True", Reason.DIGEST_MATCHED, "the server found the artefact's digest right"
    if workload and workload.observed and workload.wanted == 0:
        return "True", Reason.SCALED_TO_ZERO, "no pod runs; each verifies the artefact before it serves"
    if decision.stable and workload and workload.observed and workload.available >= 1 and workload.updated >= 1:
        return "True", Reason.DIGEST_MATCHED, "pods serve only after their artefact matched its digest"
    return "Unknown", Reason.NOT_SERVING, "no pod has verified the artefact yet"


def _fetching(obs: Observed) -> str:
    """How far the importer Job is; "" when it is done."""
    maker = obs.report.trainer if obs.report else None
    if maker is None or maker.training_hash != obs.model.training_hash():
        return "the importer Job has not reported yet"
    return "" if maker.phase == "Succeeded" else maker.message


def _predictor(obs: Observed, decision: Decision) -> State:
    if decision.stopped:
        return "False", Reason.SUSPENDED, "spec.suspend is true: nothing runs"
    workload = obs.workload()
    if workload is None:
        return "False", Reason.NOT_DEPLOYED, SEE_POLICY if decision.withheld else "no artefact to serve yet"
    if not workload.observed or (decision.stable and workload.revision != decision.stable.name):
        return "False", Reason.ROLLING_OUT, "the Deployment controller has not seen the present revision yet"
    floor = min(workload.wanted, max(1, obs.model.spec.predictor.min_replicas))
    if workload.updated < workload.replicas or workload.available < floor:
        message = f"{workload.available} of {workload.wanted} replicas are available, {workload.updated} up to date"
        return "False", Reason.ROLLING_OUT, message
    return "True", Reason.SERVING, f"{workload.available} replicas"


def _container(obs: Observed, name: str) -> State:
    states = [dict(p.ready).get(name, False) for p in obs.pods("predictor", "stable")]
    if states and all(states):
        return "True", Reason.SERVING, ""
    if not states:
        return "Unknown", Reason.NO_PODS, "no serving pod yet"
    return "False", Reason.CONTAINER_NOT_READY, f"container {name} is ready in {sum(states)} of {len(states)} pods"


def _bias_state(obs: Observed) -> State:
    auditor = _stable_verdict(obs)
    if auditor is None:
        return "Unknown", Reason.NO_VERDICT, "the auditor has not reported yet"
    if auditor.verdict == "Unknown":
        return "Unknown", Reason.TOO_FEW_SAMPLES, auditor.summary or f"{auditor.samples} samples"
    within = auditor.verdict == "Pass"
    if within and auditor.ledger_index is None:
        said = f"the ledger has no verdict yet, a pod says: {auditor.summary}"
        return "Unknown", Reason.NO_VERDICT, said
    return (
        "True" if within else "False",
        Reason.WITHIN_THRESHOLDS if within else Reason.BEYOND_THRESHOLD,
        auditor.summary,
    )


REQUIRED = (c.ENCRYPTION_READY, c.TRAINING_SUCCEEDED, c.ARCHIVE_READY, c.MODEL_VERIFIED, c.PREDICTOR_READY)
"""What Ready needs, in the order in which a cause is looked for."""


def _ready(states: dict[str, State | None], obs: Observed, decision: Decision) -> State:
    if decision.stopped:
        return "False", Reason.SUSPENDED, "spec.suspend is true: nothing runs"
    for violation in decision.violations:
        if violation.condition in (c.READY, *REQUIRED):
            return "False", violation.reason, violation.message
    serving = obs.workload() is not None
    for kind in REQUIRED:
        state = states.get(kind)
        excused = (kind == c.TRAINING_SUCCEEDED and serving) or (
            state is not None and state[1] == Reason.FOREIGN_RUNTIME
        )
        if state is not None and state[0] != "True" and not excused:
            return "False", state[1], state[2]
    return "True", Reason.SERVING, ""


def _standing(states: dict[str, State | None], decision: Decision) -> dict[str, State | None]:
    """kstatus' two conditions (sigs.k8s.io/cli-utils): at most one is True, none when all is done or suspended."""
    out: dict[str, State | None] = {c.RECONCILING: None, c.STALLED: None}
    stuck = next((v for v in decision.violations if v.stalled), None)
    if decision.stopped:
        return out
    if stuck:
        return out | {c.STALLED: ("True", stuck.reason, stuck.message)}
    for kind in (c.READY, c.TRAINING_SUCCEEDED):  # a model in service may be trained anew
        state = states.get(kind)
        if state is not None and state[0] != "True":
            return out | {c.RECONCILING: ("True", state[1], state[2])}
    if decision.canary:
        share = f"revision {decision.canary.name} is on trial with {decision.canary.percent} % of the traffic"
        return out | {c.RECONCILING: ("True", Reason.CANARY_TRIAL, share)}
    return out


def status_of_failure(
    status: GovernedModelStatus, *, generation: int, now: datetime, reason: Reason, message: str, stalled: bool
) -> GovernedModelStatus:
    """Status after a reconcile that failed. What serves keeps serving, and a model that was Ready stays so under its
    old spec; a new generation that isn't reached makes it not Ready. ``stalled``: retrying cannot succeed.
    """
    standing, over = (c.STALLED, c.RECONCILING) if stalled else (c.RECONCILING, c.STALLED)
    conditions = [x for x in status.conditions if x.type != over]
    ready = next((x for x in conditions if x.type == c.READY), None)
    states: dict[str, Truth] = {c.DEGRADED: "True", standing: "True"}
    if ready is None or ready.status != "True" or status.observed_generation != generation:
        states[c.READY] = "False"
    for kind, truth in states.items():
        conditions = set_condition(conditions, kind, (truth, reason, message[:1000]), generation=generation, now=now)
    return status.model_copy(update={"observed_generation": generation, "conditions": _ordered(conditions)})


NOISE = ("ledger", "bias")


def significant(status: Mapping[str, Any]) -> dict[str, object]:
    """A status without figures that move by themselves: these alone are not worth a write each time."""
    kept = {k: v for k, v in status.items() if k not in NOISE}
    verdict = (status.get("bias") or {}).get("verdict")
    conditions = [
        {k: v for k, v in x.items() if not (k == "message" and x["type"] == c.BIAS_WITHIN_THRESHOLDS)}
        for x in status.get("conditions", [])
    ]
    return {**kept, "verdict": verdict, "conditions": conditions}
