"""Loan applications with a planted disparity and personal data in two text fields."""

import numpy as np
from numpy.typing import NDArray

from governed_serving.trainer.generators import persons
from governed_serving.trainer.tables import Column, Table, strings

MALE_RATE, FEMALE_RATE, NOISE = 0.60, 0.45, 0.05

PURPOSES = ("car", "home", "education", "business", "medical", "travel")
_PURPOSE_ZH = {
    "car": "买车",
    "home": "装修",
    "education": "教育",
    "business": "经营",
    "medical": "医疗",
    "travel": "旅行",
}
_HOUSING = ("own", "mortgage", "rent")
_REGIONS = ("north", "south", "east", "west")
_INDUSTRIES = ("manufacturing", "services", "public", "technology", "trade")


def credit(rows: int, seed: int) -> Table:
    """Historical loan decisions: 15 features, label ``approved`` (yes, no), invented persons.

    Merit is a linear score of income, employmentYears, amount, debtRatio, existingLoans, latePayments, housing and a
    random residual, all drawn independently of ``sex``. With u its percentile (0 is best, from the ranks of all rows),
    a man is approved where u < .60 and a woman where u < .45; then 5 % of all decisions are flipped. So, exactly:

    ========  ==================  ==============
    quantity  expected            value
    ========  ==================  ==============
    P(yes|m)  .60 × .95 + .40 × .05   .590
    P(yes|f)  .45 × .95 + .55 × .05   .455
    SPD       .455 − .590             −.135
    DIR       .455 / .590             .7712 (below four fifths)
    ========  ==================  ==============

    ``industry`` is a proxy: it depends on sex (technology .30 for men, .10 for women) and has no part in merit.
    ``region``, ``age`` and both texts are noise. ``note`` (an application letter) and ``contact`` hold names, GB 11643
    resident numbers, mobile numbers, bank cards and e-mail addresses, half of them Chinese, half English; the resident
    number agrees with age and sex, so that unmasked text gives the protected attribute away. 3 % of ``employmentYears``
    and 2 % of ``debtRatio`` are missing. ``applicant`` says whom a row is about, and nothing else.
    """
    rng = np.random.default_rng(np.random.PCG64(seed))
    female = rng.random(rows) < 0.5
    columns = _merit_columns(rng, rows)
    approved = _decide(rng, columns, female)
    age = rng.integers(21, 70, rows)
    columns["age"] = age.astype(np.float64)
    columns["purpose"] = strings(np.array(PURPOSES)[rng.integers(0, len(PURPOSES), rows)].tolist())
    columns["region"] = strings(np.array(_REGIONS)[rng.integers(0, len(_REGIONS), rows)].tolist())
    columns["industry"] = _industry(rng, female)
    columns["sex"] = strings("female" if f else "male" for f in female)
    letters = [
        _letter(rng, str(p), 2026 - int(a), bool(f)) for p, a, f in zip(columns["purpose"], age, female, strict=True)
    ]
    columns["note"] = strings(note for note, _ in letters)
    columns["contact"] = strings(contact for _, contact in letters)
    columns["employmentYears"][rng.random(rows) < 0.03] = np.nan
    columns["debtRatio"][rng.random(rows) < 0.02] = np.nan
    columns["applicant"] = strings(f"A{place:08d}" for place in range(rows))
    columns["approved"] = strings("yes" if a else "no" for a in approved)
    return Table(columns)


def _merit_columns(rng: np.random.Generator, rows: int) -> dict[str, Column]:
    return {
        "income": np.round(np.exp(rng.normal(9.0, 0.5, rows)), 0),
        "employmentYears": np.round(rng.gamma(2.0, 3.5, rows), 1),
        "amount": np.round(np.exp(rng.normal(10.6, 0.7, rows)), -2),
        "duration": rng.choice(np.array([6.0, 12.0, 24.0, 36.0, 48.0, 60.0]), rows),
        "debtRatio": np.round(rng.beta(2.0, 4.0, rows), 3),
        "existingLoans": rng.poisson(1.2, rows).astype(np.float64),
        "latePayments": rng.poisson(0.6, rows).astype(np.float64),
        "housing": strings(np.array(_HOUSING)[rng.choice(3, rows, p=[0.3, 0.3, 0.4])].tolist()),
    }


def _decide(rng: np.random.Generator, columns: dict[str, Column], female: NDArray[np.bool_]) -> NDArray[np.bool_]:
    numbers = {name: values.astype(np.float64, copy=False) for name, values in columns.items() if name != "housing"}
    burden = np.log(numbers["amount"] / numbers["income"]) + 0.01 * numbers["duration"]
    merit = (
        1.2 * np.log(numbers["income"])
        + 0.10 * np.minimum(numbers["employmentYears"], 15.0)
        - 0.9 * burden
        - 2.0 * numbers["debtRatio"]
        - 0.25 * numbers["existingLoans"]
        - 0.6 * numbers["latePayments"]
        + 0.5 * (columns["housing"] == "own")
        + rng.normal(0.0, 0.25, len(female))
    )
    percentile = np.argsort(np.argsort(-merit, kind="stable"), kind="stable") / len(female)
    decided = percentile < np.where(female, FEMALE_RATE, MALE_RATE)
    flipped: NDArray[np.bool_] = decided ^ (rng.random(len(female)) < NOISE)
    return flipped


def _industry(rng: np.random.Generator, female: NDArray[np.bool_]) -> Column:
    men = rng.choice(5, len(female), p=[0.30, 0.15, 0.10, 0.30, 0.15])
    women = rng.choice(5, len(female), p=[0.15, 0.35, 0.25, 0.10, 0.15])
    return strings(np.array(_INDUSTRIES)[np.where(female, women, men)].tolist())


def _letter(rng: np.random.Generator, purpose: str, born: int, female: bool) -> tuple[str, str]:
    phone, card, number = persons.mobile(rng), persons.bank_card(rng), persons.resident_id(rng, born, female)
    if rng.random() < 0.5:
        name = persons.chinese_name(rng)
        note = f"本人{name}，身份证号{number}，手机{phone}，申请贷款用于{_PURPOSE_ZH[purpose]}，还款卡号{card}，请尽快审批。"  # noqa: E501
        return note, f"{persons.DISTRICTS[rng.integers(5)]}{rng.integers(1, 200)}号，电话{phone}"
    name = persons.english_name(rng)
    mail = f"{name.lower().replace(' ', '.')}{rng.integers(100)}@example.com"
    note = f"My name is {name}, ID {number}. I need a loan for {purpose}; please call +86 {phone} or write to {mail}."
    return note, f"{rng.integers(1, 200)} {persons.STREETS[rng.integers(6)]}, card {card}, {mail}"
