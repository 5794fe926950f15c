"""What a run would do and cost, before anything of it is done: ``softbeam run --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

from configs.data import Nodes
from configs.loading import to_values
from configs.schema import Experiment
from strategies.codecs.encoding import Encoding
from strategies.codecs.packing import pack_ids
from strategies.methods.base import Choreography

# Bytes of a partner of a sample in relations: a distance and an angle in half precision.
_PARTNER_BYTES = 4


def cost_of(experiment: Experiment, method: type[Choreography]) -> dict[str, Any]:
    """The cost of an experiment: bytes of a client and round, optimizer steps.

    Args:
        experiment: the experiment.
        method: the class of its strategy.

    Returns:
        ``clients``; ``bytes``, which are those of a client in a round before entropy coding, so that rows with +zlib or
        +delta are smaller (None where they depend on the data); ``steps`` of a client, of its controls, of the teacher
        and of all. Of clients that differ, ``client`` and ``controls_of_a_client`` are those of the one with the most.
    """
    strategy, teaching = experiment.strategy, experiment.teaching
    clients = [(f"{number:03d}", nodes) for number, nodes in enumerate(_each(experiment))]
    steps = [
        experiment.training_of(client, nodes.modality).total_steps(experiment.expected_rounds(client, nodes.modality))
        for client, nodes in clients
    ]
    arms = 2 if experiment.controls else 0
    teacher = teaching.pretrain_steps + teaching.total_steps(strategy.rounds)
    return {
        "clients": len(clients),
        "rounds": strategy.rounds,
        "bytes": _bytes_of(experiment, method),
        "steps": {
            "client": max(steps),
            "controls_of_a_client": arms * max(steps),
            "teacher": teacher,
            "all": (1 + arms) * sum(steps) + teacher,
        },
    }


def _each(experiment: Experiment) -> Iterator[Nodes]:
    """The entry of ``data.nodes`` of every client, in the order of their numbers."""
    for nodes in experiment.data.groups:
        yield from [nodes] * nodes.count


def _bytes_of(experiment: Experiment, method: type[Choreography]) -> dict[str, Any]:
    strategy, samples = experiment.strategy, experiment.strategy.public_samples
    if not (method.traits.asks_samples and method.traits.sends_labels):
        return {"samples": None, "up": None, "down": None}
    up, down = _sample_bytes(experiment, strategy.codec), _sample_bytes(experiment, strategy.codec_down)
    down = down if strategy.sends_targets else 0
    if strategy.relations is not None:
        down += _PARTNER_BYTES * strategy.relations.pairs
    found: dict[str, Any] = {"samples": samples or None, "up_a_sample": up, "down_a_sample": down}
    if samples:
        # Ids travel as a bitmap or as numbers, whichever is smaller; consecutive ones make the smallest bitmap.
        ids = pack_ids(np.arange(samples)).nbytes
        found |= {"up": samples * up + ids, "down": samples * down + ids}
    else:
        found |= {"up": None, "down": None}
    return found


def _sample_bytes(experiment: Experiment, codec: str) -> int:
    horizons, beams = experiment.task.num_horizons, experiment.task.num_classes
    rows = Encoding(codec, horizons, beams).codec.encode(np.full((1, horizons, beams), 1 / beams, np.float32))
    return int(rows.nbytes)


def preview_text(experiment: Experiment, cost: dict[str, Any]) -> str:
    """The whole experiment as YAML, and its cost as comments, so that the text can be saved and run."""
    size, steps = cost["bytes"], cost["steps"]
    if size["up"] is not None:
        coded = "" if "+" not in experiment.strategy.codec else ", before entropy coding"
        message = f"at most {size['up']:,} up and {size['down']:,} down{coded} ({size['samples']:,} public samples)"
    elif size.get("up_a_sample"):
        message = f"at most {size['up_a_sample']:,} up and {size['down_a_sample']:,} down for each public sample"
    else:
        message = f"no soft labels of public samples; docs/strategies.md says what {experiment.strategy.name} sends"
    is_unlike = any(nodes.training.given or nodes.first_round > 1 or nodes.last_round for nodes in _each(experiment))
    most = "at most " if is_unlike else ""
    lines = [
        f"{experiment.name}, seed {experiment.seed}: nothing was run",
        f"bytes of a client and round: {message}",
        f"optimizer steps: {most}{steps['client']:,} of each of {cost['clients']} clients in {cost['rounds']} rounds, "
        f"{steps['controls_of_a_client']:,} of its controls, {steps['teacher']:,} of the teacher; "
        f"{steps['all']:,} in all",
        *(
            f"{one['key']}{' ' if one['model'] else ''}{one['model']}: {one['parameters']:,} parameters, "
            f"{one['macs']:,} multiply-accumulates a window"
            for one in cost.get("models", [])
        ),
    ]
    return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(to_values(experiment), sort_keys=False)
