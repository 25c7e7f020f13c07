"""The broker behind the memory backend: channels, history, lanes and receivers in one process, behind one lock.

It keeps every promise that an outside broker keeps (positions, epochs, lanes, confirmed subscriptions), so that
whatever is proved on it holds for the contract and not for a shortcut.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Final
from weakref import WeakValueDictionary

from channels_core._wakeup import Wakeup
from channels_core.backend import History, Publication
from channels_core.events import ORIGIN, Event, Position
from channels_core.exceptions import BackendConnectionError, ImproperlyConfigured

RECORD_TTL: Final = 30 * 24 * 3600.0
"""Seconds that a channel's epoch and offset outlive its history, so that old cursors are still judged rightly."""

LANE_TTL: Final = 600.0
"""Seconds that a lane's highest number is kept: longer than any retry or abandoned first attempt can take."""

EPOCH_BYTES: Final = 6
"""Random bytes of an epoch's name: two epochs of a channel must never be taken for each other."""


_channel_of: Final = attrgetter("channel")


class Receiver:
    """The receiving end of one started backend: a queue that other threads may fill.

    Made in the event loop's thread. The queue is unbounded by choice: it is emptied by a reader that never waits for
    a subscriber.
    """

    __slots__ = ("_closed", "_wakeup", "channels", "queue")

    def __init__(self) -> None:
        self.queue: Final[deque[Event]] = deque()
        self.channels: Final[set[str]] = set()
        self._wakeup: Final = Wakeup()
        self._closed = False

    def put(self, events: Iterable[Event]) -> None:
        """Queue events and wake the reader; callable from any thread."""
        self.queue.extend(events)
        self._wakeup.set()

    def close(self) -> None:
        """End `wait` with `BackendConnectionError`, now and later."""
        self._closed = True
        self._wakeup.set()

    async def wait(self) -> None:
        """Return when something may have been queued.

        Raises:
            BackendConnectionError: The receiver was closed.
        """
        if not self._closed:
            await self._wakeup.wait()
        if self._closed:
            raise BackendConnectionError("the memory backend was shut down")


class _Record:
    """What the broker knows of one channel."""

    __slots__ = ("epoch", "events", "incarnation", "lanes", "offset", "used")

    def __init__(self, history: int, incarnation: int) -> None:
        self.epoch = secrets.token_hex(EPOCH_BYTES)
        self.incarnation = incarnation
        self.offset = 0
        self.events: deque[tuple[float, Event]] = deque(maxlen=history)
        self.lanes: dict[str, tuple[int, float]] = {}
        self.used = 0.0

    @property
    def top(self) -> Position:
        return Position(self.epoch, self.offset)

    def accepts(self, lane: str, number: int, now: float) -> bool:
        """Note the lane's number; false for one that is not higher than the last."""
        known = self.lanes.get(lane)
        if known is not None and number <= known[0]:
            return False
        if known is None:
            self.lanes = {name: row for name, row in self.lanes.items() if now - row[1] < LANE_TTL}
        self.lanes[lane] = (number, now)
        return True


