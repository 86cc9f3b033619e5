"""Entities of a manifest's own, texts that are always or never masked, thresholds."""

import base64
import time
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_api.governance import NOT_OURS, EntityCheck, Masking
from governed_serving.privacy import ENTITIES, TextStream, masker
from governed_serving.privacy.masker import LEAST_SCORE
from governed_serving.privacy.ruled import DENIED, RuledFinder
from governed_serving.privacy.scores import JUDGED
from governed_serving.privacy.validators import CHECKS

STAFF = {"name": "STAFF_NO", "pattern": r"E\d{6}", "context": ["工号", "staff no"]}


def masked(text: str, **rules: object) -> str:
    return masker(Masking.model_validate(rules)).mask(text)


def test_the_contract_names_what_there_is() -> None:
    assert set(JUDGED) == set(ENTITIES)
    assert set(CHECKS) == set(get_args(EntityCheck))
    assert DENIED in NOT_OURS
    assert Masking().threshold < LEAST_SCORE


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("工号E123456。", "工号<STAFF_NO>。"),
        ("我是E123456和E654321", "我是<STAFF_NO>和<STAFF_NO>"),
        ("Ｅ１２３４５６", "<STAFF_NO>"),
        ("E12\u200b34\u202e56", "<STAFF_NO>"),
        (r"\u0045123456", "<STAFF_NO>"),
        ("E&#49;23456", "<STAFF_NO>"),
        ("E١٢٣٤٥٦", "<STAFF_NO>"),
        ('{"no": "E123456"}', '{"no": "<STAFF_NO>"}'),
        (base64.b64encode(b"number E123456 it is").decode(), "<STAFF_NO>"),
        ("E1234567 XE123456 _E123456", "E1234567 XE123456 _E123456"),
        ("éE123456 E123456é", "éE123456 E123456é"),
        ("E123456:E123456", "<STAFF_NO>:<STAFF_NO>"),
        ("<STAFF_NO> E123456", "<STAFF_NO> <STAFF_NO>"),
        ("\ud800工号E123456\udfff", "\ud800工号<STAFF_NO>\udfff"),
        ("工号\x00E\x00123456", "工号\x00<STAFF_NO>"),
    ],
)
def test_an_entity_of_ones_own_is_found_however_it_is_written(text: str, seen: str) -> None:
    assert masked(text, custom=[STAFF]) == seen


def test_below_the_threshold_a_word_before_it_decides() -> None:
    weak = [STAFF | {"score": 0.2}]
    assert masked("E123456", custom=weak) == "E123456"
    assert masked("Staff No: E123456", custom=weak) == "Staff No: <STAFF_NO>"
    assert masked("ｓｔａｆｆ\u3000ｎｏ E123456", custom=weak) == "ｓｔａｆｆ\u3000ｎｏ <STAFF_NO>"
    assert masked("工号" + "。" * 70 + "E123456", custom=weak).endswith("E123456")
    assert masked("E123456", custom=weak, threshold=0.2) == "<STAFF_NO>"


def test_a_threshold_leaves_out_what_only_a_form_shows() -> None:
    text = "13800138000 a@example.com 4111111111111111"
    assert masked(text, threshold=0.8) == "13800138000 a@example.com <BANK_CARD>"
    assert masked(text, threshold=0.75) == "<PHONE_NUMBER> <EMAIL> <BANK_CARD>"
    assert masked(text, threshold=1, entities=["EMAIL"]) == text


