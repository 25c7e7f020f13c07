"""Backends whose calls are broken on purpose: batches, refusals, cancelled and overlapping ones, and outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from broken_backends import LIMIT, Limited
from memory_subject import RemoteBackend

from channels_core.backend import MAX_BATCH_BYTES, History, Key, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import BackendConnectionError, BackendError


class CountsBeforeItStores(RemoteBackend):
    """Reads the newest offset in one step and stores the next one in another (``SELECT max``, then ``INSERT``)."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        self._reach()
        for publication in batch:
            for channel in publication.channels:
                await self._store(channel, publication.data)
        return [None] * len(batch)

    async def _store(self, channel: str, data: bytes) -> None:
        now = time.monotonic()
        record = self.broker._touch(channel, now)
        event = Event(channel, data, Position(record.epoch, record.offset + 1))
        await asyncio.sleep(0)
        record.offset = max(record.offset, (event.position or record.top).offset)
        record.events.append((now, event))
        self.broker._hand_over([event])


class StopsAtARefusal(Limited):
    """Refuses whatever follows a publication that it refuses."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        outcomes: list[BackendError | None] = []
        for publication in batch:
            last = outcomes[-1] if outcomes else None
            outcomes += [last] if last else await super().publish_batch([publication])
        return outcomes


class RaisesARefusal(Limited):
    """Raises what it should return."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        outcomes = await super().publish_batch(batch)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        return outcomes


class CutsOffInABatch(Limited):
    """Refuses alone what it cuts off in a batch."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch([Publication(p.data[:LIMIT], p.channels, p.key) for p in batch])


class TakesHalfABatch(RemoteBackend):
    """Drops what does not fit into one message."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        size = 0
        for count, publication in enumerate(batch):
            size += len(publication.data)
            if count and size > MAX_BATCH_BYTES // 2:
                return await super().publish_batch(batch[:count]) + [None] * (len(batch) - count)
        return await super().publish_batch(batch)


class MixesBatches(RemoteBackend):
    """Has one place for the batch of all lanes."""

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await super().publish_batch([Publication(data, tuple(channels), key)])

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        self.batch = batch
        await asyncio.sleep(0)
        return await super().publish_batch(self.batch)


class MixesTops(RemoteBackend):
    """Has one place for the channels of all calls of `get_tops`."""

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        self.question = channels
        await asyncio.sleep(0)
        return await super().get_tops(self.question)


class LeavesTopsUnread(RemoteBackend):
    """Takes the tops of a cancelled call for those of the next one."""

    unread: dict[str, Position] | None = None

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        tops = await super().get_tops(channels)
        unread, self.unread = self.unread, tops
        await asyncio.sleep(0)
        self.unread = None
        return unread or tops


class LeavesOutcomesUnread(RemoteBackend):
    """Takes the outcomes of a cancelled batch for those of the next one."""

    unread: list[BackendError | None] | None = None

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await super().publish_batch([Publication(data, tuple(channels), key)])

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        outcomes = await super().publish_batch(batch)
        unread, self.unread = self.unread, outcomes
        await asyncio.sleep(0)
        self.unread = None
        return unread or outcomes


class StaysBusy(RemoteBackend):
    """Does not notice that a subscribe was cancelled."""

    busy = False

    async def subscribe(self, channels: Sequence[str]) -> None:
        while self.busy:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        self.busy = True
        await asyncio.sleep(0)
        await super().subscribe(channels)
        self.busy = False


class ForgetsKeysOfBatches(RemoteBackend):
    """Looks at the key of a single publication only."""

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await super().publish_batch([Publication(data, tuple(channels), key)])

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        outcomes = await super().publish_batch([Publication(p.data, p.channels) for p in batch])
        await asyncio.sleep(0)
        return outcomes


class AsksTheFirstChannel(RemoteBackend):
    """Decides by the first of several channels whether a publication was stored before."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch([self._reduced(publication) for publication in batch])

    def _reduced(self, publication: Publication) -> Publication:
        record = self.broker._records.get(publication.channels[0])
        if record is None or publication.key is None:
            return publication
        lane, number = publication.key
        known = record.lanes.get(lane, (0, 0.0))[0] >= number
        return Publication(publication.data, publication.channels[:1], publication.key) if known else publication


class LosesItsReader(RemoteBackend):
    """Opens its connection for reading history once."""

    lost = False

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        self.use()
        return await super().get_history(channel, limit, after=after)

    def use(self) -> None:
        self.lost = self.lost or self.broker.away
        if self.lost:
            raise BackendConnectionError("the connection for reading is closed")


class LosesItsTops(LosesItsReader):
    """Opens its connection for tops once."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await RemoteBackend.get_history(self, channel, limit, after=after)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        self.use()
        return await super().get_tops(channels)


class RaisesTimeouts(RemoteBackend):
    """Raises its driver's own exception while the broker is away."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        if self.broker.away:
            raise TimeoutError("the driver got no answer")
        return await super().publish_batch(batch)


class TakesOneNameWhileBusy(RemoteBackend):
    """Subscribes to one of several names once events have come."""

    async def on_startup(self) -> None:
        await super().on_startup()
        self.busy = False

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            self.busy = True
            yield event

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe(channels[:1] if self.busy else channels)
