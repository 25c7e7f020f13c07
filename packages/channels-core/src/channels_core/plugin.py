"""The plugin: the public face and the lifecycle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from channels_core._joining import Start
from channels_core._link import finish
from channels_core._logging import RateLimitedLogger
from channels_core._runtime import Runtime
from channels_core._settings import Settings
from channels_core.backend import ChannelsBackend
from channels_core.backlog import BacklogStrategy
from channels_core.events import Event, Gap
from channels_core.exceptions import (
    ChannelsException,
    HistoryNotSupported,
    ImproperlyConfigured,
    MessageTooLarge,
    NotStarted,
    SerializationError,
    ShutdownTimeout,
    UnknownChannel,
)
from channels_core.publisher import OnPublishError
from channels_core.registry import create_backend
from channels_core.stats import Counters, Health, Stats
from channels_core.subscriber import Subscriber
from channels_core.subscription import After, Subscription, read_after

__all__ = ("ChannelsPlugin",)

Channels = str | Iterable[str]
"""One name, or several; an iterable is used once."""


class ChannelsPlugin:
    """Owns subscribers and one backend, routes events from the backend into event streams, and publishes.

    A subscriber gets every event of its channels in order and once, or its stream says exactly where something may
    be missing.

    Args:
        backend: An instance, or a URL for `channels_core.registry.create_backend`.
        channels: Names that may be published and subscribed to.
        arbitrary_channels_allowed: Whether any name may be used.
        max_backlog: Live events that may wait in one subscriber; ``None`` for no limit.
        backlog_strategy: What happens when a backlog is full. ``"backoff"`` drops the new event, ``"dropleft"`` the
            oldest; a ``Gap("backlog")`` stands in its place. ``"close"`` ends the stream with `BacklogOverflow`.
            ``"catchup"`` reads what did not fit from history, when the consumer has taken what waits.
        subscriber_class: Made for each subscription.
        encoder: Turns data that is neither bytes nor text into bytes.
        max_pending: The most calls of ``publish`` that may wait for the broker.
        call_timeout: Seconds that one call of the backend may take.
        publish_timeout: Seconds that ``wait_published``, ``subscribe`` and history reads wait for the broker.
        startup_timeout: Seconds that starting keeps trying while the broker is away; 0 fails at once.
        shutdown_timeout: Seconds that stopping waits for the publish queue.
        probe_interval: Seconds of silence after which delivery is proved by a probe; ``None`` for never.
        probe_timeout: Seconds that a probe may take.
        on_publish_error: Called with each event of ``publish`` that the broker refused for good, and why.

    Raises:
        ImproperlyConfigured: Neither ``channels`` nor ``arbitrary_channels_allowed``, or options that contradict
            each other or are out of range.
    """

    def __init__(
        self,
        backend: ChannelsBackend | str,
        *,
        channels: Iterable[str] | None = None,
        arbitrary_channels_allowed: bool = False,
        max_backlog: int | None = None,
        backlog_strategy: BacklogStrategy = "backoff",
        subscriber_class: type[Subscriber] = Subscriber,
        encoder: Callable[[Any], bytes] = msgspec.json.encode,
        max_pending: int = 100_000,
        call_timeout: float = 5.0,
        publish_timeout: float = 30.0,
        startup_timeout: float = 0.0,
        shutdown_timeout: float = 10.0,
        probe_interval: float | None = 15.0,
        probe_timeout: float = 5.0,
        on_publish_error: OnPublishError | None = None,
    ) -> None:
        self.backend: Final = create_backend(backend) if isinstance(backend, str) else backend
        self._settings: Final = Settings(
            channels=frozenset((channels,) if isinstance(channels, str) else channels or ()),
            arbitrary_channels_allowed=arbitrary_channels_allowed,
            max_backlog=max_backlog,
            backlog_strategy=backlog_strategy,
            subscriber_class=subscriber_class,
            encoder=encoder,
            max_pending=max_pending,
            call_timeout=call_timeout,
            publish_timeout=publish_timeout,
            startup_timeout=startup_timeout,
            shutdown_timeout=shutdown_timeout,
            probe_interval=probe_interval,
            probe_timeout=probe_timeout,
            on_publish_error=on_publish_error,
        )
        self._settings.check(keeps_history=self.backend.keeps_history)
        self._takes_any: Final = arbitrary_channels_allowed
        self._most_bytes: Final = sys.maxsize if self.backend.max_payload is None else self.backend.max_payload
        self._counters: Final = Counters()
        self._log: Final = RateLimitedLogger()
        self._runtime: Runtime | None = None
        self._stopped = Health(ok=False, detail="not started", since=time.time())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        except ShutdownTimeout:  # was logged; the body's error says more
            if exc is None:
                raise

    async def start(self) -> None:
        """Connect to the broker and begin to receive.

        Raises:
            BackendConnectionError: The broker is away longer than ``startup_timeout``, or a probe did not come back.
            BackendError: The broker refuses.
            ChannelsException: Started already.
        """
        if self._runtime is not None:
            raise ChannelsException("the plugin is started already; stop it first")
        runtime = self._runtime = Runtime(self.backend, self._settings, self._counters, self._log)
        try:
            await runtime.start()
        except BaseException:
            if self._runtime is runtime:
                self._runtime = None
            raise

    async def stop(self) -> None:
        """Publish what is queued, end all streams normally and disconnect; does nothing when not started.

        Raises:
            ShutdownTimeout: Not everything was published within ``shutdown_timeout``; everything is stopped all the
                same.
        """
        runtime = self._runtime
        if runtime is None or runtime.is_stopping:
            return
        try:
            await runtime.publish_rest()
        finally:
            undelivered = await finish(self._end(runtime))
        if undelivered:
            raise ShutdownTimeout(undelivered=undelivered)

    async def _end(self, runtime: Runtime) -> int:
        undelivered = await runtime.stop()
        self._runtime = None
        self._stopped = Health(ok=False, detail="stopped", since=time.time())
        return undelivered

    def drain(self) -> None:
        """End all streams now, and refuse new ones until the next start; publishing goes on.

        For servers that wait for open connections before they stop: what waits in the streams is discarded.
        """
        if self._runtime is not None:
            self._runtime.end_streams()

    def publish(self, data: Any, channels: Channels) -> None:
        """Encode now, queue, and return at once; callable from the event loop's thread and from any other.

        The event is sent eventually: retried while the broker is away, in order. Per thread, order is kept. An event
        that the broker refuses for good is dropped, counted in ``stats().failed``, logged and handed to
        ``on_publish_error``; the ones behind it go on.

        Args:
            data: Bytes pass through, text becomes UTF-8, anything else goes through the encoder (JSON).
            channels: One name or several.

        Raises:
            UnknownChannel: A channel was not declared.
            SerializationError: The data cannot be encoded.
            MessageTooLarge: More bytes than the backend takes.
            PublishQueueFull: ``max_pending`` events wait already.
            NotStarted: Before the start, or while stopping.
        """
        runtime = self._runtime or self._started()
        # The way of most events, without the calls: each would cost as much as the work.
        if isinstance(channels, str) and (self._takes_any or channels in self._settings.channels):
            names: tuple[str, ...] = (channels,)
        else:
            names = self._names(channels)
        plain = data.__class__ is bytes and len(data) <= self._most_bytes
        runtime.publisher.publish(data if plain else self._encode(data), names)

    async def wait_published(self, data: Any, channels: Channels) -> None:
        """Return when the broker has accepted the event; skips the queue.

        Concurrent calls are gathered into batches; they are ordered neither among each other nor against `publish`.

        Raises:
            PublishError: Refused (some of its channels may have accepted), or not accepted within
                ``publish_timeout``: then it may still appear, once or never.
            UnknownChannel: A channel was not declared.
            SerializationError: The data cannot be encoded.
            MessageTooLarge: More bytes than the backend takes.
            NotStarted: Before the start, or while stopping.
        """
        runtime = self._started()
        names = self._names(channels)
        await runtime.publisher.wait_published(self._encode(data), names, self._settings.publish_timeout)

    def subscribe(
        self,
        channels: Channels,
        *,
        subscriber: Subscriber | None = None,
        keep_open: bool = False,
        history: int | None = None,
        after: After | None = None,
    ) -> Subscription:
        """Subscribe; await the result for a `Subscriber`, or enter it with ``async with``.

        When it gives the subscriber, the broker has confirmed: an event published by anyone afterwards arrives.
        Cancelling it at any await leaves nothing behind.

        Args:
            channels: One name or several; those that the subscriber has already are left as they are.
            subscriber: Join more channels to this existing stream.
            keep_open: The stream outlives its last channel.
            history: Start, at the latest, with the so many newest event of each channel.
            after: Resume from a cursor, its token, or a mapping from channel to position. Wins over ``history`` for
                the channels that it names; entries for other channels are ignored.

        Raises:
            UnknownChannel: A channel was not declared.
            HistoryNotSupported: ``history`` on a backend that keeps none.
            InvalidCursor: ``after`` is no token of ours.
            BackendConnectionError: The broker did not confirm within ``publish_timeout``.
            BackendError: It refused.
            NotStarted: Before the start, or while stopping.
        """
        names = self._names(channels)
        return Subscription(lambda: self._subscribe(names, subscriber, keep_open, history, after))

    def start_subscription(
        self,
        channels: Channels,
        *,
        subscriber: Subscriber | None = None,
        keep_open: bool = False,
        history: int | None = None,
        after: After | None = None,
    ) -> AbstractAsyncContextManager[Subscriber]:
        """Subscribe for the length of an ``async with`` block; see `subscribe`."""
        return self.subscribe(channels, subscriber=subscriber, keep_open=keep_open, history=history, after=after)

    async def unsubscribe(self, subscriber: Subscriber, channels: Channels | None = None) -> None:
        """Leave channels, or all of them; local, immediate, and never fails because of the broker.

        Waiting events of these channels are discarded and none is yielded afterwards. The last channel gone ends the
        stream, unless it is kept open. Channels that the subscriber does not have are no error.
        """
        names = subscriber.channels if channels is None else _unique(channels)
        if self._runtime is not None:
            self._runtime.leave(subscriber, names)
        else:
            subscriber._discard(names)

    async def put_subscriber_history(
        self, subscriber: Subscriber, channels: Channels, limit: int | None = None
    ) -> None:
        """Put in front of a stream those of each channel's last ``limit`` events that it does not bring anyway.

        One channel and one event at a time, oldest first; not part of the backlog.

        Raises:
            ChannelsException: An event of a channel was already consumed, or it is not the subscriber's.
            HistoryNotSupported: The backend keeps no history.
        """
        runtime = self._started()
        self._check_history()
        await runtime.put_history(subscriber, _unique(channels), _checked_limit(limit))

    async def get_history(self, channel: str, limit: int | None = None) -> list[Event]:
        """Read the newest ``limit`` events of a channel, oldest first.

        Raises:
            HistoryNotSupported: The backend keeps no history.
            BackendConnectionError: The broker is away for longer than ``publish_timeout``.
        """
        runtime = self._started()
        self._check_history()
        self._names(channel)
        return await runtime.read_history(channel, _checked_limit(limit))

    def health(self) -> Health:
        """Tell whether the plugin hears its broker."""
        return self._stopped if self._runtime is None else self._runtime.supervisor.current_health()

    def stats(self) -> Stats:
        """Return counters and gauges."""
        counters, runtime = self._counters, self._runtime
        return Stats(
            published=counters.published,
            failed=counters.failed,
            delivered=counters.delivered,
            dropped=counters.dropped,
            gaps=counters.gaps,
            reconnects=counters.reconnects,
            pending=runtime.publisher.pending if runtime else 0,
            subscribers=len(runtime.subscribers) if runtime else 0,
            channels=len(runtime.router) if runtime else 0,
        )

    async def _subscribe(
        self,
        names: tuple[str, ...],
        subscriber: Subscriber | None,
        keep_open: bool,
        history: int | None,
        after: After | None,
    ) -> Subscriber:
        runtime = self._started()
        positions = read_after(after)
        starts: dict[str, Start] = {name: positions.get(name, _checked_limit(history) or None) for name in names}
        disconnected: tuple[str, ...] = ()
        if not self.backend.keeps_history:
            disconnected = tuple(name for name in names if name in positions)
            if len(disconnected) < len(names) and history:
                self._check_history()
            starts = dict.fromkeys(names)
        target = subscriber or runtime.new_subscriber(self, keep_open=keep_open)
        target._keep_open |= keep_open
        await runtime.join(target, starts, disconnected)
        return target

    def _started(self) -> Runtime:
        if self._runtime is None:
            raise NotStarted("the plugin is not started; use 'async with plugin' or await plugin.start()")
        return self._runtime

    def _names(self, channels: Channels) -> tuple[str, ...]:
        names = (channels,) if isinstance(channels, str) else _unique(channels)
        if not self._takes_any:
            for name in names:
                if name not in self._settings.channels:
                    raise UnknownChannel(
                        f"channel {name!r} is not declared; add it to channels, or set arbitrary_channels_allowed=True"
                    )
        return names

    def _encode(self, data: Any) -> bytes:
        payload = data if isinstance(data, bytes) else self._to_bytes(data)
        if len(payload) > self._most_bytes:
            raise MessageTooLarge(
                f"{len(payload)} bytes are more than the backend takes in one event ({self._most_bytes})"
            )
        return payload

    def _to_bytes(self, data: Any) -> bytes:
        try:
            return data.encode() if isinstance(data, str) else self._settings.encoder(data)
        except Exception as exc:
            raise SerializationError(
                f"cannot encode {type(data).__name__}: {exc}; publish bytes, text, or what the encoder takes"
            ) from exc

    def _check_history(self) -> None:
        if not self.backend.keeps_history:
            raise HistoryNotSupported(
                f"{type(self.backend).__name__} keeps no history here; choose a backend that does, "
                "for example with history=100 in its URL"
            )

    def _release(self, subscriber: Subscriber, *, discard: bool) -> None:
        if self._runtime is not None:
            self._runtime.release(subscriber, discard=discard)
        elif discard:
            subscriber._discard(subscriber.channels)

    def _log_gap(self, gap: Gap) -> None:
        self._log.warning(
            ("gap", gap.channel),
            "events of channel %r may be missing (%s) and nobody handles gaps: %r",
            gap.channel,
            gap.reason,
            gap,
        )


def _unique(channels: Channels) -> tuple[str, ...]:
    """Return the names, each once; an iterable is used once."""
    names = (channels,) if isinstance(channels, str) else tuple(dict.fromkeys(channels))
    for name in names:
        if not isinstance(name, str):
            raise UnknownChannel(f"channel names are text, not {name!r}")
    return names


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and limit < 0:
        raise ImproperlyConfigured(f"a limit of {limit} events is negative")
    return limit
