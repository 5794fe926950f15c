"""The page that follows a run: for this machine alone, read-only, and nothing in it from elsewhere."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.watch.page import page
from sim.watch.server import WatchServer
from sim.watch.view import RunWatcher
from tests.run_folders import write_run

NASTY = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WatchServer]:
    run = write_run(tmp_path / "run", scores=[[0.5, 0.25]], problems=[NASTY, ""])
    with WatchServer(RunWatcher(run), port=0) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def answer(
    server: WatchServer, path: str, *, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name in [host or server.hosts[0]] if host != "" else []:
            connection.putheader("Host", name)
        connection.endheaders()
        found = connection.getresponse()
        return found.status, dict(found.getheaders()), found.read().decode()
    finally:
        connection.close()


def test_it_listens_on_the_loopback_alone(server: WatchServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_the_run_is_served_as_data_and_what_a_client_says_stays_text(server: WatchServer) -> None:
    status, headers, text = answer(server, "/run.json")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json") and headers["X-Content-Type-Options"] == "nosniff"
    assert [client["problem"] for client in json.loads(text)["clients"]] == [NASTY, ""]
    # The document is the same whatever the run says, and writes text only.
    document = answer(server, "/")[2]
    assert "onerror" not in document
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", document)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example:{}", ""])
@pytest.mark.parametrize("path", ["/", "/run.json"])
def test_a_request_that_names_another_host_is_refused(server: WatchServer, host: str, path: str) -> None:
    status, _, text = answer(server, path, host=host.format(server.server_port))
    assert status == 421
    assert "street" not in text


def test_the_name_localhost_is_its_own(server: WatchServer) -> None:
    assert answer(server, "/run.json", host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("path", ["/status.json", "/../../../../etc/passwd", "/run.json/..", "/?x"])
def test_nothing_else_is_served(server: WatchServer, path: str) -> None:
    assert answer(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_sent(server: WatchServer, method: str) -> None:
    assert answer(server, "/run.json", method=method)[0] == 501


def test_the_head_of_the_page_is_that_of_the_page(server: WatchServer) -> None:
    status, headers, text = answer(server, "/", method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) == len(answer(server, "/")[2].encode())


def test_the_page_loads_nothing_and_only_its_own_script_may_run(server: WatchServer) -> None:
    _, headers, document = answer(server, "/")
    policy = headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r"nonce-([\w-]+)", policy))
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert re.findall(r"<(?:script|style) nonce=\"([\w-]+)\"", document) == [nonce, nonce]
    assert nonce not in answer(server, "/")[2]
    # The name of a format is no address.
    assert re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"//  .*", "", document)) == ["http://www.w3.org"]


def test_every_part_that_the_script_asks_for_is_in_the_page() -> None:
    document = page("x")
    wanted = set(re.findall(r"(?:byId|fill)\(\"(\w+)\"", document))
    assert wanted == set(re.findall(r" id=\"(\w+)\"", document))
    assert not re.search(r"\$\w", document)
