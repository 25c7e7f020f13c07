"""What the Pub/Sub backend promises beyond the conformance kit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis

from channels_core.testing.stage import Instance
from channels_harness.brokers import Broker, backend_url

Start = Callable[[str], Awaitable[Instance]]

MANY: Final = 12_000


def _publish_command(broker: Broker) -> str:
    return "SPUBLISH" if "cluster" in broker.version else "PUBLISH"


def _publish_bare(broker: Broker, name: str, data: bytes) -> None:
    command: Any
    with broker.admin.clients() as clients:  # type: ignore[attr-defined]  # every Redis broker has them
        for client in clients:
            command = client.execute_command
            try:
                command(_publish_command(broker), name, data)
            except redis.exceptions.MovedError:
                continue


async def test_anybody_can_publish(start: Start, redis_url: str, redis_broker: Broker, channel: str) -> None:
    """A plain PUBLISH to ``channels:NAME`` with any bytes reaches subscribers as it is."""
    instance = await start(redis_url)
    await instance.subscribe(channel)
    payload = bytes(range(256))
    await asyncio.to_thread(_publish_bare, redis_broker, f"channels:{channel}", payload)
    assert [event.data for event in await instance.take(1)] == [payload]


async def test_anybody_can_listen(start: Start, redis_url: str, redis_broker: Broker, channel: str) -> None:
    """What goes over the wire is the event's own bytes, on the documented Redis channel."""
    if "cluster" in redis_broker.version:
        return  # the driver of the harness has no sharded listener; the next test listens through us
    instance = await start(redis_url)
    with redis_broker.admin.clients() as (client,):  # type: ignore[attr-defined]  # every Redis broker has them
        listener = client.pubsub()
        listener.subscribe(f"channels:{channel}")
        assert (await asyncio.to_thread(listener.get_message, timeout=5))["type"] == "subscribe"
        await instance.publish(b"\x00\xff", channel)
        assert (await asyncio.to_thread(listener.get_message, timeout=5))["data"] == b"\x00\xff"
        listener.close()


async def test_two_prefixes_never_hear_each_other(start: Start, redis_url: str, channel: str) -> None:
    """Two applications on one server; names are byte-exact, so case matters."""
    one = await start(backend_url(redis_url, key_prefix="one"))
    two = await start(backend_url(redis_url, key_prefix="two"))
    for instance in (one, two):
        await instance.subscribe(channel, channel.upper())
    await one.publish(b"one", channel)
    await two.publish(b"TWO", channel.upper())
    assert [(event.channel, event.data) for event in await two.take(1)] == [(channel.upper(), b"TWO")]


async def test_thousands_of_channels_at_once(start: Start, redis_url: str, channel: str) -> None:
    """More names than one command takes are all confirmed, and all gone again afterwards."""
    instance = await start(redis_url)
    names = [f"{channel}-{number}" for number in range(MANY)]
    await instance.subscribe(*names)
    for name in (names[0], names[4_999], names[5_000], names[-1]):
        await instance.publish(name.encode(), name)
        assert [event.channel for event in await instance.take(1)] == [name]
    await instance.unsubscribe(*names)
    await instance.subscribe(names[7])
    await instance.publish(b"gone", names[8])
    await instance.publish(b"there", names[7])
    assert [event.data for event in await instance.take(1)] == [b"there"]
