"""A process that has imported Flower and torch, and forks for every message so that no new interpreter is needed.

The SuperExec of Flower starts a program called ``flwr-clientapp`` for each message. On a warm node it finds our program
of that name (`sim.deploy.shim`), which passes arguments, folder, environment and streams to this server. The server
forks, and the child calls the entry point that Flower has installed under that name, with nothing patched. We depend
on the name of a program and on entry points; if anything is missing or different, the stock program runs.

`sim.deploy.forkserver` runs this file as a script. It imports nothing from this project: the code of an app must come
from the bundle that Flower sends, so the packages of this checkout must not be imported before it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType

# These are the same as in the shim, which cannot import from this project either.
SOCKET_NAME, READY, EXITED = "forkserver.sock", b"ready", b"exited "
# Time for the rest of a request once its first byte has come.
REQUEST_TIMEOUT_S = 1.0
# Variables that Python, Flower and numerical libraries read once, when they are loaded.
READ_ONCE = ("FLWR_", "PYTHON", "LD_", "OMP_", "MKL_", "OPENBLAS_", "TORCH", "PYTORCH_", "CUDA_")
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class ForkRequest:
    """The folder, arguments and environment with which a shim was started."""

    folder: bytes
    arguments: list[bytes]
    environment: dict[bytes, bytes]


@dataclass(frozen=True)
class RunningApp:
    """A child and the shim that waits for it; the selector watches both."""

    process_fd: int
    pid: int
    shim: socket.socket


class ForkServer:
    """Answers shims, forks their apps, and tells them how the apps ended.

    Args:
        listener: a socket that is bound and listens.
        refusal: says why an app with these environment variables must not be forked; None if it may be.
    """

    def __init__(self, listener: socket.socket, refusal: Callable[[Mapping[bytes, bytes]], str | None]) -> None:
        self._listener, self._refusal = listener, refusal
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def next_request(self) -> ForkRequest | None:
        """Serve until stdin is closed, then return None; in a forked child, and only there, return its request."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._greet()
                elif key.fd == 0:
                    return None
                elif isinstance(key.data, socket.socket):
                    if (request := self._start(key.data)) is not None:
                        return request
                elif key.fd == key.data.process_fd:
                    self._bury(key.data)
                else:
                    self._pass_on(key.data)
                # The next event may belong to something that this one has closed.
                break

    def _greet(self) -> None:
        shim, _ = self._listener.accept()
        shim.settimeout(REQUEST_TIMEOUT_S)
        _, user, _ = struct.unpack("3i", shim.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        reason = None if user == os.geteuid() else f"user {user} is not the user of the fork server"
        with suppress(OSError):
            shim.sendall(READY if reason is None else reason.encode())
        if reason is None:
            self._selector.register(shim, selectors.EVENT_READ, shim)
        else:
            shim.close()

    def _start(self, shim: socket.socket) -> ForkRequest | None:
        """Fork for a request; return the request in the child, and None in the server."""
        self._selector.unregister(shim)
        streams: list[int] = []
        pid = None
        try:
            request = _receive(shim, streams)
            reason = self._refusal(request.environment)
            if reason is None:
                pid = os.fork()
        except (OSError, ValueError) as error:
            reason = f"fork server: {error}"
        if pid == 0:
            self._leave_server(shim, streams)
            return request
        for stream in streams:
            os.close(stream)
        if pid is None:
            with shim, suppress(OSError):
                shim.sendall((reason or "").encode())
        else:
            app = RunningApp(os.pidfd_open(pid), pid, shim)
            self._selector.register(app.process_fd, selectors.EVENT_READ, app)
            self._selector.register(shim, selectors.EVENT_READ, app)
        return None

    def _pass_on(self, app: RunningApp) -> None:
        """Send a child the signals that its shim got; kill the child if the shim was killed."""
        try:
            numbers = app.shim.recv(64)
        except OSError:
            numbers = b""
        if not numbers:
            self._selector.unregister(app.shim)
        for number in numbers or [signal.SIGKILL]:
            signal.pidfd_send_signal(app.process_fd, number)

    def _bury(self, app: RunningApp) -> None:
        _, status = os.waitpid(app.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._selector.unregister(app.process_fd)
        with suppress(KeyError):
            self._selector.unregister(app.shim)
        os.close(app.process_fd)
        with app.shim, suppress(OSError):
            # Shells report a program that a signal ended in the same way.
            app.shim.sendall(EXITED + b"%d" % (code if code >= 0 else 128 - code))

    def _leave_server(self, shim: socket.socket, streams: Sequence[int]) -> None:
        """Give a child the signals, files and streams that it would have if the shim had become the app."""
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
            elif key.fd != 0:
                os.close(key.fd)
        self._selector.close()
        shim.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)


def _receive(shim: socket.socket, streams: list[int]) -> ForkRequest:
    head, descriptors, _, _ = socket.recv_fds(shim, 4, 3)
    streams += descriptors
    if len(head) < 4 or len(descriptors) < 3:
        raise ValueError("a request came without its streams")
    size = int.from_bytes(head, "big")
    with shim.makefile("rb") as stream:
        text = stream.read(size)
    if len(text) < size:
        raise ValueError("a request came incomplete")
    folder, num_arguments, *rest = text.split(b"\0")
    arguments, entries = rest[: int(num_arguments)], rest[int(num_arguments) :]
    return ForkRequest(folder, arguments, dict(entry.split(b"=", 1) for entry in entries))


def _listen(path: Path) -> socket.socket:
    """Open a socket for this user only; it replaces a socket that a killed server has left."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(former)
    listener.listen(64)
    return listener


def _preload(program: str, preloaded: Sequence[str]) -> tuple[Callable[[], str | int | None], str, str]:
    """Import what apps need; return the function that the program calls, and name and version of its distribution.

    Raises:
        RuntimeError: there is no such program, or an imported module has started threads.
    """
    found = next((entry for entry in metadata.entry_points(group="console_scripts") if entry.name == program), None)
    if found is None or found.dist is None:
        raise RuntimeError(f"no installed distribution has a program {program}")
    for module in preloaded:
        with suppress(ModuleNotFoundError):
            importlib.import_module(module)
    # The version is read now, since another may be installed later.
    run, name, version = found.load(), found.dist.name, found.dist.version
    num_threads = max(threading.active_count(), len(os.listdir("/proc/self/task")))
    if num_threads > 1:
        raise RuntimeError(f"the imported modules run {num_threads} threads, and only one would survive a fork")
    return run, name, version


class QuickEnd:
    """Ends a child without taking its interpreter and modules apart, which would cost 0.3 CPU-seconds.

    Exit functions run in the reverse order of their registration, after the last thread has ended; so the one that is
    registered first runs when everything else is done.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._end)

    def run(self, app: Callable[[], str | int | None]) -> None:
        """Run an app as its console script does; if it does not end with an exit code, Python ends it as usual."""
        try:
            sys.exit(app())
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                self._code = end.code or 0
            raise

    def _end(self) -> None:
        if self._code is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(self._code & 0xFF)


