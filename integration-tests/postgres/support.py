"""What the tests of this folder share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from channels_core.backend import ChannelsBackend
from channels_core.events import Event
from channels_harness import PostgresServer
from channels_postgres._backend import PostgresChannelsBackend

DEADLINE: Final = 20.0
"""Seconds for what must come; only against hanging."""

MakeBackend = Callable[..., Awaitable[PostgresChannelsBackend]]


class Reader:
    """Reads a backend's events in a task, for as long as the block lasts."""

    def __init__(self, backend: ChannelsBackend) -> None:
        self._backend = backend
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.error: BaseException | None = None

    async def __aenter__(self) -> Reader:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def next(self) -> Event:
        """Return the next event."""
        async with asyncio.timeout(DEADLINE):
            return await self._events.get()

    async def take(self, count: int) -> list[Event]:
        """Return the next events."""
        return [await self.next() for _ in range(count)]

    async def lost(self) -> None:
        """Return, or raise, once the iterator has ended."""
        async with asyncio.timeout(DEADLINE):
            await self._task

    async def _read(self) -> None:
        async with aclosing(self._backend.stream_events()) as events:  # type: ignore[type-var]  # a generator
            async for event in events:
                self._events.put_nowait(event)


def begin_timeline(server: PostgresServer) -> None:
    """Let the server come back from a recovery, as after a failover: the same data on a new timeline."""
    server.stop()
    with (server.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    (server.data / "recovery.signal").touch()
    server.start()
    with server.connect() as connection:
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
            pass
