"""Where the data of an experiment comes from, and who records what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from configs.models import Model
from configs.section import MAX_BATCH, MAX_PASSES, MAX_ROUNDS, MAX_STEPS, Section
from configs.spelling import did_you_mean
from configs.world import MAX_BEAMS, MIN_BEAMS, World

# What the sensors of the street record, and what releases of measurements hold besides. A table says what each one is
# (`clients.data.modalities`), and a test compares the names.
StreetModality = Literal["camera", "radar", "doppler", "motion", "maps", "lidar", "gps", "past_power"]
ModalityName = Literal[StreetModality, "box"]


def _is_no_file(name: str) -> str:
    if name in ("power", "pass_ids", "recording"):
        raise ValueError(f"{name} is a file of every recording; choose another name")
    return name


# The name of a sensor of a user's own; it is the stem of a file beside those named here.
SensorName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40), AfterValidator(_is_no_file)]


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


class Budget(Section):
    """What a client can compute; what is None is that of ``training``.

    Attributes:
        first_round_steps: optimizer steps in the client's first round.
        steps_per_round: optimizer steps in each of its later rounds.
        batch_size: the number of windows in a batch.
    """

    first_round_steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    steps_per_round: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    batch_size: int | None = Field(default=None, ge=1, le=MAX_BATCH)

    @property
    def given(self) -> dict[str, int]:
        """The keys that differ from ``training``, with their values."""
        return {name: value for name, value in self if value is not None}


class Nodes(Section):
    """How many clients of one modality there are.

    Attributes:
        modality: what these clients sense: one of `ModalityName`, or a key of `Federation.sensors`.
        count: the number of clients; of several measured sites, at each site that the entry is for.
        site: the site at which they are; None means each of `data.sites` that is not held out, and on a street its
            sites in turn.
        faults: the faults of their own recordings, not of the public set (street only).
        student: the student of these clients; None takes that of their modality. Virtual clients only.
        training: how many steps they take, and of how many windows; their controls take as many. Virtual clients only.
        first_round: the first round that they are invited to; before it they are not there.
        last_round: the last round that they are invited to; None is that of the run. What they knew then is scored.
        public_share: share of the passes of the public set that they hold, each its own draw: they answer for their
            samples, learn from the targets of these, and scale their inputs by them. Virtual clients only.
    """

    modality: str
    count: int = Field(default=1, ge=1, le=100_000)
    site: str | None = None
    faults: Faults = Faults()
    student: Model | None = None
    training: Budget = Budget()
    first_round: int = Field(default=1, ge=1, le=MAX_ROUNDS)
    last_round: int | None = Field(default=None, ge=1, le=MAX_ROUNDS)
    public_share: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _rounds_fit(self) -> Nodes:
        if self.last_round is not None and self.last_round < self.first_round:
            raise ValueError(f"last_round: must be at least first_round ({self.first_round}), got {self.last_round}")
        return self

    def rounds(self, last: int) -> range:
        """The rounds that these clients are invited to in a run of ``last`` rounds."""
        return range(self.first_round, min(last, self.last_round or last) + 1)

    @model_validator(mode="after")
    def _faults_fit(self) -> Nodes:
        if self.faults.raw_gps and self.modality != "gps":
            raise ValueError(f"faults.raw_gps: {self.modality} nodes have no GPS; leave it out")
        if self.faults.blind and self.modality == "gps":
            raise ValueError("faults.blind: a GPS node cannot be blind; use faults.dropout or faults.raw_gps")
        return self


def _boresight(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (is_number and -180 <= float(str(value)) < 360):
        return value
    raise ValueError(f"must be auto, or degrees clockwise from north, at least -180 and less than 360; got {value!r}")


class MeasuredSite(Section):
    """A base station with its array, and the scenario that was measured there.

    Attributes:
        name: its name.
        folder: the folder of the scenario, as that of `DeepSenseData`.
        boresight: where the array looks, in degrees clockwise from north; ``auto`` finds the direction in which the
            bearings of vehicles match the angles of their best beams in labelled training passes of the site. Positions
            are then metres to the right of the boresight and along it, which mean the same at every site.
        held_out: whether nobody learns from the site: it has no node and gives tests alone.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=40)
    folder: str = Field(min_length=1)
    boresight: Annotated[float | Literal["auto"], BeforeValidator(_boresight)] = "auto"
    held_out: bool = False


def check_site(path: str, name: str, known: Sequence[str]) -> None:
    """Refuse the name of a site that is not known.

    Raises:
        ValueError: it is none of them.
    """
    if name not in known:
        raise ValueError(f"{path}: no such site {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")


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

    server: int = Field(ge=1, le=MAX_PASSES)
    public: int = Field(ge=1, le=MAX_PASSES)
    test: int = Field(ge=1, le=MAX_PASSES)
    client: int = Field(ge=1, le=MAX_PASSES)
    client_test: int = Field(default=0, ge=0, le=MAX_PASSES)
    validation_share: float | None = Field(default=None, ge=0, lt=1)


