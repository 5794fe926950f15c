from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from sim.deploy import check, credentials
from sim.deploy.check import Finding, check_folder, check_node, check_server, require_no_errors
from sim.deploy.settings import load_deployment, load_server
from tests.labs import give_data, make_lab

# What is checked of nginx is that it is there.
pytestmark = pytest.mark.usefixtures("stand_in_nginx")


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    give_data(folder, make_lab(folder, nodes=["gps:van-4", "lidar:pole-3"]))
    return folder


def problems(findings: list[Finding], level: str = "error") -> list[str]:
    return [f"{finding.where}: {finding.text}" for finding in findings if finding.level == level]


def change(path: Path, **values: object) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


def test_a_new_deployment_has_no_error_and_says_that_its_server_is_not_up(lab: Path) -> None:
    findings = check_folder(lab)
    assert problems(findings) == []
    (warning,) = problems(findings, "warning")
    assert "not reached" in warning, "it is said once, not for every node"
    require_no_errors(findings)


def _readable_key(lab: Path) -> None:
    (lab / "nodes/van-4/node.key").chmod(0o644)


def _missing_key(lab: Path) -> None:
    (lab / "server/superexec.secret").unlink()


def _another_node_key(lab: Path) -> None:
    credentials.make_node_key(lab / "nodes/van-4")


def _swapped_server_key(lab: Path) -> None:
    shutil.copy(lab / "ca/ca.key", lab / "server/server.key")


def _other_host(lab: Path) -> None:
    change(lab / "server/server.yaml", host="elsewhere.example.org")


def _other_authority(lab: Path) -> None:
    credentials.make_authority(lab / "ca", name="other")
    shutil.copy(lab / "ca/ca.crt", lab / "server/ca.crt")


def _other_source(lab: Path) -> None:
    change(lab / "nodes/pole-3/node.yaml", source="0" * 16)


def _other_flower(lab: Path) -> None:
    change(lab / "server/server.yaml", flower="1.2.3")


def _lost_public(lab: Path) -> None:
    shutil.rmtree(lab / "nodes/van-4/data/public")


def _wrong_modality(lab: Path) -> None:
    shutil.rmtree(lab / "nodes/van-4/data/test")
    shutil.copytree(lab / "nodes/pole-3/data/test", lab / "nodes/van-4/data/test")


def _other_public(lab: Path) -> None:
    path = lab / "nodes/van-4/data/public/pass_ids.npy"
    np.save(path, np.load(path) + 1)


def _no_nodes(lab: Path) -> None:
    (lab / "server/nodes.json").write_text('{"nodes": []}')


def _broken_nodes(lab: Path) -> None:
    (lab / "server/nodes.json").write_text("{")


def _nameless_node(lab: Path) -> None:
    (lab / "server/nodes.json").write_text('{"nodes": [{"client": "000-gps", "modality": "gps"}]}')


def _empty_pass_ids(lab: Path) -> None:
    (lab / "nodes/van-4/data/public/pass_ids.npy").write_bytes(b"")


def _locked_server_key(lab: Path) -> None:
    path = lab / "server/server.key"
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    locked = serialization.BestAvailableEncryption(b"secret")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))


def _no_such_host(lab: Path) -> None:
    change(lab / "nodes/van-4/node.yaml", host="no-such-host.invalid")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_readable_key, "node.key: mode 0644 lets others read it; run chmod 600 on it"),
        (_missing_key, "superexec.secret: does not exist; copy the machine's folder again"),
        (_another_node_key, "van-4.pub: is another key than"),
        (_swapped_server_key, "server.key: does not fit server.crt"),
        (_other_host, "server.crt: does not name elsewhere.example.org, only 127.0.0.1, localhost"),
        (_other_authority, "server.crt: not signed by ca.crt"),
        (_other_source, "where it was made; install the same on every machine"),
        (_other_flower, "Flower is"),
        (_lost_public, "public/recording.json: not found"),
        (_wrong_modality, "it has no gps, only lidar"),
        (_other_public, "copy the public set again"),
        (_no_nodes, "names no node"),
        (_broken_nodes, "not a readable list of nodes"),
        (_nameless_node, "not a readable list of nodes (KeyError('name')); copy the folder again"),
        (_empty_pass_ids, "deployment.yaml: EOFError("),
        (_locked_server_key, "server: TypeError("),
        (_no_such_host, "no-such-host.invalid:"),
    ],
)
def test_harm_is_found_and_told_with_its_remedy(lab: Path, harm: Callable[[Path], None], problem: str) -> None:
    harm(lab)
    found = problems(check_folder(lab))
    assert [text for text in found if problem in text], found
    with pytest.raises(ValueError, match=re.escape(found[0])):
        require_no_errors(check_folder(lab))


def test_one_broken_file_does_not_hide_the_next(lab: Path) -> None:
    (lab / "server/server.crt").write_text("no certificate")
    (lab / "nodes/van-4/node.key").chmod(0o640)
    found = problems(check_folder(lab))
    assert any("not a readable certificate" in text for text in found)
    assert any("mode 0640" in text for text in found)


