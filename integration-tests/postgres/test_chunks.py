"""With history: a row holds all that one transaction published to a channel, and nobody sees where it ends."""

from __future__ import annotations

import random
from itertools import count

import pytest

from channels_core.backend import Publication
from channels_core.events import Position
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker
from channels_postgres._backend import PostgresChannelsBackend

from .support import MakeBackend


@pytest.fixture
async def backend(make_backend: MakeBackend) -> PostgresChannelsBackend:
    return await make_backend(history=20)


async def publish(backend: PostgresChannelsBackend, channels: list[str], first: int, last: int) -> None:
    """Publish numbered events in one batch, in a lane, each to one of the channels in turn."""
    batch = [
        Publication(b"%d" % number, (channels[number % len(channels)],), ("lane", number))
        for number in range(first, last + 1)
    ]
    assert await backend.publish_batch(batch) == [None] * len(batch)


async def stored(backend: PostgresChannelsBackend, channel: str) -> list[int]:
    """Return the numbers of the events that history has."""
    return [int(event.data) for event in (await backend.get_history(channel)).events]


@pytest.mark.parametrize("channels", [1, 2])
async def test_a_retry_that_overlaps_stores_what_is_new(
    backend: PostgresChannelsBackend, channel: str, channels: int
) -> None:
    """Of a batch that was accepted in part, only events with a higher number in their channel are stored."""
    names = [f"{channel}-{number}" for number in range(channels)]
    await publish(backend, names, 1, 6)
    await publish(backend, names, 3, 9)
    await publish(backend, names, 9, 9)
    await publish(backend, names, 1, 9)
    for place, name in enumerate(names):
        history = await backend.get_history(name)
        assert [int(event.data) for event in history.events] == [n for n in range(1, 10) if n % channels == place]
        assert [event.position and event.position.offset for event in history.events] == list(
            range(1, history.top.offset + 1)
        )


async def test_history_is_cut_inside_of_rows(backend: PostgresChannelsBackend, channel: str) -> None:
    """Limits count events, wherever the rows begin and end."""
    rng = random.Random(0)
    top = 0
    for _ in range(12):
        size = rng.randrange(1, 8)
        await publish(backend, [channel], top + 1, top + size)
        top += size
        position = (await backend.get_history(channel)).top
        assert position.offset == top
        available = list(range(max(1, top - 19), top + 1))
        for limit in (0, 1, 3, 20, 100):
            newest = (await backend.get_history(channel, limit)).events
            assert [int(event.data) for event in newest] == (available[-limit:] if limit else [])
            for after in range(top + 2):
                following = await backend.get_history(channel, limit, after=Position(position.epoch, after))
                assert [int(event.data) for event in following.events] == [n for n in available if n > after][:limit]
                assert all(event.position == Position(position.epoch, int(event.data)) for event in following.events)


async def test_a_large_transaction_is_several_rows(
    make_backend: MakeBackend, postgres_broker: Broker, channel: str
) -> None:
    """What SQL publishes at once is stored in rows of a thousand events or about a megabyte at the most."""
    backend = await make_backend(history=10_000)
    admin = PostgresAdmin(postgres_broker.url)
    names = [f"{channel}-{number}" for number in range(2)]
    with admin.connect() as connection, connection.transaction():
        for name in names:
            connection.execute("SELECT channels.publish(%s, n::text) FROM generate_series(1, 2500) AS n", [name])
        connection.execute(
            "SELECT channels.publish(%s, rpad(n::text, 400000)) FROM generate_series(2501, 2510) AS n", [names[0]]
        )
    with admin.connect() as connection:
        rows = connection.execute(
            "SELECT cardinality(payloads), last_offset - first_offset + 1, pg_column_size(payloads)"
            " FROM channels.events WHERE channel = ANY (%s)",
            [[name.encode() for name in names]],
        ).fetchall()
    assert all(size == offsets <= 1_000 for size, offsets, _ in rows)
    assert all(length < 2 * 1024 * 1024 for *_, length in rows)
    for name, last in zip(names, (2_510, 2_500), strict=True):
        assert await stored(backend, name) == list(range(1, last + 1))


async def test_trimming_leaves_no_more_than_asked_for_to_readers(make_backend: MakeBackend, channel: str) -> None:
    """A row that is over the count in part is kept, and read in part."""
    backend = await make_backend(history=5)
    numbers = count(1)
    for _ in range(3):
        batch = [Publication(b"%d" % next(numbers), (channel,)) for _ in range(4)]
        await backend.publish_batch(batch)
    assert await stored(backend, channel) == [8, 9, 10, 11, 12]
