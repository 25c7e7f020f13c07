"""The conformance kit on both drivers, with and without history, on a server that may be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import ClassVar

import pytest

from channels_core.backend import ChannelsBackend
from channels_core.registry import create_backend
from channels_core.testing.suite import ChannelsBackendSuite
from channels_harness import PostgresServer
from channels_harness.admin import PostgresAdmin
from channels_harness.binaries import NEWEST_POSTGRES
from channels_harness.brokers import backend_url

from .support import begin_timeline


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    choice = pytestconfig.getoption("postgres")
    with PostgresServer(NEWEST_POSTGRES if choice == "auto" else choice) as server:
        yield server


class PostgresSuite(ChannelsBackendSuite):
    """What the four subjects have in common."""

    __test__ = False
    max_payload = 1024 * 1024
    idle_seconds = 3.0
    variant: str
    options: ClassVar[dict[str, object]] = {}

    @pytest.fixture(autouse=True)
    def _use(self, server: PostgresServer) -> None:
        self.server = server
        self.admin = PostgresAdmin(server.url)

    def make_backend(self) -> ChannelsBackend:
        return create_backend(backend_url(self.server.url, self.variant, **self.options))

    async def cut_connections(self) -> None:
        await asyncio.to_thread(self.admin.cut)

    async def stop_broker(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start_broker(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def connection_count(self) -> int:
        return len(await asyncio.to_thread(self.admin.connections))


class HistorySuite(PostgresSuite):
    """What the two subjects with history have in common."""

    keeps_history = True
    options: ClassVar[dict[str, object]] = {"history": 1_000}

    async def lose_memory(self) -> None:
        await self._execute("TRUNCATE channels.records, channels.lanes, channels.events")

    async def trim(self, channel: str, keep: int) -> None:
        name = channel.encode("utf-8", "surrogatepass")
        of_channel = " channels.records AS r WHERE r.channel = %s AND e.channel = r.channel AND"
        await self._execute(
            f"DELETE FROM channels.events AS e USING {of_channel} e.last_offset <= r.top - %s", name, keep
        )
        await self._execute(
            "UPDATE channels.events AS e SET first_offset = r.top - %s + 1,"
            " payloads = payloads[r.top - %s + 2 - e.first_offset :]"
            f" FROM {of_channel} e.first_offset <= r.top - %s",
            keep,
            keep,
            name,
            keep,
        )

    async def change_incarnation(self) -> None:
        await asyncio.to_thread(begin_timeline, self.server)

    async def _execute(self, statement: str, *arguments: object) -> None:
        def execute() -> None:
            with self.admin.connect() as connection:
                connection.execute(statement.encode(), arguments)

        await asyncio.to_thread(execute)


class TestAsyncPg(PostgresSuite):
    __test__ = True
    variant = "asyncpg"


class TestPsycoPg(PostgresSuite):
    __test__ = True
    variant = "psycopg"


class TestAsyncPgHistory(HistorySuite):
    __test__ = True
    variant = "asyncpg"


class TestPsycoPgHistory(HistorySuite):
    __test__ = True
    variant = "psycopg"