@pytest.mark.parametrize(
    ("days_left", "level", "text"),
    [(-1, "error", "expired on"), (29, "warning", "expires on"), (31, "ok", "valid until")],
)
def test_expiry_is_an_error_when_past_and_a_warning_in_its_last_thirty_days(
    lab: Path, days_left: int, level: str, text: str
) -> None:
    _sign_anew(lab, end=datetime.now(UTC) + timedelta(days=days_left))
    found = [finding for finding in check_server(lab / "server") if finding.where.endswith("server.crt")]
    assert [(finding.level, text in finding.text) for finding in found] == [(level, True)]


def test_a_certificate_of_tomorrow_asks_for_the_clock(lab: Path) -> None:
    now = datetime.now(UTC)
    _sign_anew(lab, begin=now + timedelta(days=1), end=now + timedelta(days=100))
    assert any("is this machine's clock right?" in text for text in problems(check_server(lab / "server")))


def _sign_anew(lab: Path, *, end: datetime, begin: datetime | None = None) -> None:
    old = credentials.load_certificate(lab / "server/server.crt")
    key = serialization.load_pem_private_key((lab / "ca/ca.key").read_bytes(), password=None)
    builder = x509.CertificateBuilder(
        issuer_name=old.issuer,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=old.serial_number,
        not_valid_before=begin or end - timedelta(days=100),
        not_valid_after=end,
        extensions=list(old.extensions),
    )
    signed = builder.sign(key, hashes.SHA384())  # type: ignore[arg-type]
    (lab / "server/server.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def test_a_port_that_someone_else_has_is_an_error(lab: Path) -> None:
    settings = load_server(lab / "server")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.superlink_port))
        taken.listen()
        found = problems(check_server(lab / "server"))
    assert any(text.startswith(f"port {settings.superlink_port}: ") for text in found)


def test_nodes_with_one_loopback_port_are_warned_that_they_cannot_share_a_machine(lab: Path) -> None:
    for node in load_deployment(lab).nodes:
        change(lab / "nodes" / node.name / "node.yaml", runtime_port=46100)
    assert any("port 46100: several nodes use it" in text for text in problems(check_folder(lab), "warning"))


@pytest.mark.parametrize(
    ("skew_s", "level", "text"),
    [
        (0, "ok", "clocks agree"),
        (59, "ok", "clocks agree"),
        (60, "warning", "60 s ahead"),
        (-289, "warning", "289 s behind"),
        (290, "error", "set up NTP on both"),
        (-600, "error", "600 s behind"),
    ],
)
def test_clock_skew_is_told_before_the_server_refuses_it(skew_s: int, level: str, text: str) -> None:
    date = datetime(2026, 1, 1, tzinfo=UTC)
    found = list(check._check_clock("x:1", format_datetime(date, usegmt=True), now=date.timestamp() + skew_s))
    assert [(finding.level, text in finding.text) for finding in found] == [(level, True)]


def test_a_server_with_a_certificate_of_another_authority_is_not_trusted(lab: Path, tmp_path: Path) -> None:
    import ssl

    credentials.make_authority(tmp_path / "evil", name="evil")
    credentials.make_server_certificate(tmp_path / "evil", tmp_path / "evil", host="localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "evil/server.crt", tmp_path / "evil/server.key")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        change(lab / "nodes/van-4/node.yaml", port=server.server_port)
        found = problems(check_node(lab / "nodes/van-4"))
        server.shutdown()
    assert any("its certificate is not trusted" in text for text in found)


@pytest.mark.parametrize("answer", [b"220 mail.example.org\r\n", b"HTTP/1.1 200 OK\r\nDate: soon\r\n\r\n"])
def test_a_server_that_answers_nonsense_is_a_finding(lab: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(connection: check.HTTPSConnection) -> None:
        connection.sock, theirs = socket.socketpair()
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        opened.append(theirs)

    opened: list[socket.socket] = []
    monkeypatch.setattr(check.HTTPSConnection, "connect", connect)
    findings = check_node(lab / "nodes/van-4")
    assert opened
    for theirs in opened:
        theirs.close()
    assert [finding for finding in findings if finding.level != "ok"], findings


def test_a_check_that_fails_in_an_unforeseen_way_is_a_finding_and_the_next_has_its_turn() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("ok", "a", "fine")
        raise ZeroDivisionError("by zero")

    def fine() -> Iterator[Finding]:
        yield Finding("ok", "b", "fine")

    found = check._run([broken, fine], where="folder")
    assert [(finding.level, finding.where) for finding in found] == [("ok", "a"), ("error", "folder"), ("ok", "b")]
    assert found[1].text == "ZeroDivisionError('by zero')"


def test_a_node_that_is_to_publish_needs_what_writes_graphs(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "find_spec", lambda name: None if name == "onnx" else object())
    assert problems(check.check_node(lab / "nodes/van-4")) == []
    change(lab / "nodes/van-4/node.yaml", publish_every=5)
    (problem,) = problems(check.check_node(lab / "nodes/van-4"))
    assert problem.endswith("publish_every needs onnx; pip install 'softbeam[export]', or leave it out")
    monkeypatch.undo()
    assert problems(check.check_node(lab / "nodes/van-4")) == []
