"""What is divided by what, how sure it is, and what is refused; no arm runs here."""

from __future__ import annotations

import json

import pytest

from sim.speed.conductor import AGAIN, EXACT, Repetition, Turn, check_equal, orders
from sim.speed.ratios import NAMES, RATIOS, arms_table, compared, estimate, groups_of, ratios_table


def repetitions(again: float = 1.0) -> list[Repetition]:
    """Two repetitions: ours takes 3 s, then 4 s; the plain loop 4 s, tuned Flower 12 s. CPU-seconds are twice that."""
    found = []
    for ours in (3.0, 4.0):
        seconds = {"ours": ours, "bare-2proc": 4.0, "flower-tuned": 12.0, AGAIN: 4.0 * again}
        found.append({("gps", arm): Turn(arm, value, 2 * value, 9.0, 20.0) for arm, value in seconds.items()})
    return found


def test_a_ratio_is_the_median_of_its_pairs_and_not_the_ratio_of_medians() -> None:
    found = compared(["gps_vs_loop2", "gps_vs_flower_tuned"], repetitions(), {"gps": 40})
    assert found["ratios"]["gps_vs_loop2"] == pytest.approx((3 / 4 + 4 / 4) / 2)
    assert found["ratios"]["gps_vs_flower_tuned"] == pytest.approx((12 / 3 + 12 / 4) / 2)
    assert found["intervals"]["gps_vs_loop2"] == pytest.approx([0.75, 1.0])
    assert found["cpu_ratios"]["gps_vs_loop2"] == pytest.approx(0.875)
    assert json.loads(json.dumps(found)) == found


def test_one_pair_has_no_width_and_more_pairs_hold_the_median_between_their_extremes() -> None:
    assert (estimate([2.0]).low, estimate([2.0]).high) == (2.0, 2.0)
    found = estimate([1.0, 2.0, 3.0, 4.0, 10.0])
    assert 1.0 <= found.low < found.value == 3.0 < found.high <= 10.0
    assert estimate([1.0, 2.0, 3.0]) == estimate([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("again", "is_noisy"), [(1.0, False), (1.04, False), (0.94, True), (1.06, True)])
def test_a_plain_loop_that_differs_from_itself_makes_the_result_noisy(again: float, is_noisy: bool) -> None:
    found = compared(["gps_vs_loop2"], repetitions(again), {"gps": 40})
    assert found["noisy"] is is_noisy
    wall = list(ratios_table(found).columns[2].cells)
    assert wall == (["noisy"] if is_noisy else ["0.88"])


def test_a_plain_loop_that_differs_from_itself_in_both_directions_is_noisy_too() -> None:
    one, other = repetitions(0.8)[0], repetitions(1.2)[1]
    found = compared(["gps_vs_loop2"], [one, other], {"gps": 40})
    assert found["again"]["gps"] == pytest.approx([1.0, 0.8, 1.2])
    assert found["noisy"] is True


def test_seconds_a_client_are_compared_where_numbers_of_clients_differ() -> None:
    few, many = Turn("ours", 2.0, 4.0, 0.0, 0.0), Turn("ours", 30.0, 60.0, 0.0, 0.0)
    one = {("clients-100", "ours"): few, ("clients-1000", "ours"): many}
    found = compared(["clients_1000_vs_100"], [one], {"clients-100": 100, "clients-1000": 1000})
    assert found["ratios"]["clients_1000_vs_100"] == pytest.approx(1.5)


def test_clients_of_no_work_cost_cpu_milliseconds_each_and_the_tax_is_that_of_the_worst_student() -> None:
    one = dict(repetitions()[0])
    one["null", "null"] = Turn("null", 3.0, 5.0, 0.0, 0.0)
    one |= {("lidar", arm): Turn(arm, 1.0, cpu, 0.0, 0.0) for arm, cpu in (("ours", 6.0), ("bare-2proc", 5.0))}
    one["lidar", AGAIN] = one["lidar", "bare-2proc"]
    found = compared(["null_ms_per_client", "tax"], [one], {"gps": 40, "lidar": 12, "null": 1000})
    assert found["ratios"]["null_ms_per_client"] == pytest.approx(5.0)
    assert found["tax_by_student"] == {"gps": pytest.approx(0.75), "lidar": pytest.approx(1.2)}
    assert found["ratios"]["tax"] == pytest.approx(1.2)
    assert ratios_table(found).row_count == 2 and arms_table(found).row_count == len(one)


def test_only_the_arms_that_a_ratio_needs_take_turns_and_a_student_always_meets_the_plain_loop_twice() -> None:
    ((gps,),) = groups_of(["gps_vs_flower_tuned"], quick=False)
    assert gps.arms == ("ours", "flower-tuned", "bare-2proc", AGAIN)
    assert gps.experiment.strategy.codec == "float32"
    ((tax,),) = groups_of(["tax"], quick=True)
    assert (tax.name, tax.arms) == ("gps", ("ours", "bare-2proc", AGAIN))
    ((null,),) = groups_of(["null_ms_per_client"], quick=False)
    assert null.arms == ("null",) and EXACT not in null.overrides
    (scale,) = groups_of(["clients_1000_vs_100"], quick=False)
    assert [sum(nodes.count for nodes in one.experiment.data.groups) for one in scale] == [100, 1000]


def test_every_ratio_has_families_and_each_name_is_told() -> None:
    groups = groups_of(NAMES, quick=False)
    arms = {(family.name, arm) for group in groups for family in group for arm in family.arms}
    assert {part for ratio in RATIOS.values() for part in (ratio.top, ratio.bottom)} <= arms


def test_arms_take_turns_forwards_and_backwards() -> None:
    arms = [("gps", "ours"), ("gps", "bare-2proc")]
    assert orders(arms, 3) == [arms, arms[::-1], arms]


def test_unknown_ratios_and_a_thousand_clients_in_two_minutes_are_refused() -> None:
    with pytest.raises(ValueError, match="--ratio gps_vs_loop: there is no such ratio; did you mean gps_vs_loop2"):
        groups_of(["gps_vs_loop"], quick=False)
    with pytest.raises(ValueError, match="--ratio clients_1000_vs_100: a thousand clients take longer than --quick"):
        groups_of(["clients_1000_vs_100"], quick=True)


def test_an_arm_that_did_other_work_does_not_count() -> None:
    import numpy as np

    wanted = np.full((2, 3, 4, 8), 0.125, np.float32)
    check_equal("gps, ours", wanted + np.float32(5e-5), wanted)
    with pytest.raises(ValueError, match=r"gps, ours: its soft labels are up to 0\.01 from those of the reference"):
        check_equal("gps, ours", wanted + np.float32(0.01), wanted)
    with pytest.raises(ValueError, match="gps, ours: its soft labels are up to nan"):
        check_equal("gps, ours", np.full_like(wanted, np.nan), wanted)
    with pytest.raises(ValueError, match="gps, ours: it answered"):
        check_equal("gps, ours", wanted[:1], wanted)
