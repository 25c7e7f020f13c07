"""The way to the broker: whether it is open, and a deadline and one kind of error for every call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import random
from typing import Any, Final, TypeVar

from channels_core.backend import ChannelsBackend, History
from channels_core.events import Position
from channels_core.exceptions import BackendConnectionError, ChannelsException, NotStarted

T = TypeVar("T")

GRACE: Final = 1.0
"""Seconds that cancelled work has to clean up before it is left behind."""

MAX_READS: Final = 16
"""Reads under way at once: the contract's promise to backends, which size a small pool by it."""

FIRST_DELAY: Final = 0.05
"""Seconds before the first retry; doubles each time."""

LAST_DELAY: Final = 1.0
"""The longest delay before a retry: recovery must not take much longer than the broker's return."""


class Backoff:
    """Delays between attempts: doubling, bounded, with full jitter so that processes do not return all at once."""

    __slots__ = ("_delay",)

    def __init__(self) -> None:
        self._delay = FIRST_DELAY

    async def sleep(self) -> None:
        """Wait before the next attempt."""
        delay, self._delay = self._delay, min(self._delay * 2, LAST_DELAY)
        await asyncio.sleep(delay * random())

    def reset(self) -> None:
        """Begin with the shortest delay again, after a success."""
        self._delay = FIRST_DELAY


class Link:
    """Calls to one started backend.

    Args:
        backend: The backend.
        call_timeout: Seconds that one call may take.

    Attributes:
        last_error: Why the broker was last seen to be away; tells a caller whose time is up.
    """

    def __init__(self, backend: ChannelsBackend, call_timeout: float) -> None:
        self.backend: Final = backend
        self.call_timeout: Final = call_timeout
        self.last_error: BaseException | None = None
        self._up: Final = asyncio.Event()
        self._ended = False
        self._reads: Final = asyncio.Semaphore(MAX_READS)

    def open(self) -> None:
        """Allow publishing and reading."""
        self._up.set()

    def close(self) -> None:
        """Forbid calls: none may follow between a failure and the next start-up."""
        if not self._ended:  # whoever waits later must fail as well
            self._up.clear()

    def end(self) -> None:
        """Fail whoever waits, now and later: the plugin stops."""
        self._ended = True
        self._up.set()

    async def wait_up(self) -> None:
        """Return while the link is open.

        Raises:
            NotStarted: It will not be opened any more.
        """
        await self._up.wait()
        if self._ended:
            raise NotStarted("the plugin was stopped")

    async def call(self, verb: str, awaitable: Awaitable[T]) -> T:
        """Await a backend's answer inside the deadline.

        Raises:
            BackendConnectionError: No answer in time, or an error that only a lost connection explains.
        """
        deadline = asyncio.timeout(self.call_timeout)
        try:
            async with deadline:
                return await awaitable
        except BackendConnectionError as exc:
            self.last_error = exc
            raise
        except asyncio.CancelledError as exc:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self.last_error = BackendConnectionError(f"{verb} was cancelled inside the backend")
            raise self.last_error from exc
        except NotStarted as exc:  # it was shut down while the call was on its way
            self.last_error = BackendConnectionError(f"{verb} was interrupted by a shutdown of the backend")
            raise self.last_error from exc
        except ChannelsException:
            raise
        except OSError as exc:
            late = f" within {self.call_timeout} s" if deadline.expired() else ""
            self.last_error = BackendConnectionError(f"{verb} got no answer from the broker{late}: {exc!r}")
            raise self.last_error from exc

    async def read(self, channel: str, limit: int | None, after: Position | None = None) -> History:
        """Read history, waiting for the broker and retrying while it is away; the caller sets the deadline."""
        async with self._reads:
            return await self.retry("get_history", lambda: self.backend.get_history(channel, limit, after=after))

    async def read_tops(self, channels: list[str]) -> dict[str, Position]:
        """Read newest positions while a session is set up: only the connection for reading may have to be reopened."""
        backoff = Backoff()
        while True:
            try:
                return await self.call("get_tops", self.backend.get_tops(channels))
            except BackendConnectionError:
                await backoff.sleep()

    async def retry(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the broker answers; the caller sets the deadline of the whole."""
        backoff = Backoff()
        while True:
            await self.wait_up()
            try:
                return await self.call(verb, call())
            except BackendConnectionError:
                await backoff.sleep()


async def run_bounded(awaitable: Coroutine[Any, Any, T], timeout: float) -> T:
    """Await work that may not end when it is cancelled, and leave it behind then.

    Raises:
        TimeoutError: It did not end in time.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait((task,), timeout=timeout)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=GRACE)
    if not task.done() or task.cancelled():
        raise TimeoutError(f"{task.get_coro()!r} did not end within {timeout} s")
    return task.result()


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await work that ends in bounded time, to its end; a cancellation meanwhile is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
    return task.result()
