"""What a worker measures: one coroutine per kind of work, the same code for every system."""

from __future__ import annotations

import asyncio
import gc
import math
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from channels_bench.systems.base import System

__all__ = ("TASKS", "Job", "Sample")

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
        announce: Tells the parent that traffic may begin.
        channel: What to feed.
    """

    count: int
    subscribers: int
    announce: Callable[[], None]
    channel: str = CHANNEL


@dataclass(frozen=True)
class Sample:
    """What was measured: the value in the workload's unit, the seconds it took, and more that is worth showing."""

    value: float
    elapsed: float
    extra: dict[str, float]


Task = Callable[[System, Job], Awaitable[Sample]]


def payloads(count: int) -> list[bytes]:
    """Return payloads of equal length, no two alike: PostgreSQL folds equal notifications of a transaction."""
    return [b"%012d" % number + b"." * (PAYLOAD_BYTES - 12) for number in range(count)]


def stamped(started: float) -> bytes:
    """Return a payload that holds a time of the clock that all processes share."""
    return b"%.9f" % started + b" " * (PAYLOAD_BYTES - 30)


async def fan_out(system: System, job: Job) -> Sample:
    """Deliveries per second from the first publish to the last consumer's last event."""
    events = payloads(job.count)
    streams = [await system.subscribe(CHANNEL) for _ in range(job.subscribers)]
    takers = [asyncio.create_task(stream.take(job.count)) for stream in streams]
    await asyncio.sleep(SETTLE)
    gc.collect()
    used, started = time.process_time(), time.perf_counter()
    await asyncio.gather(system.pour(events, CHANNEL), *takers)
    elapsed, used = time.perf_counter() - started, time.process_time() - used
    deliveries = job.count * job.subscribers
    return Sample(deliveries / elapsed, elapsed, {"per_cpu_second": deliveries / used})


async def publish_background(system: System, job: Job) -> Sample:
    """Events per second, until the server has accepted the last."""
    events = payloads(job.count)
    started = time.perf_counter()
    await system.pour(events, CHANNEL)
    await system.flush()
    return _rate(job.count, started)


async def publish_awaited(system: System, job: Job) -> Sample:
    """Events per second, each awaited before the next."""
    events = payloads(job.count)
    started = time.perf_counter()
    for data in events:
        await system.publish(data, CHANNEL)
    return _rate(job.count, started)


async def publish_concurrently(system: System, job: Job) -> Sample:
    """Events per second, a hundred awaited at a time."""
    events = payloads(job.count)
    started = time.perf_counter()
    for start in range(0, job.count, 100):
        await asyncio.gather(*[system.publish(data, CHANNEL) for data in events[start : start + 100]])
    return _rate(job.count, started)


async def receive(system: System, job: Job) -> Sample:
    """Events per second of one subscriber, fed from another process, after the first event."""
    stream = await system.subscribe(CHANNEL)
    await asyncio.sleep(SETTLE)
    job.announce()
    await stream.take(1)
    started = time.perf_counter()
    await stream.take(job.count - 1)
    return _rate(job.count - 1, started)


async def feed(system: System, job: Job) -> Sample:
    """Publish to whoever receives in another process, under the name that it has there."""
    events = payloads(job.count)
    started = time.perf_counter()
    await system.pour(events, job.channel)
    return _rate(job.count, started)


async def latency_receive(system: System, job: Job) -> Sample:
    """Milliseconds from publishing in another process to consuming here: the 99th percentile, and the median."""
    stream = await system.subscribe(CHANNEL)
    await asyncio.sleep(SETTLE)
    job.announce()
    began = time.perf_counter()
    delays = []
    for _ in range(job.count):
        data = await stream.take(1)
        delays.append((time.monotonic() - float(data.split()[0])) * 1000)
    delays.sort()
    return Sample(
        percentile(delays, 0.99), time.perf_counter() - began, {"p50": percentile(delays, 0.5), "max": delays[-1]}
    )


