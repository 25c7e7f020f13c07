"""Failovers behind Sentinel that close nothing by themselves: the old primary lives on, as a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest

from channels_core.events import Gap
from channels_core.plugin import ChannelsPlugin
from channels_core.registry import create_backend
from channels_core.testing.stage import Instance
from channels_harness import RedisSentinel, RedisServer
from channels_harness.brokers import backend_url

Start = Callable[[str], Awaitable[Instance]]
DEADLINE: Final = 40.0

VARIANTS: Final = pytest.mark.parametrize("variant", ["", "streams"])
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def sentinel() -> Iterator[RedisSentinel]:
    """A group of our own: the tests move its primary."""
    with RedisSentinel() as sentinel:
        yield sentinel


def execute(node: RedisServer, *words: object) -> Any:
    """Run one command on one node."""
    with node.client() as client:
        run: Any = client.execute_command
        return run(*words)


def switch(sentinel: RedisSentinel) -> None:
    """Let the Sentinels promote a replica while the primary is well."""
    old = sentinel.primary
    execute(sentinel.sentinels[0], "SENTINEL", "FAILOVER", "channels")
    sentinel.wait_promoted(old)
    sentinel.start()


@VARIANTS
async def test_a_switch_is_noticed(sentinel: RedisSentinel, channel: str, variant: str) -> None:
    """Nobody died, but the primary is another one: the stream goes on there and says so."""
    backend = create_backend(backend_url(sentinel.url, variant))
    async with (
        ChannelsPlugin(backend, channels=[channel], probe_interval=0.5, probe_timeout=0.5) as plugin,
        plugin.subscribe(channel) as subscriber,
    ):
        items = aiter(subscriber)
        await plugin.wait_published(b"before", channel)
        async with asyncio.timeout(DEADLINE):
            assert getattr(await anext(items), "data", None) == b"before"
        await asyncio.to_thread(switch, sentinel)
        async with asyncio.timeout(DEADLINE):
            # Without history what is published before the gap lies inside it.
            gap = None if variant else await anext(items)
            await plugin.wait_published(b"after", channel)
            gap = gap or await anext(items)
            assert isinstance(gap, Gap)
            assert gap.reason == ("epoch" if variant else "disconnected")
            assert getattr(await anext(items), "data", None) == b"after"


@VARIANTS
async def test_the_documented_rights_are_enough(
    start: Start, sentinel: RedisSentinel, channel: str, variant: str
) -> None:
    """Behind Sentinel a user needs INFO on top of what a single server asks for."""
    rights = {
        "": "&channels:* +subscribe +unsubscribe +publish +ping +info",
        "streams": (
            "~{channels:* &{channels:* +subscribe +unsubscribe +publish +evalsha +script|load +info"
            " +hmget +hset +hgetall +hdel +del +xadd +xtrim +xrange +pexpire +time"
        ),
    }
    words = ["ACL", "SETUSER", "someone", "reset", "on", ">secret", *rights[variant].split()]
    for node in sentinel.nodes:
        await asyncio.to_thread(execute, node, *words)
    instance = await start(backend_url(sentinel.url.replace("://", "://someone:secret@"), variant))
    await instance.subscribe(channel)
    await instance.publish(b"x", channel)
    assert [event.data for event in await instance.take(1)] == [b"x"]


@VARIANTS
async def test_a_demoted_primary_is_left(start: Start, sentinel: RedisSentinel, channel: str, variant: str) -> None:
    """Connections made after a switch lead to the new primary."""
    instance = await start(backend_url(sentinel.url, variant))
    await instance.publish(b"one", channel)
    await asyncio.to_thread(switch, sentinel)
    await instance.stop()
    await instance.start()
    await instance.subscribe(channel)
    await instance.publish(b"two", channel)
    assert [event.data for event in await instance.take(1)] == [b"two"]
    if variant:
        events = (await instance.history(channel)).events
        assert [event.data for event in events] == [b"one", b"two"]
        assert len({event.position.epoch for event in events if event.position}) == 2
