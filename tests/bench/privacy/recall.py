"""Sentences, Chinese and English, with one value each: templates and ways of writing that no recogniser was fitted to.
Counted is what of the planted values is masked, and what else is."""

import random
from collections.abc import Iterator

from corpus import KINDS

TEMPLATES = (
    "你好，我是小李，我的{}，麻烦尽快处理。",
    "老师说{}要填在表格第三行",
    "{}（已核实）",
    "麻烦把回执发到{}，谢谢！",
    "昨天系统里登记的是{}；今天变了",
    "客户反馈：{}，无法登录",
    "“{}”这一条请删掉",
    "1）{}\n2）其他",
    "備註：{}。請查收",
    "<td>{}</td>",
    "他写的是{}还是别的？",
    "Hi team, please update {} in the file.",
    "Is {} still right?",
    "We couldn't reach the person at {} yesterday",
    "record: {} | status: open",
    "ref={};done",
    "My old one ({}) no longer works!",
    "{} – that's the one",
    "'{}'",
    "[{}]",
    "Dear Sir,\n{}\nKind regards",
    '{{"note": "{}", "n": 3}}',
    "* {}\n* none",
    "note to self:{}",
    "they gave me {}, and then left",
)


def sentences(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(entity, value, sentence)."""
    rng = random.Random(seed)
    entities = sorted(KINDS)
    for _ in range(count):
        entity = rng.choice(entities)
        value = _written(entity, KINDS[entity](rng), rng)
        yield entity, value, rng.choice(TEMPLATES).format(value)


def _written(entity: str, value: str, rng: random.Random) -> str:
    """In one piece, or as people group it."""
    way = rng.randrange(4)
    if entity == "PHONE_NUMBER" and way:
        return (f"{value[:3]}-{value[3:7]}-{value[7:]}", f"+86 {value}", f"{value[:3]} {value[3:7]} {value[7:]}")[
            way - 1
        ]
    if entity in ("BANK_CARD", "IBAN") and way == 1:
        return " ".join(value[k : k + 4] for k in range(0, len(value), 4))
    if entity == "CN_RESIDENT_ID" and way == 1:
        return f"{value[:6]} {value[6:14]} {value[14:]}"
    return value.lower() if way == 2 and entity in ("CN_RESIDENT_ID", "CN_PASSPORT", "IBAN") else value
