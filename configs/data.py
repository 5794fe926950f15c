"""Where the data of an experiment comes from, and who records what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.section import Section
from configs.world import World

# What the sensors of the street record, and what releases of measurements hold besides. A table says what each one is
# (`clients.data.modalities`), and a test compares the names.
StreetModality = Literal["camera", "radar", "doppler", "motion", "maps", "lidar", "gps"]
ModalityName = Literal[StreetModality, "box"]


# With fewer labelled passes than these, a pass teaches more than it tells when it is held out.
MANY_PASSES = 8
# The share that is held out of so many passes where no share is given.
HELD_OUT_SHARE = 0.2


def held_out_share(share: float | None, num_passes: int) -> float:
    """The share of the labelled passes of an owner that is held out: ``share``, or what the number of passes says.

    Args:
        share: ``validation_share`` of an experiment.
        num_passes: the number of labelled passes of the owner.
    """
    if share is not None:
        return share
    return HELD_OUT_SHARE if num_passes >= MANY_PASSES else 0.0


class Faults(Section):
    """What is wrong with the sensors of some clients.

    Attributes:
        dropout: share of frames lost, in bursts: camera black, radar and LiDAR empty, GPS repeats its last fix.
        blind: share of passes in which the sensor gives nothing at all (not for GPS).
        raw_gps: whether GPS is uncalibrated, with an error of metres in every pass.
    """

    dropout: float = Field(default=0.0, ge=0, lt=1)
    blind: float = Field(default=0.0, ge=0, lt=1)
    raw_gps: bool = False


class Nodes(Section):
    """How many clients of one modality there are.

    Attributes:
        modality: what these clients sense.
        count: the number of clients.
        faults: the faults of their own recordings, not of the public set (street only).
    """

    modality: ModalityName
    count: int = Field(default=1, ge=1, le=100_000)
    faults: Faults = Faults()

    @model_validator(mode="after")
    def _faults_fit(self) -> Nodes:
        if self.faults.raw_gps and self.modality != "gps":
            raise ValueError(f"faults.raw_gps: {self.modality} nodes have no GPS; leave it out")
        if self.faults.blind and self.modality == "gps":
            raise ValueError("faults.blind: a GPS node cannot be blind; use faults.dropout or faults.raw_gps")
        return self


class Passes(Section):
    """Vehicle passes in each part of a federation on a street; one pass is one vehicle driving by.

    Attributes:
        server: labelled passes of the server itself.
        public: unlabelled passes that all modalities recorded.
        test: the common test set.
        client: passes of one client on average, its validation passes included.
        client_test: further passes on which each client tests itself.
        validation_share: share of the labelled passes of a client or of the server kept for model selection; None keeps
            a fifth of those who have `MANY_PASSES` or more, and none of others, who learn from all that they have.
    """

    server: int = Field(ge=1)
    public: int = Field(ge=1)
    test: int = Field(ge=1)
    client: int = Field(ge=1)
    client_test: int = Field(default=0, ge=0)
    validation_share: float | None = Field(default=None, ge=0, lt=1)


class DealtPasses(Section):
    """Passes of a scenario in each part of a federation; a part without a number gets its share of what is there.

    Passes without a window are never dealt. Numbers count passes; shares count windows.

    Attributes:
        server: labelled passes of the server itself; None gives it a share.
        public: unlabelled passes that all modalities recorded; None gives a share.
        test: the common test set; None gives a share.
        client: passes of all clients of one modality together, validation passes included; None gives each client its
            share.
        client_test: further passes on which each client tests itself; None gives none if ``client`` has a number, and
            otherwise a share.
        validation_share: share of the labelled passes of a client or of the server kept for model selection; None keeps
            a fifth of those who have `MANY_PASSES` or more, and none of others, who learn from all that they have.
    """

    server: int | None = Field(default=None, ge=1)
    public: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)
    client: int | None = Field(default=None, ge=1)
    client_test: int | None = Field(default=None, ge=0)
    validation_share: float | None = Field(default=None, ge=0, lt=1)


class Federation(Section):
    """The keys that every source of data has.

    Attributes:
        nodes: the clients.
        server_lacks: modalities that the server's own mast does not have: the teacher does not fuse them and knows of
            them only what the soft labels say.
    """

    nodes: tuple[Nodes, ...] = Field(min_length=1)
    server_lacks: tuple[ModalityName, ...] = ()

    @model_validator(mode="after")
    def _nodes_fit(self) -> Federation:
        names = [nodes.modality for nodes in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"nodes: name each modality once, got {', '.join(names)}")
        if not self.server_modalities:
            raise ValueError("server_lacks: the teacher would have no sensor; name fewer modalities")
        return self

    @property
    def server_modalities(self) -> tuple[ModalityName, ...]:
        """The modalities that the server's mast senses, in the order of the YAML."""
        return tuple(nodes.modality for nodes in self.nodes if nodes.modality not in self.server_lacks)


class StreetData(Federation):
    """A federation made by the embedded world.

    Attributes:
        passes: how many passes each part holds.
        world: the street.
        public_drive: ``same`` records the public set like everything else; ``day`` is the usual commissioning drive, by
            day, in dry weather and half the traffic, whatever the clients see later.
        traffic_skew: concentration of the Dirichlet (here Beta) draw of each client's lane mix; small is unlike.
        sector_skew: concentration of the Dirichlet draw that deals passes to clients by beam sector (the one in which a
            vehicle stays longest); None gives every client passes of its own.
        by_time_of_day: whether clients record in blocks, in turn by day, by night, in rain and in the rush hour.
        amount_spread: s.d. of the log-normal factor on each client's number of passes; 0 gives equal amounts.
    """

    source: Literal["street"]
    passes: Passes
    world: World = World()
    public_drive: Literal["same", "day"] = "same"
    traffic_skew: float = Field(default=2.0, gt=0)
    sector_skew: float | None = Field(default=None, gt=0)
    by_time_of_day: bool = False
    amount_spread: float = Field(default=0.25, ge=0, le=2)

    @model_validator(mode="after")
    def _one_kind_of_pool(self) -> StreetData:
        if self.sector_skew is not None and self.by_time_of_day:
            raise ValueError("sector_skew: passes of one pool have no time of day; leave it or by_time_of_day out")
        return self


class DeepSenseData(Federation):
    """A federation cut from one DeepSense 6G scenario, by pass.

    Attributes:
        passes: how many passes each part holds; without a number a part gets its share of what is there.
        folder: the scenario's folder, in the official layout or as compact arrays; relative to the checkout.
        share_passes: whether clients of different modalities hold the same passes (one mast, several sensors).
        sector_skew: concentration of the Dirichlet draw that deals passes to clients by beam sector; None deals evenly.
    """

    source: Literal["deepsense"]
    passes: DealtPasses = DealtPasses()
    folder: str
    share_passes: bool = True
    sector_skew: float | None = Field(default=None, gt=0)
