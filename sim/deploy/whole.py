"""Runs a program of Flower so that it ends as a whole when one of its parts ends.

A SuperNode that gets an error from its SuperLink (say 500, because a slow disk let the server's database wait) ends its
work and goes on as a process, since what serves its apps is a thread of its own; and if only the heartbeat gets the
error, that thread alone ends. In both cases the node is away for ever, and nothing that can be seen from outside says
so. Here the process ends with the first of its parts, and the supervisor starts it again.

`sim.deploy.machine` runs this file as a script, with the name of the program and its arguments. The program is the
entry point that Flower has installed, with nothing patched; nothing from this project is imported.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress
from importlib import metadata

FAILED = 70
"""The exit code after an error that Flower did not handle: EX_SOFTWARE of sysexits.h."""


def end_at_once(code: int, reason: str = "") -> None:
    """End the process without waiting for its threads; a reason is the last line that it prints."""
    if reason:
        print(f"ERROR: {reason}; the program ended with it", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


def end_with_thread(arguments: threading.ExceptHookArgs) -> None:
    """End the process because an error has ended one of its threads; the error is told as Python tells it."""
    if arguments.exc_type is not SystemExit:
        threading.__excepthook__(arguments)
        name = "a thread" if arguments.thread is None else arguments.thread.name
        end_at_once(FAILED, f"{name} failed with {arguments.exc_type.__name__}: {arguments.exc_value}")


def main() -> None:
    """Run the program that the first argument names."""
    del sys.argv[0]
    name = sys.argv[0]
    entry = next((one for one in metadata.entry_points(group="console_scripts") if one.name == name), None)
    if entry is None:
        end_at_once(FAILED, f"no installed distribution has a program {name}")
        return
    threading.excepthook = end_with_thread
    code: object
    try:
        code = entry.load()()
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    except BaseException:
        traceback.print_exc()
        code = "its main function failed"
    if isinstance(code, int):
        end_at_once(code)
    end_at_once(FAILED, str(code or "its main function came to an end"))


if __name__ == "__main__":
    main()
