"""What is planted is found, where it was planted; what isn't there isn't found."""

import time
import unicodedata
from collections.abc import Iterable
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_api.governance import Entity
from governed_serving.privacy import ENTITIES, Finder, Finding, Hook, scan
from governed_serving.privacy.folding import fold, offsets
from governed_serving.privacy.marked import FIRST, LATER
from governed_serving.privacy.recognisers import PROVINCES

from .numbers_made import MOBILES, PLANTED

FINDER = Finder()

# Chinese and English prose without anything that belongs to an entity; some characters of it must be folded.
prose = st.text(
    "的我你他电话号码是在有和这个人们工作申请贷款，。！：；、（）「」—… abcdefghilmnorstuw\n😀é½", max_size=30
)
planted = st.sampled_from(sorted(PLANTED)).flatmap(lambda e: st.tuples(st.just(e), PLANTED[e]))
WIDE = {ord(c): ord(c) + 0xFEE0 for c in map(chr, range(0x21, 0x7F))}


def found(text: str) -> list[tuple[str, str]]:
    return [(f.entity, text[f.start : f.end]) for f in FINDER.find(text)]


def test_the_spec_and_the_recognisers_name_the_same_entities():
    assert set(ENTITIES) == set(get_args(Entity))
    assert set(PLANTED) | {mark.entity for mark in (*FIRST, *LATER)} == set(ENTITIES)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(prose, planted), min_size=1, max_size=4), prose)
def test_planted_entities_are_found_where_they_were_planted(parts: list[tuple[str, tuple[str, str]]], end: str):
    text, wanted = "", []
    for before, (entity, value) in parts:
        text += before + "，"
        wanted.append(Finding(entity, len(text), len(text) + len(value)))
        text += value + "，"
    assert FINDER.find(text + end) == wanted


@settings(max_examples=150, deadline=None)
@given(prose, planted.filter(lambda p: p[0] not in ("CN_PLATE", "PHONE_NUMBER")), prose)
def test_full_width_characters_hide_nothing(before: str, plant: tuple[str, str], after: str):
    entity, value = plant
    wide = value.translate(WIDE)
    text = f"{before}，{wide}，{after}"
    assert FINDER.find(text) == [Finding(entity, len(before) + 1, len(before) + 1 + len(wide))]


@settings(max_examples=150, deadline=None)
@given(
    MOBILES,
    st.integers(1, 10),
    st.sampled_from("\u200b\u00ad\ufeff\u2060\u0336\u20e3"),
)
def test_invisible_characters_hide_nothing(phone: str, place: int, invisible: str):
    text = f"电话{phone[:place]}{invisible}{phone[place:]}号"
    assert FINDER.find(text) == [Finding("PHONE_NUMBER", 2, 14)]


@settings(max_examples=150, deadline=None)
@given(
    planted.filter(lambda p: p[0] not in ("EMAIL", "CN_PLATE")), st.sampled_from(["abc", "9", "_", "Z"]), st.booleans()
)
def test_nothing_is_found_inside_a_longer_token(plant: tuple[str, str], more: str, front: bool):
    entity, value = plant
    text = f"编号{more}{value}" if front else f"编号{value}{more}"
    whole = (2, 2 + len(value) + len(more))
    for finding in FINDER.find(text):
        # Another entity may be made by the added character, or lie behind a separator; never one cut out of a token.
        edges = (text[finding.start - 1], text[finding.end : finding.end + 1] or " ")
        assert not any(c.isascii() and (c.isalnum() or c == "_") for c in edges), (text, finding)
        assert finding.entity != entity or (finding.start, finding.end) != (2, 2 + len(value)), whole


