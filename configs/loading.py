"""From YAML and ``--set`` to a frozen `Experiment`, with errors that name the dotted path."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from configs.data_facts import with_facts
from configs.schema import Experiment
from configs.section import Section
from configs.spelling import asked, did_you_mean
from configs.strategy import keys_left_out
from configs.yaml_files import (
    CONFIG_FOLDER,
    EXTENDS,
    MAX_DEPTH,
    BoundedLoader,
    ConfigValues,
    OversizedYamlError,
    find_config,
    read_config,
)

Checked = TypeVar("Checked", bound=Section)
# The source that server and clients must have in common.
SHARED_SOURCES = ("configs/**/*.py", "strategies/**/*.py", "clients/**/*.py")
# A change in one of these files may change the data, so older data is made again.
DATA_SOURCES = (
    "sim/world/*.py",
    "sim/data/conversion.py",
    "configs/files.py",
    "sim/data/generate.py",
    "sim/data/dealing.py",
    "sim/data/partition.py",
    "sim/data/plan.py",
    "sim/data/sites.py",
    "clients/data/bearing.py",
    "clients/data/blocks.py",
    "clients/data/deepsense*.py",
    "clients/data/geodesy.py",
    "clients/data/matlab.py",
    "clients/data/modalities.py",
    "clients/data/motion.py",
    "clients/data/past_power.py",
    "clients/data/radar_maps.py",
    "clients/data/recording.py",
    "clients/data/row_faults.py",
    "clients/data/row_order.py",
    "clients/data/scans.py",
    "clients/data/sensor_files.py",
    "clients/data/table_text.py",
    "clients/data/time_stamps.py",
)


def load_experiment(source: str | Path, overrides: Sequence[str] = (), *, strategy: str = "") -> Experiment:
    """Read an experiment.

    Args:
        source: a YAML file, or the name of one in ``configs/``.
        overrides: ``dotted.path=value`` entries, values as in YAML.
        strategy: the name of a strategy in place of the file's own. What the file says and this one has no use for, or
            says itself (:func:`left_out`), is left out then. Empty keeps the file's.

    Raises:
        ValueError: the file is missing or not YAML, or a key, a type or a range is wrong; one line per mistake.

    Example:
        >>> experiment = load_experiment("quickstart", ["seed=3", "strategy.rounds=2"])
        >>> experiment.seed, experiment.strategy.rounds
        (3, 2)
    """
    config = read_config(find_config(source))
    if "parts" in config.values:
        raise ValueError(f"{config.files[0]}: this is a study, not an experiment; use softbeam study")
    for key in left_out(config, strategy):
        del config.values["strategy"][key]
    return checked_config(Experiment, config, [*overrides, *([f"strategy.name={strategy}"] if strategy else [])])


def left_out(config: ConfigValues, strategy: str) -> dict[str, str]:
    """What a YAML file says of its strategy and another one is not told (`configs.strategy.keys_left_out`).

    Args:
        config: the values of the file.
        strategy: the name of a strategy.

    Returns:
        Key of the ``strategy`` section -> the reason.

    Example:
        >>> left_out(read_config(find_config("deepsense")), "fedavg")
        {'keeps': 'the method has no use for it'}
    """
    section = config.values.get("strategy")
    return keys_left_out(section, strategy) if isinstance(section, Mapping) else {}


def build_experiment(values: Any, *, origin: str) -> Experiment:
    """Check plain values and freeze them.

    Args:
        values: nested dictionaries and lists, as YAML gives them.
        origin: where the values came from, for the error.

    Raises:
        ValueError: a key is unknown, or a type or a range is wrong; one line per mistake.
    """
    return checked(Experiment, values, origin=origin)


def checked_config(kind: type[Checked], config: ConfigValues, overrides: Sequence[str]) -> Checked:
    """Put overrides on top of the values of a YAML file, and check them as a section of that kind.

    Raises:
        ValueError: as for :func:`build_experiment`; each mistake says in which line it stands.
    """
    places = dict(config.places)
    for override in overrides:
        set_value(config.values, override)
        path = override.partition("=")[0].strip()
        places = {place: where for place, where in places.items() if place != path and not place.startswith(f"{path}.")}
        places[path] = "--set"
    return checked(kind, config.values, origin=str(config.files[0]), places=places)


def checked(kind: type[Checked], values: Any, *, origin: str, places: Mapping[str, str] | None = None) -> Checked:
    """Check plain values and turn them into a section of that kind.

    Args:
        kind: the section.
        values: the values.
        origin: where they come from.
        places: dotted path -> where in the origin a key stands.

    Raises:
        ValueError: as for :func:`build_experiment`.
    """
    if kind is Experiment:
        values = with_facts(values, origin)
    try:
        text = json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        path, told = next(_not_plain(values), ("", str(error)))
        where = f" ({places[path]})" if places and path in places else ""
        raise ValueError(f"{origin}: {path and f'{path}: '}{told}{where}") from None
    try:
        # JSON mode: lists are accepted for tuples, while "3" is still no integer.
        return kind.model_validate_json(text)
    except ValidationError as error:
        items = error.errors()
        # A list from which wrong entries were taken is too short because of them.
        wrong = [item["loc"][:depth] for item in items for depth in range(1, len(item["loc"]))]
        items = [item for item in items if not (item["type"] == "too_short" and item["loc"] in wrong)]
        lines = [_line(item, kind, places or {}) for item in items]
        raise ValueError(f"{origin}: " + "; ".join(dict.fromkeys(lines))) from None


def _not_plain(values: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The dotted path of each value that is no number, text, list or mapping of these, and what to do about it."""
    above = f"{path}." if path else ""
    if depth > MAX_DEPTH:
        yield path.split(".")[0], f"lies more than {MAX_DEPTH} levels deep, or contains itself"
    elif isinstance(values, dict):
        for key, value in values.items():
            if not isinstance(key, str | int | float | bool | None):
                yield path or "experiment", f"the key {key} is {_kind(key)}; put it in quotes"
            else:
                yield from _not_plain(value, f"{above}{key}", depth + 1)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _not_plain(value, f"{above}{index}", depth + 1)
    elif isinstance(values, date):
        yield path, f"YAML reads {values} as a date; put it in quotes if it is a text"
    elif not isinstance(values, str | int | float | bool | None):
        yield path, f"must be a number, a text, a list or a mapping, got {_kind(values)}"


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def to_values(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values that :func:`build_experiment` takes back."""
    values: dict[str, Any] = experiment.model_dump(mode="json")
    return values


# Keys of an experiment that change how it is carried out and followed, and nothing of what comes out.
NOT_STUDIED = ("engine", "track")


def experiment_digest(experiment: Experiment) -> str:
    """The digest on which server and clients must agree; it covers everything but what changes no result."""
    return _digest({name: value for name, value in to_values(experiment).items() if name not in NOT_STUDIED})


def data_digest(experiment: Experiment) -> str:
    """The digest of what a federation's data depends on: the data section, the seed, and the code that makes it.

    Names of folders do not count, because the same measurements may lie anywhere; what they hold counts elsewhere. A
    scenario is dealt by windows, so it depends on their length as well.
    """
    values, task = to_values(experiment), experiment.task
    depends_on = {"data": _what_is_recorded(values["data"]), "seed": values["seed"]}
    if experiment.data.source == "deepsense":
        depends_on["frames"] = task.num_frames + task.num_future
    return digest_with_sources(depends_on, DATA_SOURCES)


# Keys of a data section that change nothing of what is recorded: where it lies, and what learns from it, and when.
_NOT_RECORDED = ("folder", "student", "training", "first_round", "last_round", "public_share")


def _what_is_recorded(values: Any) -> Any:
    """The values without the names of folders and without what learns from the data."""
    if isinstance(values, dict):
        return {name: _what_is_recorded(one) for name, one in values.items() if name not in _NOT_RECORDED}
    return [_what_is_recorded(value) for value in values] if isinstance(values, list) else values


@lru_cache(maxsize=1)
def source_digest() -> str:
    """The digest of the Python files that server and clients must share, as they were at the first call."""
    return _source_digest(SHARED_SOURCES)


def commit_of_source() -> str | None:
    """The commit that the checkout is at, as git's own files say it; None where it is no checkout of git."""
    git = CONFIG_FOLDER.parent / ".git"
    try:
        if git.is_file():  # a worktree: the file names the folder
            git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        shared = git / (git / "commondir").read_text().strip() if (git / "commondir").is_file() else git
        reference = head.removeprefix("ref: ")
        if (shared / reference).is_file():
            return (shared / reference).read_text().strip()
        lines = (shared / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in lines if line.endswith(f" {reference}")), None)
    except OSError:
        return None


