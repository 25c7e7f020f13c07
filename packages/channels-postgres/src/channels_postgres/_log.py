"""With history: events are rows, notifications are wake-ups."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Final

from channels_core.backend import History, Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import BackendConnectionError
from channels_postgres import _statements as sql
from channels_postgres._driver import Argument, Driver, Link, Row
from channels_postgres._envelope import name_bytes
from channels_postgres._options import Options
from channels_postgres._pool import Pool
from channels_postgres._portions import Portion, portions_of
from channels_postgres._reader import ChangeReader
from channels_postgres._schema import in_schema, prepare_schema
from channels_postgres._session import NOTIFY, Session
from channels_postgres._waker import Waker

__all__ = ("LogSession",)

_READERS: Final = 4
"""Connections for reading history; more callers than that wait for each other."""

_FALLBACK_POLL: Final = 30.0
"""Seconds after which the reader looks without having been woken: the process that committed may have died before it
sent its wake-up."""

_TRIM_INTERVAL: Final = 60.0
"""Seconds between attempts to trim, give or take a quarter, so that processes do not march in step."""

_TRIM_CHUNK: Final = 1_000
"""Rows that one trimming statement deletes, so that it stays short: a row may hold a megabyte."""

_logger: Final = logging.getLogger("channels_postgres")


class LogSession(Session):
    """Stores events in tables, and reads what became visible.

    The first snapshot is taken by `open`, before anybody can read history, so that history and the stream overlap
    rather than leave a hole.
    """

    def __init__(self, driver: Driver, options: Options) -> None:
        super().__init__(driver, options)
        self._readers: Final = Pool(lambda: driver.connect(listening=False), _READERS)
        self._wakers: Final = Pool(lambda: driver.connect(listening=False), 1)
        self._wake_name: Final = f"{options.prefix}_wake"
        self._age: Final = float(options.max_age or sql.NO_LIMIT)
        self._kept: Final = options.history or sql.NO_COUNT
        self._sql: Final = {text: in_schema(text, options.prefix) for text in sql.ALL}
        self._due = True
        self._next_poll = 0.0

    async def _open(self) -> None:
        await super()._open()
        self._resources.push_async_callback(self._readers.close)
        self._resources.push_async_callback(self._wakers.close)
        await self.writers.call(lambda link: prepare_schema(link, self.options))
        await self.listener.listen((self._wake_name,))
        self._changes = ChangeReader(self.listener, self._sql[sql.CHANGES], self._age)
        await self._changes.start()
        self._waker = Waker(self._send_wake_up)
        self._resources.push_async_callback(self._waker.close)
        trimmer = asyncio.create_task(self._keep_trimming(), name="channels-postgres trimmer")
        self._resources.push_async_callback(_cancel, trimmer)

    async def stream(self) -> AsyncIterator[Event]:
        while True:
            await self._wait()
            for event in self.drain():
                yield event
            self.listener.check()
            if self._due or self._changes.in_a_pass:
                for row in await self._read():
                    for event in self._events_of(row):
                        yield event

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self._changes.join(self.want(channels))

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._changes.leave(self.unwant(channels))

    async def publish(self, batch: Sequence[Publication]) -> None:
        for portion in portions_of(batch):
            try:
                await self.writers.call(partial(self._publish, portion))
            finally:
                self._waker.wake()  # also when it failed: it may have been committed

    async def _publish(self, portion: Portion, link: Link) -> None:
        statement = self._sql[sql.PUBLISH]
        await link.fetch(statement, portion.lane, portion.names, portion.ends, portion.numbers, portion.payloads)

    async def _send_wake_up(self) -> None:
        await self._wakers.call(lambda link: link.fetch(NOTIFY, [self._wake_name], [""]))

    async def publish_probe(self, channel: str, data: bytes) -> None:
        payloads = self.packer.pack([(name_bytes(channel), [data])])
        await self.notify([self._wake_name] * len(payloads), payloads)

    async def get_history(self, channel: str, limit: int | None, after: Position | None) -> History:
        name, most = name_bytes(channel), sql.NO_COUNT if limit is None else limit
        if after is None:
            rows = await self._fetch(sql.NEWEST, name, most, self._kept, self._age)
        else:
            place = (_plain(after.epoch), after.offset)
            rows = await self._fetch(sql.FOLLOWING, name, most, self._kept, self._age, *place)
        if not rows:
            return History((), ORIGIN)
        epoch, top, *_ = rows[0]
        events = [event for row in rows for event in _events_in(row, channel)]
        return History(events[:most], Position(epoch, top))

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        if not channels:
            return {}
        names = {name_bytes(channel): channel for channel in channels}
        rows = await self._fetch(sql.TOPS, list(names))
        return dict.fromkeys(channels, ORIGIN) | {names[name]: Position(epoch, top) for name, epoch, top in rows}

    async def trim(self) -> None:
        """Delete what the limits demand, unless another process is at it."""
        arguments = (self.options.history, self._age, self.options.record_ttl, _TRIM_CHUNK)
        more = True
        while more:
            ((more,),) = await self._fetch(sql.TRIM, *arguments)

    def _notified(self, name: str, payload: str) -> None:
        if payload:
            self.receive(payload)
        elif self.wanted:
            self._due = True

    async def _wait(self) -> None:
        """Return when there is something to read: at once within a pass, else when woken, or after a long time."""
        if self._due or self._changes.in_a_pass:
            return
        now = asyncio.get_running_loop().time
        await self.listener.wait(max(0.0, self._next_poll - now()))
        self._due |= now() >= self._next_poll

    async def _read(self) -> Iterator[Row]:
        self._next_poll = asyncio.get_running_loop().time() + _FALLBACK_POLL
        if not self._changes.in_a_pass:
            # A wake-up that came during a pass is for the next one: later pages show nothing that is newer.
            self._due = False
        return await self._changes.read()

    def _events_of(self, row: Row) -> Iterator[Event]:
        _, _, name, epoch, first, payloads, *_ = row
        for offset, payload in enumerate(payloads, first):
            if (channel := self.wanted.get(name)) is not None:  # it may be left in between
                yield Event(channel, payload, Position(epoch, offset))

    async def _fetch(self, statement: str, *arguments: Argument) -> Sequence[Row]:
        text = self._sql[statement]
        return await self._readers.call(lambda link: link.fetch(text, *arguments))

    async def _keep_trimming(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_INTERVAL * random.uniform(0.75, 1.25))
            try:
                await self.trim()
            except BackendConnectionError:
                continue  # the supervisor sees the same, and acts; what is due is trimmed next time
            except Exception:
                _logger.warning("history is not trimmed now; trying again", exc_info=True)


def _events_in(row: Row, channel: str) -> Iterator[Event]:
    """Yield what a row of history has of it; that of a channel without events has none."""
    _, _, low, epoch, first, payloads = row
    if first is not None:
        skipped = max(0, low - first + 1)
        for offset, payload in enumerate(payloads[skipped:], first + skipped):
            yield Event(channel, payload, Position(epoch, offset))


def _plain(epoch: str) -> str:
    """Return an epoch that the server can take as text: one from a forged token is none of ours in any case."""
    return epoch if epoch.isascii() and "\0" not in epoch else "?"


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
