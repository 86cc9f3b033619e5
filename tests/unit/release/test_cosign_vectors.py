"""What cosign itself signed: a key and a DSSE envelope of cosign v3.1.3's own tests (cmd/cosign/cli/verify/
verify_blob_attestation_test.go, Apache-2.0). Both sides hash and sign the same bytes, or one of these fails."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from governed_release.errors import ReleaseError
from governed_release.signing import Signer, envelope, load_public, opened

KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESF79b1ToAtoakhBOHEU5UjnEiihV
gZPFIp557+TOoDxf14FODWc+sIPETk0OgCplAk60doVXbCv33IU4rXZHrg==
-----END PUBLIC KEY-----
"""
SUBJECT = "658781cd4ed9bca60dacd09f7bb914bb51502e8b5d619f57f39a1d652596cc24"
ENVELOPE = base64.b64decode(
    "eyJwYXlsb2FkVHlwZSI6ImFwcGxpY2F0aW9uL3ZuZC5pbi10b3RvK2pzb24iLCJwYXlsb2FkIjoiZXlKZmRIbHdaU0k2SW1oMGRIQnpPaTh2"
    "YVc0dGRHOTBieTVwYnk5VGRHRjBaVzFsYm5RdmRqQXVNU0lzSW5CeVpXUnBZMkYwWlZSNWNHVWlPaUpvZEhSd2N6b3ZMM05zYzJFdVpHVjJM"
    "M0J5YjNabGJtRnVZMlV2ZGpBdU1pSXNJbk4xWW1wbFkzUWlPbHQ3SW01aGJXVWlPaUppYkc5aUlpd2laR2xuWlhOMElqcDdJbk5vWVRJMU5p"
    "STZJalkxT0RjNE1XTmtOR1ZrT1dKallUWXdaR0ZqWkRBNVpqZGlZamt4TkdKaU5URTFNREpsT0dJMVpEWXhPV1kxTjJZek9XRXhaRFkxTWpV"
    "NU5tTmpNalFpZlgxZExDSndjbVZrYVdOaGRHVWlPbnNpWW5WcGJHUmxjaUk2ZXlKcFpDSTZJaklpZlN3aVluVnBiR1JVZVhCbElqb2llQ0lz"
    "SW1sdWRtOWpZWFJwYjI0aU9uc2lZMjl1Wm1sblUyOTFjbU5sSWpwN2ZYMTlmUT09Iiwic2lnbmF0dXJlcyI6W3sia2V5aWQiOiIiLCJzaWci"
    "OiJNRVVDSUE4S2pacWtydDkwZnpCb2pTd3d0ajNCcWI0MUU2cnV4UWs5N1RMbnB6ZFlBaUVBek9Bak9Uenl2VEhxYnBGREFuNnpocmc2RVp2"
    "N2t4SzVmYVJvVkdZTWgyYz0ifV19"
)


def test_an_envelope_that_cosign_signed_opens(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text(KEY)
    said = json.loads(opened(load_public(tmp_path / "cosign.pub"), ENVELOPE))
    assert said["subject"] == [{"name": "blob", "digest": {"sha256": SUBJECT}}]
    edited = ENVELOPE.replace(b"keyid", b"keyId").replace(b"eyJf", b"eyJe", 1)
    assert edited != ENVELOPE
    with pytest.raises(ReleaseError):
        opened(load_public(tmp_path / "cosign.pub"), edited)


def test_ours_has_the_members_that_cosigns_has() -> None:
    signer = Signer(ec.generate_private_key(ec.SECP256R1()))
    ours, theirs = json.loads(envelope(signer, b"{}")), json.loads(ENVELOPE)
    assert ours.keys() == theirs.keys()
    assert ours["payloadType"] == theirs["payloadType"]
    assert [one.keys() for one in ours["signatures"]] == [one.keys() for one in theirs["signatures"]]
