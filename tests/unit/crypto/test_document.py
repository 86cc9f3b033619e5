"""A keyset's document, accounted for to the last byte; and the tag that a frame's ciphertext had."""

import base64
import json
import os
from collections.abc import Callable

import pytest
from tink.proto import tink_pb2

from governed_serving.crypto import Kek, Tampered
from governed_serving.crypto import keyset as keyset_module
from governed_serving.crypto.document import KeysetDocument
from governed_serving.crypto.segment import TAG_BYTES, SegmentKey

KEK = Kek(b"k" * 32)


@pytest.fixture
def document() -> bytes:
    handle = keyset_module.new_handle("data")
    created = {key.key_id: "2026-01-01T00:00:00.000Z" for key in handle.keyset_info().key_info}
    return KeysetDocument.wrap("data", handle, KEK, created)


def with_keyset(document: bytes, change: Callable[[bytes], bytes | str]) -> bytes:
    """With other bytes (or another text) of the wrapped keyset; the JSON is written as ours."""
    fields = json.loads(document)
    made = change(base64.b64decode(fields["keyset"]))
    fields["keyset"] = made if isinstance(made, str) else base64.b64encode(made).decode()
    return json.dumps(fields, separators=(",", ":")).encode()


def longer(raw: bytes) -> str:
    """The same bytes by Base64 of which a reader passes the last bits over."""
    while len(raw) % 3 != 2:
        raw += b"\x1a\x00"[: 3 - len(raw) % 3 or 1]
    text = base64.b64encode(raw).decode()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return f"{text[:-2]}{letters[letters.index(text[-2]) + 1]}="


def telling(raw: bytes) -> bytes:
    keyset = tink_pb2.EncryptedKeyset.FromString(raw)
    keyset.keyset_info.primary_key_id = 7
    return bytes(keyset.SerializeToString())


def test_a_document_as_it_was_written_is_accounted_for(document: bytes) -> None:
    assert with_keyset(document, lambda raw: raw) == document
    for kek in (None, KEK):
        assert KeysetDocument.audit(document, "data", kek) == KeysetDocument.parse(document, "data")


@pytest.mark.parametrize(
    "change",
    [lambda raw: raw + b"\x7a\x01x", longer, lambda raw: "!" + raw.hex(), lambda _: b"\x0f"],
    ids=["a field of its own", "bits behind the last byte", "no Base64", "no message"],
)
def test_bytes_that_opening_passes_over_are_noticed(document: bytes, change: Callable[[bytes], bytes | str]) -> None:
    with pytest.raises(Tampered, match=r"^the 'data' keyset isn't as it was written: "):
        KeysetDocument.audit(with_keyset(document, change), "data")


def test_json_that_is_written_otherwise_is_noticed(document: bytes) -> None:
    words = r"^the 'data' keyset isn't as it was written: bytes that opening it passes over differ$"
    for data in (document + b"\n", json.dumps(json.loads(document)).encode()):
        assert KeysetDocument.parse(data, "data") == KeysetDocument.parse(document, "data")
        with pytest.raises(Tampered, match=words):
            KeysetDocument.audit(data, "data")


def test_what_a_wrapping_tells_beside_it_is_noticed(document: bytes) -> None:
    with pytest.raises(Tampered, match=r"^the 'data' keyset tells of keys beside the wrapping: ours doesn't$"):
        KeysetDocument.audit(with_keyset(document, telling), "data")


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100])
def test_the_tag_of_a_ciphertext_is_made_again_from_the_ciphertext_alone(length: int) -> None:
    key = SegmentKey(os.urandom(32))
    for attempt, seq in ((0, 0), (1, 0), (0, 1 << 40)):
        sealed = key.seal(attempt, seq, os.urandom(length), b"aad")
        body, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
        assert len(tag) == 16
        assert key.tag(attempt, seq, body, b"aad") == tag
        assert key.tag(attempt + 1, seq, body, b"aad") != tag
        assert key.tag(attempt, seq, body, b"another") != tag
