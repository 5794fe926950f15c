"""One run from its beginning, or from its last checkpoint, to its summary, phase by phase.

The phases are: pretrain the teacher, meet the clients, let them train their controls, run the rounds, sum up. After
the controls and after every round a checkpoint saves what was learned.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid

from clients.data.recording import Recording, open_recording
from clients.learning.classification import task_of
from clients.models.own_sensors import known_sensors
from clients.models.tracker import count_parameters
from configs.loading import experiment_digest, source_digest
from configs.placement import Placement
from configs.progress import PhaseProgress, counting, silent
from configs.schema import Experiment
from server.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from server.metrics import Metrics
from server.nodes import registered_nodes
from server.recorder import Recorder, TeacherRound, read_rounds, why_fruitless
from server.status import Status
from server.teacher import Distiller, make_teacher, open_public_classes, pretrain
from strategies.codecs.encoding import Encoding
from strategies.messages.records import Event, Member, break_even_samples, one_line
from strategies.messages.roster import check_metrics
from strategies.messages.wire import CONTROLS, Reply, Request, WireError
from strategies.methods.base import Choreography
from strategies.methods.fedgems import known_classes
from strategies.registry import find_plugins

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """How a launcher follows the run.

    Attributes:
        progress: a function that is called with the phase, the work done and the work in all.
        data_seconds: the seconds that making the data took.
        started: the time of `time.monotonic` at which the launch began; None takes the time at which the run begins.
        expected: the clients that should take part, where the launcher knows them.
        num_nodes: the number of nodes that carry them; 0 for one node for each client.
        controls: client -> the metrics of its controls, where an earlier run has trained the same; None trains them.
    """

    progress: PhaseProgress = silent
    data_seconds: float = 0.0
    started: float | None = None
    expected: Sequence[Member] = ()
    num_nodes: int = 0
    controls: Mapping[str, Mapping[str, Any]] | None = None


def run_session(grid: Grid, placement: Placement, watch: Watch, status: Status, metrics: Metrics) -> dict[str, Any]:
    """Carry out a run, and return its summary.

    Args:
        grid: the grid that Flower passes in.
        placement: the experiment and the folders of the run.
        watch: how the launcher follows the run.
        status: the status file, which is kept up to date throughout.
        metrics: the metrics for a monitoring system.

    Raises:
        ValueError: the YAML names something that does not exist, no client came, or a recording is broken.
        OSError: the disk is full or broken.
    """
    watch = replace(watch, started=watch.started or time.monotonic())
    session = open_session(placement, watch, status, metrics)
    session.meet(grid)
    session.clock.begin("controls")
    session.ensure_controls(grid)
    session.clock.begin("rounds")
    session.run_rounds(grid)
    return session.sum_up()


def open_session(placement: Placement, watch: Watch, status: Status, metrics: Metrics) -> RunSession:
    """Open a run: pretrain its teacher, or restore everything from the checkpoint in its folder if there is one."""
    experiment = placement.experiment
    strategy_class, aggregator = find_plugins(placement)
    known_sensors(experiment.data.sensors, placement.plugins)
    registry = registered_nodes()
    recorder = Recorder(placement.run, experiment, task_of(experiment.task, placement.plugins).wording)
    checkpoint = load_checkpoint(placement.run)
    common = open_recording(placement.federation / "test")
    teacher, findings = _prepare_teacher(placement, checkpoint, common, watch)
    if checkpoint is None and watch.controls is not None:
        findings["controls"] = {client: dict(metrics) for client, metrics in watch.controls.items()}
    strategy = strategy_class(
        experiment=experiment,
        aggregator=aggregator,
        teacher=teacher,
        num_public=len(teacher.learner.material.public_starts),
        run=placement.run.name,
        digests=(experiment_digest(experiment), source_digest()),
        state=None if checkpoint is None else checkpoint.federation,
        registry=registry,
        **experiment.strategy.options,
    )
    session = RunSession(strategy, teacher, recorder, common, findings, watch, status, metrics)
    if checkpoint is not None:
        session.note_resumption(checkpoint)
    return session


class RunClock:
    """Wall-clock seconds of a run by phase, summed over its legs: what passed before a stop counts too.

    Args:
        started: `time.monotonic` when this leg began.
        before: seconds of the legs before, as :meth:`seconds` gave them.
    """

    def __init__(self, started: float, before: Mapping[str, float]) -> None:
        self._before = dict(before)
        self._started = started
        self._marks = [("start", started)]

    def begin(self, phase: str) -> None:
        """Let the phase that is under way end, and another begin."""
        self._marks.append((phase, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Phase -> seconds until now, ``start``, ``controls`` and ``rounds``, and ``total``."""
        now = time.monotonic()
        found = {"start": 0.0, "controls": 0.0, "rounds": 0.0, "total": now - self._started}
        ends = [*(mark for _, mark in self._marks[1:]), now]
        for (phase, begin), end in zip(self._marks, ends, strict=True):
            found[phase] += end - begin
        return {phase: self._before.get(phase, 0.0) + value for phase, value in found.items()}


