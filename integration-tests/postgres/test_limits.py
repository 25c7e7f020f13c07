"""With history: what stays bounded when somebody else blocks, sends much, or has restored a dump."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from channels_core import ChannelsPlugin, Event
from channels_core.events import ORIGIN
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker, backend_url
from channels_harness.waiting import wait_until
from channels_postgres import _statements as sql
from channels_postgres._log import LogSession

from .support import DEADLINE, MakeBackend, Reader

MIB: Final = 1024 * 1024

LATER: Final = 99_999_999_999
"""A transaction that this server will not have begun when the tests end."""


@pytest.fixture
def server(postgres_broker: Broker) -> PostgresAdmin:
    return PostgresAdmin(postgres_broker.url)


@pytest.fixture
def database(server: PostgresAdmin, channel: str, driver: str) -> Iterator[str]:
    name = f"db_{driver}_{channel.replace('-', '_')}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def admin(database: str) -> PostgresAdmin:
    return PostgresAdmin(database)


def waiting(admin: PostgresAdmin) -> set[int]:
    """Return the server processes that wait for a lock in this database."""
    with admin.connect() as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchall()
    return {pid for (pid,) in rows}


async def test_publishes_that_wait_do_not_pile_up(
    database: str, admin: PostgresAdmin, driver: str, channel: str
) -> None:
    """A call that was given up leaves no process behind that waits for as long as the counter is locked."""
    plugin = ChannelsPlugin(backend_url(database, driver, history=10), channels=[channel], call_timeout=0.3)
    statements = ("SET CONSTRAINTS ALL IMMEDIATE", f"SELECT channels.publish('{channel}', 'never')")
    async with plugin, plugin.subscribe(channel) as subscriber:
        with admin.open_transaction(*statements):
            for number in range(3):
                plugin.publish(b"%d" % number, channel)
            await asyncio.to_thread(wait_until, lambda: len(waiting(admin)) >= 2, DEADLINE, "no retry")
            first = waiting(admin)
            await asyncio.to_thread(
                wait_until, lambda: not first & waiting(admin), DEADLINE, f"{first} did not stop waiting"
            )
        async with asyncio.timeout(DEADLINE):
            events = [await anext(subscriber) for _ in range(3)]
            await plugin.wait_published(b"end", channel)
            events.append(await anext(subscriber))
    assert [event.data for event in events if isinstance(event, Event)] == [b"0", b"1", b"2", b"end"]


async def test_nothing_is_compiled_to_publish(
    make_backend: MakeBackend, database: str, admin: PostgresAdmin, channel: str
) -> None:
    """A server that compiles plans does not spend the deadline of a retry on it, nor that of a commit."""
    await make_backend(database, history=10)
    with admin.connect() as connection:
        connection.execute("LOAD 'auto_explain'")
        connection.execute("SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on")
        connection.execute("SET auto_explain.log_level = notice; SET auto_explain.log_analyze = on")
        plans: list[str | None] = []
        connection.add_notice_handler(lambda notice: plans.append(notice.message_primary))
        for _ in range(2):
            connection.execute("SELECT channels.publish_batch('lane', '{a,b}', '{1,2}', '{1,2}', '{x,x}')")
        connection.execute("SELECT channels.publish(name, 'x') FROM unnest('{a,b}'::text[]) AS name").fetchall()
    assert len(plans) > 5
    assert not [plan for plan in plans if plan and "JIT:" in plan]


async def test_pages_of_large_events_are_short(make_backend: MakeBackend, database: str, channel: str) -> None:
    """A page brings some megabytes, whatever number was asked for; pages add up, and no limit means all."""
    backend = await make_backend(database, history=100)
    for number in range(40):
        await backend.publish(b"%02d" % number + bytes(MIB - 2), [channel])
    numbers, after = [], ORIGIN
    while page := (await backend.get_history(channel, 1_000, after=after)).events:
        assert len(page) <= 9
        numbers += [int(event.data[:2]) for event in page]
        assert page[-1].position is not None
        after = page[-1].position
    assert numbers == list(range(40))
    assert len((await backend.get_history(channel, after=ORIGIN)).events) == 40
    newest = (await backend.get_history(channel, 20)).events
    assert [int(event.data[:2]) for event in newest] == list(range(20, 40))


async def test_events_of_several_pages_are_repaired(database: str, driver: str, channel: str) -> None:
    """A subscriber that resumes far behind gets all of what is more than one page of bytes."""
    plugin = ChannelsPlugin(backend_url(database, driver, history=100), channels=[channel])
    async with plugin:
        for number in range(20):
            await plugin.wait_published(b"%02d" % number + bytes(MIB - 2), channel)
        async with plugin.subscribe(channel, after={channel: ORIGIN}) as subscriber, asyncio.timeout(DEADLINE):
            items = [await anext(subscriber) for _ in range(20)]
    assert [int(item.data[:2]) for item in items if isinstance(item, Event)] == list(range(20))


STORE: Final = """
INSERT INTO channels.events (channel, last_offset, first_offset, epoch, hash, seq, xid, stored_at, payloads)
SELECT %s, n, n, 'restored', 0, n, %s::text::xid8, now() - make_interval(secs => %s), ARRAY['x'::bytea]
FROM generate_series(1, %s) AS n
"""


async def test_rows_of_transactions_to_come_are_not_read(
    make_backend: MakeBackend, database: str, admin: PostgresAdmin, channel: str
) -> None:
    """After a dump was restored into a younger cluster its rows are no changes, cost no reading, and live ones come."""
    backend = await make_backend(database, history=10)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with admin.connect() as connection:
            connection.execute(STORE, [b"restored", LATER, 0, 3_000])
            connection.execute("ANALYZE channels.events")
            connection.execute(sql.SESSION)
            (snapshot,) = connection.execute(sql.SNAPSHOT.encode()).fetchone() or ("",)
            await backend.publish(b"live", [channel])
            everything = (b"\xff", 7)
            arguments = (snapshot, "", 0, *everything, sql.NO_LIMIT, 4_000, 8 * MIB)
            cursor = psycopg.RawCursor(connection)
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.CHANGES}".encode(), arguments)
            (plan,) = cursor.fetchone() or (None,)
        assert most_rows(plan[0]["Plan"]) < 100, json.dumps(plan, indent=1)
        assert (await reader.next()).data == b"live"


def most_rows(plan: dict[str, Any]) -> float:
    """Return the most rows that any node of a plan has met."""
    own: float = plan["Actual Rows"] + sum(count for name, count in plan.items() if name.startswith("Rows Removed"))
    return max([own, *map(most_rows, plan.get("Plans", ()))])


async def test_rows_of_transactions_to_come_are_trimmed(
    make_backend: MakeBackend, database: str, admin: PostgresAdmin, channel: str
) -> None:
    """Restored rows go by age like all others, also behind a thousand young ones; those that stay are never changes."""
    backend = await make_backend(database, max_age=100)
    session = backend._session
    assert isinstance(session, LogSession)
    with admin.connect() as connection:
        for name, xid, age, count in (("young", 3, 10, 1_500), ("old", LATER, 200, 1_500), ("new", LATER, 10, 1_500)):
            connection.execute(STORE, [name.encode(), xid, age, count])
        await session.trim()
        rows = connection.execute(
            "SELECT convert_from(channel, 'UTF8'), count(*),"
            " count(*) FILTER (WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))"
            " FROM channels.events GROUP BY 1"
        ).fetchall()
    assert sorted(rows) == [("new", 1_500, 0), ("young", 1_500, 0)]


async def test_a_transaction_that_trims_keeps_its_own_events(
    make_backend: MakeBackend, database: str, admin: PostgresAdmin, channel: str
) -> None:
    """What a transaction publishes before it trims is delivered when it commits."""
    backend = await make_backend(database, max_age=100)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with admin.connect() as connection, connection.transaction():
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            connection.execute("SELECT channels.publish(%s, 'x')", [channel])
            connection.execute("SELECT channels.trim(0, 100, 100, 1000)")
        assert (await reader.next()).data == b"x"


async def test_what_replication_applies_is_published(
    make_backend: MakeBackend, database: str, admin: PostgresAdmin, channel: str
) -> None:
    """A trigger that publishes where logical replication applies its changes is numbered like any other."""
    backend = await make_backend(database, history=10)
    async with Reader(backend) as reader:
        await backend.subscribe([channel])
        with admin.connect() as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("SELECT channels.publish(%s, 'x')", [channel])
            (left,) = connection.execute("SELECT count(*) FROM channels.pending").fetchone() or (None,)
        assert left == 0
        assert (await reader.next()).data == b"x"
