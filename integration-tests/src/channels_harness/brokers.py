"""Which broker the tests talk to: one that the environment names, a container, or a server of our own."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from channels_harness.admin import Admin, PostgresAdmin, RedisAdmin
from channels_harness.binaries import available_redis
from channels_harness.containers import docker_answers, start_postgres_container, start_redis_container
from channels_harness.postgres_server import PostgresServer
from channels_harness.redis_cluster import RedisCluster
from channels_harness.redis_sentinel import RedisSentinel
from channels_harness.redis_server import RedisServer
from channels_harness.server import Server
from channels_harness.waiting import wait_until

__all__ = ("Broker", "PostgresChoice", "RedisChoice", "backend_url", "choose_postgres", "choose_redis", "start_broker")

RedisChoice = Literal["auto", "valkey9", "redis62", "redis70", "tls", "cluster", "sentinel"]
PostgresChoice = Literal["auto", "postgres18", "postgres15"]

_STARTERS: Final[dict[str, Callable[[], Server]]] = {
    "valkey9": lambda: RedisServer("valkey9"),
    "redis62": lambda: RedisServer(available_redis("redis62")),
    "redis70": lambda: RedisServer("redis70"),
    "tls": lambda: RedisServer("redis70", tls=True),
    "cluster": RedisCluster,
    "sentinel": RedisSentinel,
    "postgres18": lambda: PostgresServer("postgres18"),
    "postgres15": lambda: PostgresServer("postgres15"),
}


_START_TIMEOUT: Final = 60.0
"""Seconds for the server in a container to answer; only against hanging."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker.

    Attributes:
        url: What a plugin takes for the plain backend; `backend_url` makes the others of it.
        version: Name and version, as the server reports them.
        origin: Where it comes from.
        admin: Looks at it and breaks it from the inside.
        server: Its processes, where they are ours to stop and freeze.
    """

    url: str
    version: str
    origin: str
    admin: Admin
    server: Server | None = None

    def __str__(self) -> str:
        return f"{self.version} ({self.origin})"


def start_broker(name: str, stack: ExitStack) -> Broker:
    """Start a server of our own by its name; the stack closes it."""
    server = stack.enter_context(_STARTERS[name]())
    return Broker(server.url, server.version, f"started here: {name}{_stand_in(name)}", _admin(server), server)


def _stand_in(name: str) -> str:
    """Say so where another program than the one that was asked for has been started."""
    if name != "redis62" or (flavour := available_redis("redis62")) == name:
        return ""
    return f", which has no wheel for this Python; {flavour} stands in"


def choose_redis(choice: RedisChoice, stack: ExitStack) -> Broker:
    """Return the Redis broker of this test run; `auto` looks at the environment, then for Docker."""
    url = os.environ.get("CHANNELS_TEST_REDIS_URL")
    if choice != "auto":
        return start_broker(choice, stack)
    if url:
        return _given(url, "CHANNELS_TEST_REDIS_URL", RedisAdmin.from_url(url))
    if docker_answers():
        url = start_redis_container(stack)
        return _answering(url, "testcontainers", RedisAdmin.from_url(url))
    return start_broker("valkey9", stack)


def choose_postgres(choice: PostgresChoice, stack: ExitStack) -> Broker:
    """Return the PostgreSQL broker of this test run; `auto` looks at the environment, then for Docker."""
    url = os.environ.get("CHANNELS_TEST_POSTGRES_URL")
    if choice != "auto":
        return start_broker(choice, stack)
    if url:
        return _given(url, "CHANNELS_TEST_POSTGRES_URL", PostgresAdmin(url))
    if docker_answers():
        url = start_postgres_container(stack)
        return _answering(url, "testcontainers", PostgresAdmin(url))
    return start_broker("postgres18", stack)


def backend_url(url: str, variant: str = "", **options: object) -> str:
    """Return the URL of another backend on the same broker.

    Args:
        url: The broker's.
        variant: What to append to the scheme: ``"streams"``, ``"psycopg"``.
        options: Query parameters, on top of those that the URL has.
    """
    parts = urlsplit(url)
    scheme = f"{parts.scheme}+{variant}" if variant else parts.scheme
    query = "&".join(filter(None, (parts.query, urlencode(options))))
    return urlunsplit((scheme, parts.netloc, parts.path, query, ""))


def _answering(url: str, origin: str, admin: Admin) -> Broker:
    """Wait for a broker that has just been started."""
    wait_until(lambda: bool(admin.version()), _START_TIMEOUT, f"no answer from {origin}")
    return _given(url, origin, admin)


def _given(url: str, origin: str, admin: Admin) -> Broker:
    return Broker(url, admin.version(), origin, admin)


def _admin(server: Server) -> Admin:
    match server:
        case RedisServer():
            return RedisAdmin(lambda: [server.client()])
        case RedisCluster():
            return RedisAdmin(lambda: [node.client() for node in server.primaries()])
        case RedisSentinel():
            return RedisAdmin(lambda: [server.primary.client()])
        case PostgresServer():
            return PostgresAdmin(server.url)
    raise TypeError(f"no admin for {server!r}")
