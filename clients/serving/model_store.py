"""A folder with the versions of one model, of which one is current: what a node serves from.

    store.json         which version is current, which were current before it, and which never come back
    versions/0001/     an exported model, as ``softbeam export`` writes it
    canary/0001.json   what the version was compared with before it was taken or refused

``store.json`` is replaced whole, after the version that it names is on the disk, so a reader finds the old version or
the new one. Whoever copies a store to another machine copies ``versions`` first and ``store.json`` last.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clients.serving.manifest import Manifest, read_manifest
from configs.files import fresh_folder, listed, locked, make_folder, sync_all, write_durably

FORMAT = 1
FILE, VERSIONS, CANARY = "store.json", "versions", "canary"
# The versions that are kept beside the current one: of those that were current before, and of those that never were.
KEPT = 3


@dataclass(frozen=True)
class StoreState:
    """What ``store.json`` says.

    Attributes:
        current: the version that is served; None before the first.
        before: the versions that were current before, oldest first; the last of them is what a rollback goes to.
        banned: digest of a version -> why it never becomes current again, unless somebody chooses it by name.
    """

    current: str | None = None
    before: tuple[str, ...] = ()
    banned: Mapping[str, str] = field(default_factory=dict)


class ModelStore:
    """A store of versions of one model.

    Args:
        folder: its folder; it is made by the first version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def file(self) -> Path:
        """The file that says which version is current."""
        return self.folder / FILE

    def state(self) -> StoreState:
        """What the store says now; that of a store without any version if it is not there.

        Raises:
            ValueError: the file of the store cannot be read.
        """
        try:
            values = json.loads(self.file.read_text())
            if values["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            current = values["current"]
            return StoreState(None if current is None else str(current), tuple(values["before"]), values["banned"])
        except FileNotFoundError:
            return StoreState()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.file}: not the file of a store of models ({error}); copy it again") from None

    def current(self) -> Path:
        """The folder of the current version.

        Raises:
            ValueError: there is none.
        """
        found = self.state().current
        if found is None:
            raise ValueError(f"{self.folder}: no version is current; softbeam store add brings one")
        return self.version(found)

    def version(self, name: str) -> Path:
        """The folder of a version.

        Raises:
            ValueError: there is no such version.
        """
        if name not in self.versions():
            raise ValueError(
                f"{self.folder}: there is no version {name}; there are {', '.join(self.versions()) or 'none'}"
            )
        return self.folder / VERSIONS / name

    def versions(self) -> list[str]:
        """The names of the versions that are there, oldest first."""
        folder = self.folder / VERSIONS
        return sorted(path.name for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def canary(self, name: str) -> dict[str, Any] | None:
        """What a version was compared with before it was taken or refused; None if nothing is known."""
        try:
            found: dict[str, Any] = json.loads((self.folder / CANARY / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the store for this process; every call below that writes needs it.

        Raises:
            ValueError: another process writes to it.
        """
        make_folder(self.folder)
        with locked(self.folder / ".lock", f"{self.folder}: another process writes to this store; try again"):
            yield

    def put(self, model: Path) -> str:
        """Copy an exported model into the store as a new version, which is not current yet; its name.

        Raises:
            ValueError: the folder holds no exported model.
        """
        read_manifest(model)
        taken = [*self.versions(), *(path.stem for path in self.folder.glob(f"{CANARY}/*.json"))]
        name = f"{1 + max(map(int, taken), default=0):04d}"
        make_folder(self.folder / VERSIONS)
        with fresh_folder(self.folder / VERSIONS / name) as draft:
            shutil.copytree(model, draft, dirs_exist_ok=True)
        sync_all(listed(self.folder / VERSIONS / name, "*"))
        return name

    def note_canary(self, name: str, evidence: Mapping[str, Any]) -> None:
        """Keep what a version was compared with."""
        write_durably(self.folder / CANARY / f"{name}.json", (json.dumps(evidence, indent=1) + "\n").encode())

    def switch_to(self, name: str) -> None:
        """Make a version current; a version that was banned is so no longer.

        Raises:
            ValueError: there is no such version, or its sensors, window, horizons or beams are not those of the
                current one, so that a stream could not go over to it.
        """
        state, digest = self.state(), digest_of(self.version(name))
        if state.current == name:
            return
        if state.current is not None:
            require_same_form(self.version(state.current), self.version(name))
        before = () if state.current is None else (*(one for one in state.before if one != name), state.current)
        banned = {one: why for one, why in state.banned.items() if one != digest}
        self._write(StoreState(name, before[-KEPT:], banned))

    def ban(self, name: str, why: str) -> None:
        """Keep a version that is not current from becoming so, by its content, also under another name."""
        state = self.state()
        self._write(replace(state, banned={**state.banned, digest_of(self.version(name)): why}))

    def roll_back(self, why: str = "rolled back") -> tuple[str, str]:
        """Make the version before the current one current again, and ban the current one.

        Returns:
            The version that was current, and the one that is now.

        Raises:
            ValueError: there is no version before it.
        """
        state = self.state()
        there = [name for name in state.before if name in self.versions()]
        if state.current is None or not there:
            raise ValueError(
                f"{self.folder}: no version was current before this one, so there is nothing to go back to"
            )
        banned = {**state.banned, digest_of(self.version(state.current)): f"version {state.current}: {why}"}
        self._write(StoreState(there[-1], tuple(there[:-1]), banned))
        return state.current, there[-1]

    def _write(self, state: StoreState) -> None:
        """The only place that writes ``store.json``; versions that nobody goes back to are removed afterwards."""
        content = json.dumps({"format": FORMAT, **asdict(state)}, indent=1) + "\n"
        write_durably(self.file, content.encode())
        needed = {state.current, *state.before}
        for name in [one for one in self.versions() if one not in needed][:-KEPT]:
            shutil.rmtree(self.folder / VERSIONS / name, ignore_errors=True)


def is_store(folder: Path) -> bool:
    """Whether a folder is a store of models."""
    return (folder / FILE).is_file()


def digest_of(model: Path) -> str:
    """A digest of the graphs or weights of an exported model: two versions with one digest give the same answers."""
    manifest, digest = read_manifest(model), hashlib.sha256()
    for kind, name in sorted(manifest.files.items()):
        digest.update(f"{kind}\0".encode() + hashlib.sha256((model / name).read_bytes()).digest())
    return digest.hexdigest()[:16]


def require_same_form(one: Path, other: Path) -> None:
    """Refuse two models of which one cannot take the place of the other on a stream.

    Raises:
        ValueError: their sensors, window, horizons or beams differ.
    """
    forms = [_form(read_manifest(folder)) for folder in (one, other)]
    for what, value in forms[0].items():
        if forms[1][what] != value:
            raise ValueError(f"{other}: its {what}: {forms[1][what]}, and {value} in {one}; use another store")


def _form(manifest: Manifest) -> dict[str, Any]:
    return {
        "sensors": {one.modality: one.frame_shape for one in manifest.inputs},
        "frames of a window": manifest.num_frames,
        "horizons": manifest.horizons,
        "number of beams": manifest.num_beams,
    }
