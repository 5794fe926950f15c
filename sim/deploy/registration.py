"""Registers with the SuperLink the nodes of the list under the keys that are noted for them, and no others.

Flower binds an id to a key for ever: it takes a key only once, even after the node was unregistered, and tells neither
name nor key of the nodes that it knows. So each id is noted with its key as soon as Flower has given it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sim.deploy.flower import Flower

Entry = Mapping[str, str]

# The words in Flower's answer to a key that it has seen before.
_IN_USE = "already in use"


def register_nodes(
    flower: Flower,
    wanted: Sequence[Entry],
    *,
    noted: Sequence[Entry],
    keys: Path,
    note: Callable[[list[dict[str, str]]], None],
) -> list[dict[str, str]]:
    """Unregister nodes that are no longer in the list or have another key, and register new nodes.

    Args:
        flower: the command line of Flower for the SuperLink.
        wanted: the nodes that may take part.
        noted: the entries that were noted last time.
        keys: the folder with a file ``NAME.pub`` for each node.
        note: is called with all registered entries whenever there is a new one.

    Returns:
        The entries, in the order of ``wanted``, with ``public_key`` and ``node_id``.

    Raises:
        ValueError: a key is missing, or Flower knows it from a node that is not noted.
        RuntimeError: Flower does not answer as it should.
    """
    alive = {entry.id for entry in flower.nodes() if entry.status != "unregistered"}
    before = {entry["name"]: entry for entry in noted if int(entry.get("node_id", 0)) in alive}
    entries = {entry["name"]: {**entry, "public_key": _public_key(keys, entry["name"])} for entry in wanted}
    registered = {}
    for name, old in before.items():
        # An older version noted no keys.
        if name in entries and old.get("public_key", entries[name]["public_key"]) == entries[name]["public_key"]:
            registered[name] = {**entries[name], "node_id": old["node_id"]}
        else:
            flower.unregister(int(old["node_id"]))
    for name, entry in entries.items():
        if name not in registered:
            registered[name] = {**entry, "node_id": str(_register(flower, keys / f"{name}.pub", name))}
            note(list(registered.values()))
    found = [registered[name] for name in entries]
    note(found)
    return found


def _register(flower: Flower, key: Path, name: str) -> int:
    try:
        return flower.register(key, name=name)
    except RuntimeError as error:
        if _IN_USE not in str(error):
            raise
        raise ValueError(
            f"{name}: Flower had {key.name} before, and state/nodes.json does not say for which node (it was revoked, "
            "or the file is lost or older); give the node a new key, or move state/superlink.db away (then all nodes "
            "are registered again)"
        ) from None


def _public_key(keys: Path, name: str) -> str:
    """The kind and the key in a public key file, without the comment after them."""
    path = keys / f"{name}.pub"
    try:
        return " ".join(path.read_text().split()[:2])
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({error}); copy the node's node.pub there") from None
