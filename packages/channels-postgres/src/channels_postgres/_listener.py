"""The receiving connection: one statement at a time, notifications handed on as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar

from channels_core.exceptions import BackendConnectionError
from channels_postgres._driver import Link

__all__ = ("Listener",)

T = TypeVar("T")


class Listener:
    """Owns a connection that listens; its loss reaches whoever waits.

    Args:
        link: The connection, ours from now on.
        on_notification: Called with name and payload; must not block.
    """

    def __init__(self, link: Link, on_notification: Callable[[str, str], None]) -> None:
        self._link: Final = link
        self._lock: Final = asyncio.Lock()
        self._news: Final = asyncio.Event()
        self._on_notification: Final = on_notification
        self._lost = False
        link.watch(self._notified, self._mark_lost)

    async def call(self, use: Callable[[Link], Awaitable[T]]) -> T:
        """Lend the connection to ``use``, alone. If that fails or is cancelled, the connection is dropped."""
        async with self._lock:
            self.check()
            try:
                return await use(self._link)
            except BaseException:
                self._link.abort()
                self._mark_lost()
                raise

    async def listen(self, names: Collection[str]) -> None:
        """Receive the notifications of these names from now on; no names only ask whether the connection stands."""
        self.check()
        if names:
            await self.call(lambda link: link.listen(names))

    async def unlisten(self, names: Collection[str]) -> None:
        """Undo `listen`."""
        if names:
            await self.call(lambda link: link.unlisten(names))

    async def wait(self, timeout: float | None = None) -> None:
        """Return when a notification came, or the connection went, since the last return; or after the timeout."""
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def check(self) -> None:
        """Raise `BackendConnectionError` if the connection is gone."""
        if self._lost:
            raise BackendConnectionError("the listening connection was lost")

    async def close(self) -> None:
        """End the connection, also under a call in flight."""
        busy = self._lock.locked()
        self._mark_lost()
        if busy:
            self._link.abort()
        else:
            await self._link.close()

    def _notified(self, name: str, payload: str) -> None:
        self._on_notification(name, payload)
        self._news.set()

    def _mark_lost(self) -> None:
        self._lost = True
        self._news.set()
