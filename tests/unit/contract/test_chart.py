"""What the chart derives is up to date, and says what the operator reads."""

import json
import re
import subprocess
import sys
from pathlib import Path

from governed_api import routes
from governed_api.names import ARCHIVE
from governed_operator.desired.archive import archive_service
from governed_operator.settings import OperatorSettings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "governed-models"


def test_derived_files_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "charts" / "render"), "--check", "--helm", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_variable_the_chart_sets_is_one_the_operator_reads() -> None:
    template = (CHART / "templates" / "deployment.yaml").read_text()
    set_by_chart = set(re.findall(r"name: (GOVERNED_OPERATOR_[A-Z_]+|POD_[A-Z]+)\b", template)) - {
        "GOVERNED_OPERATOR_IMAGE_"
    }
    source = "".join(p.read_text() for p in (ROOT / "operator" / "governed_operator").rglob("*.py"))
    for name in set_by_chart:
        assert f'"{name.removeprefix("GOVERNED_OPERATOR_")}"' in source or f'"{name}"' in source, name


def test_everything_the_operator_reads_can_be_set_by_the_chart() -> None:
    template = (CHART / "templates" / "deployment.yaml").read_text()
    source = (ROOT / "operator" / "governed_operator" / "settings.py").read_text()
    read = set(re.findall(r'get\("([A-Z_]+)"\)', source))
    assert read
    for name in read:
        assert f"GOVERNED_OPERATOR_{name}," in template or f'(list "{name}" ' in template, name


def test_the_ingress_publishes_the_read_routes_of_a_tiled_log_and_no_other() -> None:
    template = (CHART / "templates" / "ledgeringress.yaml").read_text()
    paths = re.findall(r"path: (\S+)\n\s+pathType: (\w+)", template)
    assert paths == [(routes.CHECKPOINT, "Exact"), (routes.TILES, "Prefix")]
    backends = re.findall(r"service: \{name: ([\w-]+), port: \{name: (\w+)\}\}", template)
    assert backends == [(ARCHIVE, "ledger")] * 2
    served = {
        port["name"] for port in archive_service("team-a", OperatorSettings(ledger_readers="ingress"))["spec"]["ports"]
    }
    assert "ledger" in served


def test_the_dashboard_reads_metrics_that_the_operator_has() -> None:
    dashboard = json.loads((CHART / "dashboards" / "governed-models.json").read_text())
    wanted = {
        m
        for p in dashboard["panels"]
        for t in p["targets"]
        for m in re.findall(r"governed_operator_[a-z_]+", t["expr"])
    }
    source = (ROOT / "operator" / "governed_operator" / "loop" / "metrics.py").read_text()
    for name in wanted:
        assert re.sub(r"_(total|bucket)$", "", name) in source, name
