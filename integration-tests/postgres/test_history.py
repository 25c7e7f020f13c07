"""With history: what only PostgreSQL promises, through both drivers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from channels_core.backend import Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    HistoryNotSupported,
    ImproperlyConfigured,
    MessageTooLarge,
)
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker
from channels_postgres._backend import PostgresChannelsBackend
from channels_postgres._log import LogSession
from channels_postgres._reader import PAGE_EVENTS

from .support import DEADLINE, MakeBackend, Reader


@pytest.fixture
async def backend(make_backend: MakeBackend) -> PostgresChannelsBackend:
    return await make_backend(history=100)


@pytest.fixture
def admin(postgres_broker: Broker) -> PostgresAdmin:
    return PostgresAdmin(postgres_broker.url)


@pytest.mark.parametrize(
    "payload",
    [b"x" * 8_000, random.Random(0).randbytes(1024 * 1024), b"", b"\0", bytes(range(256))],
    ids=["8000", "1 MiB", "empty", "NUL", "all bytes"],
)
async def test_any_payload_and_name(backend: PostgresChannelsBackend, channel: str, payload: bytes) -> None:
    """Any bytes, in a channel whose name has 1,000 bytes, live and from history."""
    name = (channel + "n" * 1_000)[:1_000]
    async with Reader(backend) as reader:
        await backend.subscribe([name])
        await backend.publish(payload, [name])
        event = await reader.next()
    assert (event.channel, event.data) == (name, payload)
    assert (await backend.get_history(name)).events == [event]


async def test_too_much_is_refused_alone(backend: PostgresChannelsBackend, channel: str) -> None:
    """An event too large or a name too long is refused before any I/O; the others of the batch go on."""
    with pytest.raises(MessageTooLarge):
        await backend.publish(bytes(1024 * 1024 + 1), [channel])
    with pytest.raises(BackendError, match="2000 bytes"):
        await backend.publish(b"", ["x" * 2_001])
    batch = [Publication(b"1", (channel,)), Publication(b"2", ("x" * 2_001,)), Publication(b"3", (channel, channel))]
    outcomes = await backend.publish_batch(batch)
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert [event.data for event in (await backend.get_history(channel)).events] == [b"1", b"3"]


@asynccontextmanager
async def asyncpg_transaction(url: str) -> AsyncIterator[object]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def psycopg_transaction(url: str) -> AsyncIterator[object]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def sqlalchemy_session(url: str, dialect: str) -> AsyncIterator[object]:
    engine = create_async_engine(url.replace("postgresql", f"postgresql+{dialect}", 1))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@asynccontextmanager
async def sqlalchemy_connection(url: str, dialect: str) -> AsyncIterator[object]:
    engine = create_async_engine(url.replace("postgresql", f"postgresql+{dialect}", 1))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


LIBRARIES: dict[str, Callable[[str], AbstractAsyncContextManager[object]]] = {
    "asyncpg": asyncpg_transaction,
    "psycopg": psycopg_transaction,
    "session on asyncpg": lambda url: sqlalchemy_session(url, "asyncpg"),
    "session on psycopg": lambda url: sqlalchemy_session(url, "psycopg"),
    "connection on asyncpg": lambda url: sqlalchemy_connection(url, "asyncpg"),
    "connection on psycopg": lambda url: sqlalchemy_connection(url, "psycopg"),
}


class Rollback(Exception):
    """Rolls a transaction back."""


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("history", [0, 100])
async def test_publishing_in_a_transaction_of_yours(
    make_backend: MakeBackend, postgres_url: str, channel: str, library: str, history: int
) -> None:
    """An event appears if and only if the caller's transaction commits, whichever library it is of."""
    backend = await make_backend(history=history)
    begin = LIBRARIES[library]
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with contextlib.suppress(Rollback):
            async with begin(postgres_url) as connection:
                await backend.publish_in(connection, b"never", [channel])
                raise Rollback
        async with begin(postgres_url) as connection:
            await backend.publish_in(connection, b"after the other\0", [channel, channel])
            await backend.publish(b"sentinel", [channel])
            assert (await reader.next()).data == b"sentinel"
        event = await reader.next()
        assert event.data == b"after the other\0"
        assert event.position is None or event.position.offset == 2


