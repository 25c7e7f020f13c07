"""Floors on PostgreSQL: each driver with batched ``pg_notify``, and a batched insert with one notification."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import psycopg

from channels_bench.systems.base import Stream, System
from channels_bench.systems.floors import Counter

BATCH: Final = 500
"""Events in one statement."""

_NOTIFY: Final = "SELECT count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload"

_NOTIFY_MANY: Final = (
    "SELECT count(pg_notify(channel, payload)) FROM unnest($1::text[], $2::text[]) AS event(channel, payload)"
)

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS bench_log (id bigserial PRIMARY KEY, channel text NOT NULL, "
    "xid xid8 NOT NULL DEFAULT pg_current_xact_id(), payload bytea NOT NULL)"
)

_INSERT: Final = (
    "WITH rows AS (INSERT INTO bench_log (channel, payload) SELECT $1, payload FROM unnest($2::bytea[]) AS payload) "
    "SELECT pg_notify($1, '')"
)


class AsyncPg(System):
    """One connection that publishes in batches, one that listens and calls every sink."""

    async def start(self) -> None:
        self._writing: Any = await asyncpg.connect(self.url)
        self._listening: Any = await asyncpg.connect(self.url)
        # A notification costs the server more when anybody listens to anything, as every plugin of ours does.
        await self._listening.execute("LISTEN bench_elsewhere")
        self._sinks: dict[str, list[Counter]] = {}

    async def stop(self) -> None:
        await self._writing.close()
        await self._listening.close()

    async def subscribe(self, channel: str) -> Stream:
        sinks = self._sinks.setdefault(channel, [])
        if not sinks:
            await self._listening.add_listener(channel, self._hear)
        sinks.append(Counter())
        return sinks[-1]

    def _hear(self, _connection: Any, _pid: int, channel: str, payload: str) -> None:
        data = payload.encode()
        for sink in self._sinks[channel]:
            sink.push(data)

    async def publish(self, data: bytes, channel: str) -> None:
        await self._writing.execute("SELECT pg_notify($1, $2)", channel, data.decode())

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        for start in range(0, len(events), BATCH):
            batch = [data.decode() for data in events[start : start + BATCH]]
            await self._writing.execute(_NOTIFY, channel, batch)

    async def pour_many(self, events: Sequence[bytes], channels: Sequence[str]) -> None:
        many = len(channels)
        for start in range(0, len(events), BATCH):
            batch = [data.decode() for data in events[start : start + BATCH]]
            names = [channels[number % many] for number in range(start, start + len(batch))]
            await self._writing.execute(_NOTIFY_MANY, names, batch)


class AsyncPgInsert(AsyncPg):
    """Rows in a table with two indexed columns, and a notification that wakes."""

    async def start(self) -> None:
        await super().start()
        await self._writing.execute(_TABLE)
        await self._writing.execute("CREATE INDEX IF NOT EXISTS bench_log_xid ON bench_log (xid)")

    async def stop(self) -> None:
        await self._writing.execute("TRUNCATE bench_log")
        await super().stop()

    async def publish(self, data: bytes, channel: str) -> None:
        await self._writing.execute(_INSERT, channel, [data])

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        for start in range(0, len(events), BATCH):
            await self._writing.execute(_INSERT, channel, list(events[start : start + BATCH]))


class PsycoPg(System):
    """The same as `AsyncPg` on the other driver: its own generator of notifications calls every sink."""

    async def start(self) -> None:
        self._writing = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        self._listening = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        self._sinks: dict[str, list[Counter]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait((self._reader,))
        await self._writing.close()
        await self._listening.close()

    async def subscribe(self, channel: str) -> Stream:
        sinks = self._sinks.setdefault(channel, [])
        sinks.append(Counter())
        if self._reader is None:
            await self._listening.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
            self._reader = asyncio.create_task(self._read())
        return sinks[-1]

    async def _read(self) -> None:
        async for notification in self._listening.notifies():
            data = notification.payload.encode()
            for sink in self._sinks[notification.channel]:
                sink.push(data)

    async def publish(self, data: bytes, channel: str) -> None:
        await self._writing.execute("SELECT pg_notify(%s, %s)", (channel, data.decode()))

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        for start in range(0, len(events), BATCH):
            batch = [data.decode() for data in events[start : start + BATCH]]
            await self._writing.execute(
                "SELECT count(pg_notify(%s, payload)) FROM unnest(%s::text[]) AS payload", (channel, batch)
            )
