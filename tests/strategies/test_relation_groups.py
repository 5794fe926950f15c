"""Both sides draw the same groups and partners; what travels of them is small, exact enough and checked."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from configs.loading import build_experiment
from configs.schema import Experiment
from strategies.codecs.packing import pack_ids
from strategies.relations import Group, draw_groups, pack_relations, relational_kd, relations, unpack_relations
from tests.conftest import tiny_values

NUM_PUBLIC = 200
IDS = np.arange(20, 120)


def experiment(*, batch_size: int = 16, seed: int = 3, **wanted: Any) -> Experiment:
    values = tiny_values(relations=wanted)
    values["training"]["batch_size"] = batch_size
    return build_experiment({**values, "seed": seed}, origin="test")


def features(groups: list[Group], size: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """Features whose samples lie near to each other in time and space, as those of a teacher do."""
    ids = np.concatenate([group.sample_ids for group in groups])
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=(NUM_PUBLIC, size)), axis=0)
    found: NDArray[np.float32] = walk[ids].astype(np.float32)
    return found


def unpack(arrays: dict[str, Any], settings: Experiment, *, num_public: int = NUM_PUBLIC) -> list[Any]:
    return unpack_relations(arrays, settings, 2, num_public=num_public)


def test_both_sides_draw_the_same_and_every_round_and_seed_another() -> None:
    def drawn(settings: Experiment, round_number: int) -> list[list[Any]]:
        groups = draw_groups(IDS, settings, round_number)
        return [[group.sample_ids.tolist(), group.partners.tolist()] for group in groups]

    assert drawn(experiment(), 2) == drawn(experiment(), 2)
    assert drawn(experiment(), 2) != drawn(experiment(), 3)
    assert drawn(experiment(), 2) != drawn(experiment(seed=4), 2)


def test_a_sample_is_in_one_group_and_has_its_partners_there() -> None:
    groups = draw_groups(IDS, experiment(), 1)
    np.testing.assert_array_equal(np.sort(np.concatenate([group.sample_ids for group in groups])), IDS)
    for group in groups:
        assert group.partners.shape == (len(group.sample_ids), 4)
        assert group.partners.min() >= 0 and group.partners.max() < len(group.sample_ids)


@pytest.mark.parametrize("num_samples", [2, 5, 15, 16, 31, 32, 47, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_a_group_is_a_batch_or_up_to_twice_that_and_all_have_as_many_partners(
    num_samples: int, batch_size: int
) -> None:
    groups = draw_groups(np.arange(num_samples), experiment(batch_size=batch_size), 1)
    sizes = [len(group.sample_ids) for group in groups]
    size = max(batch_size, 5)
    assert all(size <= one < 2 * size for one in sizes) if num_samples >= size else sizes == [num_samples]
    assert {group.partners.shape[1] for group in groups} == {min(4, num_samples - 1)}


def test_most_neighbours_in_a_group_are_neighbours_in_time() -> None:
    steps = [later - one for group in draw_groups(IDS, experiment(), 1) for one, later in pairwise(group.sample_ids)]
    assert np.mean(np.array(steps) == 1) > 0.75


def test_there_are_no_relations_of_a_sample_alone() -> None:
    with pytest.raises(ValueError, match="need two samples"):
        draw_groups(np.arange(1), experiment(), 1)


@pytest.mark.parametrize("pairs", [1, 4, 7])
def test_a_sample_costs_four_bytes_a_pair_and_partners_nothing(pairs: int) -> None:
    settings = experiment(pairs=pairs)
    groups = draw_groups(IDS, settings, 2)
    arrays = pack_relations(groups, features(groups))
    assert arrays["relations"].nbytes == len(IDS) * pairs * 4
    assert arrays["related"].nbytes == 120 // 8  # a bitmap up to the last id
    assert set(arrays) == {"related", "relations"}


def test_what_was_told_is_what_the_features_of_each_group_have_to_a_thousandth() -> None:
    settings = experiment()
    groups = draw_groups(IDS, settings, 2)
    found, first = features(groups), 0
    for (group, told), mine in zip(unpack(pack_relations(groups, found), settings), groups, strict=True):
        np.testing.assert_array_equal(group.sample_ids, mine.sample_ids)
        np.testing.assert_array_equal(group.partners, mine.partners)
        rows = torch.from_numpy(found[first : first + len(group.sample_ids)])
        first += len(rows)
        exact = relations(rows, torch.from_numpy(group.partners))
        for halved, whole in ((told.distances, exact.distances), (told.angles, exact.angles)):
            error = (halved - whole).abs()
            # Half a unit in the last place of float16 or of its smallest values, and what single precision is off by.
            assert torch.all(error <= torch.maximum(2.0**-11 * whole.abs(), torch.tensor(2.0**-25 + 1e-7)))
            assert torch.all(error[whole < 2] < 1e-3)
        loss = relational_kd(rows, told, torch.from_numpy(group.partners), distance_weight=1.0, angle_weight=1.0)
        assert loss.item() < 1e-6  # what half precision adds to a loss of about one


def test_a_teacher_that_finds_all_alike_tells_legal_relations() -> None:
    settings = experiment()
    groups = draw_groups(IDS, settings, 2)
    for same in (np.zeros((len(IDS), 5), np.float32), np.full((len(IDS), 5), 0.3, np.float32)):
        for _, told in unpack(pack_relations(groups, same), settings):
            assert torch.all(told.distances == 0)
            assert torch.all((told.angles >= 0) & (told.angles <= 2))


def test_nothing_told_is_nothing_to_learn() -> None:
    assert unpack({}, experiment()) == []
    assert unpack({"keys": np.zeros((2, 32), np.uint8)}, experiment()) == []


def changed(name: str, value: Any) -> Any:
    return lambda arrays: {**arrays, name: value(arrays[name])}


def spoilt(value: float, where: int = 0) -> Any:
    def change(values: NDArray[np.float16]) -> NDArray[np.float16]:
        values = values.copy()
        values[3, 1, where] = value
        return values

    return changed("relations", change)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda arrays: {"related": arrays["related"]}, "the array relations is missing"),
        (lambda arrays: {"relations": arrays["relations"]}, "the array related is missing"),
        (changed("relations", lambda values: values.astype(np.float32)), "expected relations as float16"),
        (changed("relations", lambda values: values[:-1]), r"expected relations as float16 \(100, 4, 2\)"),
        (changed("relations", lambda values: values[:, :3]), r"expected relations as float16 \(100, 4, 2\)"),
        (changed("relations", lambda values: values.reshape(-1)), r"expected relations as float16 \(100, 4, 2\)"),
        (changed("related", lambda ids: pack_ids(np.arange(0, 100, 2))), r"expected relations as float16 \(50, 4, 2\)"),
        (
            changed("related", lambda ids: pack_ids(IDS + 100)),
            "relations name sample 219, but the public set has 200 samples",
        ),
        (changed("related", lambda ids: ids.astype(np.float32)), "ids must be uint32"),
        (changed("related", lambda ids: pack_ids(np.arange(1))), "need two samples"),
        (changed("related", lambda ids: np.empty(0, np.uint8)), "need two samples"),
        (spoilt(np.nan), "must be finite"),
        (spoilt(np.inf), "must be finite"),
        (spoilt(-0.5), "must be finite distances >= 0"),
        (spoilt(2.5, where=1), r"angles in \[0, 2\]"),
        (spoilt(-0.5, where=1), r"angles in \[0, 2\]"),
    ],
)
def test_what_is_no_relations_is_refused(spoil: Any, problem: str) -> None:
    settings = experiment()
    groups = draw_groups(IDS, settings, 2)
    with pytest.raises(ValueError, match=problem):
        unpack(spoil(pack_relations(groups, features(groups))), settings)
