"""The subscriber: one event stream, seen by its consumer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from channels_core.background import BackgroundConsumer, OnEvent, OnGap
from channels_core.backlog import Backlog, Item
from channels_core.events import ORIGIN, Cursor, Event, Gap, Position
from channels_core.exceptions import ChannelsException, SubscriberBusy

if TYPE_CHECKING:
    from channels_core.plugin import ChannelsPlugin

__all__ = ("PayloadIterator", "Subscriber")


class Subscriber:
    """Wraps one event stream: the events of all channels that it subscribed to, each channel in order and once.

    ``async for item in subscriber`` gives `Event` and `Gap`; a gap stands exactly where events may be missing. The
    stream ends when the subscriber left its last channel, when the plugin stops, or with `BacklogOverflow`. A
    cancelled ``anext()`` loses nothing. One consumer at a time.

    Made by the plugin; subclass it and hand the class over as ``subscriber_class`` to add behaviour.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_background",
        "_backlog",
        "_joining",
        "_keep_open",
        "_last",
        "_plugin",
        "_seen",
    )

    def __init__(self, plugin: ChannelsPlugin, backlog: Backlog, *, keep_open: bool = False) -> None:
        self._plugin: Final = plugin
        self._backlog: Final = backlog
        self._keep_open = keep_open
        self._seen: Final[dict[str, Position | Event]] = {}
        self._last: dict[str, Position | Event] | None = None
        self._background: BackgroundConsumer | None = None
        self._joining: asyncio.Lock | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        backlog = self._backlog
        ready = backlog._ready
        item: Item | None
        if ready:
            # The way of nearly every event: calls cost more than all else, also that of a coroutine for waiting.
            item = ready.popleft()
            if item.position is None:
                return item
        else:
            while (item := backlog.pop()) is None:
                waiter = backlog.begin_wait()
                try:
                    await waiter
                finally:
                    backlog.end_wait(waiter)
        self._note_consumed(item)
        return item

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def iter_events(self, *, on_gap: OnGap | None = None) -> PayloadIterator:
        """Iterate over the data of each event.

        Args:
            on_gap: Called with each gap, in stream order; without it a gap is counted and logged.
        """
        return PayloadIterator(self, on_gap)

    def run_in_background(
        self, on_event: OnEvent, *, on_gap: OnGap | None = None, join: bool = True
    ) -> AbstractAsyncContextManager[BackgroundConsumer]:
        """Run ``await on_event(data)`` for each event in a task, as long as an ``async with`` block runs.

        A clean exit waits for what is enqueued by then, an error in the block cancels. An error of the callback
        cancels the block and is raised from it.

        Args:
            on_event: The callback.
            on_gap: Called with each gap, in stream order; without it a gap is counted and logged.
            join: Whether a clean exit waits.

        Raises:
            SubscriberBusy: The stream has a background consumer already.
        """
        return BackgroundConsumer(self, on_event, on_gap, join=join)

    def send(self, data: Any) -> None:
        """Publish to the subscriber's own channels, as `ChannelsPlugin.publish` does."""
        self._plugin.publish(data, self.channels)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that the stream consists of."""
        return tuple(self._seen)

    @property
    def cursor(self) -> Cursor:
        """Channel → position of the last event consumed; moves when an item is yielded.

        There from the start, before the first event; a stream that has ended keeps its last one. Without history the
        positions are "before anything".
        """
        seen = self._last if self._last is not None and self.ended else self._seen
        return Cursor({channel: _position(position) for channel, position in seen.items()})

    @property
    def qsize(self) -> int:
        """How many events wait."""
        return len(self._backlog)

    @property
    def dropped(self) -> int:
        """How many events a full backlog dropped."""
        return self._backlog.dropped

    @property
    def is_running(self) -> bool:
        """Whether a background consumer runs."""
        return self._background is not None and self._background.is_running

    @property
    def ended(self) -> bool:
        """Whether the stream has ended; what waited by then may still be consumed."""
        return self._backlog.ended

    def put_nowait(self, item: Item) -> None:
        """Put an item into this one stream, as if its channel had brought it; a full backlog does as its strategy says.

        Raises:
            ChannelsException: The stream has ended.
        """
        if self._backlog.ended:
            raise ChannelsException("the stream has ended and takes nothing more")
        if isinstance(item, Event):
            self._backlog.push(item)
        else:
            self._backlog.push_gap(item)

    async def put(self, item: Item) -> None:
        """Put an item into this one stream, waiting while the backlog is full.

        Raises:
            ChannelsException: The stream has ended.
        """
        await self._backlog.wait_room()
        self.put_nowait(item)

    async def stop(self, join: bool = False) -> None:
        """Leave all channels and end the stream.

        Args:
            join: Whether what waits may still be consumed, and a background consumer is waited for; otherwise it is
                discarded and the background consumer cancelled.
        """
        self._plugin._release(self, discard=not join)
        if self._background is not None:
            await (self._background.wait() if join else self._background.cancel())

    # For the package: the plugin, the background consumer and the payload iterator.

    def _claim(self, consumer: BackgroundConsumer) -> None:
        if self._background is not None or self._backlog.is_idle:
            raise SubscriberBusy("this stream has a consumer already; give each consumer its own subscriber")
        self._background = consumer

    def _unclaim(self) -> None:
        self._background = None

    def _count_waiting(self) -> int:
        return self._backlog.count_items()

    def _take_nowait(self) -> Item | None:
        item = self._backlog.pop()
        if item is not None:
            self._note_consumed(item)
        return item

    async def _handle_gap(self, gap: Gap, on_gap: OnGap | None) -> None:
        if on_gap is None:
            self._plugin._log_gap(gap)
            return
        result = on_gap(gap)
        if isawaitable(result):
            await result

    def _note_consumed(self, item: Item) -> None:
        """Move the cursor; what a backlog dropped, or a broker without history lost, leaves it where it is."""
        if isinstance(item, Event):
            if item.position is not None and item.channel in self._seen:
                self._seen[item.channel] = item
        elif item.reason in ("trimmed", "epoch") and item.until is not None and item.channel in self._seen:
            self._seen[item.channel] = item.until

    def _join_lock(self) -> asyncio.Lock:
        if self._joining is None:
            self._joining = asyncio.Lock()
        return self._joining

    def _begin(self, begins: Mapping[str, Position]) -> None:
        """Note where channels begin that the stream got."""
        for channel, position in begins.items():
            self._seen.setdefault(channel, position)

    def _forget(self, channels: Collection[str]) -> None:
        before = dict(self._seen)
        for channel in channels:
            self._seen.pop(channel, None)
        if before and not self._seen:
            self._last = before

    def _discard(self, channels: Collection[str]) -> None:
        """Forget channels and what waits of them."""
        self._forget(channels)
        self._backlog.discard(frozenset(channels))

    def _not_consumed(self, channel: str) -> Position:
        """Return where the stream begins in a channel of which no event was consumed yet."""
        seen = self._seen.get(channel)
        if seen is None:
            raise ChannelsException(f"the subscriber is not subscribed to {channel!r}")
        if isinstance(seen, Event):
            raise ChannelsException(f"an event of {channel!r} was consumed already; history cannot go in front of it")
        return seen


class PayloadIterator:
    """Gives the data of each event of a subscriber; a cancelled ``anext()`` loses nothing."""

    __slots__ = ("_on_gap", "_subscriber")

    def __init__(self, subscriber: Subscriber, on_gap: OnGap | None) -> None:
        self._subscriber: Final = subscriber
        self._on_gap: Final = on_gap

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            item = await self._subscriber.__anext__()
            if isinstance(item, Event):
                return item.data
            await self._subscriber._handle_gap(item, self._on_gap)


def _position(seen: Position | Event) -> Position:
    if isinstance(seen, Event):
        return seen.position or ORIGIN
    return seen
