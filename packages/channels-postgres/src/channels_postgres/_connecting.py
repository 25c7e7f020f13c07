"""Connecting that can be cancelled and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from channels_postgres._driver import Link

__all__ = ("connect", "drop_result")

_GRACE: Final = 0.1
"""Seconds for an attempt to end by itself when nobody wants it any more. asyncpg 0.32, cancelled right after the TCP
connection was made, leaves an error that nobody reads; a server that is there answers sooner than this."""


async def connect(attempt_to: Callable[[], Awaitable[Link]]) -> Link:
    """Await a connection. When cancelled, close the one that comes too late."""
    attempt = asyncio.ensure_future(attempt_to())
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        attempt.add_done_callback(drop_result)
        try:
            await asyncio.wait([attempt], timeout=_GRACE)
        finally:
            attempt.cancel()
        await asyncio.wait([attempt])
        raise


def drop_result(attempt: asyncio.Future[Link]) -> None:
    """Close the connection that an attempt has brought, if it has."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
