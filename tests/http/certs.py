"""Self-signed certificates, made where a test needs them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

START = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(name: str, *, days: int = 36_500) -> tuple[bytes, bytes]:
    """(key, certificate) as PEM, good for `name` and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, made.public_bytes(Encoding.PEM)


def write_pair(folder: Path, name: str, stem: str = "server", *, days: int = 36_500) -> tuple[Path, Path]:
    """Both as files `<stem>.key` (0600) and `<stem>.crt`."""
    key, cert = certificate(name, days=days)
    key_file, cert_file = folder / f"{stem}.key", folder / f"{stem}.crt"
    key_file.write_bytes(key)
    key_file.chmod(0o600)
    cert_file.write_bytes(cert)
    return key_file, cert_file
