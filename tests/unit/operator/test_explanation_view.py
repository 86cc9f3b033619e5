"""Explanations as the commands print them."""

import json

import msgspec
import pytest
from typer.testing import CliRunner

from governed_api.version import __version__
from governed_operator.cli import app
from governed_operator.local.client import ModelClient
from governed_operator.local.explanation_view import GROUPS, PAIRS, answer_view, explanation_view
from governed_operator.local.plain_console import plain_console
from governed_serving.explainer.service.protocol import Parameters

ANSWER = {
    "explanations": [
        {
            "method": "exact",
            "target": "yes",
            "attributions": [
                {"feature": "age", "value": 30, "attribution": 0.2, "main_effect": 0.3},
                {"feature": "job", "value": "nurse", "attribution": -0.1, "main_effect": 0.0},
            ],
            "interactions": [{"between": ["age", "job"], "interaction": -0.1, "interval": [None, None]}],
            "interactions_left_out": 0,
        }
    ]
}


def printed(answer, metadata=None):
    """An explanation; with ``metadata`` an answer."""
    console = plain_console(width=100)
    with console.capture() as caught:
        console.print(explanation_view(answer) if metadata is None else answer_view(answer, metadata))
    return caught.get()


def words(text):
    return " ".join(text.split())


def output(name, *data):
    return {"name": name, "datatype": "FP32", "shape": [1, len(data)], "data": list(data)}


def test_a_word_of_a_text_stands_where_a_feature_would():
    spans = [{"span": [0, 4], "value": "good", "attribution": 0.5}, {"span": [5, 9], "value": "film", "attribution": 0}]
    first, second, _ = printed({"explanations": [{"attributions": spans, "method": "text"}]}).splitlines()
    assert (first.split()[0], second.split()[0]) == ("good", "film")


@pytest.mark.parametrize(
    "name", ["age [years]", "[/]", "[red]", "[link=https://x]a", "a[0]", "[bold", ":smile:", "\\[x]"]
)
def test_a_name_is_printed_as_it_is(name):
    """Square brackets would be rich's markup: swallowed, or an error where they end what wasn't begun."""
    own = {"feature": name, "value": name, "attribution": 0.5}
    changed = {"changes": [{"feature": name, "from": name, "to": name}], "distance": 1.0, "prediction": 0.5}
    answer = {
        "attributions": [own],
        "groups": [{"group": name, "attribution": 0.5}],
        "interactions": [{"between": [name, name], "interaction": 0.1}],
        "anchor": [{"player": name, "conditions": {name: {"equals": name}}}],
        "counterfactuals": [changed],
        "target": name,
    }
    assert printed({"explanations": [answer]}).count(name) == 11
    assert printed({"outputs": [output("label", name)], "id": name}, {}).count(name) == 2


def test_an_answer_names_classes_what_is_promised_and_what_was_mitigated():
    """A set as false, true said nothing to who doesn't know the order of classes."""
    outputs = [output("probabilities", 0.25, 0.75), output("label", "refer"), output("prediction_set", True, True)]
    known = {"parameters": {"classes": ["approve", "refer"], "coverage": 0.9}}
    text = words(printed({"id": "1", "outputs": outputs, "parameters": {"mitigation": "reweighing"}}, known))
    assert "approve 0.25, refer 0.75" in text
    assert "{approve, refer} holds the truth with a chance of 0.9" in text
    assert "trained with mitigation of bias: reweighing" in text
    one = printed({"id": "1", "outputs": [output("prediction_set", 0, 1, 1, 0)]}, known)
    assert "{refer}; {approve}" in one
    regression = {"parameters": {"classes": [], "coverage": 0.5}}
    text = words(printed({"id": "1", "outputs": [output("prediction_interval", -1.5, 2.0)]}, regression))
    assert "-1.5, 2 holds the truth with a chance of 0.5" in text
    bare = printed({"id": "1", "outputs": [output("probabilities", 0.5, 0.5), output("x", 7)]}, {"inputs": []})
    assert ("0.5, 0.5" in bare, "chance" in bare, "mitigation" in bare) == (True, False, False)


def test_interactions_stand_below_the_attributions_that_they_are_part_of():
    lines = printed(ANSWER).splitlines()
    assert next(i for i, line in enumerate(lines) if "age × job" in line) > 2
    assert "-0.1000" in next(line for line in lines if "age × job" in line)
    assert "not shown" not in printed(ANSWER)


