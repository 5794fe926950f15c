"""Who records which passes of which traffic, where and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.schema import Faults, Nodes, Passes, StreetData, World
from configs.seeding import rng_for
from sim.data.partition import NUM_SECTORS, sectors_of
from sim.data.plan import PlannedPart, plan_federation
from sim.world.faults import RAW_GPS_BIAS_M
from sim.world.scene import draw_scene
from sim.world.site import make_site

Floats = NDArray[np.float64]


def street(**changes: Any) -> StreetData:
    fields: dict[str, Any] = {
        "source": "street",
        "passes": Passes(server=6, public=4, test=3, client=5, client_test=2),
        "nodes": (Nodes(modality="gps", count=60),),
    }
    return StreetData(**{**fields, **changes})


def shared_parts(data: StreetData, seed: int = 1) -> dict[str, PlannedPart]:
    return {part.folder: part for part in plan_federation(data, seed=seed)[:3]}


def clients(data: StreetData, seed: int = 1) -> list[PlannedPart]:
    return plan_federation(data, seed=seed)[3:]


def sector_mixes(parts: list[PlannedPart], seed: int = 1) -> Floats:
    """(clients, 4) share of each beam sector among the passes of a client."""
    mixes = []
    for part in parts:
        site = make_site(part.world, part.sites[0])
        scenes = [draw_scene(part.world, rng_for(seed, part.stream, i, "scene"), site=site) for i in part.passes]
        azimuths = [np.rad2deg(np.arctan2(s.antenna[:, 0], s.antenna[:, 1])) for s in scenes]
        mixes.append(np.bincount(sectors_of(azimuths), minlength=NUM_SECTORS) / len(azimuths))
    return np.array(mixes)


def divergence_bits(mixes: Floats) -> float:
    """Jensen-Shannon divergence of the clients' mixes, all alike 0."""

    def entropy(mix: Floats) -> Floats:
        bits: Floats = -np.sum(mix * np.log2(np.maximum(mix, 1e-300)), axis=-1)
        return bits

    return float(entropy(mixes.mean(axis=0)) - entropy(mixes).mean())


def test_server_public_and_test_are_made_at_the_reference_mast_without_faults() -> None:
    data = street(world=World(preset="multi-site-hard"), nodes=(Nodes(modality="gps", faults=Faults(dropout=0.5)),))
    parts = shared_parts(data)
    assert list(parts) == ["server", "public", "test"]
    assert {part.sites for part in parts.values()} == {(0,)}
    assert {part.faults for part in parts.values()} == {Faults()}
    assert {part.world for part in parts.values()} == {data.world}
    assert [len(part.passes) for part in parts.values()] == [6, 4, 3]
    assert [part.is_labelled for part in parts.values()] == [True, False, True]


def test_no_two_parts_share_a_pass() -> None:
    for data in (street(), street(sector_skew=0.5)):
        owned = [(part.stream, index) for part in plan_federation(data, seed=1) for index in part.passes]
        assert len(set(owned)) == len(owned)


def test_every_pass_of_a_part_is_in_exactly_one_split() -> None:
    for data in (street(), street(sector_skew=0.5)):
        for part in plan_federation(data, seed=1):
            held = sorted(i for ids in part.splits.values() for i in ids)
            assert held == ([] if part.folder == "public" else list(range(len(part.passes))))


def test_a_small_traffic_skew_gives_clients_different_lanes_and_a_large_one_the_same() -> None:
    skewed, even = (
        np.array([part.world.near_lane_share for part in clients(street(traffic_skew=skew))]) for skew in (0.5, 1e5)
    )
    assert skewed.std() > 0.3
    assert even.std() < 0.01
    assert skewed.mean() == pytest.approx(World().near_lane_share, abs=0.15)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_street_of_one_lane_has_no_other_mix(share: float) -> None:
    parts = clients(street(traffic_skew=0.1, world=World(near_lane_share=share)))
    assert {part.world.near_lane_share for part in parts} == {share}


def test_amounts_are_equal_without_spread_and_keep_their_mean_with_it() -> None:
    nodes = (Nodes(modality="gps", count=400),)
    passes = Passes(server=2, public=1, test=1, client=50)
    equal = [len(part.passes) for part in clients(street(nodes=nodes, passes=passes, amount_spread=0.0))]
    spread = [len(part.passes) for part in clients(street(nodes=nodes, passes=passes, amount_spread=0.5))]
    assert set(equal) == {50}
    assert np.mean(spread) == pytest.approx(50, rel=0.08)  # a log-normal factor of mean 1; three s.d. of 400
    assert np.std(np.log(spread)) == pytest.approx(0.5, rel=0.15)


def test_every_client_keeps_two_passes_however_uneven_the_amounts() -> None:
    for skew in (None, 0.3):
        parts = clients(street(amount_spread=2.0, sector_skew=skew))
        assert min(len(part.splits["train"]) + len(part.splits["validation"]) for part in parts) == 2
        assert {len(part.splits["test"]) for part in parts} == {2}
        assert len({len(part.passes) for part in parts}) > 3


