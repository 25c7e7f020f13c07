"""How to reach the servers: read from a URL or borrowed from a client that the caller made.

A borrowed client lends its addresses, credentials and TLS settings. Its pool, timeouts, retries and decoding stay its
own: our connections are made by its connection class, and closed by us.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff

from channels_core.exceptions import ImproperlyConfigured

__all__ = (
    "CONNECT_TIMEOUT",
    "Address",
    "AnyRedis",
    "AnySettings",
    "ClusterSettings",
    "SentinelSettings",
    "ServerSettings",
    "borrow",
    "database_of",
)

CONNECT_TIMEOUT: Final = 2.0
"""Seconds for address, TLS and greeting together: less than the deadline of the plugin, so an error has a reason."""

Address = tuple[str, int]
AnyRedis = Redis | RedisCluster

_NOT_LENT: Final = frozenset(
    (
        "connection_class",
        "connection_pool",
        "decode_responses",
        "encoder_class",
        "encoding",
        "encoding_errors",
        "event_dispatcher",
        "health_check_interval",
        "himport_registry",
        "legacy_responses",
        "max_connections",
        "parser_class",
        "response_callbacks",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_read_size",
        "socket_timeout",
        "timeout",
    )
)
"""Settings of a client that are ours to decide, or that tie a connection to the pool it came from."""

_NOT_LENT_PREFIXES: Final = ("maint", "orig_", "oss_cluster_")
"""redis-py 7 and newer let the server announce maintenance to a pool; our connections have none."""

_NO_SETINFO: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)
"""CLIENT SETINFO costs a round trip, and redis-py would swallow a protected server's refusal as its reply."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server: a connection class of redis-py and what it is called with."""

    connection_class: type[Any] = Connection
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it leads, for messages."""
        if "path" in self.kwargs:
            return str(self.kwargs["path"])
        return f"{self.kwargs.get('host', 'localhost')}:{self.kwargs.get('port', 6379)}"

    @property
    def database(self) -> int:
        return int(self.kwargs.get("db") or 0)

    def at(self, address: Address) -> ServerSettings:
        """Return the same settings for another server."""
        return replace(self, kwargs={**self.kwargs, "host": address[0], "port": address[1]})

    def make_connection(self) -> Any:
        """Make a connection that is not open yet, with our timeouts and no retries."""
        return self.connection_class(**{**self.kwargs, **_ours(self.connection_class)})


@dataclass(frozen=True, slots=True)
class SentinelSettings:
    """A primary that Sentinels know: who to ask, for which service, and how to talk to the primary."""

    sentinels: Sequence[ServerSettings]
    service: str
    server: ServerSettings


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """A cluster: where to start and how to talk to every node."""

    start: Sequence[Address]
    server: ServerSettings
    address_remap: Callable[[Address], Address] | None = None


AnySettings = ServerSettings | SentinelSettings | ClusterSettings


def borrow(client: AnyRedis | AnySettings) -> AnySettings:
    """Take the settings of a client; the client itself is never used, changed or closed.

    Raises:
        ImproperlyConfigured: It is none of redis.asyncio's, or made for replicas.
    """
    if isinstance(client, AnySettings):
        return client
    if isinstance(client, RedisCluster):
        return _borrow_cluster(client)
    if not isinstance(client, Redis):
        raise ImproperlyConfigured(
            f"expected a client of redis.asyncio (Redis, RedisCluster, Sentinel.master_for), got {type(client)!r}"
        )
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return _borrow_sentinel(pool)
    return ServerSettings(pool.connection_class, _lent(pool.connection_kwargs))


def _borrow_cluster(client: RedisCluster) -> ClusterSettings:
    kwargs = _lent(client.connection_kwargs)
    # The driver's own hook sends READONLY and needs the client that it belongs to.
    kwargs.pop("redis_connect_func", None)
    nodes: list[Any] = list(client.nodes_manager.startup_nodes.values())
    return ClusterSettings(
        start=[(node.host, int(node.port)) for node in nodes],
        server=ServerSettings(nodes[0].connection_class, kwargs),
        address_remap=client.nodes_manager.address_remap,
    )


def _borrow_sentinel(pool: SentinelConnectionPool) -> SentinelSettings:
    if not pool.is_master:
        raise ImproperlyConfigured("this client reads from replicas; make one with Sentinel.master_for(…)")
    kwargs = _lent(pool.connection_kwargs)
    plain = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
    sentinels = [borrow(sentinel) for sentinel in pool.sentinel_manager.sentinels]
    return SentinelSettings(
        sentinels=[each for each in sentinels if isinstance(each, ServerSettings)],
        service=pool.service_name,
        server=ServerSettings(plain, kwargs),
    )


def _lent(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in kwargs.items()
        if name not in _NOT_LENT and not name.startswith(_NOT_LENT_PREFIXES) and value is not None
    }


def _ours(connection_class: type[Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "socket_timeout": CONNECT_TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "health_check_interval": 0,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        **_NO_SETINFO,
    }
    return {**settings, "socket_keepalive": True} if issubclass(connection_class, Connection) else settings


def database_of(settings: AnySettings) -> int:
    """Return the number of the database that connections select."""
    return settings.database if isinstance(settings, ServerSettings) else settings.server.database
