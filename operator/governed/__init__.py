"""What a notebook uses: manifests, and a client of served models. See README.md."""

from governed.manifests import InvalidManifest, Manifest, manifest
from governed_api import GovernedModelSpec
from governed_api.access import Access
from governed_api.governance import Explainer, Governance, Quota
from governed_api.lifecycle import Lifecycle
from governed_api.model import Predictor
from governed_api.version import __version__

__all__ = [
    "Access",
    "Explainer",
    "Governance",
    "GovernedModelSpec",
    "InvalidManifest",
    "Lifecycle",
    "Manifest",
    "Predictor",
    "Quota",
    "__version__",
    "manifest",
]
