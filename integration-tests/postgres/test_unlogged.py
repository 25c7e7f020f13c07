"""History in unlogged tables, and what a crash of the server makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from channels_core import ChannelsPlugin, Event, Gap, Subscriber
from channels_core.events import Position
from channels_harness import PostgresServer
from channels_harness.binaries import NEWEST_POSTGRES
from channels_harness.brokers import backend_url

from .support import DEADLINE


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """Start a server of our own, to be killed."""
    choice = pytestconfig.getoption("postgres")
    with PostgresServer(NEWEST_POSTGRES if choice == "auto" else choice) as server:
        yield server


async def crash(server: PostgresServer) -> None:
    """Kill the server with all its processes, and start it again with what is left of its data."""
    await asyncio.to_thread(server.restart, kill=True)


async def take(subscriber: Subscriber, count: int) -> list[Event | Gap]:
    async with asyncio.timeout(DEADLINE):
        return [await anext(subscriber) for _ in range(count)]


async def take_gaps(subscriber: Subscriber) -> tuple[list[Gap], Event]:
    """Take gaps up to the next event."""
    gaps: list[Gap] = []
    async with asyncio.timeout(DEADLINE):
        async for item in subscriber:
            if isinstance(item, Event):
                return gaps, item
            gaps.append(item)
    raise EOFError("the stream ended")


async def publish_and_take(plugin: ChannelsPlugin, subscriber: Subscriber, channel: str, count: int) -> list[Position]:
    """Publish, receive, and return the positions."""
    for number in range(count):
        await plugin.wait_published(b"before %d" % number, channel)
    items = await take(subscriber, count)
    return [item.position for item in items if isinstance(item, Event) and item.position]


async def test_a_crash_is_a_gap_and_a_new_epoch(server: PostgresServer, driver: str, channel: str) -> None:
    """A live subscriber is told at once, then gets what is published, under positions of another epoch."""
    url = backend_url(server.url, driver, history=100, unlogged="true")
    async with ChannelsPlugin(url, channels=[channel]) as plugin, plugin.subscribe(channel) as subscriber:
        before = await publish_and_take(plugin, subscriber, channel, 3)
        await crash(server)
        assert await take(subscriber, 1) == [Gap(channel, "epoch", before[-1])]
        await plugin.wait_published(b"after", channel)
        gaps, event = await take_gaps(subscriber)
        assert event.position is not None
        assert (event.data, event.position.offset) == (b"after", 1)
        assert event.position.epoch not in {position.epoch for position in before}
        # The end of the gap is known only now, so it may be told once more.
        assert gaps in ([], [Gap(channel, "epoch", before[-1], event.position.before())])
        assert await plugin.get_history(channel) == [event]


async def test_old_positions_are_a_gap_after_a_crash(server: PostgresServer, driver: str, channel: str) -> None:
    """Whoever resumes from before a crash gets a gap, then all events since, also where these have the same offsets."""
    url = backend_url(server.url, driver, history=100, unlogged="true")
    published_since = {f"{channel}-{count}": [b"%d" % number for number in range(count)] for count in (0, 1, 3, 5)}
    async with ChannelsPlugin(url, channels=list(published_since)) as plugin:
        before: dict[str, list[Position]] = {}
        for name in published_since:
            async with plugin.subscribe(name) as subscriber:
                before[name] = await publish_and_take(plugin, subscriber, name, 3)
        await crash(server)
        for name, since in published_since.items():
            for data in since:
                await plugin.wait_published(data, name)
        for name, since in published_since.items():
            for position in before[name]:
                async with plugin.subscribe(name, after={name: position}) as subscriber:
                    await plugin.wait_published(b"end", name)
                    since.append(b"end")
                    await assert_gap_and_events(subscriber, Gap(name, "epoch", position), since)


async def assert_gap_and_events(subscriber: Subscriber, expected: Gap, payloads: list[bytes]) -> None:
    gap, *events = await take(subscriber, 1 + len(payloads))
    assert isinstance(gap, Gap), gap
    assert (gap.channel, gap.reason, gap.after) == (expected.channel, expected.reason, expected.after)
    assert [event.data for event in events if isinstance(event, Event)] == payloads


async def test_a_clean_restart_keeps_everything(server: PostgresServer, driver: str, channel: str) -> None:
    """A server that was stopped in good order has all events and positions again: there is no gap."""
    url = backend_url(server.url, driver, history=100, unlogged="true")
    async with ChannelsPlugin(url, channels=[channel]) as plugin, plugin.subscribe(channel) as subscriber:
        before = await publish_and_take(plugin, subscriber, channel, 3)
        await asyncio.to_thread(server.restart)
        await plugin.wait_published(b"after", channel)
        (event,) = await take(subscriber, 1)
        assert isinstance(event, Event), event
        assert event.position == Position(before[-1].epoch, 4)
        assert len(await plugin.get_history(channel)) == 4
