"""Backends that start and join while others write: from `subscribe` on, the stream has everything, once and in order.

The backends are bare, because a plugin would repair what its backend leaves out. Their listening connection is slower
than the writers' connections, as on a network: what a read or a snapshot misses on its way must not get lost.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

from channels_core.backend import ChannelsBackend
from channels_core.events import Event, Position
from channels_core.registry import create_backend
from channels_core.testing import Proxy
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker, backend_url

from .support import DEADLINE, Reader

WRITERS: Final = 6
JOINERS: Final = 2
STARTS: Final = 8
"""Backends that each joiner starts, one after the other."""

DELAY: Final = 0.002
"""Seconds on the way from a backend to the server, and as many back: longer than a short transaction."""


class Writers:
    """Transactions of 0 to 20 ms to a few channels, one in five rolled back, until `stop`."""

    def __init__(self, rng: random.Random, url: str, channels: list[str], clock: Iterator[int]) -> None:
        self._rng: Final = rng
        self._url: Final = url
        self._channels: Final = channels
        self._clock: Final = clock
        self._stopped = False
        self._tasks: Final[list[asyncio.Task[None]]] = []
        # When the commit was sent, and which channels it concerns.
        self.committed: Final[dict[bytes, tuple[int, list[str]]]] = {}

    def start(self) -> None:
        self._tasks.extend(asyncio.create_task(self._write(number)) for number in range(WRITERS))

    async def stop(self) -> None:
        """Let each writer end its transaction. Idempotent."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _write(self, writer: int) -> None:
        async with await psycopg.AsyncConnection.connect(self._url) as connection:
            for turn in itertools.count():
                if self._stopped:
                    break
                await self._write_once(connection, f"{writer}.{turn}")

    async def _write_once(self, connection: psycopg.AsyncConnection, data: str) -> None:
        names = self._rng.sample(self._channels, self._rng.choice([1, 1, 2]))
        for name in names:
            await connection.execute("SELECT channels.publish(%s, %s)", [name, data])
            await asyncio.sleep(self._rng.uniform(0, 0.02) / len(names))
        if self._rng.random() < 0.2:
            await connection.rollback()
            return
        sent = next(self._clock)
        await connection.commit()
        self.committed[data.encode()] = sent, names


class Stream:
    """What a bare backend brings of each channel, and when it had joined it."""

    def __init__(self, backend: ChannelsBackend, clock: Iterator[int]) -> None:
        self.reader: Final = Reader(backend)
        self._backend: Final = backend
        self._clock: Final = clock
        self._joined: Final[dict[str, int]] = {}
        self._tops: Final[dict[str, Position]] = {}
        self._events: Final[dict[str, list[Event]]] = {}

    async def join(self, channel: str, *, by_history: bool) -> None:
        """Subscribe, and read the newest position right after."""
        self._events[channel] = []
        await self._backend.subscribe([channel])
        self._joined[channel] = next(self._clock)
        if by_history:
            self._tops[channel] = (await self._backend.get_history(channel, 0)).top
        else:
            self._tops[channel] = (await self._backend.get_tops([channel]))[channel]

    async def read_to_top(self) -> None:
        """Read everything that has been published by now."""
        tops = await self._backend.get_tops(list(self._joined))
        while any(self._head(channel) < top.offset for channel, top in tops.items()):
            event = await self.reader.next()
            assert event.position is not None
            expected = self._head(event.channel) + 1
            assert event.position.offset <= expected, f"missing between {expected} and {event.position}"
            self._events[event.channel].append(event)

    def check(self, channel: str, history: Sequence[Event], sent: dict[bytes, int]) -> None:
        """Check that events are those of history, without a hole, and begin before anything sent since the join."""
        events = self._events[channel]
        if not events:  # then none was published between the top after the join and the last top
            return
        begin = offset_of(events[0])
        assert begin <= self._tops[channel].offset + 1
        assert events == list(history[begin - 1 : begin - 1 + len(events)])
        later = [offset_of(event) for event in history if sent[event.data] > self._joined[channel]]
        assert min(later, default=begin) >= begin, "committed after the join, and not brought"

    def _head(self, channel: str) -> int:
        events = self._events[channel]
        return max(self._tops[channel].offset, offset_of(events[-1]) if events else 0)


