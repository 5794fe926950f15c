"""The Ray actors that serve the clients of a run: who is free, who replaces a dead one, who went with a lost machine.

Flower makes one actor for each core of the cluster and one thread for each actor; every message waits for its answer
in a thread. It hands messages to dead actors again and again, and waits for one that will never answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY, ErrorCode

from sim.inline import error_reply

POLL_S = 0.5
"""How often a waiting thread looks whether the run is over, or a machine was lost."""
ATTEMPTS = 2
"""How many workers a message may end before its client counts as failed."""


class RayWorkers:
    """The workers of a run.

    Args:
        pool: Flower's pool, which has a list of free actors (``pool``), their number and how to make one.
        is_over: is set when the run is over, and by this class where the last machine is lost.
    """

    def __init__(self, pool: Any, is_over: threading.Event) -> None:
        self._pool = pool
        self._is_over = is_over
        self._counting = threading.Lock()
        self._have_answered: set[Any] = set()

    def process(self, app_fn: Callable[[], ClientApp], message: Message, context: Context) -> tuple[Message, Context]:
        """What a client answers, and its state; an error and the state as it was where it cannot."""
        from ray.exceptions import RayError, RayTaskError

        actor, num_dead = self._take(), 0
        try:
            while num_dead < ATTEMPTS and not self._is_over.is_set():
                try:
                    if (found := self._ask(actor, app_fn, message, context)) is not None:
                        reply, new_context = found
                        return reply, context if reply.has_error() else new_context
                except RayTaskError as error:  # message, state or reply could not be (un)pickled
                    return error_reply(message, f"{error}".splitlines()[-1], ErrorCode.UNKNOWN), context
                except RayError:
                    actor, num_dead = self._pool.create_actor_fn(), num_dead + 1
                else:
                    actor = self._take()
        finally:
            if actor is not None:
                self._pool.pool.append(actor)
        if num_dead == ATTEMPTS:
            return error_reply(message, "its worker died twice", ErrorCode.CLIENT_APP_CRASHED), context
        return error_reply(message, "the run has ended", ErrorCode.UNKNOWN), context

    def wait_until_free(self, seconds: float) -> None:
        """Wait until all workers are free, at most so many seconds."""
        deadline = time.monotonic() + seconds
        while len(self._pool.pool) < self._pool.num_actors and time.monotonic() < deadline:
            time.sleep(0.01)

    def _take(self) -> Any:
        """A free worker; None when the run is over. Nobody waits unless a machine was lost, and workers with it."""
        while not self._is_over.is_set():
            with suppress(IndexError):
                return self._pool.pool.pop()
            time.sleep(POLL_S / 10)
        return None

    def _ask(
        self, actor: Any, app_fn: Callable[[], ClientApp], message: Message, context: Context
    ) -> tuple[Message, Context] | None:
        """What the worker answers; None if it was given up, also at the end of the run.

        Raises:
            RayError: the worker is dead, or could not understand or answer.
        """
        import ray

        machines: Callable[[], list[dict[str, Any]]] = ray.nodes
        answer = actor.run.remote(app_fn, message, str(context.node_config[PARTITION_ID_KEY]), context)
        while not ray.wait([answer], timeout=POLL_S)[0]:
            alive = [machine["Resources"] for machine in machines() if machine["Alive"]]
            if not alive:
                self._is_over.set()
            if self._is_over.is_set():
                self._pool.pool.append(actor)
                return None
            if actor not in self._have_answered and self._gives_up(alive):
                ray.kill(actor)
                return None
        _, reply, new_context = ray.get(answer)
        self._have_answered.add(actor)
        return reply, new_context

    def _gives_up(self, machines: Sequence[dict[str, float]]) -> bool:
        """Whether a worker that has yet to start is one more than the machines that are left have room for."""
        share = float(self._pool.client_resources.get("num_gpus", 0.0))
        num_workers = sum(workers_of(resources, gpu_share=share) for resources in machines)
        with self._counting:
            is_one_too_many = bool(self._pool.num_actors > max(num_workers, 1))
            self._pool.num_actors -= is_one_too_many
        return is_one_too_many


def workers_of(resources: Mapping[str, float], *, gpu_share: float) -> int:
    """The number of workers that a machine has room for: one for each core and, where workers get one, share of a GPU.

    Args:
        resources: what Ray says of the machine.
        gpu_share: the share of a GPU that each worker gets; 0 if none.

    Example:
        >>> workers_of({"CPU": 8, "GPU": 1}, gpu_share=0.25)
        4
    """
    num_cores = int(resources.get("CPU", 0))
    return min(num_cores, int(resources.get("GPU", 0) / gpu_share)) if gpu_share else num_cores
