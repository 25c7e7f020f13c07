"""Backends that are broken on purpose, each in the way that its docstring says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

from memory_subject import MemorySubject, RemoteBackend

from channels_core.backend import ChannelsBackend, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError


class UpperCasesNames(RemoteBackend):
    """Folds names to one case, as a key made by ``channel.upper()`` does."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe([channel.upper() for channel in channels])

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch(
            [Publication(p.data, tuple(name.upper() for name in p.channels), p.key) for p in batch]
        )


class LosesTheFirstEvent(RemoteBackend):
    """Takes the first event of a subscription for its confirmation."""

    async def on_startup(self) -> None:
        await super().on_startup()
        self.confirmed: set[str] = set()

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            if event.channel in self.confirmed:
                yield event
            self.confirmed.add(event.channel)


class ReordersABatch(RemoteBackend):
    """Publishes a batch sorted by something else than its order."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch(sorted(batch, key=lambda publication: publication.data, reverse=True))


class GoesQuiet(RemoteBackend):
    """Swallows the end of its connection, as a driver that reconnects by itself does."""

    async def stream_events(self) -> AsyncIterator[Event]:
        try:
            async for event in super().stream_events():
                yield event
        except BackendConnectionError:
            await asyncio.Event().wait()


class ReusesOffsets(RemoteBackend):
    """Names every epoch alike, so that positions come again after a flush."""

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            yield _in_one_epoch(event)

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel, limit, after=after)
        return History(tuple(map(_in_one_epoch, page.events)), _one_epoch(page.top))


class ReadsTopLater(RemoteBackend):
    """Reads the events first and the top afterwards."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel, limit, after=after)
        await asyncio.sleep(0)
        return History(page.events, (await super().get_history(channel, 0)).top)


class DecodesPayloads(RemoteBackend):
    """Treats payloads as UTF-8 text."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch(
            [Publication(p.data.decode("utf-8", "replace").encode(), p.channels, p.key) for p in batch]
        )


class ConnectsPerPublish(RemoteBackend):
    """Opens a connection for every publish and closes none."""

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        leak = RemoteBackend(self.broker)
        await leak.on_startup()
        await leak.publish_batch([Publication(data, tuple(channels), key)])


class AnswersTooEarly(RemoteBackend):
    """Returns from subscribe when the request is sent, not when it is confirmed."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        receiver = self._started()
        asyncio.get_running_loop().call_later(0.001, self.broker.subscribe, receiver, tuple(channels))


class DeliversAfterUnsubscribe(RemoteBackend):
    """Never tells the broker that a channel was left."""

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self._started()


class RepeatsRetries(RemoteBackend):
    """Ignores keys, so that a retry is stored again."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch([Publication(p.data, p.channels) for p in batch])


class ComparesWithTheLastKey(RemoteBackend):
    """Recognises only an immediate retry: a late first attempt is stored again."""

    last: tuple[str, int] | None = None

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        fresh = [publication for publication in batch if publication.key is None or publication.key != self.last]
        self.last = batch[-1].key
        await super().publish_batch([Publication(p.data, p.channels) for p in fresh])
        return [None] * len(batch)


class EndsByItself(RemoteBackend):
    """Ends its stream when the connection is gone, instead of raising."""

    async def stream_events(self) -> AsyncIterator[Event]:
        try:
            async for event in super().stream_events():
                yield event
        except BackendConnectionError:
            return


class LeavesATask(RemoteBackend):
    """Forgets a task when it stops."""

    async def on_startup(self) -> None:
        await super().on_startup()
        self.forgotten = asyncio.create_task(asyncio.Event().wait(), name="forgotten")


class LeavesASocket(RemoteBackend):
    """Forgets a socket when it stops."""

    async def on_startup(self) -> None:
        await super().on_startup()
        self.forgotten = socket.socket()


class SwallowsProbes(RemoteBackend):
    """Accepts a probe and does not send it."""

    async def publish_probe(self, channel: str, data: bytes) -> None:
        self._started()


LIMIT = 2000


class Limited(RemoteBackend):
    """Takes so many bytes and refuses more, as it should."""

    max_payload = LIMIT

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        if len(data) > LIMIT:
            raise self._refusal(data)
        await RemoteBackend.publish_batch(self, [Publication(data, tuple(channels), key)])

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        await super().publish_batch([publication for publication in batch if len(publication.data) <= LIMIT])
        return [self._refusal(p.data) if len(p.data) > LIMIT else None for p in batch]

    def _refusal(self, data: bytes) -> BackendError:
        return BackendError(f"{len(data)} bytes are more than {LIMIT}")


class CutsOff(RemoteBackend):
    """Sends what fits and drops the rest."""

    max_payload = LIMIT

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await super().publish(data[:LIMIT], channels, key=key)


class CountsWrongly(Limited):
    """Declares more than it takes."""

    max_payload = LIMIT + 1


def _one_epoch(position: Position) -> Position:
    return Position("always" if position.offset else "", position.offset)


def _in_one_epoch(event: Event) -> Event:
    # A probe has no position.
    return Event(event.channel, event.data, event.position and _one_epoch(event.position))


class BrokenSubject(MemorySubject):
    """The memory broker behind a backend that misbehaves."""

    keeps_history = True
    call_timeout = 0.3

    def __init__(self, backend: type[RemoteBackend]) -> None:
        self._backend = backend
        self.max_payload = backend.max_payload

    def make_backend(self) -> ChannelsBackend:
        return self._backend(self.broker)
