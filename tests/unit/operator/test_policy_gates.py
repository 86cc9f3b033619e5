"""Each gate's violation as a whole: which condition, whether it blocks, and whether it waits for a person."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import (
    BIAS,
    DIGEST,
    IMPORTED,
    NOW,
    TRAINED,
    JobFacts,
    PodProblem,
    archive_ready,
    child,
    observed,
    pod,
    report,
    resolved,
    trained_report,
    workload,
)

from governed_api.conditions import Condition
from governed_api.model import GovernedModelStatus, RevisionStatus
from governed_api.names import ARCHIVE
from governed_api.reasons import KubernetesReason, Reason
from governed_operator.desired.decision import Revision, Violation
from governed_operator.desired.manifest import Subject
from governed_operator.desired.trainer import job_name
from governed_operator.policy.decide import decide
from governed_operator.policy.gates import violations
from governed_operator.policy.observed import Observed, Outside, Refusal
from governed_operator.policy.revisions import stale_report_entries
from governed_operator.policy.status import status_of, status_of_failure

PULL = PodProblem(KubernetesReason.IMAGE_PULL_BACK_OFF, "container server of pod p: no such image")
CRASH = PodProblem(KubernetesReason.CRASH_LOOP_BACK_OFF, "container server of pod p: it exited with code 3")
JOB = job_name(Subject(resolved(TRAINED)))
STABLE = GovernedModelStatus(stable=RevisionStatus(name="r", percent=100))
LOST = "Secret m-kek is gone: restore it from a backup; without it artefact and journal can't be read"
DENIED = Refusal(Reason.FORBIDDEN, "denied", False, "StatefulSet governed-archive")


def job(failure: str, *pods: str, told: dict[str, Any] | None = None) -> Observed:
    """A trainer Job that failed, its pods' last words, and what the trainer reported."""
    facts = JobFacts(False, PodProblem(KubernetesReason.UNSCHEDULABLE, failure), False)
    ended = [child("Pod", f"t{n}", pod(component="trainer")._replace(last_words=w)) for n, w in enumerate(pods)]
    trainer = {"trainingHash": resolved(TRAINED).training_hash(), "message": "y is not a column"} | (told or {})
    return observed(TRAINED, child("Job", JOB, facts), *ended, report=report(trainer=trainer) if told else None)


def trained(message: str) -> tuple[Violation, ...]:
    return (Violation("TrainingSucceeded", KubernetesReason.UNSCHEDULABLE, message, stalled=True),)


def tampered(message: str) -> Observed:
    deployment = child("Deployment", "m-predictor", workload("r"))
    return observed(
        IMPORTED, deployment, report=report(revisions={"r": {"server": {"p": {"verified": False, "message": message}}}})
    )


def unservable(*children: Any) -> Observed:
    """A pod was brought what can't be served."""
    told = report(revisions={"r": {"server": {"p": {"refused": True, "message": "m.onnx: no model"}}}})
    return observed(IMPORTED, child("Deployment", "m-predictor", workload("r")), *children, report=told)


