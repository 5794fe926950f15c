"""The ClientApp: every handler returns a message, whatever happens.

If something fails for one client, that client's reply says so. `clients.handlers` says what the handlers do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from traceback import extract_tb

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.context import ClientContext
from clients.exchanges.secure_sum import reveal
from clients.handlers import introduce, take_round, train_controls
from clients.health import report_health
from clients.profile import ClientProfile, profiles_of
from configs.loading import experiment_digest, source_digest
from configs.placement import Placement, native_placement
from strategies.messages.records import printable
from strategies.messages.wire import Header, Reply, Request, WireError, pack_replies, unpack_header, unpack_requests

log = logging.getLogger(__name__)

# Flower's code for "the ClientApp raised".
CLIENT_APP_RAISED = 2
# The largest number of characters of an error that is sent to the server.
MAX_ERROR_LENGTH = 300

Work = Callable[[ClientContext, Request], Reply]


def build_app(placement: Placement | None = None) -> ClientApp:
    """Build the ClientApp.

    Args:
        placement: the placement that `sim.launch` chose for a simulation; None reads it from Flower's run config.
    """
    client_app = ClientApp()

    @client_app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, introduce)

    @client_app.query("reveal")
    def tell_seeds(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, reveal)

    @client_app.train("controls")
    def controls(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, train_controls)

    @client_app.train("round")
    def take_part(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, take_round)

    return client_app


def _answer(message: Message, context: Context, placement: Placement | None, work: Work) -> Message:
    try:
        torch.set_num_threads(1)
        header = unpack_header(message.content)
        here = placement or native_placement(context.run_config, context.run_id)
        _check_digests(header, here)
        requests = unpack_requests(message.content)
        profiles = {profile.id: profile for profile in profiles_of(context.node_config, here.federation)}
        # A message without requests asks every client of the node.
        requests = requests or {client: Request() for client in profiles}
        replies = {}
        for client, request in requests.items():
            replies[client] = _guarded(work, profiles.get(client), here, header, request)
        return Message(pack_replies(header, replies), reply_to=message)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        log.exception("cannot handle a message")
        return Message(Error(CLIENT_APP_RAISED, describe(error)), reply_to=message)


def _guarded(
    work: Work, profile: ClientProfile | None, placement: Placement, header: Header, request: Request
) -> Reply:
    if profile is None:
        return Reply(error="there is no such client on this node")
    begin, context = time.monotonic(), None
    try:
        context = ClientContext(profile, placement, header)
        reply = work(context, request)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # This includes SystemExit and what libraries in other languages raise.
        log.exception("%s: cannot do what it was asked in round %d", profile.id, header.round)
        reply = Reply(error=describe(error))
    seconds = time.monotonic() - begin
    if context is not None:
        report_health(context, reply, seconds=seconds)
    return replace(reply, facts={**reply.facts, "seconds": seconds})


def describe(error: BaseException) -> str:
    """What went wrong, in one short line that may leave this machine.

    For errors that are written for readers (`ValueError`) and errors of the system, the line holds their own text,
    which quotes no content of a file. For all others, whose text we do not control, it holds their kind and place.
    """
    kind = type(error).__name__
    if isinstance(error, (ValueError, OSError, MemoryError)):
        text = printable(f"{kind}: {' '.join(str(error).split())}")
    else:
        frames = extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = f"{kind}{place}; the log of this node says more"
    return text if len(text) <= MAX_ERROR_LENGTH else f"{text[:MAX_ERROR_LENGTH]}..."


def _check_digests(header: Header, placement: Placement) -> None:
    for what, theirs, ours in (
        ("experiment", header.experiment, experiment_digest(placement.experiment)),
        ("source", header.source, source_digest()),
    ):
        if theirs != ours:
            raise WireError(f"the server's {what} is {theirs}, this client's is {ours}; install the same on both")


app = build_app()
