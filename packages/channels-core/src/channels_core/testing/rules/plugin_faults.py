"""Through the plugin, faults lose nothing silently: repaired from history, or announced by a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Final

from channels_core.backend import ChannelsBackend, Key, Publication
from channels_core.events import Event, Gap, Position
from channels_core.exceptions import BackendConnectionError, BackendError, ShutdownTimeout
from channels_core.plugin import ChannelsPlugin
from channels_core.subscriber import Subscriber
from channels_core.testing.checker import Checker
from channels_core.testing.delegate import DelegatingBackend
from channels_core.testing.registry import RuleBroken, check, rule
from channels_core.testing.rules.plugin_streams import items_until, make_plugin, next_item, plugin_pair, take_items
from channels_core.testing.stage import Stage

EVENTS: Final = 40

_TWELVE: Final = tuple(b"%d" % number for number in range(12))

SENTINEL_INTERVAL: Final = 0.3
"""Seconds to wait for a sentinel before the next one is published."""

STOP_TIMEOUT: Final = 30.0
"""Seconds within which a plugin must have stopped whatever happens; it needs its `shutdown_timeout` and a little."""


@rule(history=True, hooks=("cut_connections",))
async def a_break_is_repaired_from_history(stage: Stage) -> None:
    """Connections break three times while events are published: a subscriber gets all, in order and once, no gap.

    Troubleshooting: retries must not duplicate, positions must be exact; see the groups retries and history.
    """
    channel, checker = stage.channel(), Checker()
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        checker.joined("s", channel)
        for number in range(EVENTS):
            checker.published(channel, b"%d" % number)
            await publishing.wait_published(b"%d" % number, channel)
            if number in (5, 15, 25):
                await stage.cut_connections()
        for item in await items_until(stage, subscriber, b"%d" % (EVENTS - 1)):
            checker.item("s", item)
            check(isinstance(item, Event), f"history reaches back, and yet came {item}")
    checker.verify()


@rule(history=False, hooks=("cut_connections",))
async def a_break_is_announced_by_a_gap(stage: Stage) -> None:
    """Without history, a break puts one `Gap("disconnected")` per channel; after it, everything arrives again.

    Troubleshooting: `stream_events` must raise when the connection is gone; see `a-broken-connection-is-heard`.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        for number in range(3):
            await publishing.wait_published(b"%d" % number, channel)
            seen = await next_item(stage, subscriber)
            check(isinstance(seen, Event) and seen.data == b"%d" % number, f"received {seen}")
            await stage.cut_connections()
            gap = await next_item(stage, subscriber)
            check(isinstance(gap, Gap) and gap.reason == "disconnected", f"after a break came {gap}")


@rule(hooks=("cut_connections",))
async def queued_events_survive_a_break(stage: Stage) -> None:
    """Events that the plugin's `publish` has queued while connections break all reach the broker, in order.

    Troubleshooting: `publish_batch` raises `BackendConnectionError` when its outcome is unknown, and is sent again.
    """
    channel, checker = stage.channel(), Checker(at_least_once=not stage.subject.keeps_history)
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        checker.joined("s", channel)
        for number in range(EVENTS):
            checker.published(channel, b"%d" % number)
            publishing.publish(b"%d" % number, channel)
            if number % 10 == 5:
                await stage.cut_connections()
                await asyncio.sleep(0)
        await _drained(stage, publishing)
        for item in await _items_until_quiet(stage, publishing, subscriber, channel):
            checker.item("s", item)
    checker.verify()


@rule(history=True, hooks=("lose_memory",))
async def lost_memory_is_announced_by_a_gap(stage: Stage) -> None:
    """When the broker lost its memory, subscribers get one `Gap("epoch")` and then the events of the new epoch.

    Troubleshooting: see `lost-memory-starts-a-new-epoch`.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        await publishing.wait_published(b"before", channel)
        await take_items(stage, subscriber, 1)
        await stage.lose_memory()
        for data in (b"a", b"b"):
            await publishing.wait_published(data, channel)
        items = await items_until(stage, subscriber, b"b")
        gaps = [item for item in items if isinstance(item, Gap)]
        check([gap.reason for gap in gaps] == ["epoch"], f"the gaps are {gaps}")
        check(items[0] == gaps[0], f"the gap does not stand at the border: {items}")
        check([item.data for item in items if isinstance(item, Event)] == [b"a", b"b"], f"received {items}")


@rule(history=True, hooks=("lose_memory",))
async def a_resume_behind_lost_memory_says_so(stage: Stage) -> None:
    """A cursor of before the loss is answered by `Gap("epoch")`, never by events as if they followed.

    Troubleshooting: offsets begin again after a loss; the epoch tells them apart.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving):
        async with receiving.subscribe(channel) as subscriber:
            await publishing.wait_published(b"before", channel)
            await take_items(stage, subscriber, 1)
            token = str(subscriber.cursor)
        await stage.lose_memory()
        for number in range(5):
            await publishing.wait_published(b"%d" % number, channel)
        async with receiving.subscribe(channel, after=token) as subscriber:
            items = await items_until(stage, subscriber, b"4")
            first = items[0]
            check(isinstance(first, Gap) and first.reason == "epoch", f"a resume begins with {first}")


