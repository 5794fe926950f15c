"""Checks of keys and certificates, and the type of finding that every check of a deployment gives."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sim.deploy.credentials import (
    CA_CERTIFICATE,
    NODE_KEY,
    NODE_PUBLIC_KEY,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    load_certificate,
    names_of,
)
from sim.deploy.machine import KEYS_FOLDER
from sim.deploy.settings import ServerSettings, load_node

EXPIRES_SOON = timedelta(days=30)

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        level: ``error`` if the machine cannot work, ``warning`` if it may not work later, ``ok`` if all is in order.
        where: the file, folder or address that was checked.
        text: what is wrong and how to mend it.
    """

    level: Level
    where: str
    text: str


def check_private(paths: list[Path]) -> Iterator[Finding]:
    """Check that keys and secrets exist, and that only their owner can read them."""
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            yield Finding("error", str(path), "does not exist; copy the machine's folder again")
            continue
        if mode & 0o077:
            yield Finding("error", str(path), f"mode {mode:04o} lets others read it; run chmod 600 on it")


def check_expiry(path: Path) -> Iterator[Finding]:
    """Check that a certificate is valid now and will not expire soon."""
    certificate = load_certificate(path)
    now = datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        yield Finding(
            "error", str(path), f"not valid before {begin:%Y-%m-%d %H:%M} UTC; is this machine's clock right?"
        )
    elif now > end:
        yield Finding("error", str(path), f"expired on {end:%Y-%m-%d}; make the deployment again")
    elif now > end - EXPIRES_SOON:
        yield Finding("warning", str(path), f"expires on {end:%Y-%m-%d}; make the deployment again before")
    else:
        yield Finding("ok", str(path), f"valid until {end:%Y-%m-%d}")


def check_authority(folder: Path) -> Iterator[Finding]:
    """Check the certificate and the key of the authority of a deployment."""
    yield from check_expiry(folder / CA_CERTIFICATE)
    yield from check_private([folder / "ca.key"])


def check_server_certificate(folder: Path, settings: ServerSettings) -> Iterator[Finding]:
    """Check the certificate of the server: its dates, signature, names and key."""
    path = folder / SERVER_CERTIFICATE
    yield from check_expiry(folder / CA_CERTIFICATE)
    yield from check_expiry(path)
    certificate = load_certificate(path)
    try:
        certificate.verify_directly_issued_by(load_certificate(folder / CA_CERTIFICATE))
    except (ValueError, TypeError, InvalidSignature):
        yield Finding("error", str(path), f"not signed by {CA_CERTIFICATE}; copy the machine's folder again")
    missing = {settings.host, "localhost", "127.0.0.1"} - names_of(certificate)
    if missing:
        text = f"does not name {', '.join(sorted(missing))}, only {', '.join(sorted(names_of(certificate)))}"
        yield Finding("error", str(path), f"{text}; make the deployment again with --host")
    key = serialization.load_pem_private_key((folder / SERVER_KEY).read_bytes(), password=None)
    if key.public_key() != certificate.public_key():
        yield Finding("error", str(folder / SERVER_KEY), f"does not fit {SERVER_CERTIFICATE}; copy the folder again")


def check_node_key(folder: Path) -> Iterator[Finding]:
    """Check that the key of a node is of the right kind and fits its public key."""
    key = serialization.load_ssh_private_key((folder / NODE_KEY).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        yield Finding("error", str(folder / NODE_KEY), "expected an ECDSA key; copy the machine's folder again")
        return
    if key.public_key() != serialization.load_ssh_public_key((folder / NODE_PUBLIC_KEY).read_bytes()):
        yield Finding("error", str(folder / NODE_KEY), f"does not fit {NODE_PUBLIC_KEY}; copy the folder again")


def check_registered_key(server: Path, node: Path) -> Iterator[Finding]:
    """Check that the server knows a node by the key that the node has."""
    name = load_node(node).name
    noted = server / KEYS_FOLDER / f"{name}.pub"
    if not noted.is_file():
        yield Finding("error", str(noted), f"does not exist; copy {node / NODE_PUBLIC_KEY} to it")
    elif noted.read_bytes().split()[:2] != (node / NODE_PUBLIC_KEY).read_bytes().split()[:2]:
        yield Finding("error", str(noted), f"is another key than {node / NODE_PUBLIC_KEY}; copy that one to it")
