"""Consuming a stream in a task, tied to an ``async with`` block."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from channels_core.events import Event, Gap

if TYPE_CHECKING:
    from channels_core.subscriber import Subscriber

__all__ = ("BackgroundConsumer", "OnEvent", "OnGap")

OnEvent = Callable[[bytes], Awaitable[object]]
"""Awaited with each event's data."""

OnGap = Callable[[Gap], Awaitable[object] | object]
"""Called with each gap, in stream order; awaited when it gives something to await."""


class BackgroundConsumer:
    """Runs a callback for each event while an ``async with`` block runs.

    An error of the callback cancels the block and is raised from it.
    """

    def __init__(self, subscriber: Subscriber, on_event: OnEvent, on_gap: OnGap | None, *, join: bool) -> None:
        self._subscriber: Final = subscriber
        self._on_event: Final = on_event
        self._on_gap: Final = on_gap
        self._join: Final = join
        self._task: asyncio.Task[None] | None = None
        self._owner: asyncio.Task[object] | None = None
        self._interrupted = False
        self._leaving = False
        self._handling = False

    @property
    def is_running(self) -> bool:
        """Whether the task runs."""
        return self._task is not None and not self._task.done()

    async def __aenter__(self) -> Self:
        self._subscriber._claim(self)
        self._owner = asyncio.current_task()
        self._task = asyncio.create_task(self._run(), name="channels: run_in_background")
        self._task.add_done_callback(self._on_done)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving = True
        try:
            if exc is None and self._join and not self._interrupted:
                await self._finish()
        finally:
            await self.cancel()
            self._subscriber._unclaim()
        await self._settle(exc)

    async def cancel(self) -> None:
        """End the task without waiting for what is enqueued; does nothing from within the callback."""
        task = self._task
        if task is not None and task is not asyncio.current_task() and not task.done():
            task.cancel()
            await asyncio.wait((task,))

    async def wait(self) -> None:
        """Wait for the task's end; does nothing from within the callback."""
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        async for item in self._subscriber:
            self._handling = True
            await self._handle(item)
            self._handling = False
            if self._leaving:
                return

    async def _handle(self, item: Event | Gap) -> None:
        if isinstance(item, Event):
            await self._on_event(item.data)
        else:
            await self._subscriber._handle_gap(item, self._on_gap)

    async def _finish(self) -> None:
        """Wait for the item that is being handled, then handle what was enqueued up to now."""
        task = self._task
        assert task is not None, "entered before it is left"
        waiting = self._subscriber._count_waiting()
        if self._handling:
            await asyncio.wait((task,))
        await self.cancel()
        if self._error() is not None:
            return
        for _ in range(waiting):  # what is not handled, for whatever reason, stays in the stream
            item = self._subscriber._take_nowait()
            if item is None:
                return
            await self._handle(item)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if self._error() is not None and not self._leaving and self._owner is not None:
            self._interrupted = True
            self._owner.cancel()

    def _error(self) -> BaseException | None:
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def _settle(self, exc: BaseException | None) -> None:
        """Raise the callback's error in the block's place, unless the block has an error of its own."""
        error = self._error()
        if error is None:
            return
        ours = await self._take_back_cancel(exc)
        if exc is None or (ours and isinstance(exc, asyncio.CancelledError)):
            raise error
        exc.add_note(f"the callback of run_in_background had failed as well: {error!r}")

    async def _take_back_cancel(self, exc: BaseException | None) -> bool:
        """Undo our own cancellation of the block; false when somebody else cancelled it as well."""
        if not self._interrupted or self._owner is None:
            return False
        if not isinstance(exc, asyncio.CancelledError):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # it was not delivered yet, and must not hit the code behind the block
        return self._owner.uncancel() == 0
