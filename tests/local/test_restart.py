"""A restart with a changed manifest: what an earlier revision's auditor reported is no edit of the new one's."""

import json
import shutil
import subprocess
from pathlib import Path

from support.waiting import eventually

from .conftest import SAMPLES, governed, start


def test_verify_after_a_restart_with_a_changed_manifest_accuses_nobody(
    admissions_once: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    workdir, report = tmp_path / "work", tmp_path / "work" / "reports" / "admissions.json"
    shutil.copytree(admissions_once[0], workdir)
    before = json.loads(report.read_bytes())["status"]["auditor"]
    assert before["attributes"], "the run before left figures that the new revision has none of yet"
    changed = tmp_path / "admissions.yaml"
    changed.write_text(
        (SAMPLES / "admissions.yaml").read_text().replace("thresholdLower: 0.8,", "thresholdLower: 0.7,")
    )
    served = start(changed, workdir, tmp_path / "log", "admissions")
    try:
        for _ in range(2):  # as soon as it serves, and once the new revision has reported
            said = governed("verify", workdir)
            assert (said.returncode, "edited" in said.stdout + said.stderr) == (0, False), said.stdout + said.stderr
            eventually(
                lambda: json.loads(report.read_bytes())["status"]["auditor"]["revision"] != before["revision"],
                within=120, what="the new revision's auditor reports",
            )  # fmt: skip
    finally:
        assert served.stop() == 0
    assert governed("verify", workdir).returncode == 0
    report.write_text(report.read_text().replace('"verdict": "Unknown"', '"verdict": "Pass"'))
    named = governed("verify", workdir)
    assert named.returncode == 1
    assert "reports/admissions.json" in named.stdout
