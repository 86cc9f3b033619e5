"""Environment of each container: the contract of governed_api.runtime, and only what the container needs."""

from governed_api import object_names
from governed_api import runtime as rt
from governed_api.callers import CALLERS_FILE, CALLERS_KEY
from governed_api.names import ARCHIVE, GROUP, REPORT_PLURAL, VERSION
from governed_operator.desired.manifest import Manifest

API_SERVER = "https://kubernetes.default.svc"


def variable(name: str, value: str | int) -> Manifest:
    """Raises KeyError for a name that the contract doesn't have: a local run wouldn't know what its value is."""
    assert rt.VARIABLES[name]
    return {"name": name, "value": str(value)}


def downward(name: str, path: str) -> Manifest:
    assert rt.VARIABLES[name]
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def report_url(namespace: str, name: str) -> str:
    """Where the pods of ``name`` write their own part: the status of its GovernanceReport."""
    return f"{API_SERVER}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{REPORT_PLURAL}/{name}/status"


def loopback(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def identity() -> list[Manifest]:
    return [
        downward(rt.NAMESPACE, "metadata.namespace"),
        downward(rt.POD_NAME, "metadata.name"),
        variable(rt.TEMPORARY_DIR, "/tmp"),
        *one_thread(),
    ]


def one_thread() -> list[Manifest]:
    """BLAS and OpenMP start a thread per core of the node otherwise, which costs many times the CPU that small matrices
    need."""
    return [variable(rt.OPENMP_THREADS, 1), variable(rt.OPENBLAS_THREADS, 1)]


def model_spec() -> list[Manifest]:
    return [variable(rt.SPEC, f"{rt.MOUNT_SPEC}/{rt.SPEC_FILE}")]


def keys() -> list[Manifest]:
    return [
        variable(rt.KEK_FILE, f"{rt.MOUNT_KEYS}/{rt.KEK_NAME}"),
        variable(rt.ARCHIVE_TOKEN_FILE, f"{rt.MOUNT_KEYS}/{rt.TOKEN_NAME}"),
    ]


def pod_tokens() -> list[Manifest]:
    return [variable(rt.POD_TOKENS, rt.MOUNT_POD_TOKENS)]


def callers() -> list[Manifest]:
    return [
        variable(rt.CALLERS, f"{rt.MOUNT_CALLERS}/{CALLERS_FILE}"),
        variable(rt.CALLERS_KEY_FILE, f"{rt.MOUNT_CALLERS_KEY}/{CALLERS_KEY}"),
    ]


def callers_url(namespace: str, model: str) -> Manifest:
    """Where the ConfigMap of who may call is heard of."""
    place = f"{API_SERVER}/api/v1/namespaces/{namespace}/configmaps/{object_names.callers(model)}"
    return variable(rt.CALLERS_URL, place)


def archive_address(namespace: str) -> list[Manifest]:
    return [variable(rt.ARCHIVE_URL, f"http://{ARCHIVE}.{namespace}.svc:{rt.PORT_ARCHIVE}")]


def revision(name: str, artefact: str) -> list[Manifest]:
    return [variable(rt.REVISION, name), variable(rt.ARTEFACT_DIGEST, artefact)]


def model_container(namespace: str, name: str) -> list[Manifest]:
    """What every container of a model's own pods reads."""
    return [
        *identity(),
        *model_spec(),
        *keys(),
        *archive_address(namespace),
        variable(rt.REPORT, report_url(namespace, name)),
    ]
