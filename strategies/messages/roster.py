"""The roster of clients by node, and the check of what a client says about itself.

A node is identified by its key, not by what it says about itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from strategies.messages.records import TEACHER, Event, Member, RegisteredNode, one_line
from strategies.messages.wire import Reply, WireError

# The most passes of a test set that a client may score one by one.
MAX_PASSES = 10_000
# What is told of sets of classes: the names of these metrics begin so, and each has at most so many numbers, which is
# enough for 30 horizons (`clients.learning.risk_curve`).
SETS, MAX_SET_NUMBERS = "sets.", 2_000


class Roster:
    """The clients by node, and the nodes that are connected now.

    A client whose node is away stays a member: it is still invited, but it is not asked. It may come back on the same
    node, or on another one that claims its name while the old node is away. Where there is a registry, a node may
    hold only the client that was provisioned on it.

    Args:
        num_classes: the number C of classes; clients say which of them they have seen.
        registry: node id -> the client that was provisioned there; None lets every node in, as in simulation.
        members: every client that was ever met, by id, also before the server was stopped; a client keeps its id and
            modality. Only the roster writes to it, in the order of ids, and whoever makes checkpoints reads it.

    Attributes:
        nodes: node id -> ids of the clients that live there.
        present: ids of the nodes that are connected.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        registry: Mapping[int, RegisteredNode] | None = None,
        members: dict[str, Member] | None = None,
    ) -> None:
        self.num_classes = num_classes
        self.registry = registry
        self.members: dict[str, Member] = {} if members is None else members
        self.nodes: dict[int, set[str]] = {}
        self.present: frozenset[int] = frozenset()
        self._said: dict[str, str] = {}
        # The node of each client, which is asked for once for each of thousands.
        self._homes: dict[str, int] = {}

    @property
    def here(self) -> frozenset[str]:
        """The clients whose node is connected."""
        return frozenset(client for node in self.present for client in self.nodes.get(node, ()))

    def may_come(self, node_ids: Iterable[int]) -> frozenset[int]:
        """The given nodes that are registered; all of them where there is no registry."""
        return frozenset(node_ids) if self.registry is None else frozenset(node_ids) & self.registry.keys()

    def strangers(self) -> list[int]:
        """The connected nodes that may have a client, but of which no client is known yet."""
        return sorted(self.may_come(self.present) - self.nodes.keys())

    def note_present(self, node_ids: Collection[int]) -> list[Event]:
        """Note which nodes are connected, and tell which nodes with clients left or came back and which are refused."""
        before, self.present = self.present, frozenset(node_ids)
        events = []
        for node in sorted(self.present - before - self.may_come(self.present)):
            events += self._refusal(self._title(node), "its key is not in the register of nodes")
        for kind, which, text in (("left", before - self.present, "left"), ("back", self.present - before, "is back")):
            for node in sorted(which & self.nodes.keys()):
                events += [Event(kind, client, f"{self._title(node)} {text}") for client in sorted(self.nodes[node])]
        return events

    def introduce(self, node: int, found: Mapping[str, Reply | WireError] | WireError) -> list[Event]:
        """Add the clients that a node says it has, or tell why not; the same reason is told only once."""
        if node in self.nodes:
            return []  # The node was asked more than once and has answered before.
        if isinstance(found, WireError):
            return self._refusal(self._title(node), str(found))
        events = []
        for client, hello in sorted(found.items()):
            try:
                events.append(self._admit(node, client, hello))
            except WireError as error:
                events += self._refusal(f"client {client}", str(error))
        self._keep_order()
        return events

    def update(self, member: Member) -> None:
        """Add a client, or replace what is known about it."""
        is_new = member.id not in self.members
        self.members[member.id] = member
        if is_new:
            self._keep_order()

    def _keep_order(self) -> None:
        """Put the members into the order of their ids; a node with many clients does this once for all of them."""
        if list(self.members) != (ordered := sorted(self.members)):
            members = [self.members.pop(client) for client in ordered]
            self.members.update({one.id: one for one in members})

    def _admit(self, node: int, client: str, hello: Reply | WireError) -> Event:
        member = introduced_member(client, hello, self.num_classes)
        expected = None if self.registry is None else self.registry[node]
        if expected is not None and (client, member.modality) != (expected.client, expected.modality):
            raise WireError(
                f"says that it is {client} ({member.modality}), but {self._title(node)} has the key of "
                f"{expected.client} ({expected.modality})"
            )
        home = self._homes.get(client)
        before = self.members.get(client)
        if before is not None and before.modality != member.modality:
            raise WireError(f"was a {before.modality} before, and says that it is a {member.modality} now")
        if home is not None and home in self.present:
            raise WireError("a client of this name is on another node already; give each its own client-id")
        if home is not None:
            self.nodes[home].remove(client)
            if not self.nodes[home]:
                del self.nodes[home]
        self.nodes.setdefault(node, set()).add(client)
        self._homes[client] = node
        self.members[client] = member
        if home is not None:
            return Event("moved", client, f"from {self._title(home)} to {self._title(node)}")
        return Event("joined", client, f"on {self._title(node)}")

    def _title(self, node: int) -> str:
        entry = None if self.registry is None else self.registry.get(node)
        return f"node {node}" if entry is None else f"node {entry.name}"

    def _refusal(self, who: str, reason: str) -> list[Event]:
        reason = one_line(reason)
        if self._said.get(who) == reason:
            return []
        self._said[who] = reason
        return [Event("refused", one_line(who), reason)]