def main() -> None:
    """Serve the program that the arguments name, after its folder and before the modules to import."""
    quick_end = QuickEnd()
    folder, program, *preloaded = sys.argv[1:]
    born_with = _read_once(os.environb)
    path = Path(folder, SOCKET_NAME)
    try:
        run, name, version = _preload(program, preloaded)
        listener = _listen(path)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(1)

    def refusal(environment: Mapping[bytes, bytes]) -> str | None:
        if (installed := _version(name)) != version:
            return f"the fork server has {name} {version}, but {installed} is installed"
        changed = _read_once(environment).items() ^ born_with.items()
        names = sorted({os.fsdecode(name) for name, _ in changed})
        return f"the fork server was started with other values of {', '.join(names)}" if names else None

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    for number in ENDING:
        signal.signal(number, end)
    print(READY.decode(), flush=True)
    # The reader of stdout has read enough; children print to their own streams.
    os.dup2(2, 1)
    # All children share the memory that exists now; a garbage collection that touched it would copy it.
    gc.collect()
    gc.freeze()
    own, inode = os.getpid(), path.stat().st_ino
    try:
        request = ForkServer(listener, refusal).next_request()
    finally:
        if os.getpid() == own and path.exists() and path.stat().st_ino == inode:
            path.unlink()
    if request is not None:
        os.chdir(request.folder)
        os.environb.clear()
        os.environb.update(request.environment)
        sys.argv = [os.fsdecode(argument) for argument in request.arguments]
        quick_end.run(run)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def _read_once(environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in environment.items() if os.fsdecode(name).startswith(READ_ONCE)}


if __name__ == "__main__":
    main()