@settings(max_examples=100, deadline=None)
@given(prose)
def test_prose_holds_nothing(text: str):
    assert FINDER.find(text) == []


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_can_be_searched_and_offsets_are_in_order(text: str):
    last = 0
    for finding in FINDER.find(text):
        assert last <= finding.start < finding.end <= len(text)
        last = finding.end


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("我的手机13800138000是新的", [("PHONE_NUMBER", "13800138000")]),
        ("电话１３８００１３８０００号", [("PHONE_NUMBER", "１３８００１３８０００")]),
        ("1️⃣3️⃣8️⃣0️⃣0️⃣1️⃣3️⃣8️⃣0️⃣0️⃣0️⃣", [("PHONE_NUMBER", "1️⃣3️⃣8️⃣0️⃣0️⃣1️⃣3️⃣8️⃣0️⃣0️⃣0")]),
        ("1̶3̶8̶0̶0̶1̶3̶8̶0̶0̶0̶", [("PHONE_NUMBER", "1̶3̶8̶0̶0̶1̶3̶8̶0̶0̶0")]),
        ("Jose\u0301@example.com", [("EMAIL", "Jose\u0301@example.com")]),
        ("1\U000e01013800138000", [("PHONE_NUMBER", "1\U000e01013800138000")]),
        ("（010）62771234", [("PHONE_NUMBER", "（010）62771234")]),
        ("86 13800138000 / 8613800138000", [("PHONE_NUMBER", "86 13800138000"), ("PHONE_NUMBER", "8613800138000")]),
        ("13800138000 13900139000", [("PHONE_NUMBER", "13800138000"), ("PHONE_NUMBER", "13900139000")]),
        ("400-810-8888转1", [("PHONE_NUMBER", "400-810-8888")]),
        ("身份证11010519491231002x。", [("CN_RESIDENT_ID", "11010519491231002x")]),
        ("卡4111 1111 1111 1111 12", [("BANK_CARD", "4111 1111 1111 1111")]),
        ("2024 4111 1111 1111 1111", [("BANK_CARD", "4111 1111 1111 1111")]),
        ("American Express 3782 822463 10005", [("BANK_CARD", "3782 822463 10005")]),
        ("GB82 WEST 1234 5698 7654 32 EUR", [("IBAN", "GB82 WEST 1234 5698 7654 32")]),
        (
            "车牌京A12345和粤BD12345、京A·88888",
            [("CN_PLATE", "京A12345"), ("CN_PLATE", "粤BD12345"), ("CN_PLATE", "京A·88888")],
        ),
        ("张三x@y.cn，", [("EMAIL", "x@y.cn")]),
        ("mail a.b+c@mail.example.co.uk.", [("EMAIL", "a.b+c@mail.example.co.uk")]),
        ("主机192.168.1.1和fe80::1", [("IP_ADDRESS", "192.168.1.1"), ("IP_ADDRESS", "fe80::1")]),
    ],
)
def test_as_people_write(text: str, wanted: list[tuple[str, str]]):
    assert found(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15 10:30:00",
        "订单20240115103000123",
        "a13800138000 13800138000b 138001380001",
        "version 1.2.3.4.5 and 256.1.1.1",
        "std::vector<int> abc::def 10:30:45",
        "11010519491231002Y 110105194912310021",
        "4111 1111 1111 1112",
        "123-00-6789 000-12-3456",
        "3.14159265358979",
        "张三@公司，@all，foo@bar",
        "东京ABC 京东JD",
        "收入 85,000，房贷 1200000",
    ],
)
def test_what_only_looks_like_it(text: str):
    assert found(text) == []


def test_only_the_entities_asked_for():
    text = "13800138000 a@b.cn"
    assert [f.entity for f in Finder(["EMAIL"]).find(text)] == ["EMAIL"]
    with pytest.raises(ValueError, match="unknown entity 'NAME'; there are API_KEY, BANK_CARD"):
        Finder(["NAME"])


def test_hooks_find_names_but_not_over_other_findings():
    def names(text: str) -> Iterable[tuple[int, int]]:
        yield from ((i, i + 2) for i in range(len(text)) if text.startswith("张三", i))
        yield (0, 5)

    text = "13800138000 张三 张三x@y.cn"
    hooked = Finder(hooks=[Hook("NAME", names)])
    assert [(f.entity, text[f.start : f.end]) for f in hooked.find(text)] == [
        ("PHONE_NUMBER", "13800138000"),
        ("NAME", "张三"),
        ("NAME", "张三"),
        ("EMAIL", "x@y.cn"),
    ]
    assert hooked.count(text) == {"PHONE_NUMBER": 1, "NAME": 2, "EMAIL": 1}


def test_only_the_hooks_asked_for():
    hooks = [Hook("NAME", lambda _: [(0, 2)]), Hook("CITY", lambda _: [(3, 5)])]
    text = "张三 北京 13800138000"
    assert [f.entity for f in Finder(["NAME"], hooks).find(text)] == ["NAME"]
    assert [f.entity for f in Finder(["CITY", "PHONE_NUMBER"], hooks).find(text)] == ["CITY", "PHONE_NUMBER"]
    assert [f.entity for f in Finder(hooks=hooks).find(text)] == ["NAME", "CITY", "PHONE_NUMBER"]


