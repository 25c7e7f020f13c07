"""Floors in memory: the least that fan-out can cost in asyncio, with nothing that a system must do beside it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from channels_bench.systems.base import BURST, Stream, System


class Counter(Stream):
    """A callback that counts."""

    def __init__(self) -> None:
        self._received = 0
        self._wanted = 0
        self._last = b""
        self._done: asyncio.Future[None] | None = None

    def push(self, data: bytes) -> None:
        self._received += 1
        self._last = data
        if self._received == self._wanted and self._done is not None:
            self._done.set_result(None)

    async def take(self, count: int) -> bytes:
        self._wanted += count
        if self._received < self._wanted:
            self._done = asyncio.get_running_loop().create_future()
            await self._done
        return self._last


class Waiting(Stream):
    """A deque, one future, and ``async for``: what a stream is at the least, if its consumer iterates."""

    __slots__ = ("_items", "_waiter")

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def push(self, data: bytes) -> None:
        self._items.append(data)
        if self._waiter is not None:
            self._waiter.set_result(None)
            self._waiter = None

    def __aiter__(self) -> Waiting:
        return self

    async def __anext__(self) -> bytes:
        if not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()

    async def take(self, count: int) -> bytes:
        async for data in self:
            count -= 1
            if not count:
                return data
        raise RuntimeError("the stream ended early")


class Loop(Waiting):
    """The same without an iterator: the consumer's own loop empties the deque."""

    __slots__ = ()

    async def take(self, count: int) -> bytes:
        data = b""
        items = self._items
        while True:
            while items:
                data = items.popleft()
                count -= 1
                if not count:
                    return data
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Floor(System):
    """Calls every sink's ``push``."""

    sink: type[Counter] | type[Waiting] = Waiting

    async def start(self) -> None:
        self._sinks: dict[str, list[Counter | Waiting]] = {}

    async def stop(self) -> None:
        self._sinks.clear()

    async def subscribe(self, channel: str) -> Stream:
        sink = self.sink()
        self._sinks.setdefault(channel, []).append(sink)
        return sink

    async def publish(self, data: bytes, channel: str) -> None:
        for sink in self._sinks.get(channel, ()):
            sink.push(data)

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        sinks = self._sinks[channel]
        for start in range(0, len(events), BURST):
            for data in events[start : start + BURST]:
                for sink in sinks:
                    sink.push(data)
            await asyncio.sleep(0)


class DequeFloor(Floor):
    sink = Waiting


class LoopFloor(Floor):
    sink = Loop


class CallbackFloor(Floor):
    sink = Counter
