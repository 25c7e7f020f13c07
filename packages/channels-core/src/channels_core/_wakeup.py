"""A flag that any thread may set and one task of one event loop waits for."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Final


class Wakeup:
    """Wake one waiting task, once per burst; made in the event loop's thread.

    `set` costs an attribute look-up while a wake-up is already under way, so producers may call it per item. The
    waiter must look for work *after* `wait` returned, and nothing is missed: `wait` clears the flag first.

    Attributes:
        is_set: Whether a wake-up is under way, so that there is no need to call `set`.
    """

    __slots__ = ("_loop", "_thread", "_waiter", "is_set")

    def __init__(self) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._thread: Final = threading.get_ident()
        self._waiter: asyncio.Future[None] | None = None
        self.is_set = False

    def set(self) -> None:
        """Make the current or next `wait` return; callable from any thread."""
        if self.is_set:
            return
        self.is_set = True
        if threading.get_ident() == self._thread:
            self._wake()
        else:
            with suppress(RuntimeError):  # the loop has closed, so nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    async def wait(self) -> None:
        """Return as soon as `set` was called since the last `wait` returned."""
        if not self.is_set:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self.is_set = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