@pytest.mark.parametrize(
    "places", [[(0, 0)], [(2, 1)], [(-1, 1)], [(3, 6)], [(5, 6)], [(6, 7)]], ids=lambda places: str(places[0])
)
def test_a_hook_s_place_outside_of_the_text_is_passed_over(places: list[tuple[int, int]]):
    assert Finder(hooks=[Hook("NAME", lambda _: places)]).find("abcde") == []


ADDRESSES = [
    "josé@example.com", "josé.garcía@example.com", "müller@example.de", "ışık@example.com.tr", "иван@пример.рф",
    "νίκος@example.gr", "аlice@example.com", "محمد@example.com", "राम@उदाहरण.भारत",
    "홍길동@example.kr", "สมชาย@example.co.th",
    "用户@例子.中国", "用户@例子。中国", "张三@example.com",
    "user@exämple.com", "user@mail.例子.香港",
    "user@xn--fsqu00a.xn--0zwm56d", "alice＠example．com", "alice@example。com", "al\u00adice@exam\u200bple.com",
    "alice\u202e@example.com", "ali\u2066ce@ex\u2069ample.com", "alice\x08@exam\x00ple.com", "ali\u1ab0ce@example.com",
    "ali\ufe20ce@example.com", '"john doe"@example.com', '"a\\"b@c"@example.com', "alice@[192.168.1.1]",
    "alice@[IPv6:2001:db8::1]", "𝒶𝓁𝒾𝒸𝑒@example.com",
]  # fmt: skip
"""By RFC 5321, 6531 and 3490, and as people hide them."""
HIDDEN = {
    "PHONE_NUMBER": [
        "١٣٨٠٠١٣٨٠٠٠", "❶❸❽⓿⓿❶❸❽⓿⓿⓿", "➀➂➇00➀➂➇000", "⒈⒊⒏🄀🄀⒈⒊⒏🄀🄀🄀", "138\u202d0013\u202c8000",
        "138\u2067 0013\u2069 8000",
        "138\x000013\x7f8000", "138\x1b0013\x9f8000", "1\u1dc038\u1dc00013\u1dc08000", "138\ufe200013\ufe208000",
        "138\u3164 0013\u3164 8000", "138\u16800013\u16808000", "138\u28000013\u28008000", "138ー0013ー8000",
        "138֊0013֊8000",
        "138⁻0013⁻8000", "138〜0013〜8000", "138\u061c00138\u180e000", "138\U000e0fff00138000", "➕8613800138000",
    ],
    "IBAN": [
        "DE89\u202c3704\u202c0044\u202c0532\u202c0130\u202c00", "🅓🅔89370400440532013000", "🇩🇪89370400440532013000",
        "ＤＥ❽❾370400440532013000", "DE\x0089370400440532013000",
    ],
    "CN_RESIDENT_ID": [
        "11010519491231002\u2066X", "❶10105❶949❶23❶002X", "110105\x0019491231\x00002X", "110105ー19491231ー002X",
    ],
    "IP_ADDRESS": ["192。168。1。10", "192.168.\u20661.10"],
}  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(("before", "behind"), [("", ""), ("to ", " now"), ("(", ")"), ("<", ">"), ("；", "，谢谢")])
def test_addresses_of_any_script_and_form_are_found_whole(address: str, before: str, behind: str) -> None:
    text = before + address + behind
    assert found(text) == [("EMAIL", address)], [f"{ord(c):x}" for c in address]


@pytest.mark.parametrize(
    "address",
    [
        "张三88@例子.公司", "张三.li@例子.公司", "88张三@例子.公司", "张三88li@例子.公司", "张三_88@例子.中国",
        "张三+tag@例子.中国", "张三-88@例子.公司", "张三%88@例子.公司", "zhang三88@例子.公司", "a张b三c@例子.公司",
        "张三88@例子。公司", "张三88@mail.例子.公司", "张三88@例子.com", "张三88@例子.mail.com",
        "张三88@xn--fsqu00a.xn--55qx5d", "山田taro@例え.jp", "田中1@例え.テスト", "홍길동99@예시.한국",
        "สมชาย9@ตัวอย่าง.ไทย", "𠮷野1@例え.jp", "张三_88@example.com", "张三.li@example.com", "张三+x@example.com",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("before", "behind"), [("", ""), ("邮箱：", "，谢谢"), ("mailto:", " "), ("邮箱 ", "。"), ("<", ">")]
)
def test_a_local_part_that_mixes_scripts_goes_as_a_whole(address: str, before: str, behind: str) -> None:
    assert found(before + address + behind) == [("EMAIL", address)]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("请联系张三88@例子.公司谢谢", "请联系张三88@例子.公司"),  # nothing parts prose from it: all of it goes
        ("字" * 60 + "三88@例子.公司", "字" * 19 + "三88@例子.公司"),  # but no more than the 64 octets of a local part
        ("我的邮箱是12345678@qq.com", "12345678@qq.com"),  # an ASCII domain: prose, as a rule
        ("张三88@example.com", "88@example.com"),
    ],
    ids=["prose", "octets", "ascii domain", "a name before it"],
)
def test_what_precedes_without_a_separator(text: str, address: str) -> None:
    assert found(text) == [("EMAIL", address)]


