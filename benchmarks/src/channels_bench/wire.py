"""What is counted outside of a system, the same for each: by the kernel, and by the broker."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

__all__ = ("broker_channels", "requests_sent", "sent_between")

_SIZE = 160

_DATA_SEGMENTS_OUT = 156
"""Offset of ``tcpi_data_segs_out``. Source: ``struct tcp_info`` in ``linux/tcp.h``, since Linux 4.6."""


def requests_sent() -> Mapping[int, int] | None:
    """Return how many segments with data each open connection has sent; ``None`` where the system does not tell.

    When a process idles, each is one request: nothing is large enough to be split or frequent enough to be joined.
    """
    if not hasattr(socket, "TCP_INFO") or not os.path.isdir("/proc/self/fd"):
        return None
    return dict(_connections())


def sent_between(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Return how many requests were sent; what a connection that is closed by now has sent meanwhile is not known."""
    return sum(count - before.get(connection, 0) for connection, count in after.items())


def _connections() -> Iterator[tuple[int, int]]:
    """Yield the inode of each socket and the segments that it has sent."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        # Another kind of file or socket, or closed meanwhile.
        with suppress(OSError):
            status = os.fstat(descriptor)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
            if len(information) == _SIZE:
                yield status.st_ino, struct.unpack_from("=I", information, _DATA_SEGMENTS_OUT)[0]


@asynccontextmanager
async def broker_channels(url: str) -> AsyncIterator[Callable[[], Awaitable[int | None]]]:
    """Give a way to ask how many channels the broker knows subscribers of; its answer is ``None`` if it has no idea."""
    if not url.startswith("redis"):
        yield _no_idea
        return
    from redis.asyncio import Redis

    where = urlsplit(url)
    async with Redis(host=where.hostname or "", port=where.port or 6379) as client:

        async def ask() -> int:
            return int((await client.info("stats"))["pubsub_channels"])

        yield ask


async def _no_idea() -> None:
    return None