def offset_of(event: Event) -> int:
    assert event.position is not None
    return event.position.offset


class Run:
    """Writers, and backends that come and go at the same time."""

    def __init__(self, seed: int, url: str, driver: str, listen_dsn: str, channel: str) -> None:
        self.channels: Final = [f"{channel}-{name}" for name in "abc"]
        self.streams: Final[list[Stream]] = []
        self._rng: Final = random.Random(seed)
        self._clock: Final = itertools.count()
        self._url: Final = backend_url(url, driver, history=100_000, listen_dsn=listen_dsn)
        self.writers: Final = Writers(self._rng, url, self.channels, self._clock)

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Stream]:
        """Start a backend and join one channel after the other; at some time in between it begins to read."""
        backend = create_backend(self._url)
        stream = Stream(backend, self._clock)
        names = self._rng.sample(self.channels, len(self.channels))
        reads_from = self._rng.choice(names)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(backend.on_shutdown)
            await backend.on_startup()
            for name in names:
                if name == reads_from:
                    await stack.enter_async_context(stream.reader)
                if self._rng.random() < 0.5:
                    await backend.subscribe([f"{name}-other"])
                await stream.join(name, by_history=self._rng.random() < 0.5)
            yield stream
        self.streams.append(stream)

    async def come_and_go(self) -> None:
        for _ in range(STARTS):
            async with self.started() as stream:
                await stream.read_to_top()


@pytest.mark.parametrize("seed", range(2))
async def test_joins_miss_nothing(seed: int, driver: str, channel: str, postgres_broker: Broker) -> None:
    """Whenever a backend starts and joins, what commits afterwards comes, with consecutive offsets, up to the last."""
    admin = PostgresAdmin(postgres_broker.url)
    async with AsyncExitStack() as stack:
        run = Run(seed, postgres_broker.url, driver, slow_url(stack, postgres_broker.url), channel)
        await prepare_schema(postgres_broker.url, driver)
        stack.enter_context(admin.open_transaction(f"SELECT channels.publish('{run.channels[0]}', 'never')"))
        stack.enter_context(admin.open_transaction())
        run.writers.start()
        stack.push_async_callback(run.writers.stop)
        async with asyncio.timeout(DEADLINE), run.started() as first:
            async with asyncio.TaskGroup() as joiners:
                for _ in range(JOINERS):
                    joiners.create_task(run.come_and_go())
            async with run.started() as last:
                await run.writers.stop()
                for stream in (first, last):
                    await stream.read_to_top()
        await check_all(run, postgres_broker.url, driver)


def slow_url(stack: AsyncExitStack, url: str) -> str:
    """Return a URL that leads through a proxy that takes its time."""
    port = urlsplit(url).port
    assert port is not None
    proxy = stack.enter_context(Proxy("127.0.0.1", port))
    proxy.delay = DELAY
    return url.replace(f":{port}", f":{proxy.port}")


@asynccontextmanager
async def started_backend(url: str, driver: str) -> AsyncIterator[ChannelsBackend]:
    backend = create_backend(backend_url(url, driver, history=100_000))
    await backend.on_startup()
    try:
        yield backend
    finally:
        await backend.on_shutdown()


async def prepare_schema(url: str, driver: str) -> None:
    async with started_backend(url, driver):
        pass


async def check_all(run: Run, url: str, driver: str) -> None:
    """Compare what was committed, what history has, and what all streams brought."""
    sent = {data: when for data, (when, _) in run.writers.committed.items()}
    async with started_backend(url, driver) as backend:
        for channel in run.channels:
            history = (await backend.get_history(channel)).events
            committed = [data for data, (_, names) in run.writers.committed.items() if channel in names]
            assert sorted(event.data for event in history) == sorted(committed)
            for stream in run.streams:
                stream.check(channel, history, sent)
