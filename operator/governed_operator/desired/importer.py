"""The importer Job: fetches what storageUri names over a network and puts its artefact into the archive. Its pod alone
has the source's credentials and a way out to it; its name hashes what is imported, so that nothing is fetched twice."""

from typing import NamedTuple

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.roles import Role
from governed_operator.desired import environment as env
from governed_operator.desired import pod, specification
from governed_operator.desired.canonical import canonical
from governed_operator.desired.manifest import ANNOTATION_CREATE_ONCE, Manifest, Subject, manifest, model_labels
from governed_operator.desired.trainer import failure_rules, job_name
from governed_operator.kube.kinds import JOB

COMPONENT = "importer"
KEYS, CA = "source-keys", "source-ca"
"""Volumes."""
DEADLINE = 24 * 3600
"""Seconds: an import that takes longer is given up."""


def importer_job(subject: Subject) -> Manifest | None:
    if not subject.model.spec.predictor.model.is_fetched:
        return None
    return manifest(
        JOB,
        job_name(subject),
        subject,
        COMPONENT,
        annotations={ANNOTATION_CREATE_ONCE: "true"},
        spec={
            "backoffLimit": 3,
            "activeDeadlineSeconds": DEADLINE,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": failure_rules(COMPONENT)},
            "template": {"metadata": {"labels": model_labels(subject, COMPONENT)}, "spec": _pod(subject)},
        },
    )


def _pod(subject: Subject) -> Manifest:
    return {
        "restartPolicy": "Never",
        **pod.account(object_names.account(subject.name)),
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod.security_context(),
        **pod.scheduling(subject),
        "containers": [_container(subject)],
        "volumes": [
            specification.training_volume(subject),
            pod.keys_volume(subject.name, subject.model.spec, Role.IMPORTER),
            pod.source_volume(_background(subject)),
            pod.memory_volume("fetched", canonical(subject.model.spec.predictor.model.room)),
            *(secret.volume for secret in _secrets(subject)),
            pod.memory_volume("tmp", "1Gi"),
            pod.account_volume(),
        ],
    }


def _background(subject: Subject) -> str | None:
    """URI of the rows that explanations compare with, where they lie in a file."""
    explainer = subject.model.spec.explainer
    return explainer.background.uri if explainer and explainer.background else None


class _Secret(NamedTuple):
    """What of a Secret the container sees: a volume, where it is mounted, and the variable that says so."""

    volume: Manifest
    mount: Manifest
    variable: Manifest


def _secrets(subject: Subject) -> list[_Secret]:
    storage, out = subject.model.spec.predictor.model.storage, list[_Secret]()
    if storage and storage.secret_ref:
        out.append(
            _Secret(
                pod.secret_volume(KEYS, storage.secret_ref.name),
                pod.mount(KEYS, rt.MOUNT_SOURCE_KEYS, read_only=True),
                env.variable(rt.SOURCE_KEYS, rt.MOUNT_SOURCE_KEYS),
            )
        )
    if storage and storage.ca_secret_ref:
        key = storage.ca_secret_ref.key
        out.append(
            _Secret(
                pod.secret_volume(CA, storage.ca_secret_ref.name, items=[{"key": key, "path": key}]),
                pod.mount(CA, rt.MOUNT_SOURCE_CA, read_only=True),
                env.variable(rt.SOURCE_CA, f"{rt.MOUNT_SOURCE_CA}/{key}"),
            )
        )
    return out


def _container(subject: Subject) -> Manifest:
    settings, secrets = subject.settings, _secrets(subject)
    return pod.container(
        COMPONENT,
        settings.images.server,
        pod.python_module("governed_serving.importer", "job"),
        settings.pull_policy,
        env=[
            *env.model_container(subject.namespace, subject.name),
            env.variable(rt.FETCH_DIR, rt.MOUNT_FETCH),
            env.variable(rt.SOURCE_DIR, rt.MOUNT_SOURCE),
            *(secret.variable for secret in secrets),
        ],
        resources={"requests": {"cpu": "100m", "memory": "512Mi"}},
        volumeMounts=[
            pod.mount("spec", rt.MOUNT_SPEC, read_only=True),
            pod.keys_mount(Role.IMPORTER),
            pod.mount("fetched", rt.MOUNT_FETCH),
            pod.mount("source", rt.MOUNT_SOURCE, read_only=True),
            *(secret.mount for secret in secrets),
            pod.mount("tmp", "/tmp"),
            pod.account_mount(),
        ],
    )
