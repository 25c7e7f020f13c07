"""Backends whose names, subscriptions or lifecycle are broken on purpose, each in the way that its docstring says."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase

from memory_subject import RemoteBackend, RemoteBroker

from channels_core.backend import History, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError, NotStarted


class Renaming(RemoteBackend):
    """Uses another name than the one that was given."""

    def rename(self, channel: str) -> str:
        return channel

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe([self.rename(channel) for channel in channels])

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        renamed = [Publication(p.data, tuple(map(self.rename, p.channels)), p.key) for p in batch]
        return await super().publish_batch(renamed)


class NormalisesNames(Renaming):
    """Trims names and composes accents."""

    def rename(self, channel: str) -> str:
        return unicodedata.normalize("NFC", channel).strip()


class CutsNames(Renaming):
    """Cuts names off where the broker's identifiers end."""

    def rename(self, channel: str) -> str:
        return channel[:63]


class QuotesNames(Renaming):
    """Puts names into statements without escaping."""

    def rename(self, channel: str) -> str:
        return channel.replace("''", "'").replace("\\", "")


class FoldsNames(Renaming):
    """Makes keys of names, and gives back the name that was subscribed to."""

    def __init__(self, broker: RemoteBroker) -> None:
        super().__init__(broker)
        self.originals: dict[str, str] = {}

    def rename(self, channel: str) -> str:
        return re.sub(r"\W", "_", channel)

    async def subscribe(self, channels: Sequence[str]) -> None:
        self.originals.update((self.rename(channel), channel) for channel in channels)
        await super().subscribe(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        await super().unsubscribe([self.rename(channel) for channel in channels])

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            yield Event(self.originals[event.channel], event.data, event.position)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(self.rename(channel), limit, after=after)
        return History([Event(channel, event.data, event.position) for event in page.events], page.top)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        tops = await super().get_tops([self.rename(channel) for channel in channels])
        return {channel: tops[self.rename(channel)] for channel in channels}


class MatchesPatterns(RemoteBackend):
    """Subscribes to patterns, as ``PSUBSCRIBE`` does, and delivers under the name that was subscribed to."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch(
            [
                Publication(p.data, tuple(name for each in p.channels for name in self._matching(each)), p.key)
                for p in batch
            ]
        )

    def _matching(self, channel: str) -> list[str]:
        patterns = [name for name in self.broker._receivers if name != channel and fnmatchcase(channel, name)]
        return [channel, *patterns]


class ReadsPatterns(RemoteBackend):
    """Looks for history by pattern, as ``LIKE`` does."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        names = [name for name in self.broker._records if fnmatchcase(name, channel)]
        return await super().get_history(names[0] if names else channel, limit, after=after)


class DeliversPerSubscription(RemoteBackend):
    """Delivers an event as often as its channel was subscribed to."""

    async def on_startup(self) -> None:
        await super().on_startup()
        self.joined: Counter[str] = Counter()

    async def subscribe(self, channels: Sequence[str]) -> None:
        self.joined.update(channels)
        await super().subscribe(channels)

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            for _ in range(self.joined[event.channel]):
                yield event


class TakesAHundredNames(RemoteBackend):
    """Subscribes to as many channels as fit into one statement."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe(channels[:100])


class LeavesForAll(RemoteBackend):
    """Takes the subscription away from everybody."""

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        for receiver in self.broker.connections:
            self.broker.unsubscribe(receiver, channels)


class MindsTheUnknown(RemoteBackend):
    """Raises when a channel that is left was never joined."""

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        for channel in channels:
            if channel not in self._started().channels:
                raise KeyError(channel)
        await super().unsubscribe(channels)


class RestartsToSubscribe(RemoteBackend):
    """Loses what arrives while it changes its subscriptions."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe(channels)
        await asyncio.sleep(0)
        self._started().queue.clear()


class StartsOnce(RemoteBackend):
    """Cannot be started again."""

    started = False

    async def on_startup(self) -> None:
        if self.started:
            raise RuntimeError("started before")
        self.started = True
        await super().on_startup()


class KeepsItsLoop(RemoteBackend):
    """Works in its first event loop only."""

    loop: asyncio.AbstractEventLoop | None = None

    async def on_startup(self) -> None:
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        await super().on_startup()


class StopsOnce(RemoteBackend):
    """Raises when it is stopped and does not run."""

    async def on_shutdown(self) -> None:
        if self._receiver is None:
            raise NotStarted("not started")
        await super().on_shutdown()


class EndsQuietly(RemoteBackend):
    """Ends nothing when it stops."""

    async def stream_events(self) -> AsyncIterator[Event]:
        receiver = self._started()
        while True:
            while receiver.queue:
                yield receiver.queue.popleft()
            await asyncio.sleep(0.001)


class StopsOthers(RemoteBackend):
    """Closes what it shares with others."""

    async def on_shutdown(self) -> None:
        started = self._receiver is not None
        await super().on_shutdown()
        if started:
            self.broker.cut()


class SaysGoodBye(RemoteBackend):
    """Waits for the broker when it stops."""

    async def on_shutdown(self) -> None:
        while self.broker.away:  # noqa: ASYNC110 - the broker gives no sign
            await asyncio.sleep(0.01)
        await super().on_shutdown()


class SwallowsFailures(RemoteBackend):
    """Publishes into the void while the broker is away."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return [None] * len(batch) if self.broker.away else await super().publish_batch(batch)


class StartsWithoutBroker(RemoteBackend):
    """Connects later."""

    def _reach(self) -> None:
        if self._receiver is not None:
            super()._reach()


class WantsReceivers(RemoteBackend):
    """Refuses an event that nobody receives."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        for publication in batch:
            for channel in publication.channels:
                if channel not in self.broker._receivers:
                    raise BackendError("nobody is there")
        return await super().publish_batch(batch)


class PublishesToTheFirst(RemoteBackend):
    """Publishes to the first of several channels."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch([Publication(p.data, p.channels[:1], p.key) for p in batch])


class IsAlone(RemoteBackend):
    """Has a broker of its own."""

    def __init__(self, broker: RemoteBroker) -> None:
        super().__init__(RemoteBroker(broker.history))


class SwapsPairs(RemoteBackend):
    """Hands events to tasks, which overtake each other."""

    async def stream_events(self) -> AsyncIterator[Event]:
        first: Event | None = None
        async for event in super().stream_events():
            if first is None:
                first = event
                continue
            yield event
            yield first
            first = None


class NeedsAChannel(RemoteBackend):
    """Cannot wait while nothing is subscribed."""

    async def stream_events(self) -> AsyncIterator[Event]:
        await asyncio.sleep(0)
        if not self._started().channels:
            raise RuntimeError("subscribe first")
        async for event in super().stream_events():
            yield event


class TimesOutWhenIdle(RemoteBackend):
    """Has a driver with a read timeout."""

    async def stream_events(self) -> AsyncIterator[Event]:
        events = super().stream_events()
        while True:
            try:
                yield await asyncio.wait_for(anext(events), 0.05)
            except TimeoutError as exc:
                raise BackendConnectionError("timed out while reading") from exc
