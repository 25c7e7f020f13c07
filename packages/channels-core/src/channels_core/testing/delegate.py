"""A backend that hands every call to another one: the base of backends that misbehave on purpose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Self

from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendError, InvalidURL

__all__ = ("DelegatingBackend",)


class DelegatingBackend(ChannelsBackend):
    """Hands every call to ``backend``; override what should go wrong."""

    def __init__(self, backend: ChannelsBackend) -> None:
        self.backend = backend
        self.keeps_history = backend.keeps_history
        self.max_payload = backend.max_payload

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Refuse: it wraps an instance.

        Raises:
            InvalidURL: Always.
        """
        raise InvalidURL(f"{cls.__name__} has no URL; wrap an instance")

    async def on_startup(self) -> None:
        await self.backend.on_startup()

    async def on_shutdown(self) -> None:
        await self.backend.on_shutdown()

    def stream_events(self) -> AsyncIterator[Event]:
        return self.backend.stream_events()

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self.backend.subscribe(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await self.backend.unsubscribe(channels)

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await self.backend.publish(data, channels, key=key)

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await self.backend.publish_batch(batch)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await self.backend.get_history(channel, limit, after=after)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        return await self.backend.get_tops(channels)

    async def publish_probe(self, channel: str, data: bytes) -> None:
        await self.backend.publish_probe(channel, data)

    def probe_channels(self) -> Sequence[str]:
        return self.backend.probe_channels()
