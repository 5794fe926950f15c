"""A DeepSense scenario cut into a federation: whole passes, nothing twice, clear errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.recording import open_recording
from configs.data import MANY_PASSES
from configs.schema import DeepSenseData, Task
from configs.seeding import rng_for
from sim.data.partition import carve_validation, deal_by_sector, partition_passes, sectors_of
from sim.data.sites import write_deepsense

NUM_PASSES = 40


def federation(
    *,
    counts: Sequence[tuple[str, int]] = (("gps", 3), ("box", 3)),
    share: bool = True,
    folder: str = "scenario",
    **passes: Any,
) -> DeepSenseData:
    """Server 6, public 5, test 4 and 7 passes for the clients of one modality, a fifth held out, unless told so."""
    return DeepSenseData.model_validate(
        {
            "source": "deepsense",
            "folder": folder,
            "passes": {"server": 6, "public": 5, "test": 4, "client": 7, "validation_share": 0.2, **passes},
            "nodes": tuple({"modality": modality, "count": count} for modality, count in counts),
            "share_passes": share,
        }
    )


def deal(data: DeepSenseData, seed: int = 0) -> tuple[list[set[int]], dict[str, dict[str, list[int]]]]:
    """The passes of server, public and test, and the splits of every client."""
    ids = range(1, NUM_PASSES + 1)
    parts = partition_passes(data, dict.fromkeys(ids, 0), dict.fromkeys(ids, 20), seed=seed)
    server = {i for ids in parts.server.values() for i in ids}
    clients = {client.id: {name: list(ids) for name, ids in client.splits.items()} for client in parts.clients}
    return [server, set(parts.public), set(parts.test)], clients


def everything(splits: dict[str, list[int]]) -> list[int]:
    return [i for ids in splits.values() for i in ids]


@pytest.mark.parametrize("share", [True, False])
def test_no_pass_is_in_two_parts_and_each_part_has_as_many_as_asked_for(share: bool) -> None:
    parts, clients = deal(federation(share=share, client_test=1))
    gps = [i for name, splits in clients.items() if name.endswith("gps") for i in everything(splits)]
    box = [i for name, splits in clients.items() if name.endswith("box") for i in everything(splits)]
    assert [len(part) for part in parts] == [6, 5, 4]
    assert len(gps) == len(set(gps)) == len(set(box)) == 7 + 3
    owned = [*parts, set(gps) | set(box)]
    assert len(set.union(*owned)) == sum(len(part) for part in owned)


def test_clients_at_one_mast_hold_the_same_passes_in_the_same_splits() -> None:
    _, clients = deal(federation(share=True, client_test=1))
    for number in range(3):
        assert clients[f"{number:03d}-gps"] == clients[f"{number + 3:03d}-box"]


def test_clients_at_different_masts_hold_different_passes() -> None:
    _, clients = deal(federation(share=False))
    held = [i for splits in clients.values() for i in everything(splits)]
    assert len(held) == len(set(held)) == 14


def test_seven_passes_for_three_clients_are_dealt_3_2_2() -> None:
    _, clients = deal(federation(counts=[("gps", 3)]))
    assert [len(everything(splits)) for splits in clients.values()] == [3, 2, 2]


def test_more_clients_leave_server_public_and_test_passes_as_they_were() -> None:
    assert deal(federation(counts=[("gps", 1)]))[0] == deal(federation(counts=[("gps", 7), ("box", 2)], share=False))[0]


def test_the_same_seed_deals_alike_and_another_one_does_not() -> None:
    assert deal(federation(), seed=3) == deal(federation(), seed=3)
    assert deal(federation(), seed=3) != deal(federation(), seed=4)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ({"server": 41}, r"data\.passes\.server: asks for 41 passes, but 40 of 40 are left"),
        ({"test": 30}, r"data\.passes\.test: asks for 30 passes, but 29 of 40 are left"),
        ({"client": 26}, r"data\.passes\.client: asks for 26 passes, but 25 of 40 are left"),
        ({"client_test": 7}, r"data\.passes\.client_test: asks for 7 passes, but 4 of 40 are left"),
        ({"client": 2}, r"data\.passes\.client: 2 passes cannot be dealt to 3 clients of one modality"),
    ],
)
def test_too_few_passes_are_one_error_with_the_dotted_path(passes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deal(federation(**passes))


@pytest.mark.parametrize(
    ("num_passes", "share", "expected"),
    [
        *[(10, 0.2, 2), (3, 0.2, 1), (2, 0.9, 1), (1, 0.9, 0), (10, 0.0, 0), (2, 0.01, 1)],
        # Who has few passes learns from all of them, unless a share was asked for.
        *[(1, None, 0), (2, None, 0), (7, None, 0), (8, None, 2), (20, None, 4)],
    ],
)
def test_validation_is_carved_from_two_passes_on_and_leaves_one_to_train(
    num_passes: int, share: float | None, expected: int
) -> None:
    train, validation = carve_validation(range(num_passes), share, rng_for(0, "carve"))
    assert len(validation) == expected
    assert sorted(train + validation) == list(range(num_passes))


def test_validation_may_count_windows_so_that_a_long_pass_weighs_more() -> None:
    windows = {1: 100, 2: 5, 3: 5, 4: 5, 5: 5}
    for seed in range(20):
        train, validation = carve_validation(range(1, 6), 0.2, rng_for(seed, "carve"), windows=windows)
        assert sorted(train + validation) == [1, 2, 3, 4, 5]
        assert train and validation
    _, first = carve_validation([1, 2], 0.5, rng_for(0, "carve"), windows={1: 30, 2: 30})
    assert len(first) == 1


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("skew", [None, 0.1])
@pytest.mark.parametrize("lengths", ["equal", "unequal", "some too short"])
def test_parts_without_numbers_get_their_share_of_the_windows(share: bool, skew: float | None, lengths: str) -> None:
    rng = rng_for(0, "windows")
    windows = {i: 30 if lengths == "equal" else int(rng.integers(1, 60)) for i in range(1, 81)}
    short = set(range(1, 20)) if lengths == "some too short" else set()
    windows |= dict.fromkeys(short, 0)
    data = DeepSenseData.model_validate(
        {
            "source": "deepsense",
            "folder": "scenario",
            "nodes": ({"modality": "gps", "count": 4}, {"modality": "box", "count": 2}),
            "share_passes": share,
            "sector_skew": skew,
        }
    )
    parts = partition_passes(data, {i: i % 4 for i in windows}, windows, seed=0)
    pools = [[client for client in parts.clients if client.modality == modality] for modality in ("gps", "box")]
    own = {i for client in parts.clients for split in ("train", "validation") for i in client.splits[split]}
    tests = {i for client in parts.clients for i in client.splits["test"]}
    held = [{*parts.server["train"], *parts.server["validation"]}, set(parts.public), set(parts.test), own, tests]
    everything = sum(windows.values())
    found = [sum(windows[i] for i in part) / everything for part in held]
    assert sum(len(part) for part in held) == len(windows) - len(short)
    assert not short & set.union(*held)
    np.testing.assert_allclose(found, [0.2, 0.25, 0.15, 0.3, 0.1], atol=0.06)
    for client in [*pools[0], *pools[1]]:
        train, validation = (client.splits[split] for split in ("train", "validation"))
        assert sum(windows[i] for i in train) > 0
        assert (sum(windows[i] for i in validation) > 0) == (len(train) + len(validation) >= MANY_PASSES)


def test_a_number_for_one_part_leaves_shares_of_the_rest_to_the_others() -> None:
    ids = range(1, NUM_PASSES + 1)
    passes = {"server": 2, "client_test": 1}
    data = DeepSenseData.model_validate(
        {"source": "deepsense", "folder": "scenario", "passes": passes, "nodes": ({"modality": "gps", "count": 3},)}
    )
    parts = partition_passes(data, dict.fromkeys(ids, 0), dict.fromkeys(ids, 20), seed=0)
    assert len(parts.server["train"]) + len(parts.server["validation"]) == 2
    assert [len(client.splits["test"]) for client in parts.clients] == [1, 1, 1]
    dealt = [*parts.public, *parts.test, *(i for c in parts.clients for ids in c.splits.values() for i in ids)]
    assert len(dealt) == len(set(dealt)) == NUM_PASSES - 2


@pytest.mark.parametrize(
    ("lengths", "lines"),
    [
        ([13] * 40, []),
        ([11, 3, 12, 40] * 10, ["passes with fewer than 12 frames have no window: 1, 2, 5, 6, 9, 10, 13"]),
        ([300], ["too few for 7 parts, so 1 passes are cut into", "blocks, with gaps of 11 frames"]),
        ([150, 11, 150], ["2 passes with windows are too few for 7 parts, so 3 passes are cut into"]),
        ([40] * 7, []),
    ],
    ids=["short passes", "some too short", "one long pass", "two long passes", "as many passes as parts"],
)
def test_a_scenario_of_any_size_becomes_a_federation_without_a_number(
    tmp_path: Path, lengths: Sequence[int], lines: Sequence[str]
) -> None:
    folder = write_scenario(tmp_path / "scenario", lengths=lengths)
    data = DeepSenseData.model_validate(
        {"source": "deepsense", "folder": str(folder), "nodes": ({"modality": "gps", "count": 4},)}
    )
    out = tmp_path / "federation"
    write_deepsense(data, out, seed=0)
    manifest = json.loads((out / "federation.json").read_text())
    for line in lines:
        assert any(line in found for found in manifest["left_out"]), manifest["left_out"]
    assert any("window" in found or "blocks" in found for found in manifest["left_out"]) == bool(lines)
    for part in ("server", "public", "test", *(f"clients/{client['id']}" for client in manifest["clients"])):
        recording = open_recording(out / part)
        split = None if part == "public" else "test" if part == "test" else "train"
        assert len(recording.window_starts(8, 3, split)) > 0, part
        assert all(len(recording.pass_ids[recording.pass_ids == i]) >= 12 for i in np.unique(recording.pass_ids))


def test_parts_with_few_windows_are_said_with_the_numbers_to_change(tmp_path: Path, scenario_folder: Path) -> None:
    def warnings(name: str, **passes: Any) -> str:
        data = federation(folder=str(scenario_folder), counts=[("gps", 3)], **passes)
        write_deepsense(data, tmp_path / name, seed=0)
        return "\n".join(json.loads((tmp_path / name / "federation.json").read_text())["warnings"])

    found = warnings("few", client=3)
    assert "000-gps: has 2 windows to train on, fewer than 32; raise data.passes.client (3 now)" in found
    assert "002-gps: has no pass to validate on, so its last state is kept; raise data.passes.client" in found
    assert "server: has 10 windows to train on, fewer than 32; raise data.passes.server (6 now)" in found
    assert "server: has no pass" not in found
    assert "no pass to validate on" not in warnings("asked for", client=3, validation_share=0.0)
    assert "no pass to validate on" not in warnings("as few as they are", client=3, validation_share=None)


def test_a_scenario_that_is_too_short_for_its_parts_is_one_error_with_the_remedy(tmp_path: Path) -> None:
    folder = write_scenario(tmp_path / "scenario", lengths=[30])
    data = DeepSenseData.model_validate(
        {"source": "deepsense", "folder": str(folder), "nodes": ({"modality": "gps", "count": 4},)}
    )
    with pytest.raises(
        ValueError, match=r"data\.passes: \d passes with a window are left for 7 parts .* lower the count"
    ):
        write_deepsense(data, tmp_path / "federation", seed=0)


def test_passes_without_a_window_are_not_dealt(tmp_path: Path, scenario_folder: Path) -> None:
    for task in (Task(num_frames=10), Task(num_frames=8, num_future=5)):
        with pytest.raises(ValueError, match=r"data\.passes\.server: asks for 6 passes, but 0 of 0 are left"):
            write_deepsense(federation(folder=str(scenario_folder)), tmp_path / "none", seed=1, task=task)


def write_scenario(
    folder: Path, best_beams: Sequence[int] = (), *, lengths: Sequence[int] = (13,) * NUM_PASSES
) -> Path:
    """Scenario 7 made up: 40 passes of 13 frames, unless told otherwise; the box is known in every other frame."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    num_rows, passes = sum(lengths), np.repeat(np.arange(len(lengths)) + 1, lengths)
    power = rng.uniform(0.1, 1.0, (num_rows, 64)).astype(np.float32)
    power[np.arange(len(best_beams)), np.asarray(best_beams, np.int64)] = 2.0
    boxes = rng.uniform(0.2, 0.8, (num_rows, 4)).astype(np.float32)
    boxes[::2] = np.nan
    rows = [f"{k + 1},{np.argmax(power[k]) + 1},{passes[k]}" for k in range(num_rows)]
    (folder / "scenario7.csv").write_text("\n".join(["index,unit1_beam_index,seq_index", *rows]) + "\n")
    station = np.array([[33.42, -111.93]])
    np.savez(
        folder / "scenario7_arrays.npz",
        unit1_pwr_60ghz=power,
        unit1_loc=station,
        unit2_loc=station + rng.uniform(-1e-4, 1e-4, (num_rows, 2)),
        unit1_bbox_tx=boxes,
    )
    return folder


