from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from server.nodes import read_nodes as read_register
from sim.deploy import trial, warm
from sim.deploy.credentials import key_header, make_node_key
from sim.deploy.flower import Flower, NodeEntry
from sim.deploy.machine import NodeMachine, ServerMachine, install_node_key, proxy_command, read_nodes, write_nodes
from sim.deploy.processes import holders, members
from sim.deploy.settings import load_node, load_server, save_settings
from sim.deploy.status import machine_health
from sim.deploy.supervisor import Supervisor, claimed, running_pid
from sim.deploy.templates import BODIES_PER_NODE, OBJECT_BYTES, OTHER_BYTES
from sim.deploy.trial import take_down
from sim.deploy.warm import warm_clients
from tests.conftest import CHECKOUT
from tests.labs import make_lab
from tests.ports import free_ports


class FakeFlower(Flower):
    """A SuperLink that takes a key once, also after its node was unregistered, as Flower's does."""

    def __init__(self) -> None:
        self.status: dict[int, str] = {}
        self.keys: dict[int, str] = {}
        self.broken: RuntimeError | None = None

    def register(self, public_key: Path, *, name: str) -> int:
        if self.broken is not None:
            raise self.broken
        key = public_key.read_text()
        if key in self.keys.values():
            raise RuntimeError("flwr supernode register: Public key already in use.")
        node_id = 2**63 + len(self.keys)
        self.keys[node_id], self.status[node_id] = key, "registered"
        return node_id

    def unregister(self, node_id: int) -> None:
        self.status[node_id] = "unregistered"

    def nodes(self) -> list[NodeEntry]:
        return [NodeEntry(node_id, status, "N/A") for node_id, status in self.status.items()]


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> FakeFlower:
    fake = FakeFlower()
    monkeypatch.setattr(ServerMachine, "flower", fake)
    return fake


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    make_lab(tmp_path / "lab", nodes=["gps:van-4", "lidar:pole-3"])
    (tmp_path / "lab/server/state").mkdir()
    return tmp_path / "lab"


def server_of(lab: Path) -> ServerMachine:
    return ServerMachine(lab / "server", load_server(lab / "server"))


def ids(entries: list[dict[str, str]]) -> dict[str, int]:
    return {entry["name"]: int(entry["node_id"]) for entry in entries}


def test_nodes_are_registered_once_and_the_run_reads_who_they_are(lab: Path, flower: FakeFlower) -> None:
    first = server_of(lab).register_nodes()
    assert server_of(lab).register_nodes() == first
    assert [entry["public_key"].split()[0] for entry in first] == ["ecdsa-sha2-nistp384"] * 2
    register = read_register(lab / "server/state/nodes.json")
    assert {who.name: node_id for node_id, who in register.items()} == ids(first)


def test_a_node_with_a_new_key_is_registered_anew_and_its_old_key_let_in_no_more(lab: Path, flower: FakeFlower) -> None:
    before = ids(server_of(lab).register_nodes())
    make_node_key(lab / "nodes/van-4")
    install_node_key(lab / "nodes/van-4", lab / "server", name="van-4")
    after = ids(server_of(lab).register_nodes())
    assert after["van-4"] != before["van-4"]
    assert after["pole-3"] == before["pole-3"]
    assert flower.status == {
        before["van-4"]: "unregistered",
        before["pole-3"]: "registered",
        after["van-4"]: "registered",
    }


def test_another_comment_behind_a_key_is_no_other_key(lab: Path, flower: FakeFlower) -> None:
    before = server_of(lab).register_nodes()
    path = lab / "server/keys/van-4.pub"
    path.write_text(path.read_text().strip() + " root@van\n")
    assert server_of(lab).register_nodes() == before


def test_a_node_that_is_gone_from_the_list_is_let_in_no_more(lab: Path, flower: FakeFlower) -> None:
    before = ids(server_of(lab).register_nodes())
    path = lab / "server/nodes.json"
    write_nodes(path, [entry for entry in read_nodes(path) if entry["name"] != "van-4"])
    assert ids(server_of(lab).register_nodes()) == {"pole-3": before["pole-3"]}
    assert flower.status[before["van-4"]] == "unregistered"


def test_a_list_of_before_keys_were_noted_keeps_its_ids(lab: Path, flower: FakeFlower) -> None:
    before = server_of(lab).register_nodes()
    path = lab / "server/state/nodes.json"
    write_nodes(path, [{key: entry[key] for key in entry if key != "public_key"} for entry in before])
    assert server_of(lab).register_nodes() == before


def test_lost_ids_are_told_with_their_remedy_which_works(lab: Path, flower: FakeFlower) -> None:
    server_of(lab).register_nodes()
    (lab / "server/state/nodes.json").unlink()
    with pytest.raises(ValueError, match=r"Flower had .*\.pub before.*move state/superlink.db away"):
        server_of(lab).register_nodes()
    flower.status, flower.keys = {}, {}
    assert set(ids(server_of(lab).register_nodes())) == {"van-4", "pole-3"}


