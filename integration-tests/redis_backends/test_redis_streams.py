"""What the stream backend promises beyond the conformance kit, on a server that is broken on purpose."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest
import redis

from channels_core.backend import Key, Publication
from channels_core.events import ORIGIN, Position
from channels_core.exceptions import BackendError
from channels_core.testing.stage import Instance
from channels_harness.admin import RedisAdmin
from channels_harness.brokers import Broker, backend_url
from channels_redis import RedisChannelsStreamBackend
from channels_redis._runs import MAX_RUN, ChannelKeys, group_runs, make_keys, pack_runs
from channels_redis._scripts import OUT_OF_ORDER
from channels_redis._wire import pack_words

Start = Callable[[str], Awaitable[Instance]]

CANCELLATIONS: Final = 500


@pytest.fixture
def keys(channel: str) -> ChannelKeys:
    """The names of the test's channel on the server."""
    return make_keys("channels", channel, 0)


async def on_server(broker: Broker, action: Callable[[redis.Redis], object]) -> None:
    """Do something to all primaries, without blocking the event loop."""

    def act() -> None:
        assert isinstance(broker.admin, RedisAdmin)
        with broker.admin.clients() as clients:
            for client in clients:
                try:
                    action(client)
                except redis.exceptions.MovedError:
                    continue

    await asyncio.to_thread(act)


def streams_of(instance: Instance) -> RedisChannelsStreamBackend:
    """Return the backend under an instance."""
    assert isinstance(instance.backend, RedisChannelsStreamBackend)
    return instance.backend


async def position(instance: Instance, channel: str) -> Position:
    return (await instance.tops(channel))[channel]


