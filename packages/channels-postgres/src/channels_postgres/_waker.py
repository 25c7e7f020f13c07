"""Telling the readers that something was committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from channels_core.exceptions import BackendConnectionError, BackendError

__all__ = ("Waker",)

_logger: Final = logging.getLogger("channels_postgres")

_RETRY: Final = 0.2
"""Seconds before a wake-up that could not be sent is tried again; readers look by themselves at long intervals."""

_FLUSH_TIMEOUT: Final = 1.0
"""Seconds for the last wake-up when stopping."""


class Waker:
    """Sends wake-ups behind the commits, in a task of its own: one for all that were committed meanwhile.

    Not in the publishing transactions, because commits that carry a notification wait for each other, and not by
    whoever publishes, because a wake-up is nothing to wait for.

    Args:
        send: Sends one.
    """

    def __init__(self, send: Callable[[], Awaitable[None]]) -> None:
        self._send: Final = send
        self._wanted: Final = asyncio.Event()
        self._settled: Final = asyncio.Event()
        self._settled.set()
        self._task: Final = asyncio.create_task(self._run(), name="channels-postgres waker")

    def wake(self) -> None:
        """Send a wake-up soon."""
        self._settled.clear()
        self._wanted.set()

    async def close(self) -> None:
        """Send what is due, in bounded time, and stop."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_TIMEOUT):
                    await self._settled.wait()
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._send()
            except Exception as exc:
                if not isinstance(exc, (BackendConnectionError, BackendError)):
                    _logger.exception("a wake-up was not sent, by an error in this program; trying again")
                self._settled.set()  # who stops now does not wait for a server that is away
                await asyncio.sleep(_RETRY)
                self._wanted.set()
            else:
                if not self._wanted.is_set():
                    self._settled.set()
