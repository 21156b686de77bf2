"""F3: the certificates of a TLS listener: read from files, checked, and read again without closing a connection.

A connection keeps the context it began with; a new one gets what was read last. Knows nothing of HTTP.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those with forward secrecy and authenticated encryption; TLS 1.3 has no others."""
PEM_SUFFIX = ".pem"


class BadCertificate(Exception):
    """Key or certificate cannot be used; the text names the file."""


class Material(msgspec.Struct, frozen=True):
    """Where key and certificates of one identity are.

    Attributes:
        key: PEM file with the private key.
        certificate: PEM file with the certificate first, then those between it and the root, if any.
        chain: PEM file with further ones of these.
        client_ca: PEM file; who connects must show a certificate that one of these has signed.
    """

    key: Path
    certificate: Path
    chain: Path | None = None
    client_ca: Path | None = None


class _Identity:
    """One key with its certificate, read and found to belong together."""

    def __init__(self, material: Material) -> None:
        certificates = _certificates(material.certificate)
        leaf = certificates[0]
        further = certificates[1:] + ([] if material.chain is None else _certificates(material.chain))
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_cipher_list(CIPHERS)
        context.set_session_id(b"jobsvc")
        key = _private_key(material.key)
        try:
            context.use_privatekey(key)
            context.use_certificate(leaf)
            for each in further:
                context.add_extra_chain_cert(each)
            context.check_privatekey()
        except (SSL.Error, TypeError, ValueError):
            raise BadCertificate(
                f"the key in {material.key} does not belong to the certificate in {material.certificate}"
            ) from None
        if material.client_ca is not None:
            _certificates(material.client_ca)  # names the file when there is none in it
            context.load_verify_locations(str(material.client_ca))
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self.context = context
        self.expires: datetime = min(each.not_valid_after_utc for each in (leaf, *further))
        self.names = _names(leaf)


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """What a TLS listener shows.

    Args:
        source: the files of one identity; or a folder of `.pem` files, each with a key and its certificates, of which
            the client's server name picks one and the first by name serves all others.

    Raises:
        BadCertificate: one cannot be used.
    """

    def __init__(self, source: Material | Path) -> None:
        self._source = source
        self._shown = _read(source)

    def reload(self) -> None:
        """Read the files again; on any thread. Raises `BadCertificate`: then all stays as it was."""
        self._shown = _read(self._source)

    @property
    def expires(self) -> datetime:
        """When the first of them ends, or of those that it rests on."""
        default, by_name = self._shown
        return min(each.expires for each in (default, *by_name.values()))

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N802 - Twisted's name
        """A connection with what was read last."""
        return SSL.Connection(self._shown[0].context, None)


def _read(source: Material | Path) -> tuple[_Identity, Mapping[str, _Identity]]:
    if isinstance(source, Material):
        return _Identity(source), {}
    try:
        files = sorted(path for path in source.iterdir() if path.suffix == PEM_SUFFIX)
    except OSError as error:
        raise BadCertificate(f"{source} cannot be read: {error.strerror}") from None
    if not files:
        raise BadCertificate(f"{source} holds no {PEM_SUFFIX} file with a key and its certificate")
    identities = [_Identity(Material(key=file, certificate=file)) for file in files]
    by_name: dict[str, _Identity] = {}
    for identity in reversed(identities):  # of two with one name the first file wins
        by_name.update(dict.fromkeys(identity.names, identity))

    def choose(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        found = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
        if found is not None:
            connection.set_context(found.context)

    identities[0].context.set_tlsext_servername_callback(choose)
    return identities[0], by_name


def _certificates(file: Path) -> list[x509.Certificate]:
    data = _contents(file)
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        found = []
    if not found:
        raise BadCertificate(f"{file} holds no certificate in PEM form")
    return found


def _private_key(file: Path) -> Any:
    data = _contents(file)
    if stat.S_IMODE(file.stat().st_mode) & stat.S_IROTH:
        raise BadCertificate(f"{file} holds a private key and is readable by everyone: chmod 600 {file}")
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise BadCertificate(
            f"the private key in {file} has a passphrase; nobody is there to type it"
        ) from None
    except ValueError:
        raise BadCertificate(f"{file} holds no private key in PEM form") from None


def _contents(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadCertificate(f"{file} cannot be read: {error.strerror}") from None


def _names(leaf: x509.Certificate) -> Sequence[str]:
    """The host names that it is for."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(name.lower() for name in found.get_values_for_type(x509.DNSName))
