"""A few kept connections for publishing or reading: opened on demand, dropped after any trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from channels_core.exceptions import BackendConnectionError, BackendError
from channels_postgres._connecting import connect, drop_result
from channels_postgres._driver import Link

__all__ = ("Pool",)

T = TypeVar("T")


class Pool:
    """At most ``size`` connections; further calls wait for one.

    Args:
        connect: Opens one.
        size: The most that are open at a time.
    """

    def __init__(self, connect: Callable[[], Awaitable[Link]], size: int) -> None:
        self._connect: Final = connect
        self._slots: Final = asyncio.Semaphore(size)
        self._free: Final[list[Link]] = []
        self._busy: Final[set[Link]] = set()
        self._connecting: Final[set[asyncio.Future[Link]]] = set()
        self._proved = False
        self._closed = False

    async def call(self, use: Callable[[Link], Awaitable[T]]) -> T:
        """Lend a connection to ``use``. If that fails or is cancelled, the connection is dropped.

        Raises:
            BackendConnectionError: The server is away, or lets nobody in whom it has let in before, or the pool was
                closed meanwhile.
            BackendError: The server refuses.
        """
        async with self._slots:
            link = await self._take()
            self._busy.add(link)
            try:
                result = await use(link)
            except BaseException:
                link.abort()
                raise
            finally:
                self._busy.discard(link)
            self._give_back(link)
            return result

    async def close(self) -> None:
        """Close everything; calls in flight and waiting ones end with `BackendConnectionError`."""
        self._closed = True
        attempts = list(self._connecting)
        for attempt in attempts:
            attempt.cancel()
        for link in self._busy:
            link.abort()
        free, self._free[:] = self._free[:], []
        await asyncio.gather(*(link.close() for link in free))
        if attempts:
            await asyncio.wait(attempts)

    async def _take(self) -> Link:
        self._check_open()
        while self._free:
            link = self._free.pop()  # the one used last, so that spare ones of a burst stay idle
            if not link.closed:
                return link
            link.abort()
        return await self._open()

    async def _open(self) -> Link:
        attempt = asyncio.ensure_future(connect(self._connect))
        self._connecting.add(attempt)
        try:
            link = await attempt
        except asyncio.CancelledError:
            if attempt.done():  # it may have succeeded in the very moment of being cancelled
                drop_result(attempt)
            self._check_open()
            raise
        except BackendError as exc:
            if self._proved:  # a password may be on its way to us, say; what waits to be published can wait for it
                raise BackendConnectionError(str(exc)) from exc
            raise
        finally:
            self._connecting.discard(attempt)
        if self._closed:
            link.abort()
        self._check_open()
        self._proved = True
        return link

    def _give_back(self, link: Link) -> None:
        if self._closed:
            link.abort()
            self._check_open()
        self._free.append(link)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendConnectionError("the backend was shut down")
