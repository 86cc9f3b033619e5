"""The contract between a pod template and the process in it: environment, ports, mount paths.

Processes read paths and ports from the environment alone, so that the local runner can map volumes to directories and
shift ports.
"""

SPEC = "GOVERNED_SPEC"
KEK_FILE = "GOVERNED_KEK_FILE"
MODEL_DIR = "GOVERNED_MODEL_DIR"
SPOOL_DIR = "GOVERNED_SPOOL_DIR"
DATA_DIR = "GOVERNED_DATA_DIR"
SOURCE_DIR = "GOVERNED_SAMPLES_DIR"
ARCHIVE_DIR = "GOVERNED_ARCHIVE_DIR"
ARCHIVE_URL = "GOVERNED_ARCHIVE_URL"
ARCHIVE_TOKEN_FILE = "GOVERNED_ARCHIVE_TOKEN_FILE"
ARCHIVE_ROOT_FILE = "GOVERNED_ARCHIVE_ROOT_FILE"
REPORT = "GOVERNED_REPORT"
ARTEFACT_DIGEST = "GOVERNED_ARTEFACT_DIGEST"
REVISION = "GOVERNED_REVISION"
TRACK = "GOVERNED_TRACK"
POD_NAME = "GOVERNED_POD_NAME"
NAMESPACE = "GOVERNED_NAMESPACE"
HTTP_PORT = "GOVERNED_HTTP_PORT"
GRPC_PORT = "GOVERNED_GRPC_PORT"
INTERNAL_PORT = "GOVERNED_INTERNAL_PORT"
PREDICTOR_URL = "GOVERNED_PREDICTOR_URL"
EXPLAINER_URL = "GOVERNED_EXPLAINER_URL"
AUDITOR_URL = "GOVERNED_AUDITOR_URL"
UPSTREAM_URL = "GOVERNED_UPSTREAM_URL"
HOST = "GOVERNED_HOST"
"""Address that a process listens on; all by default."""
MAX_BODY_BYTES = "GOVERNED_MAX_BODY_BYTES"
THREADS = "GOVERNED_THREADS"
DRAIN_SECONDS = "GOVERNED_DRAIN_SECONDS"

TRACK_STABLE = "stable"
TRACK_CANARY = "canary"
"""On trial: figures are reported every few seconds."""

PORT_HTTP = 8080
PORT_GRPC = 8081
PORT_INTERNAL = 8082
PORT_EXPLAINER = 8083
PORT_AUDITOR = 8084
PORT_ARCHIVE = 8090

MOUNT_SPEC = "/etc/governed"
SPEC_FILE = "model.json"
MOUNT_KEYS = "/var/run/governed/keys"
KEK_NAME = "kek"
TOKEN_NAME = "archive-token"
ROOT_NAME = "root"
MOUNT_MODEL = "/mnt/models"
MOUNT_SPOOL = "/var/spool/governed"
MOUNT_DATA = "/var/lib/governed/data"
MOUNT_SOURCE = "/mnt/source"
MOUNT_ARCHIVE = "/var/lib/governed/archive"

LIVE_PATH = "/healthz/live"
READY_PATH = "/healthz/ready"
METRICS_PATH = "/metrics"

METRIC_IN_FLIGHT = "governed_requests_in_flight"
METRIC_REQUESTS = "governed_requests_total"
METRIC_RATE = "governed_requests_per_second"
"""What a metrics adapter makes of METRIC_REQUESTS: prometheus-adapter's usual rule ``^(.*)_total$`` → ``${1}_per_second``."""
