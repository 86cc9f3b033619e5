"""What is written as a string is read as a string, by kubectl as well."""

import pytest
import yaml

from governed_operator.local.yaml_writing import to_yaml

READ_AS_OTHERS = ["3591085e15", "1e5", "1E+9", "-2e-3", "1.5e3", "12.", ".5", "0o17", "1234567890", "0x1f", "1_000",
                  "y", "N", "yes", "off", "true", "null", "~", "2026-11-28", ".inf", "0b1", "017"]  # fmt: skip


@pytest.mark.parametrize("text", READ_AS_OTHERS)
def test_a_string_that_looks_like_something_else_is_quoted(text: str) -> None:
    written = to_yaml([{"metadata": {"labels": {"a": text, text: "b"}}}])
    assert f"a: '{text}'" in written
    assert f"'{text}': b" in written
    assert yaml.safe_load(written) == {"metadata": {"labels": {"a": text, text: "b"}}}


@pytest.mark.parametrize("text", ["3591f85a15", "sha256:00", "1e", "e5", "yes-no", "1.2.3", "10m", "4Gi", "v1"])
def test_any_other_is_plain(text: str) -> None:
    assert f"a: {text}\n" in to_yaml([{"a": text}])


def test_numbers_and_booleans_are_none_of_it() -> None:
    assert to_yaml([{"a": 1, "b": 1.5, "c": True, "d": None}]) == "---\na: 1\nb: 1.5\nc: true\nd: null\n"
