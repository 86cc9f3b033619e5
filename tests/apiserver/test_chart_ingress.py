"""The chart's Ingress objects for published ledgers, rendered by real Helm."""

import subprocess
from pathlib import Path

import pytest
import yaml

from governed_api import routes
from support.places import ROOT
from support.programs import program

CHART = ROOT / "charts" / "governed-models"
HOST = {"namespace": "team-a", "host": "ledger.team-a.example"}


def rendered(folder: Path, **archive: object) -> "subprocess.CompletedProcess[str]":
    values = folder / "values.yaml"
    values.write_text(yaml.safe_dump({"archive": archive}))
    command = [str(program("helm")), "template", "governed", str(CHART), "--values", str(values)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def ingresses(done: "subprocess.CompletedProcess[str]") -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [d for d in yaml.safe_load_all(done.stdout) if d and d["kind"] == "Ingress"]


def test_none_is_made_unless_asked_for(tmp_path: Path) -> None:
    assert ingresses(rendered(tmp_path)) == []
    assert ingresses(rendered(tmp_path, publishTo="ingress")) == []


def test_one_for_each_host_with_tls_and_the_read_routes_alone(tmp_path: Path) -> None:
    other = {"namespace": "team-b", "host": "ledger.team-b.example", "tlsSecret": "ledger-tls"}
    made = ingresses(
        rendered(
            tmp_path,
            publishTo="ingress",
            ingress={"className": "nginx", "annotations": {"cert-manager.io/issuer": "ours"}, "hosts": [HOST, other]},
        )
    )
    assert [m["metadata"]["namespace"] for m in made] == ["team-a", "team-b"]
    assert made[0]["metadata"]["annotations"] == {"cert-manager.io/issuer": "ours"}
    assert {m["spec"]["ingressClassName"] for m in made} == {"nginx"}
    tls = [m["spec"]["tls"] for m in made]
    assert tls == [[{"hosts": [HOST["host"]]}], [{"hosts": [other["host"]], "secretName": "ledger-tls"}]]
    for one in made:
        (rule,) = one["spec"]["rules"]
        paths = [(p["path"], p["pathType"]) for p in rule["http"]["paths"]]
        assert paths == [(routes.CHECKPOINT, "Exact"), (routes.TILES, "Prefix")]
        assert {str(p["backend"]) for p in rule["http"]["paths"]} == {
            "{'service': {'name': 'governed-archive', 'port': {'name': 'ledger'}}}"
        }


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ({"ingress": {"hosts": [HOST]}}, "archive.ingress.hosts needs archive.publishTo"),
        ({"publishTo": "ingress", "ingress": {"hosts": [{"host": "a.example"}]}}, "namespace"),
        ({"publishTo": "ingress", "ingress": {"hosts": [{**HOST, "host": "https://a.example/x"}]}}, "host"),
        ({"publishTo": "ingress", "ingress": {"hosts": [{**HOST, "path": "/"}]}}, "path"),
        ({"publishTo": "ingress", "ingress": {"hosts": ["a.example"]}}, "object"),
    ],
)
def test_what_can_t_be_is_refused(tmp_path: Path, archive: dict, expected: str) -> None:
    done = rendered(tmp_path, **archive)
    assert done.returncode != 0
    assert expected in done.stderr, done.stderr