@rule(history=True, hooks=("trim",))
async def a_resume_behind_trimmed_history_says_what_is_missing(stage: Stage) -> None:
    """A cursor older than history is answered by one `Gap("trimmed")` with exact bounds, then by what is left.

    Troubleshooting: see `pages-begin-where-history-does`.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving):
        async with receiving.subscribe(channel) as subscriber:
            await publishing.wait_published(b"0", channel)
            await take_items(stage, subscriber, 1)
            position = subscriber.cursor[channel]
        for number in range(1, 10):
            await publishing.wait_published(b"%d" % number, channel)
        await stage.trim(channel, 3)
        async with receiving.subscribe(channel, after={channel: position}) as subscriber:
            gap = await next_item(stage, subscriber)
            expected = Gap(channel, "trimmed", position, Position(position.epoch, 7), 6)
            check(gap == expected, f"the gap is {gap}, not {expected}")
            rest = [item.data for item in await take_items(stage, subscriber, 3) if isinstance(item, Event)]
            check(rest == [b"7", b"8", b"9"], f"behind the gap came {rest}")


@rule(history=True)
async def a_retry_of_the_plugin_does_not_duplicate(stage: Stage) -> None:
    """The plugin retries a publish whose answer got lost: the event is there once, in its order.

    Troubleshooting: see `a-retry-is-stored-once` and `a-retried-batch-stores-what-is-missing`.
    """
    await _through(stage, _LostAnswers)


@rule(history=True)
async def an_attempt_that_runs_behind_its_retry_does_not_duplicate(stage: Stage) -> None:
    """A first attempt that the broker runs after the plugin's retry, and after newer events, stores nothing.

    Troubleshooting: see `an-abandoned-attempt-behind-its-retry-is-stored-once`.
    """
    await _through(stage, _LateAttempts)


@rule(hooks=("stop_broker", "start_broker"))
async def a_plugin_stops_in_time_while_the_broker_is_away(stage: Stage) -> None:
    """Stopping waits for the publish queue up to `shutdown_timeout`, then raises `ShutdownTimeout`; it never hangs.

    Troubleshooting: see `stopping-is-bounded-while-the-broker-is-away`.
    """
    await stage.company()
    channel = stage.channel()
    plugin = make_plugin(stage)
    await plugin.start()
    await plugin.wait_published(b"before", channel)
    async with stage.broker_stopped():
        for number in range(5):
            plugin.publish(b"%d" % number, channel)
        try:
            await asyncio.wait_for(plugin.stop(), STOP_TIMEOUT)
        except ShutdownTimeout as late:
            check(late.undelivered == 5, f"{late.undelivered} undelivered events are reported instead of 5")
        else:
            raise RuleBroken("the plugin stopped as if everything had been published")


@rule(hooks=("stop_broker", "start_broker"))
async def an_outage_is_survived(stage: Stage) -> None:
    """What is published while the broker is away arrives when it is back, and a subscriber is not left deaf.

    Troubleshooting: see `after-a-break-it-starts-again`; the plugin starts the backend until it works.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        async with stage.broker_stopped():
            publishing.publish(b"meanwhile", channel)
            await _noticed(stage, publishing)
        await _drained(stage, publishing)
        items = await _items_until_quiet(stage, publishing, subscriber, channel)
        told = [item for item in items if isinstance(item, Gap) or item.data == b"meanwhile"]
        check(bool(told), "an event published during the outage is missing, and no gap says so")


async def _drained(stage: Stage, plugin: ChannelsPlugin) -> None:
    deadline = asyncio.get_running_loop().time() + 2 * stage.subject.call_timeout
    while plugin.stats().pending:
        check(asyncio.get_running_loop().time() < deadline, "the publish queue did not become empty")
        await asyncio.sleep(0.01)