async def test_other_connections_are_refused(backend: PostgresChannelsBackend) -> None:
    """Something that is no connection of a known library is refused in words."""
    with pytest.raises(ImproperlyConfigured, match="expected a connection of asyncpg"):
        await backend.publish_in(object(), b"", ["a"])


async def test_state_and_position_in_one_snapshot(
    backend: PostgresChannelsBackend, postgres_url: str, channel: str
) -> None:
    """Under REPEATABLE READ the position belongs to the state; what commits later follows it."""
    connection = await asyncpg.connect(postgres_url)
    assert await backend.top_in(connection, channel) == ORIGIN
    await backend.publish(b"1", [channel])
    async with connection.transaction(isolation="repeatable_read"):
        before = await backend.top_in(connection, channel)
        await backend.publish(b"2", [channel])
        assert await backend.top_in(connection, channel) == before
        assert await connection.fetchval("SELECT channels.top($1)", channel) == str(before)
    await connection.close()
    following = await backend.get_history(channel, after=before)
    assert [event.data for event in following.events] == [b"2"]


async def test_positions_need_history(make_backend: MakeBackend, postgres_url: str) -> None:
    """Without history there is no position to ask for."""
    backend = await make_backend()
    with pytest.raises(HistoryNotSupported):
        await backend.top_in(None, "a")


SAVEPOINTS = """
BEGIN;
SELECT channels.publish('{0}', '1');
SAVEPOINT a; SELECT channels.publish('{0}', 'never'); ROLLBACK TO a;
SELECT channels.publish('{0}', '2');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT channels.publish('{0}', '3');
SAVEPOINT b; SET CONSTRAINTS ALL DEFERRED; SELECT channels.publish('{0}', 'never'); ROLLBACK TO b;
SET CONSTRAINTS ALL DEFERRED;
SELECT channels.publish('{0}', '\\x3400'::bytea);
COMMIT;
BEGIN; SAVEPOINT c; SELECT channels.publish('{0}', 'never'); ROLLBACK TO c; SELECT channels.publish('{0}', '5'); COMMIT;
BEGIN; SELECT channels.publish('{0}', 'never'); ROLLBACK;
SELECT channels.publish('{0}', '6');
"""