@pytest.mark.parametrize(
    ("check", "good", "wrong"),
    [
        ("luhn", "79927398713", "79927398710"),
        ("mod11-2", "000000012146438X", "0000000121464388"),
        ("mod97-10", "5493001KJTIIGC8Y1R12", "5493001KJTIIGC8Y1R13"),
        ("verhoeff", "2363", "2364"),
        ("gs1", "4006381333931", "4006381333932"),
        ("gs1", "96385074", "96385073"),
    ],
)
def test_check_characters(check: str, good: str, wrong: str) -> None:
    """Published examples: Luhn's patent, an ISNI, GLEIF's LEI, Verhoeff, EANs."""
    custom = [{"name": "OWN_NO", "pattern": "[0-9A-Z]{4,20}", "check": check}]
    assert masked(f"no {good};", custom=custom, entities=["EMAIL"]) == "no <OWN_NO>;"
    assert masked(f"no {wrong};", custom=custom, entities=["EMAIL"]) == f"no {wrong};"
    for value in ("", "X", "٣", "A", "-", "½", "1", "99999999999999999999"):
        assert CHECKS[check](value) in (True, False)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("about Project Falcon, and", "about <DENIED>, and"),
        ("PROJECT\tfalcon", "<DENIED>"),
        ("project\n falcon", "<DENIED>"),
        ("project\u2028falcon, project\x85falcon", "<DENIED>, <DENIED>"),
        ("ｐｒｏｊｅｃｔ falcon", "<DENIED>"),
        ("projectfalcon, Project Falconry", "projectfalcon, Project Falconry"),
        ("张三说，王张三丰", "<DENIED>说，王<DENIED>丰"),
        ("Ann's Annual, öAnn", "<DENIED>'s Annual, öAnn"),
        ("ann@example.com", "<DENIED>"),
        ('{"Project Falcon": 1}', '{"<DENIED>": 1}'),
        ("a.b|c a,b|c", "<DENIED> a,b|c"),
    ],
)
def test_what_is_denied_is_always_masked(text: str, seen: str) -> None:
    assert masked(text, deny=["Project Falcon", "张三", "Ann", "a.b|c"]) == seen


def test_what_is_allowed_lets_through_a_whole_find_and_no_part_of_one() -> None:
    allow = ["400-800-8888", "Service@Example.com", "0138", "138001", "622202"]
    assert masked("4008008888, 400 800 8888, service@example.com", allow=allow) == (
        "4008008888, 400 800 8888, service@example.com"
    )
    assert masked("13800138000 6222021234567890128", allow=allow) == "<PHONE_NUMBER> <BANK_CARD>"
    assert masked("x.service@example.com", allow=allow) == "<EMAIL>"
    assert masked("400-800-8888-1", allow=["400-800-8888"]) == "400-800-8888-1"  # no number of ours
    assert masked("E123456 E654321", custom=[STAFF], allow=["e123456"]) == "E123456 <STAFF_NO>"
    assert masked("E123456", custom=[STAFF], allow=["E123456"], deny=["e123456"]) == "<DENIED>"


def test_an_allowed_value_within_a_denied_or_longer_find_uncovers_nothing() -> None:
    assert masked("call 13800138000 now", allow=["13800138000"], deny=["call 13800138000"]) == "<DENIED> now"
    longer = [{"name": "TICKET_NO", "pattern": r"T-1[0-9]{10}"}]
    assert masked("T-13800138000", custom=longer, allow=["13800138000"]) == "<TICKET_NO>"


def test_finds_that_overlap_leave_no_part_uncovered() -> None:
    custom = [{"name": "OWN_NO", "pattern": r"REF 1380013"}, {"name": "TAIL_NO", "pattern": r"8000 X\d"}]
    assert masked("see REF 1380013", custom=custom) == "see <OWN_NO>"
    assert masked("REF 13800138000 X7", custom=[custom[0] | {"pattern": r"REF 138\d{8}"}, custom[1]]) == "<OWN_NO> X7"
    over = [{"name": "LEFT_NO", "pattern": "aa bb"}, {"name": "RIGHT_NO", "pattern": "bb cc"}]
    assert masked("aa bb cc", custom=over) == "<LEFT_NO>"


def test_how_each_was_found() -> None:
    rules = Masking.model_validate({"custom": [STAFF], "deny": ["Falcon"]})
    text = "E654321, 工号E123456, falcon, 4111111111111111, a@example.com"
    told = [(found.entity, found.score, found.rule) for found in RuledFinder(rules).explained(text)]
    assert told == [
        ("STAFF_NO", 0.6, "custom STAFF_NO"),
        ("STAFF_NO", 1.0, "custom STAFF_NO"),
        ("DENIED", 1.0, "deny"),
        ("BANK_CARD", 1, "ISO/IEC 7812: issuer, Luhn"),
        ("EMAIL", 0.75, "RFC 5321, 6531: form"),
    ]