def introduced_member(client: str, hello: Reply | WireError, num_classes: int) -> Member:
    """The client that a hello introduces.

    Args:
        client: the id that it goes by.
        hello: the reply with which it introduces itself.
        num_classes: the number C of classes; the client may say for each class whether it has seen it.

    Raises:
        WireError: the client cannot take part, or what it says about itself is impossible.
    """
    if isinstance(hello, WireError):
        raise hello
    if hello.error:
        raise WireError(hello.error)
    if client == TEACHER:
        raise WireError(f"{TEACHER} is the server's own name; give the client another client-id")
    names = ("num_parameters", "num_passes", "num_examples")
    numbers = {name: _count(name, hello.facts.get(name)) for name in names}
    try:
        public_key = bytes.fromhex(str(hello.facts.get("public_key", "")))
    except ValueError:
        raise WireError("introduced itself with a public_key that is not hexadecimal") from None
    return Member(
        id=client,
        modality=_name("modality", hello),
        site=_name("site", hello),
        seen=_seen(hello.facts.get("seen"), num_classes),
        public_key=public_key,
        **numbers,
    )


def _name(fact: str, hello: Reply) -> str:
    name = hello.facts.get(fact, "")
    if not isinstance(name, str) or one_line(name) != name:
        raise WireError(f"{fact} must be a name, got {name!r:.80}")
    return name


def with_counts(member: Member, reply: Reply, num_classes: int) -> Member:
    """A client with the counts of labelled data that its reply gives, if any: it may have recorded new passes.

    Raises:
        WireError: a count is impossible.
    """
    return replace(
        member,
        num_passes=_count("num_passes", reply.facts.get("num_passes", member.num_passes)),
        num_examples=_count("num_examples", reply.facts.get("num_examples", member.num_examples)),
        seen=_seen(reply.facts["seen"], num_classes) if "seen" in reply.facts else member.seen,
    )


def worked_seconds(reply: Reply) -> float:
    """The seconds that a client worked; 0 if it does not say.

    Raises:
        WireError: what it says is not a finite number >= 0.
    """
    seconds = reply.facts.get("seconds", 0.0)
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise WireError(f"seconds must be a number >= 0, got {seconds!r}")
    return float(seconds)


def check_metrics(reply: Reply, num_horizons: int) -> None:
    """Refuse metrics that nobody could show: scores are a number for each horizon, all other metrics are one number.

    Scores are those whose name has a point in it, such as ``common.top5``; a validation score is one number. A score of
    ``passes`` is a number for each pass of the common test set, which whoever reads it counts, and what is told of sets
    of classes are numbers for a grid of thresholds, which whoever reads them checks.

    Raises:
        WireError: a metric has another form.
    """
    for name, value in reply.metrics.items():
        is_score = "." in name and name.rpartition(".")[2] != "validation"
        if is_score and name.startswith(SETS):
            if not (isinstance(value, list) and len(value) <= MAX_SET_NUMBERS and all(map(math.isfinite, value))):
                raise WireError(f"metric {name} must be at most {MAX_SET_NUMBERS} numbers, got {value!r:.80}")
        elif is_score and name.split(".")[-2] == "passes":
            if not (isinstance(value, list) and len(value) <= MAX_PASSES and all(0.0 <= one <= 1.0 for one in value)):
                raise WireError(f"metric {name} must be a share for each pass, got {value!r:.80}")
        elif is_score and not (isinstance(value, list) and len(value) == num_horizons):
            raise WireError(f"metric {name} must be a number for each of {num_horizons} horizons, got {value!r:.80}")
        if not is_score and isinstance(value, list):
            raise WireError(f"metric {name} must be one number, got {value!r:.80}")


def warning_of(reply: Reply) -> str:
    """The warning that a client sends; empty if there is none.

    Raises:
        WireError: the warning is not a text.
    """
    warning = reply.facts.get("warning", "")
    if not isinstance(warning, str):
        raise WireError(f"warning must be a text, got {warning!r}")
    return one_line(warning)


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WireError(f"{name} must be a count, got {value!r}")
    return value


def _seen(value: object, num_classes: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == num_classes and set(value) <= {0, 1}):
        raise WireError(f"seen must be a 0 or 1 for each of {num_classes} classes, got {value!r}")
    return tuple(value)
