"""The backend: threads for publishing, reading and watching, and who subscribed to what."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError, InvalidURL, NotStarted
from channels_core.urls import Count, Seconds, parse_options, parse_url
from channels_sqlite.store import Limits, Row, Store
from channels_sqlite.worker import Worker

__all__ = ("SQLiteChannelsBackend",)

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Every receiver reads every event: larger ones belong elsewhere, with their address in the event."""

POLL: Final = 0.01
"""Seconds between two looks at the file, which tells nobody when it changes; see the README for what that costs."""


class Options(msgspec.Struct, frozen=True):
    """What a URL may say."""

    history: Count = 0
    max_age: Seconds | None = None
    poll: Seconds = POLL


class SQLiteChannelsBackend(ChannelsBackend):
    """An SQLite file as broker, for several processes on one machine.

    Args:
        path: The file; made if it is not there, its folder is not.
        history: Events kept per channel; 0 keeps none, and events then have no position.
        max_age: Seconds after which an event is never delivered from history; ``None`` for no limit.
        poll: Seconds between two looks at the file.
    """

    max_payload = MAX_PAYLOAD

    def __init__(self, path: str | Path, *, history: int = 0, max_age: float | None = None, poll: float = POLL) -> None:
        self.keeps_history = history > 0
        self._path: Final = Path(path)
        self._limits: Final = Limits(history, max_age)
        self._poll: Final = poll
        self._session: _Session | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Build from ``sqlite:///relative.db?history=100`` or ``sqlite:////absolute/path.db``."""
        parts = parse_url(url)
        options = parse_options(url, Options)
        if parts.netloc or not parts.path.strip("/"):
            raise InvalidURL(f"{url!r} names no file; expected sqlite:///relative.db or sqlite:////absolute/path.db")
        return cls(parts.path[1:], history=options.history, max_age=options.max_age, poll=options.poll)

    @property
    def is_receiving(self) -> bool:
        """Whether it is started and its file is where it was."""
        return self._session is not None and not self._session.ended

    async def on_startup(self) -> None:
        session = _Session(self._path, self._limits, self._poll)
        try:
            await session.start()
        except BaseException:
            await session.close()
            raise
        self._session = session

    async def on_shutdown(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def stream_events(self) -> AsyncIterator[Event]:
        session = self._started()
        while True:
            for seq, event in await session.next_rows():
                if seq > session.subscribed.get(event.channel, seq):
                    yield event

    async def subscribe(self, channels: Sequence[str]) -> None:
        session = self._started()
        # Only what is published from now on: the watcher may be behind, and old events are no live events.
        seq = await session.reader.call(Store.last_seq)
        session.subscribed = {**dict.fromkeys(channels, seq), **session.subscribed}

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        session = self._started()
        for channel in channels:
            session.subscribed.pop(channel, None)

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        for refused in await self.publish_batch((Publication(data, tuple(channels), key),)):
            if refused is not None:
                raise refused

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        session = self._started()
        outcomes = [_refusal(publication) for publication in batch]
        accepted = [publication for publication, refused in zip(batch, outcomes, strict=True) if refused is None]
        await session.writer.call(lambda store: store.publish(accepted))
        session.wake.set()
        return outcomes

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        if not self.keeps_history:
            return await super().get_history(channel, limit, after=after)
        return await self._started().reader.call(lambda store: store.read(channel, limit, after))

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        return await self._started().reader.call(lambda store: store.tops(channels))

    def _started(self) -> _Session:
        if self._session is None:
            raise NotStarted("the SQLite backend is not started; call on_startup first")
        return self._session


class _Session:
    """What lives from one start to the next stop.

    Attributes:
        subscribed: Channel → number of the last event before the subscription.
        wake: Set to look at the file at once.
        ended: Whether watching has come to its end.
    """

    def __init__(self, path: Path, limits: Limits, poll: float) -> None:
        def open_store() -> Store:
            return Store(path, limits)

        self.writer: Final = Worker(open_store)
        self.reader: Final = Worker(open_store)
        self.subscribed: dict[str, int] = {}
        self.wake: Final = threading.Event()
        self.ended = False
        self._watcher: Final = Worker(open_store)
        self._poll: Final = poll
        self._seen = 0

    async def start(self) -> None:
        """Open the file and note where its end is."""
        self._seen = await self._watcher.call(Store.last_seq)

    async def close(self) -> None:
        """End the watcher, then all threads."""
        self.ended = True
        self.wake.set()
        for worker in (self._watcher, self.writer, self.reader):
            await worker.close()

    async def next_rows(self) -> list[Row]:
        """Wait for further events."""
        try:
            rows = await self._watcher.call(self._watch)
        except BaseException:
            self.ended = True
            raise
        self._seen = rows[-1].seq
        return rows

    def _watch(self, store: Store) -> list[Row]:
        """Look until there is something; the thread waits here, so that the event loop is left alone."""
        while not self.ended:
            self.wake.clear()
            if rows := store.rows_after(self._seen):
                return rows
            self.wake.wait(self._poll)
        raise BackendConnectionError("the SQLite backend was shut down")


def _refusal(publication: Publication) -> BackendError | None:
    size = len(publication.data)
    return BackendError(f"{size} bytes are more than {MAX_PAYLOAD}") if size > MAX_PAYLOAD else None
