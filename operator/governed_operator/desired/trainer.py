"""The trainer Job: its name hashes the training spec, so that the same training is never run twice."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.lifecycle import Training
from governed_api.quantities import seconds
from governed_api.roles import Role
from governed_operator.desired import environment as env
from governed_operator.desired import pod, specification
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, Manifest, Subject, manifest, model_labels
from governed_operator.kube.kinds import JOB

COMPONENT = "trainer"
PERMANENT_FAILURES = [2, rt.EXIT_REFUSED, 78]
"""Exit codes for which trying again is useless: usage, data, configuration (EX_CONFIG)."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def job_name(subject: Subject) -> str:
    """Of the Job that makes the artefact: by training, or by an import."""
    return object_names.training_job(subject.name, subject.model.training_hash())


def trainer_job(subject: Subject) -> Manifest | None:
    training = subject.model.spec.lifecycle.training
    if training is None:
        return None
    job = manifest(
        JOB,
        job_name(subject),
        subject,
        COMPONENT,
        annotations={ANNOTATION_CREATE_ONCE: "true"},
        spec={
            "backoffLimit": 3,
            "activeDeadlineSeconds": seconds(training.active_deadline),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": failure_rules(COMPONENT)},
            "template": {"metadata": {"labels": model_labels(subject, COMPONENT)}, "spec": _pod(subject, training)},
        },
    )
    if training.queue_name:
        job["metadata"]["labels"][QUEUE_LABEL] = training.queue_name
    return job


def failure_rules(container: str) -> list[Manifest]:
    """Exit codes that are final, and what isn't the Job's fault."""
    codes = {"containerName": container, "operator": "In", "values": PERMANENT_FAILURES}
    return [
        {"action": "FailJob", "onExitCodes": codes},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _pod(subject: Subject, training: Training) -> Manifest:
    return {
        "restartPolicy": "Never",
        **pod.account(object_names.account(subject.name)),
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod.security_context(),
        **pod.scheduling(subject),
        "containers": [_container(subject, training)],
        "volumes": [
            specification.training_volume(subject),
            pod.keys_volume(subject.name, subject.model.spec, Role.TRAINER),
            {"name": "data", "persistentVolumeClaim": {"claimName": object_names.data_claim(subject.name)}},
            pod.source_volume(training.data.uri),
            pod.memory_volume("tmp", "1Gi"),
            pod.account_volume(),
        ],
    }


def _container(subject: Subject, training: Training) -> Manifest:
    settings = subject.settings
    return pod.container(
        "trainer",
        settings.images.trainer,
        pod.python_module("governed_serving.trainer"),
        settings.pull_policy,
        env=[
            *env.model_container(subject.namespace, subject.name),
            env.variable(rt.DATA_DIR, rt.MOUNT_DATA),
            env.variable(rt.SOURCE_DIR, rt.MOUNT_SOURCE),
        ],
        resources=pod.resources(training.resources, "500m", "1Gi"),
        volumeMounts=[
            pod.mount("spec", rt.MOUNT_SPEC, read_only=True),
            pod.keys_mount(Role.TRAINER),
            pod.mount("data", rt.MOUNT_DATA),
            pod.mount("source", rt.MOUNT_SOURCE, read_only=True),
            pod.mount("tmp", "/tmp"),
            pod.account_mount(),
        ],
    )
