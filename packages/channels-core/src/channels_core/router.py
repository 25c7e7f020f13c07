"""Routing: which streams want which channel, and how every event gets into each of them once and in order.

One check decides whether anything is missing: ``offset == head + 1`` in the same epoch. Where it fails, the channel
is repaired from history. How streams come in and catch up stands in `_joining`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from channels_core._channel import Channel
from channels_core._history import Walk, follows, is_duplicate, missing_between
from channels_core._link import GRACE, Link
from channels_core._logging import RateLimitedLogger, logger
from channels_core._wakeup import Wakeup
from channels_core.backlog import Backlog, Item
from channels_core.events import ORIGIN, Event, Gap, Position
from channels_core.exceptions import BackendError, NotStarted
from channels_core.stats import Counters

__all__ = ("PAGE", "Router")

MAX_NAMES: Final = 10_000
"""Channels in one subscribe call: enough to make a round trip cheap, few enough to keep the deadline meaningful."""

PAGE: Final = 1_000
"""Events read from history at once."""

MAX_BURST: Final = 256
"""Events fanned out before the event loop gets a turn: consumers must be able to keep up with a flood."""


class Router:
    """Routes events from the backend into streams.

    Args:
        link: The way to the broker.
        counters: Shared with the plugin.
        log: Shared with the plugin.
        max_backlog: What a backlog of this plugin holds, ``None`` for no limit.

    Attributes:
        burst: Events that may be fanned out between two turns of the event loop; never more than a backlog holds,
            so that a consumer that is ready is never overrun for want of a turn.
        on_stray: Called with events of channels that no stream wants; the supervisor finds its probes there.
    """

    def __init__(self, link: Link, counters: Counters, log: RateLimitedLogger, max_backlog: int | None) -> None:
        self.burst: Final = min(MAX_BURST, max_backlog or MAX_BURST)
        self.on_stray: Callable[[Event], None] = _ignore
        self._link: Final = link
        self._backend: Final = link.backend
        self._keeps_history: Final = link.backend.keeps_history
        self._counters: Final = counters
        self._log: Final = log
        self._channels: Final[dict[str, Channel]] = {}
        self._opening: dict[str, None] = {}
        self._closing: dict[str, None] = {}
        self._changed: Final = Wakeup()
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    def __len__(self) -> int:
        """Return how many channels are known."""
        return len(self._channels)

    def route(self, events: Sequence[Event]) -> None:
        """Fan out events that the backend received, in their order; never waits."""
        start = 0
        while start < len(events):
            start = self._route_run(events, start)

    def _route_run(self, events: Sequence[Event], start: int) -> int:
        """Fan out at once those events from ``start`` on that follow each other in one channel; returns their end."""
        event = events[start]
        channel = self._channels.get(event.channel)
        if channel is None:
            self.on_stray(event)
            return start + 1
        if channel.held is not None:
            channel.held.append(event)
            return start + 1
        if event.position is None:
            end = _end_of_run(events, start)
        else:
            end = _end_of_sequence(events, start, channel.head or ORIGIN)
            if end == start:
                if not self._is_next(channel, event, event.position):
                    return start + 1
                end = start + 1
            channel.head = events[end - 1].position
        run = events if end - start == len(events) else events[start:end]
        self._counters.delivered += channel.fan_out(run)
        return end

    def _is_next(self, channel: Channel, event: Event, position: Position) -> bool:
        """Tell whether an event may be fanned out now; what has something missing before it waits for a repair."""
        if channel.head is not None and follows(channel.head, position):
            return True
        if channel.head is None or not is_duplicate(channel.head, position):
            channel.hold().append(event)
            self.repair(channel)
        return False

    def _fan_out(self, channel: Channel, item: Item) -> None:
        if isinstance(item, Event):
            self._counters.delivered += channel.fan_out((item,))
            return
        for sink in tuple(channel.members.values()):
            if sink is not None:
                sink.push_gap(item)

    async def resubscribe(self, private: Sequence[str]) -> None:
        """Subscribe to everything in a fresh session, and begin to repair.

        Args:
            private: Channels of the supervisor's own.
        """
        self._opening.clear()
        self._closing.clear()
        for channel in [c for c in self._channels.values() if not c.is_wanted]:
            self._forget(channel)
        if private:
            await self._link.call("subscribe", self._backend.subscribe(private))
        await self._open_each(list(self._channels))

    async def reconcile(self) -> None:
        """Bring the broker's subscriptions in line with what is wanted, as long as the session lasts."""
        while True:
            await self._changed.wait()
            opening, self._opening = self._opening, {}
            wanted = [name for name in opening if name in self._channels and not self._channels[name].confirmed]
            await self._open_each(wanted)
            await self._close_unwanted()

    def disconnect(self) -> None:
        """Hold everything until the next session has subscribed again."""
        for channel in self._channels.values():
            channel.disconnect(keeps_history=self._keeps_history)

    async def stop(self) -> None:
        """Cancel whatever still reads, and fail the joins that wait."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        for channel in self._channels.values():
            channel.refuse(NotStarted("the plugin was stopped"))

    def clear(self) -> None:
        """Forget all channels, after everything else has ended."""
        self._channels.clear()

    async def _open_each(self, names: list[str]) -> None:
        """Open channels; a refusal concerns only the joins of the channel that is refused."""
        try:
            await self._open(names)
        except BackendError as exc:
            if len(names) == 1:
                self._refuse(names[0], exc)
                return
            half = len(names) // 2
            await self._open_each(names[:half])
            await self._open_each(names[half:])

    async def _open(self, names: list[str]) -> None:
        for start in range(0, len(names), MAX_NAMES):
            chunk = names[start : start + MAX_NAMES]
            await self._link.call("subscribe", self._backend.subscribe(chunk))
            tops = await self._link.read_tops(chunk) if self._keeps_history else {}
            for name in chunk:
                self._confirm(name, tops.get(name, ORIGIN))

    def _confirm(self, name: str, top: Position) -> None:
        channel = self._channels[name]
        if self._keeps_history:
            channel.head = top if channel.head is None else channel.head
            channel.confirm()
            if channel.head != top or not self._release(channel):
                self.repair(channel)
            return
        channel.confirm()
        self._announce_break(channel)
        self._release(channel)

    def _announce_break(self, channel: Channel) -> None:
        broken, channel.broken = channel.broken, None
        for stream in broken or ():
            stream.push_gap(Gap(channel.name, "disconnected"))

    def _refuse(self, name: str, error: BackendError) -> None:
        """Fail the joins of a channel; where streams have it already, the whole session fails."""
        channel = self._channels[name]
        if channel.members:
            raise error
        del self._channels[name]
        channel.refuse(error)

    async def _close_unwanted(self) -> None:
        closing, self._closing = self._closing, {}
        names = [name for name in closing if name in self._channels and not self._channels[name].is_wanted]
        for name in names:
            self._forget(self._channels[name])
        for start in range(0, len(names), MAX_NAMES):
            try:
                await self._link.call("unsubscribe", self._backend.unsubscribe(names[start : start + MAX_NAMES]))
            except BackendError as exc:
                self._log.warning("unsubscribe", "the broker refused to unsubscribe %d channels", len(names), exc=exc)

    def _forget(self, channel: Channel) -> None:
        if channel.repairing is not None:
            channel.repairing.cancel()
        del self._channels[channel.name]

    def repair(self, channel: Channel) -> asyncio.Task[None]:
        """Hold live events and read from history what is missing after ``head``, unless that goes on already."""
        if channel.held is None:
            channel.hold()
        if channel.repairing is None:
            channel.repairing = self.spawn(self._repair_channel(channel), f"repair {channel.name}")
        return channel.repairing

    async def _repair_channel(self, channel: Channel) -> None:
        while await self._read_missing(channel):
            if self._release(channel):
                break
            channel.hold()  # forgets what was held: history has it, and the next read begins at the head
        else:
            self._skip_to_held(channel)
        channel.repairing = None

    async def _read_missing(self, channel: Channel) -> bool:
        """Fan out what history has after ``head``; false when the broker refuses to read it."""
        more = True
        while more:
            assert channel.head is not None, "only confirmed channels are repaired"
            walk = Walk(channel.name, channel.head, None)
            try:
                page = await self._link.read(channel.name, PAGE, channel.head)
                more = walk.take(page)
            except Exception as exc:
                self._log.warning(("repair", channel.name), "history of %r cannot be read", channel.name, exc=exc)
                return False
            if page.top == ORIGIN:
                self._announce_oblivion(channel)
                return True
            if not more:
                walk.finish(page.top)
            await self._fan_out_slowly(channel, walk.items)
            channel.head = walk.last
            channel.forgotten = False
        return True

    def _announce_oblivion(self, channel: Channel) -> None:
        """Tell streams, once, that the broker knows nothing of a channel that had events.

        Where the gap ends is known with the next event, in whose epoch another gap comes to stand.
        """
        if channel.head != ORIGIN and not channel.forgotten:
            channel.forgotten = True
            self._fan_out(channel, Gap(channel.name, "epoch", channel.head))

    async def _fan_out_slowly(self, channel: Channel, items: Sequence[Item]) -> None:
        for start in range(0, len(items), self.burst):
            if start:
                await asyncio.sleep(0)
            for item in items[start : start + self.burst]:
                self._fan_out(channel, item)
                channel.head = item.position if isinstance(item, Event) else item.until

    def _release(self, channel: Channel) -> bool:
        """Fan out held events and open the channel; false when something is missing before one of them."""
        held = channel.held or ()
        for event in held:
            position = event.position
            if position is not None and channel.head is not None:
                if is_duplicate(channel.head, position):
                    continue
                if not follows(channel.head, position):
                    return False
                channel.head = position
            self._fan_out(channel, event)
        channel.held = None
        return True

    def _skip_to_held(self, channel: Channel) -> None:
        """Go on without history: what is missing before the first held event stays missing, and is announced."""
        held = channel.held or ()
        for event in held:
            if event.position is None or channel.head is None or is_duplicate(channel.head, event.position):
                continue
            gap = missing_between(channel.name, channel.head, event.position.before())
            if gap is not None:
                self._fan_out(channel, gap)
            channel.head = event.position
            self._fan_out(channel, event)
        channel.held = None

    def claim(self, name: str) -> Channel:
        """Return the channel, wanted until `unclaim`."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
            self._opening[name] = None
            self._changed.set()
        channel.claims += 1
        return channel

    def unclaim(self, channel: Channel) -> None:
        """Undo `claim`."""
        channel.claims -= 1
        self._check_wanted(channel)

    def channel(self, name: str) -> Channel | None:
        """Return a channel that is known."""
        return self._channels.get(name)

    def remove(self, stream: Backlog, names: Iterable[str]) -> None:
        """Take a stream out of channels."""
        for name in names:
            channel = self._channels.get(name)
            if channel is not None:
                channel.remove_member(stream)
                self._check_wanted(channel)

    def _check_wanted(self, channel: Channel) -> None:
        if not channel.is_wanted and self._channels.get(channel.name) is channel:
            self._closing[channel.name] = None
            self._changed.set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work that ends by itself, or with the plugin."""
        task = asyncio.get_running_loop().create_task(work, name=f"channels: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)


def _end_of_run(events: Sequence[Event], start: int) -> int:
    """Find the end of the events without positions that belong to one channel."""
    name = events[start].channel
    for end in range(start + 1, len(events)):
        event = events[end]
        if event.channel != name or event.position is not None:
            return end
    return len(events)


def _end_of_sequence(events: Sequence[Event], start: int, head: Position) -> int:
    """Find the end of the events that follow ``head``, one by one, in one channel and epoch."""
    name, epoch, offset = events[start].channel, head.epoch, head.offset
    for end in range(start, len(events)):
        event = events[end]
        position = event.position
        offset += 1
        if position is None or position.offset != offset or position.epoch != epoch or event.channel != name:
            return end
    return len(events)


def _ignore(_: Event) -> None:
    """Let a stray event go: it was on its way when the channel was left."""
