"""`governed verify` tells a dossier by what it holds."""

from pathlib import Path

import pytest

from governed_operator.cli.verify import _is_zip


@pytest.mark.parametrize(
    ("name", "data", "dossier"),
    [
        ("d.zip", b"PK\x03\x04more", True),
        ("d", b"PK\x03\x04more", True),
        ("d.tar", b"PK\x03\x04more", True),
        ("d.ZIP", b"Xdamaged", True),
        ("d.zip", b"", True),
        ("ledger.tar", b"bundle.json", False),
        ("vkey", b"", False),
    ],
)
def test_a_dossier_is_known_under_any_name(tmp_path: Path, name: str, data: bytes, dossier: bool) -> None:
    (tmp_path / name).write_bytes(data)
    assert _is_zip(tmp_path / name) is dossier
    assert _is_zip(tmp_path / "away.zip") is False
    assert _is_zip(tmp_path) is False
