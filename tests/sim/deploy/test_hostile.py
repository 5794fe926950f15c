"""A live lab of four nodes of which one sends, round after round, each kind of answer that once ended everybody's run.

The node is a real one with a real key: its ClientApp works as the others do, and what it answers is spoilt on its way
out, inside its own process, by a `sitecustomize` that the other machines do not obey.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.recorder import read_rounds
from tests.labs import Lab, online_lab

pytestmark = [pytest.mark.deployment, pytest.mark.slow]

HOSTILE, CLIENT = "van-4", "003-gps"

# Round -> what is done to the answer of that round, and what the server says about it. In the others it is honest.
KINDS = {
    2: ('header["round"] = float("inf")', "the header is incomplete (round is inf)"),
    3: ('labels["ids"] = Array(np.full(2_700_000, 255, np.uint8))', "the bitmap has 21600000"),
    4: ("cannot_be_inflated(labels)", "cannot be unpacked"),
    5: ('metrics["validation"] = [0.5, 0.5]', "metric validation must be one number"),
    6: ('metrics["loss"] = [0.5]', "metric loss must be one number"),
    7: ('metrics["common.top5"] = 0.5', "metric common.top5 must be a number for each of"),
    8: ('metrics["x"] = float("nan")', "metric x is not finite"),
    9: (
        'labels[sorted(labels)[-1]] = Array("float32", (1 << 40,), "numpy.ndarray", huge())',
        "claims shape (1099511627776,)",
    ),
    10: ('facts["seconds"] = float("inf")', "seconds must be a number >= 0"),
    11: ('facts["error"] = "\\x1b[2J\\u202e\\n" * 100_000', "\\x1b[2J\\u202e"),
    12: ('header["clients"] = ["000-camera"]', "its node left it out"),
    13: ("reply.content.clear()", "the message has no header"),
}
ROUNDS = 14

SITECUSTOMIZE = """
import os, sys

if os.environ.get("SOFTBEAM_HOME", "").endswith("{hostile}/state") and any(
    word.endswith(("fork_loop.py", "flwr-clientapp")) for word in sys.orig_argv
):
    import io
    import numpy as np
    from flwr.app import Array
    from flwr.clientapp import ClientApp

    honest = ClientApp.__call__

    def huge():
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {{"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}})
        return stream.getvalue() + bytes(64)

    def cannot_be_inflated(record):
        kind = type(record)
        spoilt = type(kind.__name__, (kind,), {{"deflate": lambda self: kind.deflate(self)[:-3] + b"\\xff\\xff\\xff"}})
        record.__class__ = spoilt

    def spoil(reply):
        content = reply.content
        header = content["header"]
        facts, metrics = content["{client}/facts"], content["{client}/metrics"]
        labels = content.array_records.get("{client}/labels")
        {branches}

    def hostile(self, message, context):
        reply = honest(self, message, context)
        if message.metadata.message_type == "train.round" and reply.has_content():
            spoil(reply)
        return reply

    ClientApp.__call__ = hostile
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home: Path, has_nginx: None) -> Iterator[Lab]:
    """Four nodes, of which one is hostile, online."""
    folder = tmp_path_factory.mktemp("hostile") / "lab"
    branches = "\n        ".join(f'if header["round"] == {number}: {do}; return' for number, (do, _) in KINDS.items())
    with online_lab(folder, home, site=SITECUSTOMIZE.format(hostile=HOSTILE, client=CLIENT, branches=branches)) as lab:
        yield lab


def test_a_node_that_is_hostile_in_every_way_costs_itself_its_rounds_and_the_others_nothing(
    lab: Lab, tmp_path: Path
) -> None:
    run = lab.run(tmp_path, f"strategy.rounds={ROUNDS}", "strategy.round_timeout_s=60")
    rounds = {line["round"]: line["clients"] for line in read_rounds(run)}
    assert sorted(rounds) == list(range(1, ROUNDS + 1))
    for number, clients in rounds.items():
        others = {client: entry["problem"] for client, entry in clients.items() if client != CLIENT}
        assert others == dict.fromkeys(("000-camera", "001-radar", "002-lidar"), ""), number
    page = html.unescape((run / "report.html").read_text())
    assert "\x1b" not in page and "\u202e" not in page
    for number, (_, expected) in KINDS.items():
        problem = rounds[number][CLIENT]["problem"]
        assert expected in problem, (number, problem)
        assert problem in page, number
    for number in set(rounds) - set(KINDS):
        assert rounds[number][CLIENT]["problem"] == "", "an honest answer counts again"
    programs = json.loads((lab.server.state / "health.json").read_text())["programs"]
    assert {name: entry["restarts"] for name, entry in programs.items()} == dict.fromkeys(programs, 0)