def test_what_was_registered_before_flower_stumbled_is_noted(lab: Path, flower: FakeFlower) -> None:
    write_nodes(lab / "server/nodes.json", all_nodes := read_nodes(lab / "server/nodes.json")[:1])
    first = server_of(lab).register_nodes()
    make_node_key(lab / "nodes/pole-3")
    write_nodes(lab / "server/nodes.json", [{**all_nodes[0], "name": "pole-3", "client": "x"}, *all_nodes])
    flower.broken = RuntimeError("flwr supernode: no answer within 120 s")
    with pytest.raises(RuntimeError, match="no answer"):
        server_of(lab).register_nodes()
    assert read_nodes(lab / "server/state/nodes.json") == first
    flower.broken = None
    assert ids(server_of(lab).register_nodes())["van-4"] == int(first[0]["node_id"])


@pytest.mark.parametrize("lacking", ["name", "client", "modality"])
def test_a_list_of_nodes_without_what_names_them_is_refused(tmp_path: Path, lacking: str) -> None:
    entry = {"name": "a", "client": "000-gps", "modality": "gps"}
    path = tmp_path / "nodes.json"
    for broken in ({key: entry[key] for key in entry if key != lacking}, {**entry, lacking: 3}):
        path.write_text(json.dumps({"nodes": [entry, broken]}))
        with pytest.raises(ValueError, match=f"not a readable list of nodes .*{lacking}"):
            read_nodes(path)


def test_the_health_of_a_client_whose_file_goes_meanwhile_is_empty(lab: Path) -> None:
    machine = NodeMachine(lab / "nodes/van-4", load_node(lab / "nodes/van-4"))
    memory = machine.state / "runs/1" / machine.settings.client
    memory.mkdir(parents=True)
    (memory / "health.json").symlink_to(memory / "gone")
    assert machine.health() == {"node": "van-4", "client": {}}


@pytest.mark.usefixtures("stand_in_nginx")
def test_the_proxy_follows_the_settings_at_every_start(lab: Path) -> None:
    for port in free_ports(2):
        settings = server_of(lab).settings.model_copy(update={"port": port})
        save_settings(settings, lab / "server/server.yaml")
        server_of(lab).programs()
        assert f"listen 127.0.0.1:{port} ssl;" in (lab / "server/state/nginx.conf").read_text()


@pytest.mark.usefixtures("stand_in_nginx")
def test_state_is_its_owners_alone(tmp_path: Path) -> None:
    make_lab(tmp_path / "lab", nodes=["gps:van-4"])
    server_of(tmp_path / "lab").programs()
    assert (tmp_path / "lab/server/state").stat().st_mode & 0o777 == 0o700