async def test_savepoints_and_immediate_constraints(
    backend: PostgresChannelsBackend, admin: PostgresAdmin, channel: str
) -> None:
    """Whatever a transaction does, the events that it committed come once, in order, with consecutive offsets."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with admin.connect() as connection:
            connection.execute(SAVEPOINTS.format(channel).encode())
        events = await reader.take(6)
    assert [event.data for event in events] == [b"1", b"2", b"3", b"4\0", b"5", b"6"]
    assert [event.position.offset for event in events if event.position] == [1, 2, 3, 4, 5, 6]


async def test_isolation_levels_and_prepared_transactions(
    backend: PostgresChannelsBackend, admin: PostgresAdmin, channel: str
) -> None:
    """REPEATABLE READ fails with 40001 on a channel that moved; a prepared transaction is refused by the server."""
    await backend.publish(b"1", [channel])
    with admin.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT channels.publish(%s, 'x')", [channel])
        await backend.publish(b"2", [channel])
        with pytest.raises(psycopg.errors.SerializationFailure):
            connection.execute("COMMIT")
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        connection.execute("SELECT channels.publish(%s, 'x')", [channel])
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute("PREPARE TRANSACTION 'x'")
    assert (await backend.get_history(channel)).top.offset == 2


async def test_lock_timeouts_are_retriable(
    make_backend: MakeBackend, admin: PostgresAdmin, driver: str, channel: str
) -> None:
    """A publish that waits for a counter too long ends as an error that the plugin retries."""
    backend = await make_backend(history=100, options="-clock_timeout=50")
    await backend.publish(b"1", [channel])
    statements = ("SET CONSTRAINTS ALL IMMEDIATE", f"SELECT channels.publish('{channel}', 'x')")
    with admin.open_transaction(*statements), pytest.raises(BackendConnectionError, match="lock timeout"):
        await backend.publish(b"2", [channel])
    await backend.publish(b"3", [channel])
    assert [event.data for event in (await backend.get_history(channel)).events] == [b"1", b"3"]


async def test_old_events_are_never_delivered(make_backend: MakeBackend, admin: PostgresAdmin, channel: str) -> None:
    """An event older than max_age is in no history, also on a busy channel; `history` counts at reading, too."""
    backend = await make_backend(history=3, max_age=30)
    for number in range(6):
        await backend.publish(b"%d" % number, [channel])
    assert [event.data for event in (await backend.get_history(channel)).events] == [b"3", b"4", b"5"]
    assert [event.data for event in (await backend.get_history(channel, after=ORIGIN)).events] == [b"3", b"4", b"5"]
    age(admin, channel, 31, below=5)
    assert [event.data for event in (await backend.get_history(channel)).events] == [b"4", b"5"]
    age(admin, channel, 31, below=9)
    history = await backend.get_history(channel)
    assert (list(history.events), history.top.offset) == ([], 6)


def age(admin: PostgresAdmin, channel: str, seconds: int, *, below: int) -> None:
    """Let the events of a channel have happened earlier."""
    with admin.connect() as connection:
        connection.execute(
            "UPDATE channels.events SET stored_at = stored_at - make_interval(secs => %s)"
            " WHERE channel = %s AND last_offset < %s",
            [seconds, channel.encode(), below],
        )


async def test_trimming(make_backend: MakeBackend, database: str, channel: str) -> None:
    """What is over the count or the age goes, unless it is younger than a minute; the position stays."""
    backend = await make_backend(database, history=2, max_age=100)
    admin = PostgresAdmin(database)
    session = backend._session
    assert isinstance(session, LogSession)
    for number in range(6):
        await backend.publish(b"%d" % number, [channel])
    await session.trim()
    assert stored(admin, channel) == [1, 2, 3, 4, 5, 6]
    age(admin, channel, 61, below=6)
    await session.trim()
    assert stored(admin, channel) == [5, 6]
    age(admin, channel, 50, below=6)
    await session.trim()
    assert stored(admin, channel) == [6]
    assert (await backend.get_tops([channel]))[channel].offset == 6


def stored(admin: PostgresAdmin, channel: str) -> list[int]:
    """Return the offsets that the table has."""
    with admin.connect() as connection:
        rows = connection.execute(
            "SELECT last_offset FROM channels.events WHERE channel = %s ORDER BY 1", [channel.encode()]
        ).fetchall()
    return [offset for (offset,) in rows]


async def test_large_backlogs_come_in_pages(
    backend: PostgresChannelsBackend, admin: PostgresAdmin, channel: str
) -> None:
    """What one transaction brings at once, by number or by bytes, arrives whole and in order."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with admin.connect() as connection:
            connection.execute(
                "SELECT channels.publish(%s, n::text) FROM generate_series(1, 2500) AS n", [channel]
            ).fetchall()
            connection.execute(
                "SELECT channels.publish(%s, repeat(n::text, 500000)) FROM generate_series(10, 39) AS n", [channel]
            ).fetchall()
        events = await reader.take(2_530)
    assert [event.position and event.position.offset for event in events] == list(range(1, 2_531))
    assert [event.data for event in events[:2_500]] == [b"%d" % number for number in range(1, 2_501)]


@pytest.fixture
def database(admin: PostgresAdmin, channel: str, driver: str) -> Iterator[str]:
    name = f"db_{driver}_{channel.replace('-', '_')}"
    yield admin.create_database(name)
    admin.drop_database(name)


async def test_processes_that_start_at_once(make_backend: MakeBackend, database: str, channel: str) -> None:
    """Many processes find no schema: one creates it, and all work."""
    backends = await asyncio.gather(*(make_backend(database, history=10) for _ in range(8)))
    for backend in backends:
        await backend.publish(b"", [channel])
    assert (await backends[0].get_tops([channel]))[channel].offset == 8