@dataclass
class RunSession:
    """What the phases of a run share.

    Attributes:
        strategy: the strategy that drives the rounds.
        teacher: the central teacher.
        recorder: the recorder, which writes the run folder.
        common: the test recording that the teacher and the clients have in common.
        findings: plain values found before the first round, such as the scores of the controls.
        watch: how the launcher follows the run.
        status: the status file, which is kept up to date throughout.
        metrics: the metrics for a monitoring system.
    """

    strategy: Choreography
    teacher: Distiller
    recorder: Recorder
    common: Recording
    findings: dict[str, Any]
    watch: Watch
    status: Status
    metrics: Metrics

    def __post_init__(self) -> None:
        self.clock = RunClock(self.watch.started or time.monotonic(), self.findings.get("seconds", {}))
        self.strategy.mailbox.on_event = lambda event: self.recorder.write_event(self.strategy.now, event)

    @property
    def members(self) -> dict[str, Member]:
        """Every client that has introduced itself, by id."""
        return self.strategy.mailbox.members

    def meet(self, grid: Grid) -> None:
        """Wait for the nodes, and ask which clients live on them."""
        experiment = self.strategy.experiment
        # A launcher that knows its clients gives each a node, or says how many carry them; there are fewer where a
        # client was forgotten.
        num_clients = len(self.watch.expected) or sum(nodes.count for nodes in experiment.data.groups)
        num_nodes = self.watch.num_nodes or num_clients
        self.strategy.mailbox.meet(grid, num_nodes=num_nodes, timeout=experiment.strategy.round_timeout_s)

    def ensure_controls(self, grid: Grid) -> None:
        """Let the clients train their controls, unless they did before the server was stopped."""
        if "controls" not in self.findings:
            wanted = self.strategy.experiment.controls
            self.findings["controls"] = self.train_controls(grid, self.members) if wanted else {}
            self.checkpoint()
        self.recorder.keep_rounds(self.strategy.state.round)

    def run_rounds(self, grid: Grid) -> None:
        """Run the rounds that are left."""
        self.begin_rounds()
        self.strategy.start(grid, evaluate_fn=self.after_round)

    def sum_up(self) -> dict[str, Any]:
        """Write and return the summary."""
        if fruitless := why_fruitless(read_rounds(self.recorder.folder)):
            self.status.note(fruitless)
        controls, experiment = self.findings["controls"], self.strategy.experiment
        seconds, data = self.clock.seconds(), self.watch.data_seconds
        self.recorder.write_validation(controls, teacher_before=self.findings["teacher_before_validation"])
        starts = self.common.window_starts(experiment.task.num_frames, experiment.task.num_future)
        self.recorder.write_passes(controls, pass_ids=np.unique(self.common.pass_ids[starts]).tolist())
        return self.recorder.write_summary(
            engine=experiment.engine.name,
            seconds={"data": data, **seconds, "total": seconds["total"] + data},
            members=list(self.members.values()),
            absent=[member for member in self.watch.expected if member.id not in self.members],
            controls=controls,
            teacher={
                "parameters": count_parameters(self.teacher.learner.model),
                "before": self.findings["teacher_before"],
                "after": self.teacher.evaluate(self.common).to_dict(),
                **{
                    part: {"before": self.findings.get("teacher_before_by_site", {}).get(part), "after": scores}
                    for part, scores in self.teacher.evaluate_by_site(self.common).items()
                },
            },
            break_even_samples=_break_even(experiment, self.members),
        )

    def note_resumption(self, checkpoint: Checkpoint) -> None:
        """Record that the server was stopped, after which round it continues, and whether a checkpoint was lost."""
        done = checkpoint.federation.round
        self.status.complete(done)
        if checkpoint.mishap:
            self.recorder.write_event(done, Event("broken", "server", checkpoint.mishap))
        self.recorder.write_event(done, Event("resumed", "server", f"goes on after round {done}"))

    def train_controls(self, grid: Grid, members: dict[str, Member]) -> dict[str, dict[str, Any]]:
        """Let every client train its controls *local only* and *offline KD*.

        Returns:
            Client -> the metrics that it reported; empty if it could not train them.
        """
        settings = self.strategy.settings
        every_sample = np.arange(self.strategy.num_public)
        taught = self.teacher.answer(every_sample, settings.temperature)
        task = self.strategy.experiment.task
        encoding = Encoding(settings.codec_down, task.num_horizons, task.num_classes)
        requests = {client: Request(encoding.pack(encoding.encode(taught, 0))) for client in members}
        self._count("local only and offline KD", 0, len(members))
        # The two controls take as many steps as two federations, in one message.
        timeout = 2 * settings.rounds * settings.round_timeout_s
        answers = self.strategy.mailbox.ask(grid, CONTROLS, requests, round_number=0, timeout=timeout)
        controls: dict[str, dict[str, Any]] = {}
        for answer in answers:
            reply = _checked(answer.reply, task.num_horizons)
            problem = str(reply) if isinstance(reply, WireError) else reply.error
            if problem:
                log.warning("client %s has no controls: %s", answer.client, problem)
                self.recorder.write_event(0, Event("failed", answer.client, one_line(f"has no controls: {problem}")))
            controls[answer.client] = {} if isinstance(reply, WireError) else dict(reply.metrics)
        return controls

    def begin_rounds(self) -> None:
        """Count the answers from here on; those of the rounds before a resumption are counted as done."""
        self._count_round(self.strategy.state.round)

    def after_round(self, round_number: int, targets: ArrayRecord) -> MetricRecord | None:
        """Record a round, then save a checkpoint.

        Returns:
            The metrics of the teacher on the common test set, one number per horizon; None if no round was accounted or
            the round has no scores.
        """
        account = self.strategy.account
        if account is None:
            return None
        learner = self.teacher.learner
        scores = self.teacher.evaluate(self.common) if self.strategy.settings.is_scored(round_number) else None
        now = scores if scores is None or learner.is_best else self.teacher.evaluate(self.common, best=False)
        self.recorder.write_round(account, TeacherRound(scores, now, learner.is_best, learner.validation))
        self.checkpoint()
        self.status.complete(round_number)
        self._count_round(round_number)
        wording = self.teacher.task.wording
        main, metric = None if scores is None else scores.mean(wording.main), wording.main_metric
        self.metrics.observe(account, teacher_score=main)
        self.metrics.write(self.recorder.folder)
        if scores is None or main is None:
            log.info("round %d: no scores", round_number)
            return None
        shown = f"{main * metric.scale:.{metric.decimals}f}"
        log.info("round %d: teacher %s %s %s", round_number, metric.title, shown, metric.unit)
        return MetricRecord({name: list(values) for name, values in scores.to_dict().items()})

    def checkpoint(self) -> None:
        """Save what was learned as a checkpoint."""
        self.findings["seconds"] = self.clock.seconds()
        state = Checkpoint(self.teacher.learner.state(), self.strategy.state, self.findings)
        save_checkpoint(self.recorder.folder, state)

    def _count_round(self, done: int) -> None:
        """Count the rounds until this one as done, with the answers that never came."""
        num_members = len(self.members)
        self._count("federation", num_members * done, num_members * self.strategy.settings.rounds)

    def _count(self, phase: str, done: int, total: int) -> None:
        """Report progress with every reply from here on."""
        self.strategy.mailbox.on_reply = counting(self.watch.progress, phase, done, total)


