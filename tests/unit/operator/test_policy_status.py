"""What a status says, word for word, and which of its figures are worth a write."""

from dataclasses import replace
from typing import Any

import pytest
from builders import BIAS, DIGEST, IMPORTED, TRAINED, child, observed, pod, report, resolved, workload

from governed_api.model import ArtefactStatus, GovernedModelStatus, LedgerStatus
from governed_api.names import ARCHIVE
from governed_api.report import ArchiveReport
from governed_operator.desired.decision import Revision
from governed_operator.desired.service import service_url
from governed_operator.policy.decide import decide
from governed_operator.policy.observed import Observed
from governed_operator.policy.status import significant, status_of

EXPLAINED = {**IMPORTED, "explainer": {}}
BIASED = {**IMPORTED, "governance": {"bias": BIAS}}
SUSPENDED = "spec.suspend is true: nothing runs"


def condition(obs: Observed, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in status_of(obs, decide(obs)).conditions if c.type == kind]
    return found.status, found.reason, found.message


def deployed(
    spec: dict[str, Any] = IMPORTED, *more: Any, facts: dict[str, Any] | None = None, **changes: Any
) -> Observed:
    name = Revision.of(resolved(spec), DIGEST).name
    return observed(spec, child("Deployment", "m-predictor", workload(name, **(facts or {}))), *more, **changes)


def test_a_deployed_model_has_an_address_and_replicas_and_another_none() -> None:
    obs = deployed(facts={"replicas": 3})
    status = status_of(obs, decide(obs))
    assert (status.url, status.replicas) == (service_url(obs.subject), 3)
    bare = observed()
    status = status_of(bare, decide(bare))
    assert (status.url, status.replicas) == (None, 0)
    stopped = deployed({**IMPORTED, "suspend": True})
    assert status_of(stopped, decide(stopped)).url is None


@pytest.mark.parametrize(
    ("trained", "want"),
    [
        ({"digest": DIGEST, "blob": "b", "variant": "int8"}, ("b", "int8")),
        ({"digest": DIGEST}, ("", "")),
        ({"digest": "sha256:" + "0" * 64, "blob": "b", "variant": "int8"}, ("", "")),
        (None, ("", "")),
    ],
)
def test_blob_and_variant_are_those_of_the_artefact_that_serves(trained: Any, want: tuple[str, str]) -> None:
    obs = deployed(report=report(trainer={"phase": "Succeeded", "artefact": trained}))
    assert status_of(obs, decide(obs)).artefact == ArtefactStatus(digest=DIGEST, blob=want[0], variant=want[1])


def test_the_ledgers_head_is_the_archives() -> None:
    told = ArchiveReport(size=7, root_hash="r", checkpoint="c")
    known = GovernedModelStatus(ledger=LedgerStatus(size=1, root_hash="q", checkpoint="b"))
    obs = observed(archive_report=told, status=known)
    assert status_of(obs, decide(obs)).ledger == LedgerStatus(size=7, root_hash="r", checkpoint="c")
    silent = replace(obs, archive_report=ArchiveReport(size=9))
    assert status_of(silent, decide(silent)).ledger == known.ledger


@pytest.mark.parametrize(
    ("letters", "want"),
    [
        (0, ""),
        (1, "1 ledger entry was refused for ever; the reason is in the ledger's entries of type deadLetter"),
        (2, "2 ledger entries were refused for ever; the reason is in the ledger's entries of type deadLetter"),
    ],
)
def test_refused_entries_are_counted_in_words(letters: int, want: str) -> None:
    obs = observed(report=report(revisions={"r": {"auditor": {"p": {"deadLetters": letters}}}}))
    assert condition(obs, "ArchiveReady") == ("True", "Serving", want)


def test_what_the_archive_refuses_and_what_its_log_lacks_degrade_a_model_that_serves() -> None:
    pods = {"a": {}, "c": {"refused": "415 not sealed"}, "b": {"refused": "403 the token is that of other"}}
    obs = observed(report=report(revisions={"r": {"auditor": pods}}))
    status, reason, message = condition(obs, "Degraded")
    assert (status, reason) == ("True", "ShippingRefused")
    assert "pod b ships (403 the token is that of other)" in message
    damaged = replace(obs, archive_report=ArchiveReport(size=9, message="entry 3 can't be read; a backup has it"))
    want = ("True", "LedgerFaults", "the namespace's archive: entry 3 can't be read; a backup has it")
    assert condition(damaged, "Degraded") == want, "what concerns all models is told first"
    assert condition(damaged, "ArchiveReady")[0] == "True"
    mended = replace(obs, report=report(revisions={"r": {"auditor": {"b": {"refused": ""}}}}))
    assert condition(mended, "Degraded") == ("False", "AsExpected", "")


def test_an_archive_without_a_ready_pod_is_not_ready() -> None:
    want = ("False", "ArchiveNotReady", "the namespace's archive has no ready pod")
    empty = dict([child("StatefulSet", ARCHIVE, workload(available=0))])
    assert condition(observed(shared=empty), "ArchiveReady") == want
    assert condition(observed(shared={}), "ArchiveReady") == want


def test_keysets_say_which_secret_wraps_them() -> None:
    assert condition(observed(), "EncryptionReady") == (
        "True",
        "Envelope",
        "keysets are wrapped by the key in Secret m-kek",
    )
    assert condition(observed(children={}), "EncryptionReady")[2] == "Secret m-kek is being made"