async def test_another_prefix_is_another_schema(make_backend: MakeBackend, database: str, channel: str) -> None:
    """Two applications with different prefixes do not see each other."""
    one, other = await make_backend(database, history=10), await make_backend(database, history=10, prefix="other")
    async with Reader(one) as reader:
        await one.subscribe([channel])
        await other.publish(b"other", [channel])
        await one.publish(b"one", [channel])
        assert (await reader.next()).data == b"one"
    assert (await other.get_tops([channel]))[channel].offset == 1


async def test_versions_are_checked(make_backend: MakeBackend, database: str) -> None:
    """A schema that is too new or too old for this version is refused, with what to upgrade."""
    await make_backend(database, history=10)
    with PostgresAdmin(database).connect() as connection:
        connection.execute("UPDATE channels.meta SET version = 9")
        await make_backend(database, history=10)
        connection.execute("UPDATE channels.meta SET oldest_client = 9")
        with pytest.raises(BackendError, match="upgrade channels-postgres"):
            await make_backend(database, history=10)
        connection.execute("UPDATE channels.meta SET version = 0, oldest_client = 0")
        with pytest.raises(BackendError, match="upgrade the schema"):
            await make_backend(database, history=10)
        connection.execute("UPDATE channels.meta SET version = 1, oldest_client = 1, unlogged = true")
        with pytest.raises(BackendError, match="unlogged=true"):
            await make_backend(database, history=10)


async def test_unlogged_tables(make_backend: MakeBackend, database: str, channel: str) -> None:
    """With unlogged=true no table of events is logged, and all works."""
    backend = await make_backend(database, history=10, unlogged="true")
    await backend.publish(b"x", [channel])
    assert len((await backend.get_history(channel)).events) == 1
    with PostgresAdmin(database).connect() as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'channels'::regnamespace"
            " AND relkind = 'r' AND relpersistence = 'p'"
        ).fetchall()
    assert rows == [("meta",)]


async def test_a_role_with_few_rights(make_backend: MakeBackend, database: str, channel: str) -> None:
    """Without a schema a role that may create none is told what to do; with the printed grants it can do all."""
    from channels_postgres._schema import grants, schema_script

    with PostgresAdmin(database).connect() as connection:
        connection.execute("DROP ROLE IF EXISTS few_rights")
        connection.execute("CREATE ROLE few_rights LOGIN")
        url = database.replace("postgres@", "few_rights@")
        try:
            with pytest.raises(BackendError, match="channels postgres schema"):
                await make_backend(url, history=10)
            connection.execute(schema_script().encode())
            with pytest.raises(BackendError, match="channels postgres schema"):
                await make_backend(url, history=10)
            connection.execute(grants("few_rights").encode())
            # Some hosts keep these from everybody but themselves.
            connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
            await use_everything(await make_backend(url, history=10), channel)
        finally:
            connection.execute("DROP OWNED BY few_rights")
            connection.execute("DROP ROLE few_rights")


async def use_everything(backend: PostgresChannelsBackend, channel: str) -> None:
    """Publish, receive, read and trim."""
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        await backend.publish(b"x", [channel], key=("lane", 1))
        event = await reader.next()
        assert isinstance(event.position, Position)
        assert (await backend.get_history(channel, 1)).events == [Event(channel, b"x", event.position)]
        assert await backend.get_tops([channel]) == {channel: event.position}
    session = backend._session
    assert isinstance(session, LogSession)
    await session.trim()
    await backend.on_shutdown()


async def test_a_wake_up_between_two_pages_is_not_forgotten(
    make_backend: MakeBackend, channel: str, postgres_url: str
) -> None:
    """What commits while a pass of several pages is read comes right after it, not with the fallback poll."""
    backend = await make_backend(history=10_000)
    await backend.subscribe([channel])
    for first in range(0, PAGE_EVENTS + 1, 1_000):
        await backend.publish_batch([Publication(b"%d" % number, (channel,)) for number in range(first, first + 1_000)])
    last = first + 999
    stream = backend.stream_events()
    async with asyncio.timeout(DEADLINE):
        assert (await anext(stream)).data == b"0"
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            await connection.execute("SELECT channels.publish(%s, 'late')", [channel])
        await backend.subscribe([f"{channel}-other"])  # a round trip: the notification is here
        received = [(await anext(stream)).data for _ in range(last + 1)]
    assert received[-2:] == [b"%d" % last, b"late"]
