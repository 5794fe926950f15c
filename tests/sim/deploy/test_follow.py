from __future__ import annotations

import os
import subprocess
import sys
import time

from sim.deploy.follow import is_alive

PATIENCE_S = 20.0


def test_a_process_that_ended_and_was_not_buried_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert is_alive(child.pid)
        child.kill()
        end = time.monotonic() + PATIENCE_S
        while is_alive(child.pid):
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(child.pid, 0)  # It is still there, as a zombie: nobody has waited for it.
    assert not is_alive(child.pid)
    assert is_alive(os.getpid())
