"""README command one: what a person sees, and that it holds."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from support.model_ports import free_offset

from .conftest import SAMPLES, governed

Once = tuple[Path, subprocess.CompletedProcess[str]]


def test_it_ends_well_and_leaves_nothing_running(admissions_once: Once) -> None:
    workdir, done = admissions_once
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (workdir / "run.json").exists()


@pytest.mark.parametrize(
    "shown",
    [
        "SPD -0.141645, DIR 0.681830, χ² 92.205",
        "Simpson's paradox",
        r"A\s+female\s+\+0\.2035",
        r"additivity residual -?\d",
        r"BiasWithinThresholds=False",
        r"inclusion\s+id .* proof of \d+ hashes holds",
        "the inclusion proof verifies offline",
    ],
)
def test_a_person_sees(admissions_once: Once, shown: str) -> None:
    assert re.search(shown if "\\" in shown or "=" in shown else re.escape(shown), admissions_once[1].stdout), (
        admissions_once[1].stdout
    )


def test_the_explanation_ranks_department_above_sex(admissions_once: Once) -> None:
    shown = re.findall(r"^(department|sex)\s+.*?([+-]\d\.\d+)\s*$", admissions_once[1].stdout, re.MULTILINE)
    assert len(shown) >= 4
    for (_, department), (_, sex) in zip(shown[::2], shown[1::2], strict=True):
        assert abs(float(department)) > abs(float(sex))


def test_a_second_run_reuses_the_model_and_continues_the_ledger(admissions_once: Once) -> None:
    workdir, first = admissions_once
    again = governed(
        "run", SAMPLES / "admissions.yaml", "--once", "--workdir", workdir, "--port-offset", str(free_offset())
    )
    assert again.returncode == 0, again.stdout + again.stderr
    sizes = [int(re.search(r"([\d,]+) entries, root", d.stdout)[1].replace(",", "")) for d in (first, again)]  # type: ignore[index]
    digests = [re.search(r"artefact (sha256:[0-9a-f]{64})", d.stdout)[1] for d in (first, again)]  # type: ignore[index]
    assert sizes[0] > 0
    assert sizes[1] > max(sizes[0], 71), "the second run's first answer lies behind all 71 of the first run"
    assert digests[0] == digests[1]


def test_the_same_manifest_gives_the_same_model(admissions_once: Once, tmp_path: Path) -> None:
    report = json.loads((admissions_once[0] / "reports" / "admissions.json").read_text())
    other = governed(
        "run", SAMPLES / "admissions.yaml", "--once", "--workdir", tmp_path, "--port-offset", str(free_offset())
    )
    assert other.returncode == 0, other.stdout + other.stderr
    again = json.loads((tmp_path / "reports" / "admissions.json").read_text())
    digest = lambda r: r["status"]["trainer"]["artefact"]["digest"]  # noqa: E731
    assert digest(report) == digest(again)


def test_verify_names_a_changed_blob_and_its_entry(admissions_once: Once, tmp_path: Path) -> None:
    workdir = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(admissions_once[0]), str(workdir)], check=True)
    whole = governed("verify", workdir)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert re.search(r"^blobs +\d+ named by entries: there and unchanged$", whole.stdout, re.MULTILINE), (
        f"a run leaves blobs that no entry names:\n{whole.stdout}"
    )
    report = json.loads((workdir / "reports" / "admissions.json").read_text())
    artefact = report["status"]["trainer"]["artefact"]["blob"]
    (sealed,) = (workdir / "volumes").rglob(artefact)
    data = sealed.read_bytes()
    upload = changed(data)  # as a trainer's whose entry hasn't come
    address = hashlib.sha256(upload).hexdigest()
    unnamed = sealed.parents[1] / address[:2] / address
    unnamed.parent.mkdir(exist_ok=True)
    unnamed.write_bytes(upload)
    assert "; 1 that no entry names: unchanged" in governed("verify", workdir).stdout
    unnamed.write_bytes(data)
    refused = governed("verify", workdir)
    assert (refused.returncode, f"blob {address}, which no entry names, has SHA-256" in refused.stderr) == (1, True), (
        refused.stdout + refused.stderr
    )
    sealed.chmod(0o600)
    sealed.write_bytes(upload)
    refused = governed("verify", workdir)
    assert refused.returncode == 1
    assert re.search(rf"entry \d+ \(artefact, .*its blob {artefact} has SHA-256", refused.stderr), (
        refused.stdout + refused.stderr
    )


def changed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_report_is_one_page_without_outside_resources(admissions_once: Once, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = governed("report", "admissions", "--workdir", admissions_once[0], "--output", page)
    assert done.returncode == 0, done.stdout + done.stderr
    html = page.read_text()
    assert "<svg" in html
    assert not re.search(r"""(src|href)=["']https?://""", html)
    for shown in ("-0.1416", "department", "sha256:"):
        assert shown in html.replace("−", "-")
    assert "payloads are never deleted (governance.privacy.retention)" in html, "clauses read the rules of the run"
    assert "riskRegister)" in html


def test_a_dossier_is_verified_by_itself(admissions_once: Once, tmp_path: Path) -> None:
    dossier = tmp_path / "admissions.zip"
    done = governed("dossier", "admissions", "--workdir", admissions_once[0], "-o", dossier)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = governed("verify", dossier)
    assert (whole.returncode, "6 files are what index.json says" in whole.stdout) == (0, True), whole.stdout
    other = governed("verify", dossier, "--id", "nobody-s")
    assert (other.returncode, "id nobody-s is not among the" in other.stderr) == (1, True), other.stdout
    dossier.write_bytes(changed(dossier.read_bytes()))
    damaged = governed("verify", dossier)
    assert damaged.returncode == 1, damaged.stdout + damaged.stderr
    assert "Traceback" not in damaged.stderr


def test_report_takes_what_people_supply_from_a_manifest_and_rows_from_law_packs(
    admissions_once: Once, tmp_path: Path
) -> None:
    page, manifest, laws = tmp_path / "report.html", tmp_path / "admissions.yaml", tmp_path / "laws"
    supplied = "    supervision:\n      documents:\n      - {name: boardDecision, reference: B-7, owner: b, issued: 2026-01-02}\n"  # noqa: E501
    text = (SAMPLES / "admissions.yaml").read_text()
    manifest.write_text(text.replace("  governance:\n", f"  governance:\n{supplied}", 1))
    laws.mkdir()
    (laws / "own.yaml").write_text(PACK)
    words = ("--workdir", admissions_once[0], "--output", page, "--manifest", manifest, "--laws", laws)
    done = governed("report", "admissions", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decision of the board: B-7, b, 2026-01-02" in page.read_text()
    other = governed("report", "admissions", *words[:4], "--manifest", SAMPLES / "credit.yaml")
    assert (other.returncode, "expected the manifest of admissions, found that of credit" in other.stderr) == (1, True)
    (laws / "own.yaml").write_text(PACK.replace("supplied", "believed"))
    broken = governed("report", "admissions", *words)
    assert broken.returncode == 1
    assert "own.yaml: rows.0.evidence.0: " in broken.stderr


PACK = """
id: house-rules
title: House rules
text: second edition
jurisdiction: here
appliesFrom: {day: 2026-01-01, verified: true}
rows:
- {id: board, clause: "1", asks: a decision, evidence: [{predicate: supplied, document: boardDecision, asks: decision of the board}]}
"""  # noqa: E501
