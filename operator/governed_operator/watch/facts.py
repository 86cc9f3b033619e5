"""What policy and status need to know of a child, taken from its status when an event comes; the rest isn't kept."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import msgspec

from governed_api.names import LABEL_COMPONENT, LABEL_REVISION, LABEL_TRACK
from governed_api.reasons import Cause, KubernetesReason, PassedOn, Reason
from governed_operator.kube.kinds import Object


class _Metadata(TypedDict, total=False):
    name: Any
    labels: Any
    generation: Any
    deletionTimestamp: Any


class _Container(TypedDict, total=False):
    name: Any
    restartPolicy: Any


class _Spec(TypedDict, total=False):
    replicas: Any
    suspend: Any
    containers: list[_Container]
    initContainers: list[_Container]


class _Part(TypedDict, total=False):
    """All that facts are taken from; the rest of a pod or Deployment, nine tenths of it, is skipped, not decoded."""

    metadata: _Metadata
    spec: _Spec
    status: dict[str, Any]
    data: Any
    value: Any


_part = msgspec.json.Decoder(_Part).decode

STUCK = {
    reason.value: reason
    for reason in (
        KubernetesReason.CRASH_LOOP_BACK_OFF,
        KubernetesReason.IMAGE_PULL_BACK_OFF,
        KubernetesReason.ERR_IMAGE_PULL,
        KubernetesReason.INVALID_IMAGE_NAME,
        KubernetesReason.ERR_IMAGE_NEVER_PULL,
        KubernetesReason.CREATE_CONTAINER_CONFIG_ERROR,
        KubernetesReason.CREATE_CONTAINER_ERROR,
        KubernetesReason.RUN_CONTAINER_ERROR,
    )
}
"""What a container that waits may be stuck in, by Kubernetes' word for it."""

FINAL = frozenset(
    {
        KubernetesReason.CRASH_LOOP_BACK_OFF,
        KubernetesReason.INVALID_IMAGE_NAME,
        KubernetesReason.OOM_KILLED,
        KubernetesReason.PROGRESS_DEADLINE_EXCEEDED,
    }
)
"""Problems that kstatus calls failed: waiting resolves none of them. An image, a node or a Secret may still come."""


class PodProblem(NamedTuple):
    """Why a pod doesn't run."""

    reason: Cause
    message: str


class WorkloadFacts(NamedTuple):
    """A Deployment or StatefulSet."""

    observed: bool
    """Its controller has seen the present generation."""
    replicas: int
    updated: int
    available: int
    wanted: int
    track: str
    revision: str
    problem: PodProblem | None


class JobFacts(NamedTuple):
    """A Job."""

    succeeded: bool
    failure: PodProblem | None
    suspended: bool


class PodFacts(NamedTuple):
    """A pod."""

    component: str
    track: str
    revision: str
    problem: PodProblem | None
    ready: tuple[tuple[str, bool], ...]
    """(container, ready) of containers and sidecars."""
    last_words: str = ""
    """End of what a container that failed said: its termination message, or its log's tail."""


class ClaimFacts(NamedTuple):
    """A PersistentVolumeClaim."""

    bound: bool


class NeighbourFacts(NamedTuple):
    """An HTTPRoute or a ScaledObject, which another controller carries out."""

    refusal: PodProblem | None
    """Why it doesn't."""


def _condition(status: Object, kind: str) -> Object:
    condition: Object = next((c for c in status.get("conditions") or () if c["type"] == kind), {})
    return condition


def workload(o: Object) -> WorkloadFacts:
    spec, status = o["spec"], o.get("status", {})
    labels = o["metadata"].get("labels", {})
    problem = None
    failure, progress = _condition(status, "ReplicaFailure"), _condition(status, "Progressing")
    if failure.get("status") == "True":
        problem = PodProblem(failure.get("reason", Reason.REPLICA_FAILURE), failure.get("message", ""))
    elif progress.get("reason") == KubernetesReason.PROGRESS_DEADLINE_EXCEEDED:
        problem = PodProblem(KubernetesReason.PROGRESS_DEADLINE_EXCEEDED, progress.get("message", ""))
    ready = status.get("availableReplicas", 0)
    return WorkloadFacts(
        observed=status.get("observedGeneration", 0) >= o["metadata"].get("generation", 0),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        available=ready,
        wanted=spec.get("replicas", 1),
        track=labels.get(LABEL_TRACK, ""),
        revision=labels.get(LABEL_REVISION, ""),
        problem=problem,
    )


def job(o: Object) -> JobFacts:
    status = o.get("status", {})
    failed = _condition(status, "Failed")
    failure = None
    if failed.get("status") == "True":
        failure = PodProblem(failed.get("reason", Reason.JOB_FAILED), failed.get("message", ""))
    complete = _condition(status, "Complete").get("status") == "True"
    return JobFacts(complete, failure, bool(o["spec"].get("suspend")))


