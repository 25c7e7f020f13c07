"""Streams through the plugin are exact: joins, resumes, names and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from channels_core.events import Cursor, Event, Gap
from channels_core.exceptions import MessageTooLarge
from channels_core.plugin import ChannelsPlugin
from channels_core.subscriber import Subscriber
from channels_core.testing.checker import Checker
from channels_core.testing.registry import NotApplicable, NotProved, RuleBroken, check, rule
from channels_core.testing.rules.history import position_of
from channels_core.testing.rules.payloads import LARGEST
from channels_core.testing.stage import Stage

JOINS: Final = 20

SHUTDOWN_TIMEOUT: Final = 0.5
"""Seconds that a stopping plugin waits for its queue; short, because some rules let it run out."""


def make_plugin(stage: Stage) -> ChannelsPlugin:
    """Make a plugin around a fresh backend."""
    return ChannelsPlugin(
        stage.subject.make_backend(), arbitrary_channels_allowed=True, shutdown_timeout=SHUTDOWN_TIMEOUT
    )


@asynccontextmanager
async def plugin_pair(stage: Stage) -> AsyncIterator[tuple[ChannelsPlugin, ChannelsPlugin]]:
    """Start the publishing and the receiving plugin: one and the same, or two."""
    async with make_plugin(stage) as receiving:
        if not stage.several:
            yield receiving, receiving
            return
        async with make_plugin(stage) as publishing:
            yield publishing, receiving


async def take_items(stage: Stage, subscriber: Subscriber, count: int) -> list[Event | Gap]:
    """Wait for the next items of a stream."""
    return [await next_item(stage, subscriber) for _ in range(count)]


async def next_item(stage: Stage, subscriber: Subscriber) -> Event | Gap:
    """Wait for the next item of a stream."""
    try:
        return await asyncio.wait_for(anext(subscriber), stage.subject.call_timeout)
    except TimeoutError:
        raise RuleBroken(f"no further item came within {stage.subject.call_timeout} s") from None


async def items_until(stage: Stage, subscriber: Subscriber, data: bytes) -> list[Event | Gap]:
    """Wait for the event with this payload; gives all items up to and with it."""
    items = [await next_item(stage, subscriber)]
    while not (isinstance(items[-1], Event) and items[-1].data == data):
        items.append(await next_item(stage, subscriber))
    return items


@rule()
async def a_plugin_delivers_once_per_channel(stage: Stage) -> None:
    """Through the plugin, an event for two channels comes once under each name, to each of several subscribers.

    Troubleshooting: the backend must deliver each event once per channel, whatever the number of subscribers.
    """
    channels = stage.channels(2)
    async with plugin_pair(stage) as (publishing, receiving):
        subscribers = [await receiving.subscribe(channels) for _ in range(2)]
        publishing.publish(b"x", channels)
        await publishing.wait_published(b"end", channels)
        for subscriber in subscribers:
            seen = sorted((item.channel, _data(item)) for item in await take_items(stage, subscriber, 4))
            check(seen == sorted((name, data) for name in channels for data in (b"x", b"end")), f"came {seen}")


@rule()
async def one_shot_iterators_reach_every_channel(stage: Stage) -> None:
    """Channels given as a generator are all subscribed, published to and left.

    Troubleshooting: materialise an iterable before its second use; `publish` gets a tuple from the plugin.
    """
    channels = stage.channels(3)
    async with plugin_pair(stage) as (publishing, receiving):
        subscriber = await receiving.subscribe(name for name in channels)
        await publishing.wait_published(b"x", (name for name in channels))
        publishing.publish(b"y", iter(channels))
        seen = sorted((item.channel, _data(item)) for item in await take_items(stage, subscriber, 6))
        check(seen == sorted((name, data) for name in channels for data in (b"x", b"y")), f"came {seen}")
        await receiving.unsubscribe(subscriber, (name for name in channels))
        check(not subscriber.channels, f"left all three, and {subscriber.channels} stayed")


@rule()
async def queued_events_keep_their_order(stage: Stage) -> None:
    """500 calls of the plugin's `publish` arrive in order and once.

    Troubleshooting: they come in batches; see the rules on `publish_batch`.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        for number in range(500):
            publishing.publish(b"%d" % number, channel)
        seen = [_data(item) for item in await take_items(stage, subscriber, 500)]
        check(seen == [b"%d" % number for number in range(500)], f"arrived as {seen[:10]} …")


