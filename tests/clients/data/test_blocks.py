"""A recording that does not say where passes begin is cut at jumps and into blocks with gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.data.blocks import BLOCK_FRAMES, GAP_FRAMES, cut_blocks, is_in_time_order
from clients.data.deepsense import read_scenario
from tests.releases import Arrays, Release, Table, damaged_copy, measured


def test_one_long_drive_is_cut_into_blocks_with_gaps_between_them() -> None:
    position_m = np.stack([np.arange(200.0), np.zeros(200)], axis=1)
    blocks = cut_blocks(position_m, 200)
    # 50 frames, a gap of 11, 50 frames, a gap of 11, and 78 frames, which are too few for two blocks and a gap.
    assert blocks.keep.tolist() == [*range(50), *range(61, 111), *range(122, 200)]
    assert blocks.pass_ids.tolist() == [1] * 50 + [2] * 50 + [3] * 78
    assert (blocks.num_jumps, blocks.num_gap_frames) == (0, 22)


def test_pieces_between_jumps_stay_whole_and_nothing_is_left_out_there() -> None:
    position_m = np.stack([np.tile(np.arange(30.0), 4), np.zeros(120)], axis=1)
    blocks = cut_blocks(position_m, 120)
    assert blocks.keep.tolist() == list(range(120))
    assert blocks.pass_ids.tolist() == np.repeat([1, 2, 3, 4], 30).tolist()
    assert (blocks.num_jumps, blocks.num_gap_frames) == (3, 0)


def test_a_block_begins_a_window_behind_rows_that_are_missing_and_at_once_behind_a_jump() -> None:
    position_m = np.stack([np.tile(np.arange(30.0), 2), np.zeros(60)], axis=1)
    blocks = cut_blocks(position_m, 60, gaps=[15, 30, 55])
    assert blocks.keep.tolist() == [*range(15), *range(26, 55)]
    assert blocks.pass_ids.tolist() == [1] * 15 + [2] * 4 + [3] * 25
    assert (blocks.num_jumps, blocks.num_gap_frames) == (1, 16)


@pytest.mark.parametrize("num_frames", range(0, 400, 7))
def test_no_two_passes_of_one_drive_hold_frames_nearer_than_a_window(num_frames: int) -> None:
    blocks = cut_blocks(None, num_frames)
    starts = np.flatnonzero(np.diff(blocks.pass_ids)) + 1
    assert all(blocks.keep[at] - blocks.keep[at - 1] > GAP_FRAMES for at in starts)
    assert len(blocks.keep) + blocks.num_gap_frames == num_frames
    if num_frames > BLOCK_FRAMES:
        assert np.bincount(blocks.pass_ids)[1:].min() >= BLOCK_FRAMES


def test_rows_that_were_shuffled_are_in_no_order_of_time() -> None:
    position_m = np.stack([np.arange(100.0), np.zeros(100)], axis=1)
    beams = np.arange(100) // 2
    mixed = np.random.default_rng(0).permutation(100)
    assert is_in_time_order(position_m, None) and is_in_time_order(None, beams)
    assert not is_in_time_order(position_m[mixed], None) and not is_in_time_order(None, beams[mixed])
    assert not is_in_time_order(None, None)


def blank_passes(release: Release) -> None:
    release.passes = [""] * len(release.passes)


def no_pass_column(release: Release) -> None:
    release.header[5] = "other"


@pytest.mark.parametrize("lose", [blank_passes, no_pass_column])
def test_a_release_without_passes_is_cut_and_says_so(lose: object, tmp_path: Path) -> None:
    assert callable(lose)
    release = Release(num_passes=6, length=20)
    lose(release)
    scenario = read_scenario(release.write(tmp_path / "scenario7"))
    assert scenario.has_passes
    assert scenario.pass_ids.tolist() == np.repeat(np.arange(1, 7), 20).tolist()
    assert any("there is no seq_index, so the rows are cut at 5 jumps" in problem for problem in scenario.problems)
    assert any("blank in every row" in problem for problem in scenario.problems) == (lose is blank_passes)


def test_rows_without_passes_are_put_in_order_before_they_are_cut(tmp_path: Path) -> None:
    release = Release(num_passes=6, length=20)
    no_pass_column(release)
    folder = release.write(tmp_path / "scenario7")
    expected = read_scenario(folder)
    head, *rows = (folder / "scenario7.csv").read_text().splitlines()
    (folder / "scenario7.csv").write_text("\n".join([head, *rows[::-1]]))
    found = read_scenario(folder)
    assert found.beams.tolist() == expected.beams.tolist()
    assert found.pass_ids.tolist() == expected.pass_ids.tolist()


def test_rows_of_which_nobody_knows_the_order_stay_alone_and_it_is_said(tmp_path: Path) -> None:
    release = Release(num_passes=6, length=20)
    release.header[0], release.header[5], release.header[6] = "number", "other", "stamp"
    folder = release.write(tmp_path / "scenario7")
    head, *rows = (folder / "scenario7.csv").read_text().splitlines()
    mixed = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]
    (folder / "scenario7.csv").write_text("\n".join([head, *mixed]))
    scenario = read_scenario(folder)
    assert not scenario.has_passes
    assert any("neighbouring rows are no neighbours in time" in problem for problem in scenario.problems)


def drop_passes(rows: Table, arrays: Arrays) -> None:
    for row in rows:
        del row["seq_index"]


def one_pass(rows: Table, arrays: Arrays) -> None:
    for row in rows:
        row["seq_index"] = "1"


@pytest.mark.parametrize(("number", "damage"), [(1, drop_passes), (3, one_pass), (8, drop_passes)])
def test_jumps_find_the_ends_of_measured_passes(number: int, damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    whole = read_scenario(measured(f"scenario{number}"))
    cut = read_scenario(damaged_copy(number, tmp_path, damage))
    frame_of = {tuple(row): at for at, row in enumerate(whole.labelled_power.tolist())}
    at = np.array([frame_of[tuple(row)] for row in cut.labelled_power.tolist()])
    mixed = sum(len(set(whole.pass_ids[at[cut.pass_ids == name]].tolist())) > 1 for name in set(cut.pass_ids.tolist()))
    assert mixed <= 1  # In scenario 8, one pass ends where the next one begins.
    assert len(cut.beams) > 0.75 * len(whole.beams)
