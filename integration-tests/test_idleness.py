"""Backends that have nothing to do: nothing is raised, nothing reconnects, and the broker is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest

from channels_core import ChannelsPlugin
from channels_core.testing import RULES, Subject, prove_together
from channels_core.testing.command import UrlSubject
from channels_harness import PostgresServer, RedisServer
from channels_harness.admin import PostgresAdmin
from channels_harness.brokers import Broker, backend_url
from channels_harness.results import record

IDLE: Final = 60.0
"""Seconds: longer than any time-out of a driver or a server that may strike an idle connection."""

CHANNELS: Final = tuple(f"idle-{number}" for number in range(1_000))

MOST_COMMANDS: Final = 0.3
"""Commands or statements per second at the server, the probes included."""

pytestmark = pytest.mark.timeout(240)


def test_an_idle_minute_is_no_fault(redis_broker: Broker, postgres_broker: Broker) -> None:
    """All backends idle together: no exception, no reconnect, and then all of them work."""
    redis, postgres = redis_broker.url, postgres_broker.url
    urls = [redis, backend_url(redis, "streams", history=100)]
    for driver in ("asyncpg", "psycopg"):
        urls += [backend_url(postgres, driver), backend_url(postgres, driver, history=100)]
    outcomes = prove_together(RULES["idleness-is-no-fault"], [_subject(url) for url in ("memory://", *urls)])
    assert [(outcome.status, outcome.detail) for outcome in outcomes] == [("passed", "")] * 7


def _subject(url: str) -> Subject:
    subject = UrlSubject(url)
    subject.idle_seconds = IDLE
    return subject


async def test_an_idle_plugin_leaves_its_broker_alone() -> None:
    """With 1,000 subscribed channels and no events, the server executes at most 0.3 commands per second."""
    with ExitStack() as servers:
        counters = await asyncio.to_thread(lambda: dict(_counted(servers)))
        async with AsyncExitStack() as stack:
            for url in counters:
                await stack.enter_async_context(_subscribed(url))
            before, cpu = await asyncio.to_thread(_read, counters), time.process_time()
            await asyncio.sleep(IDLE)
            after, cpu = await asyncio.to_thread(_read, counters), time.process_time() - cpu
    rates = {url.partition("//")[0] + url.partition("?")[2]: (after[url] - before[url]) / IDLE for url in counters}
    record(kind="idle", rates=rates, cpu=cpu / IDLE)
    assert {name: rate for name, rate in rates.items() if rate > MOST_COMMANDS} == {}


@asynccontextmanager
async def _subscribed(url: str) -> AsyncIterator[None]:
    async with ChannelsPlugin(url, channels=CHANNELS) as channels, channels.start_subscription(CHANNELS):
        yield


def _read(counters: dict[str, Callable[[], int]]) -> dict[str, int]:
    return {url: count() for url, count in counters.items()}


def _counted(stack: ExitStack) -> Iterator[tuple[str, Callable[[], int]]]:
    """Give the URL of each backend, on a server or in a database of its own, and what counts its commands."""
    for variant in ("", "streams"):
        server = stack.enter_context(RedisServer())
        options = {"history": 100} if variant else {}
        yield backend_url(server.url, variant, **options), partial(_commands, server)
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    admin = PostgresAdmin(stack.enter_context(PostgresServer(settings=settings)).url)
    for driver in ("asyncpg", "psycopg"):
        for options in ({}, {"history": 100}):
            name = f"idle_{driver}_{len(options)}"
            url = backend_url(admin.create_database(name), driver, **options)
            yield url, partial(_statements, admin, name)


def _commands(server: RedisServer) -> int:
    with server.client() as client:
        statistics: Any = client.info("stats")
    return int(statistics["total_commands_processed"])


def _statements(admin: PostgresAdmin, database: str) -> int:
    with admin.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        row = connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements AS s"
            " JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = %s",
            (database,),
        ).fetchone()
    return int(row[0]) if row else 0