@pytest.mark.parametrize("pattern", [r"a+", r"(a{50}){9}", r"(?:a{1000}){1,9}", r"a{2000}", r"(a"])
def test_a_pattern_that_cannot_be_used_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"custom \(OWN_NO\)\.pattern"):
        masked("a", custom=[{"name": "OWN_NO", "pattern": pattern}])


@pytest.mark.parametrize(
    ("pattern", "unit", "check"),
    [
        (r"(?:\d ){1,60}", "1 ", "luhn"),
        (r"(?:a?){60}b", "a", None),
        (r"[a-z]{1,128}", "a", None),
        (r"\d{6}", "1", None),
        (r"(?:.{0,10}){12}x", "y", None),
        (r"(?:a|b|ab){1,60}c", "ab", None),
        (r"(?:(?:a{0,2}){0,7}){0,8}b", "a", None),
        (r"[\x{4e00}-\x{9fff}]{1,100}号", "中", None),
        (r"(?i)(?:s|ſ|S){1,120}!", "ſ", None),
        (r"#.{0,60}#", "#", None),
    ],
)
def test_hostile_patterns_take_time_in_proportion_to_the_text(pattern: str, unit: str, check: str | None) -> None:
    act = masker(Masking.model_validate({"custom": [{"name": "OWN_NO", "pattern": pattern, "check": check}]}))

    def seconds(size: int) -> float:
        text, spent = unit * size, []
        for _ in range(2):
            start = time.process_time()
            act.covered(text)
            spent.append(time.process_time() - start)
        return min(spent)

    seconds(100)
    assert seconds(40_000) < 20 * seconds(5_000) + 0.05


BETWEEN = st.sampled_from(
    [
        "工号",
        "staff no ",
        "，",
        " ",
        "x",
        "1",
        "\u200b",
        "E",
        "falcon",
        "项目",
        "\\u0045",
        '{"a": "',
        '"}',
        "(",
        "Project ",
    ]
)
PLANTED = st.sampled_from(["E123456", "Project Falcon", "13800138000", "ab-12345", "工号：E123456", "E12\u200b3456"])
TEXTS = st.lists(st.one_of(BETWEEN, PLANTED), min_size=2, max_size=8).map("".join)
RULES: dict[str, Any] = {
    "custom": [STAFF | {"score": 0.3}, {"name": "OWN_NO", "pattern": r"[a-z]{2}-\d{3,8}"}],
    "deny": ["Project Falcon", "项目x"],
    "allow": ["13800138000"],
}


@settings(max_examples=25, derandomize=True, deadline=None)
@given(TEXTS)
def test_every_cut_of_a_stream_gives_what_the_whole_text_gives(text: str) -> None:
    act = masker(Masking.model_validate(RULES))
    whole = act.mask(text)
    for cut in range(len(text) + 1):
        stream = TextStream(act)
        assert "".join([stream.add(text[:cut]).text, stream.add(text[cut:]).text, stream.flush().text]) == whole, cut


def test_a_stream_holds_back_no_more_than_the_longest_of_them() -> None:
    act = masker(Masking.model_validate({"custom": [STAFF], "entities": ["BANK_CARD"]}))
    stream = TextStream(act)
    assert act.hold == 7
    stream.add("The quick brown fox. " * 4)
    assert stream.taken - stream.released <= 7


def test_what_is_split_over_messages_is_found() -> None:
    act = masker(Masking.model_validate({"custom": [STAFF], "deny": ["Project Falcon"]}))
    assert [one.text for one in act.together(["see E123", "456 about Project", " Falcon"])] == [
        "see <STAFF_NO>", " about <DENIED>", "",
    ]  # fmt: skip
