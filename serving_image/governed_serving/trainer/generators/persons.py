"""Invented persons: names, and identifiers that satisfy their check digits but belong to nobody on purpose."""

import numpy as np

_WEIGHTS = np.array([7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2])
_CHECK = "10X98765432"
_AREAS = ("110105", "310104", "440305", "330106", "510107", "420111")
_PREFIXES = ("138", "139", "150", "158", "177", "186", "199")

CHINESE_FAMILY = "王李张刘陈杨赵黄周吴徐孙胡朱高林"
CHINESE_GIVEN = (
    "伟",
    "芳",
    "娜",
    "敏",
    "静",
    "磊",
    "洋",
    "艳",
    "勇",
    "军",
    "杰",
    "娟",
    "涛",
    "超",
    "秀英",
    "丽华",
    "建国",
    "晓东",
)
ENGLISH_FIRST = (
    "Emma",
    "James",
    "Olivia",
    "Liam",
    "Sophia",
    "Noah",
    "Grace",
    "Henry",
    "Alice",
    "Oscar",
    "Ruth",
    "Peter",
)
ENGLISH_LAST = ("Clark", "Wright", "Hughes", "Foster", "Bennett", "Marsh", "Doyle", "Reid", "Palmer", "Stone", "Webb")
STREETS = ("Mill Lane", "High Street", "Park Road", "Church Hill", "Station Road", "Orchard Way")
DISTRICTS = (
    "北京市朝阳区建国路",
    "上海市徐汇区漕溪路",
    "深圳市南山区科苑路",
    "杭州市西湖区文三路",
    "成都市武侯区人民南路",
)


def resident_id(rng: np.random.Generator, born: int, female: bool) -> str:
    """A GB 11643-1999 resident number: area, date of birth, sequence (even for women), check character."""
    day = f"{born}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    sequence = 2 * int(rng.integers(5, 499)) + (0 if female else 1)
    body = f"{_AREAS[rng.integers(len(_AREAS))]}{day}{sequence:03d}"
    return body + _CHECK[int((np.array([int(c) for c in body]) * _WEIGHTS).sum() % 11)]


def mobile(rng: np.random.Generator) -> str:
    """A mainland mobile number, eleven digits."""
    return f"{_PREFIXES[rng.integers(len(_PREFIXES))]}{rng.integers(10**8):08d}"


def bank_card(rng: np.random.Generator) -> str:
    """Nineteen digits that begin with 62 and end with their Luhn check digit (ISO/IEC 7812-1)."""
    body = f"62{rng.integers(10**16):016d}"
    doubled = [int(c) * 2 if k % 2 == 0 else int(c) for k, c in enumerate(reversed(body))]
    return body + str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)


def chinese_name(rng: np.random.Generator) -> str:
    """Family name and given name."""
    return CHINESE_FAMILY[rng.integers(len(CHINESE_FAMILY))] + CHINESE_GIVEN[rng.integers(len(CHINESE_GIVEN))]


def english_name(rng: np.random.Generator) -> str:
    """First name and last name."""
    return f"{ENGLISH_FIRST[rng.integers(len(ENGLISH_FIRST))]} {ENGLISH_LAST[rng.integers(len(ENGLISH_LAST))]}"
