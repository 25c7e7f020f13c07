"""A broken connection is heard, and connections are few."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from channels_core.exceptions import BackendConnectionError
from channels_core.testing.registry import RuleBroken, check, rule
from channels_core.testing.stage import Stage

SPARE: Final = 4
"""Connections that calls may open in addition to those of the start: publishing, reading, and one to replace each."""


@rule(hooks=("cut_connections",))
async def a_broken_connection_is_heard(stage: Stage) -> None:
    """When the connection breaks, `stream_events` raises `BackendConnectionError`; it never goes quiet.

    Troubleshooting: look for a driver that reconnects by itself, or a reader that waits for a queue nobody fills.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    await publishing.publish(b"x", channel)
    await receiving.take(1)
    await stage.cut_connections()
    error = await receiving.broken()
    check(isinstance(error, BackendConnectionError), f"stream_events raised {error!r}")


@rule(hooks=("cut_connections",))
async def after_a_break_it_starts_again(stage: Stage) -> None:
    """After a break, `on_shutdown` and `on_startup` give a backend that works, five times.

    Troubleshooting: `on_shutdown` must not fail because the connection is already gone.
    """
    publishing, receiving = await stage.pair()
    for _ in range(5):
        channel = stage.channel()
        await receiving.subscribe(channel)
        await stage.cut_connections()
        await receiving.broken()
        for instance in {receiving, publishing}:
            await instance.stop()
            await instance.start()
        await receiving.subscribe(channel)
        await publishing.publish(b"x", channel)
        await receiving.take(1)


@rule(history=True, hooks=("stop_broker", "start_broker"))
async def reading_works_again_after_an_outage(stage: Stage) -> None:
    """While the broker is away `get_history` and `get_tops` raise; when it is back, they work without a restart.

    Troubleshooting: reopen the connection for reading on the next call, without touching the receiver.
    """
    publishing, reading = await stage.pair()
    channel = stage.channel()
    await publishing.publish(b"before", channel)
    await reading.history(channel)
    await reading.tops(channel)
    async with stage.broker_stopped():
        await stage.fails(reading.backend.get_history(channel), "get_history without a broker")
        await stage.fails(reading.backend.get_tops([channel]), "get_tops without a broker")
    await _at_the_second_try(lambda: reading.tops(channel), "get_tops")
    await _at_the_second_try(lambda: reading.history(channel), "get_history")
    await publishing.publish(b"after", channel)
    page = await reading.history(channel, 1)
    check([event.data for event in page.events] == [b"after"], f"after the outage history ends with {page.events}")
    tops = await reading.tops(channel)
    check(tops == {channel: page.top}, f"after the outage tops are {tops}, history says {page.top}")


@rule(hooks=("connection_count",))
async def calls_open_no_connection_each(stage: Stage) -> None:
    """The number of connections does not grow with the number of calls.

    Troubleshooting: keep one connection for publishing and one (or a small pool) for reading.
    """
    publishing, receiving = await stage.pair()
    channel = stage.channel()
    await receiving.subscribe(channel)
    before = await stage.connection_count()
    for number in range(50):
        await publishing.publish(b"%d" % number, channel)
        if stage.subject.keeps_history:
            await receiving.history(channel, 1)
    grown = await stage.connection_count() - before
    check(grown <= SPARE, f"50 calls of each kind opened {grown} connections")
    await receiving.take(50)


@rule()
async def a_probe_comes_back(stage: Stage) -> None:
    """What `publish_probe` sends to a private channel arrives; `probe_channels` of two instances differ.

    Troubleshooting: send probes the same way as events, so that they prove delivery and not a ping.
    """
    publishing, receiving = await stage.pair()
    private = stage.channel("-probe")
    channels = [private, *receiving.backend.probe_channels()]
    other = (await stage.instance()).backend
    check(not set(channels) & set(other.probe_channels()), f"two instances share probe channels: {channels}")
    await receiving.subscribe(*channels)
    for number, channel in enumerate(channels):
        await publishing.publish_probe(b"%d" % number, channel)
        (event,) = await receiving.take(1)
        check((event.channel, event.data) == (channel, b"%d" % number), f"a probe came back as {event}")


async def _at_the_second_try(call: Callable[[], Awaitable[object]], name: str) -> None:
    """Allow one failure: a connection may be found to be dead by using it."""
    try:
        await call()
    except BackendConnectionError:
        try:
            await call()
        except BackendConnectionError as exc:
            raise RuleBroken(f"{name} does not work again after an outage: {exc!r}") from exc
