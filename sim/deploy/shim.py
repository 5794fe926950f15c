"""The ``flwr-clientapp`` that the SuperExec of a warm node finds first on PATH; it has the app forked if it can.

A copy of this file is beside the socket of `sim.deploy.fork_loop` and runs once per message, so it imports very
little. It runs until the app ends and behaves like the app towards its parent: it passes signals on, its exit code is
that of the app, and killing it kills the app. If anything goes wrong before the request is complete, it becomes the
stock program, the next of that name on PATH. After that the app may be running already, and it must never run twice.

The copy begins with two lines of sh, so no import from ``__future__`` may be here.
"""

import os
import signal
import socket
import sys

SOCKET_NAME = "forkserver.sock"
# The server's first answer, as soon as somebody connects; any other answer is the reason why it will not serve.
READY = b"ready"
# An exit code follows this; any other answer is the reason why the app was not started.
EXITED = b"exited "
# How long a server may take for its first answer. A server that works needs milliseconds, more on a busy machine.
PATIENCE_S = 2.0
STREAMS = (0, 1, 2)
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def run_forked(folder: str) -> int | str:
    """The exit code of the app that the fork server ran, or the reason why it did not run it."""
    try:
        # If a stream were closed, the socket would get its number.
        for stream in STREAMS:
            os.fstat(stream)
    except OSError as error:
        return f"standard streams: {error}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.settimeout(PATIENCE_S)
        try:
            server.connect(os.path.join(folder, SOCKET_NAME))
            greeting = server.recv(4096)
            if greeting != READY:
                return os.fsdecode(greeting) or "the fork server hung up"
            request = encode_request()
            # The app may run before the next line here does: what comes meanwhile is for it, and waits.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
            try:
                socket.send_fds(server, [len(request).to_bytes(4, "big")], STREAMS)
                server.sendall(request)
                server.settimeout(None)
                for number in PASSED_ON:
                    signal.signal(number, lambda number, _: server.send(bytes([number])))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except OSError as error:
            return f"fork server: {error}"
        try:
            answer = server.recv(4096)
        except OSError:
            answer = b""
    if not answer:
        print("softbeam: the fork server ended before the app did", file=sys.stderr)
        return 1
    if not answer.startswith(EXITED):
        return os.fsdecode(answer)
    return int(answer.removeprefix(EXITED))


def encode_request() -> bytes:
    """Folder, number of arguments, arguments and environment, with NUL bytes between them: none can contain NUL."""
    arguments = [os.fsencode(argument) for argument in sys.argv]
    environment = [name + b"=" + value for name, value in os.environb.items()]
    return b"\0".join([os.getcwdb(), b"%d" % len(arguments), *arguments, *environment])


def run_stock(folder: str, program: str) -> str:
    """Become the next program of this name on PATH; if there is none, return a message that says so."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    own = [index for index, place in enumerate(places) if os.path.realpath(place) == os.path.realpath(folder)]
    # Only later places count: two shims on one PATH would otherwise call each other for ever.
    for place in places[own[-1] + 1 if own else 0 :]:
        path = os.path.join(place, program)
        if os.access(path, os.X_OK):
            os.execv(path, [path, *sys.argv[1:]])
    return f"softbeam: no {program} on PATH after {folder}"


def main() -> None:
    """Run the app by the fork server, or else as the stock program."""
    folder, program = os.path.split(os.path.abspath(__file__))
    outcome = run_forked(folder)
    if isinstance(outcome, str):
        print(f"softbeam: {program} starts cold: {outcome}", file=sys.stderr, flush=True)
        sys.exit(run_stock(folder, program))
    sys.exit(outcome)


if __name__ == "__main__":
    main()
