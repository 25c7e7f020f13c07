"""A cluster that moves slots and fails over while events are published."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import pytest

from channels_core.backend import Publication
from channels_core.events import Gap
from channels_core.exceptions import BackendConnectionError, HistoryNotSupported
from channels_core.plugin import ChannelsPlugin
from channels_core.registry import create_backend
from channels_core.testing.stage import Instance
from channels_harness import RedisCluster, RedisServer
from channels_harness.brokers import backend_url
from channels_redis._names import slot_of
from channels_redis._runs import make_keys

Start = Callable[[str], Awaitable[Instance]]
DEADLINE: Final = 40.0

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """A cluster of our own: the tests move its slots and kill its nodes."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture
def url(cluster: RedisCluster) -> str:
    """The URL of its stream backend."""
    return backend_url(cluster.url, "streams", history=1_000)


def execute(node: RedisServer, *words: object) -> Any:
    """Run one command on one node."""
    with node.client() as client:
        run: Any = client.execute_command
        return run(*words)


def owner_of(cluster: RedisCluster, key: bytes) -> RedisServer:
    """Return the node that serves a key, also after slots have moved."""
    rows = execute(cluster.primaries()[0], "CLUSTER", "SLOTS")
    (port,) = [row[2][1] for row in rows if row[0] <= slot_of(key) <= row[1]]
    return next(node for node in cluster.nodes if node.port == port)


