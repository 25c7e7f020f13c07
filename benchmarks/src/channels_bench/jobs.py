"""What a measurement is told and what it answers, and the events that all of them use."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from channels_bench.systems.base import System

__all__ = ("CHANNEL", "SETTLE", "Job", "Sample", "Task", "frozen", "payloads", "percentile", "rate", "stamped")

CHANNEL: Final = "bench"

PAYLOAD_BYTES: Final = 100

SETTLE: Final = 0.2
"""Seconds before traffic begins: what was subscribed to is in place, also where nobody confirms it."""


@dataclass(frozen=True)
class Job:
    """One measurement.

    Args:
        count: How many events, or how many seconds where time is what is fixed.
        subscribers: How many.
        announce: Tells the parent that traffic may begin, and what the feeder must know.
        told: Waits until the parent says so.
        channel: Where, or the address of a server.
        warmup: Events before the first that counts, so that memory which is touched for the first time does not count.
    """

    count: int
    subscribers: int
    announce: Callable[..., None]
    told: Callable[[], Awaitable[object]]
    channel: str = CHANNEL
    warmup: int = 0


@dataclass(frozen=True)
class Sample:
    """What was measured.

    Args:
        value: In the workload's unit.
        elapsed: Seconds that it took.
        extra: More numbers that are worth showing.
        detail: What the parent makes numbers of.
    """

    value: float
    elapsed: float
    extra: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)


Task = Callable[[System, Job], Awaitable[Sample]]


def payloads(count: int) -> list[bytes]:
    """Return payloads of equal length, no two alike: PostgreSQL folds equal notifications of a transaction."""
    return [b"%012d" % number + b"." * (PAYLOAD_BYTES - 12) for number in range(count)]


def stamped(started: float) -> bytes:
    """Return a payload that holds a time of the clock that all processes share."""
    return b"%.9f" % started + b" " * (PAYLOAD_BYTES - 30)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rate(count: int, started: float) -> Sample:
    """Return how many per second since then."""
    elapsed = time.perf_counter() - started
    return Sample(count / elapsed, elapsed)


@contextmanager
def frozen() -> Iterator[None]:
    """Keep what was set up out of the collector's way.

    Otherwise a round measures how often the collector happens to walk through all subscribers: the thresholds count
    from wherever the rounds before left them.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
