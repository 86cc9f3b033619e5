"""The contract between a pod template and the process in it: environment, ports, mount paths.

Processes read paths and ports from the environment alone, so that the local runner can map volumes to directories and
shift ports.
"""

from collections.abc import Mapping, Sequence
from enum import Enum

SPEC = "GOVERNED_SPEC"
KEK_FILE = "GOVERNED_KEK_FILE"
MODEL_DIR = "GOVERNED_MODEL_DIR"
SPOOL_DIR = "GOVERNED_SPOOL_DIR"
DATA_DIR = "GOVERNED_DATA_DIR"
SOURCE_DIR = "GOVERNED_SAMPLES_DIR"
FETCH_DIR = "GOVERNED_FETCH_DIR"
"""Of the importer: where files are fetched to, in memory."""
SOURCE_KEYS = "GOVERNED_SOURCE_KEYS"
SOURCE_CA = "GOVERNED_SOURCE_CA"
ARCHIVE_DIR = "GOVERNED_ARCHIVE_DIR"
ARCHIVE_URL = "GOVERNED_ARCHIVE_URL"
ARCHIVE_TOKEN_FILE = "GOVERNED_ARCHIVE_TOKEN_FILE"
ARCHIVE_ROOT_FILE = "GOVERNED_ARCHIVE_ROOT_FILE"
OBJECTS = "GOVERNED_OBJECTS"
"""Of the archive: s3://BUCKET/PREFIX?endpoint=URL&region=NAME, where its blobs are; on its volume otherwise."""
OBJECTS_KEYS = "GOVERNED_OBJECTS_KEYS"
OBJECTS_CA = "GOVERNED_OBJECTS_CA"
REPORT = "GOVERNED_REPORT"
POD_TOKENS = "GOVERNED_POD_TOKENS"
"""Folder of what the inner ports ask for in a pod with a foreign runtime: files server, explainer, auditor. Each port
has a token of its own: who took one while it was free would be shown what opens no other."""
CALLERS = "GOVERNED_CALLERS"
"""The document of callers (governed_api.callers)."""
CALLERS_KEY_FILE = "GOVERNED_CALLERS_KEY_FILE"
CALLERS_URL = "GOVERNED_CALLERS_URL"
"""Of the auditor: the document's ConfigMap at the API server. What is heard of it, the auditor puts beside the pod's
tokens."""
WITNESSES = "GOVERNED_WITNESSES"
"""Witnesses of the ledger: VKEY URL, one a line."""
WITNESS_QUORUM = "GOVERNED_WITNESS_QUORUM"
ARTEFACT_DIGEST = "GOVERNED_ARTEFACT_DIGEST"
REVISION = "GOVERNED_REVISION"
TRACK = "GOVERNED_TRACK"
POD_NAME = "GOVERNED_POD_NAME"
NAMESPACE = "GOVERNED_NAMESPACE"
HTTP_PORT = "GOVERNED_HTTP_PORT"
GRPC_PORT = "GOVERNED_GRPC_PORT"
INTERNAL_PORT = "GOVERNED_INTERNAL_PORT"
LEDGER_PORT = "GOVERNED_LEDGER_PORT"
"""Of the archive: checkpoints, keys and tiles of hashes, for anyone."""
PREDICTOR_URL = "GOVERNED_PREDICTOR_URL"
EXPLAINER_URL = "GOVERNED_EXPLAINER_URL"
UPSTREAM_URL = "GOVERNED_UPSTREAM_URL"
HOST = "GOVERNED_HOST"
"""Address that a process listens on; all by default."""
MAX_BODY_BYTES = "GOVERNED_MAX_BODY_BYTES"
THREADS = "GOVERNED_THREADS"
DRAIN_SECONDS = "GOVERNED_DRAIN_SECONDS"
TEMPORARY_DIR = "TMPDIR"
OPENMP_THREADS = "OMP_NUM_THREADS"
OPENBLAS_THREADS = "OPENBLAS_NUM_THREADS"
ALIBI_PYTHON = "GOVERNED_ALIBI_PYTHON"
"""Interpreter of an environment that has alibi: whoever runs a model on a laptop names it, no template does."""
CAPTUM_PYTHON = "GOVERNED_CAPTUM_PYTHON"
"""Interpreter of an environment that has captum, as of the one with alibi."""


class Kind(Enum):
    """What the value of an environment variable is: a local run maps it accordingly."""

    PORT = "a port that the process listens on"
    URL = "an address of another process, or of the API server"
    PATH = "a file or folder of a mounted volume"
    TEXT = "anything else"


