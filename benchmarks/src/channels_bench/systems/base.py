"""What a system must offer to be measured. An adapter is a subclass of `System` and one of `Stream`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

__all__ = ("BURST", "Bursts", "Stream", "System")

BURST = 100
"""Events handed over before the publisher lets others run, the same for every system."""


class Stream(ABC):
    """What one subscriber receives."""

    @abstractmethod
    async def take(self, count: int) -> bytes:
        """Consume so many events in the way that the system's documentation shows; returns the last one's data."""

    async def next_item(self) -> bytes | None:
        """Return the next event's data, or ``None`` where the system says that events may be missing."""
        return await self.take(1)

    async def close(self) -> None:  # noqa: B027 - a floor has nothing to leave
        """Leave."""


class System(ABC):
    """One system, in the way that its documentation tells to use it.

    Args:
        url: Where its server is; ``memory://`` for a system without one.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    async def start(self) -> None:
        """Connect."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect."""

    @abstractmethod
    async def subscribe(self, channel: str) -> Stream:
        """Return a new subscriber of one channel, which receives everything published from now on."""

    @abstractmethod
    async def publish(self, data: bytes, channel: str) -> None:
        """Return when the server has accepted the event."""

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        """Publish many in the fastest way of the system's own; returns when they were handed over."""
        for data in events:
            await self.publish(data, channel)

    async def pour_many(self, events: Sequence[bytes], channels: Sequence[str]) -> None:
        """Publish many, to each channel in turn; returns when they were handed over."""
        for number, data in enumerate(events):
            await self.publish(data, channels[number % len(channels)])

    async def flush(self) -> None:  # noqa: B027 - most systems have nothing waiting
        """Return when everything that was handed over is accepted."""

    def send(self, data: bytes, channel: str) -> None:
        """Publish without waiting."""
        task = asyncio.ensure_future(self.publish(data, channel))
        _sending.add(task)
        task.add_done_callback(_sending.discard)

    async def leave_all(self, streams: Sequence[Stream]) -> None:
        """Let every stream leave."""
        for stream in streams:
            await stream.close()

    async def join_many(self, channels: Sequence[str]) -> Sequence[Stream]:
        """Subscribe to many channels, as few subscribers as the system needs for them."""
        return [await self.subscribe(channel) for channel in channels]

    async def read_history(self, channel: str, count: int) -> int:
        """Subscribe with history and return how many events of it came."""
        raise NotImplementedError(f"{type(self).__name__} keeps no history")


class Bursts(System):
    """A system whose ``plugin`` publishes in the background and returns at once."""

    plugin: Any

    async def pour(self, events: Sequence[bytes], channel: str) -> None:
        publish = self.plugin.publish
        for start in range(0, len(events), BURST):
            for data in events[start : start + BURST]:
                publish(data, channel)
            await asyncio.sleep(0)

    async def pour_many(self, events: Sequence[bytes], channels: Sequence[str]) -> None:
        publish, many = self.plugin.publish, len(channels)
        for start in range(0, len(events), BURST):
            for number, data in enumerate(events[start : start + BURST], start):
                publish(data, channels[number % many])
            await asyncio.sleep(0)


_sending: set[asyncio.Future[None]] = set()
