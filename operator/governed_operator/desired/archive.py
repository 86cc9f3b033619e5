"""The namespace's archive: StatefulSet with a retained volume, Service, access."""

from urllib.parse import urlsplit

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.names import ARCHIVE, GROUP, LABEL_COMPONENT, PART_OF, REPORT_PLURAL
from governed_operator.desired import environment as env
from governed_operator.desired import keys, pod
from governed_operator.desired.access import report_rules
from governed_operator.desired.canonical import canonical
from governed_operator.desired.manifest import Manifest, common_labels, shared
from governed_operator.kube.kinds import REPORT, ROLE, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT, STATEFUL_SET
from governed_operator.settings import OperatorSettings

COMPONENT = "archive"


def archive_service(namespace: str, settings: OperatorSettings) -> Manifest:
    return shared(
        SERVICE,
        ARCHIVE,
        namespace,
        COMPONENT,
        spec={
            "selector": _selector(),
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                for name, port in _ports(settings).items()
            ],
        },
    )


def archive_stateful_set(namespace: str, settings: OperatorSettings) -> Manifest:
    """One writer: a ledger has one head. Its volume outlives the StatefulSet and the models."""
    return shared(
        STATEFUL_SET,
        ARCHIVE,
        namespace,
        COMPONENT,
        spec={
            "replicas": 1,
            "serviceName": ARCHIVE,
            "selector": {"matchLabels": _selector()},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": {"metadata": {"labels": common_labels(COMPONENT)}, "spec": _pod(namespace, settings)},
            "volumeClaimTemplates": [_claim(settings)],
        },
    )


def _selector() -> dict[str, str]:
    return {"app.kubernetes.io/part-of": PART_OF, LABEL_COMPONENT: COMPONENT}


def _pod(namespace: str, settings: OperatorSettings) -> Manifest:
    return {
        **pod.account(ARCHIVE),
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod.security_context(),
        **({"imagePullSecrets": [{"name": s} for s in settings.pull_secrets]} if settings.pull_secrets else {}),
        "containers": [_container(namespace, settings)],
        "volumes": [
            pod.secret_volume("keys", object_names.ARCHIVE_KEYS),
            pod.memory_volume("tmp", "64Mi"),
            pod.account_volume(),
            *_objects_volumes(settings),
        ],
    }


def _container(namespace: str, settings: OperatorSettings) -> Manifest:
    return pod.container(
        "archive",
        settings.images.archive,
        pod.python_module("governed_serving.archive", "serve"),
        settings.pull_policy,
        env=[
            *env.identity(),
            env.variable(rt.KEK_FILE, f"{rt.MOUNT_KEYS}/{rt.KEK_NAME}"),
            env.variable(rt.ARCHIVE_ROOT_FILE, f"{rt.MOUNT_KEYS}/{rt.ROOT_NAME}"),
            env.variable(rt.ARCHIVE_DIR, rt.MOUNT_ARCHIVE),
            env.variable(rt.HTTP_PORT, rt.PORT_ARCHIVE),
            env.variable(rt.REPORT, env.report_url(namespace, ARCHIVE)),
            *([env.variable(rt.LEDGER_PORT, rt.PUBLIC_LEDGER_PORT)] if settings.ledger_readers else []),
            *_witnesses(settings),
            *_objects(namespace, settings),
        ],
        ports=[{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _ports(settings).items()],
        **pod.patient_probes("http", start=600),  # a large ledger's tiles and index may have to be made anew
        # a start takes about 0.9 s of a core, on a full node a share of this size: 9 s; at rest it needs 3m
        resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        volumeMounts=[
            pod.mount("keys", rt.MOUNT_KEYS, read_only=True),
            pod.mount(object_names.ARCHIVE_VOLUME, rt.MOUNT_ARCHIVE),
            pod.mount("tmp", "/tmp"),
            pod.account_mount(),
            *(pod.mount(v["name"], _MOUNTS[v["name"]], read_only=True) for v in _objects_volumes(settings)),
        ],
    )


def _ports(settings: OperatorSettings) -> dict[str, int]:
    return {"http": rt.PORT_ARCHIVE} | ({"ledger": rt.PUBLIC_LEDGER_PORT} if settings.ledger_readers else {})


def _witnesses(settings: OperatorSettings) -> list[Manifest]:
    variables = []
    if settings.witnesses:
        variables.append(env.variable(rt.WITNESSES, "\n".join(settings.witnesses)))
    if settings.witness_quorum:
        variables.append(env.variable(rt.WITNESS_QUORUM, settings.witness_quorum))
    return variables


_MOUNTS = {"objects": rt.MOUNT_OBJECTS, "objects-ca": rt.MOUNT_OBJECTS_CA}


def _objects(namespace: str, settings: OperatorSettings) -> list[Manifest]:
    """Each namespace's blobs below a prefix of its own: one model's archive has no way to another's."""
    if not settings.objects:
        return []
    parts = urlsplit(settings.objects)
    place = parts._replace(path="/".join(["", *filter(None, parts.path.split("/")), namespace])).geturl()
    out = [env.variable(rt.OBJECTS, place)]
    if settings.objects_secret:
        out.append(env.variable(rt.OBJECTS_KEYS, rt.MOUNT_OBJECTS))
    if settings.objects_ca_secret:
        out.append(env.variable(rt.OBJECTS_CA, f"{rt.MOUNT_OBJECTS_CA}/ca.crt"))
    return out


def _objects_volumes(settings: OperatorSettings) -> list[Manifest]:
    secrets = {"objects": settings.objects_secret, "objects-ca": settings.objects_ca_secret}
    return [pod.secret_volume(name, secret) for name, secret in secrets.items() if settings.objects and secret]


def _claim(settings: OperatorSettings) -> Manifest:
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": canonical(settings.archive_size)}},
        "volumeMode": "Filesystem",
    }
    if settings.archive_storage_class:
        spec["storageClassName"] = settings.archive_storage_class
    # the list is atomic, so the server's defaults are part of what we apply
    frame = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}
    return frame | {"metadata": {"name": object_names.ARCHIVE_VOLUME, "labels": common_labels(COMPONENT)}, "spec": spec}


def archive_access(namespace: str) -> list[Manifest]:
    """The archive may patch the status of the report that bears its name, and read those of the namespace's models, by
    name: how long their payloads are kept."""
    reads = {"apiGroups": [GROUP], "resources": [REPORT_PLURAL], "verbs": ["get"]}
    return [
        shared(REPORT, ARCHIVE, namespace, COMPONENT),
        shared(SERVICE_ACCOUNT, ARCHIVE, namespace, COMPONENT),
        shared(ROLE, ARCHIVE, namespace, COMPONENT, rules=[*report_rules(ARCHIVE), reads]),
        shared(
            ROLE_BINDING,
            ARCHIVE,
            namespace,
            COMPONENT,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ARCHIVE},
            subjects=[{"kind": "ServiceAccount", "name": ARCHIVE, "namespace": namespace}],
        ),
    ]


def archive_keys(namespace: str) -> Manifest:
    return keys.archive_keys(namespace)
