"""Short labelled texts in Chinese and English for the text classifier."""

import numpy as np

from governed_serving.trainer.generators import persons
from governed_serving.trainer.tables import Table, strings

NOISE = 0.03

_THINGS = {
    "en": ("The staff", "The branch", "The app", "My adviser", "The hotline", "This card"),
    "zh": ("工作人员", "网点", "手机应用", "客户经理", "热线", "这张卡"),
}
_GOOD = {
    "en": ("was friendly and quick", "solved my problem at once", "is easy to use", "is excellent", "was very helpful"),
    "zh": ("态度很好", "很快解决了问题", "非常好用", "服务周到", "让我很满意"),
}
_BAD = {
    "en": ("was rude and slow", "never answered", "is broken again", "is a waste of money", "was not helpful at all"),
    "zh": ("态度很差", "一直没有人接听", "又出故障了", "浪费钱", "让我很失望"),
}
_ENDS = {"en": ("", " I waited ten minutes.", " That was in May."), "zh": ("", "等了十分钟。", "那是五月的事。")}


def reviews(rows: int, seed: int) -> Table:
    """Customer reviews: columns ``text``, ``language`` (zh, en), ``sentiment`` (positive, negative).

    Half of the texts are Chinese, half English; half are positive in either language, then 3 % of labels are flipped,
    so that the best accuracy is .97 and the expected SPD between languages is 0. A fifth end with a mobile number.
    """
    rng = np.random.default_rng(np.random.PCG64(seed))
    languages = ["zh" if z else "en" for z in rng.random(rows) < 0.5]
    good = rng.random(rows) < 0.5
    texts = [_review(rng, language, bool(g)) for language, g in zip(languages, good, strict=True)]
    shown = good ^ (rng.random(rows) < NOISE)
    sentiment = strings("positive" if g else "negative" for g in shown)
    return Table({"text": strings(texts), "language": strings(languages), "sentiment": sentiment})


def _review(rng: np.random.Generator, language: str, good: bool) -> str:
    says = (_GOOD if good else _BAD)[language]
    thing, end = _THINGS[language][rng.integers(6)], _ENDS[language][rng.integers(3)]
    text = f"{thing}{says[rng.integers(5)]}。{end}" if language == "zh" else f"{thing} {says[rng.integers(5)]}.{end}"
    if rng.random() >= 0.2:
        return text
    return text + (f"电话{persons.mobile(rng)}" if language == "zh" else f" Call me: {persons.mobile(rng)}.")
