"""With history: events are rows, notifications are wake-ups."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final

from channels_core.backend import History, Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError
from channels_postgres import _statements as sql
from channels_postgres._driver import Argument, Driver, Link, Row
from channels_postgres._envelope import name_bytes
from channels_postgres._filter import ChannelFilter
from channels_postgres._options import Options
from channels_postgres._pool import Pool
from channels_postgres._schema import in_schema, prepare_schema
from channels_postgres._session import NOTIFY, Session

__all__ = ("LogSession",)

_READERS: Final = 4
"""Connections for reading history; more callers than that wait for each other."""

_FALLBACK_POLL: Final = 30.0
"""Seconds after which the reader looks without having been woken: the process that committed may have died before it
sent its wake-up."""

_PAGE_ROWS: Final = 1_000
_PAGE_BYTES: Final = 8 * 1024 * 1024
"""What one read brings at the most, give or take an event; a process that comes late must not get it all at once."""

_TRIM_INTERVAL: Final = 60.0
"""Seconds between attempts to trim, give or take a quarter, so that processes do not march in step."""

_TRIM_CHUNK: Final = 5_000
"""Rows that one trimming statement deletes, so that it stays short."""

_STATEMENT_BYTES: Final = 16 * 1024 * 1024
"""Payload bytes after which a batch is continued in another transaction."""

_logger: Final = logging.getLogger("channels_postgres")


class LogSession(Session):
    """Stores events in tables; reads those that became visible since the previous pass.

    A pass asks for the rows whose transaction had not ended at the previous pass's snapshot and has at this one's.
    That finds every row once, however late its transaction commits. The first snapshot is taken by `open`, before
    anybody can read history, so that history and the stream overlap rather than leave a hole.
    """

    def __init__(self, driver: Driver, options: Options) -> None:
        super().__init__(driver, options)
        self._readers: Final = Pool(lambda: driver.connect(listening=False), _READERS)
        self._filter: Final = ChannelFilter()
        self._wake_name: Final = f"{options.prefix}_wake"
        self._age: Final = float(options.max_age or sql.NO_LIMIT)
        self._kept: Final = options.history or sql.NO_COUNT
        self._sql: Final = {text: in_schema(text, options.prefix) for text in sql.ALL}
        self._snapshot = ""
        self._dirty = True
        self._next_poll = 0.0

    async def _open(self) -> None:
        await super()._open()
        self._resources.push_async_callback(self._readers.close)
        await self.writers.call(lambda link: prepare_schema(link, self.options))
        await self.listener.call(lambda link: link.run(sql.SESSION))
        await self.listener.listen((self._wake_name,))
        ((self._snapshot,),) = await self.listener.call(lambda link: link.fetch(sql.BASELINE))
        trimmer = asyncio.create_task(self._keep_trimming(), name="channels-postgres trimmer")
        self._resources.push_async_callback(_cancel, trimmer)

    async def stream(self) -> AsyncIterator[Event]:
        upto, after = "", 0
        while True:
            if not upto and not self._dirty:
                await self._wait()
            for event in self.drain():
                yield event
            self.listener.check()
            if upto or self._dirty:
                self._dirty = False
                upto, after, rows = await self._read_changes(upto, after)
                for event in self._events_of(rows):
                    yield event

    async def subscribe(self, channels: Sequence[str]) -> None:
        self._filter.add(self.want(channels))
        # A read that was sent without these channels may see what is published from now on, and leave it out.
        await self.listener.idle()

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._filter.remove(self.unwant(channels))

    async def publish(self, batch: Sequence[Publication]) -> None:
        for lane, names, numbers, payloads in _portions(batch):
            await self._publish(lane, names, numbers, payloads)

    async def _publish(
        self, lane: str, names: Sequence[bytes], numbers: Sequence[int], payloads: Sequence[bytes]
    ) -> None:
        statement = self._sql[sql.PUBLISH]

        async def send(link: Link) -> None:
            await link.fetch(statement, lane, names, numbers, payloads)
            # After the commit, because commits that carry a notification wait for each other.
            await link.fetch(NOTIFY, [self._wake_name], [""])

        await self.writers.call(send)

    async def publish_probe(self, channel: str, data: bytes) -> None:
        payloads = self.packer.pack([(name_bytes(channel), data)])
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
        events = [
            Event(channel, payload, Position(epoch, offset))
            for _, _, epoch, offset, payload in rows
            if offset is not None
        ]
        epoch, top, *_ = rows[0]
        return History(events, Position(epoch, top))

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
            self._dirty = True

    async def _wait(self) -> None:
        """Wait for a notification; mark the next pass as due when the last one is long ago."""
        now = asyncio.get_running_loop().time()
        await self.listener.wait(max(0.0, self._next_poll - now))
        if asyncio.get_running_loop().time() >= self._next_poll:
            self._dirty = True

    async def _read_changes(self, upto: str, after: int) -> tuple[str, int, Sequence[Row]]:
        """Read a page; returns where the next page of the same pass begins, ``"", 0`` if there is none."""
        self._next_poll = asyncio.get_running_loop().time() + _FALLBACK_POLL
        statement = self._sql[sql.CHANGES]
        head, *rows = await self.listener.call(
            lambda link: link.fetch(
                statement, self._snapshot, upto, after, self._filter.bits, self._filter.mask, self._age,
                _PAGE_ROWS, _PAGE_BYTES,
            )
        )  # fmt: skip
        if len(rows) == _PAGE_ROWS or sum(len(row[5]) for row in rows) >= _PAGE_BYTES:
            return head[0], rows[-1][1], rows
        self._snapshot = head[0]
        return "", 0, rows

    def _events_of(self, rows: Sequence[Row]) -> Iterator[Event]:
        for _, _, name, epoch, offset, payload in rows:
            channel = self.wanted.get(name)
            if channel is not None:
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
            except BackendError:
                _logger.warning("history is not trimmed, because the server refuses", exc_info=True)


Portion = tuple[str, list[bytes], list[int], list[bytes]]
"""Lane, names, numbers and payloads for one statement."""


def _portions(batch: Iterable[Publication]) -> Iterator[Portion]:
    """Cut a batch where the lane changes, and where a statement would grow too large."""
    seen: dict[tuple[str, bytes], int] = {}
    portion: Portion = ("", [], [], [])
    size = 0
    for publication in batch:
        lane, number = publication.key or ("", 0)
        for name in map(name_bytes, dict.fromkeys(publication.channels)):
            if lane and number <= seen.get((lane, name), -1):
                continue
            seen[lane, name] = number
            if portion[1] and (lane != portion[0] or size > _STATEMENT_BYTES):
                yield portion
                portion, size = (lane, [], [], []), 0
            portion = (lane, *portion[1:])
            portion[1].append(name)
            portion[2].append(number)
            portion[3].append(publication.data)
            size += len(publication.data)
    if portion[1]:
        yield portion


def _plain(epoch: str) -> str:
    """Return an epoch that the server can take as text: one from a forged token is none of ours in any case."""
    return epoch if epoch.isascii() and "\0" not in epoch else "?"


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
