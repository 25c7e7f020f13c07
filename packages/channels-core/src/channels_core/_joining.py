"""Joining: how a stream gets a channel's past in front and its future behind, exactly.

A join notes ``cut``, the channel's head, and begins to hold the channel's live events, without an ``await`` between.
Everything above the cut thus reaches the stream from the hold, everything up to it from history. A stream whose
backlog is full *lags*: it gets nothing live, and joins again from where it stands when its consumer has taken
everything. So catching up is joining, page by page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Final

from channels_core._channel import Channel, Hold
from channels_core._history import Walk, is_within
from channels_core._link import Link
from channels_core._logging import RateLimitedLogger
from channels_core.backend import History
from channels_core.backlog import Backlog, Item
from channels_core.events import ORIGIN, Event, Position
from channels_core.router import PAGE, Router
from channels_core.stats import Counters

Start = Position | int | None
"""Where a stream begins in a channel: after a position, with the newest so many events, or now."""

Front = tuple[Position, list[Item]]
"""The position after which a stream begins, and what history brings from there up to the cut."""


class Joiner:
    """Lets streams in and out of channels.

    Args:
        router: Knows the channels.
        link: The way to the broker.
        counters: Shared with the plugin.
        log: Shared with the plugin.
    """

    def __init__(self, router: Router, link: Link, counters: Counters, log: RateLimitedLogger) -> None:
        self._router: Final = router
        self._link: Final = link
        self._counters: Final = counters
        self._log: Final = log
        self._lagging: Final[dict[Backlog, dict[str, Position]]] = {}
        self._feeding: Final[set[Backlog]] = set()

    async def join(self, stream: Backlog, starts: Mapping[str, Start]) -> dict[str, Position]:
        """Let a stream have these channels, each from its start; waits for the broker as long as it takes.

        Returns:
            The position after which the stream begins, per channel.
        """
        channels = [self._router.claim(name) for name in starts]
        try:
            await self._await_ready(channels, starts)
            if all(start is None for start in starts.values()):
                return _follow_from_now(stream, channels)
            return await self._join_with_history(stream, channels, starts)
        finally:
            for channel in channels:
                self._router.unclaim(channel)

    def join_open(self, stream: Backlog, starts: Mapping[str, Start]) -> dict[str, Position] | None:
        """Do what `join` does where there is nothing to wait for; else do nothing and return ``None``."""
        channels = [channel for name in starts if (channel := self._router.channel(name)) is not None]
        open_ones = len(channels) == len(starts) and all(channel.confirmed for channel in channels)
        if not open_ones or any(start is not None for start in starts.values()):
            return None
        return _follow_from_now(stream, channels)

    def leave(self, stream: Backlog, names: Collection[str]) -> None:
        """Take a stream out of channels; local and immediate."""
        self._router.remove(stream, names)
        self._forget_lags(stream, names)

    async def read_before(self, starts: Mapping[str, Position], limit: int | None) -> list[Front]:
        """Read those of each channel's newest ``limit`` events that a stream does not bring anyway."""
        return await _gather(self._read_newest(name, limit, start) for name, start in starts.items())

    def put_front(self, stream: Backlog, items: Sequence[Item]) -> None:
        """Put history in front of a stream."""
        self._counters.delivered += sum(isinstance(item, Event) for item in items)
        stream.push_front(items)

    def lag(self, stream: Backlog, name: str, last: Position) -> bool:
        """Feed a stream from history after ``last``, because live events of the channel do not fit.

        False when the stream does not have the channel: what was put into it by hand is in no history.
        """
        channel = self._router.channel(name)
        if channel is None or stream not in channel.members:
            return False
        self._lag(stream, channel, last)
        return True

    def feed(self, stream: Backlog) -> None:
        """Read on for a stream that lags and whose consumer waits."""
        if stream in self._lagging and stream not in self._feeding:
            self._feeding.add(stream)
            self._router.spawn(self._feed(stream), "feed")

    async def _await_ready(self, channels: Sequence[Channel], starts: Mapping[str, Start]) -> None:
        """Return when the broker confirmed all of them and no ``after`` is ahead of its channel's head."""
        for channel in channels:
            await channel.wait_confirmed()
        for channel in channels:
            start = starts[channel.name]
            if isinstance(start, Position):
                await self._catch_up_with(channel, start)
        while not all(channel.confirmed for channel in channels):
            for channel in channels:
                await channel.wait_confirmed()

    async def _catch_up_with(self, channel: Channel, after: Position) -> None:
        """Repair a channel whose head may lie behind a position that another process gave out."""
        for _ in range(2):  # the first may have read before the position was given out
            if is_within(after, channel.head or ORIGIN):
                return
            await asyncio.wait((self._router.repair(channel),))
            await channel.wait_confirmed()

    async def _join_with_history(
        self, stream: Backlog, channels: Sequence[Channel], starts: Mapping[str, Start]
    ) -> dict[str, Position]:
        holds = [Hold(channel.head or ORIGIN, stream.limit) for channel in channels]
        for channel, hold in zip(channels, holds, strict=True):
            channel.set_member(stream, hold)
        try:
            fronts = await _gather(
                self._read_front(c.name, starts[c.name], h.cut) for c, h in zip(channels, holds, strict=True)
            )
        except BaseException:
            self.leave(stream, [channel.name for channel in channels])
            raise
        return self._install(stream, channels, holds, fronts)

    def _install(
        self, stream: Backlog, channels: Sequence[Channel], holds: Sequence[Hold], fronts: Sequence[Front]
    ) -> dict[str, Position]:
        joined = [
            (channel, hold, front)
            for channel, hold, front in zip(channels, holds, fronts, strict=True)
            if channel.members.get(stream) is hold
        ]
        self.put_front(stream, [item for _, _, (_, items) in joined for item in items])
        for channel, hold, _ in joined:
            self._go_live(stream, channel, hold)
        return {channel.name: begin for channel, _, (begin, _) in joined}

    async def _read_front(self, name: str, start: Start, cut: Position) -> Front:
        if start is None:
            return cut, []
        if isinstance(start, int):
            return await self._read_newest(name, start, cut)
        walk = Walk(name, start, cut)
        while walk.last != cut and walk.take(await self._link.read(name, PAGE, walk.last)):
            pass
        walk.finish(cut)
        return start, walk.items

    async def _read_newest(self, name: str, limit: int | None, cut: Position) -> Front:
        walk = Walk(name, None, cut)
        walk.take(await self._link.read(name, limit))
        first = walk.items[0] if walk.items else None
        if not isinstance(first, Event) or first.position is None:
            return cut, []
        walk.finish(cut)
        return first.position.before(), walk.items

    def _go_live(self, stream: Backlog, channel: Channel, hold: Hold) -> None:
        """Hand over what was held, if it fits, and let live events go straight into the stream."""
        if hold.overflowed or not stream.has_room(len(hold.items)):
            self._lag(stream, channel, hold.cut)
            return
        channel.set_member(stream, stream)
        stream.feed(hold.items)

    def _lag(self, stream: Backlog, channel: Channel, last: Position) -> None:
        channel.set_member(stream, None)
        self._lagging.setdefault(stream, {})[channel.name] = last
        if stream.is_idle:
            self.feed(stream)

    def _forget_lags(self, stream: Backlog, names: Collection[str]) -> None:
        lagging = self._lagging.get(stream)
        if lagging is None:
            return
        for name in names:
            lagging.pop(name, None)
        if not lagging:
            del self._lagging[stream]

    async def _feed(self, stream: Backlog) -> None:
        try:
            while stream.is_idle and (lagging := self._lagging.get(stream)):
                name = next(iter(lagging))
                channel = self._router.claim(name)
                try:
                    await self._feed_page(stream, channel, lagging[name])
                finally:
                    self._router.unclaim(channel)
        finally:
            self._feeding.discard(stream)

    async def _feed_page(self, stream: Backlog, channel: Channel, last: Position) -> None:
        """Read one page, and go live when it ends at the head."""
        await self._await_ready([channel], {channel.name: last})
        if self._lagging.get(stream, {}).get(channel.name) is not last:
            return  # it left meanwhile, and may even have joined again
        hold = Hold(channel.head or ORIGIN, stream.limit)
        channel.set_member(stream, hold)
        walk = Walk(channel.name, last, hold.cut)
        more = last != hold.cut and walk.take(await self._read_or_skip(channel.name, stream.limit or PAGE, last))
        if channel.members.get(stream) is not hold:
            return
        self._forget_lags(stream, (channel.name,))
        if not more:
            walk.finish(hold.cut)
        self._counters.delivered += stream.feed(walk.items)
        if more and walk.last is not None:
            self._lag(stream, channel, walk.last)
        else:
            self._go_live(stream, channel, hold)

    async def _read_or_skip(self, name: str, limit: int, after: Position) -> History:
        try:
            return await self._link.read(name, limit, after)
        except Exception as exc:
            self._log.warning(("feed", name), "history of %r cannot be read", name, exc=exc)
            return History((), ORIGIN)


def _follow_from_now(stream: Backlog, channels: Sequence[Channel]) -> dict[str, Position]:
    for channel in channels:
        channel.set_member(stream, stream)
    return {channel.name: channel.head or ORIGIN for channel in channels}


async def _gather(reads: Iterable[Coroutine[None, None, Front]]) -> list[Front]:
    """Run reads side by side; the first error ends them all and is raised as it is."""
    works = list(reads)
    if len(works) == 1:
        return [await works[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
