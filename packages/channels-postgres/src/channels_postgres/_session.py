"""Everything that lives from start to stop: connections, subscriptions and what has arrived."""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from channels_core.backend import History, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendError
from channels_postgres._connecting import connect
from channels_postgres._driver import Driver
from channels_postgres._envelope import Assembler, Group, Packer, name_bytes
from channels_postgres._listener import Listener
from channels_postgres._options import Options
from channels_postgres._pool import Pool

__all__ = ("NOTIFY", "Session")

NOTIFY: Final = "SELECT count(pg_notify(name, payload)) FROM unnest($1::text[], $2::text[]) AS t (name, payload)"
"""Many notifications in one transaction, in this order."""

_QUEUE_USAGE: Final = "SELECT pg_notification_queue_usage()::text"

_WRITERS: Final = 3
"""One per lane and one for the probe, which must not queue behind a large batch."""

_CHECK_TIMEOUT: Final = 2.0
"""Seconds for the notification of the start-up check to come back."""


class Session(ABC):
    """A started backend.

    Args:
        driver: Opens the connections.
        options: What the user chose.
    """

    def __init__(self, driver: Driver, options: Options) -> None:
        self.options: Final = options
        self.writers: Final = Pool(lambda: driver.connect(listening=False), _WRITERS)
        self.packer: Final = Packer()
        self.assembler: Final = Assembler()
        self.wanted: Final[dict[bytes, str]] = {}
        self._driver: Final = driver
        self._arrived: Final[deque[Event]] = deque()
        self._resources: Final = AsyncExitStack()
        self._listener: Listener | None = None

    @property
    def listener(self) -> Listener:
        """The receiving connection of a session that was opened."""
        assert self._listener is not None, "the session was not opened"
        return self._listener

    async def open(self) -> None:
        """Connect and check; whatever fails closes everything."""
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close everything; calls in flight end with `BackendConnectionError`."""
        await self._resources.aclose()

    async def _open(self) -> None:
        self._resources.push_async_callback(self.writers.close)
        link = await connect(lambda: self._driver.connect(listening=True))
        self._listener = Listener(link, self._notified)
        self._resources.push_async_callback(self._listener.close)
        await self._check_round_trip()

    @abstractmethod
    def stream(self) -> AsyncIterator[Event]:
        """See `ChannelsBackend.stream_events`."""

    @abstractmethod
    async def subscribe(self, channels: Sequence[str]) -> None:
        """See `ChannelsBackend.subscribe`."""

    @abstractmethod
    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """See `ChannelsBackend.unsubscribe`."""

    @abstractmethod
    async def publish(self, batch: Sequence[Publication]) -> None:
        """Publish all of the batch or, with an error, none of it or an unknown part."""

    @abstractmethod
    async def publish_probe(self, channel: str, data: bytes) -> None:
        """See `ChannelsBackend.publish_probe`."""

    @abstractmethod
    async def get_history(self, channel: str, limit: int | None, after: Position | None) -> History:
        """See `ChannelsBackend.get_history`."""

    @abstractmethod
    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        """See `ChannelsBackend.get_tops`."""

    async def notify(self, names: Sequence[str], payloads: Sequence[str]) -> None:
        """Send notifications in one transaction."""
        await self.writers.call(lambda link: link.fetch(NOTIFY, names, payloads))

    async def get_queue_usage(self) -> float:
        """Return the share of the server's notification queue that is in use."""
        ((usage,),) = await self.writers.call(lambda link: link.fetch(_QUEUE_USAGE))
        return float(usage)

    def drain(self) -> Iterable[Event]:
        """Take what has arrived, one by one."""
        while self._arrived:
            yield self._arrived.popleft()

    def receive(self, payload: str) -> None:
        """Keep those events of a notification that somebody subscribed to."""
        self._arrived.extend(self._select(self.assembler.feed(payload)))

    def _select(self, groups: Iterable[Group]) -> Iterable[Event]:
        for name, events in groups:
            channel = self.wanted.get(name)
            if channel is not None:
                yield from [Event(channel, data) for data in events]

    def want(self, channels: Iterable[str]) -> list[bytes]:
        """Note channels as subscribed; returns the names that were not before."""
        new = {name: channel for channel in channels if (name := name_bytes(channel)) not in self.wanted}
        self.wanted.update(new)
        return list(new)

    def unwant(self, channels: Iterable[str]) -> list[bytes]:
        """Undo `want`; returns the names that were subscribed."""
        names = dict.fromkeys(map(name_bytes, channels))
        return [name for name in names if self.wanted.pop(name, None) is not None]

    @abstractmethod
    def _notified(self, name: str, payload: str) -> None:
        """Take one notification."""

    async def _check_round_trip(self) -> None:
        """Prove that what the publishing connections send reaches the listening one.

        Raises:
            BackendError: It does not. A transaction pooler accepts LISTEN and forgets it.
        """
        name = f"{self.options.prefix}_check_{secrets.token_hex(6)}"
        await self.listener.listen((name,))
        await self.notify((name,), ("",))
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                await self.listener.wait()
        except TimeoutError as exc:
            raise BackendError(
                f"no notification came back within {_CHECK_TIMEOUT:g} s: is there a transaction pooler between here "
                "and the server? give it as dsn, and a direct connection to the same database as listen_dsn"
            ) from exc
        await self.listener.unlisten((name,))
