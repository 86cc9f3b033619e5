"""A model that the importer Job fetches: what its Job, its pods and its report make of the status; and what the shared
archive's report adds to every model's."""

from dataclasses import replace
from typing import Any

import pytest
from builders import (
    BIAS,
    DIGEST,
    IMPORTED,
    NOW,
    JobFacts,
    PodProblem,
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
from governed_api.reasons import KubernetesReason, Reason, canary_problem
from governed_api.report import ArchiveReport, PodVerdict, RecordedVerdict
from governed_operator.desired.decision import Revision, Violation
from governed_operator.desired.manifest import Subject
from governed_operator.desired.trainer import job_name
from governed_operator.policy.canary import Judgement, judge
from governed_operator.policy.decide import decide
from governed_operator.policy.gates import violations
from governed_operator.policy.observed import Observed
from governed_operator.policy.revisions import refusal, unproved, verdict
from governed_operator.policy.status import status_of

FETCHED: dict[str, Any] = {"predictor": {"model": {"storageUri": "https://models.example/m.onnx", "digest": DIGEST}}}
JOB = job_name(Subject(resolved(FETCHED)))
HASH = resolved(FETCHED).training_hash()
FAILED = child("Job", JOB, JobFacts(False, PodProblem(KubernetesReason.UNSCHEDULABLE, "limit"), False))
CRASH = PodProblem(KubernetesReason.CRASH_LOOP_BACK_OFF, "container importer of pod i: it exited with code 3")
PULL = PodProblem(KubernetesReason.IMAGE_PULL_BACK_OFF, "container importer of pod i: no such image")
NOT_YET = "the importer Job has not reported yet"


def condition(obs: Observed, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in status_of(obs, decide(obs)).conditions if c.type == kind]
    return found.status, found.reason, found.message


def fetching(*children: Any, said: str = "", phase: str = "Running", of: str = HASH) -> Observed:
    told = report(trainer={"phase": phase, "trainingHash": of, "message": said}) if phase else None
    return observed(FETCHED, *children, report=told)


FETCHES: dict[str, tuple[Observed, tuple[str, str, str]]] = {
    "no report yet": (fetching(phase=""), ("Unknown", "Fetching", NOT_YET)),
    "the report of another spec": (fetching(said="half", of="another"), ("Unknown", "Fetching", NOT_YET)),
    "half way": (fetching(said="5 of 9 MB"), ("Unknown", "Fetching", "5 of 9 MB")),
    "half way, in no words": (fetching(), ("Unknown", "NotServing", "no pod has verified the artefact yet")),
    "done, and no artefact named": (
        fetching(said="done", phase="Succeeded"),
        ("Unknown", "NotServing", "no pod has verified the artefact yet"),
    ),
    "fetched anew while a revision serves": (
        fetching(child("Deployment", "m-predictor", workload("r", available=0)), said="5 of 9 MB"),
        ("Unknown", "NotServing", "no pod has verified the artefact yet"),
    ),
    "a volume's model": (observed(IMPORTED), ("Unknown", "NotServing", "no pod has verified the artefact yet")),
}


@pytest.mark.parametrize("name", FETCHES)
def test_how_far_an_import_is_stands_in_model_verified_until_something_serves(name: str) -> None:
    obs, want = FETCHES[name]
    assert condition(obs, "ModelVerified") == want


FAILURES: dict[str, tuple[Observed, str]] = {
    "nothing said": (fetching(FAILED, phase=""), "limit"),
    "last words": (
        fetching(FAILED, child("Pod", "i", pod(component="importer")._replace(last_words="no route")), phase=""),
        "limit; the importer's last words: no route",
    ),
    "words of a trainer's pod": (
        fetching(FAILED, child("Pod", "t", pod(component="trainer")._replace(last_words="no route")), phase=""),
        "limit",
    ),
    "a failure of its own words": (fetching(FAILED, said="404 Not Found", phase="Failed"), "404 Not Found"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_an_import_that_failed_unmakes_model_verified(name: str) -> None:
    obs, message = FAILURES[name]
    want = Violation("ModelVerified", KubernetesReason.UNSCHEDULABLE, message, stalled=True)
    assert violations(obs) == (want,)


def test_a_failed_job_is_nobody_s_where_nothing_is_made() -> None:
    """The Job of an earlier spec, whose model was fetched: what a volume brings has none."""
    mounted = Subject(resolved(IMPORTED))
    assert violations(observed(IMPORTED, child("Job", job_name(mounted), FAILED[1].facts))) == ()


@pytest.mark.parametrize(("problem", "stalled"), [(PULL, False), (CRASH, True)], ids=["waits", "crashes"])
def test_an_importer_s_pod_that_is_stuck_unmakes_model_verified(problem: PodProblem, stalled: bool) -> None:
    obs = fetching(child("Pod", "i", pod(problem, "importer")), phase="")
    assert violations(obs) == (Violation("ModelVerified", problem.reason, problem.message, stalled=stalled),)


def test_what_was_fetched_is_served_under_the_digest_that_the_importer_named() -> None:
    obs = observed(FETCHED, report=trained_report(resolved(FETCHED)))
    decision = decide(obs)
    assert decision.stable is not None
    assert (decision.stable.artefact, decision.train) == (DIGEST, False)
    assert decide(observed(FETCHED)).train


# What the archive's report adds


ARCHIVES: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "all stored": ({}, ("True", "Serving", "")),
    "not all in object storage": (
        {"unstored": "403 Forbidden"},
        ("True", "Serving", "the ledger isn't all in object storage: 403 Forbidden"),
    ),
    "a witness behind, and not all in object storage": (
        {"unstored": "403 Forbidden", "lagging": "w1: no answer"},
        (
            "True",
            "Serving",
            "witnesses that don't cosign the ledger: w1: no answer; the ledger isn't all in object storage: 403 "
            "Forbidden",
        ),
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_serves_says_what_it_is_behind_with(name: str) -> None:
    told, want = ARCHIVES[name]
    assert condition(observed(archive_report=ArchiveReport(checkpoint="c", **told)), "ArchiveReady") == want


def test_an_archive_that_reported_nothing_is_behind_with_nothing() -> None:
    assert condition(observed(archive_report=None), "ArchiveReady") == ("True", "Serving", "")


def test_shipping_that_is_refused_says_what_comes_of_it() -> None:
    told = report(revisions={"r": {"auditor": {"b": {"refused": "403"}, "a": {"refused": "415"}}}})
    why = "the archive refuses what pod a ships (415); its spool fills until that is mended"
    assert condition(observed(report=told), "Degraded") == ("True", "ShippingRefused", why)


def test_an_archive_without_a_pod_says_what_it_reported_last() -> None:
    gone = dict([child("StatefulSet", ARCHIVE, workload(available=0))])
    obs = observed(shared=gone, archive_report=ArchiveReport(checkpoint="c", unstored="403 Forbidden"))
    why = "the namespace's archive has no ready pod; the ledger isn't all in object storage: 403 Forbidden"
    assert condition(obs, "ArchiveReady") == ("False", "ArchiveNotReady", why)


CONTESTS: dict[str, tuple[bool, tuple[int, int], tuple[str, str, str]]] = {
    "none past its deadline": (True, (2, 0), ("True", "Serving", "")),
    "one past it": (
        True,
        (1, 1),
        ("True", "Serving", "1 contested decision is open, 1 past the deadline: governed contests m"),
    ),
    "some past it": (
        True,
        (3, 2),
        ("True", "Serving", "3 contested decisions are open, 2 past the deadline: governed contests m"),
    ),
    "past it, and the auditor isn't ready": (
        False,
        (1, 1),
        ("False", "ContainerNotReady", "container auditor is ready in 0 of 1 pods"),
    ),
}


@pytest.mark.parametrize("name", CONTESTS)
def test_contested_decisions_past_their_deadline_are_said_of_an_auditor_that_is_ready(name: str) -> None:
    ready, (waiting, overdue), want = CONTESTS[name]
    said = {"openContests": waiting, "overdueContests": overdue}
    told = report(revisions={"r": {"auditor": {"a": said, "b": {}}}})
    assert condition(observed(IMPORTED, child("Pod", "a", pod(auditor=ready)), report=told), "AuditorReady") == want
    silent = condition(observed(IMPORTED, child("Pod", "a", pod(auditor=ready))), "AuditorReady")
    assert "contested" not in silent[2], "nobody reported any"


# Verdicts that pods claim, and the ledger's


def claimed(**claim: Any) -> Observed:
    """Pod ``p`` of revision r claims this; entry 7 of the ledger says Pass, and nothing in force."""
    recorded = [
        RecordedVerdict(model="m", revision="r", ledger_index=5, verdict="Fail", samples=50, summary="older"),
        RecordedVerdict(model="m", revision="r", ledger_index=7, verdict="Pass", samples=90, summary="newer"),
        RecordedVerdict(model="m", revision="s", ledger_index=9, verdict="Fail", samples=99, summary="another's"),
    ]
    told = report(revisions={"r": {"auditor": {"p": claim}}})
    return observed(IMPORTED, report=told, archive_report=ArchiveReport(verdicts=recorded))


CLAIMS: dict[str, tuple[dict[str, Any], bool]] = {
    "what the newest entry says": ({"verdict": "Pass", "ledgerIndex": 7}, False),
    "of the newest entry, another verdict": ({"verdict": "Fail", "ledgerIndex": 7}, True),
    "of the newest entry, another action": ({"verdict": "Pass", "inForce": "Rollback", "ledgerIndex": 7}, True),
    "an entry that isn't there yet": ({"verdict": "Pass", "ledgerIndex": 8}, True),
    "no entry": ({"verdict": "Pass"}, True),
    "an older entry": ({"verdict": "Fail", "ledgerIndex": 5}, False),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_which_claims_of_a_pod_the_ledger_does_not_bear_out(name: str) -> None:
    claim, open_ = CLAIMS[name]
    assert [c.verdict for c in unproved(claimed(**claim), "r")] == ([claim["verdict"]] if open_ else [])
    newest = PodVerdict(verdict="Pass", samples=90, summary="newer", ledger_index=7)
    assert verdict(claimed(**claim), "r") == newest, "the newest entry of this revision decides, whatever a pod claims"


@pytest.mark.parametrize(
    ("claims", "want"),
    [
        ([("Fail", 10), ("Pass", 20)], ("Pass", 20)),
        ([("Pass", 20), ("Fail", 20), ("Unknown", 20)], ("Fail", 20)),
        ([("Pass", 20), ("Unknown", 20)], ("Unknown", 20)),
        ([], None),
    ],
    ids=["who has seen more", "the worst of equals", "unknown is worse than passed", "nobody spoke"],
)
def test_before_the_ledger_has_a_verdict_one_claim_counts_and_names_no_entry(
    claims: list[tuple[str, int]], want: tuple[str, int] | None
) -> None:
    pods = {f"p{n}": {"verdict": v, "samples": s, "ledgerIndex": n} for n, (v, s) in enumerate(claims)}
    obs = observed(IMPORTED, report=report(revisions={"r": {"auditor": pods}}), archive_report=None)
    found = verdict(obs, "r")
    assert (found and (found.verdict, found.samples, found.ledger_index)) == (want and (*want, None))


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "in words": ({"refused": True, "message": "no model"}, "no model"),
    "without words": ({"refused": True}, "refused"),
    "ready by now": ({"refused": True, "ready": True, "message": "no model"}, ""),
    "not refused": ({"message": "no model"}, ""),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_a_pod_refuses_for_good_counts_while_it_is_there(name: str) -> None:
    entry, want = REFUSALS[name]
    told = report(revisions={"r": {"server": {"p": entry}}})
    there = observed(IMPORTED, child("Pod", "p", pod()), report=told)
    assert refusal(there, "r") == want
    assert refusal(observed(IMPORTED, child("ConfigMap", "p"), report=told), "r") == "", "its pod is gone"
    assert refusal(there, "another") == refusal(there, None) == ""


# Revisions that don't run


TARGET = Revision.of(resolved(IMPORTED), DIGEST).name
REJECTED = GovernedModelStatus(stable=RevisionStatus(name="old", percent=100), rejected=TARGET)


def test_a_rejected_revision_does_not_take_the_place_of_what_is_gone() -> None:
    decision = decide(observed(IMPORTED, status=REJECTED))
    assert (decision.stable, decision.held, decision.rejected) == (None, False, TARGET)
    degraded, gone = decision.violations
    assert (degraded.condition, degraded.reason, degraded.status, degraded.stalled) == (
        "Degraded", Reason.CANARY_REJECTED, "True", True,
    )  # fmt: skip
    message = f"revision {TARGET} was rolled back earlier and is not tried again: change the spec to another revision"
    assert degraded.message == message
    assert (gone.condition, gone.reason, gone.stalled) == ("PredictorReady", Reason.NOT_DEPLOYED, True)
    assert gone.message.startswith(f"revision {TARGET} was rejected, and the Deployment of what served before is gone")


def test_a_rejected_revision_leaves_what_serves_as_it_is() -> None:
    decision = decide(observed(IMPORTED, child("Deployment", "m-predictor", workload("old")), status=REJECTED))
    assert (decision.stable, decision.held, decision.rejected) == (None, True, TARGET)
    assert [v.condition for v in decision.violations] == ["Degraded"]


def known(kind: str, reason: str, message: str) -> Condition:
    return Condition(type=kind, status="False", reason=reason, message=message, last_transition_time=NOW)


CAN_NOT_SERVE = GovernedModelStatus(
    stable=RevisionStatus(name="old", percent=100),
    rejected=TARGET,
    conditions=[known("PredictorReady", "NotDeployed", "idle"), known("ModelVerified", "ImportRefused", "no model")],
)
IDLE = "nothing runs: what storageUri brought can't be served under this spec"
NOTHING_RUNS = (
    Violation("ModelVerified", Reason.IMPORT_REFUSED, "no model", stalled=True),
    Violation("PredictorReady", Reason.NOT_DEPLOYED, IDLE, stalled=True),
)
REFUSED_BY_A_POD: dict[str, tuple[str | None, bool, tuple[Violation, ...]]] = {
    # name: (revision of the Deployment that is there, whether it is kept, what is said)
    "nothing runs": (None, False, NOTHING_RUNS),
    "its own pods run": (TARGET, False, NOTHING_RUNS),
    "another revision serves": ("old", True, ()),
}


@pytest.mark.parametrize("name", REFUSED_BY_A_POD)
def test_what_can_not_be_served_runs_no_more_and_says_what_was_refused(name: str) -> None:
    revision, held, said = REFUSED_BY_A_POD[name]
    there = [child("Deployment", "m-predictor", workload(revision, available=0))] if revision else []
    decision = decide(observed(IMPORTED, *there, status=CAN_NOT_SERVE))
    assert (decision.stable, decision.held, decision.rejected) == (None, held, TARGET)
    assert decision.violations == said


UNSERVABLE: dict[str, tuple[dict[str, Any], bool]] = {
    "none of its pods serves": ({"available": 0}, True),
    "one of its pods serves": ({"available": 1}, False),
    "another revision's pods": ({"available": 0, "revision": "old"}, False),
}


@pytest.mark.parametrize("name", UNSERVABLE)
def test_a_revision_is_given_up_where_a_pod_refused_it_and_none_serves(name: str) -> None:
    facts, given_up = UNSERVABLE[name]
    refused = report(revisions={TARGET: {"server": {"p": {"refused": True, "message": "no model"}}}})
    deployment = child("Deployment", "m-predictor", workload(**{"revision": TARGET, **facts}))
    decision = decide(observed(IMPORTED, deployment, child("Pod", "p", pod()), report=refused))
    assert (decision.rejected, decision.stable is None) == ((TARGET, True) if given_up else (None, False))


@pytest.mark.parametrize(("available", "serves"), [(0, False), (1, True)])
def test_a_trial_without_its_stable_deployment_is_told_and_decided_by_nobody(available: int, serves: bool) -> None:
    rollout = {"strategy": "Canary", "steps": [10, 50], "interval": "5m"}
    spec = {**IMPORTED, "lifecycle": {"rollout": rollout}}
    name = Revision.of(resolved(spec), DIGEST).name
    trial = RevisionStatus(name=name, percent=10, since="2026-11-23T11:59:00Z")
    status = GovernedModelStatus(stable=RevisionStatus(name="old", percent=100), canary=trial)
    canary = child("Deployment", "m-canary", workload(name, "canary", available=available))
    decision = decide(observed(spec, canary, status=status))
    assert (decision.stable_gone, decision.canary_serves, decision.held) == (True, serves, True)
    assert decision.canary is not None
    assert (decision.canary.name, decision.canary.percent, decision.canary.since) == (name, 10, trial.since)
    (gone,) = decision.violations
    assert (gone.condition, gone.reason, gone.status, gone.stalled) == ("Degraded", Reason.STABLE_GONE, "True", False)
    beside = decide(observed(spec, canary, child("Deployment", "m-predictor", workload("old")), status=status))
    assert (beside.stable_gone, beside.violations) == (False, ())
    interrupted = decide(observed(spec, child("Deployment", "m-predictor", workload("old")), status=status))
    assert interrupted.canary is not None
    since = (interrupted.canary.percent, interrupted.canary.since)
    assert since == (10, f"{NOW.isoformat()[:19]}Z"), "no time passes without pods"


def test_a_canary_that_can_not_serve_what_it_was_brought_is_rolled_back() -> None:
    refused = report(revisions={TARGET: {"server": {"p": {"refused": True, "message": "m.onnx: no model"}}}})
    trial = RevisionStatus(name=TARGET, percent=10, since="2026-11-23T11:59:00Z")
    obs = observed(IMPORTED, child("Pod", "p", pod(track="canary")), report=refused)
    assert judge(obs, trial) == Judgement("reject", canary_problem(Reason.IMPORT_REFUSED), "m.onnx: no model")


@pytest.mark.parametrize(("summary", "want"), [("", ""), ("SPD 0.3", ": SPD 0.3")], ids=["no words", "words"])
def test_a_canary_waits_for_the_ledger_to_have_the_verdict_of_its_pod(summary: str, want: str) -> None:
    spec = {**IMPORTED, "governance": {"bias": {**BIAS, "action": "BlockPromotion"}}}
    name = Revision.of(resolved(spec), DIGEST).name
    trial = RevisionStatus(name=name, percent=10, since="2026-11-23T11:59:00Z")
    claim = {"verdict": "Pass", "samples": 10**6, "summary": summary}
    obs = observed(spec, report=report(revisions={name: {"auditor": {"p": claim}}}))
    message = f"a bias verdict of a pod isn't in the ledger yet{want}"
    assert judge(obs, trial) == Judgement("wait", message=message)


def test_a_deployment_that_is_being_deleted_is_no_workload() -> None:
    obs = observed(IMPORTED, child("Deployment", "m-predictor", workload(TARGET)))
    assert obs.workload() is not None
    leaving = {key: c._replace(deleting=True) if key[0] == "Deployment" else c for key, c in obs.children.items()}
    assert replace(obs, children=leaving).workload() is None
