"""What the backend receives, handed on a burst at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from channels_core.events import Event

__all__ = ("Intake",)


class Intake:
    """Hands on at once what arrived between two turns of the event loop: many events cost little more than one.

    The first event of a burst goes on immediately, so that nobody waits for what may never come.

    Args:
        route: Gets the events, in order; never waits.
        burst: The most events between two turns.

    Attributes:
        received: How many events arrived so far.
    """

    def __init__(self, route: Callable[[Sequence[Event]], None], burst: int) -> None:
        self.received = 0
        self._route: Final = route
        self._burst: Final = burst
        self._waiting: Final[list[Event]] = []
        self._in_burst = False
        self._error: BaseException | None = None
        self._reader: asyncio.Task[None] | None = None

    async def run(self, stream: AsyncIterator[Event]) -> None:
        """Take everything that a stream gives; what it gave before it failed is handed on as well."""
        self._reader, self._error = asyncio.current_task(), None
        try:
            await self._take(stream)
        except asyncio.CancelledError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._hand_on()

    async def _take(self, stream: AsyncIterator[Event]) -> None:
        loop = asyncio.get_running_loop()
        waiting, most = self._waiting, self._burst - 1
        async for event in stream:
            if self._in_burst:
                waiting.append(event)
            else:
                self._in_burst = True
                # Before the consumers that it wakes: they shall find the whole burst.
                loop.call_soon(self._end_burst)
                self.received += 1
                self._route((event,))
            if len(waiting) >= most:
                self._hand_on()
                await asyncio.sleep(0)

    def _end_burst(self) -> None:
        self._in_burst = False
        try:
            self._hand_on()
        except Exception as exc:
            assert self._reader is not None, "a burst has a reader"
            self._error = exc
            self._reader.cancel()

    def _hand_on(self) -> None:
        if self._waiting:
            events = tuple(self._waiting)
            self._waiting.clear()
            self.received += len(events)
            self._route(events)
