"""A broken connection is heard, and connections are few."""

from __future__ import annotations

from typing import Final

from channels_core.exceptions import BackendConnectionError
from channels_core.testing.registry import check, rule
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