VARIABLES: Mapping[str, Kind] = {
    SPEC: Kind.PATH, KEK_FILE: Kind.PATH, MODEL_DIR: Kind.PATH, SPOOL_DIR: Kind.PATH, DATA_DIR: Kind.PATH,
    FETCH_DIR: Kind.PATH, SOURCE_KEYS: Kind.PATH, SOURCE_CA: Kind.PATH,
    SOURCE_DIR: Kind.PATH, ARCHIVE_DIR: Kind.PATH, ARCHIVE_TOKEN_FILE: Kind.PATH, ARCHIVE_ROOT_FILE: Kind.PATH,
    CALLERS: Kind.PATH, CALLERS_KEY_FILE: Kind.PATH,
    POD_TOKENS: Kind.PATH, OBJECTS_KEYS: Kind.PATH, OBJECTS_CA: Kind.PATH,
    TEMPORARY_DIR: Kind.PATH, ALIBI_PYTHON: Kind.PATH, CAPTUM_PYTHON: Kind.PATH,
    ARCHIVE_URL: Kind.URL, REPORT: Kind.URL, CALLERS_URL: Kind.URL, PREDICTOR_URL: Kind.URL, EXPLAINER_URL: Kind.URL,
    UPSTREAM_URL: Kind.URL,
    HTTP_PORT: Kind.PORT, GRPC_PORT: Kind.PORT, INTERNAL_PORT: Kind.PORT, LEDGER_PORT: Kind.PORT,
    ARTEFACT_DIGEST: Kind.TEXT, REVISION: Kind.TEXT, TRACK: Kind.TEXT, POD_NAME: Kind.TEXT, NAMESPACE: Kind.TEXT,
    OBJECTS: Kind.TEXT, WITNESSES: Kind.TEXT, WITNESS_QUORUM: Kind.TEXT,
    HOST: Kind.TEXT, MAX_BODY_BYTES: Kind.TEXT, THREADS: Kind.TEXT, DRAIN_SECONDS: Kind.TEXT,
    OPENMP_THREADS: Kind.TEXT, OPENBLAS_THREADS: Kind.TEXT,
}  # fmt: skip
"""Every variable that a container of ours is given; one that isn't here can't be put into a pod template."""

LOCAL = "local"
"""Revision and pod name of a process outside a cluster."""

TRACK_STABLE = "stable"
TRACK_CANARY = "canary"
"""On trial: figures are reported every few seconds."""

PORT_HTTP = 8080
PORT_GRPC = 8081
PORT_INTERNAL = 8082
PORT_EXPLAINER = 8083
PORT_AUDITOR = 8084
PORT_ARCHIVE = 8090
PUBLIC_LEDGER_PORT = 8091
"""Of the archive's pod alone, and only where the ledger is published."""
OPERATOR_PORT = 8088
"""Health and metrics of the operator itself."""
PORTS = (PORT_HTTP, PORT_GRPC, PORT_INTERNAL, PORT_EXPLAINER, PORT_AUDITOR, PORT_ARCHIVE)
"""All of them: a foreign runtime in the same pod must keep off."""
POD_TOKEN_HEADER = "x-governed-pod-token"
"""In which a container of ours shows the token of the port that it asks."""
PREDICTION_ID_HEADER = "x-prediction-id"
"""Of an answer: its name in the ledger."""
PROMISE_HEADER = "x-governed-promise"
"""In which a request asks for a signed promise (1), and its answer has one."""
BEFORE_HEADER = "x-governed-before"
"""Of an answer of routes.FIND that isn't all: what to give as ``before`` to go on."""


def in_words(ports: Sequence[int]) -> str:
    """Ports in ascending order, neighbours as a range: ``8080 to 8084 and 8090``."""
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][-1] + 1:
            runs[-1].append(port)
        else:
            runs.append([port])
    *words, last = [f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs]
    return f"{', '.join(words)} and {last}" if words else last


LOOPBACK = "127.0.0.1"
"""Where a local run's processes listen, and a forwarded port."""


def on_this_machine(port: int) -> str:
    """Address of a process of ``governed run``, or of a forwarded port."""
    return f"http://{LOOPBACK}:{port}"


MOUNT_SPEC = "/etc/governed"
SPEC_FILE = "model.json"
MOUNT_KEYS = "/var/run/governed/keys"
KEK_NAME = "kek"
TOKEN_NAME = "archive-token"
MOUNT_POD_TOKENS = "/var/run/governed/pod"
MOUNT_CALLERS = "/etc/governed-callers"
MOUNT_CALLERS_KEY = "/var/run/governed/callers"
ROOT_NAME = "root"
MOUNT_MODEL = "/mnt/models"
"""Also of a foreign runtime's weights, as KServe has it."""
MOUNT_SPOOL = "/var/spool/governed"
MOUNT_DATA = "/var/lib/governed/data"
MOUNT_SOURCE = "/mnt/source"
MOUNT_FETCH = "/mnt/fetched"
MOUNT_SOURCE_KEYS = "/var/run/governed/source"
MOUNT_SOURCE_CA = "/var/run/governed/source-ca"
MOUNT_ARCHIVE = "/var/lib/governed/archive"
MOUNT_OBJECTS = "/var/run/governed/objects"
MOUNT_OBJECTS_CA = "/var/run/governed/objects-ca"

EXIT_REFUSED = 65
"""EX_DATAERR: what a process was given can't be used, and trying again is useless."""

LIVE_PATH = "/healthz/live"
READY_PATH = "/healthz/ready"
METRICS_PATH = "/metrics"

METRIC_IN_FLIGHT = "governed_requests_in_flight"
METRIC_REQUESTS = "governed_requests_total"
METRIC_RATE = "governed_requests_per_second"
"""What a metrics adapter makes of METRIC_REQUESTS: prometheus-adapter's usual rule ``^(.*)_total$`` →
``${1}_per_second``."""
