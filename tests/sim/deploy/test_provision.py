from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.data.recording import open_recording
from sim.deploy.credentials import load_certificate, names_of
from sim.deploy.machine import NodeMachine, ServerMachine, proxy_command, read_nodes
from sim.deploy.provision import hand_out, provision
from sim.deploy.settings import load_deployment, load_node, load_server
from sim.deploy.templates import can_compose, compose
from tests.conftest import CHECKOUT
from tests.labs import free_ports, give_data, make_lab

PRIVATE = ["ca/ca.key", "server/server.key", "server/superexec.secret"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("provision") / "lab"
    make_lab(folder, host="bs-1.example.org")
    return folder


def test_private_files_are_their_owners_alone(lab: Path) -> None:
    names = [
        *PRIVATE,
        *(
            f"nodes/{node.name}/{name}"
            for node in load_deployment(lab).nodes
            for name in ("node.key", "superexec.secret")
        ),
    ]
    assert {stat.S_IMODE((lab / name).stat().st_mode) for name in names} == {0o600}


def test_the_certificate_names_the_host_and_the_loopback_and_is_signed_by_the_authority(lab: Path) -> None:
    certificate = load_certificate(lab / "server" / "server.crt")
    assert names_of(certificate) == {"bs-1.example.org", "localhost", "127.0.0.1"}
    certificate.verify_directly_issued_by(load_certificate(lab / "ca" / "ca.crt"))
    usage = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not usage.ca


def test_an_address_becomes_an_address_in_the_certificate(tmp_path: Path) -> None:
    make_lab(tmp_path / "lab", nodes=["gps:a"], host="10.0.0.7")
    names = load_certificate(tmp_path / "lab/server/server.crt").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "10.0.0.7" in [str(name) for name in names.value.get_values_for_type(x509.IPAddress)]


def test_a_node_key_is_ecdsa_on_p384_and_the_server_has_its_public_half(lab: Path) -> None:
    key = serialization.load_ssh_private_key((lab / "nodes/roof-1/node.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    public = serialization.load_ssh_public_key((lab / "server/keys/roof-1.pub").read_bytes())
    assert public == key.public_key()


def test_every_node_has_a_key_and_a_secret_of_its_own(lab: Path) -> None:
    for name in ("node.key", "superexec.secret"):
        contents = [path.read_bytes() for path in lab.glob(f"nodes/*/{name}")]
        assert len(set(contents)) == 4


def test_no_private_key_of_the_authority_or_of_another_machine_goes_to_a_machine(lab: Path) -> None:
    authority = (lab / "ca/ca.key").read_bytes()
    private = {path: path.read_bytes() for path in lab.rglob("*.key")}
    for machine in (lab / "server", *(lab / "nodes").iterdir()):
        foreign = [content for path, content in private.items() if not path.is_relative_to(machine)]
        for path in (path for path in machine.rglob("*") if path.is_file()):
            assert path.read_bytes() not in foreign, path
            assert authority not in path.read_bytes(), path


def test_the_server_lists_the_nodes_with_the_client_that_each_may_be(lab: Path) -> None:
    assert read_nodes(lab / "server/nodes.json")[0] == {
        "name": "roof-1",
        "client": "000-camera",
        "modality": "camera",
    }


def test_a_folder_that_is_not_empty_is_left_alone(lab: Path) -> None:
    before = (lab / "ca/ca.key").read_bytes()
    with pytest.raises(ValueError, match="not empty"):
        provision(lab, load_deployment(lab), bind="127.0.0.1", metrics_port=None)
    assert (lab / "ca/ca.key").read_bytes() == before


@pytest.mark.deployment
@pytest.mark.usefixtures("has_nginx")
def test_nginx_accepts_the_configuration_wherever_the_folder_lies(lab: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(lab / "server", moved)
    ServerMachine(moved, load_server(moved)).programs()
    done = subprocess.run([*proxy_command(moved), "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("stand_in_nginx")
def test_programs_listen_on_the_loopback_and_install_nothing(lab: Path) -> None:
    server = ServerMachine(lab / "server", load_server(lab / "server"))
    superlink = list(server.programs()[0].command)
    assert superlink[superlink.index("--host") + 1] == "127.0.0.1"
    assert "--enable-supernode-auth" in superlink
    assert "--disable-runtime-dependency-installation" in superlink
    assert superlink[superlink.index("--isolation") + 1] == "process"
    node = NodeMachine(lab / "nodes/roof-1", load_node(lab / "nodes/roof-1"))
    for program in (*server.programs(), *node.programs(node.environment())):
        assert "--allow-runtime-dependency-installation" not in program.command
        assert program.environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        if "superexec" in program.name or program.name in ("superlink", "supernode"):
            assert "--superexec-auth-secret-file" in program.command


def test_units_and_containers_start_the_machine(lab: Path) -> None:
    assert (
        "ExecStart=/opt/softbeam/.venv/bin/softbeam deploy server"
        in (lab / "server/softbeam-server.service").read_text()
    )
    assert 'CMD ["softbeam", "deploy", "node", "/machine"]' in (lab / "nodes/roof-1/Containerfile").read_text()
    services = yaml.safe_load((lab / "compose.yaml").read_text())["services"]
    assert set(services) == {"server", "roof-1", "gate-2", "pole-3", "van-4"}
    assert services["roof-1"]["volumes"] == ["./nodes/roof-1:/machine"]


def test_a_unit_keeps_what_it_writes_private_and_says_how_to_install_it(lab: Path) -> None:
    for path in (lab / "server/softbeam-server.service", lab / "nodes/roof-1/softbeam-node.service"):
        lines = path.read_text().splitlines()
        assert {"UMask=0077", "ProtectProc=invisible"} <= set(lines)
        assert "Clone the checkout to /opt/softbeam and run `make .venv/installed` there" in lines[0]


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("bs-1.example.org", True),
        ("server", True),
        ("localhost", False),
        ("Lab.localhost", False),
        ("127.0.0.1", False),
        ("127.1", False),
        ("10.0.0.7", False),
    ],
)
def test_containers_find_a_server_by_a_name_of_its_own_only(lab: Path, host: str, fits: bool) -> None:
    deployment = load_deployment(lab).model_copy(update={"host": host})
    assert can_compose(deployment) is fits


def test_the_compose_file_says_how_to_start_a_run_and_gives_the_server_its_name(lab: Path) -> None:
    text = compose(load_deployment(lab))
    assert "# A run: docker compose exec server softbeam run CONFIG --on /machine --out /machine/state/runs\n" in text
    assert "bind: 0.0.0.0" in text
    server = yaml.safe_load(text)["services"]["server"]
    assert server["networks"]["default"]["aliases"] == ["bs-1.example.org"]


def test_a_node_gets_its_own_modality_and_the_frames_of_all(tmp_path: Path) -> None:
    deployment = make_lab(tmp_path / "lab")
    federation = give_data(tmp_path / "lab", deployment)
    for part, source in (("recording", "clients/001-radar"), ("public", "public"), ("test", "test")):
        mine = open_recording(tmp_path / "lab/nodes/gate-2/data" / part)
        whole = open_recording(federation / source)
        assert set(mine.sensors) == {"radar"}
        np.testing.assert_array_equal(mine.sensors["radar"], whole.sensors["radar"])
        np.testing.assert_array_equal(mine.pass_ids, whole.pass_ids)
        assert mine.splits == whole.splits
    assert open_recording(tmp_path / "lab/nodes/gate-2/data/public").power is None
    assert not list((tmp_path / "lab/nodes").rglob("public-power.npy"))
    assert (tmp_path / "lab/server/data/server/public-power.npy").is_file()


def test_data_of_other_clients_is_not_handed_out(tmp_path: Path) -> None:
    give_data(tmp_path / "lab", make_lab(tmp_path / "lab", nodes=["gps:a", "gps:b"]))
    other = make_lab(tmp_path / "other", nodes=["gps:a"])
    federation = tmp_path / "lab/server/data"
    shutil.copytree(tmp_path / "lab/nodes/a/data/recording", federation / "clients/000-gps")
    shutil.copytree(tmp_path / "lab/nodes/b/data/recording", federation / "clients/001-gps")
    with pytest.raises(ValueError, match="it has clients 000-gps, 001-gps, but needs 000-gps"):
        hand_out(federation, tmp_path / "other", other)


def test_ports_of_a_lab_differ(lab: Path) -> None:
    ports = free_ports(6)
    assert len(set(ports)) == 6
    assert json.loads((lab / "server/nodes.json").read_text())["nodes"]


@pytest.mark.deployment
def test_git_sees_no_key_of_a_deployment_in_whatever_checkout_it_or_a_part_of_it_lies(
    lab: Path, tmp_path: Path
) -> None:
    for number, part in enumerate([lab, lab / "server", lab / "nodes/van-4"]):
        checkout = tmp_path / f"checkout-{number}"
        subprocess.run(["git", "init", "-q", str(checkout)], check=True)
        shutil.copytree(part, checkout / "any name")
        (checkout / "seen").touch()
        command = ["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=all"]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "?? seen\n"


def test_every_folder_that_may_be_copied_alone_keeps_itself_out_of_git_and_the_checkout_lists_them(lab: Path) -> None:
    with_secrets = {path.parent for pattern in ("*.key", "*.secret") for path in lab.rglob(pattern)}
    assert len(with_secrets) >= 4
    for folder in with_secrets - {lab / "ca"} | {lab}:
        assert (folder / ".gitignore").read_text().splitlines()[-1] == "*"
    listed = (CHECKOUT / ".gitignore").read_text().splitlines()
    assert {"lab/", "site/", "*.key", "superexec.secret"} <= set(listed)
