"""What a worker measures: one coroutine per kind of work, the same code for every system."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Final

from channels_bench.jobs import CHANNEL, SETTLE, Job, Sample, Task, frozen, payloads, percentile, rate, stamped
from channels_bench.outage import outage_receive, outage_send
from channels_bench.profiles import idle_memory_lines
from channels_bench.sockets import crowd, through_server
from channels_bench.systems.base import Stream, System
from channels_bench.wire import broker_channels, requests_sent, sent_between

__all__ = ("TASKS",)

MANY: Final = 50
"""Channels that are published to in turn."""

LEAVING: Final = 8.0
"""Seconds after which nobody is waited for who has still not left."""


async def fan_out(system: System, job: Job) -> Sample:
    """Deliveries per second from the first publish to the last consumer's last event."""
    streams = [await system.subscribe(CHANNEL) for _ in range(job.subscribers)]
    await asyncio.sleep(SETTLE)
    if job.warmup:
        await asyncio.gather(*await _take(streams, job.warmup), system.pour(payloads(job.warmup), CHANNEL))
    events = payloads(job.count)
    takers = await _take(streams, job.count)
    with frozen():
        used, started = time.process_time(), time.perf_counter()
        await asyncio.gather(system.pour(events, CHANNEL), *takers)
        elapsed, used = time.perf_counter() - started, time.process_time() - used
    deliveries = job.count * job.subscribers
    return Sample(deliveries / elapsed, elapsed, {"per_cpu_second": deliveries / used})


async def _take(streams: Sequence[Stream], count: int) -> list[asyncio.Task[bytes]]:
    """Return the consumers, all of which wait for their first event."""
    takers = [asyncio.create_task(stream.take(count)) for stream in streams]
    await asyncio.sleep(0)
    return takers


async def publish_background(system: System, job: Job) -> Sample:
    """Events per second, until the server has accepted the last."""
    return await _publish(system, system.pour(payloads(job.count), CHANNEL), job.count)


async def publish_many(system: System, job: Job) -> Sample:
    """Events per second to fifty channels in turn, until the server has accepted the last."""
    channels = [f"channel-{number}" for number in range(MANY)]
    return await _publish(system, system.pour_many(payloads(job.count), channels), job.count)


async def _publish(system: System, pouring: Awaitable[None], count: int) -> Sample:
    with frozen():
        started = time.perf_counter()
        await pouring
        await system.flush()
        return rate(count, started)


async def publish_awaited(system: System, job: Job) -> Sample:
    """Events per second, each awaited before the next."""
    events = payloads(job.count)
    started = time.perf_counter()
    for data in events:
        await system.publish(data, CHANNEL)
    return rate(job.count, started)


async def publish_concurrently(system: System, job: Job) -> Sample:
    """Events per second, a hundred awaited at a time."""
    events = payloads(job.count)
    started = time.perf_counter()
    for start in range(0, job.count, 100):
        await asyncio.gather(*[system.publish(data, CHANNEL) for data in events[start : start + 100]])
    return rate(job.count, started)


async def receive(system: System, job: Job) -> Sample:
    """Events per second of one subscriber, fed from another process, after the first event."""
    stream = await system.subscribe(CHANNEL)
    await asyncio.sleep(SETTLE)
    job.announce()
    with frozen():
        await stream.take(1)
        started = time.perf_counter()
        await stream.take(job.count - 1)
        return rate(job.count - 1, started)


async def feed(system: System, job: Job) -> Sample:
    """Publish to whoever receives in another process, under the name that it has there."""
    events = payloads(job.count)
    started = time.perf_counter()
    await system.pour(events, job.channel)
    return rate(job.count, started)


async def latency_receive(system: System, job: Job) -> Sample:
    """Milliseconds from publishing in another process to consuming here: the 99th percentile, and the median."""
    stream = await system.subscribe(CHANNEL)
    await asyncio.sleep(SETTLE)
    job.announce()
    began = time.perf_counter()
    delays = []
    with frozen():
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
    with frozen():
        for number in range(job.count):
            await asyncio.sleep(max(0.0, began + number / 500 - time.monotonic()))
            system.send(stamped(time.monotonic()), CHANNEL)
    sent = time.monotonic() - began
    await asyncio.sleep(0.5)  # what was sent last is on its way
    return Sample(job.count / sent, sent)


