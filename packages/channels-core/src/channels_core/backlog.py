"""The queue of one event stream: history in front, live events behind, and gaps where events are missing.

Order of consumption: the front (history put there by a join), the gaps that stand before the oldest live event, the
live part. Gaps wait as mutable marks, because a further loss in the same place adds to the one that stands there;
they become `Gap` values when they are taken out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal, Protocol, cast

from channels_core._logging import RateLimitedLogger
from channels_core.events import Event, Gap, GapReason, Position
from channels_core.exceptions import BacklogOverflow, SubscriberBusy
from channels_core.stats import Counters

__all__ = ("Backlog", "BacklogStrategy", "Item")

BacklogStrategy = Literal["backoff", "catchup", "close", "dropleft"]
"""What happens when a backlog is full: drop the newest, read it again later, end the stream, drop the oldest."""

Item = Event | Gap

WARN_AT: Final = 10_000
"""Waiting events at which an unlimited backlog is worth a warning; doubles each time."""

_LASTING: Final[tuple[GapReason, ...]] = ("disconnected", "backlog", "epoch", "trimmed")
"""Which reason a merged gap keeps: one that leaves the cursor behind wins, so that a resume can fetch all of it."""


class Mark:
    """A gap that still waits, and may grow."""

    __slots__ = ("after", "channel", "missed", "reason", "until")

    def __init__(self, gap: Gap) -> None:
        self.channel: Final = gap.channel
        self.reason: GapReason = gap.reason
        self.after = gap.after
        self.until = gap.until
        self.missed = gap.missed

    def extend(self, gap: Gap | Mark) -> None:
        """Add a loss that directly follows."""
        self.until = gap.until or self.until
        self.missed = None if self.missed is None or gap.missed is None else self.missed + gap.missed
        self.reason = min(self.reason, gap.reason, key=_LASTING.index)

    def gap(self) -> Gap:
        """Return the value that consumers see."""
        return Gap(self.channel, self.reason, self.after, self.until, self.missed)


class Owner(Protocol):
    """Whoever knows history and channels."""

    def lag(self, stream: Backlog, channel: str, last: Position, /) -> bool:
        """Read on after ``last``, because an event does not fit; false where that would not bring it."""

    def feed(self, stream: Backlog, /) -> None:
        """Take note that the consumer has taken everything and waits."""

    def overflow(self, stream: Backlog, /) -> None:
        """Take note that the stream ended because it was full."""


_NOTHING: Final[deque[Event | Mark]] = deque()
"""Stands for the live part of every stream that has received nothing yet; always empty."""

_NO_EVENTS: Final[deque[Event]] = deque()
"""What may be taken directly from a stream that has something else to look after first; always empty."""


class Backlog:
    """Waiting events and gaps of one subscriber; one consumer, never blocks a producer.

    Args:
        max_backlog: Live events that may wait, ``None`` for no limit. Gaps and the front do not count.
        strategy: What to do when it is full.
        counters: Shared with the plugin.
        log: Shared with the plugin.

    Attributes:
        dropped: Events dropped because the backlog was full.
        owner: Reads on from history where it can; ``None`` for a backlog that stands alone.
    """

    __slots__ = (
        "_counters",
        "_ended",
        "_error",
        "_front",
        "_full",
        "_head",
        "_live",
        "_log",
        "_marks",
        "_max",
        "_open",
        "_ready",
        "_room",
        "_strategy",
        "_waiter",
        "dropped",
        "owner",
    )

    def __init__(
        self, max_backlog: int | None, strategy: BacklogStrategy, counters: Counters, log: RateLimitedLogger
    ) -> None:
        self._max: Final = max_backlog
        self._strategy: Final = strategy
        self._counters: Final = counters
        self._log: Final = log
        self._live = _NOTHING
        self._front: deque[Event | Mark] | None = None
        self._head: dict[str, Mark] | None = None
        self._open: dict[str, Mark] | None = None
        self._marks = 0
        # The live part while it may be taken from directly: no gap, no front, and nobody waits for room. Else nothing.
        self._ready = _NO_EVENTS
        self._full = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._ended = False
        self._error: BaseException | None = None
        self.dropped = 0
        self.owner: Owner | None = None

    def __len__(self) -> int:
        """Return how many events wait; gaps do not count."""
        front = sum(type(item) is Event for item in self._front) if self._front else 0
        return front + len(self._live) - self._marks

    def count_items(self) -> int:
        """Return how many events and gaps wait."""
        return len(self._front or ()) + len(self._head or ()) + len(self._live)

    @property
    def limit(self) -> int | None:
        """The most live events that may wait."""
        return self._max

    @property
    def ended(self) -> bool:
        """Whether nothing will be added any more."""
        return self._ended

    @property
    def is_idle(self) -> bool:
        """Whether the consumer waits for something to take."""
        return self._waiter is not None

    def has_room(self, count: int) -> bool:
        """Tell whether so many more live events fit."""
        return self._max is None or len(self._live) - self._marks + count <= self._max

    @property
    def is_full(self) -> bool:
        """Whether the next event would overflow."""
        return not self.has_room(1)

    def push(self, event: Event) -> None:
        """Add a live event, or do what the strategy says when there is no room."""
        push_all((self,), (event,))

    def push_gap(self, gap: Gap) -> None:
        """Add a gap behind everything that waits, or to the one of its channel that stands there already."""
        last = self._last_gap(gap.channel)
        if last is not None:
            last.extend(gap)
            return
        mark = self._new_mark(gap)
        self._note_last(mark)
        if self._live is _NOTHING:
            self._begin_live()
        self._live.append(mark)
        self._marks += 1
        self._ready = _NO_EVENTS
        self._wake()

    def feed(self, items: Iterable[Item]) -> int:
        """Add events and gaps whether they fit or not; returns how many events there were."""
        count = 0
        for item in items:
            if isinstance(item, Event):
                self._append(item)
                count += 1
            else:
                self.push_gap(item)
        return count

    def push_front(self, items: Iterable[Item]) -> None:
        """Put history in front of everything, oldest first.

        A gap that ends it is extended by a loss that directly follows.
        """
        front = [item if isinstance(item, Event) else self._new_mark(item) for item in items]
        if not front:
            return
        waiting = {item.channel for item in (*(self._front or ()), *self._live)}
        for item in front:
            if item.channel not in waiting:
                self._note_last(item)
        self._front = deque() if self._front is None else self._front
        self._front.extendleft(reversed(front))
        self._ready = _NO_EVENTS
        self._wake()

    def pop(self) -> Item | None:
        """Take the next item, ``None`` when nothing waits."""
        if self._front:
            item = self._front.popleft()
        elif self._head:
            item = self._head.pop(next(iter(self._head)))
        elif self._live:
            item = self._live.popleft()
            if type(item) is Mark:
                self._marks -= 1
            if self._room is not None:
                self._make_room()
        else:
            return None
        self._look_at_live()
        return item if isinstance(item, Event) else self._close_mark(item)

    async def wait(self) -> None:
        """Return when there may be something to take; see `begin_wait`."""
        waiter = self.begin_wait()
        try:
            await waiter
        finally:
            self.end_wait(waiter)

    def begin_wait(self) -> asyncio.Future[None]:
        """Return what is done when there may be something to take; who awaited it calls `end_wait`.

        Raises:
            SubscriberBusy: Somebody else already waits.
            StopAsyncIteration: The stream ended normally.
            BacklogOverflow: It ended because it was full.
        """
        if self._waiter is not None:
            raise SubscriberBusy("another task consumes this stream already; give each consumer its own subscriber")
        if self._ended:
            raise self._error or StopAsyncIteration
        if self.owner is not None:
            self.owner.feed(self)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        return waiter

    def end_wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait no more, whatever the reason."""
        if self._waiter is waiter:
            self._waiter = None

    async def wait_room(self) -> None:
        """Return when the backlog is not full any more, or the stream ended."""
        while self.is_full and not self._ended:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
                self._ready = _NO_EVENTS
            await asyncio.wait((self._room,))

    def discard(self, channels: Collection[str]) -> None:
        """Forget what waits of these channels."""
        if self._front:
            self._front = deque(item for item in self._front if item.channel not in channels)
        kept = [item for item in self._live if item.channel not in channels]
        if len(kept) != len(self._live):
            self._live.clear()
            self._live.extend(kept)
            self._marks = sum(type(item) is Mark for item in kept)
        for marks in (self._head, self._open):
            _forget(marks, channels)
        self._make_room()

    def end(self, error: BaseException | None = None) -> None:
        """End the stream after what waits; the first end wins."""
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._wake()
        self._make_room()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    def _begin_live(self) -> deque[Event | Mark]:
        """Make the live part when something comes first: most streams are idle most of the time."""
        live: deque[Event | Mark] = deque()
        self._live = live
        self._full = WARN_AT if self._max is None else self._max
        self._look_at_live()
        return live

    def _look_at_live(self) -> None:
        if self._front or self._head or self._marks or self._room:
            self._ready = _NO_EVENTS
        else:
            self._ready = cast("deque[Event]", self._live)

    def _append(self, event: Event) -> None:
        if self._live is _NOTHING:
            self._begin_live()
        self._live.append(event)
        if self._open:
            self._open.pop(event.channel, None)
        self._wake()

    def _push_each(self, events: Sequence[Event]) -> None:
        """Add live events as long as the stream takes them: not all of them are known to fit."""
        for event in events:
            if self._max is None:
                if len(self._live) >= self._full:
                    self._warn_of_growth(event.channel)
                self._append(event)
            elif len(self._live) - self._marks < self._max:
                self._append(event)
            elif not self._overflow(event):
                break

    def _warn_of_growth(self, channel: str) -> None:
        self._full *= 2
        self._log.warning(
            "unlimited backlog",
            "%d events wait in an unlimited backlog, the newest of channel %r: its consumer is slow; set max_backlog",
            len(self._live),
            channel,
        )

    def _overflow(self, event: Event) -> bool:
        """Do what the strategy says; false when the stream takes no more live events of the channel."""
        catches_up = self._strategy == "catchup" or bool(self._front)
        if catches_up and self._lags(event):
            return False
        if self._strategy == "close":
            self._close()
            return False
        if self._strategy == "dropleft":
            self._drop_left()
            self._append(event)
        else:
            self.push_gap(self._lose(event))
        return True

    def _lags(self, event: Event) -> bool:
        """Ask the owner to read on from history; false where that would not bring the event."""
        if event.position is None or self.owner is None:
            return False
        return self.owner.lag(self, event.channel, event.position.before())

    def _close(self) -> None:
        self.end(BacklogOverflow(f"more than {self._max} events waited; reconnect and resume from the cursor"))
        if self.owner is not None:
            self.owner.overflow(self)

    def _drop_left(self) -> None:
        """Drop the oldest event; gaps that come to stand before the new oldest one merge with what is there."""
        self._ready = _NO_EVENTS
        while isinstance(oldest := self._live.popleft(), Mark):
            self._to_head(oldest)
        lost = self._lose(oldest)
        known = self._head.get(lost.channel) if self._head else None
        if known is not None:
            known.extend(lost)
        else:
            self._head = self._head or {}
            self._head[lost.channel] = self._new_mark(lost)
        if self._marks:
            self._merge_following(lost.channel)

    def _merge_following(self, channel: str) -> None:
        """Move a gap to the head that no event of its channel separates from the gap there."""
        following = next((item for item in self._live if item.channel == channel), None)
        if isinstance(following, Mark):
            self._live.remove(following)
            self._to_head(following)

    def _to_head(self, mark: Mark) -> None:
        self._marks -= 1
        self._head = self._head or {}
        known = self._head.setdefault(mark.channel, mark)
        if known is mark:
            return
        known.extend(mark)
        self._counters.gaps -= 1
        if self._open and self._open.get(mark.channel) is mark:
            self._open[mark.channel] = known

    def _lose(self, event: Event) -> Gap:
        self.dropped += 1
        self._counters.dropped += 1
        self._log.warning(
            ("dropped", event.channel),
            "a subscriber of channel %r is too slow: its backlog of %d is full and events are dropped (%s)",
            event.channel,
            self._max,
            self._strategy,
        )
        position = event.position
        return Gap(event.channel, "backlog", position and position.before(), position, 1)

    def _last_gap(self, channel: str) -> Mark | None:
        """Return the gap that no event of its channel follows."""
        mark = self._open.get(channel) if self._open else None
        if mark is None and self._head and channel in self._head:
            alone = all(item.channel != channel for item in self._live)
            mark = self._head[channel] if alone else None
        return mark

    def _new_mark(self, gap: Gap) -> Mark:
        self._counters.gaps += 1
        return Mark(gap)

    def _note_last(self, item: Event | Mark) -> None:
        """Remember whether the last thing of a channel in the stream is a gap."""
        if isinstance(item, Mark):
            self._open = self._open or {}
            self._open[item.channel] = item
        elif self._open:
            self._open.pop(item.channel, None)

    def _close_mark(self, mark: Mark) -> Gap:
        if self._open and self._open.get(mark.channel) is mark:
            del self._open[mark.channel]
        return mark.gap()


def push_all(backlogs: Iterable[Backlog], events: Sequence[Event]) -> None:
    """Add live events of one channel to each, or do what its strategy says when there is no room.

    One loop for all of them instead of a call for each, and one call for all events: a call costs as much as the work.
    """
    count = len(events)
    for backlog in backlogs:
        live = backlog._live
        if live is _NOTHING:
            live = backlog._begin_live()
        if len(live) + count > backlog._full:
            backlog._push_each(events)
            continue
        live.extend(events)
        if backlog._open:
            backlog._open.pop(events[0].channel, None)
        waiter = backlog._waiter
        if waiter is not None:
            backlog._waiter = None
            if not waiter.done():
                waiter.set_result(None)


def _forget(marks: dict[str, Mark] | None, channels: Collection[str]) -> None:
    for channel in channels if marks else ():
        assert marks is not None
        marks.pop(channel, None)