async def _noticed(stage: Stage, plugin: ChannelsPlugin) -> None:
    """Give the plugin time to notice and to try; an outage without a sign may take longer, and that is no fault."""
    with suppress(TimeoutError):
        async with asyncio.timeout(stage.subject.call_timeout):
            while plugin.health().ok:  # noqa: ASYNC110 - there is nothing to wait for but its word
                await asyncio.sleep(0.01)


async def _items_until_quiet(
    stage: Stage, publishing: ChannelsPlugin, subscriber: Subscriber, channel: str
) -> list[Event | Gap]:
    """Publish sentinels until one arrives, and give all items before it.

    One is not enough: without history it is lost, and only a gap comes, when the plugin has not noticed the break yet.
    """
    items: list[Event | Gap] = []
    for number in range(int(2 * stage.subject.call_timeout / SENTINEL_INTERVAL)):
        await publishing.wait_published(b"sentinel %d" % number, channel)
        with suppress(TimeoutError):
            async with asyncio.timeout(SENTINEL_INTERVAL):
                while not _is_sentinel(item := await anext(subscriber)):
                    items.append(item)
            return items
    raise RuleBroken(f"the subscriber stayed deaf; it received {items}")


def _is_sentinel(item: Event | Gap) -> bool:
    return isinstance(item, Event) and item.data.startswith(b"sentinel")


async def _through(stage: Stage, wrapper: type[_Unlucky]) -> None:
    """Publish through a backend that reports failures, and expect each event once."""
    channel = stage.channel()
    unlucky = wrapper(stage.subject.make_backend())
    plugin = ChannelsPlugin(unlucky, arbitrary_channels_allowed=True)
    receiving = make_plugin(stage) if stage.several else plugin
    started = nullcontext() if receiving is plugin else receiving
    async with plugin, started, receiving.subscribe(channel) as subscriber:
        await _publish_unluckily(plugin, unlucky, channel)
        items = await items_until(stage, subscriber, b"end")
        stored = [event.data for event in await plugin.get_history(channel)]
    expected = [*_TWELVE, b"end"]
    seen = [item.data if isinstance(item, Event) else item for item in items]
    check(seen == expected, f"with {wrapper.__doc__} came {seen}")
    check(stored == expected, f"with {wrapper.__doc__} history holds {stored}")


async def _publish_unluckily(plugin: ChannelsPlugin, unlucky: _Unlucky, channel: str) -> None:
    for data in _TWELVE:
        await plugin.wait_published(data, channel)
    await unlucky.catch_up()
    await plugin.wait_published(b"end", channel)


class _Unlucky(DelegatingBackend):
    """Reports every third first attempt as failed."""

    def __init__(self, backend: ChannelsBackend) -> None:
        super().__init__(backend)
        self._attempts = 0
        self._tried: set[Key | None] = set()
        self._late: list[Callable[[], Awaitable[object]]] = []

    async def publish(self, data: bytes, channels: Sequence[str], *, key: Key | None = None) -> None:
        await self._attempt(key, lambda: self.backend.publish(data, channels, key=key))

    async def publish_batch(self, batch: Sequence[Publication]) -> list[BackendError | None]:
        kept = tuple(batch)
        await self._attempt(kept[0].key, lambda: self.backend.publish_batch(kept), run=False)
        return await self.backend.publish_batch(kept)

    async def catch_up(self) -> None:
        """Let the broker run what it has not run yet."""
        for attempt in self._late:
            await attempt()

    async def _attempt(self, key: Key | None, call: Callable[[], Awaitable[object]], *, run: bool = True) -> None:
        first = key not in self._tried
        self._tried.add(key)
        self._attempts += first
        if first and self._attempts % 3 == 0:
            await self.fail(call)
            raise BackendConnectionError("the kit abandoned this attempt")
        if run:
            await call()

    async def fail(self, call: Callable[[], Awaitable[object]]) -> None:
        """Decide what becomes of an attempt that is reported as failed."""
        raise NotImplementedError


class _LostAnswers(_Unlucky):
    """attempts that succeeded and were reported as failed"""  # noqa: D415 - part of a message

    async def fail(self, call: Callable[[], Awaitable[object]]) -> None:
        await call()


class _LateAttempts(_Unlucky):
    """attempts that ran late, behind their retries"""  # noqa: D415 - part of a message

    async def fail(self, call: Callable[[], Awaitable[object]]) -> None:
        self._late.append(call)
