"""Writes a ready federation from arrays or from a data frame: the form that docs/data.md specifies.

F rows, B beams.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clients.data.modalities import MODALITIES
from clients.data.recording import PUBLIC_LABELS, PUBLIC_POWER, write_recording
from configs.files import fresh_folder, is_plain_name
from configs.paths import expanded
from configs.seeding import rng_for
from configs.spelling import did_you_mean
from configs.world import MAX_BEAMS, MIN_BEAMS
from sim.data.partition import carve_validation
from sim.data.splitting import ClientSplit, Dealt, majority
from sim.data.validation import FederationFault, faults_of_recording, find_faults

SHARES: Mapping[str, float] = {"server": 0.2, "public": 0.25, "test": 0.15}


@dataclass(frozen=True)
class SensorTable:
    """Rows that were recorded, with what every sensor gave, and every beam or a label.

    Attributes:
        sensors: modality name -> (F, *frame_shape).
        power: (F, B) linear receive power; None if there are labels or nothing.
        labels: (F,) the class of each row, from 0; for beams the best one, where only that is known. None if there is
            power or nothing.
        passes: (F,) a number or word for each row, the same for the rows of a pass, which are together and in the order
            of time; None if every row is a sample of its own.
        columns: further columns, name -> (F,), that passes can be dealt by.
    """

    sensors: Mapping[str, ArrayLike]
    power: ArrayLike | None = None
    labels: ArrayLike | None = None
    passes: ArrayLike | None = None
    columns: Mapping[str, ArrayLike] = field(default_factory=dict)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        sensors: Mapping[str, str | Sequence[str]],
        power: Sequence[str] | None = None,
        labels: str | None = None,
        passes: str | None = None,
    ) -> SensorTable:
        """The rows of a pandas frame, or of anything else with named columns.

        Args:
            frame: the frame; ``frame[name]`` is a column.
            sensors: modality name -> its columns, one for each number, or the one column that holds an array a row.
            power: the columns with the power of each beam, in the order of the beams.
            labels: the column with the class, or the best beam.
            passes: the column that names the pass.

        Raises:
            ValueError: there is no such column.
        """
        used = [name for names in sensors.values() for name in ([names] if isinstance(names, str) else names)]
        for name in [*used, *(power or ()), *(one for one in (labels, passes) if one is not None)]:
            if name not in frame:
                raise ValueError(f"frame: no column {name!r}{did_you_mean(name, [str(one) for one in frame])}")
        return cls(
            sensors={
                modality: np.stack([np.asarray(cell) for cell in frame[names]])
                if isinstance(names, str)
                else np.stack([np.asarray(frame[name]) for name in names], axis=1)
                for modality, names in sensors.items()
            },
            power=None if power is None else np.stack([np.asarray(frame[name]) for name in power], axis=1),
            labels=None if labels is None else np.asarray(frame[labels]),
            passes=None if passes is None else np.asarray(frame[passes]),
            columns={str(name): np.asarray(frame[name]) for name in frame if name not in used},
        )


class FederationWriter:
    """Writes a federation, whole or not at all: use it in a ``with`` block, whose end checks everything.

    Every recording is written at once, so the arrays of one need not be in memory with those of another.

    Args:
        folder: the folder to write; it must not exist.
        num_beams: B, from 2 to 1024, for beam tracking.
        num_classes: the number of classes, from 2 to 1024, for a task of your own; give it or ``num_beams``.
        seed: the seed of everything that is drawn: splits, validation.
        validation: the share of the passes of the server and of a client that is kept for model selection.

    Raises:
        ValueError: the number of beams or classes is missing or out of range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from sim.data.splitting import Even
        >>> places, beams = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 16
        >>> with TemporaryDirectory() as folder:
        ...     with FederationWriter(Path(folder) / "mine", num_beams=16) as writer:
        ...         writer.deal(SensorTable({"gps": places}, labels=beams), Even(3))
        ...     sorted(path.name for path in (Path(folder) / "mine" / "clients").iterdir())
        ['000-gps', '001-gps', '002-gps']
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        num_beams: int | None = None,
        num_classes: int | None = None,
        seed: int = 0,
        validation: float = 0.2,
    ) -> None:
        if (num_beams is None) == (num_classes is None):
            raise ValueError("num_beams: give it for beam tracking, or num_classes for a task of your own")
        key, count = ("num_classes", num_classes) if num_beams is None else ("num_beams", num_beams)
        if count is None or not MIN_BEAMS <= count <= MAX_BEAMS:
            raise ValueError(f"{key}: must be {MIN_BEAMS} to {MAX_BEAMS}, got {count}")
        if not 0 <= validation < 1:
            raise ValueError(f"validation: must be in [0, 1), got {validation}")
        self.folder = expanded(folder)
        self.has_beams, self.num_classes = num_beams is not None, count
        self.seed, self.validation = seed, validation
        self._stack = ExitStack()
        self._draft: Path | None = None
        self._clients: list[dict[str, Any]] = []

    def __enter__(self) -> FederationWriter:
        self._stack.__enter__()
        self._draft = self._stack.enter_context(fresh_folder(self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is None:
            try:
                self._finish()
            except BaseException as fault:
                self._stack.__exit__(type(fault), fault, fault.__traceback__)
                raise
        return self._stack.__exit__(kind, error, trace)

    def server(self, table: SensorTable) -> None:
        """Write the labelled rows of the server itself."""
        self._write("server", table, labelled=True, splits=self._learned(table, "server"))

    def public(self, table: SensorTable) -> None:
        """Write the rows that all sensors recorded; labels are optional, and only the server may read them."""
        self._write("public", table, labelled=False, splits={"public": _passes_of(table)})
        if (labels := self._labels_of(table)) is not None:
            path = self._inside(PUBLIC_POWER if self.has_beams else PUBLIC_LABELS)
            path.parent.mkdir(exist_ok=True)
            np.save(path, labels, allow_pickle=False)

    def test(self, table: SensorTable) -> None:
        """Write the labelled rows on which everybody is scored."""
        self._write("test", table, labelled=True, splits={"test": _passes_of(table)})

    def client(self, table: SensorTable, *, name: str | None = None, test: Collection[int] = ()) -> str:
        """Write what one client recorded, and return its id, ``NNN-name``.

        Args:
            table: its rows with one sensor; without power and labels the client only digests.
            name: its name; None takes the modality.
            test: positions of those of its passes, in their order, on which it tests itself.

        Raises:
            ValueError: there is not exactly one sensor, or the name is not that of one folder.
        """
        if len(table.sensors) != 1:
            raise ValueError(f"client: senses one modality, got {', '.join(table.sensors)}; write a client for each")
        (modality,) = table.sensors
        client = f"{len(self._clients):03d}-{name or modality}"
        if not is_plain_name(client):
            raise ValueError(f"client: {client!r} must be the name of one folder")
        learned = self._learned(table, "client", len(self._clients), but=test)
        is_labelled = table.power is not None or table.labels is not None
        self._write(f"clients/{client}", table, labelled=is_labelled, splits={**learned, "test": sorted(test)})
        self._clients.append({"id": client, "modality": modality, "passes": len(_passes_of(table))})
        return client

    def deal(
        self,
        table: SensorTable,
        split: ClientSplit,
        *,
        shares: Mapping[str, float] = SHARES,
        client_test: float = 0.1,
        every_sensor: bool = False,
        public_labels: bool = True,
    ) -> None:
        """Write all parts from one table: server, public set and test are drawn, and clients share the rest.

        Passes are never torn apart. Clients sense the sensors of the table in turn.

        Args:
            table: all rows, with power or labels.
            split: how the rest is dealt to clients: `Even`, `By` or `Dirichlet`.
            shares: the shares of the passes of ``server``, ``public`` and ``test``; each gets a pass at least.
            client_test: the share of a client's passes on which it tests itself, if it has two or more.
            every_sensor: whether each part of the split becomes a client for each sensor, all with the same passes.
            public_labels: whether the server knows the labels of the public set; hardly any strategy needs them.

        Raises:
            ValueError: there are too few passes, no label, or the shares leave nothing to clients.
        """
        labels, order = self._labels_of(table), _passes_of(table)
        if labels is None:
            raise ValueError("deal: the table has neither power nor labels; clients and tests need them")
        if set(shares) != set(SHARES) or min(shares.values()) < 0 or sum(shares.values()) >= 1:
            raise ValueError(f"shares: name {', '.join(SHARES)} with less than 1 together, got {dict(shares)}")
        rng = rng_for(self.seed, "deal")
        drawn = rng.permutation(len(order)).tolist()
        for part, write in (("server", self.server), ("public", self.public), ("test", self.test)):
            count = max(1, round(shares[part] * len(order)))
            hand, drawn = drawn[:count], drawn[count:]
            rows = _rows_of(table, hand)
            write(rows if part != "public" or public_labels else replace(rows, power=None, labels=None))
        left = sorted(drawn)
        best = (labels.argmax(axis=1) if self.has_beams else labels).astype(np.int64)
        ids = _pass_ids(table)
        firsts = np.array([int(np.flatnonzero(ids == one)[0]) for one in left], np.int64)
        columns = {name: np.asarray(values)[firsts] for name, values in table.columns.items()}
        sensors = list(table.sensors)
        dealt = split.deal(Dealt(majority(best, ids, left), columns), rng)
        for number, (name, hand) in enumerate(dealt):
            mine = [left[one] for one in sorted(hand)]
            num_test = min(round(client_test * len(mine)), len(mine) - 1)
            tests = sorted(rng.permutation(len(mine))[:num_test].tolist())
            for modality in sensors if every_sensor else [sensors[number % len(sensors)]]:
                self.client(_rows_of(table, mine, modality), name=f"{name}-{modality}" if name else None, test=tests)

    def _learned(self, table: SensorTable, *owner: str | int, but: Collection[int] = ()) -> dict[str, list[int]]:
        passes = [one for one in _passes_of(table) if one not in but]
        share = self.validation if len(passes) > 1 else 0.0
        train, held = carve_validation(passes, share, rng_for(self.seed, "writer", "validation", *owner))
        return {"train": train, "validation": held}

    def _inside(self, name: str) -> Path:
        if self._draft is None:
            raise ValueError("FederationWriter: write inside a `with FederationWriter(...) as writer:` block")
        return self._draft / name

    def _write(self, name: str, table: SensorTable, *, labelled: bool, splits: Mapping[str, Sequence[int]]) -> None:
        labels = self._labels_of(table)
        if labelled and labels is None:
            raise ValueError(f"{name}: the table has neither power nor labels, which it needs")
        write_recording(
            self._inside(name),
            pass_ids=_pass_ids(table),
            sensors={modality: frames_of(modality, frames) for modality, frames in table.sensors.items()},
            power=labels if labelled and self.has_beams else None,  # type: ignore[arg-type]
            splits=splits,
            every_window=True,
            labels=None if self.has_beams or not labelled else labels,  # type: ignore[arg-type]
            num_classes=None if self.has_beams or not labelled else self.num_classes,
        )
        self._refuse(faults_of_recording(self._inside(""), name))

    def _labels_of(self, table: SensorTable) -> NDArray[np.generic] | None:
        """(F, B) float32 power, or (F,) int32 classes where there are no beams; None for a table without labels."""
        if table.power is not None and not self.has_beams:
            raise ValueError("table: power is of beams; give labels, or num_beams in place of num_classes")
        if table.power is not None and table.labels is not None:
            raise ValueError("table: give power or labels, not both: the strongest beam is the label")
        if table.power is not None:
            power = np.asarray(table.power, np.float32)
            if power.ndim != 2 or power.shape[1] != self.num_classes:
                raise ValueError(f"power: expected (F, {self.num_classes}), got {power.shape}")
            return power
        if table.labels is None:
            return None
        labels = np.asarray(table.labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels: expected whole numbers (F,), got {labels.dtype} {labels.shape}")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            row = int(np.flatnonzero((labels < 0) | (labels >= self.num_classes))[0])
            raise ValueError(f"labels: row {row} is {labels[row]}, expected 0 to {self.num_classes - 1}")
        if not self.has_beams:
            return labels.astype(np.int32)
        one_hot: NDArray[np.float32] = (np.arange(self.num_classes) == labels[:, None]).astype(np.float32)
        return one_hot

    def _finish(self) -> None:
        draft = self._inside("")
        count = {"num_beams" if self.has_beams else "num_classes": self.num_classes}
        manifest = {"source": "folder", "seed": self.seed, **count, "clients": self._clients}
        (draft / "federation.json").write_text(json.dumps(manifest, indent=1) + "\n")
        self._refuse(find_faults(draft))

    def _refuse(self, faults: Sequence[FederationFault]) -> None:
        if faults:
            raise ValueError(f"{self.folder}: {faults[0]}" + (f" (and {len(faults) - 1} more)" if faults[1:] else ""))


def frames_of(modality: str, frames: ArrayLike) -> NDArray[np.generic]:
    """(F, *frame_shape) frames in the type that a modality has on disk.

    Raises:
        ValueError: the modality is unknown, or the frames have another shape, or values that its type cannot hold.
    """
    if modality not in MODALITIES:
        raise ValueError(
            f"sensors: unknown modality {modality!r}; use {', '.join(MODALITIES)}{did_you_mean(modality, MODALITIES)}"
        )
    row, array = MODALITIES[modality], np.asarray(frames)
    dtype = np.dtype(row.dtype)
    if array.shape[1:] != row.frame_shape or array.ndim == 0:
        shape = ", ".join(map(str, ("F", *row.frame_shape)))
        raise ValueError(f"sensors: {modality} must be ({shape}) in {row.unit}, got {array.shape}")
    if dtype.kind in "iu":
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if array.dtype.kind not in "iu" or (array.size and not least <= array.min() <= array.max() <= most):
            raise ValueError(f"sensors: {modality} must hold whole numbers from {least} to {most}")
    elif array.dtype.kind not in "iuf":
        raise ValueError(f"sensors: {modality} must hold numbers, got {array.dtype}")
    elif array.size and np.nanmax(np.abs(array), initial=0.0) > np.finfo(dtype).max:
        raise ValueError(f"sensors: {modality} holds values beyond {np.finfo(dtype).max:g}, the largest of {dtype}")
    found: NDArray[np.generic] = array.astype(dtype)
    return found


def _pass_ids(table: SensorTable) -> NDArray[np.int32]:
    """(F,) the passes as numbers from 0 in the order in which they begin."""
    num_rows = len(np.asarray(next(iter(table.sensors.values())))) if table.sensors else 0
    if table.passes is None:
        return np.arange(num_rows, dtype=np.int32)
    _, first, number = np.unique(np.asarray(table.passes), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[number.reshape(-1)]


def _passes_of(table: SensorTable) -> list[int]:
    return list(range(int(_pass_ids(table).max(initial=-1)) + 1))


def _rows_of(table: SensorTable, passes: Sequence[int], modality: str | None = None) -> SensorTable:
    """The rows of some passes, which keep their order; of one sensor, or of all."""
    rows = np.flatnonzero(np.isin(_pass_ids(table), np.asarray(passes, np.int64)))
    return SensorTable(
        sensors={name: np.asarray(table.sensors[name])[rows] for name in ([modality] if modality else table.sensors)},
        power=None if table.power is None else np.asarray(table.power)[rows],
        labels=None if table.labels is None else np.asarray(table.labels)[rows],
        passes=None if table.passes is None else np.asarray(table.passes)[rows],
    )
