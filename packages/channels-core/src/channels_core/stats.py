"""What a plugin tells about itself: health, counters and gauges."""

from __future__ import annotations

import msgspec

__all__ = ("Counters", "Health", "Stats")


class Health(msgspec.Struct, frozen=True):
    """Whether the plugin hears its broker.

    Attributes:
        ok: False while it is deaf: not started, starting, or restarting after a failure.
        detail: What happened last, in words; empty when nothing is to be said.
        since: When ``ok`` last changed, in seconds since the epoch (``time.time()``).
    """

    ok: bool
    detail: str
    since: float


class Stats(msgspec.Struct, frozen=True):
    """Counters since the plugin was made, and gauges of now.

    Attributes:
        published: Calls of ``publish`` and ``wait_published`` that the broker accepted.
        failed: Calls that the broker refused, or did not accept in time.
        delivered: Events handed into event streams, live and from history.
        dropped: Events that a full backlog dropped.
        gaps: Gaps put into event streams.
        reconnects: Successful restarts of the backend.
        pending: Gauge: calls waiting for the broker.
        subscribers: Gauge: subscribers with at least one channel.
        channels: Gauge: channels with at least one subscriber, and those about to be left.
    """

    published: int
    failed: int
    delivered: int
    dropped: int
    gaps: int
    reconnects: int
    pending: int
    subscribers: int
    channels: int


class Counters:
    """The mutable side of `Stats`, shared by the parts of one plugin."""

    __slots__ = ("delivered", "dropped", "failed", "gaps", "published", "reconnects")

    def __init__(self) -> None:
        self.published = 0
        self.failed = 0
        self.delivered = 0
        self.dropped = 0
        self.gaps = 0
        self.reconnects = 0
