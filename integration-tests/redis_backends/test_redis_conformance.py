"""The conformance kit on both backends, on whatever broker `--redis` names."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Final

import psutil
import pytest
import redis

from channels_core.backend import ChannelsBackend
from channels_core.registry import create_backend
from channels_core.testing.suite import ChannelsBackendSuite
from channels_harness.admin import RedisAdmin
from channels_harness.brokers import Broker, backend_url
from channels_redis import RedisChannelsPubSubBackend
from channels_redis._runs import make_keys

HISTORY: Final = 200

pytestmark = pytest.mark.timeout(120)


class _OnRedis(ChannelsBackendSuite):
    """What both suites need to know of the broker."""

    max_payload = RedisChannelsPubSubBackend.max_payload
    idle_seconds = 1.0
    variant: ClassVar[str] = ""
    options: ClassVar[dict[str, Any]] = {}
    broker: Broker

    @pytest.fixture(autouse=True)
    def _bind(self, redis_broker: Broker) -> None:
        self.broker = redis_broker
        server = redis_broker.server
        if server is not None:
            self.stop_broker = lambda: asyncio.to_thread(server.stop)
            self.start_broker = lambda: asyncio.to_thread(server.start)
            self.change_incarnation = lambda: asyncio.to_thread(server.restart)

    @property
    def admin(self) -> RedisAdmin:
        assert isinstance(self.broker.admin, RedisAdmin)
        return self.broker.admin

    def make_backend(self) -> ChannelsBackend:
        return create_backend(backend_url(self.broker.url, self.variant, **self.options))

    async def cut_connections(self) -> None:
        await asyncio.to_thread(lambda: self.admin.cut(_own_ports()))

    async def connection_count(self) -> int:
        # Sentinels and replicas have connections too, and come and go as they like.
        return await asyncio.to_thread(lambda: len(_own_ports() & set(self.admin.connections())))


class TestPubSub(_OnRedis):
    """Redis Pub/Sub keeps nothing."""


class TestStreams(_OnRedis):
    """Redis streams keep history."""

    keeps_history = True
    variant = "streams"
    options: ClassVar[dict[str, Any]] = {"history": HISTORY}

    async def lose_memory(self) -> None:
        await asyncio.to_thread(self.admin.flush)

    async def trim(self, channel: str, keep: int) -> None:
        await asyncio.to_thread(_trim, self.admin, make_keys("channels", channel, 0).stream, keep)


def _own_ports() -> set[int]:
    connections = psutil.Process().net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_ESTABLISHED}


def _trim(admin: RedisAdmin, stream: bytes, keep: int) -> None:
    with admin.clients() as clients:
        for client in clients:
            try:
                client.xtrim(stream, maxlen=keep, approximate=False)
            except redis.exceptions.MovedError:
                continue
