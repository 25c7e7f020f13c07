"""End to end through a web server: the server publishes, a crowd of clients in another process counts frames.

The crowd opens one more connection, the *gun*: a line on it says that everybody is connected, a second one that
everybody has the events that do not count, a third one that everybody has everything. So one clock, the server's,
measures from the first publish to the last client's last frame.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, cast
from urllib.parse import urlsplit

from channels_bench.crowd import Crowd
from channels_bench.jobs import CHANNEL, SETTLE, Job, Sample, frozen, payloads, rate
from channels_bench.systems.base import System

__all__ = ("crowd", "through_server")

_HOST: Final = "127.0.0.1"


async def through_server(system: System, job: Job) -> Sample:
    """Deliveries per second from the first publish to the last client's last frame."""
    events = payloads(job.count)
    gun = Gun()
    async with await asyncio.start_server(gun.hear, _HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        job.announce(channel=f"{cast('Any', system).address}#{port}", warmup=job.warmup)
        began = time.perf_counter()
        await gun.next_shot()
        connected = time.perf_counter() - began
        await asyncio.sleep(SETTLE)
        await system.pour(payloads(job.warmup), CHANNEL)
        await gun.next_shot()
        with frozen():
            used, started = time.process_time(), time.perf_counter()
            await system.pour(events, CHANNEL)
            await gun.next_shot()
            elapsed, used = time.perf_counter() - started, time.process_time() - used
    deliveries = job.count * job.subscribers
    extra = {"per_cpu_second": deliveries / used, "connects_per_s": job.subscribers / connected}
    return Sample(deliveries / elapsed, elapsed, extra)


class Gun:
    """The server's end of the crowd's own connection."""

    def __init__(self) -> None:
        self._shots: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take each line for a shot."""
        async for line in reader:
            self._shots.put_nowait(line)
        writer.close()

    async def next_shot(self) -> None:
        """Wait for a line.

        Raises:
            RuntimeError: The crowd lost a connection.
        """
        if (line := await self._shots.get()) != b"\n":
            raise RuntimeError(line.decode().strip())


async def crowd(_system: System, job: Job) -> Sample:
    """Connect all clients to the address, and return when each has received every event."""
    where = urlsplit(job.channel)
    clients = Crowd(where.hostname or _HOST, where.port or 80, where.path)
    _, gun = await asyncio.open_connection(_HOST, int(where.fragment))
    started = time.perf_counter()
    try:
        await clients.connect(job.subscribers)
        gun.write(b"\n")
        for events in (job.warmup, job.warmup + job.count):
            await clients.receive(events * job.subscribers)
            gun.write(b"\n")
    except OSError as exc:
        gun.write(f"{exc}\n".encode())
        raise
    finally:
        clients.close()
        await gun.drain()
        gun.close()
    return rate(job.count * job.subscribers, started)