class Migration:
    """Moves the slot of one channel to another primary, step by step."""

    def __init__(self, cluster: RedisCluster, channel: str) -> None:
        self.keys = make_keys("channels", channel, 0)
        self.slot = slot_of(self.keys.record)
        self.source = owner_of(cluster, self.keys.record)
        self.target = next(node for node in cluster.primaries() if node is not self.source)
        self._others = [node for node in cluster.primaries() if node not in (self.source, self.target)]

    def begin(self) -> None:
        """Announce it: from now on, keys that are not at the source are asked for at the target."""
        source, target = (execute(node, "CLUSTER", "MYID") for node in (self.source, self.target))
        execute(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        execute(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    def move(self, *keys: bytes) -> None:
        """Move these keys."""
        execute(self.source, "MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *keys)

    def end(self) -> None:
        """Give the slot away; every primary is told, as redis-cli does."""
        target = execute(self.target, "CLUSTER", "MYID")
        for node in (self.target, self.source, *self._others):
            execute(node, "CLUSTER", "SETSLOT", self.slot, "NODE", target)


async def test_publishing_follows_a_slot_that_moves(
    start: Start, url: str, cluster: RedisCluster, channel: str
) -> None:
    """Before, during and after a migration: all is stored, in order and once; half moved, it is retried."""
    instance = await start(url)
    migration = Migration(cluster, channel)
    number = 0

    async def publish_some() -> None:
        nonlocal number
        batch = [Publication(b"%d" % n, (channel,), ("lane", n)) for n in range(number + 1, number + 6)]
        number += 5
        assert not any(await instance.publish_batch(batch))

    await publish_some()
    await asyncio.to_thread(migration.begin)
    await publish_some()
    await asyncio.to_thread(migration.move, migration.keys.record)
    with pytest.raises(BackendConnectionError, match="TRYAGAIN"):
        await publish_some()
    number -= 5
    await asyncio.to_thread(migration.move, migration.keys.stream)
    await publish_some()
    await asyncio.to_thread(migration.end)
    await publish_some()
    events = (await instance.history(channel)).events
    assert [int(event.data) for event in events] == list(range(1, 21))
    assert [event.position.offset for event in events if event.position] == list(range(1, 21))
    assert len({event.position.epoch for event in events if event.position}) == 2


async def test_a_subscriber_of_a_moved_slot_is_told(
    start: Start, url: str, cluster: RedisCluster, channel: str
) -> None:
    """The stream raises when the slot of a subscription moves away, and works again after a restart."""
    instance = await start(url)
    await instance.subscribe(channel)
    migration = Migration(cluster, channel)
    await asyncio.to_thread(migration.begin)
    await asyncio.to_thread(migration.end)
    assert "served by another node" in str(await instance.broken())
    await instance.stop()
    await instance.start()
    await instance.subscribe(channel)
    await instance.publish(b"there", channel)
    assert [event.data for event in await instance.take(1)] == [b"there"]


async def test_each_shard_has_a_probe(start: Start, cluster: RedisCluster) -> None:
    """Every primary is named one private channel, which it serves."""
    instance = await start(cluster.url)
    probes = instance.backend.probe_channels()
    assert len(set(probes)) == 3
    names = [f"channels:{probe}".encode() for probe in probes]
    ports = await asyncio.to_thread(lambda: {owner_of(cluster, name).port for name in names})
    assert len(ports) == 3
    for probe in probes:
        await instance.subscribe(probe)
        await instance.backend.publish_probe(probe, b"alive")
        assert [event.data for event in await instance.take(1)] == [b"alive"]


RIGHTS: Final = {
    "": "&channels:* +ping +ssubscribe +sunsubscribe +spublish +cluster|slots +asking",
    "streams": (
        "~{channels:* &{channels:* +ssubscribe +sunsubscribe +spublish +cluster|slots +asking"
        " +evalsha +script|load +info +hmget +hset +hgetall +hdel +del +xadd +xtrim +xrange +pexpire +time"
    ),
}
"""What the documentation says that a user of a cluster needs."""


@pytest.mark.parametrize("variant", ["", "streams"])
async def test_the_documented_rights_are_enough(
    start: Start, cluster: RedisCluster, channel: str, variant: str
) -> None:
    """A user with exactly these rights can subscribe, publish and read."""
    words = ["ACL", "SETUSER", "someone", "reset", "on", ">secret", *RIGHTS[variant].split()]
    for node in cluster.nodes:
        await asyncio.to_thread(execute, node, *words)
    url = backend_url(cluster.url.replace("://", "://someone:secret@"), variant)
    instance = await start(url)
    await instance.subscribe(channel)
    await instance.publish(b"x", channel)
    assert [event.data for event in await instance.take(1)] == [b"x"]
    await instance.backend.publish_probe(channel, b"y")
    await instance.unsubscribe(channel)
    if variant:
        assert len((await instance.history(channel)).events) == 1


def fail_over(cluster: RedisCluster, key: bytes) -> None:
    """Kill the node that serves a key, and wait for its replica."""
    primary = owner_of(cluster, key)
    primary.kill()
    cluster.wait_promoted(primary)


@pytest.mark.parametrize("variant", ["", "streams"])
async def test_a_failover_is_survived(cluster: RedisCluster, channel: str, variant: str) -> None:
    """A primary dies: its channels go on at the replica, and every lost event lies inside a gap."""
    url = backend_url(cluster.url, variant)
    name = make_keys("channels", channel, 0).record if variant else f"channels:{channel}".encode()
    async with (
        ChannelsPlugin(create_backend(url), channels=[channel]) as plugin,
        plugin.subscribe(channel) as subscriber,
    ):
        items = aiter(subscriber)
        await plugin.wait_published(b"before", channel)
        async with asyncio.timeout(DEADLINE):
            assert getattr(await anext(items), "data", None) == b"before"
        await asyncio.to_thread(fail_over, cluster, name)
        async with asyncio.timeout(DEADLINE):
            # Without history what is published before the gap lies inside it.
            gap = None if variant else await anext(items)
            await plugin.wait_published(b"after", channel)
            gap = gap or await anext(items)
            assert isinstance(gap, Gap)
            assert gap.reason == ("epoch" if variant else "disconnected")
            assert getattr(await anext(items), "data", None) == b"after"
        if not variant:
            with pytest.raises(HistoryNotSupported):
                await plugin.get_history(channel)
    await asyncio.to_thread(cluster.restore)
