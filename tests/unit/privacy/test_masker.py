"""What stands in the place of personal data, and what happens when masking errs."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_api.governance import Masking
from governed_serving.crypto import DirectoryStore, Kek, Keyring
from governed_serving.privacy import ACTIONS, Finder, Hook, MaskingError, masker, unmask

from .numbers_made import PLANTED

TEXT = "我的手机138-0013-8000，邮箱a.b@qq.com，谢谢"


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path_factory.mktemp("keys")))


def test_redact():
    assert masker(Masking(action="Redact")).mask(TEXT) == "我的手机，邮箱，谢谢"


def test_replace():
    assert masker(Masking()).mask(TEXT) == "我的手机<PHONE_NUMBER>，邮箱<EMAIL>，谢谢"


def test_partial_keeps_the_last_four():
    act = masker(Masking(action="Partial"))
    assert act.mask("卡4111 1111 1111 1111，") == "卡**** **** **** 1111，"
    assert act.mask("138-0013-8000") == "***-****-8000"
    assert act.mask("京A12345") == "******5"


def test_hash_is_keyed_and_the_same_however_it_was_written(keyring: Keyring, tmp_path: Path):
    act = masker(Masking(action="Hash"), keyring)
    one, other = act.mask("138-0013-8000"), act.mask("１３８００１３８０００")
    assert one == other
    assert one.startswith("<PHONE_NUMBER#")
    stranger = Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path))
    assert masker(Masking(action="Hash"), stranger).mask("13800138000") != one
    assert act.mask("13800138001") != one


def test_tokens_come_back_with_the_models_key_alone(keyring: Keyring, tmp_path: Path):
    masked = masker(Masking(action="Tokenize"), keyring).mask(TEXT)
    assert "138-0013-8000" not in masked
    assert unmask(masked, keyring) == TEXT
    stranger = Keyring(Kek(os.urandom(32)), DirectoryStore(tmp_path))
    stranger.keyset("masking-tokens")
    assert unmask(masked, stranger) == masked
    assert unmask("<EMAIL~abc> <EMAIL~>", keyring) == "<EMAIL~abc> <EMAIL~>"


@pytest.mark.parametrize("name", ACTIONS)
@settings(max_examples=40, deadline=None)
@given(plants=st.lists(st.sampled_from(sorted(PLANTED)).flatmap(lambda e: PLANTED[e]), min_size=1, max_size=4))
def test_masked_text_holds_nothing_and_masking_again_changes_nothing(keyring: Keyring, name: str, plants: list[str]):
    act = masker(Masking(action=name), keyring)
    text = "，".join(["申请人", *plants, "好的"])
    masked = act.mask(text)
    for plant in plants:
        assert plant not in masked
    if name != "Partial":  # what Partial keeps may look like a shorter number
        assert Finder().find(masked) == []
        assert act.mask(masked) == masked
    assert sum(act.counts.values()) >= len(plants)


@settings(max_examples=100, deadline=None)
@given(st.text("的我你他电话号码是在有，。！ abcdefghilmnorstuw\n😀é½", max_size=40))
def test_text_without_entities_is_unchanged(text: str):
    assert masker(Masking(action="Redact")).mask(text) is text


def test_many_keep_their_order_and_are_counted():
    act = masker(Masking(entities=["EMAIL"]))
    assert act.mask_many(["a@b.cn", "13800138000", "", "c@d.cn e@f.cn"]) == [
        "<EMAIL>",
        "13800138000",
        "",
        "<EMAIL> <EMAIL>",
    ]
    assert act.counts == {"EMAIL": 3}


def broken(text: str) -> Iterable[tuple[int, int]]:
    raise RuntimeError(f"model crashed on {text}")


def test_an_error_refuses_the_text_by_default_and_doesnt_quote_it():
    act = masker(Masking(), hooks=[Hook("NAME", broken)])
    with pytest.raises(MaskingError, match="found RuntimeError; the request is refused") as caught:
        act.mask("secret 13800138000")
    assert "secret" not in str(caught.value)
    assert act.failures == 1


def test_an_error_passes_the_text_and_is_counted_when_open():
    act = masker(Masking(failure_policy="Open"), hooks=[Hook("NAME", broken)])
    assert act.mask_many(["secret", "more"]) == ["secret", "more"]
    assert act.failures == 2


@pytest.mark.parametrize("value", [None, 5, b"13800138000"])
def test_what_is_no_text_is_refused(value: object):
    with pytest.raises(MaskingError):
        masker(Masking()).mask(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Hash", "Tokenize"])
def test_keyed_actions_need_a_key(name: str):
    with pytest.raises(ValueError, match=f"{name} needs the model's key"):
        masker(Masking(action=name))