async def test_a_lost_record_starts_a_new_epoch_without_the_old_events(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """When the record was evicted and the stream was not, the leftover is deleted first."""
    instance = await start(streams_url)
    await instance.publish(b"old", channel)
    before = await position(instance, channel)
    await on_server(redis_broker, lambda client: client.delete(keys.record))
    assert (await instance.history(channel)).top == ORIGIN
    await instance.publish(b"new", channel)
    history = await instance.history(channel)
    assert [event.data for event in history.events] == [b"new"]
    assert history.top.offset == 1
    assert history.top.epoch != before.epoch


async def test_epochs_never_repeat(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """Losing memory again and again on one connection never brings an old epoch back."""
    instance = await start(streams_url)
    seen = set()
    for _ in range(20):
        await instance.publish(b"x", channel)
        seen.add((await position(instance, channel)).epoch)
        await on_server(redis_broker, lambda client: client.delete(keys.record))
    assert len(seen) == 20


async def test_a_lost_stream_keeps_the_positions(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """A deleted or evicted stream costs the history; offsets go on."""
    instance = await start(streams_url)
    await instance.publish(b"one", channel)
    before = await position(instance, channel)
    await on_server(redis_broker, lambda client: client.delete(keys.stream))
    await instance.publish(b"two", channel)
    history = await instance.history(channel, after=before)
    assert [event.position for event in history.events] == [Position(before.epoch, 2)]


async def test_flushed_scripts_come_back_in_order(
    start: Start, streams_url: str, redis_broker: Broker, channel: str
) -> None:
    """``SCRIPT FLUSH`` between and during batches loses, doubles and reorders nothing."""
    instance = await start(streams_url)
    other = f"{channel}-other"
    number = 0
    for _ in range(10):
        batch = []
        for _ in range(300):
            number += 1
            batch.append(Publication(b"%d" % number, (channel,), ("lane", number)))
            batch.append(Publication(b"between", (other,), ("lane", number)))
        flush = on_server(redis_broker, lambda client: client.script_flush())
        outcomes, _ = await asyncio.gather(instance.publish_batch(batch), flush)
        assert not any(outcomes)
    history = await instance.history(channel)
    assert [int(event.data) for event in history.events] == list(range(number - 99, number + 1))
    assert history.top.offset == number


async def test_a_call_never_overtakes_the_one_before_it(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """Of two calls for one channel only the second reached the script: it stores nothing, so the retry is in order."""
    instance = await start(streams_url)
    batch = [Publication(b"%d" % n, (channel,), ("lane", n)) for n in range(1, MAX_RUN + 2)]
    runs, _ = group_runs(batch, lambda _: keys)
    fixed = pack_words(b"incarnation", b"PUBLISH", b"~", b"100", b"0", b"60000", b"60000", b"60000")
    packed = pack_runs(runs, fixed, lambda: b"fresh")
    last = packed[packed.rindex(b"*") :].split(b"\r\n")[2::2]
    replies: list[object] = []
    await on_server(redis_broker, partial(_execute, last, replies))
    assert replies == [OUT_OF_ORDER]
    assert not any(await instance.publish_batch(batch))
    assert [int(event.data) for event in (await instance.history(channel, 2)).events] == [MAX_RUN, MAX_RUN + 1]


def _execute(words: list[bytes], replies: list[object], client: Any) -> None:
    replies.append(client.execute_command(*words))


async def test_lanes_die_by_themselves(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """Numbers of plugins that are gone do not pile up in a busy channel's record."""
    instance = await start(streams_url)
    await instance.publish(b"x", channel, key=("young", 1))
    # As old as a lane and a renewal of the record can get, by the server's own clock.
    past = b"7@1000"
    await on_server(redis_broker, lambda client: client.hset(keys.record, mapping={b":gone": past, b"x": b"1000"}))
    await instance.publish(b"y", channel, key=("young", 2))
    fields: set[bytes] = set()
    await on_server(redis_broker, lambda client: fields.update(_fields(client, keys)))
    assert {field for field in fields if field.startswith(b":")} == {b":young"}


def _fields(client: redis.Redis, keys: ChannelKeys) -> set[bytes]:
    found: Any = client.hkeys(keys.record)
    return set(found)


async def test_an_old_event_is_never_given(
    start: Start, redis_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """``max_age`` holds for each event, also on a busy channel, in all ways of reading."""
    instance = await start(backend_url(redis_url, "streams", history=100, max_age=3600))
    for number in range(40):
        await instance.publish(b"%d" % number, channel)
    await on_server(redis_broker, lambda client: _age(client, keys, 35))
    kept = [b"%d" % number for number in range(35, 40)]
    assert [event.data for event in (await instance.history(channel)).events] == kept
    assert [event.data for event in (await instance.history(channel, 20)).events] == kept
    assert [event.data for event in (await instance.history(channel, 2, after=ORIGIN)).events] == kept[:2]
    # Publishing again removes them from the server too.
    await instance.publish(b"40", channel)
    lengths: list[int] = []
    await on_server(redis_broker, lambda client: lengths.append(int(str(client.xlen(keys.stream)))))
    assert max(lengths) == 6


def _age(client: redis.Redis, keys: ChannelKeys, count: int) -> None:
    """Store the oldest events again, as if they had been published long ago."""
    entries: Any = client.xrange(keys.stream)
    if not entries:
        return
    client.delete(keys.stream)
    for number, (identifier, fields) in enumerate(entries):
        envelope = fields[b"e"]
        if number < count:
            head, _, data = envelope.partition(b"\n")
            envelope = b":".join([*head.split(b":")[:3], b"1000"]) + b"\n" + data
        client.xadd(keys.stream, {b"e": envelope}, id=identifier)


async def test_idle_channels_leave_only_a_record(
    start: Start, redis_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """The history goes with its last event, the record later; both by the server's own expiry."""
    instance = await start(backend_url(redis_url, "streams", history=100, max_age=60, record_ttl=3600))
    await instance.publish(b"x", channel)
    ttls: list[tuple[int, int]] = []

    def look(client: redis.Redis) -> None:
        ttls.append((int(str(client.ttl(keys.stream))), int(str(client.ttl(keys.record)))))

    await on_server(redis_broker, look)
    ((stream, record),) = [ttl for ttl in ttls if ttl[0] > 0]
    assert 55 <= stream <= 70
    assert 3590 <= record <= 3700


async def test_foreign_messages_are_skipped_and_counted(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """Garbage on the live channel and in the stream crashes nobody and is no event."""
    instance = await start(streams_url)
    await instance.subscribe(channel)
    await instance.publish(b"before", channel)
    for garbage in (b"", b"garbage", b"9:e:1:1\nfuture", b"1:e:one:1\n", bytes(range(256))):
        await on_server(redis_broker, partial(_send, redis_broker, keys.live, garbage))
    await on_server(redis_broker, lambda client: client.xadd(keys.stream, {"what": "ever"}, id="1-7"))
    await instance.publish(b"after", channel)
    assert [event.data for event in await instance.take(2)] == [b"before", b"after"]
    assert streams_of(instance).skipped == 5
    assert [event.data for event in (await instance.history(channel)).events] == [b"before", b"after"]
    assert streams_of(instance).skipped == 6


async def test_a_stream_spoilt_by_others_does_not_stop_the_channel(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """An entry with a newer id than ours costs the history, not the channel."""
    instance = await start(streams_url)
    await instance.publish(b"one", channel)
    before = await position(instance, channel)
    await on_server(redis_broker, lambda client: client.xadd(keys.stream, {"what": "ever"}))
    await instance.publish(b"two", channel)
    history = await instance.history(channel, after=before)
    assert [(event.data, event.position) for event in history.events] == [(b"two", Position(before.epoch, 2))]


def _send(broker: Broker, name: bytes, data: bytes, client: Any) -> None:
    client.execute_command("SPUBLISH" if "cluster" in broker.version else "PUBLISH", name, data)


async def test_a_wrong_key_is_refused_alone(
    start: Start, streams_url: str, redis_broker: Broker, channel: str, keys: ChannelKeys
) -> None:
    """A channel whose key somebody else uses fails with a hint; its neighbours in the batch go on."""
    instance = await start(streams_url)
    await on_server(redis_broker, lambda client: client.set(keys.record, b"mine"))
    batch = [Publication(b"x", (name,), ("lane", number)) for number, name in enumerate(("a", channel, "b"), 1)]
    first, refused, last = await instance.publish_batch(batch)
    assert first is None
    assert last is None
    assert isinstance(refused, BackendError)
    assert "key_prefix" in str(refused)


async def test_databases_are_apart(start: Start, redis_broker: Broker, channel: str) -> None:
    """Two applications in two databases of one server share neither history nor live events."""
    if "cluster" in redis_broker.version or "sentinel" in redis_broker.version:
        pytest.skip("a cluster has one database, and Sentinel's test URL names its own")
    url = backend_url(redis_broker.url, "streams", history=100)
    one, two = await start(url), await start(url.replace("/0?", "/1?"))
    for instance in (one, two):
        await instance.subscribe(channel)
    await one.publish(b"one", channel)
    await two.publish(b"two", channel)
    assert [event.data for event in await two.take(1)] == [b"two"]
    assert [event.data for event in (await one.history(channel)).events] == [b"one"]


@pytest.mark.timeout(240)
async def test_cancelled_calls_never_mix_up_answers(start: Start, streams_url: str, channel: str) -> None:
    """Calls cancelled at random moments: every later call gets its own answer, and nothing is stored twice."""
    instance = await start(streams_url)
    backend = instance.backend
    dice = random.Random(6)
    accepted: Key = ("lane", 0)
    for number in range(1, CANCELLATIONS + 1):
        accepted = ("lane", number)
        data = b"%d" % number
        for call in (backend.publish(data, (channel,), key=accepted), backend.get_history(channel, 1)):
            task = asyncio.ensure_future(call)
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await instance.publish(data, channel, key=accepted)
        history = await instance.history(channel, 1)
        assert (history.events[0].data, history.top.offset) == (data, number)


async def test_two_prefixes_never_hear_each_other(start: Start, redis_url: str, channel: str) -> None:
    """Two applications on one server, the same channel: neither live events nor history cross over."""
    one = await start(backend_url(redis_url, "streams", key_prefix="one"))
    two = await start(backend_url(redis_url, "streams", key_prefix="two"))
    for instance in (one, two):
        await instance.subscribe(channel, channel.upper())
    await one.publish(b"one", channel)
    await two.publish(b"TWO", channel.upper())
    await two.publish(b"two", channel)
    assert [(event.channel, event.data) for event in await two.take(2)] == [
        (channel.upper(), b"TWO"),
        (channel, b"two"),
    ]
    assert [event.data for event in (await one.history(channel)).events] == [b"one"]