@rule()
async def too_large_is_said_by_the_plugin(stage: Stage) -> None:
    """The plugin refuses a payload of `max_payload` plus one byte with `MessageTooLarge`, and goes on.

    Troubleshooting: declare `max_payload` as the size of the event's own bytes.
    """
    limit = stage.subject.max_payload
    if limit is None:
        raise NotApplicable("no limit is declared")
    if limit >= LARGEST:
        raise NotProved(f"the declared limit is {limit} bytes, and the kit sends less than {LARGEST}")
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving), receiving.subscribe(channel) as subscriber:
        try:
            publishing.publish(bytes(limit + 1), channel)
        except MessageTooLarge:
            publishing.publish(b"next", channel)
        else:
            raise RuleBroken(f"{limit + 1} bytes were queued, the declared limit is {limit}")
        check(_data(await next_item(stage, subscriber)) == b"next", "the next event did not come first")


@rule(history=True)
async def joins_are_exact(stage: Stage) -> None:
    """Joins with history under a running publisher: no gap, no duplicate, nothing reordered, 20 times.

    Troubleshooting: see `top-is-read-together-with-history` and `subscribe-returns-when-it-is-confirmed`.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving):
        numbers = _Numbers(publishing, channel)
        async with numbers:
            for number in range(JOINS):
                await _join(stage, receiving, numbers, limit=(5, 20, 1, 50)[number % 4])


@rule(history=True)
async def a_resume_is_exact(stage: Stage) -> None:
    """A stream resumed from its cursor's token begins with the next event, and goes on live without a hole.

    Troubleshooting: `after` must be exclusive, and give the oldest events first.
    """
    channel = stage.channel()
    checker = Checker()
    async with plugin_pair(stage) as (publishing, receiving):
        async with receiving.subscribe(channel) as subscriber:
            checker.joined("s", channel)
            token = str(subscriber.cursor)
        for number in range(10):
            data = b"%d" % number
            checker.published(channel, data)
            await publishing.wait_published(data, channel)
            async with receiving.subscribe(channel, after=Cursor.parse(token)) as subscriber:
                if number % 3 == 2:
                    for item in await take_items(stage, subscriber, 3):
                        checker.item("s", item)
                    token = str(subscriber.cursor)
        async with receiving.subscribe(channel, after=token) as subscriber:
            for item in await take_items(stage, subscriber, 1):
                checker.item("s", item)
    checker.verify()


@rule(history=True)
async def who_asks_for_no_history_gets_none(stage: Stage) -> None:
    """A subscriber without `history` and without `after` starts with the first event after its join.

    Troubleshooting: see `joining-again-replays-nothing`.
    """
    channel = stage.channel()
    async with plugin_pair(stage) as (publishing, receiving):
        for number in range(5):
            await publishing.wait_published(b"old", channel)
            async with receiving.subscribe(channel) as subscriber:
                await publishing.wait_published(b"%d" % number, channel)
                check(_data(await next_item(stage, subscriber)) == b"%d" % number, "an old event came")


@rule()
async def a_plugin_starts_again(stage: Stage) -> None:
    """Start, stop and start of a plugin works; the restarted one publishes and receives.

    Troubleshooting: see `a-stopped-backend-starts-again`.
    """
    await stage.company()
    plugin, channel = make_plugin(stage), stage.channel()
    for number in range(3):
        async with plugin, plugin.subscribe(channel) as subscriber:
            await plugin.wait_published(b"%d" % number, channel)
            check(_data(await next_item(stage, subscriber)) == b"%d" % number, "an event of before came")


class _Numbers:
    """Publishes consecutive numbers in the background."""

    def __init__(self, plugin: ChannelsPlugin, channel: str) -> None:
        self.channel = channel
        self.done = 0
        self._plugin = plugin

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._publish())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _publish(self) -> None:
        while True:
            await self._plugin.wait_published(b"%d" % (self.done + 1), self.channel)
            self.done += 1
            await asyncio.sleep(0)


async def _join(stage: Stage, receiving: ChannelsPlugin, numbers: _Numbers, limit: int) -> None:
    checker = Checker()
    async with receiving.subscribe(numbers.channel, history=limit) as subscriber:
        stored = numbers.done + 1  # the broker may have one more than the publisher was told
        items = await take_items(stage, subscriber, limit + 5)
        for item in items:
            checker.item("joiner", item)
    _check_start(items, max(1, stored - limit + 1))
    check(not [item for item in items if isinstance(item, Gap)], f"a join brought a gap: {items}")
    checker.verify()


def _check_start(items: Sequence[Event | Gap], latest: int) -> None:
    first = items[0]
    check(isinstance(first, Event), f"a join begins with {first}")
    if isinstance(first, Event):
        offset = position_of(first).offset
        check(offset <= latest, f"history should begin at offset {latest} or before, it begins at {offset}")


def _data(item: Event | Gap) -> bytes:
    check(isinstance(item, Event), f"a gap came where none belongs: {item}")
    return item.data if isinstance(item, Event) else b""
