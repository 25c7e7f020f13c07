"""Two channels whose names have the same hash: each comes and goes for itself."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from channels_core import ChannelsPlugin, Event
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker, backend_url
from channels_postgres._filter import channel_hash

from .support import DEADLINE, MakeBackend, Reader

ALIKE: Final = ("room-36008", "room-38138")
"""The server stores 32 bits of a hash with each event, and these have the same: found by trying."""

OTHERS: Final = 300
"""Channels to come and go: more than enough for the filter to be built anew."""


@pytest.mark.parametrize("name", [*ALIKE, "", "ünïcode 🐘", "NUL\0"])
async def test_both_sides_hash_alike(make_backend: MakeBackend, postgres_broker: Broker, name: str) -> None:
    """The server stores with an event the hash that readers ask for."""
    await make_backend(history=10)
    with PostgresAdmin(postgres_broker.url).connect() as connection:
        row = connection.execute("SELECT channels.channel_hash(%s)", [name.encode()]).fetchone()
    assert row == (channel_hash(name.encode()),)
    assert len({channel_hash(each.encode()) for each in ALIKE}) == 1


@pytest.mark.parametrize("left, kept", [ALIKE, ALIKE[::-1]])
async def test_leaving_one_channel_keeps_the_other(
    make_backend: MakeBackend, channel: str, left: str, kept: str
) -> None:
    """A backend that left one of two channels with the same hash receives the other, and only it."""
    backend, publisher = await make_backend(history=10), await make_backend(history=10)
    others = [f"{channel}-{number}" for number in range(OTHERS)]
    async with Reader(backend) as reader:
        await backend.subscribe([left, kept])
        await backend.unsubscribe([left])
        await backend.subscribe(others)
        await backend.unsubscribe(others)
        await publisher.publish(b"never", [left])
        await publisher.publish(b"kept", [kept])
        event = await reader.next()
        assert (event.channel, event.data) == (kept, b"kept")
        await backend.subscribe([left])
        await publisher.publish(b"back", [left])
        event = await reader.next()
        assert (event.channel, event.data) == (left, b"back")


@pytest.mark.parametrize("left, kept", [ALIKE, ALIKE[::-1]])
async def test_subscribers_of_one_channel_stay(
    driver: str, postgres_broker: Broker, channel: str, left: str, kept: str
) -> None:
    """A subscriber goes on while those of a channel with the same hash, and of many others, come and go."""
    url = backend_url(postgres_broker.url, driver, history=10)
    others = [f"{channel}-{number}" for number in range(OTHERS)]
    async with ChannelsPlugin(url, arbitrary_channels_allowed=True) as plugin, plugin.subscribe(kept) as subscriber:
        for names in ([left], others):
            async with plugin.subscribe(names):
                pass
            await all_but_one_left(plugin)
        await plugin.wait_published(b"kept", kept)
        async with asyncio.timeout(DEADLINE):
            event = await anext(subscriber)
    assert isinstance(event, Event)
    assert (event.channel, event.data) == (kept, b"kept")


async def all_but_one_left(plugin: ChannelsPlugin) -> None:
    """Return when the plugin has told the broker what it has left."""
    async with asyncio.timeout(DEADLINE):
        while plugin.stats().channels > 1:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
