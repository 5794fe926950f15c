"""The metrics of a run for a monitoring system, in the text format of Prometheus, as a file and over HTTP.

Counters begin at zero when the server starts, also when it resumes a run; Prometheus expects this of counters.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from clients.learning.task import BEAM_WORDING, Wording
from configs.files import swap_in
from strategies.messages.records import RoundAccount

log = logging.getLogger(__name__)

FILE = "metrics.prom"
PORT_VARIABLE = "SOFTBEAM_METRICS_PORT"
# A round takes from a tenth of a second (idle nodes) to minutes (the timeout for a straggler).
SECONDS_BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class Metrics:
    """Counts what happens in the rounds of one server process.

    Args:
        wording: the metrics of the task; the main one of the teacher is shown.
    """

    def __init__(self, wording: Wording = BEAM_WORDING) -> None:
        self.registry = CollectorRegistry()
        self._rounds = Counter("softbeam_rounds", "Rounds completed.", registry=self.registry)
        self._answers = Counter("softbeam_answers", "Answers that counted.", ["client"], registry=self.registry)
        self._refusals = Counter(
            "softbeam_refusals",
            "Answers that did not count: the server refused them, or the client reported an error.",
            ["client", "reason"],
            registry=self.registry,
        )
        self._missing = Counter(
            "softbeam_missing", "Rounds without an answer in time.", ["client"], registry=self.registry
        )
        self._bytes = Counter(
            "softbeam_bytes", "Encoded bytes sent and received.", ["client", "direction"], registry=self.registry
        )
        self._seconds = Histogram(
            "softbeam_round_seconds",
            "Wall-clock seconds of a phase of a round.",
            ["phase"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        range_of = " in [0, 1]," if wording.main_metric.unit == "%" else ""
        self._score = Gauge(
            f"softbeam_teacher_{wording.main}",
            f"{wording.main_metric.title} of the teacher,{range_of} mean over horizons.",
            registry=self.registry,
        )
        self._round = Gauge("softbeam_round", "Last round completed.", registry=self.registry)

    def observe(self, account: RoundAccount, *, teacher_score: float | None) -> None:
        """Count a round.

        Args:
            account: the account of the round.
            teacher_score: the main metric of the teacher after the round, as it is recorded; None leaves the last one.
        """
        self._rounds.inc()
        self._round.set(account.round)
        if teacher_score is not None:
            self._score.set(teacher_score)
        for phase, seconds in account.seconds.items():
            self._seconds.labels(phase).observe(seconds)
        for client, entry in account.clients.items():
            self._bytes.labels(client, "uplink").inc(entry.uplink_bytes)
            self._bytes.labels(client, "downlink").inc(entry.downlink_bytes)
            if not entry.problem:
                self._answers.labels(client).inc()
            elif entry.fault in ("away", "missing"):
                self._missing.labels(client).inc()
            else:
                self._refusals.labels(client, entry.fault).inc()

    def write(self, folder: Path) -> None:
        """Write ``metrics.prom`` for node_exporter's textfile collector."""
        path = folder / FILE
        try:
            swap_in(path, generate_latest(self.registry).decode())
        except OSError as error:
            # A run must not end because its metrics cannot be written.
            log.warning("%s: not written (%s)", path, error)

    def serve(self) -> Callable[[], None]:
        """Serve the metrics on 127.0.0.1, at the port that ``SOFTBEAM_METRICS_PORT`` names, if it names one.

        Returns:
            A function that stops serving.

        Raises:
            ValueError: the variable names no free port.
        """
        text = os.environ.get(PORT_VARIABLE, "")
        if not text:
            return lambda: None
        if not text.isdecimal() or not 1 <= int(text) <= 65535:
            raise ValueError(f"{PORT_VARIABLE}: must be a port from 1 to 65535, got {text!r}")
        try:
            server, thread = start_http_server(int(text), addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise ValueError(f"{PORT_VARIABLE}: cannot listen on port {text} ({error.strerror or error})") from None

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return stop
