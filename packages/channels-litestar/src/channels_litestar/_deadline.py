"""A deadline for each of many short waits, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

__all__ = ("SendDeadline",)


class SendDeadline:
    """Sends messages, each within the same time; one at a time.

    A timer for each send costs many times what sending costs, and nearly every send ends at once. So one timer looks
    again and again as long as something is sent; a connection that rests has none.

    Args:
        timeout: Seconds for one message, ``None`` for no limit.
    """

    __slots__ = ("_due", "_expired", "_task", "_timeout", "_timer")

    def __init__(self, timeout: float | None) -> None:
        self._timeout: Final = timeout
        self._due = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    async def send(self, send: Callable[[Any], Awaitable[None]], message: Any) -> None:
        """Send one message.

        Raises:
            TimeoutError: The client did not take it in time.
        """
        if self._timeout is None:
            await send(message)
            return
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._timeout
        if self._timer is None:
            self._timer = loop.call_at(self._due, self._look, loop)
        self._task = asyncio.current_task()
        try:
            await send(message)
        except asyncio.CancelledError:
            if self._take_expiry():
                raise TimeoutError(f"a message was not taken within {self._timeout} s") from None
            raise
        finally:
            self._task = None

    def close(self) -> None:
        """Leave no timer behind; nothing is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._task is None:
            return
        if loop.time() < self._due:
            self._timer = loop.call_at(self._due, self._look, loop)
            return
        self._expired = True
        self._task.cancel()

    def _take_expiry(self) -> bool:
        """Tell whether the cancellation was ours alone, and undo it then."""
        expired, self._expired = self._expired, False
        return expired and self._task is not None and self._task.uncancel() == 0
