"""What is counted outside of a system, the same for each: by the kernel, and by the broker."""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ("broker_channels", "requests_sent")

_SIZE = 160

_DATA_SEGMENTS_OUT = 156
"""Offset of ``tcpi_data_segs_out``. Source: ``struct tcp_info`` in ``linux/tcp.h``, since Linux 4.6."""


def requests_sent() -> int | None:
    """Return how many segments with data all open connections have sent; ``None`` where the system does not tell.

    When a process idles, each is one request: nothing is large enough to be split or frequent enough to be joined.
    """
    if not hasattr(socket, "TCP_INFO") or not os.path.isdir("/proc/self/fd"):
        return None
    return sum(_segments(int(name)) for name in os.listdir("/proc/self/fd"))


def _segments(descriptor: int) -> int:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return 0
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    except OSError:  # another kind of socket, or closed meanwhile
        return 0
    if len(information) < _SIZE:
        return 0
    segments: int = struct.unpack_from("=I", information, _DATA_SEGMENTS_OUT)[0]
    return segments


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