class DealtPasses(Section):
    """Passes of a scenario in each part of a federation; a part without a number gets its share of what is there.

    Passes without a window are never dealt. Numbers count passes; shares count windows. Where a federation has several
    sites, both are those of each site.

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

    server: int | None = Field(default=None, ge=1, le=MAX_PASSES)
    public: int | None = Field(default=None, ge=1, le=MAX_PASSES)
    test: int | None = Field(default=None, ge=1, le=MAX_PASSES)
    client: int | None = Field(default=None, ge=1, le=MAX_PASSES)
    client_test: int | None = Field(default=None, ge=0, le=MAX_PASSES)
    validation_share: float | None = Field(default=None, ge=0, lt=1)


class Federation(Section):
    """The keys that every source of data has.

    Attributes:
        nodes: the clients.
        sensors: sensors of a user's own: name -> ``"module:ROW"`` (`clients.models.own_sensors` says what a row is).
        server_lacks: modalities that the server's own mast does not have: the teacher does not fuse them and knows of
            them only what the soft labels say.
        server_from: the sites of which the server has labelled passes; none named means all that are not held out, and
            on a street site 0.
        public_from: the same for the public set.
        test_from: the same for the common test set, beside the sites that are held out.
    """

    nodes: tuple[Nodes, ...] = Field(min_length=1)
    sensors: dict[SensorName, str] = Field(default_factory=dict)
    server_lacks: tuple[str, ...] = ()
    server_from: tuple[str, ...] = ()
    public_from: tuple[str, ...] = ()
    test_from: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _modalities_are_known(self) -> Federation:
        shipped = (*get_args(StreetModality), "box")
        if taken := [name for name in self.sensors if name in shipped]:
            raise ValueError(f"sensors.{taken[0]}: {taken[0]} is a sensor of Softbeam; choose another name")
        known = (*shipped, *self.sensors)
        named = [(f"nodes.{number}.modality", nodes.modality) for number, nodes in enumerate(self.nodes)]
        named += [(f"server_lacks.{number}", name) for number, name in enumerate(self.server_lacks)]
        for path, name in named:
            if name not in known:
                allowed = ", ".join(map(repr, known))
                raise ValueError(f"{path}: must be one of {allowed}, got {name!r}{did_you_mean(name, known)}")
        return self

    @model_validator(mode="after")
    def _nodes_fit(self) -> Federation:
        if not self.server_modalities:
            raise ValueError("server_lacks: the teacher would have no sensor; name fewer modalities")
        return self

    @property
    def server_modalities(self) -> tuple[str, ...]:
        """The modalities that the server's mast senses, in the order of the YAML."""
        return tuple(name for name in self.modalities if name not in self.server_lacks)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the clients, each once, in the order of the YAML."""
        return tuple(dict.fromkeys(nodes.modality for nodes in self.nodes))

    @property
    def groups(self) -> tuple[Nodes, ...]:
        """The clients in the order in which they are numbered: the entries of ``nodes``."""
        return self.nodes

    def named_sites(self) -> list[tuple[str, str]]:
        """The path and the value of every key that names a site."""
        found = [(f"nodes.{number}.site", nodes.site) for number, nodes in enumerate(self.nodes)]
        for key in ("server_from", "public_from", "test_from"):
            found += [(f"{key}.{number}", name) for number, name in enumerate(getattr(self, key))]
        return [(path, name) for path, name in found if name is not None]


class StreetData(Federation):
    """A federation made by the embedded world.

    Attributes:
        source: ``street`` says that the data is this.
        passes: how many passes each part holds.
        world: the street.
        public_drive: ``same`` records the public set like everything else; ``day`` is the usual commissioning drive, by
            day, in dry weather and half the traffic, whatever the clients see later.
        server_drive: the same choice for the server's own labelled passes: ``day`` lets the server lack night, rain and
            rush hour, which clients and tests may have.
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
    server_drive: Literal["same", "day"] = "same"
    traffic_skew: float = Field(default=2.0, gt=0)
    sector_skew: float | None = Field(default=None, gt=0)
    by_time_of_day: bool = False
    amount_spread: float = Field(default=0.25, ge=0, le=2)

    @model_validator(mode="after")
    def _one_kind_of_pool(self) -> StreetData:
        if self.sector_skew is not None and self.by_time_of_day:
            raise ValueError("sector_skew: passes of one pool have no time of day; leave it or by_time_of_day out")
        return self

    @model_validator(mode="after")
    def _named_sites_are_there(self) -> StreetData:
        for path, name in self.named_sites():
            check_site(path, name, self.site_names)
        return self

    @property
    def has_sites(self) -> bool:
        """Whether clients and samples have a site."""
        return self.world.sites > 1

    @property
    def site_names(self) -> tuple[str, ...]:
        """The names of the sites, such as ``site-0``, in the order of their numbers."""
        return tuple(f"site-{number}" for number in range(self.world.sites))

    @property
    def num_beams(self) -> int:
        """The number of beams of its arrays."""
        return self.world.num_beams

    @property
    def beams_are_from(self) -> str:
        """What says the number of beams, for an error."""
        return f"data.world.num_beams says {self.num_beams}"


