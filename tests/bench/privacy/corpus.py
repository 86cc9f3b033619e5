"""Generated text with planted entities; the planted values are valid by their checksums."""

import random

CHINESE = "本季度客户的还款能力保持稳定，公司将继续关注市场变化。我们也注意到部分地区的需求有所下降，需要谨慎对待；评估结果以最终通知为准。"  # noqa: E501
ENGLISH = (
    "The applicant has worked for the same company for 12 years, earns 85,000 a year and opened a mortgage "
    "of 420,000 in spring. "
)


def _luhn(body: str) -> str:
    total = sum(int(d) if i % 2 else sum(divmod(int(d) * 2, 10)) for i, d in enumerate(reversed(body)))
    return body + str(-total % 10)


def _resident_id(rng: random.Random) -> str:
    body = f"110105{rng.randrange(1950, 2005)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}{rng.randrange(1000):03d}"  # noqa: E501
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(w * int(d) for w, d in zip(weights, body, strict=True)) % 11]


KINDS = {
    "PHONE_NUMBER": lambda r: f"1{r.choice('3589')}{r.randrange(10**9):09d}",
    "CN_RESIDENT_ID": _resident_id,
    "BANK_CARD": lambda r: _luhn(f"622202{r.randrange(10**12):012d}"),
    "EMAIL": lambda r: f"user{r.randrange(10**5)}@example.com",
    "IP_ADDRESS": lambda r: f"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}",
    "CN_PASSPORT": lambda r: f"E{r.randrange(10**8):08d}",
    "IBAN": lambda r: r.choice(("GB82WEST12345698765432", "DE89370400440532013000")),
    "US_SSN": lambda r: f"{r.randrange(100, 600)}-{r.randrange(10, 99)}-{r.randrange(1000, 9999)}",
}
"""Eight kinds, as in the alternation that is measured beside."""


def corpus(megabytes: float, bytes_per_entity: int, seed: int = 1) -> tuple[list[str], int]:
    """(texts of about 2 KB, number of planted entities); half of the entities follow a Chinese character directly."""
    rng = random.Random(seed)
    texts: list[str] = []
    total = planted = 0
    while total < megabytes * 1e6:
        parts, size = [], 0
        while size < 2_000:
            sentence = rng.choice((CHINESE, ENGLISH))
            length = len(sentence.encode())
            parts.append(sentence)
            size += length
            if rng.random() < length / bytes_per_entity:
                value = KINDS[rng.choice(sorted(KINDS))](rng)
                parts.append(f"联系{value}。" if planted % 2 else f"Contact: {value}, ")
                planted += 1
                size += len(value) + 9
        texts.append("".join(parts))
        total += size
    return texts, planted
