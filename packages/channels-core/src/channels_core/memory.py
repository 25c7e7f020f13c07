"""The memory backend: the reference for all others, and a broker of its own for one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Self
from urllib.parse import unquote

import msgspec

from channels_core._memory_broker import MemoryBroker, Receiver, shared_broker
from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import (
    BackendError,
    HistoryNotSupported,
    InvalidURL,
    NotStarted,
)
from channels_core.urls import Count, Seconds, parse_options, parse_url

__all__ = ("MemoryChannelsBackend",)


class _Options(msgspec.Struct, frozen=True):
    history: Count | msgspec.UnsetType = msgspec.UNSET
    max_age: Seconds | msgspec.UnsetType | None = msgspec.UNSET


class MemoryChannelsBackend(ChannelsBackend):
    """A broker inside the process.

    It lives with the instance, across restarts of the plugin: history and positions stay. Nothing crosses to another
    process, and nothing outlives this one.

    Args:
        history: Events kept per channel; 0 keeps none, and events then have no position.
        max_age: Seconds after which an event is never delivered from history; ``None`` for no limit.

    Raises:
        ImproperlyConfigured: A negative number, or ``max_age`` without history.
    """

    promise = "within one process; history, positions and resume with ?history=N, else at most once"

    def __init__(self, history: int = 0, *, max_age: float | None = None) -> None:
        self._adopt(MemoryBroker(history, max_age))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Build from ``memory://?history=100&max_age=60`` or ``memory://name``.

        All backends of the process with one name share one broker, across event loops and threads. The first sets the
        options, later ones may leave them out. It is gone with the last of them.

        Raises:
            InvalidURL: An unknown parameter, or a path.
            ImproperlyConfigured: The name is in use with other options.
        """
        parts = parse_url(url)
        if parts.path.strip("/"):
            raise InvalidURL(f"{url!r} has a path; expected memory://NAME?history=N&max_age=SECONDS")
        options = parse_options(url, _Options)
        history = None if options.history is msgspec.UNSET else options.history
        max_age = None if options.max_age is msgspec.UNSET else options.max_age
        if not parts.netloc:
            return cls(history or 0, max_age=max_age)
        backend = cls.__new__(cls)
        any_age = options.max_age is msgspec.UNSET
        backend._adopt(shared_broker(unquote(parts.netloc), history, max_age, any_age=any_age))
        return backend

    def _adopt(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._receiver: Receiver | None = None
        self.keeps_history = broker.history > 0

    async def on_startup(self) -> None:
        if self._receiver is None:
            self._receiver = Receiver()

    async def on_shutdown(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._broker.detach(receiver)

    async def stream_events(self) -> AsyncIterator[Event]:
        receiver = self._started()
        queue = receiver.queue
        while True:
            while queue:
                yield queue.popleft()
            await receiver.wait()

    async def subscribe(self, channels: Sequence[str]) -> None:
        self._broker.subscribe(self._started(), channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._broker.unsubscribe(self._started(), channels)

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await self.publish_batch((Publication(data, tuple(channels), key),))

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        self._started()
        self._broker.publish(batch)
        return [None] * len(batch)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        self._started()
        if not self.keeps_history:
            raise HistoryNotSupported("this memory broker keeps no history; use memory://?history=100")
        return self._broker.read(channel, limit, after)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        self._started()
        return self._broker.tops(channels)

    async def publish_probe(self, channel: str, data: bytes) -> None:
        self._started()
        self._broker.transmit(channel, data)

    def _started(self) -> Receiver:
        if self._receiver is None:
            raise NotStarted("the memory backend is not started; call on_startup first")
        return self._receiver
