"""Certificates, node keys and secrets of a deployment, made with `cryptography`.

Each deployment has one certificate authority, whose key never leaves the folder in which the deployment was made. It
signs the server's certificate, which names the public host and the loopback (where the programs of Flower connect). A
node is known by its key: ECDSA on P-384 in OpenSSH form, as the node authentication of Flower requires.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY = "ca.crt", "server.crt", "server.key"
NODE_KEY, NODE_PUBLIC_KEY, SECRET = "node.key", "node.pub", "superexec.secret"
VALID_DAYS = 825
"""Days for which both certificates are valid: the most that common TLS clients accept for a server."""
# A certificate is valid from a little before it is made, since the clocks of machines differ.
_CLOCK_TOLERANCE = timedelta(hours=1)
_SECRET_BYTES = 32


def make_authority(folder: Path, *, name: str) -> None:
    """Write ``ca.key`` and ``ca.crt``: a certificate authority of P-384."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Softbeam {name}"[:64])])
    certificate = (
        _builder(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    write_private(folder / "ca.key", _private_pem(key))
    (folder / CA_CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def make_server_certificate(authority: Path, folder: Path, *, host: str) -> None:
    """Write ``server.key`` and ``server.crt`` for a host and the loopback, signed by the authority.

    Raises:
        ValueError: the authority cannot be read.
    """
    issuer_key, issuer = _load_authority(authority)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    certificate = (
        _builder(subject, issuer.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA384())
    )
    write_private(folder / SERVER_KEY, _private_pem(key))
    (folder / SERVER_CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def make_node_key(folder: Path) -> None:
    """Write ``node.key`` and ``node.pub``: ECDSA on P-384 in OpenSSH form."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_private(folder / NODE_KEY, private)
    (folder / NODE_PUBLIC_KEY).write_bytes(public + b"\n")


def key_header(path: Path) -> str:
    """The public key of a node as its SuperNode sends it with every request: the base64 of its PEM form.

    Raises:
        ValueError: the file is not a public key.
    """
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path}: not a readable public key ({error}); copy node.pub of its node there") from None
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b64encode(pem).decode()


def make_secret(path: Path) -> None:
    """Write the secret that a SuperExec shows to its SuperLink or SuperNode."""
    write_private(path, secrets.token_hex(_SECRET_BYTES).encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, also while it is being written."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def load_certificate(path: Path) -> x509.Certificate:
    """Read a certificate in PEM.

    Raises:
        ValueError: the file does not exist, or is not a certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable certificate ({error}); copy the folder again") from None


def names_of(certificate: x509.Certificate) -> set[str]:
    """The host names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def _load_authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'ca.key'}: not a readable key ({error}); make the deployment again") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{folder / 'ca.key'}: expected an elliptic-curve key; make the deployment again")
    return key, load_certificate(folder / CA_CERTIFICATE)


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_TOLERANCE)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys([host, "localhost", "127.0.0.1"]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    return names


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
