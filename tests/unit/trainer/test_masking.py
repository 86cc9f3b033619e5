"""Training meets the privacy room: the generators' invented personal data is found, and gone after masking."""

import re

import pytest

from governed_api.governance import Masking
from governed_serving.crypto import DirectoryStore, Keyring
from governed_serving.crypto.kek import Kek
from governed_serving.trainer.errors import TrainingFailed
from governed_serving.trainer.generators import credit
from governed_serving.trainer.masking import masker_of, scanner

TEXTS = [*credit(300, 3).columns["note"].tolist(), *credit(300, 3).columns["contact"].tolist()]


@pytest.fixture
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(Kek(b"k" * 32), DirectoryStore(tmp_path_factory.mktemp("keys")))


def test_the_scan_finds_what_the_generator_planted() -> None:
    found = scanner()(TEXTS)
    assert found["CN_RESIDENT_ID"] == 300
    assert found["PHONE_NUMBER"] == 300 + sum("电话" in text for text in TEXTS)
    assert found["BANK_CARD"] == 300
    assert found["EMAIL"] == sum(text.count("@") for text in TEXTS)


def test_nothing_of_it_is_left_after_masking(keyring: Keyring) -> None:
    mask = masker_of(Masking(), keyring)
    assert mask is not None
    left = mask(TEXTS)
    assert not any(re.search(r"\d{8}|@", text) for text in left)
    assert scanner()(left) == {}
    assert mask(left) == left


def test_without_rules_there_is_no_masker(keyring: Keyring) -> None:
    assert masker_of(None, keyring) is None


def test_a_text_that_cannot_be_masked_is_not_learnt(keyring: Keyring) -> None:
    mask = masker_of(Masking(), keyring)
    assert mask is not None
    with pytest.raises(TrainingFailed, match=r"privacy\.masking: expected a text"):
        mask(["good", None])  # type: ignore[list-item]