def pod(o: Object) -> PodFacts:
    labels, status = o["metadata"].get("labels", {}), o.get("status", {})
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    running = {c["name"] for c in o["spec"]["containers"]}
    running |= {c["name"] for c in o["spec"].get("initContainers", ()) if c.get("restartPolicy") == "Always"}
    return PodFacts(
        component=labels.get(LABEL_COMPONENT, ""),
        track=labels.get(LABEL_TRACK, ""),
        revision=labels.get(LABEL_REVISION, ""),
        problem=None
        if o["metadata"].get("deletionTimestamp")
        else pod_problem(o["metadata"]["name"], status, statuses),
        ready=tuple(sorted((s["name"], bool(s.get("ready"))) for s in statuses if s["name"] in running)),
        last_words=next((words for s in statuses if (words := _last_words(s))), ""),
    )


def _last_words(container: Object) -> str:
    ended = container.get("state", {}).get("terminated") or {}
    lines = (ended.get("message") or "").strip().splitlines() if ended.get("exitCode") else []
    return lines[-1][-300:] if lines else ""


def pod_problem(name: str, status: Object, statuses: list[Object]) -> PodProblem | None:
    """The first thing that keeps a pod from running, in words that name pod and container."""
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == KubernetesReason.UNSCHEDULABLE:
        return PodProblem(KubernetesReason.UNSCHEDULABLE, f"pod {name}: {scheduled.get('message', '')}")
    for container in statuses:
        problem = _container_problem(container)
        if problem:
            return PodProblem(problem.reason, f"container {container['name']} of pod {name}: {problem.message}")
    if status.get("phase") == "Failed" and status.get("reason"):
        return PodProblem(PassedOn(status["reason"]), f"pod {name}: {status.get('message', '')}")
    return None


def _container_problem(container: Object) -> PodProblem | None:
    waiting = container.get("state", {}).get("waiting") or {}
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    if ended.get("reason") == KubernetesReason.OOM_KILLED and not container.get("ready"):
        return PodProblem(
            KubernetesReason.OOM_KILLED,
            f"used more memory than its limit ({container.get('restartCount', 0)} restarts)",
        )
    stuck = STUCK.get(waiting.get("reason", ""))
    if stuck:
        tail = f"; it exited with code {ended['exitCode']}" if "exitCode" in ended else ""
        last = f": {ended['message'].strip()[-300:]}" if ended.get("message") else ""
        return PodProblem(stuck, f"{waiting.get('message', '')}{tail}{last}")
    return None


def claim(o: Object) -> ClaimFacts:
    return ClaimFacts(o.get("status", {}).get("phase") == "Bound")


def route(o: Object) -> NeighbourFacts:
    """What a Gateway's controller said of an earlier generation counts no more."""
    for parent in o.get("status", {}).get("parents") or ():
        accepted = _condition(parent, "Accepted")
        current = accepted.get("observedGeneration", 0) >= o["metadata"].get("generation", 0)
        if accepted.get("status") == "False" and current:
            ref = parent["parentRef"]
            gateway = f"{ref.get('namespace', '')}/{ref['name']}"
            said = f": {accepted['message']}" if accepted.get("message") else ""
            return NeighbourFacts(
                PodProblem(PassedOn(accepted["reason"]), f"Gateway {gateway} refuses the HTTPRoute{said}")
            )
    return NeighbourFacts(None)


def scaled_object(o: Object) -> NeighbourFacts:
    """KEDA's Ready is False when it can't make its autoscaler, or a trigger is wrong; Unknown until it has looked."""
    ready = _condition(o.get("status", {}), "Ready")
    if ready.get("status") != "False":
        return NeighbourFacts(None)
    said = f": {ready['message']}" if ready.get("message") else ""
    return NeighbourFacts(
        PodProblem(ready.get("reason") or Reason.SCALED_OBJECT_NOT_READY, f"KEDA does not scale it{said}")
    )


Facts = WorkloadFacts | JobFacts | PodFacts | ClaimFacts | NeighbourFacts | int
"""Of a PriorityClass, its value."""

FACTS: Mapping[str, Callable[[Object], Facts]] = {
    "Deployment": workload,
    "StatefulSet": workload,
    "Job": job,
    "Pod": pod,
    "PersistentVolumeClaim": claim,
    "HTTPRoute": route,
    "ScaledObject": scaled_object,
    "PriorityClass": lambda o: o.get("value", 0),
}


def facts_of(kind: str, observed: bytes) -> Facts | None:
    """Facts of a kind, from an object's JSON; None for kinds whose mere presence matters."""
    taker = FACTS.get(kind)
    return taker(dict(_part(observed))) if taker else None
