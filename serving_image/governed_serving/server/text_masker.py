"""governed_serving.privacy as the data plane's masker."""

from governed_api.governance import Masking as MaskingRules
from governed_serving.crypto import Keyring
from governed_serving.server.masking import Masker

__all__ = ["text_masker"]


def text_masker(rules: MaskingRules, keyring: Keyring | None) -> Masker:
    """The masker that the spec asks for."""
    raise NotImplementedError((rules, keyring))
