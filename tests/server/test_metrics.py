"""What Prometheus reads: counted by hand, in a file and over HTTP."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import Metrics
from strategies.messages.records import ClientRound, RoundAccount
from tests.ports import free_port

QUICK, LIAR, SLOW = "000-gps", "001-gps", "002-lidar"


def account(number: int) -> RoundAccount:
    clients = {
        QUICK: ClientRound(downlink_bytes=100, uplink_bytes=40),
        LIAR: ClientRound(
            downlink_bytes=100, problem="not on the simplex", fault="refused" if number == 1 else "failed"
        ),
        SLOW: ClientRound(downlink_bytes=100, problem="no answer in time", fault="missing" if number == 1 else "away"),
    }
    return RoundAccount(number, clients, num_asked=5, num_targets=5, seconds={"clients": 2.0 * number, "conclude": 0.5})


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    for number in (1, 2):
        metrics.observe(account(number), teacher_score=0.25 * number)
    return metrics


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values in order of label names) -> value, without when counting began."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }


EXPECTED = {
    ("softbeam_rounds_total",): 2,
    ("softbeam_round",): 2,
    ("softbeam_teacher_top5",): 0.5,
    ("softbeam_answers_total", QUICK): 2,
    ("softbeam_refusals_total", LIAR, "refused"): 1,
    ("softbeam_refusals_total", LIAR, "failed"): 1,
    ("softbeam_missing_total", SLOW): 2,
    ("softbeam_bytes_total", QUICK, "uplink"): 80,
    ("softbeam_bytes_total", QUICK, "downlink"): 200,
    ("softbeam_bytes_total", LIAR, "uplink"): 0,
    ("softbeam_bytes_total", LIAR, "downlink"): 200,
    ("softbeam_bytes_total", SLOW, "uplink"): 0,
    ("softbeam_bytes_total", SLOW, "downlink"): 200,
    ("softbeam_round_seconds_count", "clients"): 2,
    ("softbeam_round_seconds_sum", "clients"): 6,
    ("softbeam_round_seconds_count", "conclude"): 2,
    ("softbeam_round_seconds_sum", "conclude"): 1,
}


def test_two_rounds_are_counted_as_by_hand_and_written_whole(metrics: Metrics, tmp_path: Path) -> None:
    metrics.write(tmp_path)
    assert samples((tmp_path / "metrics.prom").read_text()) == EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.prom"]


def test_two_runs_in_one_process_do_not_count_for_each_other(metrics: Metrics, tmp_path: Path) -> None:
    Metrics().write(tmp_path)
    assert samples((tmp_path / "metrics.prom").read_text())[("softbeam_rounds_total",)] == 0


def test_a_port_in_the_environment_serves_them_on_this_machine_alone_until_the_end(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("SOFTBEAM_METRICS_PORT", str(port))
    stop = metrics.serve()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        with pytest.raises(ValueError, match=f"^SOFTBEAM_METRICS_PORT: cannot listen on port {port}"):
            Metrics().serve()
    finally:
        stop()
    assert samples(text)[("softbeam_rounds_total",)] == 2
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_without_a_port_nothing_is_served(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOFTBEAM_METRICS_PORT", raising=False)
    monkeypatch.setattr("server.metrics.start_http_server", lambda *arguments, **keywords: pytest.fail("served"))
    metrics.serve()()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_what_is_no_port_is_refused(metrics: Metrics, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTBEAM_METRICS_PORT", port)
    with pytest.raises(ValueError, match=rf"^SOFTBEAM_METRICS_PORT: must be a port from 1 to 65535, got '{port}'"):
        metrics.serve()
