"""The kinds of knowledge that a client can exchange, and the class that exchanges each kind."""

from __future__ import annotations

from clients.exchanges.base import Exchange
from clients.exchanges.baselines import NoExchange, PooledExchange, WeightExchange
from clients.exchanges.classes import ClassExchange, PrototypeExchange
from clients.exchanges.labels import PublicExchange
from clients.exchanges.secure_sum import SecureSumExchange

EXCHANGES: dict[str, type[Exchange]] = {
    "public": PublicExchange,
    "secure_sum": SecureSumExchange,
    "classes": ClassExchange,
    "prototypes": PrototypeExchange,
    "weights": WeightExchange,
    "nothing": NoExchange,
    "pooled": PooledExchange,
}
