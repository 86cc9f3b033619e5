"""What a person is told of their manifest file: the API server's words, the line, and what may help."""

import re
from pathlib import Path

import pytest
import yaml

from governed_api.validation import validate
from governed_api.yaml_loader import MOST_NODES
from governed_operator.local.manifest_file import ManifestError, documents, findings, load_model
from governed_operator.local.manifest_text import parsed
from support.kubectl_words import MEANT

HEAD = "apiVersion: governedmodels.io/v1alpha1\nkind: GovernedModel\nmetadata: {name: tiny}\n"


@pytest.fixture
def told(tmp_path):
    def told(text):
        path = tmp_path / "m.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return [line.removeprefix(str(path)) for line in findings(path)]
        except ManifestError as error:
            return str(error).replace(str(path), "")

    return told


def test_an_unknown_field_has_its_line_and_the_nearest_name(told):
    metric = "      - name: statisticalParityDifference\n        thresholdLwer: -1\n"
    rules = f"  governance:\n    bias:\n      metrics:\n{metric}"
    text = f"{HEAD}spec:\n  qouta: {{}}\n{rules}"
    assert told(text) == [
        ':5: unknown field "spec.qouta"; did you mean "quota"?',
        ':10: unknown field "spec.governance.bias.metrics[0].thresholdLwer"; did you mean "thresholdLower"?',
    ]


def test_a_field_in_the_wrong_place_is_told_where_it_belongs(told):
    (line,) = told(f"{HEAD}spec:\n  predictor:\n    storageUri: pvc://claim/x\n")
    assert line.endswith("did you mean spec.predictor.model.storageUri?")


def test_a_field_like_no_other_gets_no_guess(told):
    assert told(f"{HEAD}spec:\n  zzzzqq: 1\n") == [':5: unknown field "spec.zzzzqq"']


def test_a_refused_pattern_says_what_the_field_is_for(told):
    lines = told(f"{HEAD}spec:\n  predictor:\n    model:\n      storageUri: file:m\n      digest: md5:1\n")
    (line,) = [line for line in lines if "should match" in line]
    assert line.startswith(":8: spec.predictor.model.digest: Invalid value:")
    assert re.search(r"\(.*SHA-256 of a file.*\)$", line)


def test_the_words_are_those_of_the_api_server(told):
    text = f"{HEAD}spec:\n  predictor: {{minReplicas: 3, maxReplicas: 2}}\n  suspend: maybe\n"
    words = [line.partition(": ")[2] for line in told(text)]
    assert words == [line.removeprefix("<nil>: ") for line in validate(yaml.safe_load(text))]
    assert not any("<nil>" in line for line in told(text))


def test_the_lines_are_those_of_each_document(told):
    text = f"{HEAD}spec: {{}}\n---\n{HEAD}spec:\n  a: 1\n"
    assert [line for line in told(text) if "unknown" in line] == [':10: unknown field "spec.a"']


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ':3:1: key "a" is given twice, first in line 1'),
        ("s:\n  x: {m: 1, m: 1}\n", ':2:13: key "m" is given twice, first in line 2'),
        ("l:\n- {k: 1}\n- {k: 1, 'k': 2}\n", ':3:10: key "k" is given twice, first in line 3'),
        ("a: &a [*a]\n", ":1:4: an alias refers to what it stands in"),
        ("a: &a {b: {c: *a}}\n", ":1:4: an alias refers to what it stands in"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("? [a, b]\n: 1\n", "unhashable"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: *nothing\n", "undefined alias"),
        ("a: \x07\n", "special characters are not allowed"),
        ("\t- a\n", "cannot start any token"),
    ],
)
def test_what_is_no_manifest_is_one_line_with_its_place(told, text, words):
    said = told(text)
    assert isinstance(said, str)
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("day", ["2026-11-01", "2001-99-99", "2026-11-01T12:00:00Z"])
def test_a_day_without_quotes_is_a_string_as_it_is_to_kubectl(day):
    assert [document.value for document in parsed(f"a: {day}\n")] == [{"a": day}]


@pytest.mark.parametrize("word", MEANT)
def test_a_word_means_what_it_means_to_kubectl(word: str) -> None:
    (document,) = parsed(f"a: {word}\n")
    assert document.value == {"a": MEANT[word]}
    assert isinstance(document.value, dict)
    assert type(document.value["a"]) is type(MEANT[word])


def test_a_key_is_a_text_as_it_is_to_kubectl() -> None:
    (document,) = parsed("y: 1\nOff: 2\n010: 3\n1.5: 4\n<<: {a: 5}\n")
    assert document.value == {"true": 1, "false": 2, "8": 3, "1.5": 4, "a": 5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: .inf\n", ":1:4: expected a finite number, found .inf"),
        ("a:\n  b: -.INF\n", ":2:6: expected a finite number, found -.INF"),
        ("a: .NaN\n", ":1:4: expected a finite number, found .NaN"),
        ("a: !!bool maybe\n", ":1:4: expected a boolean, found maybe"),
        ("~: 1\n", ":1:1: expected a text as a key, found None"),
    ],
)
def test_what_json_has_no_form_for_is_refused_with_its_place(told, text: str, words: str) -> None:
    assert words in told(text)


def test_aliases_that_unfold_without_bound_are_refused_at_once(told):
    tower = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    tower += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    assert f"more than {MOST_NODES} values once aliases are written out" in told(tower)


def test_merged_keys_may_be_overridden(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("base: &b {x: 1, z: 2}\nover: {<<: *b, x: 3}\n")
    assert documents(path) == [{"base": {"x": 1, "z": 2}, "over": {"x": 3, "z": 2}}]


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}spec: {{lifecycle: {{training: {{data: {{builtin: berkeley}}}}}}}}\n", encoding="utf-8-sig")
    text = path.read_text(encoding="utf-8-sig")
    assert documents(path) == [yaml.safe_load(text)]


def test_steps_of_a_canary_rise(told):
    def said(steps):
        return told(f"{HEAD}spec:\n  lifecycle:\n    rollout: {{steps: {steps}}}\n")

    assert any("steps must rise" in line for line in said("[50, 10]"))
    assert any("steps must rise" in line for line in said("[10, 10]"))
    assert any("steps must rise" in line for line in said(f"[{', '.join(map(str, [*range(1, 10), 9]))}]"))
    assert not any("steps" in line for line in said("[10, 50]"))
    assert not any("steps" in line for line in said(f"[{', '.join(map(str, range(1, 11)))}]"))


def test_load_model_says_all_of_it(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}spec:\n  qouta: {{}}\n  explaner: {{}}\n")
    with pytest.raises(ManifestError) as error:
        load_model(path)
    assert [line.partition(";")[2] for line in str(error.value).splitlines()] == [
        ' did you mean "quota"?',
        ' did you mean "explainer"?',
    ]


def test_a_pattern_that_is_too_wide_is_named_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    """No CEL rule can count it, and the server would refuse it at its start."""
    path = tmp_path / "m.yaml"
    sample = Path(__file__).parents[3] / "crds/samples/masking.yaml"
    path.write_text(sample.read_text().replace(r"E\d{6}", "(a{50}b){9}"))
    line = 1 + next(n for n, text in enumerate(path.read_text().splitlines()) if "(a{50}b)" in text)
    assert findings(path) == [
        f"{path}:{line}: spec.governance.privacy.masking.custom[0].pattern: Invalid value: expected matches of at most "
        "128 characters, found up to 459; lower the repeats"
    ]
