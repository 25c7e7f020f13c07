"""What a plugin knows of one channel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from channels_core.backlog import Backlog, push_all
from channels_core.events import Event, Gap, Position

MAX_HELD: Final = 10_000
"""Live events held while a channel is opened or repaired; past that the oldest are read again from history."""


class Hold:
    """Keeps the live events of one channel back from one stream, while its history is read.

    Args:
        limit: The most events kept, ``None`` for no limit.

    Attributes:
        cut: The channel's head when the hold began: everything above it is held.
        overflowed: More came than fits; what is held is worthless, and history must be read on from ``cut``.
    """

    __slots__ = ("_limit", "cut", "items", "overflowed")

    def __init__(self, cut: Position, limit: int | None) -> None:
        self.cut: Final = cut
        self.items: Final[list[Event | Gap]] = []
        self.overflowed = False
        self._limit: Final = limit

    def push(self, item: Event | Gap) -> None:
        """Keep an event or a gap."""
        if self._limit is not None and len(self.items) >= self._limit:
            self.overflowed = True
        else:
            self.items.append(item)

    push_gap = push


Sink = Backlog | Hold
"""Where live events of a channel go."""


class Channel:
    """One channel of a plugin.

    It is *opening* until it was confirmed for the first time, *open* while nothing is held, and *repairing* while
    live events are held although it was confirmed.

    Attributes:
        head: Position of the last event that was fanned out; ``None`` until the first confirmation, and always where
            no history is kept. It never goes back: what was on its way when the broker lost its memory must still be
            known for what it is.
        forgotten: Whether streams were told that the broker knows nothing of the channel any more.
        members: Streams that want the channel, and where their live events go: into the stream, into a hold while
            history is read for it, nowhere (``None``) while it lags.
        claims: Joins under way.
        confirmed: Whether the broker confirmed the subscription in this session.
        refused: Why it will never be confirmed.
        held: Live events that wait for the end of opening or repairing, else ``None``.
        repairing: The task that repairs it.
        broken: Streams that were there when the connection broke, and have not been told yet.
    """

    __slots__ = (
        "_holds",
        "_streams",
        "_waiters",
        "broken",
        "claims",
        "confirmed",
        "forgotten",
        "head",
        "held",
        "members",
        "name",
        "refused",
        "repairing",
    )

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.head: Position | None = None
        self.members: Final[dict[Backlog, Sink | None]] = {}
        self.claims = 0
        self.confirmed = False
        self.forgotten = False
        self.refused: BaseException | None = None
        self.held: deque[Event] | None = deque(maxlen=MAX_HELD)
        self.repairing: asyncio.Task[None] | None = None
        self.broken: set[Backlog] | None = None
        self._streams: tuple[Backlog, ...] | None = None
        self._holds: tuple[Hold, ...] = ()
        self._waiters: Final[dict[asyncio.Future[None], None]] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether anybody is in it or about to join."""
        return bool(self.members) or self.claims > 0

    def fan_out(self, events: Sequence[Event]) -> int:
        """Hand live events to every sink; returns how many deliveries that are."""
        streams = self._streams
        if streams is None:
            streams = self._sort_sinks()
        holds = self._holds  # taken before: a stream that has no room leaves, which makes this channel sort again
        push_all(streams, events)
        for hold in holds:
            for event in events:
                hold.push(event)
        return len(events) * (len(streams) + len(holds))

    def _sort_sinks(self) -> tuple[Backlog, ...]:
        """Note where live events go; copies, so that a sink may leave while they are used."""
        sinks = tuple(self.members.values())
        self._holds = tuple(sink for sink in sinks if isinstance(sink, Hold))
        self._streams = tuple(sink for sink in sinks if isinstance(sink, Backlog))
        return self._streams

    def set_member(self, stream: Backlog, sink: Sink | None) -> None:
        """Let a stream's live events go to ``sink``, or nowhere while it lags."""
        self.members[stream] = sink
        self._streams, self._holds = None, ()

    def remove_member(self, stream: Backlog) -> None:
        """Forget a stream."""
        self.members.pop(stream, None)
        self._streams, self._holds = None, ()
        if self.broken is not None:
            self.broken.discard(stream)

    def hold(self) -> deque[Event]:
        """Begin to hold live events, with none held."""
        self.held = deque(maxlen=MAX_HELD)
        return self.held

    def disconnect(self, *, keeps_history: bool) -> None:
        """Forget the broker's confirmation; what comes from now on is held until there is a new one."""
        if self.repairing is not None:
            self.repairing.cancel()
            self.repairing = None
        if self.confirmed and not keeps_history:
            self.broken = (self.broken or set()) | set(self.members)
        self.confirmed = False
        self.hold()

    async def wait_confirmed(self) -> None:
        """Return when the broker has confirmed it; raises why it never will."""
        while not self.confirmed:
            if self.refused is not None:
                raise self.refused
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)

    def confirm(self) -> None:
        """Let the joins in."""
        self.confirmed = True
        self._wake()

    def refuse(self, error: BaseException) -> None:
        """Fail the joins that wait."""
        self.refused = error
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
