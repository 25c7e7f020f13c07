"""Encode's broadcaster."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from broadcaster import Broadcast

from channels_bench.systems.base import Stream, System


class BroadcasterStream(Stream):
    def __init__(self, events: Any, stack: AsyncExitStack) -> None:
        self._events = aiter(events)
        self._stack = stack

    async def take(self, count: int) -> bytes:
        async for event in self._events:
            count -= 1
            if not count:
                return str(event.message).encode()
        raise RuntimeError("the stream ended early")

    async def close(self) -> None:
        await self._stack.aclose()


class Broadcaster(System):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._broadcast = Broadcast(url)

    async def start(self) -> None:
        await self._broadcast.connect()

    async def stop(self) -> None:
        await self._broadcast.disconnect()

    async def subscribe(self, channel: str) -> Stream:
        stack = AsyncExitStack()
        stream = BroadcasterStream(await stack.enter_async_context(self._broadcast.subscribe(channel)), stack)
        ready = getattr(self._broadcast._backend, "_ready", None)
        if ready is not None:
            ready.set()  # with redis-py 8 its listener looks too early, finds no subscription and sleeps for ever
        return stream

    async def publish(self, data: bytes, channel: str) -> None:
        await self._broadcast.publish(channel, data.decode())


class RedisStreams(Broadcaster):
    def __init__(self, url: str) -> None:
        super().__init__(url.replace("redis://", "redis-stream://", 1))