def digest_with_sources(values: dict[str, Any], patterns: Sequence[str]) -> str:
    """The digest of plain values and of the Python files that match patterns below the checkout."""
    return _digest({**values, "code": _source_digest(patterns)})


def _source_digest(patterns: Sequence[str]) -> str:
    root = CONFIG_FOLDER.parent
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def set_value(values: dict[str, Any], override: str) -> None:
    """Put a ``dotted.path=value`` entry, the value as in YAML, into nested dictionaries and lists.

    Raises:
        ValueError: the text is not such an entry, or its path leads through a value.
    """
    path, sign, text = override.partition("=")
    if not sign or not all(path.strip().split(".")):
        raise ValueError(f"--set {override}: expected dotted.path=value, such as seed=3")
    try:
        value = yaml.load(text, BoundedLoader)
    except OversizedYamlError as error:
        raise ValueError(f"--set {path.strip()}: {error}") from None
    except (yaml.YAMLError, ValueError):
        raise ValueError(f"--set {override}: the value is not valid YAML") from None
    put_value(values, path.strip(), value, origin=f"--set {override}")


def put_value(values: dict[str, Any], path: str, value: Any, *, origin: str) -> None:
    """Put a value at a dotted path into nested dictionaries and lists.

    Raises:
        ValueError: the path leads through a value; the message begins with ``origin``.
    """
    keys, here = path.split("."), values
    for depth, key in enumerate(keys):
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise ValueError(f"{origin}: {'.'.join(keys[:depth])} is a list of {len(here)}; no entry {key}")
            index: Any = int(key)
        elif isinstance(here, dict):
            index = key
        else:
            raise ValueError(f"{origin}: {'.'.join(keys[:depth])} is a value, not a section")
        if depth == len(keys) - 1:
            here[index] = value
        else:
            here = here.setdefault(index, {}) if isinstance(here, dict) else here[index]