def test_a_commissioning_drive_by_day_is_dry_bright_and_quiet_whatever_the_world() -> None:
    world = World(preset="night-shift", rush_probability=0.5, density=3.0)
    parts = shared_parts(street(world=world, public_drive="day"))
    public = parts["public"].world
    assert (public.night_probability, public.rain_probability, public.rush_probability) == (0.0, 0.0, 0.0)
    assert public.density == 1.5
    kept = {"night_probability", "rain_probability", "rush_probability", "density"}
    assert public.model_dump(exclude=kept) == world.model_dump(exclude=kept)
    assert parts["server"].world == parts["test"].world == world
    scenes = [draw_scene(public, rng_for(1, i), site=make_site(public, 0)) for i in range(60)]
    assert not any(scene.night or scene.rain or scene.rush for scene in scenes)


@pytest.mark.parametrize("folder", ["public", "server"])
def test_a_drive_changes_nothing_but_the_part_that_it_is_of(folder: str) -> None:
    world = World(preset="night-shift")
    drives: list[dict[str, Any]] = [{f"{folder}_drive": drive} for drive in ("same", "day")]
    same, day = (plan_federation(street(world=world, **drive), seed=1) for drive in drives)
    assert [part for part in same if part.folder != folder] == [part for part in day if part.folder != folder]
    (found,) = [part.world for part in day if part.folder == folder]
    assert (found.night_probability, found.rain_probability, found.density) == (0.0, 0.0, world.density / 2)


def test_by_time_of_day_clients_record_by_day_by_night_in_rain_and_in_the_rush_hour_in_turn() -> None:
    world = World(preset="night-shift", rush_probability=0.4)
    parts = clients(street(world=world, by_time_of_day=True, nodes=(Nodes(modality="gps", count=9),)))
    weather = [
        (part.world.night_probability, part.world.rain_probability, part.world.rush_probability) for part in parts
    ]
    turn = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    assert weather == (turn * 3)[:9]
    assert [part.notes["block"] for part in parts[:5]] == ["day", "night", "rain", "rush", "day"]


def test_clients_are_dealt_over_all_sites_in_turn() -> None:
    parts = clients(street(world=World(sites=3), nodes=(Nodes(modality="gps", count=4), Nodes(modality="lidar"))))
    assert [part.sites for part in parts] == [(0,), (1,), (2,), (0,), (1,)]
    assert [part.notes["site"] for part in parts] == [f"site-{n}" for n in (0, 1, 2, 0, 1)]


def test_the_beam_sectors_of_clients_differ_with_a_small_skew_and_hardly_with_a_large_one() -> None:
    passes = Passes(server=2, public=1, test=1, client=40)
    nodes = (Nodes(modality="gps", count=8),)
    skewed, even = (
        divergence_bits(sector_mixes(clients(street(passes=passes, nodes=nodes, sector_skew=skew, amount_spread=0.0))))
        for skew in (0.05, 1e4)
    )
    assert skewed > 0.35
    # Forty draws from four sectors differ by some (4 - 1) / (2 ln 2 * 40) = 0.05 bits by themselves.
    assert even < 0.12


def test_every_pass_of_the_pool_is_dealt_once_and_everybody_gets_its_amount() -> None:
    pooled = clients(street(sector_skew=0.3, amount_spread=0.0))
    assert {len(part.passes) for part in pooled} == {5 + 2}
    assert sorted(i for part in pooled for i in part.passes) == list(range(60 * 7))
    assert {part.stream for part in pooled} == {"clients"}
    assert {part.world for part in pooled} == {street().world}


def test_passes_of_a_pool_have_no_time_of_day() -> None:
    with pytest.raises(ValueError, match="sector_skew: passes of one pool have no time of day"):
        street(sector_skew=0.5, by_time_of_day=True)


def test_faults_are_of_the_clients_of_their_modality_alone() -> None:
    faults = Faults(raw_gps=True, dropout=0.25)
    data = street(nodes=(Nodes(modality="gps", count=2, faults=faults), Nodes(modality="lidar", count=2)))
    broken, sound = clients(data)[:2], clients(data)[2:]
    assert {part.faults for part in broken} == {faults}
    assert {part.world.gps_bias_m for part in broken} == {RAW_GPS_BIAS_M}
    assert {part.faults for part in sound} == {Faults()}
    assert {part.world.gps_bias_m for part in sound} == {data.world.gps_bias_m}
    assert broken[0].notes["faults"] == {"dropout": 0.25, "blind": 0.0, "raw_gps": True}
    assert "faults" not in sound[0].notes


def test_faults_do_not_change_who_holds_what() -> None:
    sound, broken = (
        clients(street(nodes=(Nodes(modality="gps", count=5, faults=faults),)))
        for faults in (Faults(), Faults(dropout=0.5, raw_gps=True))
    )
    assert [(p.passes, p.splits, p.stream, p.sites) for p in sound] == [
        (p.passes, p.splits, p.stream, p.sites) for p in broken
    ]


def test_what_the_servers_mast_lacks_is_still_in_public_and_test() -> None:
    parts = shared_parts(street(nodes=(Nodes(modality="gps"), Nodes(modality="lidar")), server_lacks=("lidar",)))
    assert [part.modalities for part in parts.values()] == [("gps",), ("gps", "lidar"), ("gps", "lidar")]


def test_more_clients_leave_those_before_as_they_were() -> None:
    few, many = (clients(street(nodes=(Nodes(modality="gps", count=count),))) for count in (3, 8))
    assert many[:3] == few
