"""governed_serving.privacy as the data plane's masker."""

from governed_api.governance import Masking as MaskingRules
from governed_serving.crypto import Keyring
from governed_serving.privacy import Masker, masker

__all__ = ["text_masker"]


def text_masker(rules: MaskingRules, keyring: Keyring | None) -> Masker:
    """The masker that the spec asks for. It always raises when it errs: the policy is the data plane's to apply, and to count.

    Raises ValueError, CryptoError.
    """
    return masker(rules.model_copy(update={"failure_policy": "Closed"}), keyring)