def test_an_answer_without_interactions_has_no_word_of_them():
    (plain,) = ANSWER["explanations"]
    bare = {key: value for key, value in plain.items() if "interactions" not in key}
    assert "interactions" not in printed({"explanations": [bare]})


def test_pairs_that_are_not_printed_are_counted():
    (plain,) = ANSWER["explanations"]
    pairs = [{"between": ["a", f"b{i}"], "interaction": 0.1 / (i + 1)} for i in range(PAIRS + 3)]
    text = printed({"explanations": [{**plain, "interactions": pairs, "interactions_left_out": 4}]})
    assert "7 weaker pairs not shown" in " ".join(text.split())
    assert text.count(" × ") == PAIRS


def test_groups_of_a_hierarchy_say_what_their_members_have_together():
    (plain,) = ANSWER["explanations"]
    groups = [
        {"group": "person", "within": "all", "attribution": 0.25, "interval": [None, None]},
        *({"group": f"g{i}", "attribution": 0.001 * i} for i in range(GROUPS + 1)),
    ]
    text = " ".join(printed({"explanations": [{**plain, "groups": groups}]}).split())
    assert "person within all" in text
    assert "+0.2500" in text
    assert "2 smaller ones not shown" in text


def test_the_command_asks_for_them(monkeypatch):
    asked = []

    def explain(_, row, parameters):
        asked.append((row, parameters))
        return ANSWER

    monkeypatch.setattr(ModelClient, "explain", explain)
    result = CliRunner().invoke(app, ["explain", "loans", "age=30", "job=nurse", "--interactions"])
    assert result.exit_code == 0, result.output
    assert asked == [({"age": "30", "job": "nurse"}, {"interactions": True})]
    assert "age × job" in result.output


def test_an_anchor_is_a_rule_with_how_often_it_holds():
    conditions = [
        {"player": "age", "conditions": {"age": {"above": 16.5, "up_to": 20.25}}},
        {"player": "who", "conditions": {"job": {"equals": "nurse"}, "debt": {"above": None, "up_to": 3.0}}},
        {"player": "pay", "conditions": {"pay": {"above": 1.0, "up_to": None}, "sex": {"equals": None}}},
    ]
    rule = {
        "method": "anchors", "target": 1, "anchor": conditions, "precision": 0.957, "interval": [0.947, 0.966],
        "coverage": 0.05, "certified": False, "threshold": 0.95,
    }  # fmt: skip
    text = " ".join(printed({"explanations": [rule]}).split())
    for words in ("16.5 < age ≤ 20.25", "job = nurse", "debt ≤ 3", "pay > 1", "sex is missing", "target 1"):
        assert words in text
    assert "holds for 95.7 % (94.7 to 96.6 %) of the rows that it fits, 5 % of the background; not shown" in text
    assert "at least 95 %" in text
    theirs = {"method": "anchors", "anchor": [{"player": "age", "rule": "age > 28"}], "precision": 1.0, "coverage": 0.2}
    text = " ".join(printed({"explanations": [theirs]}).split())
    assert "if age > 28 holds for 100.0 % of the rows that it fits, 20 % of the background method" in text
    empty = " ".join(printed({"explanations": [{**rule, "anchor": [], "precision": None}]}).split())
    assert "no rule needed: the outcome stays whatever the features are" in empty


def test_counterfactuals_are_changes_nearest_first():
    changes = [{"feature": "age", "from": 30.0, "to": 41.5}, {"feature": "job", "from": "nurse", "to": "cook"}]
    found = {"changes": changes, "distance": 0.0565, "prediction": 0.50001}
    answer = {"method": "counterfactual", "target": 0, "already": False, "counterfactuals": [found]}
    text = " ".join(printed({"explanations": [answer]}).split())
    assert "age 30.0 → 41.5, job nurse → cook" in text
    assert "distance 0.0565 prediction 0.5" in text
    none = " ".join(printed({"explanations": [{**answer, "counterfactuals": []}]}).split())
    assert "no change found that gives the outcome" in none
    already = " ".join(printed({"explanations": [{**answer, "counterfactuals": [], "already": True}]}).split())
    assert "the row has the outcome already" in already


@pytest.fixture
def asked(monkeypatch):
    """Parameters that the command asks for."""
    asked = []

    def explain(_, __, parameters):
        asked.append(parameters)
        return ANSWER

    monkeypatch.setattr(ModelClient, "explain", explain)
    return asked


