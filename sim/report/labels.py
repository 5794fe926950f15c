"""Short names for runs that are shown side by side: what differs between them, and nothing else.

If the experiments have names of their own, these are the labels. Otherwise a label is the strategy, then the settings
that differ and that the strategy does not explain, each under the last words of its key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from configs.strategy import Strategy

# Of more settings than these in one label, only the number is told.
MAX_SETTINGS = 4


def labels_of(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """One label for each group of runs, no two alike.

    Args:
        groups: one summary for each group, with its ``settings`` (dotted key -> value); one that has a ``label`` from
            the user keeps it.
    """
    names = [str(group["experiment"]) for group in groups]
    if groups and all("label" in group for group in groups):
        return [str(group["label"]) for group in groups]
    if len(set(names)) == len(names):
        return names
    bases = [_base(place, groups, names) for place in range(len(groups))]
    labels = []
    for place, base in enumerate(bases):
        alike = [groups[other] for other in range(len(groups)) if bases[other] == base]
        labels.append(" ".join(filter(None, (base, settings_that_differ(groups[place], alike)))))
    return _made_unique(labels)


def settings_that_differ(
    group: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], *, sections: tuple[str, ...] = ()
) -> str:
    """The settings of a group in which others differ from it, such as ``codec=uint4 rounds=8``.

    Args:
        group: the summary of the group.
        groups: the summaries of all groups, this one among them.
        sections: where the keys begin that count; all of them if it is empty.
    """
    telling = _telling_keys([one.get("settings", {}) for one in groups], sections or ("",))
    own = group.get("settings", {})
    recipe = {f"strategy.{key}": value for key, value in flatten(_recipe(own.get("strategy.name"))).items()}
    short = _short_keys(telling)
    shown = [
        f"{short[key]}={short_value(own[key])}"
        for key in telling
        if key in own and own[key] not in ({}, []) and (key not in recipe or recipe[key] != own[key])
    ]
    hidden = len(shown) - MAX_SETTINGS
    return " ".join(shown if hidden <= 0 else [*shown[:MAX_SETTINGS], f"(and {hidden} more)"])


def differing_settings(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted key of each setting in which some groups differ -> its value in each group as a short text.

    Args:
        groups: one summary for each group; the text is empty for one that does not have the setting.
    """
    settings = [one.get("settings", {}) for one in groups]
    return {
        key: [short_value(one[key]) if key in one else "" for one in settings] for key in _telling_keys(settings, ("",))
    }


def _telling_keys(settings: Sequence[Mapping[str, Any]], sections: tuple[str, ...]) -> list[str]:
    """The keys in these sections, other than the name of the experiment, that not all settings agree on."""
    keys = dict.fromkeys(key for one in settings for key in one if key != "name" and key.startswith(sections))
    return [key for key in keys if len(_values_of(key, settings)) > 1]


def _values_of(key: str, settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """The values that a setting has in some groups; a group that has left out its whole section has none of it.

    A group that does not say what a setting was, such as one of an older version, does not make it one that differs.
    """
    words = key.split(".")
    sections = {".".join(words[:count]) for count in range(1, len(words))}
    return {repr(one[key]) if key in one else "" for one in settings if key in one or sections & one.keys()}


def short_value(value: Any) -> str:
    """A setting as a short text: ``none``, ``true``, ``2 camera + 1 gps``; never as Python or YAML write it."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        flat = {key.rpartition(".")[2]: part for key, part in flatten(value).items()}
        head = f"{flat.pop('count', 1)} {flat.pop('modality')}" if "modality" in flat else ""
        rest = " ".join(f"{key}={short_value(part)}" for key, part in flat.items() if part)
        return " ".join(filter(None, (head, f"({rest})" if head and rest else rest))) or "none"
    if isinstance(value, (list, tuple)):
        return " + ".join(short_value(part) for part in value) or "none"
    return " ".join(str(value).split())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _base(place: int, groups: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """What a label begins with: the name where names differ, the strategy where it tells runs of one name apart."""
    methods = [group.get("settings", {}).get("strategy.name") for group in groups]
    namesakes = {methods[other] for other in range(len(groups)) if names[other] == names[place]}
    has_several_names = len(set(names)) > 1
    method = methods[place] if len(namesakes) > 1 or not has_several_names else None
    base = [*([names[place]] if has_several_names else []), *([str(method)] if method else [])]
    return " ".join(base) or names[place]


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key with the fewest last words that no other of the keys ends in."""
    plain = {key: key.removesuffix(".name") for key in keys}
    short = {}
    for key, text in plain.items():
        words = text.split(".")
        tails = [".".join(words[first:]) for first in range(len(words) - 1, -1, -1)]
        others = [other for other in plain if other != key]
        short[key] = next(
            (tail for tail in tails if not any(f".{plain[other]}".endswith(f".{tail}") for other in others)), key
        )
    return short


def _made_unique(labels: Sequence[str]) -> list[str]:
    counts, seen = Counter(labels), Counter[str]()
    unique = []
    for label in labels:
        seen[label] += 1
        unique.append(label if counts[label] == 1 else f"{label} ({seen[label]})")
    return unique


def _recipe(name: Any) -> dict[str, Any]:
    """The values that a strategy sets by itself; none for a summary that does not name it."""
    values: dict[str, Any] = {} if name is None else Strategy(name=str(name)).model_dump(mode="json")
    return values
