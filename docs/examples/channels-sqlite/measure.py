"""Measure how long an event takes from one process to another through the file: python measure.py [POLL]."""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from channels_core import ChannelsPlugin, Event

EVENTS = 300
PAUSE = 0.013  # no multiple of the poll interval, so that events come at all phases of it


async def publish(url: str) -> None:
    """Publish the time, again and again."""
    async with ChannelsPlugin(url, channels=["c"]) as channels:
        for _ in range(EVENTS):
            await channels.wait_published(str(time.monotonic()), "c")
            await asyncio.sleep(PAUSE)


async def measure(poll: str) -> None:
    """Receive what another process publishes, then idle."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'events.db'}?history=100&poll={poll}"
        async with ChannelsPlugin(url, channels=["c"]) as channels, channels.subscribe("c") as subscriber:
            publisher = await asyncio.create_subprocess_exec(sys.executable, __file__, "--publish", url)
            latencies: list[float] = []
            for _ in range(EVENTS):
                item = await anext(subscriber)
                assert isinstance(item, Event)
                latencies.append((time.monotonic() - float(item.data)) * 1000)
            await publisher.wait()
            started, busy = time.monotonic(), time.process_time()
            await asyncio.sleep(3)
            idle = (time.process_time() - busy) / (time.monotonic() - started) * 100
    ordered = sorted(latencies)
    print(f"poll={poll} s: median {statistics.median(ordered):.1f} ms, p99 {ordered[-3]:.1f} ms, idle CPU {idle:.2f} %")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--publish"]:
        asyncio.run(publish(sys.argv[2]))
    else:
        asyncio.run(measure(sys.argv[1] if len(sys.argv) > 1 else "0.01"))
