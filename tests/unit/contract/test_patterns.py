"""How long a match can be: of what is bounded the very number, and no expression without a bound passes."""

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from governed_api.governance import Masking
from governed_api.patterns import MOST_CHARACTERS, PatternRefused, too_wide, width
from governed_api.validation import validate


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        (r"E\d{6}", 7),
        (r"(?i)emp-?[0-9]{4,8}", 12),
        (r"a|bcd|ef", 3),
        (r"(?:ab|c){1,3}x", 7),
        (r"(?P<n>ab)?", 2),
        (r"[*+\]]{2}\+\*", 4),
        (r"[[:alpha:]]{3}", 3),
        (r"[]a]{4}", 4),
        (r"\x{1F600}\p{Greek}{2}\pL", 4),
        (r"^\b\d\z", 1),
        (r"a{b}", 4),
        (r"工号{2}", 3),
        ("", 0),
    ],
)
def test_the_longest_match(pattern: str, longest: int) -> None:
    assert width(pattern) == longest


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"a*", r"a+", r"a{2,}", r"(ab)*", r"[ab]+?", r"\w+", r"a(?:b|c*)", r"[a[:alpha:]]*", r"\pN+", r"a{2}+"),
        *(
            r"(?=a)b",
            r"(?<!a)b",
            r"(a",
            r"a)",
            r"\Qa*\E",
            r"\C",
            r"((a{50}){50}){50}",
            r".{129}",
            r"\p{Greek",
            r"[[:alpha",
        ),
    ],
)
def test_what_has_no_bound_or_none_that_counts(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        width(pattern)


PIECES = st.sampled_from(
    ["a", "b", ".", r"\d", "[ab]", "[^a]", "(", "(?:", ")", "|", "?", "{2}", "{1,3}", "{0}", "^", r"\b"]
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(PIECES, max_size=10).map("".join), st.text("ab1 ", max_size=24))
def test_no_match_of_re2_is_longer(pattern: str, text: str) -> None:
    options = re2.Options()
    options.log_errors = False
    try:
        longest, compiled = width(pattern), re2.compile(pattern, options)
    except (PatternRefused, re2.error):
        return
    assert all(len(match.group()) <= longest for match in compiled.finditer(text))


def of(pattern: str) -> dict[str, object]:
    masking = {"custom": [{"name": "STAFF_NO", "pattern": pattern}]}
    return {
        "apiVersion": "governedmodels.io/v1alpha1",
        "kind": "GovernedModel",
        "metadata": {"name": "m"},
        "spec": {
            "predictor": {
                "model": {"modelFormat": {"name": "runtime"}, "runtime": {"image": "i", "protocol": "openai"}}
            },
            "governance": {"privacy": {"masking": masking}},
        },
    }


@pytest.mark.parametrize(
    "pattern", [r"a*", r"a+", r"a{2,}", r"[ab]+?", r"\w+", r"a(?:b|c*)", r"[a[:alpha:]]*", r"\Q*\E"]
)
def test_the_api_server_refuses_what_has_no_bound(pattern: str) -> None:
    assert "pattern must have a bound to each repeat" in validate(of(pattern))[-1]


@pytest.mark.parametrize(
    "pattern", [r"[*+\]]{2}\+\*", r"[[:alpha:]]{3}", r"[]*]{4}", r"\x{1F600}\p{Greek}{2}", r"a\{b}", r"E\d{6}"]
)
def test_the_api_server_takes_what_has_one(pattern: str) -> None:
    assert validate(of(pattern)) == []


def test_what_no_rule_can_count_is_found_all_the_same() -> None:
    wide = Masking.model_validate({"custom": [{"name": "STAFF_NO", "pattern": "(a{50}b){9}"}]})
    (found,) = too_wide(wide)
    assert found.startswith("spec.governance.privacy.masking.custom[0].pattern: ")
    assert f"at most {MOST_CHARACTERS} characters, found up to 459; lower" in found
