"""FastStream's Redis broker."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.redis import RedisBroker

from channels_bench.systems.base import Stream, System


class FastStreamStream(Stream):
    """A handler that counts: FastStream calls back, it does not iterate."""

    def __init__(self) -> None:
        self._received = 0
        self._wanted = 0
        self._last = b""
        self._done: asyncio.Future[None] | None = None
        self._items: asyncio.Queue[bytes] | None = None
        self.subscriber: Any = None

    async def handle(self, body: bytes) -> None:
        if self._items is not None:
            self._items.put_nowait(body)
        self._received += 1
        self._last = body
        if self._done is not None and self._received >= self._wanted and not self._done.done():
            self._done.set_result(None)

    async def take(self, count: int) -> bytes:
        self._wanted += count
        if self._received < self._wanted:
            self._done = asyncio.get_running_loop().create_future()
            await self._done
        return self._last

    async def next_item(self) -> bytes | None:
        if self._items is None:
            self._items = asyncio.Queue()
        return await self._items.get()

    async def close(self) -> None:
        await self.subscriber.stop()


class FastStream(System):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        silent: Any = None  # documented, and not in the type
        self._broker: Any = RedisBroker(url, logger=silent)

    async def start(self) -> None:
        await self._broker.start()

    async def stop(self) -> None:
        await self._broker.stop()

    async def subscribe(self, channel: str) -> Stream:
        stream = FastStreamStream()
        stream.subscriber = self._broker.subscriber(channel)
        stream.subscriber(stream.handle)
        await stream.subscriber.start()
        return stream

    async def publish(self, data: bytes, channel: str) -> None:
        await self._broker.publish(data, channel)
