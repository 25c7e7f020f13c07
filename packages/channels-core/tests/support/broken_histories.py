"""Backends whose history is broken on purpose, each in the way that its docstring says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from memory_subject import RemoteBackend

from channels_core.backend import History, Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import BackendError


class HasPositionsAnyway(RemoteBackend):
    """Keeps no history and gives positions all the same."""

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            yield Event(event.channel, event.data, Position("e", 1))


class CreatesByReading(RemoteBackend):
    """Makes a record for every channel that is asked for."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        self.broker._touch(channel, 0.0)
        return await super().get_history(channel, limit, after=after)


class GivesTheOldest(RemoteBackend):
    """Takes the limit from the wrong end."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await super().get_history(channel, limit, after=after or ORIGIN)


class GivesTheNewest(RemoteBackend):
    """Takes the limit from the other wrong end."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel, after=after)
        return History(page.events[-limit or len(page.events) :] if limit else page.events, page.top)


class IncludesAfter(RemoteBackend):
    """Begins with the position that was given, not behind it."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        return await super().get_history(channel, limit, after=after and after.before())


class ForgetsEpochs(RemoteBackend):
    """Compares offsets, whatever their epoch."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel)
        events = [e for e in page.events if after is None or (e.position or ORIGIN).offset > after.offset]
        return History(events if limit is None else events[:limit] if after else events[-limit:], page.top)


class LeavesOutUnused(RemoteBackend):
    """Answers for the channels that it knows."""

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        return {name: top for name, top in (await super().get_tops(channels)).items() if top != ORIGIN}


class CountsInTheInstance(RemoteBackend):
    """Numbers what it receives by itself."""

    async def stream_events(self) -> AsyncIterator[Event]:
        offsets: dict[str, int] = {}
        async for event in super().stream_events():
            offsets[event.channel] = offsets.get(event.channel, 0) + 1
            yield Event(event.channel, event.data, Position(f"{id(self)}", offsets[event.channel]))


class CountsInTwos(RemoteBackend):
    """Leaves a number out between any two events, as a counter shared with others does."""

    async def stream_events(self) -> AsyncIterator[Event]:
        async for event in super().stream_events():
            position = event.position or ORIGIN
            yield Event(event.channel, event.data, Position(position.epoch, 2 * position.offset - 1))


class ReplaysHistory(RemoteBackend):
    """Delivers what is stored to every new subscription."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe(channels)
        for channel in channels:
            self._started().put((await super().get_history(channel)).events)


class LagsBehind(RemoteBackend):
    """Reads history on a replica that has not got the newest event yet."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel)
        older = page.events[:-1]
        return History(older[-limit:] if limit else older, older[-1].position or ORIGIN if older else ORIGIN)

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        return {channel: (await self.get_history(channel)).top for channel in channels}


class MixesAnswers(RemoteBackend):
    """Has one place for the question of all calls."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        self.question = channel
        await asyncio.sleep(0)
        return await super().get_history(self.question, limit, after=after)


class ForgetsItsTop(RemoteBackend):
    """Takes the top from the newest event that is stored."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        stored = (await super().get_history(channel)).events
        page = await super().get_history(channel, limit, after=after)
        return History(page.events, stored[-1].position or ORIGIN if stored else ORIGIN)


class LeavesAnswersUnread(RemoteBackend):
    """Takes the answer of a cancelled call for that of the next one."""

    unread: History | None = None

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel, limit, after=after)
        unread, self.unread = self.unread, page
        await asyncio.sleep(0)
        self.unread = None
        return unread or page


class HasOneLane(RemoteBackend):
    """Keeps one highest number for all publishers."""

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        return await super().publish_batch(
            [Publication(p.data, p.channels, p.key and ("the lane", p.key[1])) for p in batch]
        )


class PagesInTwoSteps(RemoteBackend):
    """Reads the top later where a position is given."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel, limit, after=after)
        if after is None or after == ORIGIN:
            return page
        await asyncio.sleep(0)
        return History(page.events, (await super().get_history(channel, 0)).top)


class PagesFromTheOriginInTwoSteps(RemoteBackend):
    """Reads the top later where everything is asked for."""

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        page = await super().get_history(channel, limit, after=after)
        if after != ORIGIN:
            return page
        await asyncio.sleep(0)
        return History(page.events, (await super().get_history(channel, 0)).top)
