"""An outage of the broker: it is restarted while events are published at a steady rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

from channels_bench.jobs import SETTLE, Job, Sample
from channels_bench.systems.base import Stream, System

__all__ = ("OUTAGE_AFTER", "RATE", "Tally", "outage_receive", "outage_send", "tally")

RATE: Final = 50
"""Events per second of each system: all of them run at once, and none of them may be short of a processor."""

OUTAGE_AFTER: Final = 1.5
"""Seconds from the first event to the outage."""

PATIENCE: Final = 5.0
"""Seconds without anything after which a receiver is not waited for, nor a publisher after its last event."""


@dataclass(frozen=True)
class Tally:
    """What became of the events that the broker had accepted."""

    accepted: int
    received: int
    lost: int
    announced: int
    lost_silently: int
    twice: int

    def numbers(self) -> dict[str, float]:
        """Return all of it, by name."""
        return asdict(self)


def tally(accepted: Sequence[int], items: Sequence[int | None]) -> Tally:
    """Compare what was accepted with what came.

    Args:
        accepted: Numbers of the events whose publishing succeeded.
        items: What one subscriber got, in order; ``None`` is a place that it was told events may be missing at.
    """
    received = [item for item in items if item is not None]
    lost = set(accepted) - set(received)
    announced = lost & _announced(items)
    return Tally(
        accepted=len(set(accepted)),
        received=len(set(accepted) & set(received)),
        lost=len(lost),
        announced=len(announced),
        lost_silently=len(lost - announced),
        twice=len(received) - len(set(received)),
    )


def _announced(items: Sequence[int | None]) -> set[int]:
    """Return the numbers between the newest event before each gap and the first newer one behind it.

    A gap that nothing follows announces nothing: nobody can tell how far it reaches.
    """
    covered: set[int] = set()
    newest, waiting = -1, False
    for item in items:
        if item is None:
            waiting = True
        elif item > newest:
            if waiting:
                covered.update(range(newest + 1, item))
            newest, waiting = item, False
    return covered


async def outage_receive(system: System, job: Job) -> Sample:
    """Note everything that one subscriber gets, until all is published and nothing comes any more."""
    stream = await system.subscribe(job.channel)
    await asyncio.sleep(SETTLE)
    items: list[int | None] = []
    started = time.perf_counter()
    collecting = asyncio.create_task(_collect(stream, items))
    job.announce()
    await job.told()
    known = -1
    while len(items) > known and not collecting.done():
        known = len(items)
        await asyncio.wait((collecting,), timeout=PATIENCE)
    return Sample(len(items), time.perf_counter() - started, detail={"items": items})


async def _collect(stream: Stream, items: list[int | None]) -> None:
    """Take items until the stream is over, in whichever way the system has for it."""
    with suppress(Exception):
        while True:
            data = await stream.next_item()
            items.append(None if data is None else int(data))


async def outage_send(system: System, job: Job) -> Sample:
    """Publish on schedule, whatever becomes of it, and note what the broker accepted."""
    accepted: list[int] = []

    async def publish(number: int) -> None:
        await system.publish(b"%012d" % number, job.channel)
        accepted.append(number)

    job.announce()
    await job.told()
    began = time.monotonic()
    sending = []
    for number in range(job.count):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        sending.append(asyncio.create_task(publish(number)))
    await asyncio.wait(sending, timeout=PATIENCE)
    return Sample(len(accepted), time.monotonic() - began, detail={"accepted": accepted})