async def join_and_leave(system: System, job: Job) -> Sample:
    """Milliseconds in which one subscriber leaves many channels; joining and publishing to each beside it."""
    channels = [f"channel-{number}" for number in range(job.count)]
    async with broker_channels(system.url) as known:
        before = await known()
        started = time.perf_counter()
        streams = await system.join_many(channels)
        joined = time.perf_counter()
        extra = {"join": (joined - started) * 1000}
        if len(streams) == 1:
            extra["publish"] = await _publish_to_each(system, channels, [(streams[0], job.count)])
        leaving = time.perf_counter()
        await system.leave_all(streams)
        left = time.perf_counter()
        if before is not None:
            while (await known() or 0) > before:  # noqa: ASYNC110 - the broker tells who asks
                await asyncio.sleep(0.001)
            extra["until_the_broker_knows"] = (time.perf_counter() - leaving) * 1000
    return Sample((left - leaving) * 1000, left - started, extra)


async def own_channels(system: System, job: Job) -> Sample:
    """Milliseconds in which as many subscribers leave a channel each; joining and publishing to each beside it.

    Where that took too long it is projected from those that had left, whose number stands beside it.
    """
    channels = [f"channel-{number}" for number in range(job.count)]
    started = time.perf_counter()
    streams = [await system.subscribe(channel) for channel in channels]
    joined = time.perf_counter()
    published = await _publish_to_each(system, channels, [(stream, 1) for stream in streams])
    gc.collect()
    leaving = time.perf_counter()
    count = await _leave(streams)
    left = time.perf_counter()
    extra = {"join": (joined - started) * 1000, "publish": published, "left": count}
    return Sample((left - leaving) * 1000 * len(streams) / count, left - started, extra)


async def _leave(streams: Sequence[Stream]) -> int:
    """Let one after the other leave, and return how many had left when it took too long."""
    deadline = time.perf_counter() + LEAVING
    for count, stream in enumerate(streams, 1):
        await stream.close()
        if time.perf_counter() > deadline:
            return count
    return len(streams)


async def _publish_to_each(system: System, channels: Sequence[str], streams: Sequence[tuple[Stream, int]]) -> float:
    """Return the milliseconds until one event of each channel has been consumed."""
    takers = [asyncio.create_task(stream.take(count)) for stream, count in streams]
    await asyncio.sleep(SETTLE)
    started = time.perf_counter()
    await asyncio.gather(system.pour_many(payloads(len(channels)), channels), *takers)
    return (time.perf_counter() - started) * 1000


async def join_own_channels(system: System, job: Job) -> Sample:
    """Milliseconds in which as many subscribers join a channel each, one after the other."""
    sample = await own_channels(system, job)
    return Sample(sample.extra["join"], sample.elapsed, {"leave": sample.value, "publish": sample.extra["publish"]})


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
    """Per cent of a core that a hundred waiting subscribers of as many channels cost, and what they ask the broker."""
    streams = [await system.subscribe(f"idle-{number}") for number in range(job.subscribers)]
    takers = [asyncio.create_task(stream.take(1)) for stream in streams]
    await asyncio.sleep(1)
    job.announce()
    sent, used, started = requests_sent(), time.process_time(), time.perf_counter()
    await asyncio.sleep(job.count)
    elapsed, used = time.perf_counter() - started, time.process_time() - used
    more = requests_sent()
    await _end(takers)
    extra = {} if sent is None or more is None else {"requests_per_s": sent_between(sent, more) / elapsed}
    return Sample(used / elapsed * 100, elapsed, extra)


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
        crowd,
        feed,
        history,
        idle_cpu,
        idle_memory,
        idle_memory_lines,
        join_and_leave,
        join_own_channels,
        latency_receive,
        latency_send,
        outage_receive,
        outage_send,
        own_channels,
        publish_awaited,
        publish_background,
        publish_concurrently,
        publish_many,
        receive,
        through_server,
    )
}


def _settled_memory() -> int:
    """Return the bytes that the process occupies once garbage is gone."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def _end(takers: Sequence[asyncio.Task[bytes]]) -> None:
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)