def _line(item: Any, kind: type[Section], places: Mapping[str, str]) -> str:
    """One mistake: the dotted path, what is wrong and where it stands.

    A section that names one of its keys makes the path longer.
    """
    path, text = _dotted(item), _explain(item, kind)
    where = f" ({places[path]})" if path in places else ""
    if item["type"] == "value_error" and re.match(r"[a-z0-9_.]+: ", text):
        return text if path == "experiment" else f"{path}.{text}"
    return f"{path}: {text}{where}"


def _dotted(item: Any) -> str:
    # The discriminator of `data` appears as a path element of its own; users never wrote it.
    location: tuple[str | int, ...] = item["loc"]
    if item["type"].startswith("union_tag"):
        location = (*location, "", "source")
    parts = [str(part) for index, part in enumerate(location) if not (index == 1 and location[0] == "data")]
    return ".".join(parts) or "experiment"


def _sections(annotation: Any) -> set[type[Section]]:
    """The sections that a type consists of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {annotation}
    return set[type[Section]]().union(*(_sections(part) for part in get_args(annotation)))


def _sections_at(kind: type[Section], location: Sequence[str | int]) -> set[type[Section]]:
    """The sections that a mistake of pydantic may be in; positions and keys of mappings lead to no other section."""
    here = {kind}
    for part in location:
        fields = [section.model_fields[str(part)] for section in here if str(part) in section.model_fields]
        tagged = {one for one in here if "source" in one.model_fields and part in get_args(_source_of(one))}
        if fields:
            here = set[type[Section]]().union(*(_sections(field.annotation) for field in fields))
        elif tagged:
            here = tagged
    return here


def _source_of(section: type[Section]) -> Any:
    return section.model_fields["source"].annotation


def _paths_to(key: str, kind: type[Section], above: str = "") -> Iterator[str]:
    """The dotted paths at which a section and those in it have a key."""
    for name, field in kind.model_fields.items():
        if name == key:
            yield f"{above}{name}"
        # A path through a list or a mapping has no name that we could write here.
        if not any(word in str(field.annotation) for word in ("tuple", "dict")):
            for section in sorted(_sections(field.annotation), key=lambda one: one.__name__):
                yield from _paths_to(key, section, f"{above}{name}.")


def _explain_unknown(item: Any, kind: type[Section]) -> str:
    *above, key = item["loc"]
    if [key] == [EXTENDS] and not above:
        return f"stands in a YAML file only, as {EXTENDS}: NAME"
    found = sorted(_sections_at(kind, above), key=lambda one: one.__name__)
    file = "/".join(["configs", *found[0].__module__.split(".")[1:]]) + ".py"
    meant = did_you_mean(key, {name for section in found for name in section.model_fields})
    paths = dict.fromkeys(_paths_to(str(key), kind))
    if item["loc"][0] == "data" and (path := _dotted(item)) in paths:
        # The section has this key where it comes from another source.
        data = _sections(kind.model_fields["data"].annotation) if "data" in kind.model_fields else set[type[Section]]()
        sources = sorted(get_args(_source_of(one))[0] for one in data if path in _paths_to(str(key), one, "data."))
        return f"unknown key where data.source is {item['loc'][1]}; it is a key of data.source {' and '.join(sources)}"
    return f"unknown key; see {file} for the known ones{meant or asked(paths)}"


def _nearest_value(item: Any) -> str:
    """A question for the allowed text that is nearest to the one that was given."""
    context = item.get("ctx", {})
    given = context.get("tag", item.get("input"))
    allowed = re.findall(r"'([^']*)'", str(context.get("expected_tags", context.get("expected", ""))))
    return did_you_mean(given, allowed) if isinstance(given, str) else ""


def _explain(item: Any, kind: type[Section]) -> str:
    value = item.get("input")
    shown = f", got {value!r}" if isinstance(value, (str, int, float, bool, type(None))) else ""
    match item["type"]:
        case "extra_forbidden":
            return _explain_unknown(item, kind)
        case "missing":
            return "required, but missing"
        case "union_tag_invalid":
            return f"must be one of {item['ctx']['expected_tags']}, got {item['ctx']['tag']!r}{_nearest_value(item)}"
        case "union_tag_not_found":
            return "required, but missing; street, deepsense or folder"
        case "value_error":
            return str(item["ctx"]["error"])
        case "float_type" | "int_type" if isinstance(value, str) and _is_number(value):
            if not math.isfinite(float(value)):
                return f"must be a finite number, got the text {value!r}"
            whole = item["type"] == "int_type"
            written = f"write {_in_yaml(value, whole=whole)}" if "e" in value.lower() else "leave out the quotes"
            return f"must be a number, got the text {value!r}; {written}"
        case "string_pattern_mismatch":
            return f"must be {_in_words(str(item['ctx']['pattern']))}{shown}"
        case _:
            return (
                str(item["msg"]).replace("Input should be", "must be").replace("Input", "it")
                + shown
                + _nearest_value(item)
            )


def _in_words(pattern: str) -> str:
    """What a pattern of names allows: one class of signs for the first, and one for all others."""
    first, others = re.findall(r"\[([^]]*)\]", pattern)
    letters = "letters" if "A-Z" in others else "small letters"
    signs = [letters, "digits", *re.sub(r"\w-\w", "", others)]
    begin = "a letter or a digit" if "0-9" in first else "a letter"
    return f"{', '.join(signs[:-1])} and {signs[-1]}, and begin with {begin}"


def _in_yaml(text: str, *, whole: bool) -> str:
    """How YAML 1.1 wants a number that has an exponent: with a point before it and a sign in it.

    Example:
        >>> _in_yaml("1.0e30", whole=False), _in_yaml("1e3", whole=True)
        ('1.0e+30: YAML wants a point and the sign of the exponent', '1000')
    """
    if whole and float(text).is_integer() and float(text) < 1e15:
        return str(int(float(text)))
    digits, _, exponent = text.strip().lower().partition("e")
    sign = "" if exponent.startswith(("+", "-")) else "+"
    written = f"{digits if '.' in digits else f'{digits}.0'}e{sign}{exponent}"
    return f"{written}: YAML wants a point and the sign of the exponent"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
