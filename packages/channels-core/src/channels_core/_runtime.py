"""One run of a plugin, from start to stop: the parts, their tasks and the subscribers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from channels_core._joining import Joiner, Start
from channels_core._link import GRACE, Link, finish
from channels_core._logging import RateLimitedLogger, logger
from channels_core._settings import Settings
from channels_core.backend import ChannelsBackend
from channels_core.backlog import Backlog
from channels_core.events import Event, Gap, Position
from channels_core.exceptions import BackendConnectionError, ChannelsException, NotStarted
from channels_core.publisher import Publisher
from channels_core.router import Router
from channels_core.stats import Counters
from channels_core.subscriber import Subscriber
from channels_core.supervisor import Supervisor

if TYPE_CHECKING:
    from channels_core.plugin import ChannelsPlugin

T = TypeVar("T")


class Runtime:
    """Everything that lives between start and stop; made in the event loop that runs it."""

    def __init__(
        self, backend: ChannelsBackend, settings: Settings, counters: Counters, log: RateLimitedLogger
    ) -> None:
        self._settings: Final = settings
        self._counters: Final = counters
        self._log: Final = log
        self.link: Final = Link(backend, settings.call_timeout)
        self.router: Final = Router(self.link, counters, log, settings.max_backlog)
        self._joiner: Final = Joiner(self.router, self.link, counters, log)
        self.publisher: Final = Publisher(
            self.link, counters, log, max_pending=settings.max_pending, on_error=settings.on_publish_error
        )
        self.supervisor: Final = Supervisor(
            self.link,
            self.router,
            counters,
            log,
            probe_interval=settings.probe_interval,
            probe_timeout=settings.probe_timeout,
        )
        self.subscribers: Final[dict[Backlog, Subscriber]] = {}
        self.is_stopping = False
        self._is_draining = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when the first session is up.

        Raises:
            BackendConnectionError: The broker is away longer than ``startup_timeout``.
            BackendError: It refuses.
        """
        supervising = asyncio.create_task(
            self.supervisor.run(self._settings.startup_timeout), name="channels: supervisor"
        )
        self._tasks = [supervising, asyncio.create_task(self.publisher.run(), name="channels: publisher")]
        started = asyncio.ensure_future(self.supervisor.wait_started())
        try:
            await asyncio.wait((supervising, started), return_when=asyncio.FIRST_COMPLETED)
            if supervising.cancelled():
                raise NotStarted("the plugin was stopped while it started")
            if supervising.done():
                supervising.result()
        except BaseException:
            await finish(self.stop())
            raise
        finally:
            started.cancel()

    async def publish_rest(self) -> None:
        """Publish what is queued, for at most ``shutdown_timeout``."""
        self.is_stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_timeout):
                await self.publisher.drain()

    async def stop(self) -> int:
        """End all streams and tasks, in bounded time; returns how many queued events were given up."""
        self.is_stopping = True
        self.publisher.close()
        for subscriber in tuple(self.subscribers.values()):
            subscriber._backlog.end()
        self.subscribers.clear()
        self.link.end()
        await self.router.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=self._settings.call_timeout + 2 * GRACE)
        self.router.clear()
        undelivered = self.publisher.abandon()
        if undelivered:
            logger.error("stopped with %d published events not accepted by the broker", undelivered)
        return undelivered

    def lag(self, stream: Backlog, channel: str, last: Position) -> bool:
        """Read on for a stream whose backlog is full."""
        return self._joiner.lag(stream, channel, last)

    def feed(self, stream: Backlog) -> None:
        """Read on for a stream whose consumer waits."""
        self._joiner.feed(stream)

    def overflow(self, stream: Backlog) -> None:
        """Take a stream that ended because it was full out of everything."""
        if stream in self.subscribers:
            self.release(self.subscribers[stream], discard=False)

    def end_streams(self) -> None:
        """End all streams, discard what waits, and refuse new ones."""
        self._is_draining = True
        for subscriber in tuple(self.subscribers.values()):
            self.release(subscriber, discard=True)

    def new_subscriber(self, plugin: ChannelsPlugin, *, keep_open: bool) -> Subscriber:
        """Make a subscriber without channels."""
        settings = self._settings
        backlog = Backlog(settings.max_backlog, settings.backlog_strategy, self._counters, self._log)
        subscriber = settings.subscriber_class(plugin, backlog, keep_open=keep_open)
        backlog.owner = self
        return subscriber

    async def join(self, subscriber: Subscriber, starts: Mapping[str, Start], disconnected: Collection[str]) -> None:
        """Subscribe to channels that the subscriber does not have yet.

        Args:
            subscriber: Whose stream gets them.
            starts: Where it begins in each.
            disconnected: Channels whose resume is not possible: a gap stands in front of them.
        """
        shared = subscriber._backlog in self.subscribers
        async with subscriber._join_lock() if shared else nullcontext():
            self._check_running()
            new = {name: start for name, start in starts.items() if name not in subscriber._seen}
            begins = self._joiner.join_open(subscriber._backlog, new)
            if begins is None:
                joining = self._joiner.join(subscriber._backlog, new)
                begins = await self._in_time(joining, "the broker did not confirm the subscription")
            if subscriber.ended or self.is_stopping or self._is_draining:
                self._joiner.leave(subscriber._backlog, new)
                subscriber._backlog.discard(new)
                self._check_running()
                raise ChannelsException("the stream has ended; subscribe without subscriber= for a new one")
            for name in disconnected:
                if name in new:
                    subscriber._backlog.push_gap(Gap(name, "disconnected"))
            subscriber._begin(begins)
            if subscriber._seen or subscriber._keep_open:
                self.subscribers[subscriber._backlog] = subscriber
            else:
                subscriber._backlog.end()

    def _check_running(self) -> None:
        if self.is_stopping or self._is_draining:
            raise NotStarted("the plugin is stopping and takes no more subscribers")

    async def put_history(self, subscriber: Subscriber, channels: Collection[str], limit: int | None) -> None:
        """Put history in front of a stream of which nothing was consumed yet."""
        starts = {channel: subscriber._not_consumed(channel) for channel in channels}
        fronts = await self._in_time(self._joiner.read_before(starts, limit), "the broker gave no history")
        if any(subscriber._not_consumed(channel) != start for channel, start in starts.items()):
            raise ChannelsException("history was put in front of this stream by somebody else meanwhile")
        for channel, (begin, _) in zip(channels, fronts, strict=True):
            subscriber._seen[channel] = begin
        self._joiner.put_front(subscriber._backlog, [item for _, items in fronts for item in items])

    async def read_history(self, channel: str, limit: int | None) -> list[Event]:
        """Read the newest events of a channel, oldest first."""
        history = await self._in_time(self.link.read(channel, limit), "the broker gave no history")
        return list(history.events)

    async def _in_time(self, work: Coroutine[Any, Any, T], failure: str) -> T:
        timeout = self._settings.publish_timeout
        try:
            async with asyncio.timeout(timeout):
                return await work
        except TimeoutError:
            raise BackendConnectionError(f"{failure} within {timeout} s") from self.link.last_error

    def leave(self, subscriber: Subscriber, channels: Collection[str]) -> None:
        """Take a subscriber out of channels and discard what waits of them."""
        self._joiner.leave(subscriber._backlog, channels)
        subscriber._discard(channels)
        if not subscriber._seen and not subscriber._keep_open:
            self.release(subscriber, discard=True)

    def release(self, subscriber: Subscriber, *, discard: bool) -> None:
        """Take a subscriber out of everything and end its stream."""
        channels = subscriber.channels
        self._joiner.leave(subscriber._backlog, channels)
        if discard:
            subscriber._discard(channels)
        subscriber._backlog.end()
        self.subscribers.pop(subscriber._backlog, None)
