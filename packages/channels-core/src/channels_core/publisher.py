"""Publishing: the way in, from any thread, and what becomes of each event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from channels_core._lane import AwaitedLane, BackgroundLane, Receipt
from channels_core._link import Link
from channels_core._logging import RateLimitedLogger, logger
from channels_core.backend import Publication
from channels_core.events import Event
from channels_core.exceptions import NotStarted, PublishError, PublishQueueFull
from channels_core.stats import Counters

__all__ = ("OnPublishError", "Publisher")

OnPublishError = Callable[[Event, BaseException], None]
"""Called with each event that the broker refused for good."""


class Publisher:
    """Takes events in and gets them to the broker.

    Args:
        link: The way to the broker.
        counters: Shared with the plugin.
        log: Shared with the plugin.
        max_pending: The most calls of ``publish`` that may wait; threads that call at the same moment may pass it by
            as many as they are.
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
        self._background: Final = BackgroundLane(link, self._settle_background)
        self._awaited: Final = AwaitedLane(link, self._settle_awaited)
        self._open = True
        self._abandoned = False

    @property
    def pending(self) -> int:
        """How many calls wait for the broker."""
        return len(self._background) + len(self._awaited)

    def publish(self, data: bytes, channels: tuple[str, ...]) -> None:
        """Queue an event; callable from any thread.

        Takes no lock, which would cost more than all the rest: appending is atomic, and what stopping may have missed
        is looked for afterwards.

        Raises:
            PublishQueueFull: ``max_pending`` events wait already.
            NotStarted: The plugin stops.
        """
        if not self._open:
            self._refuse()
        lane = self._background
        if len(lane.queue) + len(lane.flight) >= self._max_pending:
            raise PublishQueueFull(
                f"{self._max_pending} events wait to be published; slow down, use wait_published, or raise max_pending"
            )
        waiting = (data, channels)
        lane.queue.append(waiting)
        if not lane.wakeup.is_set:
            lane.wakeup.set()
        if self._abandoned:
            self._take_back(waiting)

    async def wait_published(self, data: bytes, channels: tuple[str, ...], timeout: float) -> None:
        """Return when the broker has accepted an event.

        Raises:
            PublishError: It was refused, or not accepted in time.
            NotStarted: The plugin stops.
        """
        if not self._open:
            self._refuse()
        try:
            async with asyncio.timeout(timeout):
                await self._awaited.publish(data, channels)
        except TimeoutError:
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
        self._open = False

    def abandon(self) -> int:
        """Give up on what waits; returns how many calls of ``publish`` that were."""
        self._awaited.fail(NotStarted("the plugin was stopped before the broker accepted the event"))
        self._abandoned = True  # first: another thread that appends after the next line looks for it
        return self._background.clear()

    def _take_back(self, waiting: tuple[bytes, tuple[str, ...]]) -> None:
        """Refuse what another thread appended when nobody was left to publish it; unless that was still counted."""
        try:
            self._background.queue.remove(waiting)
        except ValueError:
            return
        self._refuse()

    def _refuse(self) -> None:
        raise NotStarted("the plugin is stopping and takes no more events")

    def _settle_awaited(self, batch: Sequence[Publication], outcomes: Sequence[BaseException | None]) -> None:
        for publication, error in zip(batch, outcomes, strict=True):
            self._counters.published += error is None
            receipt = self._awaited.take_receipt(publication)
            if receipt is not None:
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
