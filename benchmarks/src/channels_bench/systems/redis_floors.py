"""Floors on Redis: the driver and the protocol, with callbacks and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import Redis

from channels_bench.systems.base import Stream, System
from channels_bench.systems.floors import Counter

BATCH = 500
"""Commands in one pipeline."""


class RedisPy(System):
    """redis-py: a pipeline to publish, one Pub/Sub reader that calls every sink."""

    async def start(self) -> None:
        self._redis: Any = Redis.from_url(self.url)
        self._pubsub: Any = self._redis.pubsub()
        self._sinks: dict[bytes, list[Counter]] = {}
        self._reader: asyncio.Task[None] | None = None
        await self._redis.ping()

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait((self._reader,))
        await self._pubsub.aclose()
        await self._redis.aclose()

    async def subscribe(self, channel: str) -> Stream:
        sinks = self._sinks.setdefault(channel.encode(), [])
        if not sinks:
            await self._pubsub.subscribe(channel)
            await self._pubsub.get_message(timeout=5)
        sinks.append(Counter())
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        return sinks[-1]

    async def join_many(self, channels: Sequence[str]) -> Sequence[Stream]:
        """One raw ``SUBSCRIBE`` of all names, confirmed."""
        await self._pubsub.subscribe(*channels)
        for _ in channels:
            await self._pubsub.parse_response()
        return []

    async def leave_all(self, streams: Sequence[Stream]) -> None:
        left = len(self._pubsub.channels)
        await self._pubsub.unsubscribe()
        for _ in range(left):
            await self._pubsub.parse_response()

    async def _read(self) -> None:
        async for message in self._pubsub.listen():
            if message["type"] == "message":
                for sink in self._sinks[message["channel"]]:
                    sink.push(message["data"])

    async def publish(self, data: bytes, channel: str) -> None:
        await self._redis.publish(channel, data)

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        for start in range(0, len(events), BATCH):
            pipeline = self._redis.pipeline(transaction=False)
            for data in events[start : start + BATCH]:
                self._add(pipeline, channel, data)
            await pipeline.execute()

    def _add(self, pipeline: Any, channel: str, data: bytes) -> None:
        pipeline.publish(channel, data)


class RedisPyXAdd(RedisPy):
    """The same pipeline, of ``XADD`` with a length limit."""

    def _add(self, pipeline: Any, channel: str, data: bytes) -> None:
        pipeline.xadd(channel, {"d": data}, maxlen=1000, approximate=True)


class Wire(asyncio.Protocol):
    """One connection: counts replies, hands messages to sinks."""

    def __init__(self, sinks: dict[bytes, list[Counter]]) -> None:
        self._sinks = sinks
        self._reader = hiredis.Reader()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._replies = 0
        self._expected = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        gets, sinks = self._reader.gets, self._sinks
        while (frame := gets()) is not False:
            if isinstance(frame, list) and frame[0] == b"message":
                for sink in sinks[frame[1]]:
                    sink.push(frame[2])
            else:
                self._replies += 1
        while self._waiters and self._waiters[0][0] <= self._replies:
            self._waiters.pop(0)[1].set_result(None)

    async def call(self, command: bytes, replies: int) -> None:
        """Send, and return when all replies are there."""
        self._expected += replies
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((self._expected, done))
        self.transport.write(command)
        await done


class HiredisProtocol(System):
    """An `asyncio.Protocol` with `hiredis.Reader` on both sides: about what Python can do at all."""

    async def start(self) -> None:
        self._sinks: dict[bytes, list[Counter]] = {}
        self._reading = await self._connect()
        self._writing = await self._connect()

    async def _connect(self) -> Wire:
        where = urlsplit(self.url)
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: Wire(self._sinks), where.hostname or "", where.port or 6379)
        return wire

    async def stop(self) -> None:
        self._reading.transport.close()
        self._writing.transport.close()

    async def subscribe(self, channel: str) -> Stream:
        sinks = self._sinks.setdefault(channel.encode(), [])
        if not sinks:
            await self._reading.call(_pack(b"SUBSCRIBE", channel.encode()), 1)
        sinks.append(Counter())
        return sinks[-1]

    async def publish(self, data: bytes, channel: str) -> None:
        await self._writing.call(_pack(b"PUBLISH", channel.encode(), data), 1)

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        name = channel.encode()
        for start in range(0, len(events), BATCH):
            batch = events[start : start + BATCH]
            await self._writing.call(b"".join([_pack(b"PUBLISH", name, data) for data in batch]), len(batch))


def _pack(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
