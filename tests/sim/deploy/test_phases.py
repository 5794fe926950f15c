"""The SuperLink of a live lab is killed at each step of a round, before and after the step is done.

It kills itself, on a `sitecustomize` that no other program obeys: so every kill comes at its step, and not by chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.recorder import read_rounds
from tests.labs import Lab, online_lab

pytestmark = [pytest.mark.deployment, pytest.mark.slow]


# In their order: the route, and whether it dies when the request comes or when the answer is ready and not sent.
STEPS = [
    ("/v1/runtime/get-nodes", "before"),
    ("/v1/runtime/push-messages", "after"),
    ("/v1/runtime/push-object", "before"),
    ("/v1/runtime/push-object", "after"),
    ("/v1/fleet/pull-object", "before"),
    ("/v1/fleet/push-messages", "after"),
    ("/v1/fleet/push-object", "before"),
    ("/v1/runtime/pull-messages", "after"),
]
WITH_NODE = STEPS.index(("/v1/runtime/push-object", "before"))
# Flower ends a run whose ServerApp it has not heard of for a minute, and a ServerApp beats every 23 seconds at most.
UP_BETWEEN_S = 25.0
ROUNDS = 24

SITECUSTOMIZE = """
import os, signal, sys

FOLDER = {folder!r}
STEPS = {steps!r}

if any(word.endswith("flower-superlink") for word in sys.orig_argv):
    import json, time
    from starlette.applications import Starlette

    served, began = Starlette.__call__, time.monotonic()

    def die(number):
        if number == {with_node}:
            health = json.load(open(FOLDER + "/nodes/gate-2/state/health.json"))
            os.kill(health["programs"]["supernode"]["pid"], signal.SIGKILL)
        with open(FOLDER + "/deaths", "a") as file:
            file.write(f"{{number}}\\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def step():
        try:
            number = len(open(FOLDER + "/deaths").readlines())
        except FileNotFoundError:
            return None, (None, None)
        is_time = number == 0 or time.monotonic() - began > {up_s}
        return (number, STEPS[number]) if number < len(STEPS) and is_time else (None, (None, None))

    async def mortal(self, scope, receive, send):
        async def answer(message):
            number, (path, when) = step()
            if number is not None and when == "after" and scope.get("path") == path:
                die(number)
            await send(message)

        number, (path, when) = step()
        if number is not None and when == "before" and scope.get("path") == path:
            die(number)
        await served(self, scope, receive, answer)

    Starlette.__call__ = mortal
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home: Path, has_nginx: None) -> Iterator[Lab]:
    """Four nodes and a server whose SuperLink dies at each step, once the file ``deaths`` is there."""
    folder = tmp_path_factory.mktemp("phases") / "lab"
    site = SITECUSTOMIZE.format(folder=str(folder), steps=STEPS, with_node=WITH_NODE, up_s=UP_BETWEEN_S)
    with online_lab(folder, home, site=site) as lab:
        yield lab


def test_a_superlink_that_is_killed_at_every_step_of_a_round_alone_and_with_a_node_ends_no_run(
    lab: Lab, tmp_path: Path
) -> None:
    (lab.folder / "deaths").touch()
    run = lab.run(tmp_path, f"strategy.rounds={ROUNDS}", "strategy.round_timeout_s=15")
    died = [int(line) for line in (lab.folder / "deaths").read_text().split()]
    assert died == list(range(len(STEPS))), f"the run was over before {STEPS[len(died)]}"
    restarts = json.loads((lab.server.state / "health.json").read_text())["programs"]["superlink"]["restarts"]
    assert restarts == len(STEPS)
    rounds = read_rounds(run)
    assert [line["round"] for line in rounds] == list(range(1, ROUNDS + 1))
    # A kill costs the answers that were under way, and the killed node is away until its key is let in again; after
    # the last kill all count again.
    assert not any(entry["problem"] for entry in rounds[-1]["clients"].values())
    counted = {client for line in rounds for client, entry in line["clients"].items() if not entry["problem"]}
    assert len(counted) == len(lab.deployment.nodes)
