"""What a notebook uses: manifests, and a client of served models. See README.md."""

from governed.answers import Attribution, Explanation, Prediction
from governed.client import Client
from governed.manifests import InvalidManifest, Manifest, manifest
from governed_api import GovernedModelSpec
from governed_api.access import Access
from governed_api.governance import Explainer, Governance, Quota
from governed_api.lifecycle import Lifecycle
from governed_api.model import Predictor
from governed_api.version import __version__
from governed_operator.local.json_client import (
    ClientError,
    InvalidInput,
    Refused,
    TimedOut,
    Unavailable,
    Unreadable,
)

__all__ = [
    "Access",
    "Attribution",
    "Client",
    "ClientError",
    "Explainer",
    "Explanation",
    "Governance",
    "GovernedModelSpec",
    "InvalidInput",
    "InvalidManifest",
    "Lifecycle",
    "Manifest",
    "Prediction",
    "Predictor",
    "Quota",
    "Refused",
    "TimedOut",
    "Unavailable",
    "Unreadable",
    "__version__",
    "manifest",
]
