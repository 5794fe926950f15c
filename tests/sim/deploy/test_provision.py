from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.data.recording import open_recording
from clients.serving.canary import admit
from clients.serving.model_store import ModelStore
from sim.deploy.credentials import load_certificate, names_of
from sim.deploy.machine import NodeMachine, ServerMachine, proxy_command, read_nodes
from sim.deploy.provision import hand_out, provision
from sim.deploy.settings import load_deployment, load_node, load_server
from sim.deploy.templates import can_compose, compose
from tests.clients.serving.conftest import Models, write_passes
from tests.conftest import CHECKOUT
from tests.labs import give_data, make_lab
from tests.ports import free_ports
from tests.sim.take_home.test_serving import HIDDEN, NODE

PRIVATE = ["ca/ca.key", "server/server.key", "server/superexec.secret"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("trained"))


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


@pytest.mark.deployment
@pytest.mark.parametrize(
    "name", ["server/softbeam-server", "nodes/roof-1/softbeam-node", "nodes/roof-1/softbeam-predict"]
)
def test_systemd_finds_no_fault_with_a_unit(name: str, lab: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (lab / f"{name}.service").read_text()
    # The program has to be there, and units of the distribution are no matter of ours.
    text = re.sub(r"/opt/softbeam/\.venv/bin/\w+", "/bin/true", text).replace("/opt/softbeam", "/tmp")
    path = tmp_path / Path(f"{name}.service").name
    path.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True)
    assert [line for line in (done.stdout + done.stderr).splitlines() if path.name in line] == []
    broken = tmp_path / f"broken-{path.name}"
    broken.write_text(text.replace("Restart=always", "Restart=often"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, text=True)
    assert "often" in done.stdout + done.stderr  # a fault would be seen


def copied_by(containerfile: Path, folder: Path) -> None:
    """Copy into a folder what the image of a container file has of the checkout."""
    for line in re.findall(r"^COPY (.+)$", containerfile.read_text(), flags=re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            place = folder / target / (Path(source).name if target == "./" else "")
            if (CHECKOUT / source).is_dir():
                shutil.copytree(CHECKOUT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(CHECKOUT / source, place)


@pytest.mark.parametrize("name", ["server/Containerfile", "nodes/roof-1/Containerfile"])
def test_a_container_has_all_that_a_machine_needs(name: str, lab: Path, tmp_path: Path) -> None:
    copied_by(lab / name, tmp_path)
    included = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {path.name for path in tmp_path.iterdir()} >= {
        *included["only-include"],
        "pyproject.toml",
        "constraints.txt",
    }


def test_a_container_without_torch_serves_a_store(lab: Path, models: Models, tmp_path: Path) -> None:
    text = (lab / "nodes/roof-1/Containerfile.predict").read_text()
    copied_by(lab / "nodes/roof-1/Containerfile.predict", tmp_path / "image")
    assert (
        "pip install --no-cache-dir --requirement requirements-node.txt" in text
        and "torch" not in text.split("\n", 1)[1]
    )
    machine = tmp_path / "machine"
    admit(ModelStore(machine / "models"), models.write(tmp_path / "model"), None)
    write_passes(machine / "incoming/pass")
    (words,) = re.findall(r"^CMD (.+)$", text, flags=re.MULTILINE)
    python, flag, package, *rest = json.loads(words)
    assert (python, flag, package) == ("python", "-m", "softbeam")
    rest = [word.replace("/machine", str(machine)) for word in rest]
    done = subprocess.run(
        [sys.executable, "-c", NODE.format(hidden=HIDDEN), *rest, "--idle", "0.1"],
        cwd=tmp_path / "image",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "image")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 6 * 17 and {row["version"] for row in rows} == {"0001"}


def container_engine() -> str:
    """A container engine that has the image which ours begin with; skips the test where none is at work."""
    for engine in filter(shutil.which, ("docker", "podman")):
        if subprocess.run([engine, "pull", "python:3.11-slim"], capture_output=True).returncode == 0:
            return engine
    pytest.skip("no container engine is at work here, or it cannot get python:3.11-slim")


@pytest.mark.deployment
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nodes/roof-1/Containerfile.predict", ["python", "-m", "softbeam", "predict", "--help"]),
        pytest.param("nodes/roof-1/Containerfile", ["softbeam", "--version"], marks=pytest.mark.slow),
        pytest.param("server/Containerfile", ["softbeam", "--version"], marks=pytest.mark.slow),
    ],
)
def test_an_image_is_built_and_its_command_starts(name: str, words: list[str], lab: Path) -> None:
    engine, tag = container_engine(), f"softbeam-test-{Path(name).name.lower()}-{Path(name).parts[0]}"
    subprocess.run([engine, "build", "--file", lab / name, "--tag", tag, "."], cwd=CHECKOUT, check=True)
    try:
        done = subprocess.run([engine, "run", "--rm", tag, *words], capture_output=True, text=True)
    finally:
        subprocess.run([engine, "rmi", "--force", tag], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "softbeam" in done.stdout.lower()


def test_the_unit_that_serves_and_the_container_give_the_same_command(lab: Path) -> None:
    node = lab / "nodes/roof-1"
    unit = (node / "softbeam-predict.service").read_text().replace("\\\n", "")
    (command,) = re.findall(r"^ExecStart=\S+ (.+)$", unit, flags=re.MULTILINE)
    (words,) = re.findall(r"^CMD (.+)$", (node / "Containerfile.predict").read_text(), flags=re.MULTILINE)
    in_container = [word.replace("/machine", "/etc/softbeam/node") for word in json.loads(words)]
    assert command.split() == in_container[1:]


def test_nodes_publish_as_often_as_they_are_told_and_by_default_do_not(lab: Path, tmp_path: Path) -> None:
    assert load_node(lab / "nodes/roof-1").publish_every is None
    make_lab(tmp_path / "other", nodes=["gps:a"], publish_every=5)
    assert load_node(tmp_path / "other/nodes/a").publish_every == 5


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