class MemoryBroker:
    """Channels of one process; all methods may be called from any thread.

    Args:
        history: Events kept per channel, 0 for none.
        max_age: Seconds after which an event is never delivered from history again.

    Raises:
        ImproperlyConfigured: A negative number, or ``max_age`` without history.
    """

    def __init__(self, history: int, max_age: float | None) -> None:
        _check_limits(history, max_age)
        self.history: Final = history
        self.max_age: Final = max_age
        self._lock: Final = threading.Lock()
        self._incarnation = 0
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._husks: OrderedDict[str, _Record] = OrderedDict()
        self._receivers: Final[dict[str, dict[Receiver, None]]] = {}

    def subscribe(self, receiver: Receiver, channels: Iterable[str]) -> None:
        """Let the receiver have what is published to these channels from now on."""
        with self._lock:
            for channel in channels:
                self._receivers.setdefault(channel, {})[receiver] = None
                receiver.channels.add(channel)

    def unsubscribe(self, receiver: Receiver, channels: Iterable[str]) -> None:
        """Undo `subscribe`; unknown channels are no error."""
        with self._lock:
            for channel in channels:
                self._leave(receiver, channel)

    def detach(self, receiver: Receiver) -> None:
        """Unsubscribe the receiver from everything and close it."""
        self.unsubscribe(receiver, tuple(receiver.channels))
        receiver.close()

    def publish(self, batch: Iterable[Publication]) -> None:
        """Store and hand over, as one atomic step."""
        now = time.monotonic()
        with self._lock:
            if self.history:
                self._hand_over(self._store_all(batch, now))
                self._sweep(now)
            else:
                self._hand_over([Event(channel, each.data) for each in batch for channel in each.channels])

    def transmit(self, channel: str, data: bytes) -> None:
        """Hand over without storing anything."""
        with self._lock:
            self._hand_over((Event(channel, data),))

    def read(self, channel: str, limit: int | None, after: Position | None) -> History:
        """Read history as `ChannelsBackend.get_history` says."""
        with self._lock:
            self._sweep(time.monotonic())
            record = self._records.get(channel) or self._husks.get(channel)
            if record is None:
                return History((), ORIGIN)
            stored = self._fresh(record)
            return History(_page(stored, record.top, limit, after), record.top)

    def tops(self, channels: Sequence[str]) -> dict[str, Position]:
        """Read the newest positions of many channels."""
        with self._lock:
            found = ((name, self._records.get(name) or self._husks.get(name)) for name in channels)
            return {name: record.top if record else ORIGIN for name, record in found}

    def forget(self) -> None:
        """Lose all memory, as a flush does; subscriptions stay."""
        with self._lock:
            self._records.clear()
            self._husks.clear()

    def reincarnate(self) -> None:
        """Begin a new epoch in every channel with its next event, as a restart with data does."""
        with self._lock:
            self._incarnation += 1

    def trim(self, channel: str, keep: int) -> None:
        """Drop all but the newest ``keep`` events of a channel."""
        with self._lock:
            record = self._records.get(channel)
            while record is not None and len(record.events) > keep:
                record.events.popleft()

    def _leave(self, receiver: Receiver, channel: str) -> None:
        receiver.channels.discard(channel)
        receivers = self._receivers.get(channel, {})
        receivers.pop(receiver, None)
        if not receivers:
            self._receivers.pop(channel, None)

    def _store_all(self, batch: Iterable[Publication], now: float) -> list[Event]:
        stored = [self._store(each, channel, now) for each in batch for channel in each.channels]
        return [event for event in stored if event is not None]

    def _store(self, publication: Publication, channel: str, now: float) -> Event | None:
        """Give an event the next position, and keep it; ``None`` for what was stored already."""
        record = self._touch(channel, now)
        if publication.key is not None and not record.accepts(*publication.key, now):
            return None
        if record.incarnation != self._incarnation:
            record.incarnation = self._incarnation
            record.epoch = secrets.token_hex(EPOCH_BYTES)
        record.offset += 1
        event = Event(channel, publication.data, Position(record.epoch, record.offset))
        record.events.append((now, event))
        return event

    def _hand_over(self, events: Sequence[Event]) -> None:
        for channel, run in groupby(events, _channel_of):
            receivers = self._receivers.get(channel)
            if receivers:
                together = tuple(run)
                for receiver in receivers:
                    receiver.put(together)

    def _touch(self, channel: str, now: float) -> _Record:
        record = self._records.get(channel)
        if record is None:
            husk = channel in self._husks
            record = self._records[channel] = (
                self._husks.pop(channel) if husk else _Record(self.history, self._incarnation)
            )
        else:
            self._records.move_to_end(channel)
        record.used = now
        return record

    def _fresh(self, record: _Record) -> list[Event]:
        oldest = time.monotonic() - self.max_age if self.max_age is not None else 0.0
        return [event for stored, event in record.events if stored >= oldest]

    def _sweep(self, now: float) -> None:
        """Let idle channels leave only their position behind, and after a month nothing."""
        ttl = self.max_age if self.max_age is not None else RECORD_TTL
        while (idle := _oldest(self._records)) and now - idle[1].used > ttl:
            record = self._records.pop(idle[0])
            record.events.clear()
            self._husks[idle[0]] = record
        while (idle := _oldest(self._husks)) and now - idle[1].used > RECORD_TTL:
            del self._husks[idle[0]]


def _check_limits(history: int, max_age: float | None) -> None:
    if history < 0:
        raise ImproperlyConfigured(f"history={history} is negative; 0 keeps none")
    if max_age is not None and max_age <= 0:
        raise ImproperlyConfigured(f"max_age={max_age} is not positive; None keeps events without an age limit")
    if max_age is not None and history == 0:
        raise ImproperlyConfigured("max_age without history keeps nothing; set history as well")


def _oldest(records: OrderedDict[str, _Record]) -> tuple[str, _Record] | None:
    return next(iter(records.items()), None)


def _page(stored: list[Event], top: Position, limit: int | None, after: Position | None) -> tuple[Event, ...]:
    if after is None:
        newest = stored if limit is None else stored[len(stored) - min(limit, len(stored)) :]
        return tuple(newest)
    start = _start(stored, top, after)
    return tuple(islice(stored, start, None if limit is None else start + limit))


def _start(stored: list[Event], top: Position, after: Position) -> int:
    """Find the index of the first stored event that follows ``after``."""
    start = len(stored) if after.epoch == top.epoch else 0
    for index, event in enumerate(stored):
        position = event.position
        assert position is not None, "only events with positions are stored"
        if position.epoch == after.epoch:
            if position.offset > after.offset:
                return index
            start = index + 1
    return start


_named: Final[WeakValueDictionary[str, MemoryBroker]] = WeakValueDictionary()
"""Brokers shared by name; each goes with its last backend."""

_named_lock: Final = threading.Lock()


def shared_broker(name: str, history: int | None, max_age: float | None, *, any_age: bool) -> MemoryBroker:
    """Find the process's broker of that name, or make it.

    Raises:
        ImproperlyConfigured: It exists with other options, or these cannot be.
    """
    with _named_lock:
        broker = _named.get(name)
        if broker is None:
            broker = _named[name] = MemoryBroker(history or 0, max_age)
        same = history in (None, broker.history) and (any_age or max_age == broker.max_age)
    if not same:
        raise ImproperlyConfigured(
            f"memory://{name} exists with history={broker.history} and max_age={broker.max_age}, "
            f"not history={history} and max_age={max_age}; use the same options or another name"
        )
    return broker
