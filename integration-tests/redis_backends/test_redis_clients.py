"""Clients that the caller made lend their settings and are left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from channels_core.backend import ChannelsBackend
from channels_core.exceptions import ImproperlyConfigured
from channels_harness import RedisSentinel
from channels_harness.brokers import Broker
from channels_redis import RedisChannelsPubSubBackend, RedisChannelsStreamBackend


async def round_trip(backend: ChannelsBackend, channel: str) -> None:
    """Publish and receive one event."""
    await backend.on_startup()
    try:
        await backend.subscribe([channel])
        await backend.publish(b"x", [channel])
        events = backend.stream_events()
        async with asyncio.timeout(20):
            assert (await anext(events)).data == b"x"
        await events.aclose()  # type: ignore[attr-defined]  # ours is a generator
    finally:
        await backend.on_shutdown()


def make_sentinel(ports: list[int]) -> Any:
    """Make a client of Sentinels."""
    untyped: Any = Sentinel
    return untyped([("127.0.0.1", port) for port in ports])


def clients(broker: Broker) -> list[Any]:
    """Clients of all kinds for this broker, with settings that would hurt if they were used."""
    server = broker.server
    hurting: dict[str, Any] = {"socket_timeout": 0.001, "decode_responses": True, "health_check_interval": 1}
    if "cluster" in broker.version:
        port = int(broker.url.split(",")[0].rpartition(":")[2])
        return [RedisCluster(host="127.0.0.1", port=port, decode_responses=True)]
    if isinstance(server, RedisSentinel):
        return [make_sentinel([sentinel.port for sentinel in server.sentinels]).master_for("channels")]
    return [
        Redis.from_url(broker.url),
        Redis.from_url(broker.url, protocol=3, retry=Retry(ConstantBackoff(10), 5), **hurting),
        Redis(connection_pool=BlockingConnectionPool.from_url(broker.url, max_connections=1, protocol=2)),
    ]


async def close(client: Any) -> None:
    """Close a client, and the connections to Sentinels that it does not close itself."""
    await client.aclose()
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()


async def test_a_client_lends_its_settings_only(redis_broker: Broker, channel: str) -> None:
    """Its timeouts, decoding, pool limit and retries do not reach our connections, and it still works afterwards."""
    for client in clients(redis_broker):
        await round_trip(RedisChannelsPubSubBackend(redis=client), channel)
        await round_trip(RedisChannelsStreamBackend(10, redis=client), channel)
        await close(client)


async def test_a_client_is_never_closed(redis_broker: Broker, channel: str) -> None:
    """Stopping the backend leaves the caller's connections open."""
    client = clients(redis_broker)[0]
    await client.ping()
    before = len(redis_broker.admin.connections())
    await round_trip(RedisChannelsPubSubBackend(redis=client), channel)
    assert await client.ping()
    assert len(redis_broker.admin.connections()) >= before
    await close(client)


async def test_a_client_for_replicas_is_refused() -> None:
    """Publishing through a replica cannot work, and says so when the backend is made."""
    with pytest.raises(ImproperlyConfigured, match="master_for"):
        RedisChannelsPubSubBackend(redis=make_sentinel([1]).slave_for("channels"))


async def test_something_else_is_refused() -> None:
    """A blocking client is a mistake that is easily made."""
    wrong: Any = object()
    with pytest.raises(ImproperlyConfigured, match=r"redis\.asyncio"):
        RedisChannelsStreamBackend(10, redis=wrong)
