"""Certificates of a bed: an authority, what it issues, and the same certificate issued again with its time run out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write_private(path: Path, data: bytes) -> Path:
    """Write a secret file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True)
class Authority:
    """A certificate authority in `folder`: ca.crt, ca.key, and `<name>.crt`/`<name>.key` for each certificate
    issued."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        name = _name("governed-models test bed", [])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_private(folder / "ca.key", _private_pem(key))
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder)

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(
        self,
        name: str,
        user: str,
        groups: Sequence[str] = (),
        hosts: Sequence[str] = (),
        lifetime: timedelta = LIFETIME,
    ) -> tuple[Path, Path]:
        """Issue `<name>.crt` for a user (CN) in groups (O); hosts make it fit for a server. A negative lifetime has run
        out."""
        key = ec.generate_private_key(ec.SECP256R1())
        ca, ca_key = self._load()
        end = datetime.now(UTC) + lifetime
        builder = (
            x509.CertificateBuilder(ca.subject, _name(user, groups), key.public_key(), x509.random_serial_number())
            .not_valid_before(min(datetime.now(UTC), end) - timedelta(minutes=5))
            .not_valid_after(end)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(h) for h in hosts]), critical=False
            )
        certificate = builder.sign(ca_key, hashes.SHA256())
        crt, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        write_private(private, _private_pem(key))
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return crt, private

    def _load(self) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
        return _load(self.certificate.read_bytes(), (self.folder / "ca.key").read_bytes())


def _load(ca_pem: bytes, ca_key_pem: bytes) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    key = serialization.load_pem_private_key(ca_key_pem, None)
    assert isinstance(key, CertificateIssuerPrivateKeyTypes)
    return x509.load_pem_x509_certificate(ca_pem), key


def expired_copy(
    certificate_pem: bytes, ca_pem: bytes, ca_key_pem: bytes, ago: timedelta = timedelta(minutes=1)
) -> bytes:
    """The same certificate (subject, key, extensions) signed again with its end in the past: what neglect makes of
    it."""
    old = x509.load_pem_x509_certificate(certificate_pem)
    ca, key = _load(ca_pem, ca_key_pem)
    end = datetime.now(UTC) - ago
    builder = (
        x509.CertificateBuilder(ca.subject, old.subject, old.public_key(), x509.random_serial_number())
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def service_account_keys(folder: Path) -> tuple[Path, Path]:
    """The pair that signs and checks service-account tokens: (private, public)."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = folder / "sa.pub"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return write_private(folder / "sa.key", _private_pem(key)), public