class Upstream:
    """A stand-in for the SuperLink behind a real proxy: it notes each request, and reads bodies when it is let."""

    def __init__(self, lab: Path) -> None:
        self.machine = server_of(lab)
        self.seen: list[str] = []
        self.reading, self.most = 0, 0
        self.go_on = threading.Event()
        self.go_on.set()
        self._lock = threading.Lock()
        self._key = key_header(lab / "server/keys/van-4.pub")

    @contextmanager
    def behind_proxy(self) -> Iterator[None]:
        """Serve until the block ends."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with outer._lock:
                    outer.seen.append(self.path)
                    outer.reading += 1
                    outer.most = max(outer.most, outer.reading)
                outer.go_on.wait(10.0)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with outer._lock:
                    outer.reading -= 1
                self.send_response(204)
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.machine.programs()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.machine.folder / "server.crt", self.machine.folder / "server.key")
        with ThreadingHTTPServer(("127.0.0.1", self.machine.settings.superlink_port), Handler) as upstream:
            upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
            threading.Thread(target=upstream.serve_forever, daemon=True).start()
            command = proxy_command(self.machine.folder)
            with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as proxy:
                try:
                    yield
                finally:
                    self.go_on.set()
                    proxy.terminate()
            upstream.shutdown()

    def ask(self, path: str, *, method: str = "GET", num_bytes: int = 0, key: str | None = None) -> int:
        """The status of a request with the key of a node; ``key`` shows another, an empty one none."""
        context = ssl.create_default_context(cafile=str(self.machine.folder / "ca.crt"))
        shown = self._key if key is None else key
        end = time.monotonic() + 20.0
        while True:
            port = self.machine.settings.port
            connection: HTTPConnection = HTTPSConnection("localhost", port, timeout=20.0, context=context)
            try:
                headers = {"flwr-public-key": shown} if shown else {}
                connection.request(method, path, body=bytes(num_bytes), headers=headers)
                return connection.getresponse().status
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                return 0  # The proxy closed the connection while the body was still being sent.
            finally:
                connection.close()


@pytest.mark.deployment
@pytest.mark.usefixtures("has_nginx")
def test_the_proxy_passes_on_the_path_that_it_matched(lab: Path) -> None:
    upstream = Upstream(lab)
    with upstream.behind_proxy():
        answers = [
            upstream.ask(path)
            for path in (
                "/v1/fleet/pull?a=b",
                "/v1/control/../fleet/pull",
                "/v1/%66leet//pull",
                "/v1/fleet/push-object/../pull",
                "/v1/fleet/push-object/../../control/runs",
                "/v1/fleet/../control/runs",
                "/v1/fleet/%2e%2e/control/runs",
                "/v1/fleet/..%2fcontrol/runs",
                "/v1/control/runs",
            )
        ]
    assert answers == [*[204] * 4, *[404] * 5]
    assert upstream.seen == ["/v1/fleet/pull?a=b", *["/v1/fleet/pull"] * 3]


@pytest.mark.deployment
@pytest.mark.usefixtures("has_nginx")
@pytest.mark.parametrize("key", ["", "x", "A" * 388, "van-4"], ids=["none", "short", "as long", "a name"])
def test_no_byte_of_a_stranger_reaches_the_superlink(lab: Path, key: str) -> None:
    upstream = Upstream(lab)
    with upstream.behind_proxy():
        for path in ("pull-messages", "push-object", "register-node", "%70ush-object", "push-object/x"):
            assert upstream.ask(f"/v1/fleet/{path}", method="POST", num_bytes=100_000, key=key) == 401
    assert upstream.seen == []


@pytest.mark.deployment
@pytest.mark.usefixtures("has_nginx")
def test_what_comes_with_the_key_of_a_node_is_bounded_in_size_and_number(lab: Path) -> None:
    upstream = Upstream(lab)
    statuses: list[int] = []
    with upstream.behind_proxy():
        assert upstream.ask("/v1/fleet/push-object", method="POST", num_bytes=OBJECT_BYTES) == 204
        assert upstream.ask("/v1/fleet/push-object", method="POST", num_bytes=OBJECT_BYTES + 1) in (413, 0)
        assert upstream.ask("/v1/fleet/push-messages", method="POST", num_bytes=OTHER_BYTES) == 204
        assert upstream.ask("/v1/fleet/push-messages", method="POST", num_bytes=OTHER_BYTES + 1) in (413, 0)
        upstream.go_on.clear()
        upstream.most = 0

        def push() -> None:
            statuses.append(upstream.ask("/v1/fleet/push-object", method="POST", num_bytes=2_000_000))

        pushing = [threading.Thread(target=push) for _ in range(3 * BODIES_PER_NODE)]
        for one in pushing:
            one.start()
        end = time.monotonic() + 20.0
        while len(statuses) < 2 * BODIES_PER_NODE:
            assert time.monotonic() < end
            time.sleep(0.05)
        upstream.go_on.set()
        for one in pushing:
            one.join()
    assert upstream.most == BODIES_PER_NODE
    assert set(statuses) <= {0, 204, 503}
    assert statuses.count(204) == BODIES_PER_NODE


@pytest.mark.deployment
@pytest.mark.usefixtures("has_nginx")
def test_a_proxy_that_is_killed_comes_back_with_its_port_and_leaves_no_worker(lab: Path) -> None:
    machine = server_of(lab)
    keeper = Supervisor(machine.state, [machine.programs()[2]])
    killed: list[int] = []

    def watch() -> None:
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            health = machine_health(lab / "server")
            entry = health.get("programs", {}).get("proxy", {})
            if not killed and health["ready"]:
                killed.append(entry["pid"])
                os.kill(entry["pid"], signal.SIGKILL)
            if killed and health["ready"] and entry["pid"] != killed[0]:
                seen.append(health)
                break
            time.sleep(0.1)
        keeper.stop()

    seen: list[dict[str, Any]] = []
    watching = threading.Thread(target=watch)
    watching.start()
    keeper.run()
    watching.join()
    (health,) = seen
    assert health["programs"]["proxy"]["restarts"] == 1
    assert "proxy: was started again (1 in all), the last time because it ended with code -9" in health["trouble"]
    assert members(killed[0]) == []
    assert holders(machine.settings.port) == []
    assert take_down(lab) == 0


def test_warm_clients_of_a_node_that_runs_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("started a second fork server")

    monkeypatch.setattr(warm, "start_forkserver", start)
    folder = tmp_path / "state/warm"
    folder.mkdir(parents=True)
    with (
        claimed(folder),
        pytest.raises(ValueError, match="runs here already; stop it first"),
        warm_clients(folder, {}, stock=False, echo=lambda name, line: None),
    ):
        pass


def test_a_node_whose_fork_server_does_not_start_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(warm, "start_forkserver", start)
    said: list[str] = []
    folder = tmp_path / "state/warm"
    with warm_clients(folder, {"A": "b"}, stock=False, echo=lambda name, line: said.append(line)) as environment:
        assert environment == {"A": "b"}
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert "no memory" in said[0]


def test_a_machine_that_does_not_stop_is_named_and_not_killed(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "STOP_S", 0.5)
    state = lab / "server/state"
    code = (
        "import signal, sys, time; from pathlib import Path; from sim.deploy.supervisor import claimed\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(state)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"held\n"
        with pytest.raises(RuntimeError, match=rf"still running .* not killed: server \(process {stubborn.pid}\)"):
            take_down(lab)
        assert stubborn.poll() is None
        assert running_pid(state) == stubborn.pid
        stubborn.send_signal(signal.SIGKILL)
    assert take_down(lab) == 0
