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
from channels_core.backend import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Key, Publication
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


Settle = Callable[[Sequence[Publication], Sequence[BaseException | None]], None]
"""Told the outcome of each publication of a batch, ``None`` for accepted."""


class Lane:
    """A queue whose publications reach the broker in order, one call at a time.

    Args:
        link: The way to the broker.
        settle: Told the outcomes.
        is_wanted: Tells whether a publication that was not accepted yet shall be sent, or sent again.
    """

    def __init__(self, link: Link, settle: Settle, is_wanted: Callable[[Publication], bool] = lambda _: True) -> None:
        self._link: Final = link
        self._settle: Final = settle
        self._is_wanted: Final = is_wanted
        self._name: Final = uuid.uuid4().hex
        self._number = 0
        self._queue: Final[deque[Publication]] = deque()
        self._flight: list[Publication] = []
        self._wakeup: Final = Wakeup()
        self._idle: Final = asyncio.Event()

    def __len__(self) -> int:
        """Return how many publications have no outcome yet."""
        return len(self._queue) + len(self._flight)

    def put(self, data: bytes, channels: tuple[str, ...]) -> Publication:
        """Number and queue an event; callable from any thread, by one at a time."""
        self._number += 1
        publication = Publication(data, channels, (self._name, self._number))
        self._queue.append(publication)
        self._wakeup.set()
        return publication

    def discard(self, publication: Publication) -> None:
        """Forget a publication, unless it is on its way already."""
        with suppress(ValueError):
            self._queue.remove(publication)

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

    def clear(self) -> list[Publication]:
        """Forget and return everything that has no outcome yet."""
        publications = [*self._flight, *self._queue]
        self._flight = []
        self._queue.clear()
        return publications

    def _next_batch(self) -> list[Publication]:
        queue = self._queue
        batch: list[Publication] = []
        size = 0
        while queue and len(batch) < MAX_BATCH_EVENTS:
            size += len(queue[0].data)
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(queue.popleft())
        return batch

    async def _deliver(self) -> None:
        """Send the batch in flight until the broker answered for all of it."""
        backoff = Backoff()
        while True:
            await self._link.wait_up()
            self._flight = [publication for publication in self._flight if self._is_wanted(publication)]
            if not self._flight:
                return
            try:
                outcomes = await self._send(self._flight)
            except BackendConnectionError:
                await backoff.sleep()
            else:
                batch, self._flight = self._flight, []
                self._settle(batch, outcomes)
                return

    async def _send(self, batch: Sequence[Publication]) -> Sequence[BaseException | None]:
        try:
            outcomes = await self._link.call("publish", self._link.backend.publish_batch(batch))
            if len(outcomes) != len(batch):
                raise BackendError(f"publish_batch gave {len(outcomes)} outcomes for {len(batch)} publications")
        except BackendConnectionError:
            raise
        except Exception as exc:
            if len(batch) == 1:
                return [exc]
            return [outcome for publication in batch for outcome in await self._send([publication])]
        return outcomes


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
        self._receipts: Final[dict[Key | None, Receipt]] = {}
        self._background: Final = Lane(link, self._settle_background)
        self._awaited: Final = Lane(link, self._settle_awaited, lambda waiting: waiting.key in self._receipts)
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
            self._background.put(data, channels)

    async def wait_published(self, data: bytes, channels: tuple[str, ...], timeout: float) -> None:
        """Return when the broker has accepted an event.

        Raises:
            PublishError: It was refused, or not accepted in time.
            NotStarted: The plugin stops.
        """
        self._check_open()
        publication = self._awaited.put(data, channels)
        receipt = self._receipts[publication.key] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await receipt
        except TimeoutError:
            self._counters.failed += 1
            raise PublishError(
                f"the broker did not accept the event within {timeout} s; it may still appear, once or never"
            ) from self._link.last_error
        finally:
            if self._receipts.pop(publication.key, None) is not None:
                self._awaited.discard(publication)

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
        self._awaited.clear()
        for receipt in self._receipts.values():
            if not receipt.done():
                receipt.set_exception(error)
        return len(self._background.clear())

    def _check_open(self) -> None:
        if not self._open:
            raise NotStarted("the plugin is stopping and takes no more events")

    def _settle_awaited(self, batch: Sequence[Publication], outcomes: Sequence[BaseException | None]) -> None:
        for publication, error in zip(batch, outcomes, strict=True):
            self._counters.published += error is None
            receipt = self._receipts.pop(publication.key, None)
            if receipt is not None and not receipt.done():
                self._give_receipt(receipt, error)

    def _give_receipt(self, receipt: Receipt, error: BaseException | None) -> None:
        if error is None:
            receipt.set_result(None)
            return
        self._counters.failed += 1
        refusal = PublishError(f"the broker refused the event: {error}")
        refusal.__cause__ = error
        receipt.set_exception(refusal)

    def _settle_background(self, batch: Sequence[Publication], outcomes: Sequence[BaseException | None]) -> None:
        if not any(outcomes):
            self._counters.published += len(batch)
            return
        for publication, error in zip(batch, outcomes, strict=True):
            if error is None:
                self._counters.published += 1
            else:
                self._report(publication, error)

    def _report(self, publication: Publication, error: BaseException) -> None:
        self._counters.failed += 1
        self._log.warning("refused", "the broker refused an event for %r: %s", publication.channels, error, exc=error)
        if self._on_error is not None:
            for channel in publication.channels:
                self._tell(self._on_error, Event(channel, publication.data), error)

    def _tell(self, on_error: OnPublishError, event: Event, error: BaseException) -> None:
        try:
            on_error(event, error)
        except Exception:  # the application's code must not stop publishing
            logger.exception("on_publish_error failed")
