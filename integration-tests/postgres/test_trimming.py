"""Who trims, what stays, and that nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from channels_core.backend import Publication
from channels_harness.admin import PostgresAdmin
from channels_postgres._backend import PostgresChannelsBackend

from .support import MakeBackend, Reader

TRIM = "SELECT channels.trim(%s, %s, %s, 1000)"
NEVER = 1e9


@pytest.fixture
def driver() -> str:
    """Use one driver: the function is the server's."""
    return "asyncpg"


@pytest.fixture
def database(postgres_url: str, channel: str, driver: str) -> Iterator[str]:
    """Create a database of its own, because trimming concerns all channels."""
    admin, name = PostgresAdmin(postgres_url), f"db_{driver}_{channel.replace('-', '_')}"
    yield admin.create_database(name)
    admin.drop_database(name)


@pytest.fixture
async def backend(make_backend: MakeBackend, database: str) -> PostgresChannelsBackend:
    return await make_backend(database, history=1_000, options="-clock_timeout=10000")


@pytest.fixture
def sessions(database: str) -> Iterator[list[psycopg.Connection]]:
    """Open two sessions in which waiting for a lock is an error after some time."""
    with ExitStack() as stack:
        connections = [stack.enter_context(PostgresAdmin(database).connect()) for _ in range(2)]
        for connection in connections:
            connection.execute("SET lock_timeout = '10s'")
        yield connections


def trim(
    connection: psycopg.Connection, history: int = 0, max_age: float = 0.0, record_ttl: float = NEVER
) -> tuple[bool] | None:
    return connection.execute(TRIM, [history, max_age, record_ttl]).fetchone()


def age(connection: psycopg.Connection, seconds: float) -> None:
    """Let everything that is stored have happened earlier."""
    for table, column in (("events", "stored_at"), ("records", "used_at"), ("lanes", "used_at")):
        connection.execute(
            f"UPDATE channels.{table} SET {column} = {column} - make_interval(secs => %s)".encode(), [seconds]
        )


def stored(connection: psycopg.Connection, channel: str) -> list[int]:
    """Return the offsets that this session sees."""
    statement = "SELECT last_offset FROM channels.events WHERE channel = %s ORDER BY 1"
    return [offset for (offset,) in connection.execute(statement, [channel.encode()]).fetchall()]


async def publish(backend: PostgresChannelsBackend, channel: str, count: int) -> None:
    for number in range(1, count + 1):
        await backend.publish(b"%d" % number, [channel], key=("lane", number))


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_one_trims_and_the_other_does_not_wait(
    backend: PostgresChannelsBackend, sessions: list[psycopg.Connection], channel: str, end: str
) -> None:
    """While one session trims, another that tries does nothing at once; when the first has ended, it may."""
    first, second = sessions
    await publish(backend, channel, 5)
    age(first, 61)
    first.execute("BEGIN")
    assert trim(first, history=3) == (False,)
    assert stored(first, channel) == [3, 4, 5]
    assert trim(second, history=1) == (False,)
    assert stored(second, channel) == [1, 2, 3, 4, 5]
    first.execute(end.encode())
    assert trim(second, history=1) == (False,)
    assert stored(second, channel) == [5]


@pytest.mark.parametrize("limits", [{"history": 1}, {"max_age": 0.001}, {"history": 1, "max_age": 0.001}], ids=str)
async def test_young_events_stay(
    backend: PostgresChannelsBackend, sessions: list[psycopg.Connection], channel: str, limits: dict[str, float]
) -> None:
    """Whatever the limits say, no event goes in its first minute, nor the position of its channel."""
    connection, _ = sessions
    await publish(backend, channel, 3)
    age(connection, 30)
    trim(connection, record_ttl=0.001, **limits)  # type: ignore[arg-type]  # history is a whole number here
    assert stored(connection, channel) == [1, 2, 3]
    age(connection, 31)
    trim(connection, record_ttl=0.001, **limits)  # type: ignore[arg-type]  # the same
    assert stored(connection, channel) == ([] if "max_age" in limits else [3])


async def test_publishers_do_not_wait_for_a_trim(
    backend: PostgresChannelsBackend, sessions: list[psycopg.Connection], channel: str
) -> None:
    """While a transaction that has trimmed stays open, all ways to publish to the trimmed channels work."""
    trimmer, caller = sessions
    await publish(backend, channel, 5)
    age(trimmer, 3_600)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        trimmer.execute("BEGIN")
        trim(trimmer, history=2, max_age=60, record_ttl=NEVER)
        assert stored(trimmer, channel) == []
        await backend.publish(b"batch", [channel], key=("another lane", 1))
        assert await backend.publish_batch([Publication(b"no lane", (channel,))]) == [None]
        caller.execute("SELECT channels.publish(%s, 'sql')", [channel])
        events = await reader.take(3)
        trimmer.execute("COMMIT")
    assert [event.data for event in events] == [b"batch", b"no lane", b"sql"]
    assert [event.position.offset for event in events if event.position] == [6, 7, 8]
    assert stored(caller, channel) == [6, 7, 8]


async def test_a_trim_does_not_wait_for_publishers(
    backend: PostgresChannelsBackend, sessions: list[psycopg.Connection], channel: str
) -> None:
    """A channel whose counter somebody has locked is trimmed all the same, and its record stays."""
    publisher, trimmer = sessions
    await publish(backend, channel, 3)
    age(trimmer, 3_600)
    publisher.execute("BEGIN")
    publisher.execute("SET CONSTRAINTS ALL IMMEDIATE")
    publisher.execute("SELECT channels.publish(%s, 'late')", [channel])
    trim(trimmer, history=1, max_age=60, record_ttl=60)
    trim(trimmer, history=1, max_age=60, record_ttl=60)
    assert stored(trimmer, channel) == []
    publisher.execute("COMMIT")
    assert [(event.data, event.position) for event in (await backend.get_history(channel)).events] == [
        (b"late", (await backend.get_tops([channel]))[channel])
    ]
    assert stored(trimmer, channel) == [4]