@pytest.fixture
def scenario_folder(tmp_path: Path) -> Path:
    return write_scenario(tmp_path / "scenario")


def test_a_federation_is_written_as_recordings_that_open(tmp_path: Path, scenario_folder: Path) -> None:
    out = tmp_path / "federation"
    write_deepsense(federation(folder=str(scenario_folder), client_test=1), out, seed=1)
    server, public, test = (open_recording(out / part) for part in ("server", "public", "test"))
    assert set(server.sensors) == set(public.sensors) == set(test.sensors) == {"gps", "box"}
    assert public.power is None
    assert [len(server.splits[name]) for name in ("train", "validation")] == [5, 1]
    assert len(public.pass_ids) == 5 * 13
    assert len(test.window_starts(8, 3, "test")) == 4 * (13 - 8 - 3)
    client = open_recording(out / "clients" / "003-box")
    assert set(client.sensors) == {"box"}
    assert {name: len(ids) for name, ids in client.splits.items()} == {"train": 2, "validation": 1, "test": 1}
    assert client.power is not None
    assert client.power.shape == (4 * 13, 64)
    assert np.isnan(client.sensors["box"].astype(np.float64)).all(axis=1).sum() in range(4 * 6, 4 * 7 + 1)
    manifest = json.loads((out / "federation.json").read_text())
    assert (manifest["source"], manifest["scenario"], manifest["seed"]) == ("deepsense", "scenario7", 1)
    assert manifest["licence"] == "CC BY-NC-SA 4.0"
    assert manifest["clients"][3] == {"id": "003-box", "modality": "box", "passes": 4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["federation", "scenario"]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path, scenario_folder: Path) -> None:
    for name in ("one", "two"):
        write_deepsense(federation(folder=str(scenario_folder)), tmp_path / name, seed=1)
    written = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
    assert len(written) > 30
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_a_sensor_that_the_scenario_lacks_is_one_clear_error(tmp_path: Path, scenario_folder: Path) -> None:
    data = federation(folder=str(scenario_folder), counts=[("gps", 1), ("lidar", 1)])
    with pytest.raises(
        ValueError,
        match=r"data\.nodes: .* has no lidar that can be read; use gps, box, such as --set 'data\.nodes",
    ):
        write_deepsense(data, tmp_path / "federation", seed=0)


