"""The command line: what it prints, where, and its exit codes."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from governed_operator.cli import app
from governed_operator.local.client import ModelClient
from governed_operator.local.columns import DeclaredTensor, column
from governed_operator.local.json_client import ClientError

VALID = {
    "apiVersion": "governedmodels.io/v1alpha1",
    "kind": "GovernedModel",
    "metadata": {"name": "tiny", "namespace": "team"},
    "spec": {
        "lifecycle": {
            "training": {"data": {"inline": "x,answer\n0,no\n1,yes\n", "label": "answer", "features": [{"name": "x"}]}}
        }
    },
}


@pytest.fixture
def cli() -> CliRunner:
    return CliRunner()


def written(folder: Path, manifest: object) -> str:
    path = folder / "model.yaml"
    path.write_text(manifest if isinstance(manifest, str) else yaml.safe_dump(manifest))
    return str(path)


def test_validate_accepts(cli: CliRunner, tmp_path: Path) -> None:
    result = cli.invoke(app, ["validate", written(tmp_path, VALID)])
    assert (result.exit_code, result.stdout.strip().rsplit(": ", 1)[1]) == (0, "GovernedModel tiny is valid")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (VALID | {"spec": VALID["spec"] | {"replica": 1}}, "replica"),  # type: ignore[operator]
        (VALID | {"spec": {"predictor": {"minReplicas": 3, "maxReplicas": 2}}}, "minReplicas"),
        ("spec: [", "expected YAML"),
        ("", "empty: expected a GovernedModel"),
    ],
)
def test_validate_refuses_and_names_the_field(cli: CliRunner, tmp_path: Path, manifest: object, words: str) -> None:
    result = cli.invoke(app, ["validate", written(tmp_path, manifest)])
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_file_is_one_line(cli: CliRunner, tmp_path: Path) -> None:
    for command in ("validate", "render", "run"):
        result = cli.invoke(app, [command, str(tmp_path / "none.yaml")])
        assert result.exit_code == 1
        assert len(result.stderr.strip().splitlines()) == 1
        assert "No such file" in result.stderr


def test_render_prints_what_would_be_applied(cli: CliRunner, tmp_path: Path) -> None:
    result = cli.invoke(app, ["render", written(tmp_path, VALID), "--artefact", "sha256:" + "0" * 64])
    kinds = [d["kind"] for d in yaml.safe_load_all(result.stdout)]
    assert result.exit_code == 0
    assert kinds.index("StatefulSet") < kinds.index("Job") < kinds.index("Deployment")
    assert "sha256:" + "0" * 64 in result.stdout


def test_crd_files_are_written_and_checked(cli: CliRunner, tmp_path: Path) -> None:
    assert cli.invoke(app, ["crd", "--check", str(tmp_path)]).exit_code == 1
    assert cli.invoke(app, ["crd", "--write", str(tmp_path)]).exit_code == 0
    assert cli.invoke(app, ["crd", "--check", str(tmp_path)]).exit_code == 0
    (tmp_path / "governedmodels.yaml").write_text("changed")
    stale = cli.invoke(app, ["crd", "--check", str(tmp_path)])
    assert (stale.exit_code, "governedmodels.yaml" in stale.stderr) == (1, True)


def test_run_refuses_a_suspended_model(cli: CliRunner, tmp_path: Path) -> None:
    manifest = VALID | {"spec": VALID["spec"] | {"suspend": True}}  # type: ignore[operator]
    result = cli.invoke(app, ["run", written(tmp_path, manifest), "--workdir", str(tmp_path / "w")])
    assert (result.exit_code, "spec.suspend is true" in result.stderr) == (1, True)


def test_explain_says_that_nothing_listens(cli: CliRunner) -> None:
    result = cli.invoke(app, ["explain", "tiny", '{"x": 1}', "--url", "http://127.0.0.1:9"])
    assert (result.exit_code, "is the model running there?" in result.stderr) == (1, True)


def test_report_needs_a_run(cli: CliRunner, tmp_path: Path) -> None:
    result = cli.invoke(app, ["report", "tiny", "--workdir", str(tmp_path)])
    assert (result.exit_code, "run the model first" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "row"),
    [
        (["department=A", "note=a=b"], {"department": "A", "note": "a=b"}),
        (['{"age": 41}'], {"age": 41}),
    ],
)
def test_explain_takes_names_and_values_or_json(
    cli: CliRunner, monkeypatch: pytest.MonkeyPatch, words: list[str], row: dict[str, object]
) -> None:
    asked: list[object] = []

    def explain(_: ModelClient, row: dict[str, object], parameters: dict[str, object]) -> dict[str, object]:
        asked.append((row, parameters))
        return {"explanations": []}

    monkeypatch.setattr(ModelClient, "explain", explain)
    assert cli.invoke(app, ["explain", "tiny", *words]).exit_code == 0
    assert asked == [(row, {})]


def test_explain_says_what_it_expected(cli: CliRunner) -> None:
    result = cli.invoke(app, ["explain", "tiny", "department=A", "female"])
    assert result.exit_code != 0
    assert "female: expected name=value" in result.output


def test_words_become_the_numbers_that_the_model_takes() -> None:
    declared: DeclaredTensor = {"name": "age", "datatype": "FP32", "shape": [-1, 1]}
    assert column(declared, [{"age": "41"}, {"age": 2}])["data"] == [41.0, 2]
    with pytest.raises(ClientError, match="age: expected a number"):
        column(declared, [{"age": "old"}])


def test_run_once_looks_for_its_requests_before_it_trains(
    cli: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, VALID)
    monkeypatch.chdir(tmp_path)
    result = cli.invoke(app, ["run", path, "--once"])
    assert result.exit_code == 1
    assert "model.requests.json: No such file or directory: --once sends the requests in this file" in result.stderr
    assert not (tmp_path / ".governed").exists(), "nothing was begun"


POLICY = {
    "apiVersion": "governedmodels.io/v1alpha1",
    "kind": "GovernancePolicy",
    "metadata": {"name": "floor", "namespace": "team"},
    "spec": {"enforcement": "Deny", "require": {"quota": "Required", "explainer": "Required"}},
}
IN_AUDIT = POLICY | {"spec": {"enforcement": "Audit", "require": {"quota": "Required"}}}
QUOTA = (
    "GovernedModel tiny: spec.quota.requests is absent; GovernancePolicy floor requires a limit; set a limit in "
    "quota.requests or quota.tokens (rule quota)"
)


def policed(folder: Path, policy: object) -> str:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    return str(path)


def test_validate_names_each_violation_of_a_policy_that_denies(cli: CliRunner, tmp_path: Path) -> None:
    model = written(tmp_path, VALID)
    result = cli.invoke(app, ["validate", model, "--policy", policed(tmp_path, POLICY)])
    quota, explainer = result.stderr.splitlines()
    assert (result.exit_code, quota) == (1, f"{model}: refused: {QUOTA}")
    assert "spec.explainer is absent" in explainer


def test_validate_only_warns_of_a_policy_in_audit(cli: CliRunner, tmp_path: Path) -> None:
    model = written(tmp_path, VALID)
    result = cli.invoke(app, ["validate", model, "--policy", policed(tmp_path, IN_AUDIT)])
    assert (result.exit_code, result.stderr) == (0, f"{model}: warning: {QUOTA}\n")


def test_a_policy_among_the_manifests_counts_in_any_order(cli: CliRunner, tmp_path: Path) -> None:
    model, policy = written(tmp_path, VALID), policed(tmp_path, POLICY)
    for files in ([model, policy], [policy, model], [written(tmp_path, yaml.safe_dump_all([POLICY, VALID]))]):
        result = cli.invoke(app, ["validate", *files])
        assert (result.exit_code, f"refused: {QUOTA}" in result.stderr) == (1, True)


def test_a_policy_of_another_namespace_is_not_about_the_model(cli: CliRunner, tmp_path: Path) -> None:
    other = POLICY | {"metadata": {"name": "floor", "namespace": "others"}}
    result = cli.invoke(app, ["validate", written(tmp_path, VALID), "--policy", policed(tmp_path, other)])
    assert (result.exit_code, result.stderr) == (0, "")


def test_an_exemption_in_use_is_told_and_lets_the_model_pass(cli: CliRunner, tmp_path: Path) -> None:
    exempt = {"model": "tiny", "rule": "quota", "owner": "ana", "reason": "trial", "expires": "9999-01-01T00:00:00Z"}
    spec = {"enforcement": "Deny", "require": {"quota": "Required"}, "exemptions": [exempt]}
    policy = policed(tmp_path, POLICY | {"spec": spec})
    result = cli.invoke(app, ["validate", written(tmp_path, VALID), "--policy", policy])
    assert (result.exit_code, "exempt until 9999" in result.stderr) == (0, True)


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (VALID, "expected a GovernancePolicy or ClusterGovernancePolicy, found none"),
        (POLICY | {"spec": {"enforcement": "Deny", "require": {"quotas": "Required"}}}, 'did you mean "quota"?'),
        (POLICY | {"spec": {"require": {}}}, "spec.enforcement: Required value"),
        ({}, "no matches for kind"),
    ],
)
def test_a_policy_that_cannot_be_read_refuses_every_model(
    cli: CliRunner, tmp_path: Path, command: str, policy: object, words: str
) -> None:
    result = cli.invoke(app, [command, written(tmp_path, VALID), "--policy", policed(tmp_path, policy)])
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("beside", [True, False])
def test_run_starts_nothing_that_a_policy_denies(cli: CliRunner, tmp_path: Path, beside: bool) -> None:
    model = written(tmp_path, yaml.safe_dump_all([VALID, POLICY]) if beside else VALID)
    given = [] if beside else ["--policy", policed(tmp_path, POLICY)]
    workdir = tmp_path / "run"
    result = cli.invoke(app, ["run", model, "--workdir", str(workdir), *given])
    assert (result.exit_code, workdir.exists()) == (1, False)
    assert f"refused: {QUOTA}" in result.stderr
    assert "nothing was started" in result.stderr
