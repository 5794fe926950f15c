"""A page on the loopback that shows a run: read-only, for the people of this machine alone.

It listens on 127.0.0.1, so nobody elsewhere can connect. A page of the web that is open in a browser here could still
point a name of its own at 127.0.0.1 and read the answers (DNS rebinding), so a request that names another host than
the loopback is refused. Answers carry a policy under which the page loads nothing from elsewhere.
"""

from __future__ import annotations

import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sim.watch.page import page
from sim.watch.view import RunWatcher

LOOPBACK = "127.0.0.1"


class WatchServer(ThreadingHTTPServer):
    """Serves the page of one run; ``serve_forever`` answers until ``shutdown``.

    Args:
        watcher: what looks at the run.
        port: the port; 0 takes one that is free.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    # Another process that listens on the port must be an error, and no second listener.
    allow_reuse_port = False

    def __init__(self, watcher: RunWatcher, *, port: int) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self._watcher = watcher
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may name as its host."""
        return tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def view(self) -> str:
        """The run as JSON; requests look one after the other."""
        with self._lock:
            return json.dumps(self._watcher.look().to_dict())


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page and for ``run.json``; everything else is refused."""

    server: WatchServer
    server_version, sys_version = "softbeam", ""
    # How long a connection may say nothing, in seconds.
    timeout = 30

    def do_GET(self) -> None:
        """Answer with the page or with the run."""
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", f"this page is at {self.server.url}\n")
        elif self.path == "/":
            nonce = secrets.token_urlsafe(16)
            self._answer(HTTPStatus.OK, "text/html", page(nonce), nonce=nonce)
        elif self.path == "/run.json":
            self._answer(HTTPStatus.OK, "application/json", self.server.view())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal shows the run."""

    def _answer(self, status: HTTPStatus, kind: str, text: str, *, nonce: str = "") -> None:
        content = text.encode()
        allowed = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
        policy = f"default-src 'none'; {allowed if nonce else ''}base-uri 'none'; form-action 'none'"
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{policy}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
