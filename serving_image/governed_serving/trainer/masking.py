"""The door to governed_serving.privacy: training texts are masked by the very masker that the server puts in the
path."""

from governed_api.governance import Masking
from governed_serving.crypto import Keyring
from governed_serving.privacy import MaskingError, masker, scan
from governed_serving.trainer.dataset import Scanner, TextMasker
from governed_serving.trainer.errors import TrainingFailed


def scanner() -> Scanner:
    """Counts findings per entity over the texts of a column."""
    return scan


def masker_of(masking: Masking | None, keyring: Keyring) -> TextMasker | None:
    """The masker that the server will use with the same rules, None without them.

    It raises TrainingFailed where a text can't be masked (failurePolicy Closed): unmasked text must not be learnt.
    """
    if masking is None:
        return None
    mask = masker(masking, keyring)

    def masked(texts: list[str]) -> list[str]:
        try:
            return mask.mask_many(texts)
        except MaskingError as error:
            raise TrainingFailed(f"spec.governance.privacy.masking: {error}") from error

    return masked
