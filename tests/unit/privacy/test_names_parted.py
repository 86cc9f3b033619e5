"""Names that are written apart, and what stands between words that aren't one."""

from functools import cache
from urllib.parse import quote

import pytest

from governed_api.governance import Masking
from governed_serving.privacy import Masker, TextStream, masker
from governed_serving.privacy.folding import fold
from governed_serving.privacy.names.finder import _with
from governed_serving.privacy.names.pieces import Seen, dotted_end
from governed_serving.privacy.scores import Find


@cache
def mask() -> Masker:
    return masker(Masking.model_validate({"names": {"budget": "60s"}}))


@pytest.mark.parametrize(
    "apart",
    [
        " ", "  ", "    ", "\u3000", "\u00a0", "\t", ".", "．", "-", "–", "_", "/", "*", "|", "~", "+", "·", "・", "•",
        " · ", "\n", "\r\n", "&nbsp;", "&#160;", "&middot;", "<br>", "</b><b>", "\\n", "%20", "\u200b", "\u00ad",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["诸葛{}亮", "张{}三", "王{}小{}明"])
def test_a_name_is_masked_whatever_stands_within(name: str, apart: str) -> None:
    written = name.format(apart, apart)
    assert mask().mask(f"患者{written}今天下午来医院复诊。") == "患者<PERSON>今天下午来医院复诊。"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("我叫阿卜杜拉·买买提，今年三十岁。", "我叫<PERSON>，今年三十岁。"),
        ("我叫阿卜杜拉•买买提，今年三十岁。", "我叫<PERSON>，今年三十岁。"),
        (f"患者{quote('诸葛亮')}今天下午来复诊。", "患者<PERSON>今天下午来复诊。"),
        (quote("患者张三今天下午来复诊。"), f"{quote('患者')}<PERSON>{quote('今天下午来复诊。')}"),
        ("患者張·三今天下午來醫院複診。", "患者<PERSON>今天下午來醫院複診。"),
    ],
)
def test_names_of_other_forms_are_masked(text: str, seen: str) -> None:
    assert mask().mask(text) == seen


@pytest.mark.parametrize(
    "text",
    [
        "本季度 客户的 还款能力 保持稳定，公司 将继续 关注 市场变化。",
        "温度高/低时请关闭阀门。苹果/香蕉/橙子各一箱。",
        "北京-上海的高铁每天发车，时间.地点另行通知。",
        "评估结果以\n最终通知\n为准。",
        "标题<br>正文</b><b>附录",
        "他来了。三点开会。",
        "100%合格，AT&T和R&D部门",
    ],
)
def test_ordinary_text_with_separators_stays(text: str) -> None:
    assert mask().mask(text) == text


def test_names_below_each_other_stay_apart() -> None:
    assert mask().mask("张三\n李四\n王五\n赵六") == "<PERSON>\n<PERSON>\n<PERSON>\n<PERSON>"
    assert mask().mask("姓名 张三 性别 男") == "姓名 <PERSON> 性别 男"
    assert mask().mask("好。张三来了。李四走了。") == "好。<PERSON>来了。<PERSON>走了。"


@pytest.mark.parametrize(
    "text", ["患者诸葛\n亮来了。", "我叫张\r\n三，你好。", "患者王/小/明\n今天来", "张·三来了。好"]
)
def test_a_stream_gives_what_the_whole_text_gives(text: str) -> None:
    whole = mask().mask(text)
    assert "<PERSON>" in whole
    for cuts in [[text[:k], text[k:]] for k in range(len(text) + 1)] + [list(text)]:
        stream = TextStream(mask())
        out = "".join([*(stream.add(piece).text for piece in cuts), stream.flush().text])
        assert out == whole, cuts


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("张.三", "张三"), ("张。三", None), ("张。 三", None), ("张三", None), ("张. 三", None), ("张, 三", None),
        ("a.b 张 c", None), ("张·三<i>四", "张三四"), ("张\n\n三", None), ("张\n三", "张三"),
    ],
)  # fmt: skip
def test_what_is_left_out_between_characters(text: str, joined: str | None) -> None:
    other = Seen(text).joined()
    assert (other.text if other else None) == joined
    if other is not None:
        ends = [(other.start(k), other.end(k)) for k in range(len(other.text))]
        assert "".join(text[a:b] for a, b in ends) == joined


@pytest.mark.parametrize(
    ("text", "end"),
    [("阿·买提，", 4), ("阿·买提", 4), ("阿·买·提。", 5), ("阿·九个字的话就不是名", 1), ("阿买提", 1), ("阿·b", 1)],
)
def test_a_name_goes_on_behind_its_point(text: str, end: int) -> None:
    assert dotted_end(text, 1) == end


def test_two_readings_are_one_list() -> None:
    def find(start: int, end: int, entity: str = "PERSON") -> Find:
        return Find(entity, start, end, 1.0, "r")

    text = "张三李四王五赵六"
    assert _with(text, [find(0, 2), find(2, 4)], [find(1, 3)]) == [find(0, 2), find(2, 4)], "nothing new in it"
    assert _with(text, [find(0, 1)], [find(0, 2)]) == [find(0, 2)]
    assert _with(text, [find(0, 1), find(3, 4)], [find(0, 4)]) == [find(0, 4)]
    assert _with(text, [find(0, 2, "ADDRESS")], [find(1, 4)]) == [find(0, 2, "ADDRESS")]
    assert _with(text, [], [find(4, 6), find(0, 2)]) == [find(0, 2), find(4, 6)]
    many = [find(k, k + 1) for k in range(0, 60_000, 2)]
    assert _with("张" * 60_000, many, [find(k, k + 2) for k in range(0, 60_000, 2)])[0] == find(0, 2)


def test_escapes_of_names_are_read_once() -> None:
    assert fold("&nbsp;&middot;&commat&nbsp%E5%BC%A0%e4%b8%89") == " ·@ 张三"
    assert fold("%E5%BC&amp;nbsp;&nbspx%FF") == "%E5%BC&amp;nbsp; x%FF"
    assert fold("%ED%A0%80") == "\ufffd"
