"""The contract between the plugin and a broker: the only thing that a third party implements.

A backend has few verbs and no resilience code. Supervision, deadlines, retry, repair, fan-out and backpressure
belong to the plugin, which owns them for all backends, once.

**Calling discipline.** `on_startup`, then `stream_events` (once per start-up; iterated before any subscribe; legal
with no channels), then the rest. `subscribe` and `unsubscribe` never overlap each other. Publishing: one call at a
time per lane, two lanes (and the probe) at a time. Reads: up to 16 at once. Every call has a deadline, enforced by
cancellation; a cancelled call must drop its connection, because an unread answer would be taken for the next call's.
Connections for publishing and reading are reopened by the backend on the next call and never restart the receiver.
On failure the iterator is closed, then comes `on_shutdown`; no call follows until the next `on_startup` returned.

**Errors.** Driver errors map once per backend, to `BackendConnectionError` (the plugin retries with the same key,
order kept) or `BackendError` (never retried).

**A retry never duplicates where history is kept.** ``key`` is ``(lane, number)``. A lane has one call in flight, its
numbers ascend, and a retry resends everything unacknowledged, in order, before anything newer. A backend with history
keeps the highest number accepted per channel and lane, apart from the history, for at least 10 minutes, and in the
same atomic step, on every call, stores nothing for a number that is not higher.

**Incarnation.** An old position must never be mistaken for a new one. Every publish carries the incarnation of the
broker that its connection saw at connect. When the channel's record holds another one, the same atomic step starts a
new epoch *at the next offset*; stored events keep their epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Self

import msgspec

from channels_core.events import Event, Position
from channels_core.exceptions import BackendError, HistoryNotSupported

__all__ = ("MAX_BATCH_BYTES", "MAX_BATCH_EVENTS", "ChannelsBackend", "History", "Key", "Publication")

MAX_BATCH_EVENTS = 1_000
"""The most publications that the plugin hands over in one batch: past that a batch stops paying for itself."""

MAX_BATCH_BYTES = 1024 * 1024
"""The most payload bytes in one batch, unless a single event is larger."""

Key = tuple[str, int]
"""Lane and number of a publication."""


class History(msgspec.Struct, frozen=True):
    """What one atomic read of a channel saw.

    Attributes:
        events: Oldest first.
        top: Position of the newest event that the broker has, `channels_core.events.ORIGIN` when there was none yet.
    """

    events: Sequence[Event]
    top: Position


class Publication(msgspec.Struct, frozen=True, gc=False):
    """One event on its way to the broker.

    Attributes:
        data: The payload, any bytes.
        channels: One or more names.
        key: ``(lane, number)``, or ``None`` from a caller that does not retry.
    """

    data: bytes
    channels: tuple[str, ...]
    key: Key | None = None


class ChannelsBackend(ABC):
    """Talks to one broker.

    Attributes:
        keeps_history: Declared, not detected: whether events carry positions and `get_history` works.
        max_payload: The most bytes of one event, ``None`` for no limit.
    """

    keeps_history: bool = False
    max_payload: int | None = None

    @classmethod
    @abstractmethod
    def from_url(cls, url: str) -> Self:
        """Build a backend from a URL, without connecting.

        Raises:
            InvalidURL: A query parameter is unknown (the message lists the valid ones) or a value cannot be read.
        """

    @abstractmethod
    async def on_startup(self) -> None:
        """Connect. May be called again after `on_shutdown`, also in another event loop.

        Raises:
            BackendConnectionError: The broker is not there.
            BackendError: It is there and refuses: wrong password, missing right, wrong kind of server.
        """

    @abstractmethod
    async def on_shutdown(self) -> None:
        """Disconnect, in bounded time, broker reachable or not.

        Idempotent, also legal before the first start. Calls in flight end with `BackendConnectionError`.
        """

    @abstractmethod
    def stream_events(self) -> AsyncIterator[Event]:
        """Give the events of all subscribed channels, per channel in delivery order.

        Raises when the connection is lost: it never goes quiet and never ends by itself.

        Raises:
            BackendConnectionError: The connection is gone.
        """

    @abstractmethod
    async def subscribe(self, channels: Sequence[str]) -> None:
        """Receive these channels from now on; one round trip for many names.

        Returns when the broker confirmed: whatever is published by anyone afterwards arrives.
        Subscribing again is no error and changes nothing.
        """

    @abstractmethod
    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Stop receiving these channels; unsubscribing the unknown is no error."""

    @abstractmethod
    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        """Publish one event; returns when the broker accepted it for all channels.

        Raises:
            BackendConnectionError: Outcome unknown; may be retried with the same key.
            BackendError: Refused; some of the channels may have accepted.
        """

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        """Publish many events, order kept; override where the broker can take them in one round trip.

        Args:
            batch: At most `MAX_BATCH_EVENTS` and `MAX_BATCH_BYTES`, or one event.

        Returns:
            Per publication ``None``, or why it was refused.

        Raises:
            BackendConnectionError: The outcome of all of them is unknown. Nothing else may be raised.
        """
        outcomes: list[BackendError | None] = []
        for publication in batch:
            try:
                await self.publish(publication.data, publication.channels, key=publication.key)
                outcomes.append(None)
            except BackendError as exc:
                outcomes.append(exc)
        return outcomes

    async def get_history(self, channel: str, limit: int | None = None, *, after: Position | None = None) -> History:
        """Read stored events and the newest position in one atomic step, oldest first.

        Reading a channel that has no event yet creates nothing and gives ``top == ORIGIN``.

        Without ``after``: the newest ``limit`` events. With ``after``: the *oldest* ``limit`` that follow it, across
        an epoch border too: of ``after``'s own epoch those with a higher offset, and everything of later epochs.
        Where ``after``'s epoch is not among the stored events and is not the current one, everything stored follows
        it. ``after`` at or beyond ``top`` in the same epoch: none. A backend never judges gaps.

        Args:
            channel: The name.
            limit: ``None`` for all that is stored; ``0`` for none, which asks for ``top`` alone.
            after: Where to start; ``ORIGIN`` for the oldest that is stored.

        Raises:
            HistoryNotSupported: `keeps_history` is false.
            BackendConnectionError: The broker is away.
        """
        raise HistoryNotSupported(f"{type(self).__name__} keeps no history; choose a backend or an URL that does")

    async def get_tops(self, channels: Sequence[str]) -> dict[str, Position]:
        """Read the newest positions of many channels; override where one round trip can do it.

        Every channel asked for is in the answer. Channels need not be read at the same instant.
        """
        return {channel: (await self.get_history(channel, 0)).top for channel in channels}

    async def publish_probe(self, channel: str, data: bytes) -> None:
        """Publish a sign of life to a private channel, over the same connections; stores nothing where possible."""
        await self.publish(data, (channel,))

    def probe_channels(self) -> Sequence[str]:
        """Name one private channel for each receiving connection; empty where there is just one connection.

        Asked after every start-up. The names must be unique to this instance.
        """
        return ()
