"""The benchmark of codecs: its measures on rows worked out by hand, and the figures that we show."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.bench.codec_cost import codec_costs, mean_kl, top_agreement, two_rounds
from sim.cli.main import cli
from strategies.codecs.table import CODECS


def test_two_rounds_are_nearly_equal_rows_on_the_simplex_and_follow_from_the_seed() -> None:
    before, after = two_rounds(3, 50)
    for probs in (before, after):
        assert probs.shape == (50, 4, 64)
        np.testing.assert_allclose(probs.sum(axis=-1), 1.0, atol=1e-6)
    changed = np.abs(after - before).max()
    assert 0 < changed < 0.05
    np.testing.assert_array_equal(two_rounds(3, 50)[1], after)
    assert not np.array_equal(two_rounds(4, 50)[1], after)


def test_the_divergence_of_a_hand_computed_row() -> None:
    sent, received = (np.array([[row]], np.float32) for row in ([0.5, 0.5, 0.0], [0.25, 0.75, 0.0]))
    assert mean_kl(sent, sent) == 0.0
    assert mean_kl(sent, received) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_top_agreement_counts_common_beams_whatever_their_order() -> None:
    sent = np.array([[[8, 7, 6, 5, 4, 3, 2, 1]]], np.float32)
    assert top_agreement(sent, sent[..., [4, 3, 2, 1, 0, 5, 6, 7]]) == 1.0
    assert top_agreement(sent, sent[..., ::-1]) == pytest.approx(2 / 5)


def test_costs_are_medians_over_the_seeds() -> None:
    (all_seeds,) = codec_costs(["uint4"], seeds=[0, 1, 2], num_samples=10)
    single = [asdict(codec_costs(["uint4"], seeds=[seed], num_samples=10)[0]) for seed in range(3)]
    for name, value in asdict(all_seeds).items():
        assert value == sorted(row[name] for row in single)[1]


def test_the_command_prints_a_row_for_every_codec() -> None:
    arguments = ["bench", "codecs", "--samples", "5", "--seeds", "0"]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0
    assert all(name in shown.output for name in CODECS)
    answer = json.loads(CliRunner().invoke(cli, [*arguments, "--codec", "top5", "--json"]).output)
    assert [(row["codec"], row["raw_bytes"]) for row in answer] == [("top5", 4 * 15)]


def test_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample and one seed"):
        codec_costs(["uint8"], seeds=[], num_samples=1)
