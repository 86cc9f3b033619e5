"""Personal data as it is written: in JSON, in escapes, in base64, over lines, over several texts."""

import base64
import json

import pytest

from governed_api.governance import Masking
from governed_serving.privacy import Finder, Finding, Masker, MaskingError, TextStream, masker

FINDER = Finder()
PHONE = "13800138000"

WRITTEN = [
    (r"\u0031\u0033800138000", "PHONE_NUMBER"),
    (r"\uff11\uff13\uff18\uff10\uff10138000", "PHONE_NUMBER"),
    (r"\x31\x33800138000", "PHONE_NUMBER"),
    ("&#49;&#51;800138000", "PHONE_NUMBER"),
    ("&#x31;&#X33;800138000", "PHONE_NUMBER"),
    ("%31%33800138000", "PHONE_NUMBER"),
    ("%2B8613800138000", "PHONE_NUMBER"),
    ("alice%40example.com", "EMAIL"),
    ("alice&#64;example.com", "EMAIL"),
    (r"alice\u0040example.com", "EMAIL"),
    (r"\"john doe\"@example.com", "EMAIL"),
    ("138\n0013\n8000", "PHONE_NUMBER"),
    ("138-\r\n0013-8000", "PHONE_NUMBER"),
    ("4111 1111\n1111 1111", "BANK_CARD"),
    (base64.b64encode(PHONE.encode()).decode(), "PHONE_NUMBER"),
    (base64.b64encode(f"call {PHONE} now".encode()).decode().rstrip("="), "PHONE_NUMBER"),
    (base64.urlsafe_b64encode("张三 zhang@example.com ÿ?".encode()).decode(), "EMAIL"),
]


@pytest.mark.parametrize(("value", "entity"), WRITTEN, ids=range(len(WRITTEN)))
def test_it_is_found_however_it_is_written(value: str, entity: str) -> None:
    text = f"号码 {value}, ok"
    assert [(f.entity, text[f.start : f.end]) for f in FINDER.find(text)] == [(entity, value)]
    assert FINDER.count(text) == {entity: 1}
    stream = TextStream(masker(Masking()))
    assert "".join([*(stream.add(char).text for char in text), stream.flush().text]) == f"号码 <{entity}>, ok"


@pytest.mark.parametrize(
    "text",
    [
        "12\n13\n14\n15\n16\n17\n18", "4111\n1111\n1111\n1111\n2000\n", "took 13800138\n2026-11-29T10:00:00 INFO",
        "138\n\n00138000",
        "%2d%3d %5d %s", "100% 13 %", "AT&T &amp; &#; \\u \\x \\n", "ThisIsNoBase64ButAName",
        "d41d8cd98f00b204e9800998ecf8427e",
        base64.b64encode(b"nothing of anybody").decode(), base64.b64encode(bytes(range(200, 240))).decode(),
    ],
)  # fmt: skip
def test_what_only_looks_so_stays(text: str) -> None:
    assert FINDER.find(text) == []


DOCUMENTS = [
    '{"phone": 13800138000, "list": [-13800138000, 13900139000], "n": 1.5}',
    r'{"to": "\u0031\u0033800138000", "note": "tel\n13800138000", "path": "C:\\new 13900139000"}',
    r'[{"mail": "\"john doe\"@example.com"}, "alice\u0040example.com", 4111111111111111]',
    ' [ 13800138000 ] ',
    '{"13800138000": {"a@b.cn": [13800138000]}}',
]  # fmt: skip


@pytest.mark.parametrize("action", ["Replace", "Redact", "Partial"])
@pytest.mark.parametrize("text", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_json_stays_json_whole_and_streamed(text: str, action: str) -> None:
    act = masker(Masking(action=action))
    masked = act.mask(text)
    json.loads(masked)
    assert FINDER.find(masked) == [] or action == "Partial"
    assert PHONE not in masked
    for cut in range(len(text) + 1):
        stream = TextStream(act)
        assert stream.add(text[:cut]).text + stream.add(text[cut:]).text + stream.flush().text == masked


def test_numbers_in_prose_are_no_json() -> None:
    assert masker(Masking()).mask("a: 13800138000, b") == "a: <PHONE_NUMBER>, b"


SPLIT = [
    (["my number is 138001", "38000 ok"], ["my number is <PHONE_NUMBER>", " ok"]),
    (["138", "0013", "", "8000"], ["<PHONE_NUMBER>", "", "", ""]),
    (["a@b.cn zhang@exam", "", "ple.com and 13900139000"], ["<EMAIL> <EMAIL>", "", " and <PHONE_NUMBER>"]),
    (['"john d', 'oe"@example.com'], ["<EMAIL>", ""]),
    (["hello", "zhang@x.com"], ["hello", "<EMAIL>"]),  # whole by itself
    (["in 2024", "12345678"], ["in 2024", "12345678"]),
    (["x 4111 1111 1111 1111", "1"], ["x <BANK_CARD>", "1"]),
    ([], []),
    (["one 13800138000"], ["one <PHONE_NUMBER>"]),
]


@pytest.mark.parametrize(("texts", "wanted"), SPLIT, ids=range(len(SPLIT)))
def test_what_is_split_over_texts_is_masked_once(texts: list[str], wanted: list[str]) -> None:
    act = masker(Masking())
    assert [one.text for one in act.together(texts)] == wanted
    assert act.counts.total() == "".join(wanted).count("<")


def test_texts_that_cannot_be_searched_together_are_refused() -> None:
    def broken(_: str) -> list[Finding]:
        raise RuntimeError("secret")

    with pytest.raises(MaskingError):
        Masker(broken, lambda *_: "").together(["138", "00138000"])
