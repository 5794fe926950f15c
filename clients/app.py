"""The ClientApp: every handler returns a message, whatever happens.

If something fails for one client, that client's reply says so. `clients.handlers` says what the handlers do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from traceback import extract_tb

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.cohort import Work, serve
from clients.context import ClientContext
from clients.exchanges.secure_sum import reveal
from clients.handlers import introduce, take_round, train_controls
from clients.health import report_health
from clients.models.own_sensors import known_sensors
from clients.profile import ClientProfile, profiles_of
from configs.loading import experiment_digest, source_digest
from configs.placement import Placement, native_placement
from strategies.messages.records import printable
from strategies.messages.wire import Header, Reply, Request, WireError, pack_replies, unpack_header, unpack_requests
from strategies.own_code import place_in_own_code

log = logging.getLogger(__name__)

# Flower's code for "the ClientApp raised".
CLIENT_APP_RAISED = 2
# The largest number of characters of an error that is sent to the server.
MAX_ERROR_LENGTH = 300

Handler = Callable[[ClientContext, Request], Reply | Work]


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


def _answer(message: Message, context: Context, placement: Placement | None, handler: Handler) -> Message:
    try:
        torch.set_num_threads(1)
        header = unpack_header(message.content)
        here = placement or native_placement(context.run_config, context.run_id)
        _check_digests(header, here)
        known_sensors(here.experiment.data.sensors, here.plugins)
        requests = unpack_requests(message.content)
        # Only a simulation that we launched knows of cohorts.
        experiment = None if placement is None else placement.experiment
        profiles = {one.id: one for one in profiles_of(context.node_config, here.federation, experiment)}
        # A message without requests asks every client of the node.
        requests = requests or {client: Request() for client in profiles}
        replies = _served(handler, profiles, here, header, requests)
        return Message(pack_replies(header, replies), reply_to=message)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        log.exception("cannot handle a message")
        return Message(Error(CLIENT_APP_RAISED, describe(error)), reply_to=message)


def _served(
    handler: Handler,
    profiles: Mapping[str, ClientProfile],
    placement: Placement,
    header: Header,
    requests: Mapping[str, Request],
) -> dict[str, Reply]:
    """The reply of each client that was asked; what went wrong for one of them is the reply of this one."""
    contexts: dict[str, ClientContext] = {}

    def work(client: str, request: Request) -> Work:
        contexts[client] = ClientContext(profiles[client], placement, header)
        found = handler(contexts[client], request)
        return (yield from found) if isinstance(found, Generator) else found

    known = {client: request for client, request in requests.items() if client in profiles}
    served = serve({client: work(client, request) for client, request in known.items()})
    replies = {}
    for client in requests:
        if client not in served:
            replies[client] = Reply(error="there is no such client on this node")
            continue
        reply, seconds = served[client].reply, served[client].seconds
        if isinstance(reply, BaseException):
            # A stack of a virtual client would stand among the lines of a command.
            place = place_in_own_code(reply) if profiles[client].is_virtual else ""
            told = f": {type(reply).__name__}: {' '.join(str(reply).split())} {place}" if place else ""
            log.error(
                "%s: cannot do what it was asked in round %d%s",
                client,
                header.round,
                told,
                exc_info=not place and reply,
            )
            if place:
                log.debug("%s raised", client, exc_info=reply)
            reply = Reply(error=describe(reply))
        if client in contexts:
            report_health(contexts[client], reply, seconds=seconds)
        replies[client] = replace(reply, facts={**reply.facts, "seconds": seconds})
    return replies


def describe(error: BaseException) -> str:
    """What went wrong, in one short line that may leave this machine.

    For errors that are written for readers (`ValueError`) and errors of the system, the line holds their own text,
    which quotes no content of a file. For all others, whose text we do not control, it holds their kind and place. What
    a user's own class raises ends with the place in it.
    """
    kind, own = type(error).__name__, place_in_own_code(error)
    where = f" {printable(own)}" if own else ""
    if isinstance(error, (ValueError, OSError, MemoryError)):
        text = printable(f"{kind}: {' '.join(str(error).split())}")
    else:
        frames = extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = f"{kind}{where or place}; the log of this node says more"
        where = ""
    where = where[:MAX_ERROR_LENGTH]
    most = MAX_ERROR_LENGTH - len(where)
    return f"{text if len(text) <= most else f'{text[:most]}...'}{where}"


def _check_digests(header: Header, placement: Placement) -> None:
    for what, theirs, ours in (
        ("experiment", header.experiment, experiment_digest(placement.experiment)),
        ("source", header.source, source_digest()),
    ):
        if theirs != ours:
            raise WireError(f"the server's {what} is {theirs}, this client's is {ours}; install the same on both")


app = build_app()
