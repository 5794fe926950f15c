"""From YAML and overrides to an experiment: what is refused, how the refusal reads, what the digest covers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from configs.loading import (
    build_experiment,
    commit_of_source,
    data_digest,
    experiment_digest,
    left_out,
    load_experiment,
    to_values,
)
from configs.recipes import RECIPES
from configs.schema import Experiment
from configs.strategy import USES
from configs.yaml_files import find_config, read_config

SMALLEST: dict[str, Any] = {
    "name": "smallest",
    "strategy": {"aggregator": {"name": "entropy_product"}},
    "data": {
        "source": "street",
        "passes": {"server": 2, "public": 3, "test": 1, "client": 4},
        "nodes": [{"modality": "gps", "count": 2}, {"modality": "camera"}],
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "smallest.yaml"
    path.write_text(yaml.safe_dump(SMALLEST))
    return path


def refusal(config: Path, *overrides: str) -> str:
    """The text of the refusal, which must be one line."""
    with pytest.raises(ValueError) as caught:
        load_experiment(config, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("colour=red", "colour"),
        ("strategy.colour=red", "strategy.colour"),
        ("data.passes.colour=1", "data.passes.colour"),
        ("data.world.colour=1", "data.world.colour"),
        ("data.nodes.0.colour=1", "data.nodes.0.colour"),
        ("strategy.aggregator.colour=1", "strategy.aggregator.colour"),
        ("students.gps.colour=1", "students.gps.colour"),
    ],
)
def test_an_unknown_key_is_refused_by_its_path(config: Path, override: str, path: str) -> None:
    assert f": {path}: unknown key" in refusal(config, override)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ('seed="3"', "seed"),
        ("seed=2.5", "seed"),
        ("seed=true", "seed"),
        ("seed=", "seed"),
        ("strategy.rounds=many", "strategy.rounds"),
        ('data.passes.server="3"', "data.passes.server"),
        ("data.nodes=gps", "data.nodes"),
        ("data.nodes.1.count=[1]", "data.nodes.1.count"),
        ("data.world.gps_bias_m=[1, 2, 3]", "data.world.gps_bias_m"),
        ("strategy.teacher_votes=1", "strategy.teacher_votes"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_path(config: Path, override: str, path: str) -> None:
    assert f": {path}: " in refusal(config, override)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("seed=-1", "seed"),
        ("strategy.rounds=0", "strategy.rounds"),
        ("strategy.temperature=0", "strategy.temperature"),
        ("strategy.temperature=.nan", "strategy.temperature"),
        ("strategy.temperature=.inf", "strategy.temperature"),
        ("training.digest_share=1.01", "training.digest_share"),
        ("strategy.participation=0", "strategy.participation"),
        ("strategy.ask_cached=false", "strategy.target_lifetime"),
        ("strategy.publish=all", "strategy.publish"),
        ("data.passes.server=0", "data.passes.server"),
        ("data.nodes.0.count=0", "data.nodes.0.count"),
        ("data.nodes.0.modality=sonar", "data.nodes.0.modality"),
        ("data.nodes=[]", "data.nodes"),
        ("data.passes.validation_share=1", "data.passes.validation_share"),
        ("data.world.gps_bias_m=[1, -1]", "data.world.gps_bias_m.1"),
        ("name=Not A Name", "name"),
        (f"name={'x' * 101}", "name"),
        ("data.passes.client=1000000000000", "data.passes.client"),
        ("data.passes.public=1000001", "data.passes.public"),
        ("data.nodes.0.training.steps_per_round=10000001", "data.nodes.0.training.steps_per_round"),
        ("data.nodes.0.first_round=1000001", "data.nodes.0.first_round"),
        ("training.first_round_steps=1000000000000000000000000000", "training.first_round_steps"),
        ("training.batch_size=1000001", "training.batch_size"),
        ("teaching.pretrain_steps=10000001", "teaching.pretrain_steps"),
        ("strategy.public_samples=1000000001", "strategy.public_samples"),
        ("strategy.late_rounds=1000001", "strategy.late_rounds"),
        ("engine.workers=10001", "engine.workers"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_path(config: Path, override: str, path: str) -> None:
    assert f": {path}: " in refusal(config, override)


def test_the_greatest_values_that_are_allowed_are_taken(config: Path) -> None:
    greatest = ["data.passes.client=1000000", "training.first_round_steps=10000000", f"name={'x' * 100}"]
    experiment = load_experiment(config, greatest)
    assert experiment.training.first_round_steps == 10_000_000
    assert len(experiment.name) == 100


@pytest.mark.parametrize(
    "override", ["training.learning_rate=.inf", "data.traffic_skew=.inf", "training.max_grad_norm=.inf"]
)
def test_infinity_is_refused_by_its_path(config: Path, override: str) -> None:
    assert f": {override.partition('=')[0]}: must be a finite number" in refusal(config, override)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.learning_rate=2e-3", "must be a number, got the text '2e-3'; write 2.0e-3: YAML wants a point"),
        ("training.learning_rate=1.0e30", "must be a number, got the text '1.0e30'; write 1.0e+30: YAML wants a point"),
        ("training.learning_rate=1e3", "must be a number, got the text '1e3'; write 1.0e+3: YAML wants a point"),
        ("training.learning_rate='0.1'", "must be a number, got the text '0.1'; leave out the quotes"),
        ("training.learning_rate=NaN", "must be a finite number, got the text 'NaN'"),
        ("training.steps_per_round=1e3", "must be a number, got the text '1e3'; write 1000"),
    ],
)
def test_a_number_in_a_notation_that_yaml_reads_as_text_is_explained(config: Path, override: str, told: str) -> None:
    assert f": {override.partition('=')[0]}: {told}" in refusal(config, override)


def test_what_a_number_with_an_exponent_is_to_be_written_as_is_taken(config: Path) -> None:
    assert load_experiment(config, ["training.learning_rate=1.0e+30"]).training.learning_rate == 1e30


@pytest.mark.parametrize(
    ("override", "sources"),
    [
        ("data.folder=/x", "deepsense and folder"),
        ("data.share_passes=true", "deepsense"),
    ],
)
def test_a_key_of_another_source_is_refused_with_the_sources_that_have_it(
    config: Path, override: str, sources: str
) -> None:
    path = override.partition("=")[0]
    told = f"{path}: unknown key where data.source is street; it is a key of data.source {sources}"
    assert refusal(config, override).split(" (")[0].endswith(told)


@pytest.mark.parametrize("override", ["data.source=moon", "data.source=3", "data.source="])
def test_an_unknown_source_is_refused_by_its_path_and_the_known_ones_are_named(config: Path, override: str) -> None:
    text = refusal(config, override)
    assert ": data.source: " in text
    assert "street" in text
    assert "deepsense" in text


def test_a_missing_source_is_refused_by_its_path(tmp_path: Path) -> None:
    values = copy.deepcopy(SMALLEST)
    del values["data"]["source"]
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(values))
    assert ": data.source: " in refusal(path)


def test_a_missing_section_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\n")
    assert refusal(path) == f"{path}: data: required, but missing"


def test_parts_that_do_not_fit_are_refused_by_their_path(config: Path) -> None:
    measured = "data={source: deepsense, folder: x, nodes: [{modality: gps}, {modality: gps}]}"
    assert "data.nodes: name each modality once, or once for each site, got gps, gps" in refusal(config, measured)
    assert "data.nodes: the street has no sensor 'box'; use camera, radar, doppler" in refusal(
        config, "data.nodes.1.modality=box"
    )
    assert "task.num_beams: " in refusal(config, "task.num_beams=32")
    assert "students.radar: no such modality" in refusal(config, "students.radar.width=4")


def test_every_mistake_is_told_at_once(config: Path) -> None:
    text = refusal(config, "seed=-1", "strategy.rounds=0")
    assert ": seed: " in text
    assert "; strategy.rounds: " in text


def test_an_override_reaches_sections_lists_and_options(config: Path) -> None:
    experiment = load_experiment(
        config,
        [
            "strategy.rounds=3",
            "data.nodes.1.count=5",
            "strategy.aggregator={name: mean}",
            "strategy.options.exponent=2",
            " seed = 7",
            "students.gps.width=4",
        ],
    )
    assert experiment.strategy.rounds == 3
    assert [nodes.count for nodes in experiment.data.nodes] == [2, 5]
    assert experiment.strategy.aggregator.name == "mean"
    assert experiment.strategy.options == {"exponent": 2}
    assert experiment.seed == 7
    assert experiment.student_size("gps").width == 4
    assert experiment.student_size("camera").width == 8


def test_of_two_overrides_of_one_value_the_last_counts(config: Path) -> None:
    assert load_experiment(config, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("seed", "expected dotted.path=value"),
        ("=3", "expected dotted.path=value"),
        ("strategy..rounds=3", "expected dotted.path=value"),
        ("data.nodes.7.count=1", "data.nodes is a list of 2; no entry 7"),
        ("data.nodes.-1.count=1", "data.nodes is a list of 2; no entry -1"),
        ("data.nodes.gps.count=1", "data.nodes is a list of 2; no entry gps"),
        ("name.first=x", "name is a value, not a section"),
        ("seed=[", "the value is not valid YAML"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused_as_it_was_written(config: Path, override: str, hint: str) -> None:
    assert refusal(config, override) == (
        f"--set {override}: {hint}" if "=value" not in hint else f"--set {override}: {hint}, such as seed=3"
    )


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t", "{", "a: @b"])
def test_a_file_that_is_not_yaml_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    assert refusal(path).startswith(f"{path}: not valid YAML")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x81", "name: é".encode("latin-1"), "name: x".encode("utf-16")])
def test_a_file_that_is_not_utf8_is_refused_by_its_name_with_the_encoding_to_take(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    text = refusal(path)
    assert text.startswith(f"{path}: not valid YAML, because it is not UTF-8 (")
    assert text.endswith("; save it as UTF-8")


@pytest.mark.parametrize(
    ("text", "kind"), [("", "an empty file"), ("# x", "an empty file"), ("- a", "list"), ("word", "str")]
)
def test_a_file_without_keys_is_refused_by_its_name(tmp_path: Path, text: str, kind: str) -> None:
    path = tmp_path / "flat.yaml"
    path.write_text(text)
    assert refusal(path) == f"{path}: expected `key: value` lines, got {kind}"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("name=2026-01-01", "name: YAML reads 2026-01-01 as a date; put it in quotes if it is a text (--set)"),
        ("strategy.options.day=2024-01-01", "strategy.options.day: YAML reads 2024-01-01 as a date"),
        ("data.nodes.1={modality: !!binary aGk=}", "data.nodes.1.modality: must be a number, a text, a list or a"),
        ("strategy.options={2024-01-01: 1}", "strategy.options: the key 2024-01-01 is a date; put it in quotes"),
    ],
)
def test_a_value_that_only_yaml_knows_is_refused_by_its_path(config: Path, override: str, told: str) -> None:
    assert refusal(config, override).startswith(f"{config}: {told}")


def test_a_value_that_only_yaml_knows_is_refused_with_its_line(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: quickstart\nname: 2026-01-01\n")
    assert refusal(mine).endswith("name: YAML reads 2026-01-01 as a date; put it in quotes if it is a text (line 2)")


BOMB = "".join(
    f"k{level}: &k{level} [{', '.join([f'*k{level - 1}'] * 9 if level else 'xxxxxxxxx')}]\n" for level in range(8)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "line 6: the aliases (*) stand for more than 100000 values; use fewer"),
        ("name: &a [*a]\n", "line 1: an anchor (&) contains an alias (*) of itself; write it out"),
        ("name: x\nseed: &a {b: {<<: *a}}\n", "line 2: an anchor (&) contains an alias (*) of itself; write it out"),
        ("name: " + "[" * 500 + "]" * 500, "line 1: nested more than 100 levels deep; write it flatter"),
        ("{a: " * 5000 + "1" + "}" * 5000, "line 1: nested more than 100 levels deep; write it flatter"),
        ("name: 2026-13-01\n", "not valid YAML (month must be in 1..12"),
    ],
)
def test_a_yaml_without_an_end_is_refused_before_anything_walks_it(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "endless.yaml"
    path.write_text(text)
    assert refusal(path).startswith(f"{path}: {told}")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("&a [*a]", "line 1: an anchor (&) contains an alias (*) of itself; write it out"),
        ("[" * 5000 + "]" * 5000, "line 1: nested more than 100 levels deep; write it flatter"),
    ],
)
def test_a_value_without_an_end_after_set_is_refused(config: Path, value: str, told: str) -> None:
    assert refusal(config, f"strategy.options.x={value}") == f"--set strategy.options.x: {told}"


def test_aliases_of_a_usual_size_and_merge_keys_are_read(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "extends: quickstart\n"
        "training: &same {steps_per_round: 7, batch_size: 9}\n"
        "teaching: {<<: *same, batch_size: 5}\n"
    )
    experiment = load_experiment(mine)
    assert (experiment.teaching.steps_per_round, experiment.teaching.batch_size) == (7, 5)


def test_a_missing_file_is_refused_and_the_known_names_are_given(tmp_path: Path) -> None:
    assert "quickstart" in refusal(tmp_path / "nowhere.yaml")


def test_a_short_name_stands_for_a_file_in_configs() -> None:
    assert find_config("quickstart").name == "quickstart.yaml"
    assert load_experiment("quickstart") == load_experiment(find_config("quickstart"))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("config_name", ["quickstart", "deepsense", "deepsense-scenario9", "deepsense-sites"])
def test_every_strategy_is_taken_in_place_of_that_of_a_ready_federation(config_name: str, name: str) -> None:
    assert load_experiment(config_name, strategy=name).strategy.name == name


GIVEN: dict[str, Any] = {
    "answer_filter": "confidence",
    "asks": "own_site",
    "own_site_share": 0.5,
    "publish": "teacher",
    "hindsight": True,
    "aggregator": {"name": "median"},
    "sharpen": "softmax",
    "sharpness": 3.0,
    "relations": {"pairs": 2},
    "keeps": "mixture",
    "mixture_windows": 5.0,
}
"""For each key that some strategies have no use for, a value that says something."""


@pytest.mark.parametrize(("key", "value"), GIVEN.items())
def test_what_another_strategy_has_no_use_for_is_left_out_of_the_file_and_refused_after_set(
    key: str, value: Any, tmp_path: Path
) -> None:
    config, override = tmp_path / "mine.yaml", f"strategy.{key}={json.dumps(value)}"
    config.write_text(yaml.safe_dump({"extends": "deepsense-sites", "strategy": {key: value}}))
    without = [name for name, recipe in RECIPES.items() if not getattr(recipe.traits, USES[key].trait)]
    assert without and GIVEN.keys() == USES.keys()
    for name in without:
        assert left_out(read_config(config), name)[key] == "the method has no use for it"
        plain = load_experiment("deepsense-sites", strategy=name)
        assert load_experiment(config, strategy=name).strategy == plain.strategy
        with pytest.raises(ValueError, match=rf"strategy\.{key}: {name} .*; leave it out"):
            load_experiment("deepsense-sites", [override], strategy=name)
    assert to_values(load_experiment(config))["strategy"][key] != to_values(plain)["strategy"][key]


def test_nothing_is_left_out_for_the_strategy_of_the_file_or_for_one_of_a_users_own() -> None:
    config = read_config(find_config("deepsense-sites"))
    assert left_out(config, "") == left_out(config, "distillation") == left_out(config, "mine:Strategy") == {}


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_method_says_itself_is_left_out_of_the_file_of_another_and_stands_after_set(
    name: str, tmp_path: Path
) -> None:
    config, values = tmp_path / "mine.yaml", {"sharpen": "power", "sharpness": 7.0, "temperature": 3.0}
    config.write_text(yaml.safe_dump({"extends": "quickstart", "strategy": values}))
    found, plain = (load_experiment(source, strategy=name).strategy for source in (config, "quickstart"))
    own = RECIPES[name].values.keys() & values.keys()
    for key, value in values.items():
        is_idle = key in USES and not getattr(RECIPES[name].traits, USES[key].trait)
        assert getattr(found, key) == (getattr(plain, key) if key in own or is_idle else value)
    if "temperature" in own:
        assert load_experiment(config, ["strategy.temperature=3.0"], strategy=name).strategy.temperature == 3.0


def test_in_a_file_of_its_own_a_method_is_told_what_the_file_says(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"extends": "quickstart", "strategy": {"name": "dsfl", "sharpness": 0.05}}))
    assert load_experiment(config, strategy="dsfl") == load_experiment(config)
    assert load_experiment(config).strategy.sharpness == 0.05
    assert load_experiment(config, strategy="scarlet").strategy.sharpness == 1.5


@pytest.mark.parametrize("name", ["quickstart", "deepsense-scenario9", "deepsense-scenario5"])
def test_plain_values_build_the_experiment_that_they_came_from(name: str) -> None:
    experiment = load_experiment(name)
    assert build_experiment(to_values(experiment), origin="again") == experiment
    assert build_experiment(yaml.safe_load(yaml.safe_dump(to_values(experiment))), origin="again") == experiment


def test_an_experiment_cannot_be_changed(config: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_experiment(config).strategy.rounds = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "seed=1",
        "task.num_frames=4",
        "data.passes.server=3",
        "data.nodes.0.count=3",
        "data.world.density=0",
        "students.gps.width=4",
        "teacher.width=4",
        "training.steps_per_round=1",
        "teaching.pretrain_steps=1",
        "strategy.codec=uint8",
        "strategy.aggregator.options.exponent=2",
    ],
)
def test_the_digest_changes_with_everything_but_the_engine(config: Path, override: str) -> None:
    experiment = load_experiment(config)
    assert experiment_digest(load_experiment(config, [override])) != experiment_digest(experiment)


@pytest.mark.parametrize("override", ["engine.name=inline", "engine.workers=3"])
def test_the_digest_does_not_change_with_the_engine(config: Path, override: str) -> None:
    experiment = load_experiment(config)
    changed = load_experiment(config, [override])
    assert changed != experiment
    assert experiment_digest(changed) == experiment_digest(experiment)


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    turned = dict(reversed(SMALLEST.items()))
    assert experiment_digest(build_experiment(turned, origin="a")) == experiment_digest(
        build_experiment(SMALLEST, origin="b")
    )


def test_the_data_is_made_again_for_other_data_or_another_seed_only(config: Path) -> None:
    digest = data_digest(load_experiment(config))
    assert data_digest(load_experiment(config, ["strategy.rounds=3", "teacher.width=4", "engine.workers=1"])) == digest
    assert data_digest(load_experiment(config, ["seed=1"])) != digest
    assert data_digest(load_experiment(config, ["data.world.density=0"])) != digest


def test_the_commit_of_the_source_is_read_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.loading.CONFIG_FOLDER", tmp_path / "configs")
    assert commit_of_source() is None
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("a" * 40 + "\n")
    assert commit_of_source() == "a" * 40
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/main\n")
    assert commit_of_source() == "b" * 40
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("c" * 40 + "\n")
    assert commit_of_source() == "c" * 40


SITES = [
    "name=sited",
    "data.source=deepsense",
    "data.sites=[{name: a, folder: one}, {name: b, folder: two, boresight: -90}, {name: c, folder: three}]",
    "data.nodes=[{modality: gps, count: 2}, {modality: box, site: b}]",
]


def sited(tmp_path: Path, *overrides: str) -> Experiment:
    path = tmp_path / "sited.yaml"
    path.write_text("name: sited\ndata: {}\n")
    return load_experiment(path, [*SITES, *overrides])


def test_nodes_without_a_site_are_at_every_site_and_are_numbered_site_by_site(tmp_path: Path) -> None:
    def groups(*overrides: str) -> list[tuple[str, str | None, int]]:
        return [(one.modality, one.site, one.count) for one in sited(tmp_path, *overrides).data.groups]

    assert groups() == [("gps", "a", 2), ("gps", "b", 2), ("box", "b", 1), ("gps", "c", 2)]
    assert groups("data.sites.2.held_out=true") == [("gps", "a", 2), ("gps", "b", 2), ("box", "b", 1)]
    found = sited(tmp_path)
    assert found.modalities == ("gps", "box") and found.data.server_modalities == ("gps", "box")
    assert build_experiment(to_values(found), origin="again") == found


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.nodes.1.site=bb", "data.nodes.1.site: no such site 'bb'; there are a, b, c"),
        ("data.nodes.1.modality=gps", None),
        ("data.nodes.0.site=b", None),
        ("data.nodes=[{modality: gps}, {modality: gps}]", "data.nodes: name each modality once, or once for each site"),
        ("data.sites.1.held_out=true", "data.nodes.1.site: b is held out, so it gives tests alone"),
        ("data.server_from=[d]", "data.server_from.0: no such site 'd'; there are a, b, c"),
        ("data.public_from=[a, z]", "data.public_from.1: no such site 'z'"),
        ("data.test_from=[y]", "data.test_from.0: no such site 'y'"),
        ("data.sites.1.name=a", "data.sites: each site needs its own name, but a is there 2 times"),
        ("data.sites.1.folder=three", "data.sites: each site needs its own folder, but three is there 2 times"),
        ("data.sites.1.name=a b", "data.sites.1.name: "),
        ("data.sites.1.folder=", "data.sites.1.folder: "),
        ("data.sites.0.boresight=360", "data.sites.0.boresight: must be auto, or degrees clockwise from north"),
        ("data.sites.0.boresight=-180.5", "data.sites.0.boresight: must be auto, or degrees clockwise from north"),
        ("data.sites.0.boresight=east", "data.sites.0.boresight: must be auto, or degrees clockwise from north"),
        ("data.sites.0.boresight=true", "data.sites.0.boresight: must be auto, or degrees clockwise from north"),
        ("data.sites.0.boresight=.nan", "data.sites.0.boresight: must be auto, or degrees clockwise from north"),
        ("data.sites.0.heading=3", "data.sites.0.heading: unknown key"),
        ("data.folder=here", "data.folder: each of data.sites names its own; leave folder or sites out"),
        ("data.sites=[]", "data.folder: required, but missing; name the folder of a scenario, or several sites"),
    ],
)
def test_sites_that_do_not_fit_are_refused_by_their_path(tmp_path: Path, override: str, said: str | None) -> None:
    if said is None:
        sited(tmp_path, override)
        return
    with pytest.raises(ValueError) as caught:
        sited(tmp_path, override)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["data.nodes=[{modality: gps}]", *(f"data.sites.{n}.held_out=true" for n in range(3))],
            "all of them are held",
        ),
        (["data.server_from=[c]", "data.sites.2.held_out=true"], "data.server_from.0: c is held out"),
        (["data.sites=[]", "data.folder=one"], "data.nodes.1.site: there are no data.sites, so 'b' is none of them"),
    ],
)
def test_several_settings_of_sites_that_do_not_fit_are_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sited(tmp_path, *overrides)


def test_nodes_and_parts_of_a_street_name_its_sites(config: Path) -> None:
    assert "data.nodes.1.site: no such site 'a'; there are site-0" in refusal(config, "data.nodes.1.site=a")
    assert "data.test_from.1: no such site 'site-2'; there are site-0, site-1; did you mean" in refusal(
        config, "data.world.sites=2", "data.test_from=[site-1, site-2]"
    )
    found = load_experiment(config, ["data.world.sites=2", "data.nodes.1.site=site-1", "data.server_from=[site-1]"])
    assert found.data.nodes[1].site == "site-1" and found.data.server_from == ("site-1",)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("name=a b", "name: must be small letters, digits and -, and begin with a letter or a digit, got 'a b'"),
        ("data.sensors={a-b: m:R}", "small letters, digits and _, and begin with a letter"),
        ('seed="1"', "seed: must be a number, got the text '1'; leave out the quotes"),
    ],
)
def test_a_wrong_text_is_explained_in_words(override: str, text: str, config: Path) -> None:
    assert text in refusal(config, override)


def test_a_list_whose_only_entry_is_wrong_has_one_mistake(config: Path) -> None:
    text = refusal(config, "data.nodes=[{modality: gsp}]")
    assert "did you mean gps?" in text and ";" not in text.replace("; did you mean", "")
