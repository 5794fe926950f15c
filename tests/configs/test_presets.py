"""Named streets: what a YAML may leave out, and what it may say instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from configs.loading import build_experiment, load_experiment, to_values
from configs.presets import PRESETS, PresetName
from configs.schema import Experiment, StreetData, World

NAMES: tuple[PresetName, ...] = get_args(PresetName)
SMALLEST: dict[str, Any] = {
    "name": "smallest",
    "data": {
        "source": "street",
        "passes": {"server": 2, "public": 3, "test": 1, "client": 4},
        "nodes": [{"modality": "gps", "count": 2}, {"modality": "camera"}],
    },
}


def write(folder: Path, world: Any) -> Path:
    path = folder / "smallest.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, "data": {**SMALLEST["data"], "world": world}}))
    return path


def world_of(experiment: Experiment) -> World:
    assert isinstance(experiment.data, StreetData)
    return experiment.data.world


def refusal(path: Path, *overrides: str) -> str:
    """The text of the refusal, which must be one line."""
    with pytest.raises(ValueError) as caught:
        load_experiment(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_are_five_presets_each_with_an_entry() -> None:
    assert set(NAMES) == set(PRESETS) == {"street", "s9", "night-shift", "multi-site-mild", "multi-site-hard"}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_sets_what_it_names_and_leaves_the_rest_at_its_default(name: PresetName, tmp_path: Path) -> None:
    world = world_of(load_experiment(write(tmp_path, {"preset": name})))
    assert world == World(preset=name)
    values = world.model_dump()
    for field, info in World.model_fields.items():
        expected = name if field == "preset" else PRESETS[name].get(field, info.default)
        assert values[field] == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_names_no_field_twice_and_none_that_does_not_exist(name: PresetName) -> None:
    assert set(PRESETS[name]) <= set(World.model_fields) - {"preset"}


def test_no_two_presets_are_the_same_street() -> None:
    worlds = [World(preset=name).model_dump(exclude={"preset"}) for name in NAMES]
    assert all(worlds.count(world) == 1 for world in worlds)


def test_a_world_that_says_nothing_is_the_street(tmp_path: Path) -> None:
    smallest = build_experiment(SMALLEST, origin="test")
    assert world_of(smallest) == World() == World(preset="street")
    assert load_experiment(write(tmp_path, {})) == load_experiment(write(tmp_path, {"preset": "street"})) == smallest


@pytest.mark.parametrize("name", NAMES)
def test_what_a_yaml_says_wins_over_the_preset(name: PresetName, tmp_path: Path) -> None:
    path = write(tmp_path, {"preset": name, "density": 0.25, "gps_bias_m": [1.0, 2]})
    world = world_of(load_experiment(path))
    assert (world.density, world.gps_bias_m) == (0.25, (1.0, 2.0))
    kept = {"density", "gps_bias_m"}
    assert world.model_dump(exclude=kept) == World(preset=name).model_dump(exclude=kept)


def test_what_a_yaml_says_wins_even_where_it_says_what_the_default_is(tmp_path: Path) -> None:
    assert World.model_fields["sites"].default == 1 != World(preset="multi-site-mild").sites
    assert world_of(load_experiment(write(tmp_path, {"preset": "multi-site-mild", "sites": 1}))).sites == 1


def test_on_the_command_line_preset_and_field_may_come_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path, {})
    overrides = ["data.world.preset=s9", "data.world.rician_k_db=7"]
    worlds = [world_of(load_experiment(path, order)) for order in (overrides, overrides[::-1])]
    assert worlds[0] == worlds[1] == World(preset="s9", rician_k_db=7)


def test_an_unknown_preset_is_refused_by_its_path_and_the_known_ones_are_named(tmp_path: Path) -> None:
    text = refusal(write(tmp_path, {"preset": "moon"}))
    assert ": data.world.preset: must be " in text
    assert "'moon'" in text
    assert all(name in text for name in NAMES)


@pytest.mark.parametrize("preset", [3, None, ["s9"], {"name": "s9"}, True])
def test_a_preset_that_is_no_name_is_refused_by_its_path(preset: Any, tmp_path: Path) -> None:
    assert ": data.world.preset: " in refusal(write(tmp_path, {"preset": preset}))


@pytest.mark.parametrize("world", ["s9", ["s9"], 3])
def test_a_world_that_is_no_section_is_refused_by_its_path(world: Any, tmp_path: Path) -> None:
    assert ": data.world: " in refusal(write(tmp_path, world))


def test_a_mistake_beside_a_preset_is_still_refused_by_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, {"preset": "s9"})
    assert ": data.world.colour: unknown key" in refusal(path, "data.world.colour=1")
    assert ": data.world.sites: " in refusal(path, "data.world.sites=0")
    assert ": data.world.near_lane_share: " in refusal(path, "data.world.near_lane_share=1.01")
    assert ": data.world.gps_bias_m: " in refusal(path, "data.world.gps_bias_m=[1, 2, 3]")
    assert ": data.world.gps_bias_m.1: " in refusal(path, "data.world.gps_bias_m=[1, -1]")
    assert ": data.world.channel: " in refusal(path, "data.world.channel=ether")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_that_is_written_down_loads_as_the_same(name: PresetName, tmp_path: Path) -> None:
    experiment = load_experiment(write(tmp_path, {"preset": name, "snr_db": 12}))
    values = to_values(experiment)
    assert build_experiment(yaml.safe_load(yaml.safe_dump(values)), origin="again") == experiment
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_experiment(path) == experiment
    assert World.model_validate_json(world_of(experiment).model_dump_json()) == world_of(experiment)


def test_a_world_is_frozen_and_can_be_looked_up() -> None:
    world = World(preset="s9")
    assert {world: "found"}[World(preset="s9")] == "found"
    with pytest.raises(ValueError, match="frozen"):
        world.density = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("data.traffic_skew=0", "data.traffic_skew"),
        ("data.sector_skew=0", "data.sector_skew"),
        ("data.amount_spread=2.1", "data.amount_spread"),
        ("data.public_drive=night", "data.public_drive"),
        ("data.nodes.0.faults.dropout=1", "data.nodes.0.faults.dropout"),
        ("data.nodes.0.faults.colour=1", "data.nodes.0.faults.colour"),
        ("data.skew=2", "data.skew"),
    ],
)
def test_a_value_of_the_partition_out_of_range_is_refused_by_its_path(tmp_path: Path, override: str, path: str) -> None:
    assert f": {path}: " in refusal(write(tmp_path, {}), override)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["data.nodes.1.faults.raw_gps=true"], ": data.nodes.1.faults.raw_gps: camera nodes have no GPS; leave it out"),
        (["data.nodes.0.faults.blind=0.5"], ": data.nodes.0.faults.blind: a GPS node cannot be blind; "),
        (["data.sector_skew=1", "data.by_time_of_day=true"], ": data.sector_skew: passes of one pool have no time of"),
        (["data.server_lacks=[gps, camera]"], ": data.server_lacks: the teacher would have no sensor; "),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_their_dotted_path(
    tmp_path: Path, overrides: list[str], text: str
) -> None:
    assert text in refusal(write(tmp_path, {}), *overrides)