async def latency_send(system: System, job: Job) -> Sample:
    """Send 500 events per second on schedule, whatever becomes of them."""
    began = time.monotonic() + 0.05
    for number in range(job.count):
        await asyncio.sleep(max(0.0, began + number / 500 - time.monotonic()))
        system.send(stamped(time.monotonic()), CHANNEL)
    await asyncio.sleep(0.5)  # what was sent last is on its way
    return _rate(job.count, began)


async def join_and_leave(system: System, job: Job) -> Sample:
    """Milliseconds in which one subscriber leaves many channels; how long joining took beside it."""
    channels = [f"channel-{number}" for number in range(job.count)]
    started = time.perf_counter()
    streams = await system.join_many(channels)
    joined = time.perf_counter()
    await system.leave_all(streams)
    left = time.perf_counter()
    return Sample((left - joined) * 1000, left - started, {"join": (joined - started) * 1000})


async def own_channels(system: System, job: Job) -> Sample:
    """Milliseconds in which as many subscribers leave a channel each; how long joining took beside it."""
    started = time.perf_counter()
    streams = [await system.subscribe(f"channel-{number}") for number in range(job.count)]
    joined = time.perf_counter()
    await system.leave_all(streams)
    left = time.perf_counter()
    return Sample((left - joined) * 1000, left - started, {"join": (joined - started) * 1000})


async def join_own_channels(system: System, job: Job) -> Sample:
    """Milliseconds in which as many subscribers join a channel each, one after the other."""
    sample = await own_channels(system, job)
    return Sample(sample.extra["join"], sample.elapsed, {"leave": sample.value})


async def idle_memory(system: System, job: Job) -> Sample:
    """Bytes of the process per subscriber of one channel, with the task that consumes it."""
    warm = [await system.subscribe(CHANNEL) for _ in range(100)]
    before = _settled_memory()
    bare = [await system.subscribe(CHANNEL) for _ in range(job.subscribers)]
    without = _settled_memory()
    takers = [asyncio.create_task(stream.take(1)) for stream in bare]
    await asyncio.sleep(SETTLE)
    after = _settled_memory()
    await _end(takers)
    del warm
    return Sample((after - before) / job.subscribers, SETTLE, {"without_task": (without - before) / job.subscribers})


async def idle_cpu(system: System, job: Job) -> Sample:
    """Per cent of a core that a hundred waiting subscribers of as many channels cost."""
    streams = [await system.subscribe(f"idle-{number}") for number in range(job.subscribers)]
    takers = [asyncio.create_task(stream.take(1)) for stream in streams]
    await asyncio.sleep(1)
    job.announce()
    used, started = time.process_time(), time.perf_counter()
    await asyncio.sleep(job.count)
    percent = (time.process_time() - used) / (time.perf_counter() - started) * 100
    await _end(takers)
    return Sample(percent, job.count, {})


async def history(system: System, job: Job) -> Sample:
    """Milliseconds until a new subscriber has consumed a history of 1,000 events."""
    await system.join_many([CHANNEL])  # some systems keep no history of a channel that nobody is in
    await system.pour(payloads(1000), CHANNEL)
    await system.flush()
    await asyncio.sleep(SETTLE)
    started = time.perf_counter()
    for _ in range(job.count):
        await system.read_history(CHANNEL, 1000)
    elapsed = time.perf_counter() - started
    return Sample(elapsed / job.count * 1000, elapsed, {})


TASKS: Final[dict[str, Task]] = {
    task.__name__: task
    for task in (
        fan_out,
        feed,
        history,
        idle_cpu,
        idle_memory,
        join_and_leave,
        join_own_channels,
        latency_receive,
        latency_send,
        own_channels,
        publish_awaited,
        publish_background,
        publish_concurrently,
        receive,
    )
}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _rate(count: int, started: float) -> Sample:
    elapsed = time.perf_counter() - started
    return Sample(count / elapsed, elapsed, {})


def _settled_memory() -> int:
    """Return the bytes that the process occupies once garbage is gone."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _end(takers: Sequence[asyncio.Task[bytes]]) -> None:
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)