GATES: dict[str, tuple[Observed, tuple[Violation, ...]]] = {
    "none": (observed(), ()),
    "no Secret": (
        observed(outside=Outside(missing_secret="no Secret k")),
        (Violation("EncryptionReady", Reason.SECRET_NOT_FOUND, "no Secret k", blocking=True),),
    ),
    "key lost": (
        replace(observed(status=STABLE), children={}),
        (Violation("EncryptionReady", Reason.KEY_LOST, LOST, blocking=True, stalled=True),),
    ),
    "class without encryption": (
        observed(outside=Outside(unencrypted_class="class x")),
        (Violation("EncryptionReady", Reason.STORAGE_CLASS_NOT_ENCRYPTED, "class x", blocking=True, stalled=True),),
    ),
    "no claim": (
        observed(outside=Outside(missing_claim="no claim c")),
        (Violation("Ready", Reason.CLAIM_NOT_FOUND, "no claim c", blocking=True),),
    ),
    "no Secret of the source": (
        observed(outside=Outside(missing_source="no Secret s")),
        (Violation("ModelVerified", Reason.SECRET_NOT_FOUND, "no Secret s", blocking=True),),
    ),
    "report not readable": (
        observed(report_error="not JSON"),
        (Violation("Degraded", Reason.REPORT_NOT_READABLE, "not JSON", "True"),),
    ),
    "a failed Job": (job("limit"), trained("limit")),
    "a failed Job whose pods said nothing": (job("limit", "", ""), trained("limit")),
    "a failed Job's last words": (
        job("limit", "", "OOM", "other"),
        trained("limit; the trainer's last words: OOM"),
    ),
    "a failed Job that reported": (job("limit", "OOM", told={"phase": "Failed"}), trained("y is not a column")),
    "a failed Job that reported nothing": (job("limit", told={"phase": "Failed", "message": ""}), trained("limit")),
    "a failed Job that had reported progress": (job("limit", told={"phase": "Running"}), trained("limit")),
    "a failed Job and another's report": (
        job("limit", told={"phase": "Failed", "trainingHash": "another"}),
        trained("limit"),
    ),
    "a trainer that waits": (
        observed(TRAINED, child("Pod", "s", pod()), child("Pod", "t", pod(PULL, "trainer"))),
        (Violation("TrainingSucceeded", PULL.reason, PULL.message),),
    ),
    "a trainer that crashes": (
        observed(TRAINED, child("Pod", "t", pod(CRASH, "trainer"))),
        (Violation("TrainingSucceeded", CRASH.reason, CRASH.message, stalled=True),),
    ),
    "an archive that can't be made": (
        observed(archive_failure=DENIED, shared={}),
        (
            Violation("ArchiveReady", Reason.FORBIDDEN, "denied"),
            Violation("Degraded", Reason.FORBIDDEN, "denied", "True"),
        ),
    ),
    "an archive without a pod that can't be made": (
        observed(archive_failure=DENIED, shared=dict([child("StatefulSet", ARCHIVE, workload(available=0))])),
        (
            Violation("ArchiveReady", Reason.FORBIDDEN, "denied"),
            Violation("Degraded", Reason.FORBIDDEN, "denied", "True"),
        ),
    ),
    "an archive that stays as it was": (
        observed(archive_failure=DENIED._replace(stalled=True)),
        (Violation("Degraded", Reason.FORBIDDEN, "denied", "True", stalled=True),),
    ),
    "an archive's pod that runs": (
        observed(shared={**archive_ready(), **dict([child("Pod", "a", pod(component="archive"))])}),
        (),
    ),
    "an archive's pod that waits": (
        observed(shared={**archive_ready(), **dict([child("Pod", "a", pod(PULL, "archive"))])}),
        (Violation("ArchiveReady", PULL.reason, PULL.message),),
    ),
    "an archive's pod that crashes": (
        observed(shared=dict([child("Pod", "a", pod(CRASH, "archive"))])),
        (Violation("ArchiveReady", CRASH.reason, CRASH.message, stalled=True),),
    ),
    "a server that waits": (
        observed(IMPORTED, child("Pod", "p", pod(PULL))),
        (Violation("PredictorReady", PULL.reason, PULL.message),),
    ),
    "a canary that waits": (observed(IMPORTED, child("Pod", "p", pod(PULL, track="canary"))), ()),
    "another artefact": (
        tampered("got sha256:1"),
        (Violation("ModelVerified", Reason.DIGEST_MISMATCH, "got sha256:1", stalled=True),),
    ),
    "an import that can't be served": (
        unservable(child("Pod", "p", pod())),
        (Violation("ModelVerified", Reason.IMPORT_REFUSED, "m.onnx: no model", stalled=True),),
    ),
    "an import that a pod refused which is gone": (unservable(), ()),
    "another artefact, without words": (
        tampered(""),
        (Violation("ModelVerified", Reason.DIGEST_MISMATCH, "the artefact differs from its digest", stalled=True),),
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_s_violation(name: str) -> None:
    obs, want = GATES[name]
    assert violations(obs) == want


def test_a_blocked_model_is_looked_at_again_soon() -> None:
    assert decide(observed(outside=Outside(missing_secret="k"))).again_in == 5.0
    assert decide(observed()).again_in is None


@pytest.mark.parametrize(
    ("kept", "train"), [((), False), ((child("Job", JOB, JobFacts(True, None, False)),), True),
                        ((child("ConfigMap", JOB),), False)],
    ids=["over and gone", "over and there", "another kind of that name"],
)  # fmt: skip
def test_a_training_job_that_is_over_stays_until_it_is_removed(kept: Any, train: bool) -> None:
    assert decide(observed(TRAINED, *kept, report=trained_report(resolved(TRAINED)))).train is train


# Entries of pods that are gone

REMOVED: dict[str, tuple[Any, Any]] = {
    # name: (age in seconds or the text itself) → (entry goes, seconds until it may)
    "at its limit": (60.0, (True, None)),
    "past it": (60.5, (True, None)),
    "half a minute before it": (30.0, (False, 30.0)),
    "just before it": (59.5, (False, 1.0)),
    "without a time": ("", (True, None)),
    "with rubbish for one": ("yesterday", (True, None)),
    "with a time of no zone": ("2026-11-23T12:00:00", (True, None)),
}


@pytest.mark.parametrize("role", ["server", "auditor"])
@pytest.mark.parametrize("name", REMOVED)
def test_an_entry_of_a_pod_that_is_gone_stays_a_minute(name: str, role: str) -> None:
    age, (goes, again_in) = REMOVED[name]
    since = age if isinstance(age, str) else (NOW - timedelta(seconds=age)).isoformat()
    here = {"here": {"observedAt": NOW.isoformat()}}
    entries: dict[str, Any] = {"server": dict(here), "auditor": dict(here)}
    entries[role]["gone"] = {"observedAt": since}
    obs = observed(IMPORTED, child("Pod", "here", pod()), report=report(revisions={"r": entries}))
    assert stale_report_entries(obs) == ({"r": {role: {"gone": None}}} if goes else {}, again_in)


def test_without_a_report_no_entry_is_removed() -> None:
    assert stale_report_entries(observed()) == ({}, None)


# What the status says of them


def told(obs: Observed, kind: str) -> tuple[str, str]:
    (found,) = [c for c in status_of(obs, decide(obs)).conditions if c.type == kind]
    return found.reason, found.message


def test_a_message_is_cut_at_a_thousand_characters() -> None:
    long = "".join(f"{n:04d}" for n in range(400))
    assert told(observed(report_error=long), "Degraded")[1] == long[:1000]


@pytest.mark.parametrize(
    ("floor", "available", "want"), [(0, 0, "RollingOut"), (0, 1, "Serving"), (2, 1, "RollingOut")]
)
def test_pods_that_are_wanted_make_ready_from_one_on(floor: int, available: int, want: str) -> None:
    spec = {"predictor": {**IMPORTED["predictor"], "minReplicas": floor, "maxReplicas": 3, "scaleMetric": "rps"}}
    facts = workload(Revision.of(resolved(spec), DIGEST).name, wanted=2, replicas=2, updated=2, available=available)
    obs = observed(spec, child("Deployment", "m-predictor", facts))
    (found,) = [c for c in status_of(obs, replace(decide(obs), violations=())).conditions if c.type == "PredictorReady"]
    assert found.reason == want


def test_an_auditor_is_ready_in_every_pod() -> None:
    ready, late = child("Pod", "a", pod(auditor=True)), child("Pod", "b", pod(auditor=False))
    assert told(observed(IMPORTED, ready), "AuditorReady") == ("Serving", "")
    assert told(observed(IMPORTED, ready, late), "AuditorReady")[1] == "container auditor is ready in 1 of 2 pods"


def test_a_selector_names_every_label_of_the_stable_pods() -> None:
    status = status_of(observed(), decide(observed()))
    assert status.selector == "governedmodels.io/model=m,governedmodels.io/component=predictor"


def test_refused_entries_and_damaged_frames_are_told_in_one_sentence_each() -> None:
    entries = {"a": {"deadLetters": 1, "unreadableFrames": 1}}
    message = told(observed(report=report(revisions={"r": {"auditor": entries}})), "ArchiveReady")[1]
    assert message == (
        "1 ledger entry was refused for ever; the reason is in the ledger's entries of type deadLetter; 1 frame of a "
        "journal was damaged before being shipped; the ledger's entries of type unreadable say which: check the disk"
    )


@pytest.mark.parametrize(("summary", "want"), [("", "3 samples"), ("SPD -0.1 ± 0.2", "SPD -0.1 ± 0.2")])
def test_too_few_samples_are_told_in_the_auditor_s_words_or_counted(summary: str, want: str) -> None:
    spec = {**IMPORTED, "governance": {"bias": BIAS}}
    auditor = report(auditor={"verdict": "Unknown", "samples": 3, "summary": summary})
    assert told(observed(spec, report=auditor), "BiasWithinThresholds") == ("TooFewSamples", want)


def test_a_failure_s_message_is_cut_at_a_thousand_characters() -> None:
    long = "".join(f"{n:04d}" for n in range(400))
    status = status_of_failure(
        GovernedModelStatus(), generation=1, now=NOW, reason=Reason.FORBIDDEN, message=long, stalled=False
    )
    assert {c.message for c in status.conditions} == {long[:1000]}


@pytest.mark.parametrize("ready", [True, False])
def test_after_a_failure_ready_stays_where_it_was_true_whatever_the_others_are(ready: bool) -> None:
    def known(kind: str, truth: bool) -> Condition:
        return Condition(
            type=kind, status="True" if truth else "False", reason="Earlier", message="", last_transition_time=NOW
        )

    before = GovernedModelStatus(
        observed_generation=1, conditions=[known("PredictorReady", not ready), known("Ready", ready)]
    )
    after = status_of_failure(before, generation=1, now=NOW, reason=Reason.FORBIDDEN, message="m", stalled=False)
    (found,) = [c for c in after.conditions if c.type == "Ready"]
    assert (found.status, found.reason) == (("True", "Earlier") if ready else ("False", "Forbidden"))
