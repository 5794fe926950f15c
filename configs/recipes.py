"""Strategies by name: the values that each published method sets in the protocol, and the traits of the method.

A recipe is a table of values; the user's own keys win over it, as they win over the preset of a world. A method has a
class of its own only where it does something that no value says. The `Traits` of a method are declared here once: the
schema, the plug-ins and the clients ask the traits and never the name. A user's class declares its own traits
(``traits = Traits(...)`` in its body) and is checked in the same way.

Where a paper averages logits, we average probabilities (`strategies.labels`), and temperatures and codecs are the
experiment's unless the method is about them. Differences beyond these stand in the recipe's description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Traits:
    """What the rest of the product must know about a method.

    Attributes:
        exchange: the kind of knowledge that travels, a key of `clients.exchanges.table.EXCHANGES`.
        sends_labels: soft labels go up, so rules, attacks and the privacy of soft labels have a meaning.
        asks_samples: clients are asked about public samples, so filters and published targets have a meaning.
        summable: the sum of the clients' soft labels is all that the server needs of them.
        relates: the teacher's relations of public samples can come down together with the rest.
        needs_targets: soft labels must come down, so that relations cannot stand in for them.
        tells_classes: an answer shows which classes its client has seen.
        pools: whole recordings are pooled, so no windows are drawn from them.
    """

    exchange: str = "public"
    sends_labels: bool = True
    asks_samples: bool = True
    summable: bool = True
    relates: bool = True
    needs_targets: bool = False
    tells_classes: bool = False
    pools: bool = False


@dataclass(frozen=True)
class Recipe:
    """One method, as a row of the table.

    Attributes:
        description: what the method does, in one line.
        source: the paper that it comes from.
        values: the keys of the ``strategy`` section that it sets, and their values.
        strategy: the class that carries it out, as ``"module:Class"``.
        traits: the traits of the method.
    """

    description: str
    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "strategies.methods.distillation:DistillationStrategy"
    traits: Traits = Traits()


# The nodes teach each other: the server's teacher learns from them, but takes no part in the targets.
_PEERS = {"teacher_starts": False, "teacher_votes": False, "publish": "ensemble"}


def _without_labels(exchange: str, *, pools: bool = False) -> Traits:
    return Traits(exchange, sends_labels=False, asks_samples=False, summable=False, relates=False, pools=pools)


RECIPES: dict[str, Recipe] = {
    "distillation": Recipe(
        "The teacher speaks first, votes with the nodes and learns from the ensemble, which is published.",
        "Softbeam; every key of the section can be changed",
    ),
    "fedmd": Recipe(
        "Plain mean of the nodes' soft labels; nodes digest it, then revisit their own labels.",
        "FedMD, arXiv 1910.03581",
        {**_PEERS, "aggregator": {"name": "mean"}},
    ),
    "dsfl": Recipe(
        "Mean of the soft labels, sharpened by a softmax at temperature 0.03 (in the paper 0.1, for ten classes).",
        "DS-FL, arXiv 2008.06180",
        {**_PEERS, "aggregator": {"name": "mean"}, "temperature": 1.0, "sharpen": "softmax", "sharpness": 0.03},
    ),
    "scarlet": Recipe(
        "DS-FL with a soft-label cache: samples whose target is fresh are not asked again; sharpened by a power.",
        "SCARLET, arXiv 2504.19602",
        {
            **_PEERS,
            "aggregator": {"name": "mean"},
            "sharpen": "power",
            "sharpness": 1.5,
            "ask_cached": False,
            "target_lifetime": 3,
        },
    ),
    "cfd": Recipe(
        "Best beams only go up, 4-bit soft labels of the distilled teacher come down, both as differences.",
        "CFD, arXiv 2012.00632",
        {
            **_PEERS,
            "aggregator": {"name": "mean"},
            "codec": "argmax+delta",
            "downlink_codec": "uint4+delta",
            "publish": "teacher",
        },
    ),
    "selective": Recipe(
        "Nodes answer only the public samples that look like their own data.",
        "Selective-FD, arXiv 2304.01731, with a k-means filter like that of EdgeFD",
        {**_PEERS, "aggregator": {"name": "mean"}, "answer_filter": "density"},
    ),
    "fedgems": Recipe(
        "Nodes answer what the teacher gets wrong: there the entropy-weighted ensemble counts, else its own answer.",
        "FedGEMS, arXiv 2110.11027; needs a labelled public set on the server",
        {"teacher_votes": False, "aggregator": {"name": "entropy_mean"}, "publish": "corrected"},
        "strategies.methods.fedgems:FedGemsStrategy",
    ),
    "personal": Recipe(
        "Every node gets a mixture of its own, in which the others count the more, the nearer their answers are.",
        "KT-pFL, arXiv 2111.02862, with weights as in pFedGraph, ICML 2023; clusters as in COMET, arXiv 2109.08119",
        {"teacher_votes": True},
        "strategies.methods.personal:PersonalStrategy",
        Traits(summable=False, needs_targets=True),
    ),
    "fd": Recipe(
        "Without a public set: each node sends its mean soft label for every beam that it has seen.",
        "FD, arXiv 1811.11479",
        {**_PEERS, "aggregator": {"name": "example_weighted"}},
        "strategies.methods.classes:ClassLabelStrategy",
        Traits("classes", asks_samples=False, summable=False, relates=False, tells_classes=True),
    ),
    "fedproto": Recipe(
        "Without a public set: nodes exchange the mean feature of every beam.",
        "FedProto, arXiv 2105.00243",
        _PEERS,
        "strategies.methods.classes:PrototypeStrategy",
        _without_labels("prototypes"),
    ),
    "fedavg": Recipe(
        "Baseline: the weights of the students, averaged within each modality, instead of soft labels.",
        "FedAvg, arXiv 1602.05629",
        _PEERS,
        "strategies.methods.baselines:FedAvgStrategy",
        _without_labels("weights"),
    ),
    "local": Recipe(
        "Baseline: every node alone, with the same optimizer steps.",
        "no exchange",
        _PEERS,
        "strategies.methods.baselines:LocalStrategy",
        _without_labels("nothing"),
    ),
    "centralised": Recipe(
        "Baseline: one student per modality on the pooled labelled data of its nodes; simulation only.",
        "no federation",
        _PEERS,
        "strategies.methods.baselines:CentralisedStrategy",
        _without_labels("pooled", pools=True),
    ),
}
