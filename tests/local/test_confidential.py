"""What lies on disk after a run with personal data: ciphertext, keys and figures, no person."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from support.model_ports import free_offset

from .conftest import SAMPLES, governed


def small_credit(folder: Path) -> Path:
    """The credit sample with fewer rows and epochs; everything else as it ships."""
    manifest: dict[str, Any] = yaml.safe_load((SAMPLES / "credit.yaml").read_text())
    training = manifest["spec"]["lifecycle"]["training"]
    training["data"]["generator"]["rows"] = 2000
    training["loop"]["epochs"] = 2
    manifest["spec"]["lifecycle"].pop("gates", None)
    shutil.copy(SAMPLES / "credit.requests.json", folder / "credit.requests.json")
    path = folder / "credit.yaml"
    path.write_text(yaml.safe_dump(manifest, allow_unicode=True))
    return path


def test_no_personal_data_on_disk_or_screen(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    done = governed("run", small_credit(tmp_path), "--once", "--workdir", workdir, "--port-offset", str(free_offset()))
    assert done.returncode == 0, done.stdout + done.stderr
    instances = json.loads((SAMPLES / "credit.requests.json").read_text())["instances"]
    texts = " ".join(f"{i['note']} {i['contact']}" for i in instances)
    numbers = set(re.findall(r"(?<!\d)\d{11,19}[\dX]?(?!\d)", texts))
    names = {i["note"] for i in instances}
    assert len(numbers) > 50
    needles = [n.encode() for n in (*numbers, *names)]
    files = [p for p in workdir.rglob("*") if p.is_file()]
    assert len(files) > 20
    for path in files:
        data = path.read_bytes()
        found = [n for n in needles if n in data]
        assert not found, f"{path} holds plaintext of a request: {found[:3]!r}"
    assert re.search(r'entity="PHONE_NUMBER"\S*\s+[1-9]', done.stdout), done.stdout
    explained = done.stdout[done.stdout.index("explanation") :]
    assert "<PHONE_NUMBER>" in explained
