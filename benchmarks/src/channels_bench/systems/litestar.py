"""Litestar's built-in channels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from litestar.channels import ChannelsBackend, ChannelsPlugin, Subscriber
from litestar.channels.backends.asyncpg import AsyncPgChannelsBackend
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.backends.psycopg import PsycoPgChannelsBackend
from litestar.channels.backends.redis import RedisChannelsPubSubBackend, RedisChannelsStreamBackend
from redis.asyncio import Redis

from channels_bench.systems.base import Bursts, Stream


class LitestarStream(Stream):
    def __init__(self, plugin: ChannelsPlugin, subscriber: Subscriber) -> None:
        self._plugin = plugin
        self._subscriber = subscriber
        self._events = subscriber.iter_events()

    async def take(self, count: int) -> bytes:
        async for data in self._events:
            count -= 1
            if not count:
                return bytes(data)
        raise RuntimeError("the stream ended early")

    async def close(self) -> None:
        await self._plugin.unsubscribe(self._subscriber)


class Litestar(Bursts):
    """The plugin, on a backend that a subclass makes."""

    @abstractmethod
    def make_backend(self) -> ChannelsBackend:
        """Return a new backend."""

    async def start(self) -> None:
        self.plugin = ChannelsPlugin(self.make_backend(), arbitrary_channels_allowed=True)
        await self.plugin._on_startup()

    async def stop(self) -> None:
        await self.plugin._on_shutdown()

    async def subscribe(self, channel: str) -> Stream:
        return LitestarStream(self.plugin, await self.plugin.subscribe(channel))

    async def publish(self, data: bytes, channel: str) -> None:
        await self.plugin.wait_published(data, channel)

    async def flush(self) -> None:
        queue: Any = self.plugin._pub_queue
        await queue.join()

    def send(self, data: bytes, channel: str) -> None:
        self.plugin.publish(data, channel)

    async def join_many(self, channels: Sequence[str]) -> Sequence[Stream]:
        return [LitestarStream(self.plugin, await self.plugin.subscribe(channels))]

    async def read_history(self, channel: str, count: int) -> int:
        stream = LitestarStream(self.plugin, await self.plugin.subscribe(channel, history=count))
        await stream.take(count)
        await stream.close()
        return count


class Memory(Litestar):
    def make_backend(self) -> ChannelsBackend:
        return MemoryChannelsBackend(history=1000 if "history" in self.url else 0)


class RedisPubSub(Litestar):
    def make_backend(self) -> ChannelsBackend:
        return RedisChannelsPubSubBackend(redis=Redis.from_url(self.url))


class RedisStreams(Litestar):
    def make_backend(self) -> ChannelsBackend:
        self._backend = RedisChannelsStreamBackend(1000, redis=Redis.from_url(self.url))
        return self._backend

    async def stop(self) -> None:
        await self._backend.flush_all()  # its first subscriber would get all of the round before
        await super().stop()


class AsyncPg(Litestar):
    def make_backend(self) -> ChannelsBackend:
        return AsyncPgChannelsBackend(self.url)


class PsycoPg(Litestar):
    def make_backend(self) -> ChannelsBackend:
        return PsycoPgChannelsBackend(self.url)
