"""Without history: NOTIFY alone, no tables, at most once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from channels_core.backend import History, Publication
from channels_core.events import Event, Position
from channels_core.exceptions import HistoryNotSupported
from channels_postgres._driver import Driver
from channels_postgres._envelope import BUCKETS, Packer, bucket_of, name_bytes
from channels_postgres._options import Options
from channels_postgres._session import Session

__all__ = ("NotifySession", "bucket_names", "pack")


def bucket_names(prefix: str) -> list[str]:
    """Return the physical channels, by bucket."""
    return [f"{prefix}_{bucket:02x}" for bucket in range(BUCKETS)]


def pack(batch: Iterable[Publication], packer: Packer, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return physical channels and payloads, side by side; a channel named twice gets an event once."""
    groups: defaultdict[str, list[bytes]] = defaultdict(list)
    for publication in batch:
        channels = publication.channels
        for channel in channels if len(channels) == 1 else dict.fromkeys(channels):
            groups[channel].append(publication.data)
    buckets, payloads = packer.pack_by_bucket((name_bytes(channel), events) for channel, events in groups.items())
    return [names[bucket] for bucket in buckets], payloads


class NotifySession(Session):
    """Sends and receives the events themselves as notifications."""

    def __init__(self, driver: Driver, options: Options) -> None:
        super().__init__(driver, options)
        self._names: Final = bucket_names(options.prefix)
        self._uses: Counter[int] = Counter()

    async def stream(self) -> AsyncIterator[Event]:
        while True:
            await self.listener.wait()
            for event in self.drain():
                yield event
            self.listener.check()

    async def subscribe(self, channels: Sequence[str]) -> None:
        added = Counter(map(bucket_of, self.want(channels)))
        fresh = [self._names[bucket] for bucket in added if not self._uses[bucket]]
        self._uses += added
        await self.listener.listen(fresh)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        removed = Counter(map(bucket_of, self.unwant(channels)))
        self._uses -= removed
        await self.listener.unlisten([self._names[bucket] for bucket in removed if not self._uses[bucket]])

    async def publish(self, batch: Sequence[Publication]) -> None:
        names, payloads = pack(batch, self.packer, self._names)
        if payloads:
            await self.notify(names, payloads)

    async def publish_probe(self, channel: str, data: bytes) -> None:
        await self.publish((Publication(data, (channel,)),))

    async def get_history(self, channel: str, limit: int | None, after: Position | None) -> History:
        raise _no_history()

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        raise _no_history()

    def _notified(self, name: str, payload: str) -> None:
        if payload:
            self.receive(payload)


def _no_history() -> HistoryNotSupported:
    return HistoryNotSupported("this backend keeps no history; add ?history=N or ?max_age=SECONDS to its URL")