class FolderData(Federation):
    """A ready federation in a folder, as docs/data.md specifies it; it is read where it lies, and never written to.

    What the folder says itself need not be said again: ``nodes``, ``server_lacks`` and the task's number of beams or
    classes are filled in when a YAML is read (`configs.data_facts`).

    Attributes:
        source: ``folder`` says that the data is this.
        folder: the folder; relative to the YAML that names it, after ``--set`` and from Python to the current folder.
        num_beams: the number of beams that its power has; None if its rows have classes.
        num_classes: the number of classes of its labels; None if its rows have power.
        validation_share: the share of passes that arrive during a run which a client keeps for model selection; None
            keeps a fifth.
    """

    source: Literal["folder"]
    folder: str = Field(min_length=1)
    num_beams: int | None = Field(default=None, ge=MIN_BEAMS, le=MAX_BEAMS)
    num_classes: int | None = Field(default=None, ge=MIN_BEAMS, le=MAX_BEAMS)
    validation_share: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _says_nothing_else(self) -> FolderData:
        if (self.num_beams is None) == (self.num_classes is None):
            raise ValueError("num_beams: give this or num_classes; leave both out to take what the folder says")
        for path, name in self.named_sites():
            raise ValueError(
                f"{path}: the folder says which site a pass is from, so {name!r} has no effect; leave it out"
            )
        for number, nodes in enumerate(self.nodes):
            if nodes.faults != Faults():
                raise ValueError(f"nodes.{number}.faults: the data of a folder stays as it is; leave them out")
        return self

    @property
    def has_sites(self) -> bool:
        """Whether clients and samples have a site; the folder says it, and nobody has read it yet."""
        return True

    @property
    def beams_are_from(self) -> str:
        """What says the number of beams, for an error."""
        return f"the power in {self.folder} has {self.num_beams} beams"


class DeepSenseData(Federation):
    """A federation cut from DeepSense 6G scenarios, by pass: from one in ``folder``, or from one for each of ``sites``.

    Each site is dealt by itself, as if it were the only one, and all its parts are put together. What a site does not
    give is left out, so the passes of all other parts stay the same.

    Attributes:
        source: ``deepsense`` says that the data is this.
        passes: how many passes each part holds; without a number a part gets its share of what is there.
        folder: the scenario's folder, in the official layout or as compact arrays; relative to the checkout. It is
            empty where there are ``sites``.
        sites: the base stations of the federation, each with its own scenario.
        share_passes: whether clients of different modalities hold the same passes (one mast, several sensors).
        sector_skew: concentration of the Dirichlet draw that deals passes to clients by beam sector; None deals evenly.
    """

    source: Literal["deepsense"]
    passes: DealtPasses = DealtPasses()
    folder: str = ""
    sites: tuple[MeasuredSite, ...] = ()
    share_passes: bool = True
    sector_skew: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _modalities_once(self) -> DeepSenseData:
        places = [(nodes.modality, nodes.site) for nodes in self.nodes]
        if len(set(places)) != len(places):
            names = (name if site is None else f"{name} at {site}" for name, site in places)
            raise ValueError(f"nodes: name each modality once, or once for each site, got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _sites_fit(self) -> DeepSenseData:
        if not self.folder and not self.sites:
            raise ValueError("folder: required, but missing; name the folder of a scenario, or several sites")
        if self.folder and self.sites:
            raise ValueError("folder: each of data.sites names its own; leave folder or sites out")
        for key in ("name", "folder"):
            values = [getattr(site, key) for site in self.sites]
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(
                    f"sites: each site needs its own {key}, but {twice} is there {values.count(twice)} times"
                )
        if self.sites and all(site.held_out for site in self.sites):
            raise ValueError("sites: all of them are held out; leave one for nodes, server and public set")
        return self

    @model_validator(mode="after")
    def _named_sites_are_there(self) -> DeepSenseData:
        held_out = {site.name for site in self.sites if site.held_out}
        for path, name in self.named_sites():
            if not self.sites:
                raise ValueError(f"{path}: there are no data.sites, so {name!r} is none of them; leave it out")
            check_site(path, name, [site.name for site in self.sites])
            if name in held_out and not path.startswith("test_from"):
                raise ValueError(f"{path}: {name} is held out, so it gives tests alone; name another site")
        return self

    @property
    def has_sites(self) -> bool:
        """Whether clients and samples have a site."""
        return bool(self.sites)

    @property
    def groups(self) -> tuple[Nodes, ...]:
        """The clients in the order in which they are numbered: site by site, in the order of ``nodes`` at each."""
        if not self.sites:
            return self.nodes
        return tuple(nodes for site in self.sites if not site.held_out for nodes in self.nodes_at(site.name))

    def nodes_at(self, site: str) -> tuple[Nodes, ...]:
        """The entries of ``nodes`` for one site, each with the name of the site."""
        return tuple(nodes.model_copy(update={"site": site}) for nodes in self.nodes if nodes.site in (None, site))

    @property
    def num_beams(self) -> int:
        """The number of beams of a sweep in a release."""
        return 64

    @property
    def beams_are_from(self) -> str:
        """What says the number of beams, for an error."""
        return "DeepSense 6G has 64"
