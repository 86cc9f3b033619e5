"""`governed mask`: what a file becomes, by its kind; what was found where; refusals that quote nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from governed_api.governance import Masking
from governed_serving.privacy.tryout import Located, tried

RULES = Masking.model_validate({"custom": [{"name": "STAFF_NO", "pattern": r"E\d{6}"}], "deny": ["Falcon"]})
SAMPLE = Path(__file__).parents[3] / "crds/samples/masking.yaml"


def governed(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "from governed_operator.cli import main; main()", "mask", *words]
    return subprocess.run(program, input=given, capture_output=True, text=True, check=False)


def test_places_of_a_text_are_those_of_the_file() -> None:
    text = "工号Ｅ123456，call 13800138000\r\nfalcon"
    found = tried(text, "text", RULES)
    assert found.text == "工号<STAFF_NO>，call <PHONE_NUMBER>\r\n<DENIED>"
    assert [text[one.start : one.end] for one in found.finds] == ["Ｅ123456", "13800138000", "falcon"]


def test_json_stays_json() -> None:
    text = '{"a": 13800138000, "n": [-4111111111111111, 1.5], "t": "\\u0045123456"}'
    found = tried(text, "json", RULES)
    assert json.loads(found.text) == {"a": "<PHONE_NUMBER>", "n": ["<BANK_CARD>", 1.5], "t": "<STAFF_NO>"}


def test_lines_of_json_keep_their_places() -> None:
    text = '{"a": 1}\n\n{"t": "E123456"}\u2028\n{"t": "a\u2028E654321"}'.replace("}\u2028", "}")
    found = tried(text, "jsonl", RULES)
    assert found.text == text.replace("E123456", "<STAFF_NO>").replace("E654321", "<STAFF_NO>")
    assert [text[one.start : one.end] for one in found.finds] == ["E123456", "E654321"]


def test_a_table_is_masked_by_cells() -> None:
    text = 'name;x,note\r\n"Falcon, Inc",E123456\r\n1,2,E654321\r\n'
    found = tried(text, "csv", RULES)
    assert found.text == 'name;x,note\r\n"<DENIED>, Inc",<STAFF_NO>\r\n1,2,<STAFF_NO>\r\n'
    assert found.finds == [
        Located("DENIED", 0, 6, 1.0, "deny", 1, "name;x"),
        Located("STAFF_NO", 0, 7, 0.6, "custom STAFF_NO", 1, "note"),
        Located("STAFF_NO", 0, 7, 0.6, "custom STAFF_NO", 2, "3"),
    ]
    only = RULES.model_copy(update={"fields": ["note"]})
    assert tried(text, "csv", only).text.startswith('name;x,note\r\n"Falcon, Inc",<STAFF_NO>')


def test_what_has_nothing_in_it_is_left_byte_for_byte() -> None:
    assert tried('a,"b"\n"1",2\n', "csv", RULES).text == 'a,"b"\n"1",2\n'
    assert (
        tried("", "csv", RULES).text == tried("", "text", RULES).text == tried("\n", "jsonl", RULES).text.strip() == ""
    )


@pytest.mark.parametrize(
    ("text", "form", "why"),
    [
        ('{"secret E123456"', "json", "expected a JSON document, found none"),
        ('{"a": 1}\nE123456', "jsonl", "line 2: a JSON document"),
        ("[" * 100_000, "json", "it nests too deeply"),
        ('a,b\n"E123456', "csv", "expected a table"),
    ],
)
def test_what_is_not_of_its_kind_is_refused_and_not_quoted(text: str, form: str, why: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        tried(text, form, RULES)  # type: ignore[arg-type]
    assert why in str(refused.value)
    assert "E123456" not in str(refused.value)


def test_the_command_takes_a_manifests_rules_and_quotes_nothing(tmp_path: Path) -> None:
    done = governed("-", "--manifest", str(SAMPLE), "--explain", given="E123456 project falcon 400 800 8888 a@b.cn\n")
    assert done.stdout == "<STAFF_NO> <DENIED> 400 800 8888 a@b.cn\n"
    assert done.stderr.splitlines() == [
        "0-7 STAFF_NO 0.6 custom STAFF_NO",
        "8-22 DENIED 1 deny",
        "action Tokenize takes the model's key, which isn't here: <ENTITY> stands for it",
    ]
    path = tmp_path / "x.jsonl"
    path.write_text('{"t": "a@b.cn"}\n')
    assert json.loads(governed(str(path), "--json").stdout) == {
        "masked": '{"t": "<EMAIL>"}\n',
        "finds": [{"entity": "EMAIL", "start": 7, "end": 13, "score": 0.75, "rule": "RFC 5321, 6531: form"}],
    }


def test_the_command_shows_names_by_their_model() -> None:
    sample = str(SAMPLE.with_name("names.yaml"))
    done = governed("-", "--manifest", sample, "--explain", given="鲁迅说，张三住在杭州市西湖区文三路478号\n")
    assert done.stdout == "鲁迅说，<PERSON>住在<ADDRESS>\n"
    assert done.stderr.splitlines() == [
        "4-6 PERSON 0.75 ner/lac@826085fff327",
        "8-21 ADDRESS 0.75 ner/lac@826085fff327",
    ]


@pytest.mark.parametrize("words", [("/nowhere",), ("/dev/null", "--manifest", "/nowhere"), (sys.executable,), ("/",)])
def test_the_command_refuses_in_a_line(words: tuple[str, ...]) -> None:
    done = governed(*words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
