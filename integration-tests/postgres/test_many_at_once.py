"""Hundreds of channels joined and left at the same time: no error, nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from channels_core import ChannelsPlugin, Event, Subscriber
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker, backend_url
from channels_postgres._backend import PostgresChannelsBackend

from .support import DEADLINE

VISITORS: Final = 500
ROUNDS: Final = 2

MOST_CONNECTIONS: Final = {0: 1 + 3, 100: 1 + 3 + 4 + 1}
"""By history: one for listening, up to three for publishing; with history up to four for reading, one for wake-ups."""


@pytest.fixture(params=MOST_CONNECTIONS, ids=["without history", "with history"])
def history(request: pytest.FixtureRequest) -> int:
    """Choose how many events are kept."""
    return int(request.param)


class Visitors:
    """Come and go, each in channels of its own, and publish to a busy channel meanwhile."""

    def __init__(self, plugin: ChannelsPlugin, channel: str) -> None:
        self._plugin: Final = plugin
        self._channel: Final = channel
        self._history: Final = 10 if plugin.backend.keeps_history else None
        self._all_here: Final = asyncio.Barrier(VISITORS)
        self.busy: Final = f"{channel}-busy"
        self.sent: Final[list[bytes]] = []

    async def visit(self, visitor: int) -> None:
        for turn in range(ROUNDS):
            name = f"{self._channel}-{visitor}-{turn}"
            async with self._plugin.subscribe(name, history=self._history) as subscriber:
                await self._plugin.wait_published(b"%d" % visitor, name)
                event = await anext(subscriber)
                assert isinstance(event, Event), event
                assert (event.channel, event.data) == (name, b"%d" % visitor)
                self._publish_busy(b"%d.%d" % (visitor, turn))
                await self._all_here.wait()

    def _publish_busy(self, data: bytes) -> None:
        self.sent.append(data)
        self._plugin.publish(data, self.busy)

    async def follow(self, subscriber: Subscriber) -> None:
        """Check that the busy channel brings everything in order."""
        for number in range(VISITORS * ROUNDS):
            event = await anext(subscriber)
            assert isinstance(event, Event), event
            assert event.data == self.sent[number]


async def test_visitors_come_and_go(history: int, driver: str, postgres_broker: Broker, channel: str) -> None:
    """500 channels are joined and left at once: each event arrives, over few connections, and none listens on."""
    plugin = ChannelsPlugin(backend_url(postgres_broker.url, driver, history=history), arbitrary_channels_allowed=True)
    admin = PostgresAdmin(postgres_broker.url)
    others = len(admin.connections())
    async with asyncio.timeout(DEADLINE), plugin, counted_connections(admin) as counts:
        visitors = Visitors(plugin, channel)
        async with plugin.subscribe(visitors.busy) as subscriber:
            before = await listening(plugin)
            follower = asyncio.create_task(visitors.follow(subscriber))
            await asyncio.gather(follower, *map(visitors.visit, range(VISITORS)))
            await all_but_one_left(plugin)
            assert await listening(plugin) == before
        stats = plugin.stats()
    assert (stats.gaps, stats.failed, stats.dropped, stats.reconnects) == (0, 0, 0, 0)
    assert max(counts) - others <= MOST_CONNECTIONS[history]


@asynccontextmanager
async def counted_connections(admin: PostgresAdmin) -> AsyncIterator[list[int]]:
    """Give the counts of the server's connections during the block."""
    counts: list[int] = []

    async def count() -> None:
        while True:
            counts.append(len(await asyncio.to_thread(admin.connections)))
            await asyncio.sleep(0.02)  # the server has other things to do

    task = asyncio.create_task(count())
    try:
        yield counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert counts


async def listening(plugin: ChannelsPlugin) -> set[str]:
    """Ask the server what the plugin's receiving connection listens to."""
    backend: Any = plugin.backend
    assert isinstance(backend, PostgresChannelsBackend)
    assert backend._session is not None
    rows = await backend._session.listener.call(lambda link: link.fetch("SELECT pg_listening_channels()"))
    return {str(name) for (name,) in rows}


async def all_but_one_left(plugin: ChannelsPlugin) -> None:
    """Return when the plugin has told the broker what it has left."""
    while plugin.stats().channels > 1:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.01)