@pytest.mark.parametrize(("entity", "value"), [(e, v) for e, values in HIDDEN.items() for v in values])
def test_what_shows_nothing_or_looks_like_ascii_hides_no_number(entity: str, value: str) -> None:
    assert found(f"号码 {value}，ok") == [(entity, value)]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("邮箱是zhang@example.com。谢谢", "zhang@example.com"),
        ("写到zhang@example.com是我的", "zhang@example.com"),
        ("métro, zhang@example.com, été", "zhang@example.com"),
        ("13800138000@qq.com", "13800138000@qq.com"),
    ],
)
def test_prose_around_an_address_stays(text: str, address: str) -> None:
    assert found(text) == [("EMAIL", address)]


@pytest.mark.parametrize(
    "text", ["大家@张三。谢谢大家", "@用户 你好。", "é@", "@é.fr", '"@', "a@b", "tab\t123\t4567", "١٢٣"]
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("part", ["a.b@", "é", '"@', "@。", "@a。", '"', "a@[1", '\\"', "用@", "é@é.", "\u202e1", "❶"])
def test_time_grows_with_length_alone(part: str) -> None:
    """An attacker's text costs what another costs: thirty-two times as long, far less than its square."""
    finder = Finder()

    def seconds(times: int) -> float:
        text = part * times
        took = []
        for _ in range(3):
            began = time.process_time()
            finder.find(text)
            took.append(time.process_time() - began)
        return min(took)

    seconds(64)
    assert seconds(64_000) < 200 * max(seconds(2_000), 2e-4)


@pytest.mark.parametrize("place", [(0, 1), (0, 5), (4, 5)])
def test_a_hook_s_place_may_reach_either_end(place: tuple[int, int]):
    assert Finder(hooks=[Hook("NAME", lambda _: [place])]).find("abcde") == [Finding("NAME", *place)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("138 1234 5678@example.com", [("EMAIL", "5678@example.com")]),  # ends in what an e-mail address has taken
        ("a@example.com 13812345678", [("EMAIL", "a@example.com"), ("PHONE_NUMBER", "13812345678")]),
        ("13812345678 a@example.com", [("PHONE_NUMBER", "13812345678"), ("EMAIL", "a@example.com")]),
    ],
)
def test_findings_never_overlap(text: str, wanted: list[tuple[str, str]]):
    assert found(text) == wanted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(prose, planted.map(lambda p: p[1])), max_size=20))
def test_scanning_together_counts_what_finding_one_by_one_does(texts: list[str]):
    one_by_one: dict[str, int] = {}
    for text in texts:
        for finding in FINDER.find(text):
            one_by_one[finding.entity] = one_by_one.get(finding.entity, 0) + 1
    assert dict(scan(texts)) == one_by_one


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_offsets_lead_back(text: str):
    places = offsets(text)
    assert len(places) == len(fold(text)) + 1
    assert places == sorted(places)
    assert places[-1] == len(text)


@settings(max_examples=150, deadline=None)
@given(st.characters(exclude_categories=["Cs"]))
def test_folding_is_nfkc_where_ascii_letters_and_digits_are_concerned(char: str):
    normal = unicodedata.normalize("NFKC", char)
    if char not in PROVINCES and any(c.isascii() and c.isalnum() for c in normal):
        assert fold(char) == normal


@pytest.mark.parametrize(
    "text", ["\ud800 13800138000", "\ud800 １３８００１３８０００", "１３８００１３８０００ \udfff"]
)
def test_half_a_surrogate_pair_hides_nothing(text: str):
    """JSON may carry one, and strict UTF-8 has no bytes for it."""
    assert [f.entity for f in FINDER.find(text)] == ["PHONE_NUMBER"]
    assert FINDER.count(text) == {"PHONE_NUMBER": 1}
