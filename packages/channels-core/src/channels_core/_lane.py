"""Lanes: queues whose publications reach the broker in order, one call at a time.

A plugin start has two, one for ``publish`` and one for ``wait_published``. The numbers of a lane ascend, and a retry
resends everything unacknowledged, in order, before anything newer.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from channels_core._link import Backoff, Link
from channels_core._wakeup import Wakeup
from channels_core.backend import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Key, Publication
from channels_core.exceptions import BackendConnectionError, BackendError

__all__ = ("AwaitedLane", "BackgroundLane", "Receipt", "Settle")

T = TypeVar("T")

Receipt = asyncio.Future[None]
"""What a caller of ``wait_published`` waits for."""

Outcomes = Sequence[BaseException | None]
"""One per publication of a batch, ``None`` for accepted."""

Settle = Callable[[Sequence[Publication], Outcomes], None]
"""Told the outcome of each publication of a batch."""


class Lane(ABC, Generic[T]):
    """A queue of what callers handed over, and the batch of it that is on its way.

    Args:
        link: The way to the broker.
        settle: Told the outcomes.

    Attributes:
        queue: What waits; any thread may append.
        flight: The batch on its way.
        wakeup: To be set after appending.
    """

    def __init__(self, link: Link, settle: Settle) -> None:
        self.queue: Final[deque[T]] = deque()
        self.flight: list[Publication] = []
        self.wakeup: Final = Wakeup()
        self.name: Final = uuid.uuid4().hex
        self._link: Final = link
        self._settle: Final = settle
        self._idle: Final = asyncio.Event()
        self._number = 0

    def __len__(self) -> int:
        """Return how many publications have no outcome yet."""
        return len(self.queue) + len(self.flight)

    async def run(self) -> None:
        """Publish what is queued, for ever."""
        while True:
            if not self.queue:
                self._idle.set()
                await self.wakeup.wait()
                self._idle.clear()
            self.flight = self._next_batch()
            await self._deliver()
            await asyncio.sleep(0)  # a backend that never waits must not keep the loop from everybody else

    async def drain(self) -> None:
        """Return when nothing waits any more."""
        while len(self):
            self._idle.clear()
            await self._idle.wait()

    def clear(self) -> int:
        """Forget everything that has no outcome yet; returns how much that was."""
        count = len(self)
        self.flight = []
        self.queue.clear()
        return count

    @abstractmethod
    def _next_batch(self) -> list[Publication]: ...

    @abstractmethod
    def _sizes(self, waiting: list[T]) -> list[int]: ...

    def _take(self) -> list[T]:
        """Take out of the queue what fits into one batch."""
        queue = self.queue
        taken = [queue.popleft() for _ in range(min(len(queue), MAX_BATCH_EVENTS))]
        sizes = self._sizes(taken)
        if sum(sizes) > MAX_BATCH_BYTES:
            fitting = max(1, sum(size <= MAX_BATCH_BYTES for size in itertools.accumulate(sizes)))
            queue.extendleft(reversed(taken[fitting:]))
            del taken[fitting:]
        return taken

    def _wanted(self, batch: list[Publication]) -> list[Publication]:
        """Return what shall be sent, or sent again."""
        return batch

    async def _deliver(self) -> None:
        """Send the batch in flight until the broker answered for all of it."""
        backoff = Backoff()
        while True:
            await self._link.wait_up()
            self.flight = self._wanted(self.flight)
            if not self.flight:
                return
            try:
                outcomes = await self._send(self.flight)
            except BackendConnectionError:
                await backoff.sleep()
            else:
                batch, self.flight = self.flight, []
                self._settle(batch, outcomes)
                return

    async def _send(self, batch: Sequence[Publication]) -> Outcomes:
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


class BackgroundLane(Lane[tuple[bytes, tuple[str, ...]]]):
    """The lane of ``publish``: data and channels wait in the order in which threads appended them.

    Numbers are given when a batch is made. Threads that numbered first and appended then could overtake each other
    in between, and a number that comes late is taken for a retry.
    """

    def _next_batch(self) -> list[Publication]:
        taken = self._take()
        name, first = self.name, self._number + 1
        self._number += len(taken)
        return [Publication(data, channels, (name, n)) for n, (data, channels) in enumerate(taken, first)]

    def _sizes(self, waiting: list[tuple[bytes, tuple[str, ...]]]) -> list[int]:
        return [len(data) for data, _ in waiting]


class AwaitedLane(Lane[Publication]):
    """The lane of ``wait_published``: whoever gave up waiting is not sent, or not again."""

    def __init__(self, link: Link, settle: Settle) -> None:
        super().__init__(link, settle)
        self._receipts: Final[dict[Key | None, Receipt]] = {}

    async def publish(self, data: bytes, channels: tuple[str, ...]) -> None:
        """Return when the broker has accepted an event; raises what the receipt is given."""
        self._number += 1
        publication = Publication(data, channels, (self.name, self._number))
        receipt = self._receipts[publication.key] = asyncio.get_running_loop().create_future()
        self.queue.append(publication)
        self.wakeup.set()
        try:
            await receipt
        finally:
            if self._receipts.pop(publication.key, None) is not None:
                with suppress(ValueError):  # it is on its way
                    self.queue.remove(publication)

    def take_receipt(self, publication: Publication) -> Receipt | None:
        """Return what its caller waits for, who is told next; ``None`` where nobody waits any more."""
        receipt = self._receipts.pop(publication.key, None)
        return None if receipt is None or receipt.done() else receipt

    def fail(self, error: BaseException) -> None:
        """Forget everything, and let all who wait raise this."""
        self.clear()
        for receipt in self._receipts.values():
            if not receipt.done():
                receipt.set_exception(error)

    def _next_batch(self) -> list[Publication]:
        return self._take()

    def _sizes(self, waiting: list[Publication]) -> list[int]:
        return [len(publication.data) for publication in waiting]

    def _wanted(self, batch: list[Publication]) -> list[Publication]:
        return [publication for publication in batch if publication.key in self._receipts]
