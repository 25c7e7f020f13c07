"""What the tests of the core share: a slow memory backend, a broker of the test's own, and ways to read streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from channels_core import Event, Gap, Position, Subscriber
from channels_core._memory_broker import MemoryBroker
from channels_core.backend import History, Publication
from channels_core.exceptions import BackendError
from channels_core.memory import MemoryChannelsBackend

DEADLINE = 10.0
"""Seconds after which a test that waits is taken to hang."""


async def take(stream: AsyncIterator[Any], count: int) -> list[Any]:
    """Take so many items."""
    async with asyncio.timeout(DEADLINE):
        return [await anext(stream) for _ in range(count)]


async def take_rest(stream: AsyncIterator[Any]) -> list[Any]:
    """Take everything up to the end of the stream."""
    async with asyncio.timeout(DEADLINE):
        return [item async for item in stream]


async def data(stream: Subscriber, count: int) -> list[bytes]:
    """Take so many items, which must all be events, and return their data."""
    items = await take(stream, count)
    assert all(isinstance(item, Event) for item in items), items
    return [item.data for item in items]


async def turns(count: int = 20) -> None:
    """Give every task that is ready a chance to run; for what must have happened without waiting for anything."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Give others a turn until something holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of the test
            await asyncio.sleep(0)


def event(offset: int, channel: str = "a", epoch: str = "e") -> Event:
    """Return an event whose data tells its position."""
    return Event(channel, f"{channel}{offset}".encode(), Position(epoch, offset))


def backlog_gap(first: int, last: int, channel: str = "a", epoch: str = "e") -> Gap:
    """Return the gap for events from ``first`` to ``last`` that a full backlog dropped."""
    return Gap(channel, "backlog", Position(epoch, first - 1), Position(epoch, last), last - first + 1)


def broker_of(backend: MemoryChannelsBackend) -> MemoryBroker:
    """Return the broker behind a backend."""
    return backend._broker


class SlowMemory(MemoryChannelsBackend):
    """Waits in every verb before and after the work, as a backend with a network does; refuses what it is told to.

    Attributes:
        calls: The verbs so far.
        refused: Data that the broker refuses for good.
        batches: Sizes of the batches so far.
        gate: Clear it to keep publishing from going on.
        read_gate: Clear it to keep history reads from going on.
    """

    def __init__(self, history: int = 0) -> None:
        super().__init__(history)
        self.calls: list[str] = []
        self.refused: set[bytes] = set()
        self.batches: list[int] = []
        self.batch_bytes: list[int] = []
        self.keys: list[tuple[str, int] | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.read_gate = asyncio.Event()
        self.read_gate.set()

    async def subscribe(self, channels: Sequence[str]) -> None:
        self.calls.append("subscribe")
        await asyncio.sleep(0)
        await super().subscribe(channels)
        await asyncio.sleep(0)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self.calls.append("unsubscribe")
        await asyncio.sleep(0)
        await super().unsubscribe(channels)
        await asyncio.sleep(0)

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        self.calls.append("publish")
        self.batches.append(len(batch))
        self.batch_bytes.append(sum(len(publication.data) for publication in batch))
        self.keys += [publication.key for publication in batch]
        await self.gate.wait()
        await asyncio.sleep(0)
        outcomes: list[BackendError | None] = []
        for publication in batch:
            if publication.data in self.refused:
                outcomes.append(BackendError("refused for good"))
            else:
                outcomes += await super().publish_batch((publication,))
        await asyncio.sleep(0)
        return outcomes

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        self.calls.append("get_history")
        await self.read_gate.wait()
        await asyncio.sleep(0)
        history = await super().get_history(channel, limit, after=after)
        await asyncio.sleep(0)
        return history
