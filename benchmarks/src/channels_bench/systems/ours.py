"""Our own plugin, on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from channels_bench.systems.base import Bursts, Stream
from channels_core import ChannelsPlugin, Event, Gap, Subscriber


class ChannelsStream(Stream):
    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._items: AsyncIterator[Event | Gap] | None = None

    async def take(self, count: int) -> bytes:
        async for item in self._subscriber:
            if not isinstance(item, Event):
                raise RuntimeError(f"a benchmark must lose nothing: {item!r}")  # noqa: TRY004 - no error of types
            count -= 1
            if not count:
                return item.data
        raise RuntimeError("the stream ended early")

    async def next_item(self) -> bytes | None:
        if self._items is None:
            self._items = aiter(self._subscriber)
        item = await anext(self._items)
        return item.data if isinstance(item, Event) else None

    async def close(self) -> None:
        await self._subscriber.stop()


class Channels(Bursts):
    """The plugin on the backend that the URL names."""

    scheme: ClassVar = ""
    """What the scheme begins with in place of the server's own."""

    query: ClassVar = ""

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        super().__init__(f"{self.scheme or scheme}://{rest}{self.query}")
        self.plugin = ChannelsPlugin(self.url, arbitrary_channels_allowed=True, max_pending=10_000_000)

    async def start(self) -> None:
        await self.plugin.start()

    async def stop(self) -> None:
        await self.plugin.stop()

    async def subscribe(self, channel: str) -> Stream:
        return ChannelsStream(await self.plugin.subscribe(channel))

    async def publish(self, data: bytes, channel: str) -> None:
        await self.plugin.wait_published(data, channel)

    async def flush(self) -> None:
        while self.plugin.stats().pending:  # noqa: ASYNC110 - what users can do as well
            await asyncio.sleep(0.001)

    def send(self, data: bytes, channel: str) -> None:
        self.plugin.publish(data, channel)

    async def join_many(self, channels: Sequence[str]) -> Sequence[Stream]:
        return [ChannelsStream(await self.plugin.subscribe(channels))]

    async def read_history(self, channel: str, count: int) -> int:
        stream = ChannelsStream(await self.plugin.subscribe(channel, history=count))
        await stream.take(count)
        await stream.close()
        return count


class Memory(Channels):
    pass


class RedisPubSub(Channels):
    pass


class RedisStreams(Channels):
    scheme = "redis+streams"
    query = "?history=1000"


class AsyncPg(Channels):
    pass


class AsyncPgHistory(Channels):
    query = "?history=1000"


class PsycoPg(Channels):
    scheme = "postgresql+psycopg"


class PsycoPgHistory(Channels):
    scheme = "postgresql+psycopg"
    query = "?history=1000"
