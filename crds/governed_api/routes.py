"""HTTP paths of all processes: the apps register these, the clients fill them in by ``str.format``.

A parameter is filled in as it is: what may hold a slash is quoted by the caller.
"""

from governed_api.runtime import LIVE_PATH, METRICS_PATH, READY_PATH

__all__ = ["LIVE_PATH", "METRICS_PATH", "READY_PATH"]  # every process has these; probes ask for the first two

WITHOUT_POD_TOKEN = (LIVE_PATH, READY_PATH, METRICS_PATH)
"""What the inner ports answer though nobody shows the pod's token: kubelet's probes and scrapers have none. A process
of the same pod learns by them how its neighbours fare, and nothing of rows, groups and verdicts."""

ASSETS = "/docs-assets"
"""Script and style of a process's page ``/docs``."""

# Open Inference Protocol V2 (server; the explainer for its part)
ROOT = "/"
V2 = "/v2"
V2_MODELS = "/v2/models"
V2_LIVE = "/v2/health/live"
V2_READY = "/v2/health/ready"
MODEL = "/v2/models/{model}"
MODEL_READY = f"{MODEL}/ready"
INFER = f"{MODEL}/infer"
VERSION = f"{MODEL}/versions/{{revision}}"
VERSION_READY = f"{VERSION}/ready"
VERSION_INFER = f"{VERSION}/infer"

# Explanations (server, explainer)
EXPLAIN = f"{MODEL}/explain"
VERSION_EXPLAIN = f"{VERSION}/explain"
EXPLANATIONS = f"{MODEL}/explanations"
EXPLANATION = f"{EXPLANATIONS}/{{ticket}}"
OVERVIEW = f"{MODEL}/overview"
IMPORTANCES = f"{MODEL}/importances"
QUALITY = f"{MODEL}/quality"
RECEIPT = f"{MODEL}/predictions/{{id}}/receipt"
"""That an answer is in the ledger (server, which asks the archive)."""

# KServe's V1 (server)
V1_MODELS = "/v1/models"
V1_MODEL = "/v1/models/{model}"
V1_PREDICT = f"{V1_MODEL}:predict"
V1_EXPLAIN = f"{V1_MODEL}:explain"

# MLflow's scoring protocol (server)
INVOCATIONS = "/invocations"
PING = "/ping"

# OpenAI's (server, foreign runtimes)
COMPLETIONS = "/v1/completions"
CHAT_COMPLETIONS = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
OPENAI = (COMPLETIONS, CHAT_COMPLETIONS, EMBEDDINGS)
"""Whose errors are OpenAI's error object."""

# Auditor
VERDICT = "/v1/verdict"
GROUPS = "/v1/groups"
FINDINGS = "/v1/findings"
LABELS = "/v1/labels"
ACKNOWLEDGEMENTS = "/v1/acknowledgements"
REVIEWS = "/v1/reviews"
REVIEW = f"{REVIEWS}/{{request_id}}"
DECISION = f"{REVIEW}/decision"
"""For a person who answers for the model: the operator's token."""

# Archive
ENTRIES = "/v1/ledger/entries"
STREAM = "/v1/ledger/streams/{stream}"
FIND = "/v1/ledger/find"
CHECKPOINT = "/v1/ledger/checkpoint"
WITNESSED = "/v1/ledger/witnessed"
"""The newest checkpoint that enough witnesses cosigned."""
LEDGER_RECEIPT = "/v1/ledger/receipt"
LEDGER_KEY = "/v1/ledger/key"
PROOF = "/v1/ledger/proof/{kind}"
PROOF_INCLUSION = PROOF.format(kind="inclusion")
PROOF_CONSISTENCY = PROOF.format(kind="consistency")
TILES = "/v1/ledger/tile"
"""Tiles lie under it as C2SP tlog-tiles names them."""
ENTRY_BUNDLES = f"{TILES}/entries"
"""Likewise the entries that the tiles of level 0 are the hashes of; for the reader's token."""
BLOB = "/v1/blobs/{digest}"
KEYSETS = "/v1/keysets/{model}"
KEYSET = f"{KEYSETS}/{{purpose}}"
REFS = "/v1/refs/{model}"
REF = f"{REFS}/{{name}}"
STATES = "/v1/states/{model}"
STATE = f"{STATES}/{{name}}"
DOSSIER = "/v1/dossiers/{model}/{digest}"
"""Signs the index of a dossier, by its SHA-256; for the reader's token."""
SPEAKER = "/v1/speaker"
"""Whose the bearer token is."""
BACKUP = "/v1/backup"
"""The whole archive as one file, for the reader's token."""
