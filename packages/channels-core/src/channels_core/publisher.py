"""Publishing: lanes, queue, batches, retry, and the way in from other threads.

A plugin start has two lanes, one for ``publish`` and one for ``wait_published``. A lane has one call in flight, its
numbers ascend, and a retry resends everything unacknowledged, in order, before anything newer.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from channels_core._link import Backoff, Link
from channels_core._logging import RateLimitedLogger, logger
from channels_core._wakeup import Wakeup
from channels_core.backend import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Publication
from channels_core.events import Event
from channels_core.exceptions import (
    BackendConnectionError,
    BackendError,
    NotStarted,
    PublishError,
    PublishQueueFull,
)
from channels_core.stats import Counters

__all__ = ("OnPublishError", "Publisher")

OnPublishError = Callable[[Event, BaseException], None]
"""Called with each event that the broker refused for good."""

Receipt = asyncio.Future[None]


class _Entry:
    """One call of ``publish`` or ``wait_published`` on its way."""

    __slots__ = ("channels", "data", "publication", "receipt")

    def __init__(self, data: bytes, channels: tuple[str, ...], receipt: Receipt | None) -> None:
        self.data: Final = data
        self.channels: Final = channels
        self.receipt: Final = receipt
        self.publication: Publication | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.receipt is not None and self.receipt.done()

    def numbered(self, lane: str, number: int) -> Publication:
        self.publication = Publication(self.data, self.channels, (lane, number))
        return self.publication


class Lane:
    """A queue whose entries reach the broker in order, one call at a time.

    Args:
        link: The way to the broker.
        counters: Shared with the plugin.
        settle: Told each entry's outcome, ``None`` for accepted.
    """

    def __init__(self, link: Link, counters: Counters, settle: Callable[[_Entry, BaseException | None], None]) -> None:
        self._link: Final = link
        self._counters: Final = counters
        self._settle: Final = settle
        self._name: Final = uuid.uuid4().hex
        self._number = 0
        self._queue: Final[deque[_Entry]] = deque()
        self._flight: list[_Entry] = []
        self._wakeup: Final = Wakeup()
        self._idle: Final = asyncio.Event()

    def __len__(self) -> int:
        """Return how many entries have no outcome yet."""
        return len(self._queue) + len(self._flight)

    def put(self, entry: _Entry) -> None:
        """Queue an entry; callable from any thread."""
        self._queue.append(entry)
        self._wakeup.set()

    def discard(self, entry: _Entry) -> None:
        """Forget an entry that nobody waits for any more, unless it is on its way already."""
        with suppress(ValueError):
            self._queue.remove(entry)

    async def run(self) -> None:
        """Publish what is queued, for ever."""
        while True:
            if not self._queue:
                self._idle.set()
                await self._wakeup.wait()
                self._idle.clear()
            self._flight = self._next_batch()
            await self._deliver()
            await asyncio.sleep(0)  # a backend that never waits must not keep the loop from everybody else

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        while len(self):
            self._idle.clear()
            await self._idle.wait()

    def clear(self) -> list[_Entry]:
        """Forget and return everything that has no outcome yet."""
        entries = [*self._flight, *self._queue]
        self._flight = []
        self._queue.clear()
        return entries

    def _next_batch(self) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        while self._queue and len(batch) < MAX_BATCH_EVENTS:
            size += len(self._queue[0].data)
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _deliver(self) -> None:
        """Send the batch in flight until the broker answered for all of it."""
        backoff = Backoff()
        while True:
            await self._link.wait_up()
            self._flight = [entry for entry in self._flight if not entry.is_abandoned]
            if not self._flight:
                return
            try:
                outcomes = await self._send(self._flight)
            except BackendConnectionError:
                await backoff.sleep()
            else:
                self._finish(outcomes)
                return

    async def _send(self, entries: Sequence[_Entry]) -> Sequence[BaseException | None]:
        batch = [entry.publication or self._number_entry(entry) for entry in entries]
        try:
            outcomes = await self._link.call("publish", self._link.backend.publish_batch(batch))
            if len(outcomes) != len(batch):
                raise BackendError(f"publish_batch gave {len(outcomes)} outcomes for {len(batch)} publications")
        except BackendConnectionError:
            raise
        except Exception as exc:
            if len(entries) == 1:
                return [exc]
            return [outcome for entry in entries for outcome in await self._send([entry])]
        return outcomes

    def _number_entry(self, entry: _Entry) -> Publication:
        self._number += 1
        return entry.numbered(self._name, self._number)

    def _finish(self, outcomes: Sequence[BaseException | None]) -> None:
        flight, self._flight = self._flight, []
        for entry, outcome in zip(flight, outcomes, strict=True):
            self._settle(entry, outcome)


class Publisher:
    """Takes events in and gets them to the broker.

    Args:
        link: The way to the broker.
        counters: Shared with the plugin.
        log: Shared with the plugin.
        max_pending: The most calls of ``publish`` that may wait.
        on_error: Told of each event that the broker refused for good.
    """

    def __init__(
        self,
        link: Link,
        counters: Counters,
        log: RateLimitedLogger,
        *,
        max_pending: int,
        on_error: OnPublishError | None,
    ) -> None:
        self._link: Final = link
        self._counters: Final = counters
        self._log: Final = log
        self._max_pending: Final = max_pending
        self._on_error: Final = on_error
        self._background: Final = Lane(link, counters, self._settle_background)
        self._awaited: Final = Lane(link, counters, self._settle_awaited)
        self._lock: Final = threading.Lock()
        self._open = True

    @property
    def pending(self) -> int:
        """How many calls wait for the broker."""
        return len(self._background) + len(self._awaited)

    def publish(self, data: bytes, channels: tuple[str, ...]) -> None:
        """Queue an event; callable from any thread.

        Raises:
            PublishQueueFull: ``max_pending`` events wait already.
            NotStarted: The plugin stops.
        """
        with self._lock:
            self._check_open()
            if len(self._background) >= self._max_pending:
                raise PublishQueueFull(
                    f"{self._max_pending} events wait to be published; "
                    "slow down, use wait_published, or raise max_pending"
                )
            self._background.put(_Entry(data, channels, None))

    async def wait_published(self, data: bytes, channels: tuple[str, ...], timeout: float) -> None:
        """Return when the broker has accepted an event.

        Raises:
            PublishError: It was refused, or not accepted in time.
            NotStarted: The plugin stops.
        """
        self._check_open()
        receipt: Receipt = asyncio.get_running_loop().create_future()
        entry = _Entry(data, channels, receipt)
        self._awaited.put(entry)
        try:
            async with asyncio.timeout(timeout):
                await receipt
        except asyncio.CancelledError:
            self._awaited.discard(entry)
            raise
        except TimeoutError:
            self._awaited.discard(entry)
            self._counters.failed += 1
            raise PublishError(
                f"the broker did not accept the event within {timeout} s; it may still appear, once or never"
            ) from self._link.last_error

    async def run(self) -> None:
        """Publish what is queued, until the link ends."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._background.run(), name="channels: publish")
                group.create_task(self._awaited.run(), name="channels: wait_published")
        except* NotStarted:
            # A lane that waited for the broker when the plugin stopped; nobody else retrieves it.
            pass

    async def drain(self) -> None:
        """Refuse new events, and return when none waits any more."""
        self.close()
        await self._background.drain()
        await self._awaited.drain()

    def close(self) -> None:
        """Refuse new events."""
        with self._lock:
            self._open = False

    def abandon(self) -> int:
        """Give up on what waits; returns how many calls of ``publish`` that were."""
        error = NotStarted("the plugin was stopped before the broker accepted the event")
        for entry in self._awaited.clear():
            if entry.receipt is not None and not entry.receipt.done():
                entry.receipt.set_exception(error)
        return len(self._background.clear())

    def _check_open(self) -> None:
        if not self._open:
            raise NotStarted("the plugin is stopping and takes no more events")

    def _settle_awaited(self, entry: _Entry, error: BaseException | None) -> None:
        self._counters.published += error is None
        if entry.receipt is None or entry.receipt.done():
            return
        if error is None:
            entry.receipt.set_result(None)
            return
        self._counters.failed += 1
        refusal = PublishError(f"the broker refused the event: {error}")
        refusal.__cause__ = error
        entry.receipt.set_exception(refusal)

    def _settle_background(self, entry: _Entry, error: BaseException | None) -> None:
        if error is None:
            self._counters.published += 1
            return
        self._counters.failed += 1
        self._log.warning("refused", "the broker refused an event for %r: %s", entry.channels, error, exc=error)
        if self._on_error is not None:
            for channel in entry.channels:
                self._tell(self._on_error, Event(channel, entry.data), error)

    def _tell(self, on_error: OnPublishError, event: Event, error: BaseException) -> None:
        try:
            on_error(event, error)
        except Exception:  # the application's code must not stop publishing
            logger.exception("on_publish_error failed")