def test_every_option_reaches_the_explainer_under_its_name_there(asked):
    words = (
        "--method sampled --target yes --outcome no --field note --level phrase --group who=age,sex --group where=town"
        " --hierarchy money=income,debts --scale logit --max-evaluations 64 --budget-milliseconds 500 --precision 0.1"
        " --confidence 0.9 --seed 0 --kernel-width 2 --immutable sex --immutable age --direction age=increase"
        " --step income=100 --interactions"
    )
    result = CliRunner().invoke(app, ["explain", "loans", "age=30", *words.split()])
    assert result.exit_code == 0, result.output
    assert asked == [
        {
            "method": "sampled",
            "target": "yes",
            "outcome": "no",
            "field": "note",
            "level": "phrase",
            "interactions": True,
            "groups": {"who": ["age", "sex"], "where": ["town"]},
            "hierarchy": {"money": ["income", "debts"]},
            "scale": "logit",
            "maxEvaluations": 64,
            "budgetMilliseconds": 500,
            "precision": 0.1,
            "confidence": 0.9,
            "seed": 0,
            "kernelWidth": 2,
            "immutable": ["sex", "age"],
            "direction": {"age": "increase"},
            "step": {"income": 100},
        }
    ]
    msgspec.convert(asked[0], Parameters)  # the explainer takes it


def test_former_flags_are_taken(asked):
    words = "--evaluations 64 --budget 500 --group who=age,sex"
    result = CliRunner().invoke(app, ["explain", "loans", "age=30", *words.split()])
    assert result.exit_code == 0, result.output
    assert asked == [{"maxEvaluations": 64, "budgetMilliseconds": 500, "groups": {"who": ["age", "sex"]}}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--step income", "--step income: expected FEATURE=VALUE"),
        ("--step income=", "--step income=: expected FEATURE=VALUE"),
        ("--step income=much", "--step income=much: expected a number"),
        ("--direction =up", "--direction =up: expected FEATURE=VALUE"),
        ("--direction a=increase --direction a=decrease", "a is named twice"),
        ("--hierarchy money", "--hierarchy money: expected NAME=FEATURE,FEATURE"),
    ],
)
def test_what_counterfactuals_may_do_is_refused_in_another_form(asked, words, told):
    result = CliRunner().invoke(app, ["explain", "loans", "age=30", *words.split()])
    assert (result.exit_code, asked) == (1, [])
    assert told in result.output


@pytest.mark.parametrize("word", ["who", "=age", "who=", "who=,"])
def test_a_group_without_name_or_features_is_refused(asked, word):
    result = CliRunner().invoke(app, ["explain", "loans", "age=30", "--group", word])
    assert result.exit_code == 1
    assert f"--groups {word}: expected NAME=FEATURE,FEATURE" in result.output
    assert not asked


def test_a_group_that_is_named_twice_is_refused(asked):
    result = CliRunner().invoke(app, ["explain", "loans", "a=1", "--group", "g=a", "--group", "g=b"])
    assert "the group g is named twice" in result.output
    assert (result.exit_code, asked) == (1, [])


def test_sampled_attributions_have_their_intervals_or_say_that_there_is_none():
    (plain,) = ANSWER["explanations"]
    first, second = plain["attributions"]
    sampled = [{**first, "interval": [0.1, 0.3]}, {**second, "interval": [None, None]}]
    lines = printed({"explanations": [{**plain, "exact": False, "attributions": sampled}]}).splitlines()
    assert "[+0.1000, +0.3000]" in next(line for line in lines if line.startswith("age "))
    assert "no estimate of error" in next(line for line in lines if line.startswith("job "))
    assert "estimate" not in printed({"explanations": [{**plain, "exact": True}]})


def test_an_answer_is_printed_by_output(monkeypatch):
    answer = {
        "id": "r-1",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": ["approve"]},
            {"name": "score", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
        ],
    }
    monkeypatch.setattr(ModelClient, "infer", lambda *_: answer)
    monkeypatch.setattr(ModelClient, "metadata", lambda *_: {"inputs": []})
    result = CliRunner().invoke(app, ["infer", "loans", "age=30"])
    assert result.exit_code == 0, result.output
    assert [" ".join(line.split()) for line in result.output.splitlines()] == [
        "label approve",
        "score 0.25, 0.75",
        "request r-1",
    ]
    assert json.loads(CliRunner().invoke(app, ["infer", "loans", "age=30", "--json"]).output) == answer


def test_the_version_is_that_of_the_distribution():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"governed {__version__}\n")