def _prepare_teacher(
    placement: Placement, checkpoint: Checkpoint | None, common: Recording, watch: Watch
) -> tuple[Distiller, dict[str, Any]]:
    experiment = placement.experiment
    learner = make_teacher(experiment, placement.federation, plugins=placement.plugins)
    done = 0 if checkpoint is None else checkpoint.federation.round
    teacher = Distiller(
        learner,
        total_rounds=experiment.strategy.rounds,
        round=done,
        public_classes=open_public_classes(placement.federation, learner),
        hindsight=experiment.strategy.hindsight,
    )
    if experiment.strategy.publish == "corrected":
        known_classes(teacher.public_classes())  # It raises if they are missing, before minutes of training.
    if checkpoint is not None:
        learner.load_state(checkpoint.teacher)
        return teacher, checkpoint.findings
    watch.progress("teacher", 0, 1)
    pretrain(learner, experiment.teaching.pretrain_steps)
    watch.progress("teacher", 1, 1)
    return teacher, {
        "teacher_before": teacher.evaluate(common).to_dict(),
        "teacher_before_by_site": teacher.evaluate_by_site(common),
        "teacher_before_validation": learner.validation,
    }


def _checked(reply: Reply | WireError, num_horizons: int) -> Reply | WireError:
    """The reply, or why its metrics cannot be shown."""
    try:
        if isinstance(reply, Reply):
            check_metrics(reply, num_horizons)
    except WireError as error:
        return error
    return reply


def _break_even(experiment: Experiment, members: dict[str, Member]) -> int:
    """The break-even of the smallest student, whose weights are the first to be cheaper than soft labels."""
    task = experiment.task
    one = np.full((1, task.num_horizons, task.num_classes), 1.0 / task.num_classes, np.float32)
    codec = Encoding(experiment.strategy.codec, task.num_horizons, task.num_classes).codec
    bytes_per_sample = codec.encode(one).nbytes
    return min(break_even_samples(member.num_parameters, bytes_per_sample) for member in members.values())