@pytest.mark.parametrize(
    ("facts", "want"),
    [
        ({}, ("True", "1 replicas")),
        ({"observed": False}, ("False", "the Deployment controller has not seen the present revision yet")),
        ({"revision": "old"}, ("False", "the Deployment controller has not seen the present revision yet")),
        ({"available": 0}, ("False", "0 of 1 replicas are available, 1 up to date")),
        ({"replicas": 2}, ("False", "1 of 1 replicas are available, 1 up to date")),
        ({"wanted": 0, "available": 0, "replicas": 0, "updated": 0}, ("True", "0 replicas")),
    ],
)
def test_what_a_predictor_waits_for(facts: dict[str, Any], want: tuple[str, str]) -> None:
    name = Revision.of(resolved(IMPORTED), DIGEST).name
    obs = observed(IMPORTED, child("Deployment", "m-predictor", workload(**{"revision": name, **facts})))
    status, _, message = condition(obs, "PredictorReady")
    assert (status, message) == want


def test_a_predictor_that_is_not_there_or_not_wanted() -> None:
    assert condition(observed(TRAINED), "PredictorReady") == ("False", "NotDeployed", "no artefact to serve yet")
    suspended = {**TRAINED, "suspend": True}
    assert condition(observed(suspended), "PredictorReady") == ("False", "Suspended", SUSPENDED)
    assert condition(observed(suspended), "Ready") == ("False", "Suspended", SUSPENDED)
    assert condition(observed(suspended), "TrainingSucceeded") == ("Unknown", "Suspended", "spec.suspend is true")


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"facts": {"wanted": 0}}, "no pod runs; each verifies the artefact before it serves"),
        ({"facts": {"available": 0}}, "no pod has verified the artefact yet"),
        ({}, "pods serve only after their artefact matched its digest"),
    ],
)
def test_what_shows_that_the_artefact_is_the_one(changes: dict[str, Any], want: str) -> None:
    assert condition(deployed(**changes), "ModelVerified")[2] == want


def test_a_server_that_verified_says_so() -> None:
    name = Revision.of(resolved(IMPORTED), DIGEST).name
    obs = deployed(report=report(revisions={name: {"server": {"p": {"verified": True}}}}))
    assert condition(obs, "ModelVerified") == ("True", "DigestMatched", "the server found the artefact's digest right")
    foreign = {"predictor": {"model": {"runtime": {"image": "example.org/llm:1", "port": 9000}}}}
    assert condition(observed(foreign), "ModelVerified")[2] == "what a foreign runtime loads is not verified"


@pytest.mark.parametrize(
    ("pods", "want"),
    [
        ([], ("Unknown", "NoPods", "no serving pod yet")),
        ([pod(server=True, explainer=True)], ("True", "Serving", "")),
        ([pod(server=True)], ("False", "ContainerNotReady", "container explainer is ready in 0 of 1 pods")),
        (
            [pod(explainer=True), pod(explainer=False)],
            ("False", "ContainerNotReady", "container explainer is ready in 1 of 2 pods"),
        ),
        ([pod(track="canary", explainer=False)], ("Unknown", "NoPods", "no serving pod yet")),
    ],
)
def test_a_container_is_ready_when_it_is_in_every_stable_pod(pods: list[Any], want: tuple[str, str, str]) -> None:
    obs = deployed(EXPLAINED, *(child("Pod", f"p{n}", facts) for n, facts in enumerate(pods)))
    assert condition(obs, "ExplainerReady") == want


def test_no_verdict_is_told_as_such() -> None:
    assert condition(deployed(BIASED), "BiasWithinThresholds") == (
        "Unknown",
        "NoVerdict",
        "the auditor has not reported yet",
    )


def test_only_figures_that_move_by_themselves_are_worth_no_write() -> None:
    def status(verdict: str = "Pass", message: str = "m", of: str = "Ready", **more: Any) -> dict[str, object]:
        return significant(
            {"conditions": [{"type": of, "status": "True", "message": message}], "bias": {"verdict": verdict}, **more}
        )

    assert status(bias={"verdict": "Pass", "samples": 1}) == status(bias={"verdict": "Pass", "samples": 2})
    assert status(verdict="Fail") != status()
    assert status(message="other") != status()
    assert status(of="BiasWithinThresholds", message="other") == status(of="BiasWithinThresholds")
    assert status(of="BiasWithinThresholds") != status()
    assert status(url="u") != status()
    assert significant({})["conditions"] == []


@pytest.mark.parametrize(
    ("verdict", "want"),
    [("Pass", ("Unknown", "NoVerdict")), ("Fail", ("False", "BeyondThreshold")),
     ("Unknown", ("Unknown", "TooFewSamples"))],
)  # fmt: skip
@pytest.mark.parametrize("pods", [True, False], ids=["a pod's", "the revision's"])
def test_a_verdict_that_the_archive_has_not_shows_what_speaks_against_the_model_alone(
    verdict: str, want: tuple[str, str], pods: bool
) -> None:
    """Whatever index it claims: the status names no entry for it."""
    claim = {"verdict": verdict, "summary": "s", "samples": 10**9, "ledgerIndex": 2**62}
    parts: dict[str, Any] = {"revisions": {"r": {"auditor": {"p": claim}}}} if pods else {"auditor": claim}
    spec = {**IMPORTED, "governance": {"bias": BIAS}}
    deployed = child("Deployment", "m-predictor", workload("r"))
    obs = observed(spec, deployed, report=report(**parts), archive_report=None)
    found = status_of(obs, decide(obs))
    condition = next(c for c in found.conditions if c.type == "BiasWithinThresholds")
    assert (condition.status, condition.reason) == want
    assert found.bias is not None
    assert (found.bias.verdict, found.bias.ledger_index) == (verdict, None)