def test_a_federation_that_fails_leaves_nothing_behind(
    tmp_path: Path, scenario_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("sim.data.sites.json.dumps", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_deepsense(federation(folder=str(scenario_folder)), tmp_path / "federation", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["scenario"]


def test_an_existing_folder_is_never_overwritten(tmp_path: Path, scenario_folder: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        write_deepsense(federation(folder=str(scenario_folder)), scenario_folder, seed=0)


@pytest.mark.parametrize(
    ("azimuth_deg", "sector"),
    [(-60.0, 0), (-45.0, 0), (-22.6, 0), (-22.4, 1), (-0.1, 1), (0.1, 2), (22.4, 2), (22.6, 3), (45.0, 3), (60.0, 3)],
)
def test_a_quarter_of_the_field_is_a_sector_and_beyond_it_is_the_outermost(azimuth_deg: float, sector: int) -> None:
    assert sectors_of([np.full(5, azimuth_deg)]).tolist() == [sector]


def test_a_passes_sector_is_the_one_in_which_it_stays_longest() -> None:
    through = np.array([-40.0, -30.0, -10.0, 10.0, 30.0])
    stops = np.array([-40.0, -30.0, -10.0, 10.0, 10.0, 10.0, 30.0])
    assert sectors_of([through, stops]).tolist() == [0, 2]
    assert sectors_of([]).tolist() == []


@pytest.mark.parametrize("concentration", [1e-9, 0.05, 1.0, 1e9])
def test_every_pass_is_dealt_once_and_everybody_gets_what_was_asked(concentration: float) -> None:
    sectors, amounts = rng_for(0, "sectors").integers(0, 4, 90), [0, 1, 40, 9, 25, 15]
    hands = deal_by_sector(sectors, amounts, concentration, rng_for(0, "deal"))
    assert [len(hand) for hand in hands] == amounts
    assert sorted(i for hand in hands for i in hand) == list(range(90))


def test_a_pool_of_one_sector_is_dealt_whole() -> None:
    hands = deal_by_sector(np.full(12, 2), [5, 7], 0.01, rng_for(0, "deal"))
    assert sorted(i for hand in hands for i in hand) == list(range(12))


def sector_mixes(concentration: float) -> NDArray[np.float64]:
    """(20, 4) sector shares of twenty clients of fifty passes, out of a pool of equal sectors."""
    sectors = np.arange(1000) % 4
    hands = deal_by_sector(sectors, [50] * 20, concentration, rng_for(1, "deal"))
    return np.array([np.bincount(sectors[hand], minlength=4) / 50 for hand in hands])


def test_a_small_concentration_gives_clients_one_sector_and_a_large_one_gives_all_the_pools_mix() -> None:
    skewed, even = sector_mixes(0.02), sector_mixes(1e6)
    # Not purely one sector: as many may want it as there are passes for few, and the last take what is left.
    assert skewed.max(axis=1).mean() > 0.7
    # Fifty draws scatter by sqrt(0.25 * 0.75 / 50) = 0.06.
    assert even.std() == pytest.approx(0.06, abs=0.015)
    assert np.abs(even - 0.25).max() < 0.25


def test_clients_of_deepsense_may_differ_by_beam_sector(tmp_path: Path) -> None:
    folder = write_scenario(tmp_path / "scenario", best_beams=[16 * (k // 13 % 4) + 8 for k in range(NUM_PASSES * 13)])

    def purities(skew: float, seed: int) -> list[float]:
        """Share of the commonest beam sector among the frames of each client."""
        data = federation(folder=str(folder), counts=[("gps", 4)], server=2, public=2, test=2, client=32)
        name = f"{skew}-{seed}"
        write_deepsense(data.model_copy(update={"sector_skew": skew}), tmp_path / name, seed=seed)
        found = []
        for client in sorted((tmp_path / name / "clients").iterdir()):
            recording = open_recording(client)
            assert recording.power is not None
            sectors = recording.power.argmax(axis=1) // 16
            found.append(float(np.bincount(sectors, minlength=4).max() / len(sectors)))
        return found

    skewed, even = (np.mean([purities(skew, seed) for seed in range(3)]) for skew in (0.01, 1e6))
    assert skewed > even + 0.1
